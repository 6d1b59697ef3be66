package bpf

import (
	"net/netip"
	"testing"
)

// FuzzSteerNeverPassesProtected runs any frame under a policy for everything,
// with no socket. An untagged IP packet may then pass only to an address that
// this oracle, which reads nothing but the address, lets go.
func FuzzSteerNeverPassesProtected(f *testing.F) {
	for _, cases := range [][]steerCase{siteCases, allCases, namedCases} {
		for _, c := range cases {
			f.Add(c.frame)
		}
	}
	all := prefixes("0.0.0.0/0", "::/0")
	s := gateway(f, all, all)
	check(f, s.SetPort(loopback, 0, both))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < 14 || len(frame) > 3000 {
			return
		}
		if run(t, s, frame) != xdpPass {
			return
		}
		var src, dst netip.Addr
		switch etherType := uint16(frame[12])<<8 | uint16(frame[13]); etherType {
		case 0x0800:
			if len(frame) < 34 {
				t.Fatal("a runt passes")
			}
			dst = netip.AddrFrom4([4]byte(frame[30:]))
		case 0x86dd:
			if len(frame) < 54 {
				t.Fatal("a runt passes")
			}
			src, dst = netip.AddrFrom16([16]byte(frame[22:])), netip.AddrFrom16([16]byte(frame[38:]))
		default:
			return
		}
		switch dst.String() {
		case gw4, gw6, lan4, lan6, "255.255.255.255":
			return
		}
		if dst.IsMulticast() || dst.IsLinkLocalUnicast() || src.IsLinkLocalUnicast() && src.Is6() && !src.Is4In6() {
			return
		}
		if dst.Is6() && (frame[21] == 255 || frame[21] == 1) {
			return // may be neighbour discovery or MLD, judged by the tables
		}
		t.Fatalf("a packet to %v passes: %x", dst, frame)
	})
}
