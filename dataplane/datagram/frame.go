package datagram

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"sallyport/dataplane/packet"
)

const (
	ipv4Len = 20
	ipv6Len = 40
	udpLen  = 8
	hops    = 64
)

// ErrAddress says that two addresses are not one host's each, of one family.
var ErrAddress = errors.New("the addresses of a datagram are invalid or of different families")

// ErrTooLong says that a datagram is longer than a frame or the IP header can say.
var ErrTooLong = errors.New("the datagram is too long")

// Len returns the length of the IP packet that carries data bytes between addresses of local's family, with the
// marker if marked.
func Len(local netip.Addr, marked bool, data int) int {
	n := ipv6Len + udpLen + data
	if local.Is4() {
		n = ipv4Len + udpLen + data
	}
	if marked {
		n += markerLen
	}
	return n
}

// Append appends a frame to b: an Ethernet header without addresses, which the worker fills in,
// IP, UDP with its checksum, the marker if marked, data. id is the identification of an IPv4 packet, which may be cut
// up on its way: DF is not set.
func Append(b []byte, local, remote netip.AddrPort, id uint16, marked bool, data []byte) ([]byte, error) {
	src, dst := local.Addr(), remote.Addr()
	if !src.IsValid() || !dst.IsValid() || src.Is4In6() || dst.Is4In6() || src.BitLen() != dst.BitLen() {
		return b, ErrAddress
	}
	size := Len(src, marked, len(data))
	if size > packet.LenMax-packet.EtherLen {
		return b, ErrTooLong
	}
	var link [packet.EtherLen]byte
	if src.Is4() {
		binary.BigEndian.PutUint16(link[12:], packet.EtherIPv4)
		b = append(b, link[:]...)
		b = appendIPv4(b, src.As4(), dst.As4(), size, id)
	} else {
		binary.BigEndian.PutUint16(link[12:], packet.EtherIPv6)
		b = append(b, link[:]...)
		b = appendIPv6(b, src.As16(), dst.As16(), size)
	}
	at := len(b)
	b = binary.BigEndian.AppendUint16(b, local.Port())
	b = binary.BigEndian.AppendUint16(b, remote.Port())
	b = append(b, 0, 0, 0, 0)
	if marked {
		b = append(b, 0, 0, 0, 0)
	}
	b = append(b, data...)
	udp := b[at:]
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	sum := packet.Checksum(udp, packet.PseudoSum(src.AsSlice(), dst.AsSlice(), packet.ProtoUDP, uint32(len(udp))))
	if sum == 0 {
		sum = 0xffff // RFC 768: zero means that there is none
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
	return b, nil
}

// Whole sets Don't Fragment in a frame of Append. IPv6 needs none.
func Whole(frame []byte) {
	h := frame[packet.EtherLen:]
	if h[0]>>4 != 4 {
		return
	}
	binary.BigEndian.PutUint32(h[4:], 0x4000) // no identification either (RFC 6864, 4.1)
	h[10], h[11] = 0, 0
	binary.BigEndian.PutUint16(h[10:], packet.Checksum(h[:ipv4Len], 0))
}

func appendIPv4(b []byte, src, dst [4]byte, size int, id uint16) []byte {
	at := len(b)
	b = append(b, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(size))
	b = binary.BigEndian.AppendUint16(b, id)
	b = append(b, 0, 0, hops, packet.ProtoUDP, 0, 0)
	b = append(append(b, src[:]...), dst[:]...)
	h := b[at:]
	binary.BigEndian.PutUint16(h[10:], packet.Checksum(h, 0))
	return b
}

func appendIPv6(b []byte, src, dst [16]byte, size int) []byte {
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(size-ipv6Len))
	b = append(b, packet.ProtoUDP, hops)
	return append(append(b, src[:]...), dst[:]...)
}

// parser reads frames; one goroutine's.
type parser struct{ batch packet.Batch }

// parse returns what a frame carries. It is false for whatever is not a whole UDP datagram, and for one to port 4500 without
// marker. data lies in the frame.
func (p *parser) parse(frame []byte) (local, remote netip.AddrPort, data []byte, ok bool) {
	if len(frame) > packet.LenMax {
		return local, remote, nil, false
	}
	b := &p.batch
	b.Mem = frame
	defer func() { b.Mem = nil }()
	b.P[0] = packet.Packet{Len: uint16(len(frame))}
	if packet.Parse(b, 0) != packet.DropNone {
		return local, remote, nil, false
	}
	h := &b.P[0]
	if h.Proto != packet.ProtoUDP || h.Flags&packet.FlagFragment != 0 || int(h.End)-int(h.L4) < udpLen {
		return local, remote, nil, false
	}
	udp := frame[h.L4:h.End]
	size := int(binary.BigEndian.Uint16(udp[4:]))
	if size < udpLen || size > len(udp) {
		return local, remote, nil, false
	}
	flow := &b.Flows[0]
	local = netip.AddrPortFrom(flow.DstAddr(), h.DstPort)
	remote = netip.AddrPortFrom(flow.SrcAddr(), h.SrcPort)
	data, ok = unmark(h.DstPort, udp[udpLen:size])
	return local, remote, data, ok
}
