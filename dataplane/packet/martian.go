package packet

// Martian returns DropMartian if the flow of packet i, parsed in this batch, has a source or destination
// that a router must not forward (RFC 1812, 5.3.7; RFC 3927, 2.7; RFC 4291, 2.5.2,
// 2.5.3, 2.5.6 and 2.7), else DropNone. Multicast destinations beyond the link
// pass: whether they are carried is a matter of policy.
func Martian(b *Batch, i int) Drop {
	f := &b.Flows[i]
	if f.Version == 4 {
		src, dst := uint32(f.Src.Lo), uint32(f.Dst.Lo)
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
	if badUnicast6(f.Src) || f.Src.Hi>>56 == 0xff {
		return DropMartian
	}
	// Multicast of scope 0 to 2: reserved, interface and link.
	if badUnicast6(f.Dst) || f.Dst.Hi>>56 == 0xff && f.Dst.Hi>>48&15 <= 2 {
		return DropMartian
	}
	return DropNone
}

// LinkScope says that a flow stays on its link, as what routing protocols say to neighbours does: one end is a link-local address, or
// the destination multicast that no router forwards. Its source is one that a host can have.
func LinkScope(f *Flow) bool {
	if f.Version == 4 {
		src, dst := uint32(f.Src.Lo), uint32(f.Dst.Lo)
		if src>>24 == 0 || src>>24 == 127 || src >= 0xe0000000 {
			return false
		}
		return dst>>8 == 0xe00000 || dst>>16 == 0xa9fe || src>>16 == 0xa9fe && dst>>24 != 0 && dst>>24 != 127 && dst < 0xf0000000
	}
	linkLocal := func(a Addr) bool { return a.Hi>>54 == 0xfe80>>6 }
	if badUnicast6(f.Src) && !linkLocal(f.Src) || f.Src.Hi>>56 == 0xff {
		return false
	}
	return linkLocal(f.Dst) || f.Dst.Hi>>48 == 0xff02 || linkLocal(f.Src) && !badUnicast6(f.Dst)
}

// badUnicast4 reports 0.0.0.0/8, 127.0.0.0/8 and 169.254.0.0/16.
func badUnicast4(a uint32) bool { return a>>24 == 0 || a>>24 == 127 || a>>16 == 0xa9fe }

// badUnicast6 reports ::, ::1, other addresses of ::/96, mapped IPv4 addresses and fe80::/10.
func badUnicast6(a Addr) bool {
	return a.Hi == 0 && (a.Lo>>32 == 0 || a.Lo>>32 == 0xffff) || a.Hi>>54 == 0xfe80>>6
}
