// Package craft writes packets by hand, right ones and wrong ones, for tests that attack the
// gateway. It is written from the RFCs and shares no code with what it judges.
package craft

import (
	"encoding/binary"
	"net/netip"
)

// IP protocols of crafted packets.
const (
	ICMP   = 1
	TCP    = 6
	UDPv   = 17
	ESPv   = 50
	AH     = 51
	ICMPv6 = 58
)

// Ethernet puts an Ethernet header in front of an IP packet, whose version chooses the type.
func Ethernet(dst, src [6]byte, ip []byte) []byte {
	kind := uint16(0x0800)
	if len(ip) > 0 && ip[0]>>4 == 6 {
		kind = 0x86dd
	}
	return append(binary.BigEndian.AppendUint16(append(dst[:], src[:]...), kind), ip...)
}

// Tag puts 802.1Q tags between the addresses and the type of an Ethernet frame.
func Tag(frame []byte, tags ...uint16) []byte {
	f := append([]byte{}, frame[:12]...)
	for _, t := range tags {
		f = binary.BigEndian.AppendUint16(append(f, 0x81, 0), t)
	}
	return append(f, frame[12:]...)
}

// IP returns an IP packet of the addresses' family with a hop count of 64.
func IP(src, dst netip.Addr, proto byte, payload []byte) []byte {
	if src.Is4() {
		return IPv4(src, dst, proto, payload, nil)
	}
	return IPv6(src, dst, proto, payload)
}

// IPv4 returns an IPv4 packet with options, a multiple of four bytes, and Don't Fragment set.
func IPv4(src, dst netip.Addr, proto byte, payload, options []byte) []byte {
	h := make([]byte, 20, 20+len(options)+len(payload))
	h[0] = byte(0x45 + len(options)/4)
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(options)+len(payload)))
	h[6], h[8], h[9] = 0x40, 64, proto
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	return FixIPv4(append(append(h, options...), payload...))
}

// FixIPv4 makes the header checksum of an IPv4 packet right, if there is a whole header, and returns it.
func FixIPv4(ip []byte) []byte {
	n := 0
	if len(ip) > 0 {
		n = int(ip[0]&15) * 4
	}
	if n < 20 || n > len(ip) {
		return ip
	}
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^Sum(ip[:n]))
	return ip
}

// IPv6 returns an IPv6 packet. proto is the next header of the fixed header: extension headers are
// part of the payload.
func IPv6(src, dst netip.Addr, proto byte, payload []byte) []byte {
	h := make([]byte, 40, 40+len(payload))
	h[0], h[6], h[7] = 0x60, proto, 64
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return append(h, payload...)
}

// UDP returns a UDP datagram, with the checksum that goes with the addresses.
func UDP(src, dst netip.Addr, from, to uint16, payload []byte) []byte {
	u := binary.BigEndian.AppendUint16(nil, from)
	u = binary.BigEndian.AppendUint16(u, to)
	u = binary.BigEndian.AppendUint16(u, uint16(8+len(payload)))
	u = append(append(u, 0, 0), payload...)
	pseudo := append(append(src.AsSlice(), dst.AsSlice()...), 0, UDPv, byte(len(u)>>8), byte(len(u)))
	sum := uint32(Sum(pseudo)) + uint32(Sum(u))
	sum = ^(sum>>16 + sum&0xffff) & 0xffff
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(u[6:], uint16(sum))
	return u
}

// Sum is the one's complement sum of RFC 1071, not inverted.
func Sum(b []byte) uint16 {
	var sum uint32
	for i, x := range b {
		sum += uint32(x) << (8 * (1 - i%2))
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
