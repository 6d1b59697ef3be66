package esp

import (
	"encoding/binary"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/replay"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
)

// Decapsulate takes each live packet out of its ESP packet, in place. sa
// is indexed like b.P: packet i came for sa[i], which this worker owns; nil ends it
// as DropNoAssociation. The packets were accepted by [packet.Parse].
//
// On return a packet that lives is the inner datagram, or in transport mode the datagram as its sender made it, at L3 = 14, parsed by
// [packet.ParseIP], with FlagDecapsulated, its ECN field set by RFC 6040, and inside the
// association's selectors; SPI, Slot and Seq say how it came. TFC padding is cut
// off. live is shortened in place.
//
// Replay is checked before and again after authentication, in the order of live:
// of two copies of a packet in one batch the second ends as DropReplayed. The window
// moves only by authenticated packets (RFC 4303, 3.4.3).
func (s *Scratch) Decapsulate(b *packet.Batch, live []uint8, sa []*sad.Inbound) []uint8 {
	kept := live[:0]
	for len(live) > 0 {
		if kept, live = s.decapsulatePlain(b, kept, live, sa); len(live) > 0 {
			kept, live = s.decapsulateOther(b, kept, live, sa)
		}
	}
	return kept
}

// decapsulateOther takes the first of the live packets, whatever its form, out of its ESP packet, and those behind it up to one
// that decapsulatePlain may take. It appends to kept and returns what is left of live, as that does.
func (s *Scratch) decapsulateOther(b *packet.Batch, kept, live []uint8, sa []*sad.Inbound) (_, rest []uint8) {
	n, k := 0, 0
	for ; k < len(live); k++ {
		i := live[k]
		if k > 0 && s.opensPlain(sa[i]) {
			break
		}
		if reason := s.prepareInbound(b, i, sa[i], n); reason != packet.DropNone {
			b.P[i].Reason = reason
			if sa[i] != nil {
				countInbound(sa[i], reason)
			}
			continue
		}
		n++
	}
	s.crypto.Open(s.ops[:n])
	for j := range s.ops[:n] {
		s.rec[j].ok = s.ops[j].OK || s.rec[j].signed
		s.ops[j].Packet = nil
	}
	return s.finishInbound(b, kept, sa, n), live[k:]
}

// prepareInbound makes packet i ready to be opened as op n, in these steps:
//
//  1. endpoints and encapsulation are the association's;
//  2. the lengths fit the suite;
//  3. the sequence number is inferred (RFC 4303, appendix A2.2) and not known to be old.
func (s *Scratch) prepareInbound(b *packet.Batch, i uint8, in *sad.Inbound, n int) packet.Drop {
	if in == nil {
		return packet.DropNoAssociation
	}
	p := &b.P[i]
	if p.Flags&packet.FlagFragment != 0 {
		return packet.DropOuterFragment
	}
	if in.Flags&sad.FlagAH != 0 {
		return s.prepareSigned(b, i, in, n)
	}
	if in.Flags&sad.FlagBundled != 0 && p.Flags&packet.FlagVerified == 0 {
		return packet.DropBundleMismatch
	}
	h := b.IP(int(i))
	moved := !fromPeer(h, p.Version, in)
	start, end := int(p.L4-p.L3), len(h)
	udp := p.Proto == packet.ProtoUDP
	if in.Flags&sad.FlagEncap == 0 {
		moved = moved || p.Proto != packet.ProtoESP
	} else {
		moved = moved || !udp || p.SrcPort != in.RemotePort || p.DstPort != in.LocalPort
	}
	if moved && in.Flags&sad.FlagRoaming == 0 {
		return packet.DropWrongEndpoint
	}
	if udp {
		if end-start < udpLen {
			return packet.DropShortESP
		}
		length := int(binary.BigEndian.Uint16(h[start+4:]))
		if length < udpLen || length > end-start {
			return packet.DropShortESP
		}
		end = start + length
		start += udpLen
	}
	body := end - start - headerLen - int(in.IVLen) - int(in.ICVLen)
	if body < trailerLen || body&(int(in.Align)-1) != 0 {
		return packet.DropShortESP
	}
	esp := h[start:end]
	if binary.BigEndian.Uint32(esp) != in.SPI {
		return packet.DropNoAssociation
	}
	seq := in.Window.Infer(binary.BigEndian.Uint32(esp[4:]))
	p.Seq = seq
	if verdict := in.Window.Check(s.table.Bits(in), seq); verdict != replay.OK {
		return dropOf(verdict)
	}
	p.SPI = in.SPI
	p.Slot = in.Slot

	at := p.Addr + uint64(p.L3) + uint64(start)
	s.rec[n] = record{
		index: i, tos: p.TOS, moved: moved, other: moved || in.Flags&(sad.FlagTransport|sad.FlagCopyDSCP|sad.FlagGRE) != 0, esp: at, length: uint16(len(esp)),
	}
	op := &s.ops[n]
	op.Key = s.table.InboundKey(in.Slot)
	op.Packet = b.Mem[at : at+uint64(len(esp)) : packet.Chunk(p.Addr)+packet.FrameSize]
	op.SeqHi = uint32(seq >> 32)
	op.ESN = in.Flags&sad.FlagESN != 0
	return packet.DropNone
}

// fromPeer says whether an outer header's addresses are the association's.
func fromPeer(h []byte, version uint8, in *sad.Inbound) bool {
	if version != in.Version {
		return false
	}
	if version == 4 {
		return [8]byte(h[12:20]) == [8]byte(in.Addresses[:])
	}
	return [32]byte(h[8:40]) == in.Addresses
}

// dropOf translates the window's verdict.
func dropOf(v replay.Verdict) packet.Drop {
	if v == replay.Replayed {
		return packet.DropReplayed
	}
	return packet.DropTooOld
}

// finishInbound judges the opened packets in order, counts, and appends those that
// live to live.
func (s *Scratch) finishInbound(b *packet.Batch, live []uint8, sa []*sad.Inbound, n int) []uint8 {
	var run *sad.Inbound
	var words []uint64
	var selectors *spd.Selectors
	var packets, bytes, front uint64
	for k := range n {
		r := &s.rec[k]
		i := r.index
		in := sa[i]
		if in != run {
			s.countReceived(b, live, run, packets, bytes)
			run, packets, bytes = in, 0, 0
			words, selectors, front = s.table.Bits(in), s.table.Selectors(in.Slot), headerLen+uint64(in.IVLen)
		}
		reason := packet.DropBadICV
		if r.ok {
			if verdict := in.Window.Advance(words, b.P[i].Seq); verdict != replay.OK {
				reason = dropOf(verdict)
			} else if reason = packet.DropNone; r.other || !acceptPlain(b, i, r.esp+front, r.tos, b.Mem[r.esp+front:r.esp+uint64(r.length)-uint64(in.ICVLen)], &in.Plain) {
				reason = s.accept(b, r, in, selectors)
			}
		}
		if reason != packet.DropNone {
			b.P[i].Reason = reason
			countInbound(in, reason)
			continue
		}
		packets++
		bytes += uint64(b.P[i].End - b.P[i].L3)
		live = append(live, i)
	}
	s.countReceived(b, live, run, packets, bytes)
	return live
}

// countReceived counts what a run of packets of one association carried, the last of which ends live; nil is no run.
func (s *Scratch) countReceived(b *packet.Batch, live []uint8, in *sad.Inbound, packets, bytes uint64) {
	if packets == 0 {
		return
	}
	in.Packets.Add(packets)
	in.Bytes.Add(bytes)
	if s.due(&in.Last) {
		s.Records--
		r := sad.RecordOf(b, int(live[len(live)-1]), s.Now)
		r.Outer = in.Flags.Outer()
		s.table.InboundFlight(in.Slot).Pass(&r)
	}
	in.Last.Set(uint64(s.Now))
	if bytes, packets := in.Bytes.Load(), in.Packets.Load(); in.Reached(bytes, packets) {
		if s.table.InboundTerms(in.Slot).Over(bytes, packets) {
			in.Flags.End()
		}
		s.report(Report{Inbound: in})
	}
}

// accept judges the packet behind record r, whose ICV matched and which the window took, in these steps:
//
//  1. the peer, if it has moved;
//  2. trailer: next header, pad length, padding; a GRE header if any;
//  3. the inner header;
//  4. ECN (RFC 6040), and DSCP if the outer one counts (RFC 2983);
//  5. selectors (RFC 4301, 5.2 step 4).
func (s *Scratch) accept(b *packet.Batch, r *record, in *sad.Inbound, selectors *spd.Selectors) packet.Drop {
	i := int(r.index)
	p := &b.P[i]
	if r.other {
		if r.moved && p.Seq == in.Window.Top() {
			s.follow(b, i, in)
		}
		switch {
		case in.Flags&sad.FlagAH != 0:
			return s.acceptSigned(b, r, in, selectors)
		case in.Flags&sad.FlagTransport != 0:
			return s.acceptTransport(b, r, in, selectors)
		}
	}

	text := b.Mem[r.esp+headerLen+uint64(in.IVLen) : r.esp+uint64(r.length)-uint64(in.ICVLen)]
	length, next, reason := textOf(text)
	if reason != packet.DropNone {
		return reason
	}
	start := r.esp + headerLen + uint64(in.IVLen)
	if in.Flags&sad.FlagGRE != 0 {
		if next != packet.ProtoGRE {
			return packet.DropBadNextHeader
		}
		var header int
		if header, next, reason = readGRE(text[:length], in); reason != packet.DropNone {
			return reason
		}
		start, length = start+uint64(header), length-header
	}
	if next != packet.ProtoIPv4 && next != packet.ProtoIPv6 {
		return packet.DropBadNextHeader
	}
	return s.acceptInner(b, r, in, selectors, start, length, next)
}

// acceptInner judges the inner datagram of so many bytes at start, of the version that next says.
func (s *Scratch) acceptInner(b *packet.Batch, r *record, in *sad.Inbound, selectors *spd.Selectors, start uint64, length int, next uint8) packet.Drop {
	i := int(r.index)
	p := &b.P[i]
	p.Addr = start - packet.EtherLen
	p.L3 = packet.EtherLen
	p.Len = packet.EtherLen + uint16(length)
	p.Flags = packet.FlagDecapsulated
	p.Proto, p.SrcPort, p.DstPort = 0, 0, 0
	if packet.ParseIP(b, i) != packet.DropNone || p.Version != versionOf(next) {
		return packet.DropBadInner
	}
	p.Len = p.End

	tos, verdict := p.TOS, packet.ECNForward
	if in.Flags&sad.FlagECN != 0 {
		tos, verdict = packet.DecapsulateTOS(tos, r.tos)
	}
	if verdict == packet.ECNDrop {
		return packet.DropNotECNCapable
	}
	if verdict == packet.ECNAlarm {
		s.ECNAlarms.Add(1)
	}
	if in.Flags&sad.FlagCopyDSCP != 0 {
		tos = packet.AdoptDSCP(tos, r.tos)
	}
	if tos != p.TOS {
		setTOS(b.IP(i), p.Version, tos)
		p.TOS = tos
	}

	return s.selected(b, i, in, selectors)
}

// selected holds packet i against its association's selectors.
func (s *Scratch) selected(b *packet.Batch, i int, in *sad.Inbound, selectors *spd.Selectors) packet.Drop {
	p := &b.P[i]
	match := selectors.MatchInbound(&b.Flows[i])
	if match != spd.Matched || p.Flags&packet.FlagFragment != 0 {
		match = s.matchAgain(b, i, in, selectors, match)
	}
	switch match {
	case spd.Matched:
		return packet.DropNone
	case spd.NeedsPorts:
		return packet.DropFragmentNoPorts
	}
	return packet.DropSelectorMismatch
}

// matchAgain judges what selectors alone do not: later fragments by the ports of the first one, which it remembers where they matter
// (RFC 4301, 7), and ICMP errors by the packet that they are about (RFC 4301, 6.2).
func (s *Scratch) matchAgain(b *packet.Batch, i int, in *sad.Inbound, selectors *spd.Selectors, match spd.Match) spd.Match {
	p, flow := &b.P[i], &b.Flows[i]
	switch {
	case match == spd.NoMatch:
		if reported, ok := packet.Reported(b, i); ok {
			return selectors.MatchInbound(&reported)
		}
	case match == spd.NeedsPorts:
		if s.Ports.Inherit(p, flow, b.IP(i), in.SPI, s.Now) {
			return selectors.MatchInbound(flow)
		}
	case flow.Flags&packet.FlagLaterFragment == 0:
		if later := flow.Later(); selectors.MatchInbound(&later) == spd.NeedsPorts {
			s.Ports.Remember(p, flow, b.IP(i), in.SPI, s.Now)
		}
	}
	return match
}

// follow reports where packet i, the newest of a roaming association, came from, if that is not its peer (RFC 7296, 2.23).
func (s *Scratch) follow(b *packet.Batch, i int, in *sad.Inbound) {
	p, flow := &b.P[i], &b.Flows[i]
	r := Report{Inbound: in, Moved: true, Source: flow.Src, Version: p.Version}
	var known uint16
	if p.Proto == packet.ProtoUDP {
		r.Port = p.SrcPort
	}
	if in.Flags&sad.FlagEncap != 0 {
		known = in.RemotePort
	}
	if r.Port != known || r.Version != in.Version || r.Source != packet.AddrOf(in.RemoteAddr()) {
		s.report(r)
	}
}

// textOf reads the trailer of an authenticated plaintext: the length of what comes
// before the padding, and the next header. A dummy packet is recognised before
// its padding is looked at, since nothing else of it means anything (RFC 4303, 2.6).
func textOf(text []byte) (length int, next uint8, reason packet.Drop) {
	pad := int(text[len(text)-2])
	next = text[len(text)-1]
	if next == packet.ProtoNone {
		return 0, next, packet.DropDummy
	}
	length = len(text) - trailerLen - pad
	if length < 0 || !isPadding(text[length:length+pad]) {
		return 0, next, packet.DropBadTrailer
	}
	return length, next, packet.DropNone
}

// isPadding says that b is 1, 2, 3 and so on. Most is short: a call that compares takes longer.
func isPadding(b []byte) bool {
	if len(b) > 4 {
		return string(b) == string(padding[:len(b)])
	}
	for i := range b {
		if b[i] != uint8(i+1) {
			return false
		}
	}
	return true
}

// versionOf translates a tunnel-mode next header.
func versionOf(next uint8) uint8 {
	if next == packet.ProtoIPv4 {
		return 4
	}
	return 6
}

// countInbound counts a drop at its association.
func countInbound(in *sad.Inbound, reason packet.Drop) {
	switch reason {
	case packet.DropReplayed:
		in.Replayed.Add(1)
	case packet.DropTooOld:
		in.TooOld.Add(1)
	case packet.DropBadICV:
		in.BadICV.Add(1)
	default:
		in.OtherDrops.Add(1)
	}
}
