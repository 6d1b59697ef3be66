package esp

import (
	"encoding/binary"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
)

// Offsets in IP headers of the octet that names what follows.
const (
	nextIPv4 = 9
	nextIPv6 = 6
)

// prepareTransport is prepareOutbound in transport mode: ESP, and UDP if any, goes between the IP header and what it carries, and
// the IP header moves down to make room (RFC 4303, 3.1.1).
//
//	before                    | IP, options or extensions | upper layer ...
//	after  | IP, options or extensions | (UDP) ESP | IV | upper layer ... trailer | ICV |
func (s *Scratch) prepareTransport(b *packet.Batch, i uint8, o *sad.Outbound, n int) packet.Drop {
	p := &b.P[i]
	d := b.IP(int(i))
	switch {
	case p.Flags&packet.FlagFragment != 0:
		return packet.DropTransportFragment
	case !between(d, p.Version, o):
		return packet.DropTransportAddresses
	}
	kept, next := nextIPv4, nextIPv4
	if p.Version == 4 {
		kept = int(d[0]&15) * 4
	} else {
		kept, next = unprotected(d)
	}
	length := len(d) - kept
	pad := -(length + trailerLen) & (int(o.Align) - 1)
	body := length + pad + trailerLen
	front := int(o.HeaderLen) + int(o.IVLen)

	before := p.Addr + uint64(p.L3)
	outer := before - uint64(front)
	text := before + uint64(kept)
	end := text + uint64(body) + uint64(o.ICVLen)
	chunk := packet.Chunk(p.Addr)
	if before < chunk+uint64(packet.EtherLen+front) || end+packet.TailSlack > chunk+packet.FrameSize {
		return packet.DropNoRoom
	}
	seq, ok := o.Next()
	if !ok {
		return packet.DropSequenceExhausted
	}

	trailer := b.Mem[text+uint64(length) : text+uint64(body)]
	copy(trailer, padding[:pad])
	trailer[pad], trailer[pad+1] = uint8(pad), d[next]

	h := b.Mem[outer:end]
	copy(h[:kept], d)
	proto := uint8(packet.ProtoESP)
	esp := kept
	flags := p.Flags & (packet.FlagLocal | packet.FlagRouted | packet.FlagDF | packet.FlagOptions)
	p.SrcPort, p.DstPort = 0, 0
	if o.UDP != 0 {
		udp := h[kept:]
		copy(udp[:udpLen], o.Header[o.UDP:])
		binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
		proto = packet.ProtoUDP
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(udp), binary.BigEndian.Uint16(udp[2:])
		flags |= packet.FlagPorts
		esp += udpLen
	}
	copy(h[esp:esp+4], o.Header[o.ESP:])
	binary.BigEndian.PutUint32(h[esp+4:], uint32(seq))
	h[next] = proto
	finishLengths(h, kept, p.Version)
	s.rec[n] = record{index: i, bytes: uint16(len(d))}

	s.putSeal(n, o, b.Mem[outer+uint64(esp):end:chunk+packet.FrameSize], seq)

	p.Addr = outer - packet.EtherLen
	p.L3 = packet.EtherLen
	p.L4 = packet.EtherLen + uint16(kept)
	p.End = packet.EtherLen + uint16(len(h))
	p.Len = p.End
	p.Proto = proto
	p.Flags = flags
	p.SPI, p.Slot, p.Seq = o.SPI, o.Slot, seq
	return packet.DropNone
}

// between says whether a datagram goes from and to the association's own addresses.
func between(d []byte, version uint8, o *sad.Outbound) bool {
	if version != o.Version {
		return false
	}
	if version == 4 {
		return [8]byte(d[12:20]) == [8]byte(o.Header[12:20])
	}
	return [32]byte(d[8:40]) == [32]byte(o.Header[8:40])
}

// unprotected returns the length of what stays in front of ESP in an IPv6 datagram that [packet.Parse] accepted: the IPv6 header,
// hop-by-hop, routing and fragment headers, and destination options in front of a routing header (RFC 4303, 3.1.1; RFC 8200,
// 4.1). next is where in it the next header stands.
func unprotected(d []byte) (kept, next int) {
	kept, next = ipv6Len, nextIPv6
	at, proto := kept, d[next]
	for {
		length := 8
		switch proto {
		case packet.ProtoHopByHop, packet.ProtoRouting, packet.ProtoDestination:
			length += int(d[at+1]) * 8
		case packet.ProtoFragment:
		default:
			return kept, next
		}
		if proto != packet.ProtoDestination {
			kept, next = at+length, at
		}
		proto = d[at]
		at += length
	}
}

// nextOf returns where, in the first kept bytes of an IPv6 datagram that [packet.Parse] accepted, the next header of what follows stands.
func nextOf(d []byte, kept int) (next int) {
	next = nextIPv6
	for at := ipv6Len; at < kept; {
		length := 8
		if d[next] != packet.ProtoFragment {
			length += int(d[at+1]) * 8
		}
		next = at
		at += length
	}
	return next
}

// finishLengths writes the length of datagram d, and the checksum of an IPv4 header of the given length.
func finishLengths(d []byte, header int, version uint8) {
	if version == 6 {
		binary.BigEndian.PutUint16(d[4:], uint16(len(d)-ipv6Len))
		return
	}
	binary.BigEndian.PutUint16(d[2:], uint16(len(d)))
	d[10], d[11] = 0, 0
	binary.BigEndian.PutUint16(d[10:], packet.Checksum(d[:header], 0))
}

// acceptTransport is the rest of accept in transport mode. In place of the inner header's
// steps it puts the IP header in front of what was protected, and there is no ECN field but that one.
func (s *Scratch) acceptTransport(b *packet.Batch, r *record, in *sad.Inbound, selectors *spd.Selectors) packet.Drop {
	text := r.esp + headerLen + uint64(in.IVLen)
	length, next, reason := textOf(b.Mem[text : r.esp+uint64(r.length)-uint64(in.ICVLen)])
	if reason != packet.DropNone {
		return reason
	}
	return s.acceptDatagram(b, r, in, selectors, text, length, next)
}

// acceptDatagram judges the datagram whose IP header is that in front, and whose upper layer, next, is the text of so many bytes.
func (s *Scratch) acceptDatagram(b *packet.Batch, r *record, in *sad.Inbound, selectors *spd.Selectors, text uint64, length int, next uint8) packet.Drop {
	i := int(r.index)
	p := &b.P[i]
	kept := int(p.L4 - p.L3)
	from, to := p.Addr+uint64(p.L3), text-uint64(kept)
	at := nextIPv4
	if p.Version == 6 {
		at = nextOf(b.Mem[from:text], kept)
	}
	copy(b.Mem[to:text], b.Mem[from:from+uint64(kept)])
	d := b.Mem[to : text+uint64(length)]
	d[at] = next
	finishLengths(d, kept, p.Version)

	p.Addr = to - packet.EtherLen
	p.L3 = packet.EtherLen
	p.Len = packet.EtherLen + uint16(len(d))
	p.Flags = packet.FlagDecapsulated
	p.Proto, p.SrcPort, p.DstPort = 0, 0, 0
	if packet.ParseIP(b, i) != packet.DropNone {
		return packet.DropBadInner
	}
	if p.Flags&packet.FlagFragment != 0 {
		return packet.DropTransportFragment
	}
	p.Len = p.End
	if in.Flags&(sad.FlagOriginal|sad.FlagRenewChecksum) != 0 {
		mendChecksum(b.IP(i), p, in)
	}
	return s.selected(b, i, in, selectors)
}

// mendChecksum makes the upper layer's checksum right for the addresses that a NAT gave the datagram d (RFC 3948, 3.1.2). What
// has none, or is too short for one, stays as it is.
func mendChecksum(d []byte, p *packet.Packet, in *sad.Inbound) {
	u := d[p.L4-p.L3:]
	at := checksumAt(p)
	if at < 0 || len(u) < at+2 {
		return
	}
	addresses := d[12:20]
	if p.Version == 6 {
		addresses = d[8:40]
	}
	check := binary.BigEndian.Uint16(u[at:])
	udp := p.Proto == packet.ProtoUDP
	switch {
	case udp && check == 0 && p.Version == 4:
		return // it has none (RFC 768)
	case in.Flags&sad.FlagOriginal != 0:
		check = packet.ChecksumUpdate16(check, in.Original, uint16(packet.Sum(addresses, 0)))
	default:
		if udp {
			length := int(binary.BigEndian.Uint16(u[4:]))
			if length < udpLen || length > len(u) {
				return
			}
			u = u[:length]
		} else if p.Proto == packet.ProtoDCCP || p.Proto == packet.ProtoUDPLite {
			return // covers a part of its own choice
		}
		half := len(addresses) / 2
		u[at], u[at+1] = 0, 0
		check = packet.Checksum(u, packet.PseudoSum(addresses[:half], addresses[half:], p.Proto, uint32(len(u))))
	}
	if check == 0 && (udp || p.Proto == packet.ProtoUDPLite) {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(u[at:], check)
}

// checksumAt is where in the upper-layer header a checksum stands that a pseudo-header is part of; negative without.
func checksumAt(p *packet.Packet) int {
	switch p.Proto {
	case packet.ProtoTCP:
		return 16
	case packet.ProtoUDP, packet.ProtoUDPLite, packet.ProtoDCCP:
		return 6
	case packet.ProtoICMPv6:
		return 2
	}
	return -1
}
