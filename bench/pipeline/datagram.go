package pipeline

import (
	"encoding/binary"
	"net/netip"
)

func number4(a netip.Addr) uint32 { b := a.As4(); return binary.BigEndian.Uint32(b[:]) }

func addr4(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

// datagram returns an IPv4 datagram with UDP of size bytes.
func datagram(src, dst uint32, port uint16, size int) []byte {
	h := make([]byte, size)
	header4(h, 17, src, dst)
	udp := h[20:]
	binary.BigEndian.PutUint16(udp, port)
	binary.BigEndian.PutUint16(udp[2:], 4000)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	for i := 8; i < len(udp); i++ {
		udp[i] = byte(i*7) + byte(port)
	}
	return h
}

// outer returns an IPv4 datagram from the peer with room for an ESP packet of size bytes.
func outer(size int) []byte {
	h := make([]byte, 20+size)
	header4(h, 50, number4(theirs), number4(ours))
	return h
}

func header4(h []byte, proto byte, src, dst uint32) {
	h[0], h[6], h[8], h[9] = 0x45, 0x40, 64, proto
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)))
	binary.BigEndian.PutUint32(h[12:], src)
	binary.BigEndian.PutUint32(h[16:], dst)
	binary.BigEndian.PutUint16(h[10:], ^sum16(h[:20]))
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
