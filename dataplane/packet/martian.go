package packet

import "encoding/binary"

// Martian returns DropMartian if packet i, parsed before, has a source or destination
// that a router must not forward (RFC 1812, 5.3.7; RFC 3927, 2.7; RFC 4291, 2.5.2,
// 2.5.3, 2.5.6 and 2.7), else DropNone. Multicast destinations beyond the link
// pass: whether they are carried is a matter of policy.
func Martian(b *Batch, i int) Drop {
	h := b.IP(i)
	if b.P[i].Version == 4 {
		src, dst := binary.BigEndian.Uint32(h[12:]), binary.BigEndian.Uint32(h[16:])
		// 224.0.0.0 and up: multicast, class E and broadcast are no sources.
		if badUnicast4(src) || src >= 0xe0000000 {
			return DropMartian
		}
		// 224.0.0.0/24 never leaves its link (RFC 5771, 4); class E and broadcast.
		if badUnicast4(dst) || dst>>8 == 0xe00000 || dst >= 0xf0000000 {
			return DropMartian
		}
		return DropNone
	}
	src, dst := h[8:24], h[24:40]
	if badUnicast6(src) || src[0] == 0xff {
		return DropMartian
	}
	// Multicast of scope 0 to 2: reserved, interface and link.
	if badUnicast6(dst) || dst[0] == 0xff && dst[1]&15 <= 2 {
		return DropMartian
	}
	return DropNone
}

// badUnicast4 reports 0.0.0.0/8, 127.0.0.0/8 and 169.254.0.0/16.
func badUnicast4(a uint32) bool { return a>>24 == 0 || a>>24 == 127 || a>>16 == 0xa9fe }

// badUnicast6 reports ::, ::1, other addresses of ::/96, mapped IPv4 addresses and fe80::/10.
func badUnicast6(a []byte) bool {
	hi, lo := binary.BigEndian.Uint64(a), binary.BigEndian.Uint64(a[8:])
	return hi == 0 && (lo>>32 == 0 || lo>>32 == 0xffff) || hi>>54 == 0xfe80>>6
}
