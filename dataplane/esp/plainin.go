package esp

import (
	"sallyport/dataplane/aesgcm"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/replay"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
)

// plainInbound is the work on opened packets of one inbound association, one after the other, that TakeESP took. It has
// the assembly's layout.
type plainInbound struct {
	b    *packet.Batch
	live []uint8     // the packets
	ops  []aesgcm.Op // those of the packets of live, not fewer
	// words are those of the replay window, top is its top, and mask its ring less one.
	words []uint64
	top   uint64
	// bytes of the inner datagrams that were accepted.
	bytes     uint64
	mask      uint32
	spi       uint32
	selectors spd.Plain
}

// acceptGeneric accepts packets of r as accept does, and returns how many they are. It stops, and has done nothing, at a packet whose ICV does not match,
// whose sequence number is not the next, or that acceptPlain is not for.
func (r *plainInbound) acceptGeneric() (packets int) {
	for k, i := range r.live {
		p, op := &r.b.P[i], &r.ops[k]
		if seq := r.top + 1; !op.OK || p.Seq != seq || seq == 0 {
			break
		}
		outer := p.Addr + packet.EtherLen
		if !acceptPlain(r.b, i, outer+plainFront, r.b.Mem[outer+1], op.Buf[:len(op.Buf)-plainBack], &r.selectors) {
			break
		}
		r.top++
		at := uint32(r.top) & r.mask
		r.words[at/64] |= 1 << (at % 64)
		p.SPI = r.spi
		r.bytes += uint64(p.End - packet.EtherLen)
		packets++
	}
	return packets
}

// OpenESP is Decapsulate for what TakeESP took, which live lists.
func (s *Scratch) OpenESP(b *packet.Batch, live []uint8) []uint8 {
	s.crypto.OpenGCM(s.taken)
	kept, n := live[:0], 0
	for k := range s.opens {
		r := &s.opens[k]
		kept = s.finishESP(b, kept, live[n:n+r.packets], r.sa, n)
		n += r.packets
	}
	return kept
}

// finishESP is finishInbound for a run of packets of one association that TakeESP took, ops from n on.
func (s *Scratch) finishESP(b *packet.Batch, live, taken []uint8, in *sad.Inbound, n int) []uint8 {
	words, selectors := s.table.Bits(in), s.table.Selectors(in.Slot)
	before := len(live)
	r := &s.plainIn
	r.b, r.words, r.top, r.mask, r.spi, r.selectors, r.bytes = b, words, in.Window.Top(), in.Window.Ring()-1, in.SPI, *selectors.Plain(), 0
	for {
		r.live, r.ops = taken, s.crypto.GCMOps(n)
		k := r.accept()
		live = append(live, taken[:k]...)
		in.Window.Follow(r.top)
		if k == len(taken) {
			break
		}
		i := taken[k]
		if reason := s.judgeESP(b, i, in, selectors, words, &r.ops[k]); reason != packet.DropNone {
			b.P[i].Reason = reason
			countInbound(in, reason)
		} else {
			r.bytes += uint64(b.P[i].End - b.P[i].L3)
			live = append(live, i)
		}
		if k++; k == len(taken) {
			break
		}
		taken, n, r.top = taken[k:], n+k, in.Window.Top()
	}
	s.countReceived(b, live, in, uint64(len(live)-before), r.bytes)
	return live
}

// judgeESP says what becomes of packet i, which TakeESP took and whose op is done.
func (s *Scratch) judgeESP(b *packet.Batch, i uint8, in *sad.Inbound, selectors *spd.Selectors, words []uint64, op *aesgcm.Op) packet.Drop {
	p := &b.P[i]
	if op.OK {
		if verdict := in.Window.Advance(words, p.Seq); verdict != replay.OK {
			s.Leave(b, i)
			return dropOf(verdict)
		}
		outer := p.Addr + packet.EtherLen
		if acceptPlain(b, i, outer+plainFront, b.Mem[outer+1], op.Buf[:len(op.Buf)-plainBack], selectors.Plain()) {
			p.SPI = in.SPI
			return packet.DropNone
		}
	}
	s.Leave(b, i)
	if !op.OK {
		return packet.DropBadICV
	}
	r := record{index: i, tos: p.TOS, esp: p.Addr + uint64(p.L4), length: p.End - p.L4}
	return s.accept(b, &r, in, selectors)
}
