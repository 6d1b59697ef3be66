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

// Write puts the header directly in front of the IP header of packet p in mem and cuts off what follows the datagram, so that L3 is 14
// and Len is End. A VLAN tag is left behind; where less than 14 bytes lie between
// Addr and the IP header, Addr moves down, and the caller's frame has that headroom.
func (l *Link) Write(mem []byte, p *packet.Packet) {
	if p.L3 != packet.EtherLen || p.Len != p.End {
		reseat(p, p.Addr+uint64(p.L3)-packet.EtherLen, packet.EtherLen)
	}
	h, tail := (*[packet.EtherLen]byte)(mem[p.Addr:]), l.tail4
	if p.Version == 6 {
		tail = l.tail6
	}
	binary.LittleEndian.PutUint64(h[0:], l.head)
	binary.LittleEndian.PutUint64(h[6:], tail)
}

// WriteEthernet writes the untagged Ethernet header from src to dst as [Link.Write] does.
func WriteEthernet(b *packet.Batch, i int, src, dst *[6]byte) {
	l := LinkOf(src, dst)
	l.Write(b.Mem, &b.P[i])
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
