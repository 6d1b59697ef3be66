package forward

import (
	"encoding/binary"

	"sallyport/dataplane/packet"
)

// ICMPv6 types that decide a branch (RFC 4443, RFC 4861).
const (
	icmp6TooBig     = 2
	icmp6Redirect   = 137
	icmp6FirstQuery = 128 // lower types are errors
)

// queries4 has a bit for every ICMPv4 type that is known not to be an error: echo,
// router discovery, timestamp, information, address mask (RFC 792, 950, 1256), extended
// echo (RFC 8335). Errors and unknown types get no answer.
const queries4 uint64 = 1<<0 | 1<<8 | 1<<9 | 1<<10 | 1<<13 | 1<<14 | 1<<15 | 1<<16 | 1<<17 | 1<<18 | 1<<42 | 1<<43

// mayAnswer reports whether an ICMP error of the given type may be sent about packet i:
// RFC 1122, 3.2.2; RFC 1812, 4.3.2.7; RFC 4443, 2.4 (e).
func mayAnswer(b *packet.Batch, i int, kind uint8) bool {
	p := &b.P[i]
	if p.Flags&packet.FlagLaterFragment != 0 {
		return false
	}
	if p.Version == 4 {
		return !isError4(p) && unicast4(b.IP(i)) && !linkMulticast(b, i)
	}
	if isError6(p) {
		return false
	}
	h := b.IP(i)
	if !source6(h[8:24]) {
		return false
	}
	// Path MTU discovery works for multicast too: RFC 4443, 2.4 (e.3).
	return kind == icmp6TooBig || h[24] != 0xff && !linkMulticast(b, i)
}

// isError4 reports whether p is an ICMP error, or may be one.
func isError4(p *packet.Packet) bool {
	if p.Proto != packet.ProtoICMP {
		return false
	}
	kind := p.SrcPort >> 8
	return p.Flags&packet.FlagPorts == 0 || kind >= 64 || queries4>>kind&1 == 0
}

// isError6 reports whether p is an ICMPv6 error or redirect, or may be one.
func isError6(p *packet.Packet) bool {
	if p.Proto != packet.ProtoICMPv6 {
		return false
	}
	kind := p.SrcPort >> 8
	return p.Flags&packet.FlagPorts == 0 || kind < icmp6FirstQuery || kind == icmp6Redirect
}

// unicast4 reports whether the IPv4 header h has a source that names one host and a
// destination that is neither multicast nor broadcast.
func unicast4(h []byte) bool {
	src, dst := binary.BigEndian.Uint32(h[12:]), binary.BigEndian.Uint32(h[16:])
	return src>>24 != 0 && src>>24 != 127 && src < 0xe0000000 && dst < 0xe0000000
}

// source6 reports whether the address a names one node that can be answered: not ::, ::1 or
// anything else of ::/96, not a mapped IPv4 address, not multicast.
func source6(a []byte) bool {
	hi, lo := binary.BigEndian.Uint64(a), binary.BigEndian.Uint64(a[8:])
	return a[0] != 0xff && !(hi == 0 && (lo>>32 == 0 || lo>>32 == 0xffff))
}

// linkMulticast reports whether packet i came as a link-layer multicast or broadcast. A
// packet out of an association or from the gateway itself has no link header of its own.
func linkMulticast(b *packet.Batch, i int) bool {
	p := &b.P[i]
	if p.Flags&(packet.FlagDecapsulated|packet.FlagLocal) != 0 || p.L3 < packet.EtherLen {
		return false
	}
	return b.Mem[p.Addr]&1 != 0
}
