package packet

import (
	"encoding/binary"
	"net/netip"
)

// Addr is an IP address as a 128-bit number, an IPv4 address in the low 32 bits. Which
// family it is of stands beside it. Unlike netip.Addr it holds no pointer, so storing one
// costs no write barrier, and comparing two is a subtraction.
type Addr struct{ Hi, Lo uint64 }

// AddrOf returns the number of an address without zone.
func AddrOf(a netip.Addr) Addr {
	if a.Is4() {
		b := a.As4()
		return addr4(b[:])
	}
	b := a.As16()
	return addr6(b[:])
}

func addr4(b []byte) Addr { return Addr{Lo: uint64(binary.BigEndian.Uint32(b))} }

func addr6(b []byte) Addr {
	return Addr{Hi: binary.BigEndian.Uint64(b), Lo: binary.BigEndian.Uint64(b[8:])}
}

// Netip returns the address of IP version 4 or 6.
func (a Addr) Netip(version uint8) netip.Addr {
	if version == 4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(a.Lo))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], a.Hi)
	binary.BigEndian.PutUint64(b[8:], a.Lo)
	return netip.AddrFrom16(b)
}

// Flow is what selectors look at (RFC 4301, 4.4.1.1): the packet's addresses,
// upper-layer protocol and ports. It holds no reference to the frame.
type Flow struct {
	Src, Dst Addr
	// SrcPort and DstPort are as in [Packet]; valid if Flags has FlagPorts.
	SrcPort, DstPort uint16
	Flags            Flags
	// Version is 4 or 6, of both addresses.
	Version uint8
	Proto   uint8
}

// FlowBetween returns a flow between two addresses of one family, without ports.
func FlowBetween(src, dst netip.Addr, proto uint8) Flow {
	f := Flow{Src: AddrOf(src), Dst: AddrOf(dst), Version: 6, Proto: proto}
	if src.Is4() {
		f.Version = 4
	}
	return f
}

// SrcAddr returns the source as the standard library knows it.
func (f *Flow) SrcAddr() netip.Addr { return f.Src.Netip(f.Version) }

// DstAddr returns the destination as the standard library knows it.
func (f *Flow) DstAddr() netip.Addr { return f.Dst.Netip(f.Version) }

// Multicast reports whether the destination is a group of hosts.
func (f *Flow) Multicast() bool {
	if f.Version == 4 {
		return f.Dst.Lo>>28 == 0xe
	}
	return f.Dst.Hi>>56 == 0xff
}

// Back returns the flow in the other direction.
func (f *Flow) Back() Flow {
	back := *f
	back.Src, back.Dst, back.SrcPort, back.DstPort = f.Dst, f.Src, f.DstPort, f.SrcPort
	return back
}

// Later returns the flow of a later fragment of the same datagram: it has no ports.
func (f *Flow) Later() Flow {
	later := *f
	later.SrcPort, later.DstPort = 0, 0
	later.Flags = later.Flags&^FlagPorts | FlagFragment | FlagLaterFragment
	return later
}

// FlowOf returns the flow of packet i as it stands in the frame, which [Parse] or [ParseIP]
// accepted before or this gateway made. It does not allocate.
func FlowOf(b *Batch, i int) (f Flow) {
	f.set(&b.P[i], b.IP(i))
	return f
}

// set fills f from the record p and the IP header at h.
func (f *Flow) set(p *Packet, h []byte) {
	if p.Version == 4 {
		h = h[:20]
		f.Src, f.Dst = addr4(h[12:]), addr4(h[16:])
	} else {
		h = h[:40]
		f.Src, f.Dst = addr6(h[8:]), addr6(h[24:])
	}
	f.SrcPort, f.DstPort, f.Flags, f.Version, f.Proto = p.SrcPort, p.DstPort, p.Flags, p.Version, p.Proto
}
