package suite

import (
	"fmt"
	"slices"
	"strings"

	"sallyport/ike/message"
)

// Options say what Select is to mind beyond the proposals.
type Options struct {
	// KE is the method of the peer's KE payload, 0 without one. Where the proposal that is chosen accepts it, it is
	// preferred to other methods, because they would cost another round trip (RFC 7296, 1.2).
	KE uint16
	// NoKE leaves key exchanges out, whatever is offered: for the child SA of IKE_AUTH (RFC 7296, 1.2).
	NoKE bool
	// NoAdditional refuses additional key exchanges: for an IKE SA with a peer that has not said that it knows
	// IKE_INTERMEDIATE (RFC 9370, 2.2.1).
	NoAdditional bool
}

// Select chooses, as responder, from what the peer offers (RFC 7296, 2.7 and 3.3.6): the first of the own proposals of
// which one transform of each kind is in one offered proposal, own order before the peer's. Transforms that are not
// understood are passed over, proposals with a transform type that is not understood too. It returns the answer with
// the offered proposal's number and without SPI. A choice whose KE differs from the peer's KE payload asks for
// INVALID_KE_PAYLOAD with that method.
//
// The error is a *message.Error with NO_PROPOSAL_CHOSEN that says what was offered.
func Select(offered []message.Proposal, own []Proposal, o Options) (Choice, message.Proposal, error) {
	for i := range own {
		mine := own[i]
		if o.NoKE {
			mine = mine.WithoutKE()
		}
		if o.NoAdditional {
			var ok bool
			if mine, ok = mine.WithoutAdditional(); !ok {
				continue
			}
		}
		for j := range offered {
			if c, ok := mine.match(&offered[j], o); ok {
				return c, c.answer(&offered[j], o), nil
			}
		}
	}
	return Choice{}, message.Proposal{}, &message.Error{
		Notify: message.NoProposalChosen, Reason: ReasonNoProposal,
		Detail: fmt.Sprintf("offered %s; acceptable %s", Describe(offered), describeOwn(own)),
	}
}

// Accept checks, as initiator, that the responder's answer is a choice from what was offered with [Offer] (RFC 7296,
// 2.7): the number of an offered proposal, one transform of each kind, each of them offered. The error is a
// *message.Error without a notify.
func Accept(answer message.Proposal, offered []Proposal) (Choice, error) {
	wrong := func(what string) (Choice, error) {
		return Choice{}, &message.Error{Reason: ReasonAnswer, Detail: what + ": " + Describe([]message.Proposal{answer})}
	}
	if answer.Number < 1 || int(answer.Number) > len(offered) {
		return wrong("a number that was not offered")
	}
	for i, t := range answer.Transforms {
		if slices.ContainsFunc(answer.Transforms[:i], func(u message.Transform) bool { return u.Type == t.Type }) {
			return wrong("two transforms of one type")
		}
	}
	mine := &offered[answer.Number-1]
	c, ok := mine.match(&answer, Options{})
	if !ok {
		return wrong("not what was offered")
	}
	return c, nil
}

// OffersKE says whether a method is among the own proposals' key exchanges. An initiator that is told to use it by
// INVALID_KE_PAYLOAD does so only then (RFC 7296, 1.2 and 2.7; a forged notify must not choose for us).
func OffersKE(own []Proposal, method uint16) bool {
	return method != message.KENone && slices.ContainsFunc(own, func(p Proposal) bool { return slices.Contains(p.KE, method) })
}

// view is what a proposal offers: whether it has a type at all, and whether it has a transform.
type view interface {
	has(t message.TransformType, id uint16) bool
	mentions(t message.TransformType) bool
}

// offer is a proposal on the wire.
type offer struct{ *message.Proposal }

func (o offer) has(t message.TransformType, id uint16) bool {
	return slices.Contains(o.Transforms, message.Transform{Type: t, ID: id})
}

func (o offer) mentions(t message.TransformType) bool {
	return slices.ContainsFunc(o.Transforms, func(u message.Transform) bool { return u.Type == t })
}

// match chooses one transform of each kind that both proposals have.
func (p *Proposal) match(m *message.Proposal, o Options) (c Choice, ok bool) {
	if m.Protocol != p.Protocol || !understood(m) {
		return c, false
	}
	theirs := offer{m}
	c.AH = p.Protocol == message.ProtocolAH
	e := slices.IndexFunc(p.Encr, func(e Encryption) bool {
		if c.AH {
			return e.ID == message.EncrNULL || theirs.has(message.TransformInteg, auth(e, 0))
		}
		return slices.Contains(m.Transforms, encrTransform(e))
	})
	if e < 0 {
		return c, false
	}
	c.Encr, c.KeyLen = p.Encr[e].ID, p.Encr[e].KeyLen
	if !c.AH || c.Encr == message.EncrNULL {
		if c.Integ, ok = pick(p.Integ, theirs, message.TransformInteg, 0); !ok {
			return c, false
		}
	}
	if c.PRF, ok = pick(p.PRF, theirs, message.TransformPRF, 0); !ok {
		return c, false
	}
	if p.Protocol != message.ProtocolIKE {
		esn := slices.IndexFunc(p.ESN, func(esn bool) bool { return slices.Contains(m.Transforms, esnTransform(esn)) })
		if esn < 0 {
			return c, false
		}
		c.ESN = p.ESN[esn]
	}
	if o.NoKE {
		return c, true
	}
	ke, ok := p.chooseKE(theirs, o.KE)
	c.KE = ke[0]
	copy(c.Additional[:], ke[1:])
	return c, ok
}

// understood says whether every transform type belongs to the protocol (RFC 7296, 3.3.6: a proposal with another one
// must not be chosen).
func understood(m *message.Proposal) bool {
	for _, t := range m.Transforms {
		switch t.Type {
		case message.TransformEncr:
			if m.Protocol == message.ProtocolAH {
				return false
			}
		case message.TransformInteg, message.TransformKE:
		case message.TransformPRF:
			if m.Protocol != message.ProtocolIKE {
				return false
			}
		case message.TransformESN:
			if m.Protocol == message.ProtocolIKE {
				return false
			}
		default:
			if t.Type < message.TransformADDKE || t.Type >= message.TransformADDKE+AdditionalMax {
				return false
			}
		}
	}
	return true
}

// pick returns the first own transform that is offered, or preferred if that is among both. Where one side has no
// transform of the type, the other must do without: have none, or NONE among them.
func pick(own []uint16, theirs view, t message.TransformType, preferred uint16) (uint16, bool) {
	if !theirs.mentions(t) {
		return 0, len(own) == 0 || slices.Contains(own, 0)
	}
	if len(own) == 0 {
		return 0, theirs.has(t, 0)
	}
	if preferred != 0 && slices.Contains(own, preferred) && theirs.has(t, preferred) {
		return preferred, true
	}
	for _, id := range own {
		if theirs.has(t, id) {
			return id, true
		}
	}
	return 0, false
}

// ownView lets a proposal be matched with itself.
type ownView struct{ *Proposal }

func (v ownView) mentions(t message.TransformType) bool { return len(v.list(t)) > 0 }
func (v ownView) has(t message.TransformType, id uint16) bool {
	return slices.Contains(v.list(t), id)
}

func (v ownView) list(t message.TransformType) []uint16 {
	if t == message.TransformKE {
		return v.KE
	}
	return v.Additional[t-message.TransformADDKE]
}

// chooseKE chooses a method for KE and ADDKE1 to ADDKE7. None may be used twice (RFC 9370, 2.2.1), so that an early
// choice may have to yield to a later one. Own lists are short and of our making, which bounds the search.
func (p *Proposal) chooseKE(theirs view, preferred uint16) (chosen [1 + AdditionalMax]uint16, ok bool) {
	var search func(slot int) bool
	search = func(slot int) bool {
		if slot == len(chosen) {
			return true
		}
		own, t := p.KE, message.TransformKE
		if slot > 0 {
			own, t = p.Additional[slot-1], message.TransformADDKE+message.TransformType(slot-1)
		}
		mentioned := theirs.mentions(t)
		try := func(id uint16) bool {
			if mentioned && !theirs.has(t, id) || !mentioned && id != message.KENone {
				return false
			}
			// An additional key exchange follows a first one and is another.
			if id != message.KENone && slot > 0 && (chosen[0] == message.KENone || slices.Contains(chosen[:slot], id)) {
				return false
			}
			chosen[slot] = id
			return search(slot + 1)
		}
		if len(own) == 0 {
			return try(message.KENone)
		}
		if slot == 0 && preferred != message.KENone && slices.Contains(own, preferred) && try(preferred) {
			return true
		}
		return slices.ContainsFunc(own, try)
	}
	return chosen, search(0)
}

// answer is the choice as it stands on the wire: one transform of each type that was offered.
func (c Choice) answer(m *message.Proposal, o Options) message.Proposal {
	a := message.Proposal{Number: m.Number, Protocol: m.Protocol, Transforms: make([]message.Transform, 0, 5)}
	theirs := offer{m}
	add := func(t message.TransformType, id uint16) {
		if theirs.mentions(t) {
			a.Transforms = append(a.Transforms, message.Transform{Type: t, ID: id})
		}
	}
	if c.AH {
		add(message.TransformInteg, auth(c.encryption(), c.Integ))
	} else {
		a.Transforms = append(a.Transforms, encrTransform(c.encryption()))
		add(message.TransformInteg, c.Integ)
	}
	if m.Protocol == message.ProtocolIKE {
		add(message.TransformPRF, c.PRF)
	}
	if !o.NoKE {
		add(message.TransformKE, c.KE)
	}
	if m.Protocol != message.ProtocolIKE {
		a.Transforms = append(a.Transforms, esnTransform(c.ESN))
	}
	if !o.NoKE {
		for i, id := range c.Additional {
			add(message.TransformADDKE+message.TransformType(i), id)
		}
	}
	return a
}

// describeMax bounds the text that a peer's offer becomes in a log line, in bytes.
const describeMax = 600

// Describe returns proposals of a peer in strongSwan's words, numbers for what has none here, for log lines. It is
// bounded, however much is offered.
func Describe(offered []message.Proposal) string {
	var b strings.Builder
	for i, p := range offered {
		if i > 0 {
			b.WriteString(", ")
		}
		for j, t := range p.Transforms {
			if b.Len() > describeMax {
				b.WriteString("…")
				return b.String()
			}
			if j > 0 {
				b.WriteByte('-')
			}
			b.WriteString(transformWord(t))
		}
	}
	if b.Len() == 0 {
		return "nothing"
	}
	return b.String()
}

func describeOwn(own []Proposal) string {
	list := make([]string, len(own))
	for i, p := range own {
		list[i] = p.String()
	}
	return strings.Join(list, ", ")
}

func transformWord(t message.Transform) string {
	switch {
	case t.Type == message.TransformEncr:
		for _, c := range ciphers {
			if encrTransform(c.encr) == t {
				return c.word
			}
		}
		if t.KeyLen != 0 {
			return fmt.Sprintf("encr%d/%d", t.ID, t.KeyLen)
		}
		return fmt.Sprintf("encr%d", t.ID)
	case t.Type == message.TransformInteg:
		return integWord(t.ID)
	case t.Type == message.TransformPRF:
		return prfWord(t.ID)
	case t.Type == message.TransformKE:
		return KEWord(t.ID)
	case t.Type == message.TransformESN && t.ID <= message.ESNYes:
		return [...]string{"noesn", "esn"}[t.ID]
	case t.Type >= message.TransformADDKE && t.Type < message.TransformADDKE+AdditionalMax:
		return fmt.Sprintf("ke%d_%s", t.Type-message.TransformADDKE+1, KEWord(t.ID))
	}
	return fmt.Sprintf("type%d/%d", t.Type, t.ID)
}
