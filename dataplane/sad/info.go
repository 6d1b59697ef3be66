package sad

import (
	"time"

	"sallyport/dataplane/packet"
)

// Info is a snapshot of one association for people. It holds no key material.
// The counters move while it is taken, so they need not fit each other exactly.
type Info struct {
	Handle Handle
	// Params describe the association, with the SPI and the defaults filled in and without Keymat.
	Params Params
	Slot   uint32
	Owner  int // worker, -1 = none yet
	// Bundled is the SPI of the other half of a bundle, 0 without. Follows says that its owner is that of the other half.
	Bundled uint32
	Follows bool
	// Retiring says that the association is replaced and about to end; the engine's to know.
	Retiring bool
	// Sequence is the last number sent, or the highest received and authenticated.
	Sequence uint64
	// SequenceLeft is how many may still be sent; outbound only.
	SequenceLeft   uint64
	Packets, Bytes uint64
	// Replayed, TooOld and BadICV are inbound, TooBig and Exhausted outbound drops.
	Replayed, TooOld, BadICV, TooBig, Exhausted, OtherDrops uint64
	Filtered, Limited, Ended                                uint64
	// CutBefore and CutAfter are packets that were cut up, before encryption and after it; outbound only.
	CutBefore, CutAfter uint64
	// PathMTU is what was learned of the MTU of an outbound association's path, PathAt when, and PathUntil when that is forgotten; 0 if nothing.
	PathMTU           int
	PathAt, PathUntil time.Time
	PathProbed        bool // by packets that arrived, not learned of ICMP
}

// Len returns the numbers of live associations.
func (t *Table) Len() (inbound, outbound int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.slots[in].live, t.slots[out].live
}

// rangeChunk is how many slots are visited under one hold of the mutex.
const rangeChunk = 256

// Range calls f with a snapshot of each live association, outbound first, in the
// order of their slots, until f returns false. Associations may come and go
// meanwhile; f may call the table.
func (t *Table) Range(f func(*Info) bool) {
	infos := make([]Info, 0, rangeChunk)
	for direction := range t.slots {
		for from, more := 0, true; more; from += rangeChunk {
			infos, more = t.snapshot(infos[:0], direction, from)
			for i := range infos {
				if !f(&infos[i]) {
					return
				}
			}
		}
	}
}

// snapshot appends the live associations in rangeChunk slots, and says whether there are more slots.
func (t *Table) snapshot(infos []Info, direction, from int) ([]Info, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return infos, false
	}
	s := &t.slots[direction]
	to := min(from+rangeChunk, s.fresh)
	for i := from; i < to; i++ {
		if s.params[i] == nil {
			continue
		}
		info := Info{Params: *s.params[i], Slot: uint32(i)}
		if direction == in {
			t.inbound[i].info(&info, t)
		} else {
			t.outbound[i].info(&info, t)
			if known := t.paths.known[pathKey{info.Params.Name, info.Params.Local, info.Params.Remote}]; known != nil {
				info.PathMTU, info.PathAt, info.PathUntil, info.PathProbed = known.mtu, known.at, known.until, known.probed
			}
		}
		if m := t.terms[direction][i]; m != nil {
			info.Filtered, info.Limited, info.Ended = m.Filtered.Load(), m.Limited.Load(), m.Ended.Load()
		}
		infos = append(infos, info)
	}
	return infos, to < s.fresh
}

func (a *Inbound) info(i *Info, t *Table) {
	i.Handle = InboundHandle(a.SPI)
	head := t.InboundHead(a)
	i.Owner, i.Follows, i.Sequence = head.Owner(), head != a, a.Window.Top()
	if a.Flags.Fixed()&FlagBundled != 0 {
		i.Bundled = t.InboundPartner(a).SPI
	}
	i.Packets, i.Bytes = a.Packets.Load(), a.Bytes.Load()
	i.Replayed, i.TooOld, i.BadICV, i.OtherDrops = a.Replayed.Load(), a.TooOld.Load(), a.BadICV.Load(), a.OtherDrops.Load()
}

func (o *Outbound) info(i *Info, t *Table) {
	i.Handle = Handle(o.live) // only control calls write it, and they hold the mutex
	head := t.OutboundHead(o)
	i.Owner, i.Follows, i.Sequence, i.SequenceLeft = head.Owner(), head != o, o.Seq.Load(), o.Left()
	if o.Flags.Fixed()&FlagBundled != 0 {
		i.Bundled = t.OutboundPartner(o).SPI
	}
	i.Packets, i.Bytes = o.Packets.Load(), o.Bytes.Load()
	i.TooBig, i.Exhausted, i.OtherDrops = o.TooBig.Load(), o.Exhausted.Load(), o.OtherDrops.Load()
	i.CutBefore, i.CutAfter = o.CutBefore.Load(), o.CutAfter.Load()
}

// NameOf returns the name of the association that a packet's record speaks of; "" if it speaks of none, or of one
// that is gone.
func (t *Table) NameOf(p *packet.Packet) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return ""
	}
	var params *Params
	switch {
	case p.Class == packet.ClassInbound || p.Class != packet.ClassOutbound && p.Flags&packet.FlagDecapsulated != 0:
		if a := t.LookupInbound(p.SPI); a != nil {
			params = t.slots[in].params[a.Slot]
		}
	case p.Class != packet.ClassOutbound:
	case p.Seq != 0: // sealed: the SPI is that on the wire
		if int(p.Slot) < len(t.outbound) && t.outbound[p.Slot].SPI == p.SPI {
			params = t.slots[out].params[p.Slot]
		}
	default:
		if a := t.LookupOutbound(p.SPI); a != nil {
			params = t.slots[out].params[a.Slot]
		}
	}
	if params == nil {
		return ""
	}
	return params.Name
}
