package esp

import (
	"encoding/binary"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/replay"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
)

// ahLen is the length of AH in front of its ICV (RFC 4302, 2): next header, length in words less 2, two reserved bytes, SPI,
// sequence number. The ICV is padded so that AH ends on a multiple of 4 bytes, in IPv6 of 8.
const ahLen = 12

// headersMax bounds the bytes up to the end of AH: what is kept of a packet while fields that change on the way are zero in it.
const headersMax = 512

// seqHiLen is the length of what is authenticated behind a packet with extended sequence numbers (RFC 4302, 3.3.3.2.1).
const seqHiLen = 4

// prepareAH is prepareOutbound for AH, in either mode. It signs at once: nothing of it is worked on in batches.
//
//	transport  | IP, options or extensions | AH | upper layer ...
//	tunnel     | outer IP | AH | inner IP ...
func (s *Scratch) prepareAH(b *packet.Batch, i uint8, o *sad.Outbound, n int) packet.Drop {
	p := &b.P[i]
	d := b.IP(int(i))
	// In tunnel mode the outer header is part of front, in transport mode AH alone is.
	front := int(o.HeaderLen) + int(o.ICVLen)
	kept, next, at := 0, nextIPv4, int(o.ESP) // of d, what stays in front; where AH is named; of the new datagram, where AH is
	proto, size := uint8(packet.ProtoIPv4), front-at
	if transport := o.Flags&sad.FlagTransport != 0; transport {
		switch {
		case p.Flags&packet.FlagFragment != 0:
			return packet.DropTransportFragment
		case !between(d, p.Version, o):
			return packet.DropTransportAddresses
		case p.Version == 4:
			kept = int(d[0]&15) * 4
		default:
			kept, next = unprotected(d)
		}
		at, size, proto = kept, front, d[next]
	} else if p.Version == 6 {
		proto = packet.ProtoIPv6
	}
	before, end := p.Addr+uint64(p.L3), p.Addr+uint64(p.End)
	outer := before - uint64(front)
	chunk := packet.Chunk(p.Addr)
	if before < chunk+packet.EtherLen+uint64(front) || end+seqHiLen+packet.TailSlack > chunk+packet.FrameSize {
		return packet.DropNoRoom
	}
	if at+size > headersMax || kept > 0 && (!muteable(d[:kept], p.Version) || p.Version == 4 && sourceRouted(d[:kept])) {
		return packet.DropBadAH
	}
	seq, ok := o.Next()
	if !ok {
		return packet.DropSequenceExhausted
	}

	h := b.Mem[outer:end]
	tos, flags := p.TOS, p.Flags&(packet.FlagLocal|packet.FlagRouted|packet.FlagDF|packet.FlagOptions)
	if kept > 0 {
		copy(h[:kept], d)
		h[next] = packet.ProtoAH
		finishLengths(h, kept, p.Version)
	} else {
		copy(h[:at], o.Header[:at])
		tos, flags = s.finishOuter(p, h, o)
	}
	ah := h[at : at+size]
	clear(ah)
	ah[0], ah[1] = proto, uint8(size/4-2)
	copy(ah[4:8], o.Header[o.ESP+4:])
	binary.BigEndian.PutUint32(ah[8:], uint32(seq))

	icv := s.icv[:o.ICVLen]
	covered := s.cover(b.Mem, outer, end, at, size, len(icv), o.Version, o.Flags&sad.FlagESN != 0, seq)
	signed := s.crypto.Sign(s.table.OutboundKey(o.Slot), covered, seq, icv)
	s.uncover(h)
	copy(ah[ahLen:], icv)
	s.rec[n] = record{index: i, bytes: uint16(len(d)), signed: signed}
	s.ops[n].Key, s.ops[n].Packet = nil, nil

	p.Addr = outer - packet.EtherLen
	p.L3 = packet.EtherLen
	p.L4 = packet.EtherLen + uint16(at)
	p.End = packet.EtherLen + uint16(len(h))
	p.Len = p.End
	p.Version, p.Proto, p.TOS, p.Flags = o.Version, packet.ProtoAH, tos, flags
	p.SrcPort, p.DstPort = 0, 0
	p.SPI, p.Slot, p.Seq = o.SPI, o.Slot, seq
	return packet.DropNone
}

// cover makes what AH authenticates (RFC 4302, 3.3.3) of the datagram from outer to end, in which AH stands at an offset and has a size:
// zeros for what changes on the way and for the ICV, and behind it the upper half of an extended sequence number. uncover makes
// the datagram what it was.
func (s *Scratch) cover(mem []byte, outer, end uint64, at, size, icv int, version uint8, esn bool, seq uint64) []byte {
	h := mem[outer : outer+uint64(at+size)]
	s.covered = copy(s.saved[:], h)
	clear(h[at+ahLen : at+ahLen+icv])
	mute(h[:at], version)
	if !esn {
		return mem[outer:end]
	}
	binary.BigEndian.PutUint32(mem[end:], uint32(seq>>32))
	return mem[outer : end+seqHiLen]
}

func (s *Scratch) uncover(d []byte) { copy(d, s.saved[:s.covered]) }

// prepareSigned is prepareInbound for AH, in either mode: it verifies at once, what it accepts is record n.
func (s *Scratch) prepareSigned(b *packet.Batch, i uint8, in *sad.Inbound, n int) packet.Drop {
	p := &b.P[i]
	d := b.IP(int(i))
	if p.Proto != packet.ProtoAH || !fromPeer(d, p.Version, in) {
		return packet.DropWrongEndpoint
	}
	at := int(p.L4 - p.L3)
	ah := d[at:]
	if len(ah) < ahLen {
		return packet.DropBadAH
	}
	// Padding to 8 bytes is none too many in IPv4, either: some peers send it.
	size := int(ah[1])*4 + 8
	if size > len(ah) || at+size > headersMax || !muteable(d[:at], p.Version) || size != signedLen(in.ICVLen, 8) && (p.Version == 6 || size != signedLen(in.ICVLen, 4)) {
		return packet.DropBadAH
	}
	if binary.BigEndian.Uint32(ah[4:]) != in.SPI {
		return packet.DropNoAssociation
	}
	seq := in.Window.Infer(binary.BigEndian.Uint32(ah[8:]))
	p.Seq = seq
	if verdict := in.Window.Check(s.table.Bits(in), seq); verdict != replay.OK {
		return dropOf(verdict)
	}
	outer, end := p.Addr+uint64(p.L3), p.Addr+uint64(p.End)
	if end+seqHiLen > packet.Chunk(p.Addr)+packet.FrameSize {
		return packet.DropNoRoom
	}
	icv := s.icv[:copy(s.icv[:in.ICVLen], ah[ahLen:])]
	covered := s.cover(b.Mem, outer, end, at, size, len(icv), p.Version, in.Flags&sad.FlagESN != 0, seq)
	signed := s.crypto.Verify(s.table.InboundKey(in.Slot), covered, icv)
	s.uncover(d)
	p.SPI, p.Slot = in.SPI, in.Slot
	s.rec[n] = record{index: i, tos: p.TOS, other: true, signed: signed, esp: outer + uint64(at), length: uint16(len(ah))}
	s.ops[n].Key, s.ops[n].Packet = nil, nil
	return packet.DropNone
}

// signedLen is the length of AH with an ICV of icv bytes, as a multiple of align.
func signedLen(icv uint8, align int) int { return (ahLen + int(icv) + align - 1) &^ (align - 1) }

// acceptSigned is the rest of accept for AH: in transport mode it closes the gap that AH leaves, in tunnel mode the inner datagram follows.
func (s *Scratch) acceptSigned(b *packet.Batch, r *record, in *sad.Inbound, selectors *spd.Selectors) packet.Drop {
	next, size := b.Mem[r.esp], uint64(b.Mem[r.esp+1])*4+8
	text, length := r.esp+size, int(uint64(r.length)-size)
	switch {
	case next == packet.ProtoNone:
		return packet.DropDummy
	case in.Flags&sad.FlagBundled != 0:
		if next != packet.ProtoESP || length < headerLen || binary.BigEndian.Uint32(b.Mem[text:]) != s.table.InboundPartner(in).SPI {
			return packet.DropBundleMismatch
		}
		if reason := s.acceptDatagram(b, r, in, selectors, text, length, next); reason != packet.DropNone {
			return reason
		}
		p := &b.P[r.index]
		p.Flags = p.Flags&^packet.FlagDecapsulated | packet.FlagVerified
		return packet.DropNone
	case in.Flags&sad.FlagTransport != 0:
		return s.acceptDatagram(b, r, in, selectors, text, length, next)
	case next != packet.ProtoIPv4 && next != packet.ProtoIPv6:
		return packet.DropBadNextHeader
	}
	return s.acceptInner(b, r, in, selectors, text, length, next)
}
