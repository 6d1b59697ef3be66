package forward

import (
	"encoding/binary"

	"sallyport/dataplane/packet"
)

// Link is an Ethernet header for many packets, ready to be written as two words that overlap by two bytes.
type Link struct {
	head         uint64 // bytes 0 to 7
	tail4, tail6 uint64 // bytes 6 to 13, in front of IPv4 and IPv6
}

// LinkOf returns the untagged header from src to dst.
func LinkOf(src, dst *[6]byte) Link {
	var h [packet.EtherLen]byte
	copy(h[0:], dst[:])
	copy(h[6:], src[:])
	l := Link{head: binary.LittleEndian.Uint64(h[0:])}
	binary.BigEndian.PutUint16(h[12:], packet.EtherIPv4)
	l.tail4 = binary.LittleEndian.Uint64(h[6:])
	binary.BigEndian.PutUint16(h[12:], packet.EtherIPv6)
	l.tail6 = binary.LittleEndian.Uint64(h[6:])
	return l
}

// Put writes the header in front of a datagram of an IP version.
func (l *Link) Put(h *[packet.EtherLen]byte, version uint8) {
	tail := l.tail4
	if version == 6 {
		tail = l.tail6
	}
	binary.LittleEndian.PutUint64(h[0:], l.head)
	binary.LittleEndian.PutUint64(h[6:], tail)
}

// Seat makes room for [Link.Put] at p.Addr, directly in front of p's IP header, and cuts off what follows the datagram: L3 is 14
// then, and Len is End. A VLAN tag is left behind; where less than 14 bytes lie between
// Addr and the IP header, Addr moves down, and the caller's frame has that headroom.
func Seat(p *packet.Packet) {
	if p.L3 != packet.EtherLen || p.Len != p.End {
		reseat(p, p.Addr+uint64(p.L3)-packet.EtherLen, packet.EtherLen)
	}
}

// WriteEthernet writes the untagged Ethernet header from src to dst, see [Seat] and [Link.Put].
func WriteEthernet(b *packet.Batch, i int, src, dst *[6]byte) {
	p, l := &b.P[i], LinkOf(src, dst)
	Seat(p)
	l.Put((*[packet.EtherLen]byte)(b.Mem[p.Addr:]), p.Version)
}

// reseat makes p's IP header start l3 bytes behind addr, keeps the length of
// headers and datagram, drops what lies behind it and forgets the VLAN tag.
//
//go:noinline
func reseat(p *packet.Packet, addr uint64, l3 uint16) {
	p.Addr = addr
	p.L4 = p.L4 - p.L3 + l3
	p.End = p.End - p.L3 + l3
	p.L3 = l3
	p.Len = p.End
	p.Flags &^= packet.FlagVLAN
}
