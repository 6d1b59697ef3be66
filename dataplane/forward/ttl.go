// Package forward does to a packet what a router does (RFC 1812, 5; RFC 8200): hop
// count, Ethernet header, MSS of passing TCP handshakes, fragments of IPv4
// packets that may be split, and ICMP errors to the sender of those that end here.
//
//	DecrementTTL → FitOf → (Fragment | TooBig) → ClampMSS → WriteEthernet
//	     └ TimeExceeded          Unreachable ┘ behind Limiter.Allow
//
// It rewrites frames in place and never allocates. It looks nothing up and
// decides nothing about policy: the worker says what to do with which packet. Every
// function takes packets that packet.Parse or packet.ParseIP accepted. Not handled: ICMP
// parameter problems, redirects, source routing.
package forward

import (
	"encoding/binary"

	"sallyport/dataplane/packet"
)

// DecrementTTL takes one off the TTL or Hop Limit of packet i, in frame and
// record, and mends the IPv4 header checksum (RFC 1624). At 1 or 0 it leaves the packet as it
// is and returns DropTTLExpired (RFC 1812, 5.3.1; RFC 8200, 3).
func DecrementTTL(b *packet.Batch, i int) packet.Drop {
	p := &b.P[i]
	if p.TTL <= 1 {
		return packet.DropTTLExpired
	}
	p.TTL--
	h := (*[20]byte)(b.IP(i))
	if p.Version == 6 {
		h[7] = p.TTL
		return packet.DropNone
	}
	binary.BigEndian.PutUint32(h[8:], OneHopLess(binary.BigEndian.Uint32(h[8:])))
	return packet.DropNone
}

// OneHopLess takes one off the TTL in the word of an IPv4 header that holds TTL, protocol and checksum, big-endian. The TTL, not
// 0, is the high byte of its 16 bits, so one less of it adds 0x100 to the checksum, end-around (RFC 1624, 3); what would be 0xffff is
// written as 0, like a sum made anew.
func OneHopLess(word uint32) uint32 {
	word -= 1 << 24
	check := word&0xffff + 0x100
	if check >= 0xffff {
		check++
	}
	return word&^0xffff | check&0xffff
}
