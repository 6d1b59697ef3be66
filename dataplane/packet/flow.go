package packet

import "net/netip"

// Flow is what selectors look at (RFC 4301, 4.4.1.1): the packet's addresses,
// upper-layer protocol and ports. It holds no reference to the frame.
type Flow struct {
	Src, Dst netip.Addr
	// SrcPort and DstPort are as in [Packet]; valid if Flags has FlagPorts.
	SrcPort, DstPort uint16
	Proto            uint8
	Flags            Flags
}

// FlowOf returns the flow of packet i, which [Parse] or [ParseIP] accepted. It
// does not allocate.
func FlowOf(b *Batch, i int) Flow {
	p := &b.P[i]
	f := Flow{SrcPort: p.SrcPort, DstPort: p.DstPort, Proto: p.Proto, Flags: p.Flags}
	h := b.IP(i)
	if p.Version == 4 {
		f.Src = netip.AddrFrom4([4]byte(h[12:16]))
		f.Dst = netip.AddrFrom4([4]byte(h[16:20]))
	} else {
		f.Src = netip.AddrFrom16([16]byte(h[8:24]))
		f.Dst = netip.AddrFrom16([16]byte(h[24:40]))
	}
	return f
}
