package esp

import (
	"encoding/binary"
	"math/bits"

	"sallyport/dataplane/aesgcm"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/replay"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/transform"
)

// plainTaken is the work on packets as they were received, one after the other, for inbound associations. It has the assembly's layout.
type plainTaken struct {
	b *packet.Batch
	// in is the association of the packets from number from on, until turn makes it another one, that find finds.
	in   *sad.Inbound
	from uint64
	find *sad.Finder
	// runs takes what was taken for each association, done is how many these are.
	runs *[packet.BatchMax]openRun
	done uint64
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
	// version is that of the outer header, and proto what follows it.
	version, proto uint8
	// front is the length of what stands in front of the text. The assembly is for plainFront.
	front uint64
	// words are the addresses of an outer IPv6 header, and ports those of UDP, as they stand there.
	words [4]uint64
	ports uint32
}

// open begins with the packets for an association.
func (r *plainTaken) open(in *sad.Inbound, key *transform.Key) {
	r.in, r.slot = in, in.Slot
	r.gcm = transform.RunOf(key, bits.ReverseBytes32(in.SPI), in.Flags&sad.FlagESN != 0)
	r.hi, r.above = in.Window.Ahead()
	r.version, r.proto, r.front = in.Version, packet.ProtoESP, frontOf(in)
	if in.Version == 4 {
		r.addresses = binary.LittleEndian.Uint64(in.Addresses[:])
	} else {
		for k := range r.words {
			r.words[k] = binary.LittleEndian.Uint64(in.Addresses[8*k:])
		}
	}
	if in.Flags&sad.FlagEncap != 0 {
		r.proto = packet.ProtoUDP
		r.ports = uint32(bits.ReverseBytes16(in.RemotePort)) | uint32(bits.ReverseBytes16(in.LocalPort))<<16
	}
}

// close ends with the packets for an association, in front of number to.
func (r *plainTaken) close(to uint64) {
	if to > r.from {
		r.runs[r.done&(packet.BatchMax-1)] = openRun{r.in, int(to - r.from)}
		r.done++
	}
	r.from = to
}

// notTurned are the flags of associations that turn is not for.
const notTurned = sad.FlagGuarded | sad.FlagEnded | sad.FlagsUnusual | sad.FlagTransport | sad.FlagAH | sad.FlagCopyDSCP | sad.FlagEncap

// turn goes on with the packets for the association with an SPI, from number to on, and says whether it could: if they take the short way, which the caller of TakeESP said
// of the first association, are of the form plainFront, go to the same address of ours, which that said too, and if there is nothing to be asked for in advance.
func (r *plainTaken) turn(spi uint32, to uint64) bool {
	if r.front != plainFront {
		return false
	}
	in, key := r.find.Known(spi)
	if in == nil || in.Flags&notTurned != 0 || in.Version != 4 || !key.GCM() || binary.LittleEndian.Uint32(in.Addresses[4:]) != uint32(r.addresses>>32) || in.Plain.None() {
		return false
	}
	r.close(to)
	r.open(in, key)
	return true
}

// frontOf is the length of what stands in front of the text in packets for an association.
func frontOf(in *sad.Inbound) (n uint64) {
	n = plainFront
	if in.Version == 6 {
		n += ipv6Len - ipv4Len
	}
	if in.Flags&sad.FlagEncap != 0 {
		n += udpLen
	}
	return n
}

// espFront is what ESP has in front of the text, and frontMax the longest that frontOf may say.
const (
	espFront = headerLen + plainIVLen
	frontMax = ipv6Len + udpLen + espFront
)

// takeGeneric takes packets of r as TakeESP does as long as their sequence numbers lie ahead of the window, and they are for its association or one that turn
// is for, and returns how many they are. It has done nothing with the one behind them.
func (r *plainTaken) takeGeneric() (packets int) {
	b := r.b
	r.late = false
	for i := int(r.first); i < min(b.N, packet.BatchMax); i++ {
		p := &b.P[i]
		if p.Port != r.port || p.Class != packet.ClassNone || uint64(p.Len) < packet.EtherLen+r.front || p.Addr+max(uint64(p.Len), packet.EtherLen+frontMax) > uint64(len(b.Mem)) {
			break
		}
		h := (*[packet.EtherLen + frontMax]byte)(b.Mem[p.Addr:])
		esp := h[packet.EtherLen+r.front-espFront:]
		if binary.LittleEndian.Uint32(esp) != r.gcm.SPI() && !r.turn(binary.BigEndian.Uint32(esp), uint64(i)) {
			break
		}
		total := r.outer(h)
		if total < r.front+trailerLen+plainBack || (total-r.front)&3 != 0 || total+packet.EtherLen > uint64(p.Len) {
			break
		}
		lo := binary.BigEndian.Uint32(esp[4:])
		if lo <= r.above {
			r.late = true
			break
		}
		r.put(&r.ops[packets], p, r.hi|uint64(lo), total)
		packets++
	}
	return packets
}

// outer returns the length of the datagram in frame h if its IP and UDP headers are as they should be, and 0 otherwise.
func (r *plainTaken) outer(h *[packet.EtherLen + frontMax]byte) (total uint64) {
	const ip = packet.EtherLen
	udp := h[ip+ipv4Len:]
	if r.version == 4 {
		x, y := binary.LittleEndian.Uint64(h[12:]), binary.LittleEndian.Uint64(h[20:]) // as in packet.ParsePlain
		if x&0xffffff != 0x450008 || y&0xff_00_ffbf != uint64(r.proto)<<24 || binary.LittleEndian.Uint64(h[26:]) != r.addresses || !packet.AllOnes(x>>16, y, r.addresses>>16) {
			return 0
		}
		total = uint64(bits.ReverseBytes16(uint16(x >> 32)))
	} else {
		const begin = packet.EtherIPv6>>8 | packet.EtherIPv6&0xff<<8 | 0x60<<16
		if binary.LittleEndian.Uint32(h[12:])&0xf0ffff != begin || h[ip+6] != r.proto || binary.LittleEndian.Uint64(h[ip+8:]) != r.words[0] || binary.LittleEndian.Uint64(h[ip+16:]) != r.words[1] ||
			binary.LittleEndian.Uint64(h[ip+24:]) != r.words[2] || binary.LittleEndian.Uint64(h[ip+32:]) != r.words[3] {
			return 0
		}
		total = ipv6Len + uint64(binary.BigEndian.Uint16(h[ip+4:]))
		udp = h[ip+ipv6Len:]
	}
	if r.proto == packet.ProtoUDP && (binary.LittleEndian.Uint32(udp) != r.ports || uint64(binary.BigEndian.Uint16(udp[4:]))+r.front != total+udpLen+espFront) {
		return 0
	}
	return total
}

// put takes packet p, of total bytes with its outer header and with sequence number seq, as op.
func (r *plainTaken) put(op *aesgcm.Op, p *packet.Packet, seq, total uint64) {
	text := p.Addr + packet.EtherLen + r.front
	iv := binary.LittleEndian.Uint64(r.b.Mem[text-plainIVLen:])
	p.Class, p.Slot, p.Seq = packet.ClassInbound, r.slot, seq
	r.gcm.Put(op, r.b.Mem[text:text+total-r.front:packet.Chunk(text)+packet.FrameSize], iv, seq)
}

// openRun is what TakeESP took of packets for one association, one after the other. It has the assembly's layout.
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

// LeaveShared makes those of the packets that TakeESP took, which live lists, ones that are to be opened by Decapsulate, see Leave, of whose associations
// others has packets too: of one association all are to be opened in the order in which they came, since a replay is one of what came before. It shortens live in
// place and appends what it leaves to left.
func (s *Scratch) LeaveShared(b *packet.Batch, live, others, left []uint8) (kept, _ []uint8) {
	var seen uint64
	for _, i := range others {
		seen |= 1 << bitOf(b.P[i].SPI)
	}
	kept, opens, taken, n := live[:0], s.opens[:0], 0, 0
	for _, r := range s.opens {
		run, from := live[n:n+r.packets], n
		n += r.packets
		if seen>>bitOf(r.sa.SPI)&1 != 0 && among(b, others, r.sa.SPI) {
			for _, i := range run {
				s.Leave(b, i)
			}
			left = append(left, run...)
			continue
		}
		if taken != from {
			copy(s.crypto.GCMOps(taken)[:r.packets], s.crypto.GCMOps(from))
		}
		kept, opens, taken = append(kept, run...), append(opens, r), taken+r.packets
	}
	s.opens, s.taken = opens, taken
	return kept, left
}

// bitOf spreads SPIs over the bits of a word.
func bitOf(spi uint32) uint32 { return spi * 0x9e3779b1 >> 26 }

// among says that one of the packets in list has an SPI.
func among(b *packet.Batch, list []uint8, spi uint32) bool {
	for _, i := range list {
		if b.P[i].SPI == spi {
			return true
		}
	}
	return false
}

// TakeESP is parsing, prepareInbound and everything between for packets as they were received that need nothing special. It takes
// packets of the batch from number i on, as long as they come by the same port, are whole ESP packets in IPv4 without options, in IPv6 without extension
// headers, or in UDP behind either if that is how they come for in, between the addresses of in and with its SPI, and pass the replay check, and readies them to be opened by OpenESP. Where
// a packet is for another association that the scratch's finder knows, and goes to the same address, it goes on with that one. It returns the number of the
// first that it did not take, and has done nothing with that, and the association that it was at work for last. in is one that TakesESP.
//
// Of a packet's record only Class, Slot and Seq are written; see Leave.
func (s *Scratch) TakeESP(b *packet.Batch, i int, in *sad.Inbound) (next int, last *sad.Inbound) {
	r := &s.take
	r.b, r.port, r.from = b, b.P[i].Port, uint64(i)
	r.runs, r.done = (*[packet.BatchMax]openRun)(s.opens[:packet.BatchMax]), uint64(len(s.opens))
	r.open(in, s.table.InboundKey(in.Slot))
	for {
		r.ops, r.first = s.crypto.GCMOps(s.taken), uint64(i)
		n := r.take()
		i, s.taken = i+n, s.taken+n
		if !r.late {
			break
		}
		p, window := &b.P[i], &r.in.Window
		h := b.Mem[p.Addr:][:packet.EtherLen+r.front]
		seq := window.Infer(binary.BigEndian.Uint32(h[len(h)-plainIVLen-4:]))
		if window.Check(s.table.Bits(r.in), seq) != replay.OK {
			break
		}
		total := uint64(binary.BigEndian.Uint16(h[packet.EtherLen+2:]))
		if r.version == 6 {
			total = ipv6Len + uint64(binary.BigEndian.Uint16(h[packet.EtherLen+4:]))
		}
		r.put(s.crypto.GCM(s.taken), p, seq, total)
		i, s.taken = i+1, s.taken+1
	}
	r.close(uint64(i))
	s.opens = s.opens[:r.done]
	return i, r.in
}

// plainInbound is the work on opened packets that TakeESP took, of one inbound association after the other. It has
// the assembly's layout.
type plainInbound struct {
	b    *packet.Batch
	live []uint8     // the packets
	ops  []aesgcm.Op // those of the packets of live, not fewer
	// in is the association of the packets from the place from in live on to the place end, until turn makes it that of the next run. top is that of its replay
	// window, and bytes those of the inner datagrams of its run that were accepted.
	in        *sad.Inbound
	from, end uint64
	top       uint64
	bytes     uint64
	// runs are those of the packets, and those before; run is the number of in's.
	runs []openRun
	run  uint64
	// now is the time of the batch, and due the bits of the time in which it must differ from the one at which an association's last packet passed for this one to be
	// recorded, none if nothing is to be.
	now, due uint64
	// front is the length of what stands in front of the text, and ecn the bits of the outer header's second byte that are its ECN field.
	front uint64
	ecn   uint8
	table *sad.Table
}

// open begins with the packets for an association.
func (r *plainInbound) open(in *sad.Inbound) { r.in, r.top, r.bytes = in, in.Window.Top(), 0 }

// turn ends with the packets of a run, all of which were accepted, as finishESP does, and goes on with those of the next. It says whether it could: if there is one, if nobody is to
// be told of the association, and if the next one's packets have an outer header as long.
func (r *plainInbound) turn() bool {
	if r.run+1 >= uint64(len(r.runs)) {
		return false
	}
	in, next := r.in, r.runs[r.run+1]
	packets, bytes := in.Packets.Load()+uint64(r.runs[r.run].packets), in.Bytes.Load()+r.bytes
	if (r.now^in.Last.Load())&r.due != 0 || in.Reached(bytes, packets) || next.sa.Version != in.Version || (next.sa.Flags^in.Flags)&sad.FlagEncap != 0 {
		return false
	}
	in.Window.Follow(r.top)
	in.Packets.Set(packets)
	in.Bytes.Set(bytes)
	in.Last.Set(r.now)
	r.run++
	r.from, r.end = r.end, r.end+uint64(next.packets)
	r.open(next.sa)
	return true
}

// opened says that the ICV of packet p matches, that its sequence number is the next, and that its outer header says nothing of congestion.
func (r *plainInbound) opened(p *packet.Packet, op *aesgcm.Op) bool {
	seq := r.top + 1
	return op.OK && p.Seq == seq && seq != 0 && r.b.Mem[p.Addr+packet.EtherLen+1]&r.ecn == 0
}

// pass counts packet p, which is accepted.
func (r *plainInbound) pass(p *packet.Packet) {
	r.top++
	p.SPI = r.in.SPI
	r.bytes += uint64(p.End - packet.EtherLen)
}

// acceptSix does for inner packets that acceptPlain6 is for, from the place k in r on, what acceptGeneric does for others, for one association.
func (r *plainInbound) acceptSix(k int) (packets int) {
	for ; k < int(r.end); k++ {
		i, op := r.live[k], &r.ops[k]
		p := &r.b.P[i]
		if !r.opened(p, op) || !r.acceptPlain6(i, p.Addr+packet.EtherLen+r.front, op.Buf[:len(op.Buf)-plainBack]) {
			break
		}
		r.pass(p)
		packets++
	}
	return packets
}

// acceptGeneric accepts packets of r as accept does, and returns how many they are. It stops, and has done nothing, at a packet whose ICV does not match,
// whose sequence number is not the next, or that acceptPlain is not for, and at the end of a run behind which turn is not for the next.
func (r *plainInbound) acceptGeneric() (packets int) {
	for k, i := range r.live {
		if uint64(k) == r.end && !r.turn() {
			break
		}
		p, op := &r.b.P[i], &r.ops[k]
		if !r.opened(p, op) || !acceptPlain(r.b, i, p.Addr+packet.EtherLen+r.front, packet.ECNNotECT, op.Buf[:len(op.Buf)-plainBack], &r.in.Plain) {
			break
		}
		r.pass(p)
		packets++
	}
	return packets
}

// OpenESP is Decapsulate for what TakeESP took, which live lists.
func (s *Scratch) OpenESP(b *packet.Batch, live []uint8) []uint8 {
	s.crypto.OpenGCM(s.taken)
	r := &s.plainIn
	r.b, r.table, r.now = b, s.table, uint64(s.Now)
	kept, n := live[:0], 0
	for r.run = 0; r.run < uint64(len(s.opens)); r.run++ {
		kept, n = s.finishESP(b, kept, live, n)
	}
	return kept
}

// finishESP is finishInbound for a run of packets of one association that TakeESP took, from the place n in live, and op n, on; and for those behind it as far as plainInbound.turn turns to
// them. It returns the place behind them.
func (s *Scratch) finishESP(b *packet.Batch, kept, live []uint8, n int) (_ []uint8, next int) {
	r := &s.plainIn
	r.open(s.opens[r.run].sa)
	r.front, r.ecn = frontOf(r.in), 0x03
	if r.in.Version == 6 {
		r.ecn <<= 4 // the traffic class stands across two bytes
	}
	r.runs, r.from, r.end, r.due = s.opens, 0, uint64(s.opens[r.run].packets), s.dueBits()
	passed := 0 // of the run
	for {
		r.live, r.ops = live[n:], s.crypto.GCMOps(n)
		k := r.accept()
		if r.from > 0 {
			passed = 0
		}
		if k < int(r.end) {
			k += r.acceptSix(k)
		}
		kept = append(kept, r.live[:k]...)
		passed += k - int(r.from)
		r.in.Window.Follow(r.top)
		if k == int(r.end) {
			n += k
			break
		}
		i := r.live[k]
		if reason := s.judgeESP(b, i, r.in, &r.ops[k]); reason != packet.DropNone {
			b.P[i].Reason = reason
			countInbound(r.in, reason)
		} else {
			r.bytes += uint64(b.P[i].End - b.P[i].L3)
			kept = append(kept, i)
			passed++
		}
		k++
		n += k
		if k == int(r.end) {
			break
		}
		// What is left of the run alone: turn counts whole runs.
		r.runs, r.from, r.end, r.top = s.opens[:r.run+1], 0, r.end-uint64(k), r.in.Window.Top()
	}
	s.countReceived(b, kept, r.in, uint64(passed), r.bytes)
	return kept, n
}

// judgeESP says what becomes of packet i, which TakeESP took and whose op is done.
func (s *Scratch) judgeESP(b *packet.Batch, i uint8, in *sad.Inbound, op *aesgcm.Op) packet.Drop {
	p, r := &b.P[i], &s.plainIn
	if op.OK {
		if verdict := in.Window.Advance(s.table.Bits(in), p.Seq); verdict != replay.OK {
			s.Leave(b, i)
			return dropOf(verdict)
		}
		outer, text := p.Addr+packet.EtherLen, op.Buf[:len(op.Buf)-plainBack]
		if start := outer + r.front; b.Mem[outer+1]&r.ecn == 0 && (acceptPlain(b, i, start, packet.ECNNotECT, text, &in.Plain) || r.acceptPlain6(i, start, text)) {
			p.SPI = in.SPI
			return packet.DropNone
		}
	}
	s.Leave(b, i)
	if !op.OK {
		return packet.DropBadICV
	}
	esp := p.Addr + packet.EtherLen + r.front - espFront
	return s.accept(b, &record{index: i, tos: p.TOS, esp: esp, length: uint16(len(op.Buf)) + espFront}, in, s.table.Selectors(in.Slot))
}
