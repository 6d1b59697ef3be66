package esp

import (
	"encoding/binary"

	"sallyport/dataplane/packet"
)

// Offsets and bits of the outer headers.
const (
	ipv4Len = 20
	ipv6Len = 40

	ipv4DF = 0x4000
)

// finishIPv4 completes the outer IPv4 header of datagram h, copied from the
// association's template, whose one's complement sum is given: TOS, total length,
// identification and DF, checksum. An atomic datagram (DF set) needs no
// identification (RFC 6864, 4.1).
func finishIPv4(h []byte, sum uint32, tos uint8, id uint16, df bool) {
	_ = h[ipv4Len-1]
	var flags uint16
	if df {
		id, flags = 0, ipv4DF
	}
	const start = 0x4500 << 48 // version and header length
	binary.BigEndian.PutUint64(h, start|uint64(tos)<<48|uint64(uint16(len(h)))<<32|uint64(id)<<16|uint64(flags))
	sum += uint32(tos) + uint32(len(h)) + uint32(id) + uint32(flags)
	binary.BigEndian.PutUint16(h[10:], packet.Complement(sum))
}

// finishIPv6 completes the outer IPv6 header of datagram h, copied from the template:
// traffic class, payload length. The flow label is 0.
func finishIPv6(h []byte, tos uint8) {
	_ = h[ipv6Len-1]
	binary.BigEndian.PutUint32(h, 6<<28|uint32(tos)<<20)
	binary.BigEndian.PutUint16(h[4:], uint16(len(h)-ipv6Len))
}

// checksumUDP writes the checksum of UDP datagram u; sum is that of pseudo-header and
// ports without the two lengths. Zero is sent as all ones (RFC 768).
func checksumUDP(u []byte, sum uint32) {
	check := packet.Checksum(u[udpLen:], sum+2*uint32(len(u)))
	if check == 0 {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(u[6:], check)
}

// setTOS changes the TOS or traffic class of an IP header, and an IPv4 header's
// checksum with it (RFC 1624, equation 3).
func setTOS(h []byte, version, tos uint8) {
	if version == 6 {
		h[0] = 6<<4 | tos>>4
		h[1] = tos<<4 | h[1]&15
		return
	}
	old := binary.BigEndian.Uint16(h)
	h[1] = tos
	check := binary.BigEndian.Uint16(h[10:])
	binary.BigEndian.PutUint16(h[10:], packet.ChecksumUpdate16(check, old, binary.BigEndian.Uint16(h)))
}
