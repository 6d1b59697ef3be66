package auth

import (
	"bytes"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"

	"sallyport/ike/message"
	"sallyport/ike/suite"
)

// keyPad is RFC 7296, 2.15's.
var keyPad = []byte("Key Pad for IKEv2")

// PSKAuth is the AUTH value of a pre-shared key over the octets that AUTH covers
// (RFC 7296, 2.15): prf(prf(secret, key pad), octets), with the IKE SA's PRF.
func PSKAuth(prf uint16, secret, octets []byte) []byte {
	key := suite.PRF(prf, secret, keyPad)
	defer clear(key)
	return suite.PRF(prf, key, octets)
}

// VerifyPSK compares a peer's AUTH with the one that the secret gives, in a time that
// does not depend on where they differ.
func VerifyPSK(prf uint16, secret, octets []byte, a *message.Auth) error {
	if a.Method != message.AuthSharedKey {
		return fmt.Errorf("%w: the peer proves itself by %v, a pre-shared key is configured", ErrMethod, a.Method)
	}
	if subtle.ConstantTimeCompare(a.Data, PSKAuth(prf, secret, octets)) != 1 {
		return fmt.Errorf("%w: the pre-shared keys differ", ErrProof)
	}
	return nil
}

// ParseSecret reads a secret as swanctl.conf writes it: text as it is, "0x" before
// hexadecimal bytes, "0s" before base64.
func ParseSecret(s string) ([]byte, error) {
	var b []byte
	var err error
	switch {
	case strings.HasPrefix(s, "0x"):
		if b, err = hex.DecodeString(s[2:]); err != nil {
			return nil, errors.New("a secret that begins with 0x is not hexadecimal") // never quote it
		}
	case strings.HasPrefix(s, "0s"):
		if b, err = base64.StdEncoding.DecodeString(s[2:]); err != nil {
			return nil, errors.New("a secret that begins with 0s is not base64")
		}
	default:
		b = []byte(s)
	}
	if len(b) == 0 {
		return nil, errors.New("a secret is empty")
	}
	return b, nil
}

// What a pre-shared key must have at least. Whoever answers an initiator once, even as
// an impostor, may guess its secret off-line from then on (RFC 7296, 2.15 and 5).
const (
	SecretBitsMin       = 128
	SecretCharactersMin = 20 // of a text
)

// CheckSecret returns an error for a secret that could be guessed. Its text never quotes
// any part of the secret.
func CheckSecret(secret []byte) error {
	advice := "; make one with: openssl rand -base64 32"
	if isText(secret) && len(secret) < SecretCharactersMin {
		return fmt.Errorf("the secret has %d characters, at least %d are needed%s", len(secret), SecretCharactersMin, advice)
	}
	if bits := Strength(secret); bits < SecretBitsMin {
		return fmt.Errorf("the secret has an estimated strength of %.0f bits, at least %d are needed%s", math.Floor(bits), SecretBitsMin, advice)
	}
	return nil
}

func isText(b []byte) bool {
	for _, c := range b {
		if c < 0x20 || c > 0x7e {
			return false
		}
	}
	return true
}

// Strength estimates how many bits a guesser must try, from the secret alone: what each
// character could have been, given the kinds of characters that occur, but little for
// what repeats, runs along the alphabet or a keyboard's row, or reads like words. It is
// meant to refuse what people think up, not to measure what a generator made.
func Strength(secret []byte) float64 {
	perByte := 8.0
	lower := secret
	words := false // most of it reads like words, which happens to no generator
	if isText(secret) {
		perByte = math.Log2(float64(alphabet(secret)))
		lower = []byte(lowerASCII(string(secret)))
		inWords := 0
		for i := 0; i < len(secret); i++ {
			if n := wordLike(secret[i:]); n > 0 {
				inWords += n
				i += n - 1
			}
		}
		words = 5*inWords >= 3*len(secret)
		if perByte == 5 { // base32, in whose letters a generator finds more that could be spoken
			words = 6*inWords >= 5*len(secret)
		}
	}
	var bits float64
	inPatterns := 0
	for i := 0; i < len(secret); {
		if n := repeated(lower, i); n >= 3 {
			bits += min(math.Log2(float64(i+1))+math.Log2(float64(n)), float64(n)*perByte)
			inPatterns += n
			i += n
			continue
		}
		if n := sequence(lower[i:]); n >= 3 {
			bits += min(perByte+math.Log2(float64(n)), float64(n)*perByte)
			inPatterns += n
			i += n
			continue
		}
		if n := wordLike(secret[i:]); n > 0 && words {
			bits += float64(n) * min(wordBits, perByte)
			i += n
			continue
		}
		bits += perByte
		i++
	}
	if !words && patternShare*inPatterns < len(secret) {
		// A generator makes a short pattern now and then; its output is worth no less for that.
		return float64(len(secret)) * perByte
	}
	return bits
}

// patternShare is the part of a secret, one in so many characters, that patterns must make up to count. Of 40,000 rows of 32
// random hexadecimal digits none had more than 13 in patterns.
const patternShare = 2

// wordBits is what a letter of a word is worth: the larger lists from which people take
// words have some 2^13 of them, of six letters on average.
const wordBits = 2.2

// alphabet counts the characters of the kinds that occur; sixteen if all are
// hexadecimal digits, thirty-two if all are base32's in one case (RFC 4648, 6).
func alphabet(b []byte) int {
	var digits, lower, upper, other, beyondHex bool
	for _, c := range b {
		switch {
		case '0' <= c && c <= '9':
			digits = true
		case 'a' <= c && c <= 'z':
			lower, beyondHex = true, beyondHex || c > 'f'
		case 'A' <= c && c <= 'Z':
			upper, beyondHex = true, beyondHex || c > 'F'
		default:
			other, beyondHex = true, true
		}
	}
	n := 0
	for _, kind := range []struct {
		present bool
		size    int
	}{{digits, 10}, {lower, 26}, {upper, 26}, {other, 10}} { // people use few of the other marks
		if kind.present {
			n += kind.size
		}
	}
	if !beyondHex && n > 16 {
		n = 16
	}
	if beyondHex && lower != upper && !other && !bytes.ContainsAny(b, "0189") {
		n = 32
	}
	return max(n, 2)
}

// repeated is the length of the longest piece at i that stood before, or, for a row of
// one and the same byte, of that row.
func repeated(b []byte, i int) int {
	best := 0
	for j := max(0, i-256); j < i; j++ {
		n := 0
		for i+n < len(b) && b[j+n] == b[i+n] {
			n++
		}
		best = max(best, n)
	}
	return best
}

var rows = []string{
	"abcdefghijklmnopqrstuvwxyz", "zyxwvutsrqponmlkjihgfedcba", "01234567890", "09876543210",
	"qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertzuiop", "yxcvbnm", "poiuytrewq", "lkjhgfdsa", "mnbvcxz", "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
}

// sequence is how far b runs along the alphabet, the digits or a keyboard.
func sequence(b []byte) int {
	best := 0
	for _, row := range rows {
		at := strings.IndexByte(row, b[0])
		for at >= 0 {
			n := 0
			for n < len(b) && at+n < len(row) && b[n] == row[at+n] {
				n++
			}
			best = max(best, n)
			next := strings.IndexByte(row[at+1:], b[0])
			if next < 0 {
				break
			}
			at += 1 + next
		}
	}
	return best
}

// wordLike is the length of a run of at least five letters that could be spoken: one case
// but for a capital at the beginning, three vowels in ten, never four consonants in a row.
func wordLike(b []byte) int {
	n, vowels, consonants := 0, 0, 0
	for ; n < len(b); n++ {
		c := b[n]
		if c|0x20 < 'a' || c|0x20 > 'z' || n == 1 && b[0]&0x20 != 0 && c&0x20 == 0 || n > 1 && c&0x20 != b[1]&0x20 {
			break
		}
		if strings.IndexByte("aeiou", c|0x20) >= 0 {
			vowels++
			consonants = 0
		} else if consonants++; consonants == 4 {
			n -= 3
			break
		}
	}
	if n < 5 || vowels*10 < n*3 {
		return 0
	}
	return n
}
