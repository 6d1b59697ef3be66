package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"sallyport/dataplane/transform"
)

func (a *Address) parse(text string) error {
	addr, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		return fmt.Errorf("%q is not an IP address", shorten(text))
	case addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast() || addr.Is4In6() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("%s cannot be the address of a tunnel endpoint; name one unicast address", shorten(text))
	}
	a.Addr = addr
	return nil
}

// AutoInt is a whole number or auto, which is 0.
type AutoInt int

func (n *AutoInt) parse(text string) error {
	if text == "auto" {
		*n = 0
		return nil
	}
	v, err := strconv.ParseUint(text, 0, 31)
	if err != nil || v == 0 {
		return fmt.Errorf("%q is neither auto nor a whole number from 1 up", shorten(text))
	}
	*n = AutoInt(v)
	return nil
}

// Duration is a length of time with its unit, such as 50us.
type Duration struct{ time.Duration }

func (d *Duration) parse(text string) error {
	v, err := time.ParseDuration(text)
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a duration; write it with a unit, such as 50us or 2ms", shorten(text))
	}
	d.Duration = v
	return nil
}

// Cores is a list of CPU numbers such as 2-5,8; nil means auto.
type Cores []int

func (c *Cores) parse(text string) error {
	*c = nil
	if text == "auto" {
		return nil
	}
	seen := map[int]bool{}
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		a, err := strconv.ParseUint(first, 10, 16)
		b := a
		if err == nil && isRange {
			b, err = strconv.ParseUint(last, 10, 16)
		}
		if err != nil || b < a || b > 4095 {
			return fmt.Errorf("%q is neither auto nor a list of CPU numbers such as 2-5,8", shorten(text))
		}
		for n := int(a); n <= int(b); n++ {
			if seen[n] {
				return fmt.Errorf("CPU %d is named twice", n)
			}
			seen[n] = true
			*c = append(*c, n)
		}
	}
	return nil
}

// Port is a UDP port, 1 to 65535.
type Port uint16

func (p *Port) parse(text string) error {
	v, err := strconv.ParseUint(text, 10, 16)
	if err != nil || v == 0 {
		return fmt.Errorf("%q is not a port from 1 to 65535", shorten(text))
	}
	*p = Port(v)
	return nil
}

// SPI is a Security Parameters Index, 256 to 2^32-1 (RFC 4303, 2.1 reserves 0 to 255).
type SPI uint32

func (s *SPI) parse(text string) error {
	v, err := strconv.ParseUint(text, 0, 32)
	if err != nil {
		return fmt.Errorf("%q is not an SPI from 0x100 to 0xffffffff", shorten(text))
	}
	if v < 256 {
		return errors.New("SPIs 0 to 255 are reserved (RFC 4303, 2.1); use 0x100 or more")
	}
	*s = SPI(v)
	return nil
}

// Proposal is an ESP proposal in strongSwan's words: a suite, then esn, noesn
// or both. Without either word, and with both, sequence numbers are extended.
type Proposal struct {
	Suite transform.Suite
	ESN   bool
}

func (p *Proposal) parse(text string) error {
	word := strings.ToLower(strings.TrimSpace(text))
	esn, noesn := false, false
	for {
		if rest, ok := strings.CutSuffix(word, "-noesn"); ok {
			word, noesn = rest, true
		} else if rest, ok := strings.CutSuffix(word, "-esn"); ok {
			word, esn = rest, true
		} else {
			break
		}
	}
	suite, err := transform.Parse(shorten(word))
	if err != nil {
		return err
	}
	p.Suite, p.ESN = suite, esn || !noesn
	return nil
}

func (p Proposal) String() string {
	if p.ESN {
		return p.Suite.String() + "-esn"
	}
	return p.Suite.String() + "-noesn"
}

// Secret holds key material. Every way of printing it gives "[redacted]".
type Secret struct{ b []byte }

const redacted = "[redacted]"

func (s *Secret) parse(text string) error {
	text = strings.TrimPrefix(strings.TrimSpace(text), "0x")
	if len(text) > 4096 {
		return errors.New("a key is at most 2048 bytes")
	}
	b := make([]byte, hex.DecodedLen(len(text)))
	if _, err := hex.Decode(b, []byte(text)); err != nil || len(b) == 0 {
		clear(b)
		// hex's own error quotes a byte of the key.
		return errors.New("a key is written as an even number of hexadecimal digits")
	}
	s.b = b
	return nil
}

// Bytes returns the key material itself; the caller must not keep it longer
// than the association needs it.
func (s Secret) Bytes() []byte { return s.b }

// Len returns the length in bytes.
func (s Secret) Len() int { return len(s.b) }

// Zero overwrites the key material.
func (s Secret) Zero() { clear(s.b) }

func (Secret) String() string                { return redacted }
func (Secret) GoString() string              { return redacted }
func (Secret) Format(f fmt.State, verb rune) { io.WriteString(f, redacted) }
func (Secret) MarshalText() ([]byte, error)  { return []byte(redacted), nil }
func (Secret) MarshalJSON() ([]byte, error)  { return []byte(`"` + redacted + `"`), nil }
