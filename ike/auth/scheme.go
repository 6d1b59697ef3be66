package auth

import (
	"crypto"
	"fmt"
	"strconv"
	"strings"

	"sallyport/ike/message"
)

// Method is how an end proves its identity.
type Method uint8

const (
	PublicKey Method = iota // a signature, with a certificate
	PSK                     // a secret that both know
)

func (m Method) String() string {
	if m == PSK {
		return "psk"
	}
	return "pubkey"
}

// KeyType is the kind of a public key.
type KeyType uint8

const (
	RSA KeyType = 1 << iota
	ECDSA
	Ed25519
)

func (k KeyType) String() string {
	switch k {
	case RSA:
		return "rsa"
	case ECDSA:
		return "ecdsa"
	case Ed25519:
		return "ed25519"
	}
	return "keys"
}

// Schemes limits keys and signatures further than this package does by itself. The zero
// value limits nothing. It is comparable.
type Schemes struct {
	Keys      KeyType // a set; 0 = all
	RSABits   int     // least length of RSA keys; 0 = RSABitsMin
	ECDSABits int     // least size of curves; 0 = 256
	PKCS1     bool    // as signer: RSASSA-PKCS1-v1_5 even where PSS is possible, for peers that lack it
	PSS       bool    // as verifier: RSASSA-PSS only
	hashes    uint8   // a set by message.HashAlgorithm; 0 = SHA-256 and better
}

// RSA keys that are accepted, RFC 8247, 3.1. The upper bound limits the work that a peer's
// certificate may cause.
const (
	RSABitsMin     = 2048
	RSABitsMax     = 8192
	RSAExponentMin = 65537
)

// ParseMethod reads swanctl's word for an authentication: "psk", "pubkey", or the kind of
// key with its least size, "rsa-3072", "ecdsa-384", "ed25519", each perhaps with the
// hashes that are allowed, "pubkey-sha384-sha512"; "rsa/pss-..." demands PSS and
// "rsa/pkcs1-..." signs by PKCS#1 v1.5. A leading "ike:" changes nothing.
func ParseMethod(s string) (Method, Schemes, error) {
	words := strings.Split(strings.TrimPrefix(s, "ike:"), "-")
	var c Schemes
	bad := func(word string) error {
		return fmt.Errorf("auth %q: %q is none of psk, pubkey, rsa, rsa/pss, rsa/pkcs1, ecdsa, ed25519, a key's size in bits, sha256, sha384, sha512", s, word)
	}
	switch words[0] {
	case "psk":
		if len(words) > 1 {
			return 0, Schemes{}, bad(words[1])
		}
		return PSK, Schemes{}, nil
	case "pubkey":
	case "rsa":
		c.Keys = RSA
	case "rsa/pss":
		c.Keys, c.PSS = RSA, true
	case "rsa/pkcs1":
		c.Keys, c.PKCS1 = RSA, true
	case "ecdsa":
		c.Keys = ECDSA
	case "ed25519":
		c.Keys = Ed25519
	case "eap", "null":
		return 0, Schemes{}, fmt.Errorf("auth %q is not supported", s)
	default:
		return 0, Schemes{}, bad(words[0])
	}
	for _, word := range words[1:] {
		switch word {
		case "sha256":
			c.hashes |= 1 << message.HashSHA2256
		case "sha384":
			c.hashes |= 1 << message.HashSHA2384
		case "sha512":
			c.hashes |= 1 << message.HashSHA2512
		case "sha1", "md5", "sha224":
			return 0, Schemes{}, fmt.Errorf("auth %q: %s is too weak (RFC 8247, 3)", s, word)
		default:
			bits, err := strconv.Atoi(word)
			switch {
			case err == nil && c.Keys == RSA && bits >= RSABitsMin && bits <= RSABitsMax:
				c.RSABits = bits
			case err == nil && c.Keys == ECDSA && (bits == 256 || bits == 384 || bits == 521):
				c.ECDSABits = bits
			case err == nil && (c.Keys == RSA || c.Keys == ECDSA):
				return 0, Schemes{}, fmt.Errorf("auth %q: %v keys of %d bits are not accepted", s, c.Keys, bits)
			default:
				return 0, Schemes{}, bad(word)
			}
		}
	}
	return PublicKey, c, nil
}

// allows says whether signatures over this hash are accepted.
func (c Schemes) allows(h message.HashAlgorithm) bool {
	return hashOf(h) != 0 && (c.hashes == 0 || c.hashes&(1<<h) != 0)
}

// signatureHashes are what we announce, best first. RFC 8247, 3.2: SHA-1 is not among them.
var signatureHashes = []message.HashAlgorithm{message.HashSHA2512, message.HashSHA2384, message.HashSHA2256, message.HashIdentity}

// Hashes are the hash algorithms that a peer may use towards us: the data of our
// SIGNATURE_HASH_ALGORITHMS (RFC 7427, 4).
func Hashes() []message.HashAlgorithm {
	return []message.HashAlgorithm{message.HashSHA2256, message.HashSHA2384, message.HashSHA2512, message.HashIdentity}
}

// HashNotify is our SIGNATURE_HASH_ALGORITHMS.
func HashNotify() *message.Notify {
	var data []byte
	for _, h := range Hashes() {
		data = append(data, byte(h>>8), byte(h))
	}
	return &message.Notify{Notify: message.SignatureHashAlgorithms, Data: data}
}

// ParseHashes reads a peer's SIGNATURE_HASH_ALGORITHMS; unknown ones stay in the list,
// which nobody looks for. It is never nil: a peer that sent the notify knows RFC 7427.
func ParseHashes(data []byte) []message.HashAlgorithm {
	all := make([]message.HashAlgorithm, 0, len(data)/2)
	for ; len(data) >= 2; data = data[2:] {
		all = append(all, message.HashAlgorithm(data[0])<<8|message.HashAlgorithm(data[1]))
	}
	return all
}

func hashOf(h message.HashAlgorithm) crypto.Hash {
	switch h {
	case message.HashSHA2256:
		return crypto.SHA256
	case message.HashSHA2384:
		return crypto.SHA384
	case message.HashSHA2512:
		return crypto.SHA512
	}
	return 0
}
