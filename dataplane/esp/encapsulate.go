package esp

import (
	"encoding/binary"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
)

// Encapsulate puts each live packet into an ESP packet, in place. sa is
// indexed like b.P: packet i goes into sa[i], which this worker owns; nil ends the
// packet as DropNoOutbound. The inner datagram lies at L3 to End; whatever follows it
// in the frame is overwritten.
//
// On return a packet that lives has its outer IP header at L3 = 14; the 14 bytes
// before it are the Ethernet header's place, not written. Len, End, L4, Version, Proto,
// TOS, TTL, SPI, Seq, Slot, ports and Flags describe the outer packet. Packets that
// end have their Reason. live is shortened in place.
//
// Sequence numbers are given out in the order of live, and only to packets that
// are encapsulated.
func (s *Scratch) Encapsulate(b *packet.Batch, live []uint8, sa []*sad.Outbound) []uint8 {
	kept := live[:0]
	for len(live) > 0 {
		if kept, live = s.encapsulatePlain(b, kept, live, sa); len(live) > 0 {
			kept, live = s.encapsulateOther(b, kept, live, sa)
		}
	}
	return kept
}

// encapsulateOther puts the first of the live packets, whatever its form, into an ESP packet, and those behind it up to one that
// encapsulatePlain may take. It appends to kept and returns what is left of live, as that does.
func (s *Scratch) encapsulateOther(b *packet.Batch, kept, live []uint8, sa []*sad.Outbound) (_, rest []uint8) {
	n, k := 0, 0
	for ; k < len(live); k++ {
		i := live[k]
		if k > 0 && plain(sa[i], s.table.OutboundKeys()) {
			break
		}
		due := sa[i] != nil && s.due(&sa[i].Last)
		if due {
			s.draft = sad.RecordOf(b, int(i), s.Now)
			s.draft.Outer = sa[i].Flags.Outer()
		}
		reason := s.prepareOutbound(b, i, sa[i], n)
		if due && reason == packet.DropNone {
			s.keep(sa[i], b.P[i].Seq)
		}
		if reason != packet.DropNone {
			b.P[i].Reason = reason
			if sa[i] != nil {
				countOutbound(sa[i], reason)
			}
			continue
		}
		n++
	}
	s.crypto.Seal(s.ops[:n])
	return s.finishOutbound(b, kept, sa, n), live[k:]
}

// prepareOutbound makes packet i ready to be sealed as op n, in these steps:
//
//  1. room in front and behind, before a sequence number is spent;
//  2. the sequence number;
//  3. a GRE header if any, padding for traffic flow confidentiality, which is zero, then that for alignment, pad length, next header;
//  4. outer IP, UDP and ESP headers;
//  5. the op and the packet's record.
func (s *Scratch) prepareOutbound(b *packet.Batch, i uint8, o *sad.Outbound, n int) packet.Drop {
	if o == nil {
		return packet.DropNoOutbound
	}
	switch {
	case o.Flags&sad.FlagAH != 0:
		return s.prepareAH(b, i, o, n)
	case o.Flags&sad.FlagTransport != 0:
		return s.prepareTransport(b, i, o, n)
	}
	p := &b.P[i]
	inner := p.Addr + uint64(p.L3)
	length := int(p.End) - int(p.L3)
	gre := o.Flags.GRELen()
	front := int(o.HeaderLen) + int(o.IVLen) + gre
	chunk := packet.Chunk(p.Addr)
	limit := chunk + packet.FrameSize
	padded := length
	if o.Flags&sad.FlagPadded != 0 {
		room := int(limit-inner) - packet.TailSlack - int(o.ICVLen) - trailerLen - int(o.Align)
		padded = max(length, min(int(o.PadTo), room))
	}
	pad := -(gre + padded + trailerLen) & (int(o.Align) - 1)
	body := padded + pad + trailerLen
	end := inner + uint64(body) + uint64(o.ICVLen)
	if inner < chunk+uint64(packet.EtherLen+front) || end+packet.TailSlack > limit {
		return packet.DropNoRoom
	}

	seq, ok := o.Next()
	if !ok {
		return packet.DropSequenceExhausted
	}

	clear(b.Mem[inner+uint64(length) : inner+uint64(padded)])
	trailer := b.Mem[inner+uint64(padded) : inner+uint64(body)]
	copy(trailer, padding[:pad])
	trailer[pad] = uint8(pad)
	trailer[pad+1] = packet.ProtoIPv4
	if p.Version == 6 {
		trailer[pad+1] = packet.ProtoIPv6
	}
	if gre > 0 {
		trailer[pad+1] = packet.ProtoGRE
		putGRE(b.Mem[inner-uint64(gre):inner], o, p.Version)
	}

	outer := inner - uint64(front)
	h := b.Mem[outer:end]
	copy(h[:o.HeaderLen], o.Header[:o.HeaderLen])
	binary.BigEndian.PutUint32(h[o.ESP+4:], uint32(seq))

	tos, flags := s.finishOuter(p, h, o)
	ip := ipv6Len
	if o.Version == 4 {
		ip = ipv4Len
	}
	p.Proto = packet.ProtoESP
	p.SrcPort, p.DstPort = 0, 0
	if o.UDP != 0 {
		udp := h[o.UDP:]
		binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
		p.Proto = packet.ProtoUDP
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(udp), binary.BigEndian.Uint16(udp[2:])
		flags |= packet.FlagPorts
	}
	s.rec[n] = record{index: i, bytes: uint16(length)}

	s.putSeal(n, o, b.Mem[outer+uint64(o.ESP):end:limit], seq)

	p.Addr = outer - packet.EtherLen
	p.L3 = packet.EtherLen
	p.L4 = packet.EtherLen + uint16(ip)
	p.End = packet.EtherLen + uint16(len(h))
	p.Len = p.End
	p.Version = o.Version
	p.TOS = tos
	p.Flags = flags
	p.SPI = o.SPI
	p.Slot = o.Slot
	p.Seq = seq
	return packet.DropNone
}

// putSeal makes op n that of the ESP packet of an association with a sequence number.
func (s *Scratch) putSeal(n int, o *sad.Outbound, esp []byte, seq uint64) {
	op := &s.ops[n]
	op.Key, op.Packet = s.table.OutboundKey(o.Slot), esp
	op.Counter, op.SeqHi, op.ESN = seq, uint32(seq>>32), o.Flags&sad.FlagESN != 0
}

// finishOuter completes the outer IP header of datagram h, which carries the packet p, and returns what is to be known of it.
func (s *Scratch) finishOuter(p *packet.Packet, h []byte, o *sad.Outbound) (tos uint8, flags packet.Flags) {
	tos = packet.EncapsulateTOS(p.TOS, o.Flags&sad.FlagCopyDSCP != 0, o.Flags&sad.FlagECN != 0) | o.DSCP()
	flags = p.Flags & (packet.FlagLocal | packet.FlagRouted)
	if o.Version == 4 {
		df := o.DontFragment(p)
		if df {
			flags |= packet.FlagDF
		} else {
			s.id++
		}
		sum := uint32(o.HeaderSum)
		if o.Flags&sad.FlagCopyTTL != 0 {
			h[8] = p.TTL
			sum += uint32(p.TTL) << 8
		}
		finishIPv4(h, sum, tos, s.id, df)
		p.TTL = h[8]
	} else {
		if o.Flags&sad.FlagCopyTTL != 0 {
			h[7] = p.TTL
		}
		finishIPv6(h, tos)
		flags |= packet.FlagDF
		p.TTL = h[7]
	}
	return tos, flags
}

// finishOutbound writes what depends on the ciphertext, counts, and appends the
// packets that live to live.
func (s *Scratch) finishOutbound(b *packet.Batch, live []uint8, sa []*sad.Outbound, n int) []uint8 {
	var run *sad.Outbound
	var packets, bytes uint64
	for k := range n {
		r := &s.rec[k]
		s.ops[k].Packet = nil
		if !s.ops[k].OK && !r.signed {
			s.failOutbound(b, r.index, sa[r.index])
			continue
		}
		o := sa[r.index]
		if o.Flags&sad.FlagUDPChecksum != 0 {
			p := &b.P[r.index]
			checksumUDP(b.IP(int(r.index))[p.L4-p.L3:], uint32(o.UDPSum))
		}
		if o != run {
			s.countSent(run, packets, bytes)
			run, packets, bytes = o, 0, 0
		}
		packets++
		bytes += uint64(r.bytes)
		live = append(live, r.index)
	}
	s.countSent(run, packets, bytes)
	return live
}

// failOutbound ends packet i because it was not sealed: the key was removed under the association, and nothing may be sent without one.
func (s *Scratch) failOutbound(b *packet.Batch, i uint8, o *sad.Outbound) {
	b.P[i].Reason = packet.DropNoOutbound
	countOutbound(o, packet.DropNoOutbound)
}

// keep enters the draft into the flight recorder of an association, as the packet with a number. The next one is due with the next batch.
func (s *Scratch) keep(o *sad.Outbound, seq uint64) {
	s.Records--
	s.draft.Sequence = seq
	s.table.OutboundFlight(o.Slot).Pass(&s.draft)
	o.Last.Set(uint64(s.Now))
}

// countSent counts what a run of packets of one association carried; nil is no run.
func (s *Scratch) countSent(o *sad.Outbound, packets, bytes uint64) {
	if o == nil {
		return
	}
	o.Packets.Add(packets)
	o.Bytes.Add(bytes)
	o.Last.Set(uint64(s.Now))
	if bytes, packets := o.Bytes.Load(), o.Packets.Load(); o.Reached(bytes, packets) {
		if s.table.OutboundTerms(o.Slot).Over(bytes, packets) {
			o.Flags.End()
		}
		s.report(Report{Outbound: o})
	}
}

// report leaves a report for the caller, if there is room: an association whose report is lost makes another
// with its next packet.
func (s *Scratch) report(r Report) {
	if len(s.Reports) < cap(s.Reports) {
		s.Reports = append(s.Reports, r)
	}
}

// countOutbound counts a drop at its association.
func countOutbound(o *sad.Outbound, reason packet.Drop) {
	if reason == packet.DropSequenceExhausted {
		o.Exhausted.Add(1)
	} else {
		o.OtherDrops.Add(1)
	}
}
