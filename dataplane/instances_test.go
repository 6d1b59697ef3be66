package dataplane

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
)

// to is a selector from the rig's network A to one prefix.
func to(prefix string) []spd.Selector {
	s := selector(sideA, sideB)
	s.Local = []spd.Range{spd.RangeOf(sideA.inner4)}
	s.Remote = []spd.Range{spd.RangeOf(netip.MustParsePrefix(prefix))}
	return []spd.Selector{s}
}

// outboundTo installs an outbound association and binds a tunnel to it.
func (g *gateway) outboundTo(tunnel, spi uint32) sad.Handle {
	g.t.Helper()
	suite := options{}.withDefaults().suite
	h, err := g.Install(sad.Params{Name: "instance", Suite: suite, Local: sideA.outer4, Remote: sideB.outer4, SPI: spi, Keymat: keymat(suite, uint64(spi))})
	if err != nil {
		g.t.Fatal(err)
	}
	if err := g.Bind(tunnel, h); err != nil {
		g.t.Fatal(err)
	}
	return h
}

// spiFor sends a packet to dst and returns the SPI that it leaves by, 0 if it does not.
func (g *gateway) spiFor(dst string) uint32 {
	g.t.Helper()
	g.inject(inside, udp4("198.51.100.5", dst, 100, 64))
	frames := g.drain(outside)
	if len(frames) != 1 {
		return 0
	}
	f := frames[0][34:]
	return uint32(f[0])<<24 | uint32(f[1])<<16 | uint32(f[2])<<8 | uint32(f[3])
}

func (g *gateway) policy(i Instance) uint32 {
	g.t.Helper()
	tunnel, err := g.AddPolicy(i)
	if err != nil {
		g.t.Fatal(err)
	}
	if err := g.recompile(); err != nil {
		g.t.Fatal(err)
	}
	return tunnel
}

// TestInstancesStandBeforeWhatTheyAreOf: narrowed ones win inside their selectors and leave the rest to the
// configured policy; what is configured before still wins over them.
func TestInstancesStandBeforeWhatTheyAreOf(t *testing.T) {
	a := newGateway(t, sideA, sideB, options{})
	if err := a.Apply(Policies{Endpoints: []netip.Addr{sideA.outer4}, SPD: []spd.Policy{
		{Name: "never", Action: spd.Discard, Selectors: to("198.51.100.240/28")},
		{Name: "net", Action: spd.Protect, Selectors: to("198.51.100.128/25"), Tunnel: 1},
		{Name: "all", Action: spd.Protect, Selectors: to("198.18.0.0/15"), Tunnel: 2},
	}}); err != nil {
		t.Fatal(err)
	}
	a.outboundTo(1, 0x1001)
	a.outboundTo(2, 0x1002)
	narrow := a.policy(Instance{Name: "narrow", Of: "net", Selectors: to("198.51.100.192/26")})
	a.outboundTo(narrow, 0x2001)
	wide := a.policy(Instance{Name: "wide", Of: "all", Selectors: to("198.51.100.128/25")})
	a.outboundTo(wide, 0x2002)
	elsewhere := a.policy(Instance{Name: "address", Of: "nobody", Selectors: to("198.51.100.130/32")})
	a.outboundTo(elsewhere, 0x2003)
	for dst, want := range map[string]uint32{
		"198.51.100.129": 0x1001, // the configured one
		"198.51.100.200": 0x2001, // the narrowed one
		"198.51.100.241": 0,      // discarded
		"198.51.100.130": 0x2003, // of no configured policy: before all
		"198.18.0.1":     0x1002, // not narrowed
	} {
		if got := a.spiFor(dst); got != want {
			t.Errorf("%s leaves by %#x, not %#x", dst, got, want)
		}
	}
	// A reload keeps them.
	if err := a.Apply(a.policies); err != nil {
		t.Fatal(err)
	}
	if got := a.spiFor("198.51.100.200"); got != 0x2001 {
		t.Errorf("after a reload: %#x", got)
	}
	// Without its association a narrowed policy protects on: nothing falls through to another tunnel.
	a.RemovePolicy(elsewhere)
	if got := a.spiFor("198.51.100.130"); got != 0 {
		t.Errorf("a packet of a policy that ends leaves by %#x", got)
	}
	if err := a.recompile(); err != nil {
		t.Fatal(err)
	}
	if got := a.spiFor("198.51.100.130"); got != 0x1001 {
		t.Errorf("after it has ended: %#x", got)
	}
}

// TestFailover: of two instances with one selector, that of the lower priority number carries the packets while it is
// there, and a newer one of the same priority takes over from the older.
func TestFailover(t *testing.T) {
	a := newGateway(t, sideA, sideB, options{})
	if err := a.Apply(Policies{Endpoints: []netip.Addr{sideA.outer4}, SPD: []spd.Policy{
		{Name: "first", Action: spd.Protect, Selectors: to("198.51.100.128/25"), Tunnel: 1},
		{Name: "second", Action: spd.Protect, Selectors: to("198.51.100.128/25"), Tunnel: 2},
	}}); err != nil {
		t.Fatal(err)
	}
	up := func(priority int, spi uint32) uint32 {
		n := a.policy(Instance{Name: "way", Of: "first", Priority: priority, Selectors: to("198.51.100.128/25")})
		a.outboundTo(n, spi)
		return n
	}
	expect := func(want uint32) {
		t.Helper()
		if err := a.recompile(); err != nil {
			t.Fatal(err)
		}
		if got := a.spiFor("198.51.100.200"); got != want {
			t.Errorf("leaves by %#x, not %#x", got, want)
		}
	}
	expect(0)
	backup := up(1, 0x2001)
	expect(0x2001)
	main := up(0, 0x1001)
	expect(0x1001)
	a.RemovePolicy(main)
	expect(0x2001)
	main = up(0, 0x1002)
	expect(0x1002)
	again := up(0, 0x1003)
	expect(0x1003)
	a.RemovePolicy(again)
	expect(0x1002)
	a.RemovePolicy(main)
	a.RemovePolicy(backup)
	a.RemovePolicy(backup)
	expect(0)
}

// TestTunnelNumbersRestBeforeTheyComeBack: a worker with an old table must never find a stranger's association
// under a number that it knows.
func TestTunnelNumbersRestBeforeTheyComeBack(t *testing.T) {
	a := newGateway(t, sideA, sideB, options{})
	first := a.policy(Instance{Name: "x", Selectors: to("198.51.100.200/32")})
	a.RemovePolicy(first)
	if n := a.policy(Instance{Name: "y", Selectors: to("198.51.100.201/32")}); n == first {
		t.Error("the number of a policy that a table may still name is given out")
	}
	s := a.instances
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, err := s.number(time.Now().Add(quiet - time.Second)); err != nil || n == first {
		t.Errorf("%d came back early, %v", n, err)
	}
	if n, err := s.number(time.Now().Add(quiet + time.Second)); err != nil || n != first {
		t.Errorf("%d instead of %d: %v", n, first, err)
	}
}

func TestBadInstanceIsRefused(t *testing.T) {
	a := newGateway(t, sideA, sideB, options{})
	for _, s := range [][]spd.Selector{nil, {{}}} {
		if _, err := a.AddPolicy(Instance{Name: "bad", Selectors: s}); err == nil {
			t.Errorf("%v is accepted", s)
		}
	}
}

// TestInstancesMayContradictWhatIsConfigured: a reload that bypasses what a peer negotiated must not fail.
func TestInstancesMayContradictWhatIsConfigured(t *testing.T) {
	a := newGateway(t, sideA, sideB, options{})
	a.outboundTo(a.policy(Instance{Name: "x", Of: "net", Selectors: to("198.51.100.128/25")}), 0x2001)
	if err := a.Apply(Policies{SPD: []spd.Policy{{Name: "other", Action: spd.Discard, Selectors: to("198.51.100.128/25")}}}); err != nil {
		t.Fatal(err)
	}
}

// TestTenThousandInstances adds and removes them while the engine runs, at more than 5,000 a second, and
// each is in effect in the end.
func TestTenThousandInstances(t *testing.T) {
	const n = 10_000
	a := newGateway(t, sideA, sideB, options{live: true})
	if err := a.Apply(Policies{Endpoints: []netip.Addr{sideA.outer4}, SPD: []spd.Policy{
		{Name: "pool", Action: spd.Protect, Selectors: to("198.18.0.0/15"), Tunnel: 1},
	}}); err != nil {
		t.Fatal(err)
	}
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	tunnels := make([]uint32, n)
	add := func(i int) {
		var err error
		if tunnels[i], err = a.AddPolicy(Instance{Name: "peer", Of: "pool", Selectors: to(netip.PrefixFrom(host(i), 32).String())}); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	for i := range n {
		add(i)
	}
	const churn = 5000
	for i := range churn {
		a.RemovePolicy(tunnels[i])
		add(i)
	}
	took := time.Since(began)
	perSecond := float64(n+2*churn) / took.Seconds()
	if perSecond < 5000 {
		t.Errorf("%.0f changes a second", perSecond)
	}
	var slowest time.Duration
	for range 5 {
		began = time.Now()
		i := 1234
		a.RemovePolicy(tunnels[i])
		add(i)
		for !a.follows(tunnels[i], host(i)) {
			if time.Since(began) > 10*time.Second {
				t.Fatal("a policy is not in effect after 10 s")
			}
			time.Sleep(time.Millisecond)
		}
		slowest = max(slowest, time.Since(began))
	}
	t.Logf("%.0f changes a second; with %d present the slowest of 5 was in effect after %v", perSecond, n, slowest)
	for i := range n {
		if !a.follows(tunnels[i], host(i)) {
			t.Fatalf("policy %d is not in effect", i)
		}
	}
	seen := slices.Clone(tunnels)
	slices.Sort(seen)
	if len(slices.Compact(seen)) != n {
		t.Error("two policies have one tunnel number")
	}
}

// follows says whether the published table gives a packet to dst to that tunnel.
func (g *gateway) follows(tunnel uint32, dst netip.Addr) bool {
	t := g.group.Tables()
	flow := flowTo(dst)
	index, match := t.SPD.Outbound(&flow)
	return match == spd.Matched && t.SPD.Policy(index).Tunnel == tunnel
}

func flowTo(dst netip.Addr) packet.Flow {
	f := packet.FlowBetween(netip.MustParseAddr("198.51.100.5"), dst, packet.ProtoUDP)
	f.Flags |= packet.FlagPorts
	return f
}
