// Package suite holds what an IKE SA computes with: proposals and their negotiation, key exchange methods, the key
// schedule, and the protection of IKE's own messages.
//
//	"aes256gcm16-prfsha384-x25519-ke1_mlkem768" ─ParseIKE→ Proposal ─Message→ the wire
//	the wire ─Select (responder), Accept (initiator)→ Choice
//	Choice ─Initiate, Respond→ shared secrets ─DeriveIKE, Intermediate, Rekey→ Keys ─Protector→ SK payloads
//	                                                                         Keys ─ChildKeymat→ keys of ESP
//
// Everything here is a function of its arguments: randomness is read from the reader that the caller gives. There is no
// state machine here, no authentication of peers, no ESP. Errors that a peer causes are *message.Error; no error and no
// String holds key material.
package suite

import (
	"fmt"

	"sallyport/ike/message"
)

// Reasons of this package, each the value of message.Error.Reason.
const (
	ReasonNoProposal = "no-proposal-chosen" // nothing offered is acceptable here
	ReasonAnswer     = "proposal-answer"    // the peer's choice is none of what was offered
	ReasonKEMethod   = "ke-method"          // a key exchange method that is not known here, or was not offered
	ReasonKEValue    = "ke-value"           // a public value or ciphertext that no honest peer sends
)

// Encryption is an encryption algorithm with the length of its key.
type Encryption struct {
	ID     uint16
	KeyLen int // bits; 256 too for ChaCha20, which has no key length attribute on the wire
}

// cipherInfo describes an encryption algorithm. Lengths are in bytes.
type cipherInfo struct {
	word    string
	encr    Encryption
	salt    int // of the keying material, after the key (RFC 5282, 7.1; RFC 7634, 2; RFC 4543, 5.4)
	iv      int
	icv     int // 0: needs an integrity algorithm
	align   int // of payloads, padding and pad length together
	fixed   bool
	kind    cipherKind
	espOnly string   // why an IKE SA cannot use it; "" if it can
	aliases []string // strongSwan's other words for it
}

type cipherKind uint8

const (
	kindGCM cipherKind = iota
	kindChaCha
	kindCBC
	kindESP // worked on by the data plane alone
)

// Why an IKE SA does without.
const (
	shortTag   = "a checksum of less than 16 bytes is too short for an IKE SA"
	implicitIV = "only ESP has a sequence number to take the IV from (RFC 8750, 4)"
	readable   = "an IKE SA is always encrypted"
)

func (c *cipherInfo) aead() bool  { return c.icv != 0 }
func (c *cipherInfo) keymat() int { return c.encr.KeyLen/8 + c.salt }

// ciphers are in the order of preference.
var ciphers = []cipherInfo{
	{"aes256gcm16", Encryption{message.EncrAESGCM16, 256}, 4, 8, 16, 1, false, kindGCM, "", []string{"aes256gcm128", "aes256gcm"}},
	{"aes128gcm16", Encryption{message.EncrAESGCM16, 128}, 4, 8, 16, 1, false, kindGCM, "", []string{"aes128gcm128", "aes128gcm", "aesgcm16"}},
	{"chacha20poly1305", Encryption{message.EncrChaCha20Poly1305, 256}, 4, 8, 16, 1, true, kindChaCha, "", nil},
	{"aes192gcm16", Encryption{message.EncrAESGCM16, 192}, 4, 8, 16, 1, false, kindGCM, "", []string{"aes192gcm128", "aes192gcm"}},
	{"aes256", Encryption{message.EncrAESCBC, 256}, 0, 16, 0, 16, false, kindCBC, "", []string{"aes256cbc"}},
	{"aes128", Encryption{message.EncrAESCBC, 128}, 0, 16, 0, 16, false, kindCBC, "", []string{"aes", "aes128cbc"}},
	{"aes192", Encryption{message.EncrAESCBC, 192}, 0, 16, 0, 16, false, kindCBC, "", []string{"aes192cbc"}},
	{"aes256gcm16iiv", Encryption{message.EncrAESGCM16IIV, 256}, 4, 0, 16, 4, false, kindESP, implicitIV, nil},
	{"aes128gcm16iiv", Encryption{message.EncrAESGCM16IIV, 128}, 4, 0, 16, 4, false, kindESP, implicitIV, nil},
	{"aes192gcm16iiv", Encryption{message.EncrAESGCM16IIV, 192}, 4, 0, 16, 4, false, kindESP, implicitIV, nil},
	{"chacha20poly1305iiv", Encryption{message.EncrChaCha20Poly1305IIV, 256}, 4, 0, 16, 4, true, kindESP, implicitIV, nil},
	{"aes256gcm12", Encryption{message.EncrAESGCM12, 256}, 4, 8, 12, 4, false, kindESP, shortTag, []string{"aes256gcm96"}},
	{"aes128gcm12", Encryption{message.EncrAESGCM12, 128}, 4, 8, 12, 4, false, kindESP, shortTag, []string{"aes128gcm96"}},
	{"aes192gcm12", Encryption{message.EncrAESGCM12, 192}, 4, 8, 12, 4, false, kindESP, shortTag, []string{"aes192gcm96"}},
	{"aes256gcm8", Encryption{message.EncrAESGCM8, 256}, 4, 8, 8, 4, false, kindESP, shortTag, []string{"aes256gcm64"}},
	{"aes128gcm8", Encryption{message.EncrAESGCM8, 128}, 4, 8, 8, 4, false, kindESP, shortTag, []string{"aes128gcm64"}},
	{"aes192gcm8", Encryption{message.EncrAESGCM8, 192}, 4, 8, 8, 4, false, kindESP, shortTag, []string{"aes192gcm64"}},
	{"aes256gmac", Encryption{message.EncrNullAuthAESGMAC, 256}, 4, 8, 16, 4, false, kindESP, readable, nil},
	{"aes128gmac", Encryption{message.EncrNullAuthAESGMAC, 128}, 4, 8, 16, 4, false, kindESP, readable, nil},
	{"aes192gmac", Encryption{message.EncrNullAuthAESGMAC, 192}, 4, 8, 16, 4, false, kindESP, readable, nil},
	{"null", Encryption{message.EncrNULL, 0}, 0, 0, 0, 4, false, kindESP, readable, nil},
}

func cipherOf(e Encryption) *cipherInfo {
	for i := range ciphers {
		if ciphers[i].encr == e {
			return &ciphers[i]
		}
	}
	return nil
}

// integInfo describes an integrity algorithm of RFC 4868. Lengths are in bytes.
type integInfo struct {
	word string
	id   uint16
	key  int
	icv  int
	prf  uint16 // the PRF of a proposal that names none
}

var integs = []integInfo{
	{"sha256", message.AuthHMACSHA2256128, 32, 16, message.PRFHMACSHA2256},
	{"sha384", message.AuthHMACSHA2384192, 48, 24, message.PRFHMACSHA2384},
	{"sha512", message.AuthHMACSHA2512256, 64, 32, message.PRFHMACSHA2512},
}

func integOf(id uint16) *integInfo {
	for i := range integs {
		if integs[i].id == id {
			return &integs[i]
		}
	}
	return nil
}

// Choice is what two peers agreed on: one algorithm of each kind. The zero value of a field is "none". It is comparable.
type Choice struct {
	Encr   uint16
	KeyLen int // bits of the encryption key, without salt
	Integ  uint16
	PRF    uint16 // 0 for ESP
	KE     uint16
	// Additional are the additional key exchanges of RFC 9370 by their number: ADDKE1 is Additional[0].
	Additional [AdditionalMax]uint16
	ESN        bool // ESP and AH: extended sequence numbers
	// AH says that the choice is one for AH. Encr is then that of ESP without encryption: NULL, or GMAC.
	AH bool
}

// Protocol is what a choice for a child SA is for.
func (c Choice) Protocol() message.ProtocolID {
	if c.AH {
		return message.ProtocolAH
	}
	return message.ProtocolESP
}

// gmacAuth are GMAC's numbers as an integrity algorithm, by the bits of its key. As an encryption algorithm, of ESP, it has one for all.
var gmacAuth = map[int]uint16{128: message.AuthAES128GMAC, 192: message.AuthAES192GMAC, 256: message.AuthAES256GMAC}

// auth is what of an algorithm stands on the wire in AH.
func auth(e Encryption, integ uint16) uint16 {
	if e.ID == message.EncrNullAuthAESGMAC {
		return gmacAuth[e.KeyLen]
	}
	return integ
}

// AdditionalMax is the number of additional key exchanges that RFC 9370 has transform types for.
const AdditionalMax = 7

// AdditionalKE returns the methods of the additional key exchanges in the order in which they are performed.
func (c Choice) AdditionalKE() []uint16 {
	var all []uint16
	for _, group := range c.Additional {
		if group != message.KENone {
			all = append(all, group)
		}
	}
	return all
}

// String returns the proposal that has nothing but this choice: aes256gcm16-prfsha384-x25519-ke1_mlkem768, and for ESP
// aes256gcm16-x25519-esn.
func (c Choice) String() string { return c.proposal().String() }

// Cipher returns the words of encryption and integrity alone, as the data plane names its suites: aes256gcm16,
// aes128-sha256.
func (c Choice) Cipher() string {
	word := encrWord(c.encryption())
	if c.Integ != message.AuthNone {
		word += "-" + integWord(c.Integ)
	}
	return word
}

func (c Choice) encryption() Encryption { return Encryption{c.Encr, c.KeyLen} }

func (c Choice) proposal() Proposal {
	p := Proposal{Protocol: message.ProtocolIKE, Encr: []Encryption{c.encryption()}}
	if c.Integ != message.AuthNone {
		p.Integ = []uint16{c.Integ}
	}
	if c.PRF != 0 {
		p.PRF = []uint16{c.PRF}
	} else {
		p.Protocol, p.ESN = c.Protocol(), []bool{c.ESN}
	}
	if c.KE != message.KENone {
		p.KE = []uint16{c.KE}
	}
	for i, group := range c.Additional {
		if group != message.KENone {
			p.Additional[i] = []uint16{group}
		}
	}
	return p
}

func encrWord(e Encryption) string {
	if c := cipherOf(e); c != nil {
		return c.word
	}
	return fmt.Sprintf("encr%d/%d", e.ID, e.KeyLen)
}

func integWord(id uint16) string {
	if i := integOf(id); i != nil {
		return i.word
	}
	return fmt.Sprintf("integ%d", id)
}

func prfWord(id uint16) string {
	if p := prfOf(id); p != nil {
		return p.word
	}
	return fmt.Sprintf("prf%d", id)
}

// KEWord returns the proposal word of a key exchange method: x25519, ecp384, mlkem768.
func KEWord(group uint16) string {
	if g := groupOf(group); g != nil {
		return g.word
	}
	if group == message.KENone {
		return "none"
	}
	return fmt.Sprintf("ke%d", group)
}
