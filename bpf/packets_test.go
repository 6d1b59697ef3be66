package bpf

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// The builders below compose a frame from the inside out: each takes what it
// carries and returns header plus content.

const (
	protoICMP, protoTCP, protoUDP, protoESP, protoAH, protoICMP6 = 1, 6, 17, 50, 51, 58
	protoGRE, protoOSPF                                          = 47, 89
)

func ether(etherType uint16, payload []byte) []byte {
	b := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}
	return append(binary.BigEndian.AppendUint16(b, etherType), payload...)
}

// vlan returns a tag's content: TCI, EtherType, payload.
func vlan(id, etherType uint16, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	return append(binary.BigEndian.AppendUint16(b, etherType), payload...)
}

type v4 struct {
	src, dst string
	proto    byte
	options  int    // bytes, multiple of 4
	offset   uint16 // in units of 8 bytes
	more     bool
}

func (h v4) with(payload ...byte) []byte {
	ihl := 20 + h.options
	b := make([]byte, ihl, ihl+len(payload))
	b[0] = 0x40 | byte(ihl/4)
	binary.BigEndian.PutUint16(b[2:], uint16(ihl+len(payload)))
	binary.BigEndian.PutUint16(b[6:], h.offset)
	if h.more {
		b[6] |= 0x20
	}
	b[8], b[9] = 64, h.proto
	src, dst := netip.MustParseAddr(h.src).As4(), netip.MustParseAddr(h.dst).As4()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	for i := 20; i < ihl; i++ {
		b[i] = 1 // no operation
	}
	return append(b, payload...)
}

type v6 struct {
	src, dst string
	proto    byte
	hops     byte // 0 means 64
}

func (h v6) with(payload ...byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = h.proto, h.hops
	if h.hops == 0 {
		b[7] = 64
	}
	src, dst := netip.MustParseAddr(h.src).As16(), netip.MustParseAddr(h.dst).As16()
	copy(b[8:], src[:])
	copy(b[24:], dst[:])
	return append(b, payload...)
}

// extension returns an IPv6 extension header of 8*(units+1) bytes.
func extension(next byte, units int, payload []byte) []byte {
	b := make([]byte, 8*(units+1))
	b[0], b[1] = next, byte(units)
	return append(b, payload...)
}

// fragment6 returns a fragment header; offset in units of 8 bytes.
func fragment6(next byte, offset uint16, more bool, payload []byte) []byte {
	b := make([]byte, 8)
	b[0] = next
	binary.BigEndian.PutUint16(b[2:], offset<<3)
	if more {
		b[3] |= 1
	}
	return append(b, payload...)
}

func udp(src, dst uint16, payload ...byte) []byte {
	return udpSaying(src, dst, uint16(8+len(payload)), payload...)
}

// udpSaying lets the length field lie.
func udpSaying(src, dst, length uint16, payload ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, src)
	b = binary.BigEndian.AppendUint16(b, dst)
	b = binary.BigEndian.AppendUint16(b, length)
	b = append(b, 0, 0)
	return append(b, payload...)
}

// icmp returns a message of 8 bytes and what it quotes.
func icmp(kind, code byte, quoted []byte) []byte {
	return append([]byte{kind, code, 0, 0, 0, 0, 0, 0}, quoted...)
}

var (
	esp    = slices.Concat([]byte{0, 0, 0x10, 1, 0, 0, 0, 1}, make([]byte, 40))
	ah     = slices.Concat([]byte{4, 4, 0, 0, 0, 0, 0x10, 1, 0, 0, 0, 1}, make([]byte, 32))
	ikeMsg = slices.Concat([]byte{1, 2, 3, 4, 5, 6, 7, 8}, make([]byte, 20))
	marked = slices.Concat(make([]byte, 4), ikeMsg)
	tcp    = slices.Concat([]byte{0xc0, 0, 0, 22}, make([]byte, 16))
)

func ip4(b []byte) []byte { return ether(0x0800, b) }
func ip6(b []byte) []byte { return ether(0x86dd, b) }

// padded gives a frame the Ethernet minimum.
func padded(b []byte) []byte {
	if len(b) < 60 {
		b = append(b, make([]byte, 60-len(b))...)
	}
	return b
}
