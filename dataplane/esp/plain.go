package esp

import (
	"encoding/binary"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/replay"
	"sallyport/dataplane/sad"
)

// Lengths of the usual form: what most prepared headers hold, IPv4, SPI and sequence number; and what AES-GCM adds (RFC 4106).
const (
	plainHeaderLen = ipv4Len + headerLen
	plainIVLen     = 8
	plainICVLen    = 16
)

// encapsulatePlain puts the first of the live packets, as many as have the form that most have, into ESP packets: see preparePlain. It
// appends those that live to kept, which may lie in front of live in the same array, and returns what is left of live.
func (s *Scratch) encapsulatePlain(b *packet.Batch, kept, live []uint8, sa []*sad.Outbound) (_, rest []uint8) {
	n := 0
	for n < len(live) && n < packet.BatchMax {
		o, p := sa[live[n]], &b.P[live[n]]
		s.bytes[n] = p.End - p.L3
		if !s.plain(o) || !s.preparePlain(p, b.Mem, o, n) {
			break
		}
		n++
	}
	done, rest := live[:n], live[n:]
	if n == 0 {
		return kept, rest
	}
	failed := n - s.crypto.SealGCM(n)
	var run *sad.Outbound
	var packets, bytes uint64
	for k, i := range done {
		o := sa[i]
		if failed > 0 && !s.crypto.DoneGCM(k) {
			s.failOutbound(b, i, o)
			continue
		}
		if o != run {
			s.countSent(run, packets, bytes)
			run, packets, bytes = o, 0, 0
		}
		packets++
		bytes += uint64(s.bytes[k])
		kept = append(kept, i)
	}
	s.countSent(run, packets, bytes)
	return kept, rest
}

// plain says that packets for an association, or none, have the form that preparePlain is for.
func (s *Scratch) plain(o *sad.Outbound) bool {
	return o != nil && o.HeaderLen == plainHeaderLen && s.table.OutboundKey(o.Slot).GCM()
}

// preparePlain is prepareOutbound for the form that most tunnels have: ESP right behind an outer IPv4 header, and AES-GCM. It
// writes whole words. It returns false, and has done nothing, where anything is
// out of the ordinary; prepareOutbound then says what.
//
//	outer                8               16              24          28
//	| 45 tos len id frag | ttl 50 sum src | src dst  SPI | sequence | IV ...
func (s *Scratch) preparePlain(p *packet.Packet, mem []byte, o *sad.Outbound, n int) bool {
	key := s.table.OutboundKey(o.Slot)
	inner := p.Addr + uint64(p.L3)
	length := uint64(p.End - p.L3)
	pad := -(length + trailerLen) & 3
	body := length + pad + trailerLen
	front := uint64(plainHeaderLen + o.IVLen)
	outer := inner - front
	end := inner + body + uint64(o.ICVLen)
	chunk := packet.Chunk(p.Addr)
	last := o.Seq.Load()
	if inner < chunk+packet.EtherLen+front || end+packet.TailSlack > chunk+packet.FrameSize || last >= o.SeqMax || end > uint64(len(mem)) {
		return false
	}
	seq := last + 1
	o.Seq.Set(seq)

	// Padding 1, 2, 3, its length and next header in one store, which may reach into the ICV's place.
	next := uint64(packet.ProtoIPv4)
	if p.Version == 6 {
		next = packet.ProtoIPv6
	}
	trailer := 0x03_02_01&(1<<(8*pad)-1) | (pad|next<<8)<<(8*pad)
	binary.LittleEndian.PutUint64(mem[inner+length:], trailer)

	var tosMask uint8
	if o.Flags&sad.FlagCopyDSCP != 0 {
		tosMask = 0xfc
	}
	if o.Flags&sad.FlagECN != 0 {
		tosMask |= 0x03
	}
	tos := p.TOS & tosMask
	flags := p.Flags & (packet.FlagLocal | packet.FlagRouted)
	df := o.Flags&sad.FlagSetDF != 0
	if p.Version == 4 && o.Flags&sad.FlagCopyDF != 0 {
		df = p.Flags&packet.FlagDF != 0
	}
	var fragment uint64 // identification and flags
	if df {
		flags |= packet.FlagDF
		fragment = ipv4DF
	} else {
		s.id++
		fragment = uint64(s.id) << 16
	}
	total := end - outer
	sum := uint64(o.HeaderSum) + uint64(tos) + total + fragment>>16 + fragment&0xffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	check := ^uint16(sum>>16 + sum)

	h := (*[plainHeaderLen]byte)(mem[outer:])
	const start = 0x4500 << 48 // version and header length
	binary.BigEndian.PutUint64(h[0:], start|uint64(tos)<<48|total<<32|fragment)
	binary.BigEndian.PutUint64(h[8:], binary.BigEndian.Uint64(o.Header[8:])|uint64(check)<<32)
	binary.LittleEndian.PutUint64(h[16:], binary.LittleEndian.Uint64(o.Header[16:]))
	binary.BigEndian.PutUint32(h[24:], uint32(seq))

	s.crypto.PutSealGCM(n, key, mem[outer+ipv4Len:end:chunk+packet.FrameSize], seq, uint32(seq>>32), o.Flags&sad.FlagESN != 0)

	p.Addr = outer - packet.EtherLen
	p.L3, p.L4 = packet.EtherLen, packet.EtherLen+ipv4Len
	p.End = packet.EtherLen + uint16(total)
	p.Len = p.End
	p.SrcPort, p.DstPort = 0, 0
	p.Version, p.Proto, p.TOS, p.TTL = 4, packet.ProtoESP, tos, o.Header[8]
	p.Flags = flags
	p.SPI, p.Slot, p.Seq = o.SPI, o.Slot, seq
	return true
}

// plainInbound says that packets for an association, or none, have the form that prepareOpen is for.
func (s *Scratch) plainInbound(in *sad.Inbound) bool {
	return in != nil && in.Version == 4 && in.Flags&(sad.FlagEncap|sad.FlagRoaming) == 0 && s.table.InboundKey(in.Slot).GCM()
}

// decapsulatePlain does for inbound packets what encapsulatePlain does for outbound ones: see prepareOpen.
func (s *Scratch) decapsulatePlain(b *packet.Batch, kept, live []uint8, sa []*sad.Inbound) (_, rest []uint8) {
	n := 0
	for n < len(live) && n < packet.BatchMax {
		if i := live[n]; !s.plainInbound(sa[i]) || !s.prepareOpen(&b.P[i], b.Mem, sa[i], i, n) {
			break
		}
		n++
	}
	if n == 0 {
		return kept, live
	}
	s.crypto.OpenGCM(n)
	for k := range s.rec[:n] {
		s.rec[k].ok = s.crypto.DoneGCM(k)
	}
	return s.finishInbound(b, kept, sa, n), live[n:]
}

// prepareOpen is prepareInbound for ESP right behind an outer IPv4 header without options, and AES-GCM. It returns false, and has done
// nothing, where anything is out of the ordinary or wrong; prepareInbound then says what.
func (s *Scratch) prepareOpen(p *packet.Packet, mem []byte, in *sad.Inbound, i uint8, n int) bool {
	at := p.Addr + uint64(p.L4) // of the ESP header
	end := p.Addr + uint64(p.End)
	length := end - at
	const overhead = headerLen + plainIVLen + plainICVLen
	if p.L4-p.L3 != ipv4Len || p.Version != 4 || p.Proto != packet.ProtoESP || p.Flags&packet.FlagFragment != 0 ||
		length < overhead+trailerLen || length&3 != overhead&3 {
		return false
	}
	h := (*[plainHeaderLen]byte)(mem[p.Addr+uint64(p.L3):])
	if [4]byte(h[12:]) != [4]byte(in.Remote[:]) || [4]byte(h[16:]) != [4]byte(in.Local[:]) || binary.BigEndian.Uint32(h[20:]) != in.SPI {
		return false
	}
	seq := in.Window.Infer(binary.BigEndian.Uint32(h[24:]))
	if in.Window.Check(s.table.Bits(in), seq) != replay.OK {
		return false
	}
	p.SPI, p.Slot, p.Seq = in.SPI, in.Slot, seq
	r := &s.rec[n]
	r.index, r.tos, r.moved, r.esp, r.length = i, p.TOS, false, at, uint16(length)
	s.crypto.PutOpenGCM(n, s.table.InboundKey(in.Slot), mem[at:end:packet.Chunk(p.Addr)+packet.FrameSize], uint32(seq>>32), in.Flags&sad.FlagESN != 0)
	return true
}
