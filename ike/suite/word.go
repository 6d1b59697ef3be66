package suite

import (
	"fmt"
	"strings"

	"github.com/agnivade/levenshtein"

	"sallyport/ike/message"
)

// wordKind is what a word of a proposal names.
type wordKind uint8

const (
	wordEncr wordKind = iota
	wordInteg
	wordPRF
	wordKE
	wordESN
)

// word is one algorithm by strongSwan's name.
type word struct {
	kind  wordKind
	encr  Encryption
	id    uint16
	esn   bool
	noIKE bool
}

// words has every word that is accepted, without the "ke1_" of additional key exchanges.
var words = func() map[string]word {
	all := make(map[string]word)
	add := func(w word, names ...string) {
		for _, name := range names {
			all[name] = w
		}
	}
	for _, c := range ciphers {
		add(word{kind: wordEncr, encr: c.encr}, append(c.aliases, c.word)...)
	}
	for _, i := range integs {
		size := strings.TrimPrefix(i.word, "sha")
		add(word{kind: wordInteg, id: i.id}, i.word, "sha2_"+size)
	}
	for _, p := range prfs {
		add(word{kind: wordPRF, id: p.id}, p.word)
	}
	for _, g := range groups {
		add(word{kind: wordKE, id: g.id, noIKE: g.noIKE}, append(g.aliases, g.word)...)
	}
	add(word{kind: wordKE, id: message.KENone, noIKE: true}, "none", "modpnone")
	add(word{kind: wordESN, esn: true}, "esn")
	add(word{kind: wordESN}, "noesn")
	return all
}()

// refusedWords are strongSwan's words for what is not offered here, with the reason. A word that ends with * stands for
// every word that begins so. The first match counts.
var refusedWords = []struct{ word, reason string }{
	{"des", "DES must not be used (RFC 8247, 2.1)"},
	{"3des", "3DES has blocks of 64 bits, of which too few can be sent with one key (RFC 8221, 5)"},
	{"blowfish*", "Blowfish must not be used (RFC 8221, 5)"},
	{"cast128", "CAST must not be used (RFC 8221, 5)"},
	{"serpent*", "Serpent is not registered for IKEv2"},
	{"twofish*", "Twofish is not registered for IKEv2"},
	{"camellia*", "Camellia is not implemented"},
	{"aesxcbc", "AES-XCBC is for small devices only (RFC 8247, 2.3)"},
	{"aescmac", "AES-CMAC is not implemented"},
	{"prfaesxcbc", "AES-XCBC is for small devices only (RFC 8247, 2.2)"},
	{"prfaescmac", "AES-CMAC is not implemented"},
	{"md5*", "MD5 must not be used (RFC 8247, 2.3)"},
	{"prfmd5", "MD5 must not be used (RFC 8247, 2.2)"},
	{"sha", "SHA-1 is on its way out (RFC 8247, 2.3)"},
	{"sha1*", "SHA-1 is on its way out (RFC 8247, 2.3)"},
	{"prfsha1", "SHA-1 is on its way out (RFC 8247, 2.2)"},
	{"sha256_96", "truncation to 96 bits was a mistake of old kernels, not an RFC"},
	{"modp768", "a group of 768 bits can be broken (RFC 8247, 2.4)"},
	{"modp1024*", "a group of 1024 bits can be broken (RFC 8247, 2.4)"},
	{"modp1536", "a group of 1536 bits is too small (RFC 8247, 2.4)"},
	{"modp2048s*", "groups with small subgroups should not be used (RFC 8247, 2.4)"},
	{"modp6144", "it takes longer than modp4096 and ecp384 for less"},
	{"modp8192", "it takes longer than modp4096 and ecp384 for less"},
	{"ecp192", "a curve of 192 bits is too small"},
	{"ecp224*", "a curve of 224 bits is too small"},
	{"ecp256bp", "the Brainpool curves are not implemented"},
	{"ecp384bp", "the Brainpool curves are not implemented"},
	{"ecp512bp", "the Brainpool curves are not implemented"},
	{"curve448", "Curve448 is not implemented"},
	{"x448", "Curve448 is not implemented"},
	{"mlkem512", "ML-KEM-512 is below the strength of the rest"},
	{"ntru*", "NTRU is not registered for IKEv2"},
	{"newhope*", "NewHope is not registered for IKEv2"},
	{"chacha20poly1305compat", "an early draft that RFC 7634 replaced"},
}

// refusal returns why a word is refused, "" if it is not known at all.
func refusal(name string) string {
	for _, r := range refusedWords {
		if prefix, open := strings.CutSuffix(r.word, "*"); name == r.word || open && strings.HasPrefix(name, prefix) {
			return r.reason
		}
	}
	if strings.HasPrefix(name, "aes") {
		switch {
		case strings.Contains(name, "ctr"):
			return "AES-CTR is not implemented"
		case strings.Contains(name, "ccm"):
			return "AES-CCM is for small devices only (RFC 8247, 2.1)"
		}
	}
	return ""
}

// unknownWord is the error for a word that is not accepted.
func unknownWord(name string) error {
	if reason := refusal(name); reason != "" {
		return fmt.Errorf("%q is refused: %s", name, reason)
	}
	nearest, best := "", int(^uint(0)>>1)
	for known := range words {
		if d := levenshtein.ComputeDistance(name, known); d < best || d == best && known < nearest {
			nearest, best = known, d
		}
	}
	return fmt.Errorf("unknown algorithm %q: did you mean %q?", name, nearest)
}
