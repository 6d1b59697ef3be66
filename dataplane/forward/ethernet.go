package forward

import (
	"encoding/binary"

	"sallyport/dataplane/packet"
)

// WriteEthernet puts an untagged Ethernet header from src to dst directly in front of
// packet i's IP header and cuts off what follows the datagram, so that L3 is 14
// and Len is End. A VLAN tag is left behind; where less than 14 bytes lie between
// Addr and the IP header, Addr moves down, and the caller's frame has that headroom.
func WriteEthernet(b *packet.Batch, i int, src, dst *[6]byte) {
	p := &b.P[i]
	if p.L3 != packet.EtherLen || p.Len != p.End {
		reseat(p, p.Addr+uint64(p.L3)-packet.EtherLen, packet.EtherLen)
	}
	f := (*[packet.EtherLen]byte)(b.Mem[p.Addr:])
	*(*[6]byte)(f[0:]) = *dst
	*(*[6]byte)(f[6:]) = *src
	etherType := uint16(packet.EtherIPv4)
	if p.Version == 6 {
		etherType = packet.EtherIPv6
	}
	binary.BigEndian.PutUint16(f[12:], etherType)
}

// reseat makes p's IP header start l3 bytes behind addr, keeps the length of
// headers and datagram, drops what lies behind it and forgets the VLAN tag.
func reseat(p *packet.Packet, addr uint64, l3 uint16) {
	p.Addr = addr
	p.L4 = p.L4 - p.L3 + l3
	p.End = p.End - p.L3 + l3
	p.L3 = l3
	p.Len = p.End
	p.Flags &^= packet.FlagVLAN
}
