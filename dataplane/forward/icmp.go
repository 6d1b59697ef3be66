package forward

import (
	"encoding/binary"
	"net/netip"

	"sallyport/dataplane/packet"
)

// An ICMP error holds as much of the packet that caused it as fits these many bytes,
// its own headers included (RFC 1812, 4.3.2.3; RFC 4443, 2.4 (c)).
const (
	errorMax4 = 576
	errorMax6 = 1280
)

const (
	icmpLen = 8
	// errorTTL is the TTL of the gateway's own errors (RFC 1700's default).
	errorTTL = 64
	// errorTOS4 is precedence 6, internetwork control, for IPv4 errors (RFC 1812, 4.3.2.5).
	errorTOS4 = 0xc0

	// The least MTUs that an error may announce (RFC 791, 3.2; RFC 8200, 5).
	mtuMin4 = 68
	mtuMin6 = 1280
)

// Reason is why a destination is unreachable.
type Reason uint8

const (
	NetUnreachable  Reason = iota // no route: v4 code 0, v6 code 0
	HostUnreachable               // the next hop does not answer: v4 code 1, v6 code 3
	AdminProhibited               // policy: v4 code 13 (RFC 1812, 5.2.7.1), v6 code 1

	reasonCount
)

var (
	unreachableCode4 = [reasonCount]uint8{NetUnreachable: 0, HostUnreachable: 1, AdminProhibited: 13}
	unreachableCode6 = [reasonCount]uint8{NetUnreachable: 0, HostUnreachable: 3, AdminProhibited: 1}
)

// TooBig rewrites packet i into the ICMP error that tells its sender the MTU, in
// bytes, of the way it cannot take: IPv4 "fragmentation needed" (RFC 1191, 4),
// IPv6 "packet too big" (RFC 4443, 3.2). An MTU under 68 or 1280 is announced as that.
//
// For this and the other builders: src is the gateway's address that speaks, of
// the packet's family. The result is false, and the packet as it was, if no error
// may be sent about it or src does not fit. Otherwise the record describes
// the error as if it had been parsed, L3 is 14, FlagLocal is set, FlagDecapsulated is not; the 14
// bytes in front are WriteEthernet's to fill, and what look-ups had found is gone. The error is
// addressed to the packet's source. It stays in the packet's chunk, and TailSlack bytes follow it.
func TooBig(b *packet.Batch, i, mtu int, src netip.Addr) bool {
	if b.P[i].Version == 4 {
		return buildError(b, i, 3, 4, uint32(min(max(mtu, mtuMin4), 0xffff)), src)
	}
	return buildError(b, i, icmp6TooBig, 0, uint32(max(mtu, mtuMin6)), src)
}

// TimeExceeded rewrites packet i, whose TTL or Hop Limit ran out, into the
// ICMP error that says so (RFC 792; RFC 4443, 3.3). See [TooBig].
func TimeExceeded(b *packet.Batch, i int, src netip.Addr) bool {
	if b.P[i].Version == 4 {
		return buildError(b, i, 11, 0, 0, src)
	}
	return buildError(b, i, 3, 0, 0, src)
}

// Unreachable rewrites packet i into a destination unreachable error (RFC 792; RFC 1812,
// 5.2.7.1; RFC 4443, 3.1). See [TooBig].
func Unreachable(b *packet.Batch, i int, reason Reason, src netip.Addr) bool {
	if b.P[i].Version == 4 {
		return buildError(b, i, 3, unreachableCode4[reason], 0, src)
	}
	return buildError(b, i, 1, unreachableCode6[reason], 0, src)
}

// buildError does what [TooBig] promises: decide, make room for the headers in front of the
// quote, write them.
func buildError(b *packet.Batch, i int, kind, code uint8, word uint32, src netip.Addr) bool {
	p := &b.P[i]
	if !mayAnswer(b, i, kind) {
		return false
	}
	if p.Version == 4 && !src.Is4() || p.Version == 6 && (!src.Is6() || src.Is4In6()) {
		return false
	}
	datagram := b.IP(i)
	header, largest := 20+icmpLen, errorMax4
	if p.Version == 6 {
		header, largest = 40+icmpLen, errorMax6
	}
	quote := min(len(datagram), largest-header)
	var to [16]byte // the offender's source, before its frame is overwritten
	if p.Version == 4 {
		copy(to[:4], datagram[12:16])
	} else {
		copy(to[:], datagram[8:24])
	}

	// The quote stays where it is, if there is headroom in the chunk, or moves towards the end.
	chunk := packet.Chunk(p.Addr)
	quoteAt := p.Addr + uint64(p.L3)
	if least := chunk + packet.EtherLen + uint64(header); quoteAt < least {
		quoteAt = least
		copy(b.Mem[quoteAt:quoteAt+uint64(quote)], datagram)
	}
	l4 := packet.EtherLen + header - icmpLen
	end := packet.EtherLen + header + quote
	*p = packet.Packet{
		Addr: quoteAt - uint64(header) - packet.EtherLen, Len: uint16(end),
		Port: p.Port, Interface: p.Interface, Handovers: p.Handovers,
		L3: packet.EtherLen, L4: uint16(l4), End: uint16(end),
		SrcPort: uint16(kind)<<8 | uint16(code),
		Version: p.Version, TTL: errorTTL,
		Flags: packet.FlagPorts | packet.FlagDF | packet.FlagLocal,
	}

	h := b.IP(i)
	icmp := h[header-icmpLen:]
	icmp[0], icmp[1], icmp[2], icmp[3] = kind, code, 0, 0
	binary.BigEndian.PutUint32(icmp[4:], word)
	var pseudo uint32
	if p.Version == 4 {
		p.Proto, p.TOS = packet.ProtoICMP, errorTOS4
		writeHeader4(h, src.As4(), [4]byte(to[:4]))
	} else {
		p.Proto = packet.ProtoICMPv6
		from := src.As16()
		writeHeader6(h, from, to)
		pseudo = packet.PseudoSum(from[:], to[:], packet.ProtoICMPv6, uint32(len(icmp)))
	}
	binary.BigEndian.PutUint16(icmp[2:], packet.Checksum(icmp, pseudo))
	return true
}

// writeHeader4 writes the IPv4 header of an ICMP error that fills h. It is
// an atomic datagram (RFC 6864, 4): DF set, identification 0.
func writeHeader4(h []byte, src, dst [4]byte) {
	h[0], h[1] = 0x45, errorTOS4
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)))
	binary.BigEndian.PutUint32(h[4:], 0x4000)
	h[8], h[9], h[10], h[11] = errorTTL, packet.ProtoICMP, 0, 0
	copy(h[12:16], src[:])
	copy(h[16:20], dst[:])
	binary.BigEndian.PutUint16(h[10:], packet.Checksum(h[:20], 0))
}

// writeHeader6 writes the IPv6 header of an ICMPv6 error that fills h.
func writeHeader6(h []byte, src, dst [16]byte) {
	binary.BigEndian.PutUint32(h, 6<<28)
	binary.BigEndian.PutUint16(h[4:], uint16(len(h)-40))
	h[6], h[7] = packet.ProtoICMPv6, errorTTL
	copy(h[8:24], src[:])
	copy(h[24:40], dst[:])
}
