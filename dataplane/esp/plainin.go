package esp

import (
	"encoding/binary"
	"math/bits"

	"sallyport/dataplane/aesgcm"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/replay"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
)

// plainTaken is the work on packets as they were received, one after the other, for one inbound association. It has the assembly's layout.
type plainTaken struct {
	b *packet.Batch
	// ops are to become those of the packets, which are numbered from first on.
	ops   []aesgcm.Op
	first uint64
	// addresses are those of the outer header as they stand in it, a little-endian word.
	addresses uint64
	gcm       transform.GCMRun
	// hi and above are those of replay.Window.Ahead.
	hi    uint64
	above uint32
	slot  uint32
	port  uint16
	// late says that the packet behind those taken is one whose sequence number the window has to judge, and which is as it should be otherwise.
	late bool
}

// takeGeneric takes packets of r as TakeESP does as long as their sequence numbers lie ahead of the window, and returns how many they are. It has
// done nothing with the one behind them.
func (r *plainTaken) takeGeneric() (packets int) {
	b := r.b
	r.late = false
	for i := int(r.first); i < min(b.N, packet.BatchMax); i++ {
		p := &b.P[i]
		if p.Port != r.port || p.Class != packet.ClassNone || p.Len < packet.EtherLen+plainFront || p.Addr+uint64(p.Len) > uint64(len(b.Mem)) {
			break
		}
		h := (*[packet.EtherLen + plainFront]byte)(b.Mem[p.Addr:])
		// Words as in packet.ParsePlain.
		x, y := binary.LittleEndian.Uint64(h[12:]), binary.LittleEndian.Uint64(h[20:])
		total := uint64(bits.ReverseBytes16(uint16(x >> 32)))
		if x&0xffffff != 0x450008 || y&0xff_00_ffbf != packet.ProtoESP<<24 || binary.LittleEndian.Uint64(h[26:]) != r.addresses ||
			binary.LittleEndian.Uint32(h[34:]) != r.gcm.SPI() || total < plainFront+trailerLen+plainBack || total&3 != plainFront&3 ||
			total+packet.EtherLen > uint64(p.Len) || !packet.AllOnes(x>>16, y, r.addresses>>16) {
			break
		}
		lo := binary.BigEndian.Uint32(h[38:])
		if lo <= r.above {
			r.late = true
			break
		}
		r.put(&r.ops[packets], p, r.hi|uint64(lo), total)
		packets++
	}
	return packets
}

// put takes packet p, of total bytes with its outer header and with sequence number seq, as op.
func (r *plainTaken) put(op *aesgcm.Op, p *packet.Packet, seq, total uint64) {
	text := p.Addr + packet.EtherLen + plainFront
	iv := binary.LittleEndian.Uint64(r.b.Mem[text-plainIVLen:])
	p.Class, p.Slot, p.Seq = packet.ClassInbound, r.slot, seq
	r.gcm.Put(op, r.b.Mem[text:text+total-plainFront:packet.Chunk(text)+packet.FrameSize], iv, seq)
}

// openRun is what TakeESP took of packets for one association, one after the other.
type openRun struct {
	sa      *sad.Inbound
	packets int
}

// BeginESP forgets what TakeESP took.
func (s *Scratch) BeginESP() { s.taken, s.opens = 0, s.opens[:0] }

// Leave makes packet i, which TakeESP took, one that [packet.Parse] accepted and that is to be opened by Decapsulate.
func (s *Scratch) Leave(b *packet.Batch, i uint8) {
	packet.Parse(b, int(i)) // its outer header was found right
	p := &b.P[i]
	p.SPI = s.table.InboundAt(p.Slot).SPI
}

// TakeESP is parsing, prepareInbound and everything between for packets as they were received that need nothing special. It takes
// packets of the batch from number i on, as long as they come by the same port, are whole ESP packets in IPv4 without options, between the
// addresses of in and with its SPI, and pass the replay check, and readies them to be opened by OpenESP. It returns the number of the
// first that it did not take, and has done nothing with that. in is one that TakesESP.
//
// Of a packet's record only Class, Slot and Seq are written; see Leave.
func (s *Scratch) TakeESP(b *packet.Batch, i int, in *sad.Inbound) int {
	r, first, window := &s.take, i, &in.Window
	r.b, r.slot, r.port = b, in.Slot, b.P[i].Port
	r.addresses = uint64(binary.LittleEndian.Uint32(in.Remote[:])) | uint64(binary.LittleEndian.Uint32(in.Local[:]))<<32
	r.gcm = s.crypto.Run(s.table.InboundKey(in.Slot), bits.ReverseBytes32(in.SPI), in.Flags&sad.FlagESN != 0)
	r.hi, r.above = window.Ahead()
	for {
		r.ops, r.first = s.crypto.GCMOps(s.taken), uint64(i)
		n := r.take()
		i, s.taken = i+n, s.taken+n
		if !r.late {
			break
		}
		p := &b.P[i]
		h := (*[packet.EtherLen + plainFront]byte)(b.Mem[p.Addr:])
		seq := window.Infer(binary.BigEndian.Uint32(h[38:]))
		if window.Check(s.table.Bits(in), seq) != replay.OK {
			break
		}
		r.put(s.crypto.GCM(s.taken), p, seq, uint64(binary.BigEndian.Uint16(h[16:])))
		i, s.taken = i+1, s.taken+1
	}
	if i > first {
		s.opens = append(s.opens, openRun{in, i - first})
	}
	return i
}

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
