package sad

import (
	"errors"
	"fmt"
	"net/netip"

	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
)

// Bundle describes the association of AH that protects what one of ESP has made once more, in transport mode and between the same two
// addresses: every packet has both, AH outside. RFC 2401, 4.3, calls the two a bundle. RFC 4301, 4.3, leaves them to local
// management, and IKEv2 negotiates none (RFC 7296, 1.7).
//
// The two halves are installed and removed together, by the handle of that of ESP. The one that packets come to first, AH inbound and
// ESP outbound, is the head: whoever owns it owns the other one as well. Neither carries anything without the other.
type Bundle struct {
	// SPI in host order. Inbound, 0 asks for a free one; outbound, it is the peer's choice.
	SPI   uint32
	Suite transform.Suite
	// Keymat is the keying material of this direction, as in [Params].
	Keymat []byte
	// ESN says that the sequence numbers of AH have 64 bits, whatever those of ESP have.
	ESN bool
	// Window is the size of the replay window; 0 = 4096. Inbound only.
	Window uint32
	// Sequence is the last sequence number used, of an outbound association.
	Sequence uint64
}

// errHalf: a bundle is changed as a whole.
var errHalf = errors.New("it is the half of a bundle that belongs to one of ESP")

// signer describes the half of AH. It has no lifetime: every packet counts in the half of ESP as well.
func (p *Params) signer() *Params {
	b := p.Bundle
	one := func(a netip.Addr) []spd.Range { return []spd.Range{{First: a, Last: a}} }
	return &Params{
		Name: p.Name, SPI: b.SPI, Inbound: p.Inbound, Suite: b.Suite, Keymat: b.Keymat, Local: p.Local, Remote: p.Remote,
		AH: true, Transport: true, half: true, ESN: b.ESN, Window: b.Window, Sequence: b.Sequence, Manual: p.Manual, Created: p.Created,
		Selectors: []spd.Selector{{
			Local: one(p.Local), Remote: one(p.Remote), Proto: protoESP, LocalPorts: spd.AnyPorts, RemotePorts: spd.AnyPorts,
		}},
	}
}

func (p *Params) checkBundle() error {
	switch {
	case p.Bundle == nil:
		return nil
	case p.AH:
		return fmt.Errorf("AH with AH")
	case p.Encap || p.Roaming:
		return fmt.Errorf("AH and ESP on one packet do not pass NAT")
	}
	return nil
}

// bundled says that the association is half of a bundle.
func (p *Params) bundled() bool { return p.Bundle != nil || p.half }

// InboundPartner and OutboundPartner return the other half of an association with FlagBundled, which is there as long as that is.
func (t *Table) InboundPartner(a *Inbound) *Inbound    { return &t.inbound[a.partner] }
func (t *Table) OutboundPartner(o *Outbound) *Outbound { return &t.outbound[o.partner] }

// InboundHead and OutboundHead return the half of a bundle that packets come to first, whose owner is that of both; any other association
// is its own.
func (t *Table) InboundHead(a *Inbound) *Inbound {
	if a.Flags.Fixed() == FlagBundled {
		return t.InboundPartner(a)
	}
	return a
}

func (t *Table) OutboundHead(o *Outbound) *Outbound {
	if o.Flags.Fixed().Outer() {
		return t.OutboundPartner(o)
	}
	return o
}

// Outer says that what the association protects is the ESP of the other half of its bundle.
func (f Flags) Outer() bool { return f&(FlagBundled|FlagAH) == FlagBundled|FlagAH }

// link joins two slots, of ESP and of AH, that are not published yet. The caller holds the mutex.
func (t *Table) link(direction int, esp, ah uint32) {
	if direction == in {
		e, a := &t.inbound[esp], &t.inbound[ah]
		e.partner, a.partner, e.signed = ah, esp, uint8(signedLen(a.Version, int(a.ICVLen)))
	} else {
		e, a := &t.outbound[esp], &t.outbound[ah]
		e.partner, a.partner, e.signed = ah, esp, uint8(signedLen(a.Version, int(a.ICVLen)))
	}
}

// partnerOf returns the slot of the other half of a bundle.
func (t *Table) partnerOf(direction int, slot uint32) uint32 {
	if direction == in {
		return t.inbound[slot].partner
	}
	return t.outbound[slot].partner
}
