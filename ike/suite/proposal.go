package suite

import (
	"fmt"
	"slices"
	"strings"

	"sallyport/ike/message"
)

// Proposal is what one side would agree to: for each kind of transform the acceptable ones, the preferred first. It is
// read-only once it is made, and may be shared.
type Proposal struct {
	Protocol message.ProtocolID // IKE, ESP or AH; that of AH is one of ESP without encryption, but on the wire
	Encr     []Encryption       // AEADs only, or none
	Integ    []uint16           // without AEADs
	PRF      []uint16           // IKE only
	// KE are key exchange methods. For ESP they count in CREATE_CHILD_SA alone; KENone among them makes the key exchange
	// optional, and none at all means that there is none.
	KE []uint16
	// Additional are those of ADDKE1 to ADDKE7 (RFC 9370), each optional with KENone among them.
	Additional [AdditionalMax][]uint16
	ESN        []bool // ESP only: whether with extended sequence numbers
}

// wordMax bounds the text of a proposal, for the sake of errors that quote it.
const wordMax = 512

// ParseIKE reads a proposal for IKE SAs in strongSwan's words, joined by hyphens:
// aes256gcm16-aes128gcm16-prfsha384-x25519-ecp256-ke1_mlkem768. Without a PRF that of the integrity algorithms is taken.
// "none" among additional key exchanges makes them optional.
func ParseIKE(s string) (Proposal, error) { return parse(s, message.ProtocolIKE) }

// ParseESP reads a proposal for child SAs: aes256gcm16-x25519-esn-noesn. Without esn and noesn both are acceptable,
// extended sequence numbers first. Only what the data plane has is accepted.
func ParseESP(s string) (Proposal, error) { return parse(s, message.ProtocolESP) }

// ParseAH reads a proposal for child SAs of AH: sha256-sha512-x25519-esn, aes128gmac.
func ParseAH(s string) (Proposal, error) { return parse(s, message.ProtocolAH) }

func parse(s string, protocol message.ProtocolID) (Proposal, error) {
	p := Proposal{Protocol: protocol}
	if len(s) > wordMax {
		return p, fmt.Errorf("proposal of %d characters", len(s))
	}
	for name := range strings.SplitSeq(strings.ToLower(strings.TrimSpace(s)), "-") {
		if err := p.add(name); err != nil {
			return Proposal{}, fmt.Errorf("proposal %q: %w", s, err)
		}
	}
	if err := p.complete(); err != nil {
		return Proposal{}, fmt.Errorf("proposal %q: %w", s, err)
	}
	return p, nil
}

// add puts one word where it belongs.
func (p *Proposal) add(name string) error {
	if name == "" {
		return fmt.Errorf("an algorithm is missing where two hyphens meet, or at an end")
	}
	bare, slot := name, -1
	if len(name) > 4 && strings.HasPrefix(name, "ke") && name[2] >= '1' && name[2] <= '7' && name[3] == '_' {
		bare, slot = name[4:], int(name[2]-'1')
	}
	w, ok := words[bare]
	if !ok {
		return unknownWord(bare)
	}
	ike := p.Protocol == message.ProtocolIKE
	switch {
	case slot >= 0 && w.kind != wordKE:
		return fmt.Errorf("%q: %s is no key exchange", name, bare)
	case slot >= 0:
		p.Additional[slot] = with(p.Additional[slot], w.id)
		return nil
	case ike && w.kind == wordESN:
		return fmt.Errorf("%q belongs to a proposal for ESP", name)
	case ike && w.kind == wordEncr && cipherOf(w.encr).espOnly != "":
		return fmt.Errorf("%q belongs to a proposal for ESP: %s", name, cipherOf(w.encr).espOnly)
	case ike && w.noIKE && w.id == message.KENone:
		return fmt.Errorf("%q: an IKE SA needs a key exchange", name)
	case ike && w.noIKE:
		return fmt.Errorf("%q does not fit the first message, which cannot be sent in fragments: write %q after another key exchange", name, "ke1_"+name)
	case !ike && w.kind == wordPRF:
		return fmt.Errorf("%q belongs to a proposal for IKE", name)
	case p.Protocol == message.ProtocolAH && w.kind == wordEncr && w.encr.ID != message.EncrNullAuthAESGMAC:
		return fmt.Errorf("%q belongs to a proposal for ESP: AH encrypts nothing", name)
	}
	switch w.kind {
	case wordEncr:
		p.Encr = with(p.Encr, w.encr)
	case wordInteg:
		p.Integ = with(p.Integ, w.id)
	case wordPRF:
		p.PRF = with(p.PRF, w.id)
	case wordKE:
		p.KE = with(p.KE, w.id)
	case wordESN:
		p.ESN = with(p.ESN, w.esn)
	}
	return nil
}

func with[T comparable](list []T, value T) []T {
	if slices.Contains(list, value) {
		return list
	}
	return append(list, value)
}

// complete fills in what the words leave out, and refuses what they leave open.
func (p *Proposal) complete() error {
	aeads := 0
	for _, e := range p.Encr {
		if cipherOf(e).aead() {
			aeads++
		}
	}
	ike := p.Protocol == message.ProtocolIKE
	if ike && len(p.PRF) == 0 {
		for _, id := range p.Integ {
			p.PRF = with(p.PRF, integOf(id).prf)
		}
	}
	if p.Protocol == message.ProtocolAH && len(p.Integ) > 0 {
		if len(p.Encr) > 0 {
			return fmt.Errorf("%s and %s: write two proposals", encrWord(p.Encr[0]), integWord(p.Integ[0]))
		}
		p.Encr = []Encryption{{ID: message.EncrNULL}}
	}
	// RFC 5282, 8: an AEAD comes without integrity algorithm, so that one proposal cannot have both.
	switch {
	case len(p.Encr) == 0 && p.Protocol == message.ProtocolAH:
		return fmt.Errorf("no integrity algorithm, such as sha256")
	case len(p.Encr) == 0:
		return fmt.Errorf("no encryption, such as aes256gcm16")
	case aeads != 0 && aeads != len(p.Encr):
		return fmt.Errorf("%s checks integrity by itself and %s does not: write two proposals", encrWord(p.firstCipher(true)), encrWord(p.firstCipher(false)))
	case aeads == 0 && len(p.Integ) == 0:
		return fmt.Errorf("%s needs an integrity algorithm, such as sha256", encrWord(p.Encr[0]))
	case aeads != 0:
		p.Integ = nil
	}
	switch {
	case ike && len(p.PRF) == 0:
		return fmt.Errorf("no PRF, such as prfsha384")
	case ike && len(p.KE) == 0:
		return fmt.Errorf("no key exchange, such as x25519")
	case !ike && len(p.ESN) == 0:
		p.ESN = []bool{true, false}
	}
	if !p.hasKE() && p.hasAdditional() {
		return fmt.Errorf("additional key exchanges without a first one")
	}
	if _, ok := p.chooseKE(ownView{p}, 0); p.hasKE() && !ok {
		return fmt.Errorf("one key exchange method would be used twice (RFC 9370, 2.2.1)")
	}
	return nil
}

func (p *Proposal) firstCipher(aead bool) Encryption {
	i := slices.IndexFunc(p.Encr, func(e Encryption) bool { return cipherOf(e).aead() == aead })
	return p.Encr[i]
}

func (p *Proposal) hasKE() bool {
	return slices.ContainsFunc(p.KE, func(id uint16) bool { return id != message.KENone })
}

func (p *Proposal) hasAdditional() bool {
	return slices.ContainsFunc(p.Additional[:], func(ids []uint16) bool { return len(ids) > 0 })
}

// WithoutKE returns the proposal without key exchanges, as IKE_AUTH negotiates the first child SA (RFC 7296, 1.2).
func (p Proposal) WithoutKE() Proposal {
	p.KE, p.Additional = nil, [AdditionalMax][]uint16{}
	return p
}

// WithoutAdditional returns the proposal without additional key exchanges; ok is false where it demands one. It is for
// peers that do not know RFC 9242, without which there are none (RFC 9370, 2.2.1).
func (p Proposal) WithoutAdditional() (_ Proposal, ok bool) {
	for _, ids := range p.Additional {
		if len(ids) > 0 && !slices.Contains(ids, message.KENone) {
			return p, false
		}
	}
	p.Additional = [AdditionalMax][]uint16{}
	return p, true
}

// String returns the proposal's words.
func (p Proposal) String() string {
	var names []string
	for _, e := range p.Encr {
		if p.Protocol != message.ProtocolAH || e.ID != message.EncrNULL {
			names = append(names, encrWord(e))
		}
	}
	for _, id := range p.Integ {
		names = append(names, integWord(id))
	}
	for _, id := range p.PRF {
		names = append(names, prfWord(id))
	}
	for _, id := range p.KE {
		names = append(names, KEWord(id))
	}
	for i, ids := range p.Additional {
		for _, id := range ids {
			names = append(names, fmt.Sprintf("ke%d_%s", i+1, KEWord(id)))
		}
	}
	for _, esn := range p.ESN {
		if esn {
			names = append(names, "esn")
		} else {
			names = append(names, "noesn")
		}
	}
	return strings.Join(names, "-")
}

// Ciphers returns what can be chosen of a proposal for ESP, the preferred first, as [Choice.Cipher] names it.
func (p *Proposal) Ciphers() []string {
	var all []string
	for _, e := range p.Encr {
		c := Choice{Encr: e.ID, KeyLen: e.KeyLen}
		if cipherOf(e).aead() {
			all = append(all, c.Cipher())
			continue
		}
		for _, c.Integ = range p.Integ {
			all = append(all, c.Cipher())
		}
	}
	return all
}

// Message returns the proposal as it stands on the wire, with this number and SPI.
func (p Proposal) Message(number uint8, spi []byte) message.Proposal {
	m := message.Proposal{Number: number, Protocol: p.Protocol, SPI: spi}
	for _, e := range p.Encr {
		switch {
		case p.Protocol != message.ProtocolAH:
			m.Transforms = append(m.Transforms, encrTransform(e))
		case e.ID != message.EncrNULL:
			m.Transforms = append(m.Transforms, message.Transform{Type: message.TransformInteg, ID: auth(e, 0)})
		}
	}
	add := func(t message.TransformType, ids []uint16) {
		for _, id := range ids {
			m.Transforms = append(m.Transforms, message.Transform{Type: t, ID: id})
		}
	}
	add(message.TransformInteg, p.Integ)
	add(message.TransformPRF, p.PRF)
	add(message.TransformKE, p.KE)
	for _, esn := range p.ESN {
		m.Transforms = append(m.Transforms, esnTransform(esn))
	}
	for i, ids := range p.Additional {
		add(message.TransformADDKE+message.TransformType(i), ids)
	}
	return m
}

// Offer returns proposals as an SA payload carries them, numbered from 1 (RFC 7296, 3.3.1).
func Offer(own []Proposal, spi []byte) []message.Proposal {
	all := make([]message.Proposal, len(own))
	for i, p := range own {
		all[i] = p.Message(uint8(i+1), spi)
	}
	return all
}

func encrTransform(e Encryption) message.Transform {
	t := message.Transform{Type: message.TransformEncr, ID: e.ID, KeyLen: uint16(e.KeyLen)}
	if c := cipherOf(e); c != nil && c.fixed {
		t.KeyLen = 0 // RFC 7296, 3.3.5: no attribute where there is one length only
	}
	return t
}

func esnTransform(esn bool) message.Transform {
	if esn {
		return message.Transform{Type: message.TransformESN, ID: message.ESNYes}
	}
	return message.Transform{Type: message.TransformESN, ID: message.ESNNo}
}
