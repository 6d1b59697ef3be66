// Package transform protects ESP packets: a table of suites, keys made from
// keying material, and a batch call that seals or opens packets of any mixture
// of suites in place.
//
// A buffer is an ESP packet from its SPI to the last byte of its ICV (RFC 4303, 2):
//
//	SPI 4 | sequence number 4 | IV | payload | padding | pad length | next header | ICV
//
// Seal expects SPI, sequence number and everything between IV and ICV to be in
// place, and writes IV and ICV. Open leaves the plaintext between IV and ICV.
// What the plaintext holds, replay and addresses are not handled here.
package transform

import (
	"fmt"
	"strings"

	"github.com/agnivade/levenshtein"
)

// Suite is a combination of encryption and integrity algorithms for ESP.
type Suite uint8

// The suites. The zero value is none of them.
const (
	None             Suite = iota
	AES128GCM16            // RFC 4106
	AES192GCM16            // RFC 4106
	AES256GCM16            // RFC 4106
	ChaCha20Poly1305       // RFC 7634
	AES128CBCSHA256        // RFC 3602 with HMAC-SHA2-256-128 (RFC 4868)
	AES192CBCSHA256        // RFC 3602 with HMAC-SHA2-256-128 (RFC 4868)
	AES256CBCSHA256        // RFC 3602 with HMAC-SHA2-256-128 (RFC 4868)
	suiteCount             // number of values, not a suite
)

// Kind says how a suite is worked on.
type Kind uint8

const (
	KindNone Kind = iota
	KindGCM
	KindChaCha
	KindCBC
)

// Info describes a suite. All lengths are in bytes.
type Info struct {
	// Name is strongSwan's proposal word.
	Name string
	// KeyLen is the length of the keying material of one direction: encryption key, then
	// salt or integrity key (RFC 7296, 2.17; RFC 4106, 8.1).
	KeyLen int
	// SaltLen is how much of the keying material's end is a nonce salt.
	SaltLen int
	IVLen   int
	ICVLen  int
	// Align is what payload, padding, pad length and next header together are a multiple of.
	Align int
	Kind  Kind
}

var infos = [suiteCount]Info{
	None:             {Name: "none"},
	AES128GCM16:      {"aes128gcm16", 20, 4, 8, 16, 4, KindGCM},
	AES192GCM16:      {"aes192gcm16", 28, 4, 8, 16, 4, KindGCM},
	AES256GCM16:      {"aes256gcm16", 36, 4, 8, 16, 4, KindGCM},
	ChaCha20Poly1305: {"chacha20poly1305", 36, 4, 8, 16, 4, KindChaCha},
	AES128CBCSHA256:  {"aes128-sha256", 48, 0, 16, 16, 16, KindCBC},
	AES192CBCSHA256:  {"aes192-sha256", 56, 0, 16, 16, 16, KindCBC},
	AES256CBCSHA256:  {"aes256-sha256", 64, 0, 16, 16, 16, KindCBC},
}

// Largest values of the table, for room that is planned before the suite is known.
const (
	IVMax    = 16
	ICVMax   = 16
	AlignMax = 16
)

// Info returns the suite's description; for a value that is no suite, that of None.
func (s Suite) Info() *Info {
	if s >= suiteCount {
		s = None
	}
	return &infos[s]
}

func (s Suite) String() string { return s.Info().Name }

// List returns every suite, the preferred first.
func List() []Suite {
	return []Suite{AES256GCM16, AES128GCM16, AES192GCM16, ChaCha20Poly1305, AES256CBCSHA256, AES192CBCSHA256, AES128CBCSHA256}
}

// Parse returns the suite with a proposal word. The error for an unknown word
// names the nearest known one.
func Parse(name string) (Suite, error) {
	word := strings.ToLower(strings.TrimSpace(name))
	nearest, best := None, int(^uint(0)>>1)
	for _, s := range List() {
		if s.Info().Name == word {
			return s, nil
		}
		if d := levenshtein.ComputeDistance(word, s.Info().Name); d < best {
			nearest, best = s, d
		}
	}
	return None, fmt.Errorf("unknown ESP suite %q: did you mean %q?", name, nearest.Info().Name)
}
