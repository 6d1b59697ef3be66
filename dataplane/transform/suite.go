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
	"crypto"
	"fmt"
	"strings"

	"github.com/agnivade/levenshtein"
)

// Suite is a combination of encryption and integrity algorithms for ESP.
type Suite uint8

// The suites. The zero value is none of them.
const (
	None                Suite = iota
	AES128GCM16               // RFC 4106
	AES192GCM16               // RFC 4106
	AES256GCM16               // RFC 4106
	ChaCha20Poly1305          // RFC 7634
	AES128CBCSHA256           // RFC 3602 with HMAC-SHA2-256-128 (RFC 4868); so are the next two
	AES192CBCSHA256           //
	AES256CBCSHA256           //
	AES128CBCSHA384           // RFC 3602 with HMAC-SHA2-384-192 (RFC 4868); so are the next two
	AES192CBCSHA384           //
	AES256CBCSHA384           //
	AES128CBCSHA512           // RFC 3602 with HMAC-SHA2-512-256 (RFC 4868); so are the next two
	AES192CBCSHA512           //
	AES256CBCSHA512           //
	AES128GCM12               // RFC 4106
	AES192GCM12               // RFC 4106
	AES256GCM12               // RFC 4106
	AES128GCM8                // RFC 4106
	AES192GCM8                // RFC 4106
	AES256GCM8                // RFC 4106
	AES128GCM16IIV            // RFC 8750
	AES192GCM16IIV            // RFC 8750
	AES256GCM16IIV            // RFC 8750
	ChaCha20Poly1305IIV       // RFC 8750
	AES128GMAC                // RFC 4543, integrity alone
	AES192GMAC                // RFC 4543, integrity alone
	AES256GMAC                // RFC 4543, integrity alone
	NullSHA256                // RFC 2410 with HMAC-SHA2-256-128 (RFC 4868)
	NullSHA384                // RFC 2410 with HMAC-SHA2-384-192 (RFC 4868)
	NullSHA512                // RFC 2410 with HMAC-SHA2-512-256 (RFC 4868)
	suiteCount                // number of values, not a suite
)

// Kind says how a suite is worked on.
type Kind uint8

const (
	KindNone Kind = iota
	KindGCM
	KindChaCha
	KindCBC            // CBC, then HMAC over the ciphertext
	KindNull           // HMAC alone
	KindGMAC           // GMAC alone
	KindGCMShort       // GCM with a truncated tag
	KindGCMImplicit    // GCM whose IV is the sequence number, and not sent
	KindChaChaImplicit // ChaCha20-Poly1305 with such an IV
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
	// Hash is that of the HMAC, 0 without one. Its key is as long as its output (RFC 4868, 2.1.1), and the end of the keying material.
	Hash crypto.Hash
	// Level is the requirement of RFC 8221, 5 and 6, the lower one of encryption and integrity; what it does not name MAY be
	// implemented (RFC 8221, 1.2).
	Level Level
}

// Level says how far an implementation is obliged to have something (RFC 2119).
type Level string

// The levels of suites. AES in CBC and in GCM with whole tags is at MUST for 128 and 256 bits, at MAY for 192 (RFC 8221, 5).
const (
	Must   Level = "MUST"
	Should Level = "SHOULD"
	May    Level = "MAY"
)

var infos = [suiteCount]Info{
	None:                {Name: "none"},
	AES128GCM16:         {"aes128gcm16", 20, 4, 8, 16, 4, KindGCM, 0, Must},
	AES192GCM16:         {"aes192gcm16", 28, 4, 8, 16, 4, KindGCM, 0, May},
	AES256GCM16:         {"aes256gcm16", 36, 4, 8, 16, 4, KindGCM, 0, Must},
	ChaCha20Poly1305:    {"chacha20poly1305", 36, 4, 8, 16, 4, KindChaCha, 0, Should},
	AES128CBCSHA256:     {"aes128-sha256", 48, 0, 16, 16, 16, KindCBC, crypto.SHA256, Must},
	AES192CBCSHA256:     {"aes192-sha256", 56, 0, 16, 16, 16, KindCBC, crypto.SHA256, May},
	AES256CBCSHA256:     {"aes256-sha256", 64, 0, 16, 16, 16, KindCBC, crypto.SHA256, Must},
	AES128CBCSHA384:     {"aes128-sha384", 64, 0, 16, 24, 16, KindCBC, crypto.SHA384, May},
	AES192CBCSHA384:     {"aes192-sha384", 72, 0, 16, 24, 16, KindCBC, crypto.SHA384, May},
	AES256CBCSHA384:     {"aes256-sha384", 80, 0, 16, 24, 16, KindCBC, crypto.SHA384, May},
	AES128CBCSHA512:     {"aes128-sha512", 80, 0, 16, 32, 16, KindCBC, crypto.SHA512, Should},
	AES192CBCSHA512:     {"aes192-sha512", 88, 0, 16, 32, 16, KindCBC, crypto.SHA512, May},
	AES256CBCSHA512:     {"aes256-sha512", 96, 0, 16, 32, 16, KindCBC, crypto.SHA512, Should},
	AES128GCM12:         {"aes128gcm12", 20, 4, 8, 12, 4, KindGCMShort, 0, May},
	AES192GCM12:         {"aes192gcm12", 28, 4, 8, 12, 4, KindGCMShort, 0, May},
	AES256GCM12:         {"aes256gcm12", 36, 4, 8, 12, 4, KindGCMShort, 0, May},
	AES128GCM8:          {"aes128gcm8", 20, 4, 8, 8, 4, KindGCMShort, 0, May},
	AES192GCM8:          {"aes192gcm8", 28, 4, 8, 8, 4, KindGCMShort, 0, May},
	AES256GCM8:          {"aes256gcm8", 36, 4, 8, 8, 4, KindGCMShort, 0, May},
	AES128GCM16IIV:      {"aes128gcm16iiv", 20, 4, 0, 16, 4, KindGCMImplicit, 0, May},
	AES192GCM16IIV:      {"aes192gcm16iiv", 28, 4, 0, 16, 4, KindGCMImplicit, 0, May},
	AES256GCM16IIV:      {"aes256gcm16iiv", 36, 4, 0, 16, 4, KindGCMImplicit, 0, May},
	ChaCha20Poly1305IIV: {"chacha20poly1305iiv", 36, 4, 0, 16, 4, KindChaChaImplicit, 0, May},
	AES128GMAC:          {"aes128gmac", 20, 4, 8, 16, 4, KindGMAC, 0, May},
	AES192GMAC:          {"aes192gmac", 28, 4, 8, 16, 4, KindGMAC, 0, May},
	AES256GMAC:          {"aes256gmac", 36, 4, 8, 16, 4, KindGMAC, 0, May},
	NullSHA256:          {"null-sha256", 32, 0, 0, 16, 4, KindNull, crypto.SHA256, Must},
	NullSHA384:          {"null-sha384", 48, 0, 0, 24, 4, KindNull, crypto.SHA384, May},
	NullSHA512:          {"null-sha512", 64, 0, 0, 32, 4, KindNull, crypto.SHA512, Should},
}

// Largest values of the table, for room that is planned before the suite is known.
const (
	IVMax    = 16
	ICVMax   = 32
	AlignMax = 16
)

// Info returns the suite's description; for a value that is no suite, that of None.
func (s Suite) Info() *Info {
	if s >= suiteCount {
		s = None
	}
	return &infos[s]
}

// Encrypts says that others cannot read what the suite protects.
func (i *Info) Encrypts() bool { return i.Kind != KindNull && i.Kind != KindGMAC }

func (s Suite) String() string { return s.Info().Name }

// List returns every suite, the preferred first.
func List() []Suite {
	return []Suite{
		AES256GCM16, AES128GCM16, AES192GCM16, ChaCha20Poly1305, AES256GCM16IIV, AES128GCM16IIV, AES192GCM16IIV, ChaCha20Poly1305IIV,
		AES256CBCSHA512, AES256CBCSHA384, AES256CBCSHA256, AES192CBCSHA512, AES192CBCSHA384, AES192CBCSHA256,
		AES128CBCSHA512, AES128CBCSHA384, AES128CBCSHA256, AES256GCM12, AES192GCM12, AES128GCM12, AES256GCM8, AES192GCM8, AES128GCM8,
		AES256GMAC, AES192GMAC, AES128GMAC, NullSHA512, NullSHA384, NullSHA256,
	}
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
		d := levenshtein.ComputeDistance(word, s.Info().Name)
		if word != "" && strings.HasPrefix(s.Info().Name, word) {
			d = 0 // the first, which is the preferred, of those that begin so
		}
		if d < best {
			nearest, best = s, d
		}
	}
	return None, fmt.Errorf("unknown ESP suite %q: did you mean %q?", name, nearest.Info().Name)
}
