package dataplane

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"sallyport/dataplane/fib"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
)

// anything selects all packets of both families.
func anything() []spd.Selector {
	all := func(p string) []spd.Range { return []spd.Range{spd.RangeOf(netip.MustParsePrefix(p))} }
	return []spd.Selector{
		{Local: all("0.0.0.0/0"), Remote: all("0.0.0.0/0"), LocalPorts: spd.AnyPorts, RemotePorts: spd.AnyPorts},
		{Local: all("::/0"), Remote: all("::/0"), LocalPorts: spd.AnyPorts, RemotePorts: spd.AnyPorts},
	}
}

// into is a route into the only virtual interface of a gateway.
func into(prefix string) fib.Entry {
	return fib.Entry{Prefix: netip.MustParsePrefix(prefix), Hop: fib.Hop{Kind: fib.Tunnel, Port: 1, MTU: 1400}}
}

// routed are two gateways between whose networks routes lead into virtual interfaces, with no policy for anything else. change may
// alter the associations and what the interface's policy selects.
func routed(t testing.TB, o options, change func(p *sad.Params, selectors *[]spd.Selector)) (a, b *gateway) {
	o = o.withDefaults()
	make1 := func(me, peer side, out, in uint32) *gateway {
		o := o
		o.routes = append(append([]fib.Entry{}, o.routes...), into(peer.inner4.String()), into(peer.inner6.String()), into("203.0.113.64/30"),
			fib.Entry{Prefix: netip.MustParsePrefix("224.0.0.0/4"), Hop: fib.Hop{Kind: fib.Local}},
			fib.Entry{Prefix: netip.MustParsePrefix("ff00::/8"), Hop: fib.Hop{Kind: fib.Local}},
			fib.Entry{Prefix: netip.MustParsePrefix("fe80::/10"), Hop: fib.Hop{Kind: fib.Local}})
		g := newGateway(t, me, peer, o)
		base := sad.Params{
			Name: "routed", Suite: o.suite, Local: me.outer4, Remote: peer.outer4, Encap: o.encap, ESN: true, Selectors: anything(),
			Interface: "ipsec0", Outer: sad.Outer{CopyDSCP: true, CopyDF: true, ECN: true},
		}
		if o.outer6 {
			base.Local, base.Remote = me.outer6, peer.outer6
		}
		selectors := anything()
		if change != nil {
			change(&base, &selectors)
		}
		inbound, outbound := base, base
		inbound.Inbound, inbound.SPI, inbound.Keymat = true, in, keymat(o.suite, uint64(in))
		outbound.SPI, outbound.Keymat = out, keymat(o.suite, uint64(out))
		_, err := g.Install(inbound)
		check(t, err)
		h, err := g.Install(outbound)
		check(t, err)
		if !o.noBind {
			check(t, g.Bind(7, h))
		}
		check(t, g.Apply(Policies{
			SPD:        append([]spd.Policy{{Name: "routed", Action: spd.Protect, Selectors: selectors, Tunnel: 7, Interface: "ipsec0"}}, o.policies...),
			Endpoints:  []netip.Addr{me.outer4, me.outer6},
			Interfaces: []Interface{{Name: "ipsec0"}},
		}))
		return g
	}
	return make1(sideA, sideB, 0x1001, 0x2001), make1(sideB, sideA, 0x2001, 0x1001)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// reroute gives a gateway other routes.
func (g *gateway) reroute(entries ...fib.Entry) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tables.FIB = fib.Build(g.tables.FIB.Generation+1, entries)
	g.publishTables()
}

// fromKernel are frames as the reader of virtual interface n makes them.
func fromKernel(n uint16, frames ...[]byte) [][]byte {
	to := packet.InterfaceMAC(n)
	for _, f := range frames {
		copy(f, to[:])
	}
	return frames
}

// TestRoutesLeadIntoAnInterface: what is routed into an interface is protected, over and over and in both families, though no policy names it; what is
// not is not.
func TestRoutesLeadIntoAnInterface(t *testing.T) {
	for _, o := range []options{{}, {workers: 2, queues: 2}, {outer6: true}, {encap: true}} {
		a, b := routed(t, o, nil)
		for round := range 3 {
			var sent [][]byte
			for size := 60; size < 1300; size += 211 {
				sent = append(sent, udp4("198.51.100.5", "198.51.100.200", size, 64), udp6("2001:db8:a::5", "2001:db8:b::7", size, 64))
			}
			a.inject(inside, sent...)
			if n := len(cross(t, a, b)); n != len(sent) {
				t.Fatalf("round %d: %d of %d packets left; %v", round, n, len(sent), a.dropped())
			}
			got := b.drain(inside)
			if len(got) != len(sent) {
				t.Fatalf("round %d: %d of %d packets arrived; %v", round, len(got), len(sent), b.dropped())
			}
		}
		past := udp4("198.51.100.5", "203.0.113.7", 100, 64)
		a.inject(inside, past)
		if got := a.drain(outside); len(got) != 1 || got[0][14+9] != 17 {
			t.Errorf("what is routed past the interface left as %x; %v", got, a.dropped())
		}
		a.settled()
		b.settled()
	}
}

// TestARouteChangesWhereTrafficGoes: the next batch follows, into the interface and out of it again.
func TestARouteChangesWhereTrafficGoes(t *testing.T) {
	a, b := routed(t, options{}, nil)
	outward := fib.Hop{Kind: fib.Forward, Port: outside, MTU: 1500}
	base := []fib.Entry{{Prefix: netip.PrefixFrom(sideB.outer4, 32), Hop: outward}, {Prefix: sideA.inner4, Hop: fib.Hop{Kind: fib.Forward, Port: inside, MTU: 1500}}}
	proto := func() (list []byte) {
		a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
		for _, f := range a.drain(outside) {
			list = append(list, f[14+9])
		}
		return list
	}
	for range 2 {
		a.reroute(append(base, into(sideB.inner4.String()))...)
		if got := proto(); !bytes.Equal(got, []byte{50}) {
			t.Errorf("into the interface: protocols %v; %v", got, a.dropped())
		}
		a.reroute(append(base, into(sideB.inner4.String()), fib.Entry{Prefix: netip.MustParsePrefix("198.51.100.200/32"), Hop: outward})...)
		if got := proto(); !bytes.Equal(got, []byte{17}) {
			t.Errorf("past the interface: protocols %v; %v", got, a.dropped())
		}
	}
	b.settled()
	a.settled()
}

// TestNothingLeavesAnInterfaceUnprotected: without an association, outside the selectors, by a way to the peer that is the interface itself,
// or out of an interface that is gone.
func TestNothingLeavesAnInterfaceUnprotected(t *testing.T) {
	frame := func() []byte { return udp4("198.51.100.5", "198.51.100.200", 100, 64) }
	narrow := func(p *sad.Params, s *[]spd.Selector) {
		(*s)[0].Remote = []spd.Range{spd.RangeOf(netip.MustParsePrefix("203.0.113.0/24"))}
	}
	for name, c := range map[string]struct {
		o      options
		change func(*sad.Params, *[]spd.Selector)
		then   func(a *gateway)
	}{
		"no-outbound": {o: options{noBind: true}},
		"no-policy":   {change: narrow},
		"tunnel-loop": {then: func(a *gateway) {
			a.reroute(into("0.0.0.0/0"), fib.Entry{Prefix: sideA.inner4, Hop: fib.Hop{Kind: fib.Forward, Port: inside, MTU: 1500}})
		}},
		"port-down": {then: func(a *gateway) {
			check(t, a.Apply(Policies{Endpoints: []netip.Addr{sideA.outer4}, Interfaces: []Interface{{Name: "ipsec1"}}}))
		}},
	} {
		a, _ := routed(t, c.o, c.change)
		if c.then != nil {
			c.then(a)
		}
		a.inject(inside, frame())
		if left := a.drain(outside); len(left) > 0 {
			t.Errorf("%s: %d packets left: %x", name, len(left), left)
		}
		if d := a.dropped(); d[name] != 1 || len(d) != 1 {
			t.Errorf("%s: dropped %v", name, d)
		}
		a.settled()
	}
}

// TestAPolicyComesBeforeARoute: discard drops what a route would lead into the interface, and bypass leaves the decision to the route.
func TestAPolicyComesBeforeARoute(t *testing.T) {
	for _, c := range []struct {
		action spd.Action
		left   int
	}{{spd.Discard, 0}, {spd.Bypass, 1}} {
		a, b := routed(t, options{policies: []spd.Policy{{Name: "first", Action: c.action, Selectors: []spd.Selector{selector(sideA, sideB)}}}}, nil)
		a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
		left := a.drain(outside)
		if len(left) != c.left || c.left == 1 && left[0][14+9] != 50 {
			t.Errorf("%v: %x left; %v", c.action, left, a.dropped())
		}
		a.settled()
		b.settled()
	}
}

// TestCleartextFromBehindAnInterfaceIsRefused on the outside, and nothing from there is carried into it (RFC 4301, 5.2).
func TestCleartextFromBehindAnInterfaceIsRefused(t *testing.T) {
	a, b := routed(t, options{}, nil)
	a.inject(outside, udp4("198.51.100.200", "198.51.100.5", 100, 64), udp4("203.0.113.7", "198.51.100.200", 100, 64), udp4("203.0.113.7", "198.51.100.5", 100, 64))
	if d := a.dropped(); d["cleartext"] != 1 || d["spoofed"] != 1 || len(d) != 2 {
		t.Errorf("dropped %v", d)
	}
	if got := a.drain(inside); len(got) != 1 {
		t.Errorf("%d packets reached the inside, want the one that no route says should have been protected", len(got))
	}
	a.settled()
	b.settled()
}

// TestNeighboursTalkThroughAnInterface: what the kernel sends by an interface goes through the tunnel, whatever its destination, and arrives at the
// other kernel by the interface: the hellos of OSPF over IPv4 and IPv6, and unicast to an own address.
func TestNeighboursTalkThroughAnInterface(t *testing.T) {
	a, b := routed(t, options{}, nil)
	for _, g := range []*gateway{a, b} {
		g.tables.TUN = inside
		g.publishTables()
	}
	b.reroute(into("203.0.113.64/30"), fib.Entry{Prefix: netip.MustParsePrefix("203.0.113.66/32"), Hop: fib.Hop{Kind: fib.Local}},
		fib.Entry{Prefix: netip.MustParsePrefix("224.0.0.0/4"), Hop: fib.Hop{Kind: fib.Local}}, fib.Entry{Prefix: netip.MustParsePrefix("ff00::/8"), Hop: fib.Hop{Kind: fib.Local}},
		fib.Entry{Prefix: netip.MustParsePrefix("fe80::/10"), Hop: fib.Hop{Kind: fib.Local}})
	sent := fromKernel(1, udp4("203.0.113.65", "224.0.0.5", 68, 1), udp6("fe80::1", "ff02::5", 90, 1), udp4("203.0.113.65", "203.0.113.66", 100, 64),
		udp6("fe80::1", "fe80::2", 90, 255))
	a.inject(inside, sent...)
	if n := len(cross(t, a, b)); n != len(sent) {
		t.Fatalf("%d of %d packets left; %v", n, len(sent), a.dropped())
	}
	got := b.drain(inside)
	if len(got) != len(sent) {
		t.Fatalf("%d of %d packets reached the kernel; %v", len(got), len(sent), b.dropped())
	}
	for i := range got {
		if !bytes.Equal(got[i][14:], sent[i][14:]) || packet.InterfaceOf(got[i]) != 1 {
			t.Errorf("packet %d arrived as %x by interface %d, was %x", i, got[i][14:], packet.InterfaceOf(got[i]), sent[i][14:])
		}
	}
	// Loopback addresses are no neighbour's.
	a.inject(inside, fromKernel(1, udp4("127.0.0.1", "224.0.0.5", 68, 1), udp4("203.0.113.65", "127.0.0.1", 68, 1), udp6("::1", "ff02::5", 90, 1))...)
	cross(t, a, b)
	if d := b.dropped(); d["martian"] != 3 || len(b.drain(inside)) != 0 {
		t.Errorf("dropped %v", d)
	}
	// By no interface that there is.
	a.inject(inside, fromKernel(9, udp4("203.0.113.65", "203.0.113.66", 100, 64))...)
	if d := a.dropped(); d["port-down"] != 1 || len(a.drain(outside)) != 0 {
		t.Errorf("dropped %v", d)
	}
	a.settled()
	b.settled()
}

// TestErrorsGoBackThroughAnInterface: a sender behind the peer is told that its packet's time is over, and the own kernel that its packet is too big.
func TestErrorsGoBackThroughAnInterface(t *testing.T) {
	a, b := routed(t, options{}, nil)
	// The interface has no address. Others of the gateway's are there first: those of lo and of a link are no source of what others get.
	b.tables.Own = append([]netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback(), netip.MustParseAddr("fe80::1"), sideB.outer4, sideB.outer6}, b.tables.Own...)
	b.publishTables()
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 2), udp6("2001:db8:a::5", "2001:db8:b::7", 100, 2))
	cross(t, a, b)
	cross(t, b, a)
	if got := a.drain(inside); len(got) != 2 || got[0][14+9] != 1 || got[0][14+20] != 11 || got[1][14+6] != 58 || got[1][14+40] != 3 {
		t.Errorf("the senders got %x; %v", got, a.dropped())
	} else if !bytes.Equal(got[0][14+12:14+16], sideB.insideAddresses[0].AsSlice()) || !bytes.Equal(got[1][14+8:14+24], sideB.insideAddresses[1].AsSlice()) {
		t.Errorf("the errors come from %x and %x", got[0][14+12:14+16], got[1][14+8:14+24])
	}
	a.tables.TUN = inside
	a.publishTables()
	a.reroute(into(sideB.inner4.String()), fib.Entry{Prefix: netip.PrefixFrom(sideB.outer4, 32), Hop: fib.Hop{Kind: fib.Forward, Port: outside, MTU: 1300}},
		fib.Entry{Prefix: netip.MustParsePrefix("203.0.113.65/32"), Hop: fib.Hop{Kind: fib.Local}})
	a.inject(inside, fromKernel(1, udp4("203.0.113.65", "198.51.100.200", 1400, 64))...)
	got := a.drain(inside)
	if len(got) != 1 || got[0][14+9] != 1 || got[0][14+20] != 3 || packet.InterfaceOf(got[0]) != 1 {
		t.Fatalf("the kernel got %x; %v", got, a.dropped())
	}
	if mtu := binary.BigEndian.Uint16(got[0][14+26:]); mtu < 1200 || mtu > 1280 {
		t.Errorf("MTU %d", mtu)
	}
	a.settled()
	b.settled()
}

// TestMTUOfAnInterface: what is forwarded into an interface fits it, though the path would take more.
func TestMTUOfAnInterface(t *testing.T) {
	a, b := routed(t, options{}, nil)
	for _, size := range []int{1400, 1401} {
		a.inject(inside, udp4("198.51.100.5", "198.51.100.200", size, 64), udp6("2001:db8:a::5", "2001:db8:b::7", size, 64))
	}
	got := a.drain(inside)
	if len(got) != 2 || got[0][14+20] != 3 || got[0][14+21] != 4 || got[1][14+40] != 2 {
		t.Fatalf("the senders got %x; %v", got, a.dropped())
	}
	if v4, v6 := binary.BigEndian.Uint16(got[0][14+26:]), binary.BigEndian.Uint32(got[1][14+44:]); v4 != 1400 || v6 != 1400 {
		t.Errorf("MTUs %d and %d", v4, v6)
	}
	cross(t, a, b)
	if n := len(b.drain(inside)); n != 2 {
		t.Errorf("%d packets arrived", n)
	}
	a.settled()
	b.settled()
}

// TestInterfacesHaveTheirOwnPolicies: two peers, each the way for everything by an interface of its own, and a route chooses.
func TestInterfacesHaveTheirOwnPolicies(t *testing.T) {
	o := options{routes: []fib.Entry{{Prefix: netip.MustParsePrefix("198.51.100.224/27"), Hop: fib.Hop{Kind: fib.Tunnel, Port: 2, MTU: 1400}}}}
	a, b := routed(t, o, nil)
	second := sad.Params{
		Name: "second", Suite: o.withDefaults().suite, Local: sideA.outer4, Remote: netip.MustParseAddr("203.0.113.9"), SPI: 0x9001, Interface: "ipsec1",
		Keymat: keymat(o.withDefaults().suite, 9),
	}
	h, err := a.Install(second)
	check(t, err)
	check(t, a.Bind(8, h))
	check(t, a.Apply(Policies{
		SPD: []spd.Policy{
			{Name: "routed", Action: spd.Protect, Selectors: anything(), Tunnel: 7, Interface: "ipsec0"},
			{Name: "second", Action: spd.Protect, Selectors: anything(), Tunnel: 8, Interface: "ipsec1"},
		},
		Endpoints:  []netip.Addr{sideA.outer4, sideA.outer6},
		Interfaces: []Interface{{Name: "ipsec0"}, {Name: "ipsec1"}},
	}))
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64), udp4("198.51.100.5", "198.51.100.230", 100, 64))
	var spis []uint32
	for _, f := range a.drain(outside) {
		spis = append(spis, binary.BigEndian.Uint32(f[14+20:]))
	}
	if len(spis) != 2 || spis[0] != 0x1001 || spis[1] != 0x9001 {
		t.Errorf("SPIs %x; %v", spis, a.dropped())
	}
	// A negotiated policy goes into its interface's list, not into that for everything.
	n, err := a.AddPolicy(Instance{Name: "narrow", Of: "routed", Interface: "ipsec0", Selectors: []spd.Selector{selector(sideA, sideB)}})
	check(t, err)
	check(t, a.recompile())
	check(t, a.Bind(n, h))
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
	if got := a.drain(outside); len(got) != 1 || binary.BigEndian.Uint32(got[0][14+20:]) != 0x9001 {
		t.Errorf("%x; %v", got, a.dropped())
	}
	if local, remote := a.tables.SPD.Prefixes(); len(local)+len(remote) > 0 {
		t.Errorf("policies of interfaces are steered by: %v %v", local, remote)
	}
	a.settled()
	b.settled()
}
