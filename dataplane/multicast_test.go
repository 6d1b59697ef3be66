package dataplane

import (
	"bytes"
	"net/netip"
	"testing"

	"sallyport/dataplane/fib"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
)

// newGroups returns the rig with groups in the tunnel's selectors, at both ends, and a route for some of them to the hosts behind b.
// wide makes b's selectors so wide that what comes from a would fit into b's tunnel again.
func newGroups(t *testing.T, wide bool, port uint16) (a, b *gateway) {
	group := func(list ...string) (r []spd.Range) {
		for _, p := range list {
			r = append(r, spd.RangeOf(netip.MustParsePrefix(p)))
		}
		return r
	}
	groups := group("224.0.0.0/4", "ff00::/8")
	o := options{esn: true, params: func(p *sad.Params) {
		s := &p.Selectors[0]
		s.Local, s.Remote = append(s.Local, groups...), append(s.Remote, groups...)
		if wide && p.Local == sideB.outer4 {
			s.Local = group("0.0.0.0/0", "::/0")
		}
	}}
	hop := fib.Hop{Kind: fib.Multicast, Port: port, MTU: 1500, SrcMAC: [6]byte{2, 0, 0, 0, 0, byte(port)}}
	o.routes = []fib.Entry{
		{Prefix: netip.MustParsePrefix("239.1.0.0/16"), Hop: hop}, {Prefix: netip.MustParsePrefix("ff15::/16"), Hop: hop},
		{Prefix: netip.MustParsePrefix("224.0.0.0/4"), Hop: fib.Hop{Kind: fib.Local}}, {Prefix: netip.MustParsePrefix("198.51.100.255/32"), Hop: fib.Hop{Kind: fib.Local}},
	}
	return newRig(t, o)
}

// toGroup gives a frame the link address of its group.
func toGroup(f []byte, mac ...byte) []byte {
	copy(f, mac)
	return f
}

// TestMulticastCrossesTheTunnel sends to groups from a host behind a: hosts behind b get it at the group's link address, two hops
// later. Nothing of it goes into a tunnel again, whatever the selectors allow.
func TestMulticastCrossesTheTunnel(t *testing.T) {
	for _, wide := range []bool{false, true} {
		a, b := newGroups(t, wide, inside)
		frames := [][]byte{
			toGroup(udp4("198.51.100.5", "239.1.130.3", 200, 64), 0x01, 0x00, 0x5e, 0x01, 0x82, 0x03),
			toGroup(udp4("198.51.100.5", "239.1.2.3", 200, 3), 0x01, 0x00, 0x5e, 0x01, 0x02, 0x03),
			toGroup(udp6("2001:db8:a::5", "ff15::1:2:3", 300, 64), 0x33, 0x33, 0, 2, 0, 3),
		}
		a.inject(inside, frames...)
		esp := cross(t, a, b)
		got := b.drain(inside)
		if len(esp) != 3 || len(got) != 3 {
			t.Fatalf("wide %v: %d sealed, %d arrived: %v %v", wide, len(esp), len(got), a.dropped(), b.dropped())
		}
		compare(t, frames, got)
		for i, f := range got {
			if !bytes.Equal(f[:6], frames[i][:6]) || f[6] != 2 {
				t.Errorf("it goes to %x from %x, not to %x", f[:6], f[6:12], frames[i][:6])
			}
		}
		if back := b.drain(outside); len(back) != 0 || b.Stats().Total.Sealed != 0 {
			t.Errorf("wide %v: %d packets went back into a tunnel", wide, len(back))
		}
		a.settled()
		b.settled()
	}
}

// TestMulticastThatEndsHere: hop counts that run out end without a word, groups of one link and those without a route go nowhere, nor
// does anything by an interface on the outside. A broadcast for the hosts behind b stays with its gateway (RFC 2644).
func TestMulticastThatEndsHere(t *testing.T) {
	for _, c := range []struct {
		name      string
		src, dst  string
		hops      byte
		port      uint16
		at, drop  string
		crossings int
	}{
		{"no hop left", "198.51.100.5", "239.1.2.3", 1, inside, "a", "ttl-expired", 0},
		{"no hop left behind the tunnel", "198.51.100.5", "239.1.2.3", 2, inside, "b", "ttl-expired", 1},
		{"a group of one link", "198.51.100.5", "224.0.0.251", 255, inside, "b", "martian", 1},
		{"a group without a route", "198.51.100.5", "239.2.2.3", 64, inside, "b", "no-route", 1}, // no kernel to take it
		{"a route to the outside", "198.51.100.5", "239.1.2.3", 64, outside, "b", "exposed", 1},
		{"broadcast of the attached network", "198.51.100.5", "198.51.100.255", 64, inside, "b", "no-route", 1},
		{"no hop left, IPv6", "2001:db8:a::5", "ff15::1", 1, inside, "a", "ttl-expired", 0},
		{"a group of one link, IPv6", "2001:db8:a::5", "ff02::fb", 255, inside, "b", "martian", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := newGroups(t, false, c.port)
			frame := udp4
			if netip.MustParseAddr(c.src).Is6() {
				frame = udp6
			}
			a.inject(inside, toGroup(frame(c.src, c.dst, 100, c.hops), 1))
			esp := cross(t, a, b)
			at := map[string]*gateway{"a": a, "b": b}[c.at]
			if len(esp) != c.crossings || at.dropped()[c.drop] != 1 {
				t.Errorf("%d sealed; %v %v", len(esp), a.dropped(), b.dropped())
			}
			for _, g := range []*gateway{a, b} {
				for _, port := range []int{inside, outside} {
					if got := g.drain(port); len(got) != 0 {
						t.Errorf("%d packets left by port %d", len(got), port)
					}
				}
				if n := g.Stats().Total.Originated; n != 0 {
					t.Errorf("%d packets made", n)
				}
				g.settled()
			}
		})
	}
	var p packet.Flow
	if p.Version = 4; p.Multicast() {
		t.Error("0.0.0.0 is no group")
	}
}
