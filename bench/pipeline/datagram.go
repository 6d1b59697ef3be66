package pipeline

import (
	"encoding/binary"
	"net/netip"
)

// Lengths of headers without options.
const (
	ipv4Len = 20
	ipv6Len = 40
	udpLen  = 8
)

// Ports of ESP in UDP: ours, and the peer's, which a NAT has chosen.
const (
	ourPort   = 4500
	theirPort = 40000
)

func number4(a netip.Addr) uint32 { b := a.As4(); return binary.BigEndian.Uint32(b[:]) }

func addr4(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

// mapped is the beginning of the IPv6 addresses that stand for those of IPv4.
var mapped = netip.MustParsePrefix("2001:db8::/96")

// addrOf returns the address of an IP version that stands for n.
func addrOf(version uint8, n uint32) netip.Addr {
	if version == 4 {
		return addr4(n)
	}
	b := mapped.Addr().As16()
	binary.BigEndian.PutUint32(b[12:], n)
	return netip.AddrFrom16(b)
}

// prefixOf returns the prefix that stands for one of IPv4.
func prefixOf(version uint8, p netip.Prefix) netip.Prefix {
	if version == 4 {
		return p
	}
	return netip.PrefixFrom(addrOf(6, number4(p.Addr())), mapped.Bits()+p.Bits())
}

func headerLen(version uint8) int {
	if version == 4 {
		return ipv4Len
	}
	return ipv6Len
}

// datagram returns a datagram with UDP of size bytes.
func datagram(version uint8, src, dst uint32, port uint16, size int) []byte {
	h := make([]byte, size)
	header(version, h, 17, src, dst)
	udp := h[headerLen(version):]
	binary.BigEndian.PutUint16(udp, port)
	binary.BigEndian.PutUint16(udp[2:], 4000)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	for i := udpLen; i < len(udp); i++ {
		udp[i] = byte(i*7) + byte(port)
	}
	return h
}

// outerDatagram returns a datagram from the peer with room for an ESP packet of size bytes.
func (k Kind) outerDatagram(size int) []byte {
	n := k.outerLen()
	h := make([]byte, n+size)
	proto := byte(50)
	if k == NATT {
		proto = 17
		udp := h[n-udpLen:]
		binary.BigEndian.PutUint16(udp, theirPort)
		binary.BigEndian.PutUint16(udp[2:], ourPort)
		binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	}
	header(k.outer(), h, proto, number4(theirs), number4(ours))
	return h
}

// header writes the header of datagram h between the addresses that two of IPv4 stand for.
func header(version uint8, h []byte, proto byte, src, dst uint32) {
	if version == 6 {
		h[0], h[6], h[7] = 0x60, proto, 64
		binary.BigEndian.PutUint16(h[4:], uint16(len(h)-ipv6Len))
		copy(h[8:], addrOf(6, src).AsSlice())
		copy(h[24:], addrOf(6, dst).AsSlice())
		return
	}
	h[0], h[6], h[8], h[9] = 0x45, 0x40, 64, proto
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)))
	binary.BigEndian.PutUint32(h[12:], src)
	binary.BigEndian.PutUint32(h[16:], dst)
	binary.BigEndian.PutUint16(h[10:], ^sum16(h[:ipv4Len]))
}

// sum16 is the one's complement sum of b, whose length is even (RFC 1071).
func sum16(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum>>16 + sum&0xffff
	return uint16(sum>>16 + sum)
}
