package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"sallyport/dataplane/sad"
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

func (a *AddressWithPrefix) parse(text string) error {
	p, err := netip.ParsePrefix(text)
	switch addr := p.Addr(); {
	case err != nil:
		return fmt.Errorf("%q is not ADDRESS/LENGTH", shorten(text))
	case addr.IsUnspecified() || addr.IsMulticast() || addr.IsLoopback() || addr.Is4In6():
		return fmt.Errorf("%s cannot be the address of an interface", shorten(text))
	}
	a.Prefix = p
	return nil
}

func (k *GREKey) parse(text string) error {
	n, err := strconv.ParseUint(text, 0, 32)
	if err != nil {
		return fmt.Errorf("%q is not a whole number of 32 bits", shorten(text))
	}
	k.Value, k.Set = uint32(n), true
	return nil
}

func (e *Endpoint) parse(text string) error {
	text = strings.TrimSpace(text)
	switch text {
	case "%any":
		*e = Endpoint{IsAny: true}
		return nil
	case "%any4", "0.0.0.0/0":
		*e = Endpoint{Prefix: netip.MustParsePrefix("0.0.0.0/0")}
		return nil
	case "%any6", "::/0":
		*e = Endpoint{Prefix: netip.MustParsePrefix("::/0")}
		return nil
	}
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		switch {
		case err != nil || p.Addr().Is4In6():
			return fmt.Errorf("%q is not a prefix ADDRESS/LENGTH", shorten(text))
		case p.Masked() != p:
			return fmt.Errorf("%s has host bits set; did you mean %s?", p, p.Masked())
		case p.Addr().IsMulticast():
			return fmt.Errorf("%s cannot hold the address of a tunnel endpoint", p)
		}
		*e = Endpoint{Prefix: p}
		return nil
	}
	if hostName.MatchString(text) {
		*e = Endpoint{Host: strings.TrimSuffix(strings.ToLower(text), ".")}
		return nil
	}
	var a Address
	if err := a.parse(text); err != nil {
		return err
	}
	*e = Endpoint{Prefix: netip.PrefixFrom(a.Addr, a.BitLen())}
	return nil
}

// hostName is a DNS name of at least two labels, whose last one is not a number, so that a mistyped
// address is not taken for a name.
var hostName = regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)+[a-zA-Z]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.?$`)

// String writes the endpoint as the configuration file does.
func (e Endpoint) String() string {
	switch addr, single := e.Addr(); {
	case e.IsAny:
		return "%any"
	case e.Host != "":
		return e.Host
	case single:
		return addr.String()
	}
	return e.Prefix.String()
}

// VirtualIP is an address to ask for; an unspecified one asks for any of its family.
type VirtualIP struct{ netip.Addr }

func (v *VirtualIP) parse(text string) error {
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" || addr.Is4In6() || addr.IsMulticast() {
		return fmt.Errorf("%q is not an address to ask for; 0.0.0.0 and :: ask for any", shorten(text))
	}
	v.Addr = addr
	return nil
}

// AddrRange is a range of addresses, both ends included.
type AddrRange struct{ First, Last netip.Addr }

func (r *AddrRange) parse(text string) error {
	var t TrafficSelector
	if err := t.parse(text); err != nil {
		return err
	}
	if t.Dynamic || t.Proto != 0 || strings.Contains(text, "[") {
		return fmt.Errorf("%q is not a range of addresses", shorten(text))
	}
	r.First, r.Last = t.Range.First, t.Range.Last
	return nil
}

// Words is a proposal in strongSwan's words. What they mean depends on where they stand.
type Words string

func (w *Words) parse(text string) error {
	*w = Words(strings.ToLower(strings.TrimSpace(text)))
	return nil
}

// Factor is a number from 1 to 10, such as 1.8.
type Factor float64

func (f *Factor) parse(text string) error {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(v >= 1 && v <= 10) {
		return fmt.Errorf("%q is not a number from 1 to 10", shorten(text))
	}
	*f = Factor(v)
	return nil
}

// Size is a number of bytes or packets, such as 500000 or 64GiB.
type Size uint64

var sizeUnits = []struct {
	suffix string
	factor uint64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}}

func (s *Size) parse(text string) error {
	number, factor := text, uint64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(text, u.suffix); ok {
			number, factor = strings.TrimSpace(rest), u.factor
		}
	}
	v, err := strconv.ParseUint(number, 10, 62)
	if err != nil || v > 1<<62/factor {
		return fmt.Errorf("%q is not a whole number, with or without KiB, MiB, GiB or TiB", shorten(text))
	}
	*s = Size(v * factor)
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

// Padding is a number of bytes, 0 for none, or mtu.
type Padding uint16

// paddingMTU is as much padding as fits the path.
const paddingMTU = Padding(sad.TFCPath)

func (p *Padding) parse(text string) error {
	if text == "mtu" {
		*p = paddingMTU
		return nil
	}
	v, err := strconv.ParseUint(text, 0, 16)
	if err != nil || Padding(v) == paddingMTU {
		return fmt.Errorf("%q is neither mtu nor a number of bytes", shorten(text))
	}
	*p = Padding(v)
	return nil
}

// Copying says which way something is copied: out, in, yes (both) or no.
type Copying string

func (c *Copying) parse(text string) error {
	switch text {
	case "out", "in", "yes", "no":
		*c = Copying(text)
	case "true":
		*c = "yes"
	case "false":
		*c = "no"
	default:
		return fmt.Errorf("%q is not out, in, yes or no", shorten(text))
	}
	return nil
}

func (c Copying) out() bool { return c == "out" || c == "yes" }
func (c Copying) in() bool  { return c == "in" || c == "yes" }

// TTL is a Time to Live from 1 to 255, or copy, which is 0.
type TTL uint8

// defaultTTL is what RFC 1700 and most hosts begin with.
const defaultTTL TTL = 64

func (t *TTL) parse(text string) error {
	if text == "copy" {
		*t = 0
		return nil
	}
	v, err := strconv.ParseUint(text, 10, 8)
	if err != nil || v == 0 {
		return fmt.Errorf("%q is neither copy nor a number from 1 to 255", shorten(text))
	}
	*t = TTL(v)
	return nil
}

// Duration is a length of time with its unit, such as 50us.
type Duration struct{ time.Duration }

func (d *Duration) parse(text string) error {
	if text == "0" {
		d.Duration = 0
		return nil
	}
	v, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		v = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a duration; write it with a unit, such as 50us, 30s, 4h or 7d", shorten(text))
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

// Proposal is an ESP proposal for manual keys in strongSwan's words: a suite, then esn, noesn
// or both. Without either word, and with both, sequence numbers are extended.
type Proposal struct {
	Suite transform.Suite
	ESN   bool
}

func (p *Proposal) parse(words Words) error {
	word := strings.ToLower(strings.TrimSpace(string(words)))
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

// parseAH is parse for AH, whose suites are those of ESP that authenticate alone: HMAC's have names without NULL there.
func (p *Proposal) parseAH(words Words) error {
	word := strings.ToLower(strings.TrimSpace(string(words)))
	if !strings.Contains(word, "gmac") {
		word = "null-" + word
	}
	if err := p.parse(Words(word)); err != nil || !p.Suite.Info().Whole() {
		return fmt.Errorf("%q is no proposal for AH, such as sha256, sha384, sha512 or aes128gmac", shorten(string(words)))
	}
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

// Passphrase is a preshared key as it is written. It prints like a Secret.
type Passphrase struct{ Secret }

// passphraseMax bounds the text of a preshared key, in bytes.
const passphraseMax = 4096

func (p *Passphrase) parse(text string) error {
	if len(text) == 0 || len(text) > passphraseMax {
		return fmt.Errorf("a preshared key is 1 to %d bytes long", passphraseMax)
	}
	p.b = []byte(text)
	return nil
}
