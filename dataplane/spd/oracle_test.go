package spd

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"sallyport/dataplane/packet"
)

// scan is the naive database: every policy in order, every selector, every pair
// of ranges, compared by hand.
func scan(policies []Policy, f *packet.Flow, inbound bool) (uint32, Match) {
	local, remote, localPort, remotePort := f.SrcAddr(), f.DstAddr(), f.SrcPort, f.DstPort
	if inbound {
		local, remote, localPort, remotePort = remote, local, remotePort, localPort
	}
	later := f.Flags&packet.FlagLaterFragment != 0
	visible := f.Flags&packet.FlagPorts != 0 && !later
	portful := map[uint8]bool{1: true, 6: true, 17: true, 33: true, 58: true, 132: true, 136: true}[f.Proto]
	hidden := later && f.Version == 6 && map[uint8]bool{0: true, 43: true, 60: true, 135: true, 139: true, 140: true}[f.Proto]
	for i, p := range policies {
		for _, s := range p.Selectors {
			if !anyContains(s.Local, local) || !anyContains(s.Remote, remote) {
				continue
			}
			if s.Proto != 0 && s.Proto != f.Proto {
				if hidden {
					return uint32(i), NeedsPorts
				}
				continue
			}
			if s.LocalPorts == AnyPorts && s.RemotePorts == AnyPorts {
				return uint32(i), Matched
			}
			if !visible {
				if portful || hidden {
					return uint32(i), NeedsPorts
				}
				continue
			}
			l, r := localPort, remotePort
			if f.Proto == 1 || f.Proto == 58 {
				l, r = f.SrcPort, f.SrcPort
			}
			if s.LocalPorts.First <= l && l <= s.LocalPorts.Last && s.RemotePorts.First <= r && r <= s.RemotePorts.Last {
				return uint32(i), Matched
			}
		}
	}
	return 0, NoMatch
}

func anyContains(ranges []Range, a netip.Addr) bool {
	for _, r := range ranges {
		if r.First.Is4() == a.Is4() && !a.Less(r.First) && !r.Last.Less(a) {
			return true
		}
	}
	return false
}

func agree(t testing.TB, table *Table, policies []Policy, f *packet.Flow) {
	t.Helper()
	i, m := table.Outbound(f)
	j, n := scan(policies, f, false)
	if i != j || m != n {
		t.Fatalf("outbound %+v: policy %d %s, want %d %s", *f, i, m, j, n)
	}
	i, m = table.Inbound(f)
	j, n = scan(policies, f, true)
	if i != j || m != n {
		t.Fatalf("inbound %+v: policy %d %s, want %d %s", *f, i, m, j, n)
	}
}

// source draws policies and flows that meet often: addresses from a small part of
// 198.18.0.0/15 and 2001:db8::/32, nested prefixes, odd ranges.
type source struct{ *rand.Rand }

func (s source) addr(v6 bool) netip.Addr {
	low := s.Uint32N(1 << 16)
	if s.IntN(3) == 0 {
		low &= 0xff
	}
	if v6 {
		a := netip.MustParseAddr("2001:db8::").As16()
		a[5], a[15] = byte(low>>8), byte(low)
		return netip.AddrFrom16(a)
	}
	return netip.AddrFrom4([4]byte{198, 18, byte(low >> 8), byte(low)})
}

func (s source) ranges() (list []Range) {
	for range 1 + s.IntN(2) {
		v6 := s.IntN(3) == 0
		a := s.addr(v6)
		switch s.IntN(8) {
		case 0:
			list = append(list, RangeOf(netip.PrefixFrom(a, 0)))
		case 1, 2:
			b := s.addr(v6)
			if b.Less(a) {
				a, b = b, a
			}
			list = append(list, Range{a, b})
		default:
			list = append(list, RangeOf(netip.PrefixFrom(a, a.BitLen()-s.IntN(12))))
		}
	}
	return list
}

var protocols = []uint8{0, 1, 6, 17, 47, 58, 132}

func (s source) ports() PortRange {
	if s.IntN(3) != 0 {
		return AnyPorts
	}
	a, b := uint16(s.IntN(1024)), uint16(s.IntN(1024))
	return PortRange{min(a, b), max(a, b)}
}

func (s source) policies(n int) []Policy {
	list := make([]Policy, 0, n)
	for len(list) < n {
		sel := Selector{Local: s.ranges(), Remote: s.ranges(), Proto: protocols[s.IntN(len(protocols))], LocalPorts: s.ports(), RemotePorts: s.ports()}
		p := Policy{Name: "p", Action: Protect, Selectors: []Selector{sel}, Tunnel: uint32(len(list))}
		if _, err := appendClauses(nil, &sel, 0); err != nil {
			continue // no pair of one family
		}
		list = append(list, p)
	}
	return list
}

func (s source) flow() packet.Flow {
	v6 := s.IntN(3) == 0
	f := packet.FlowBetween(s.addr(v6), s.addr(v6), append(protocols, 43, 60)[s.IntN(len(protocols)+2)])
	switch s.IntN(6) {
	case 0:
		f.Flags = packet.FlagFragment | packet.FlagLaterFragment
	case 1:
		f.Flags = packet.FlagFragment
	default:
		f.Flags = packet.FlagPorts
		f.SrcPort, f.DstPort = uint16(s.IntN(1024)), uint16(s.IntN(1024))
	}
	return f
}

func TestTableAgreesWithScan(t *testing.T) {
	for seed, n := range []int{0, 1, 2, 7, 8, 9, 50, 300, 10_000} {
		s := source{rand.New(rand.NewPCG(1, uint64(seed)))}
		policies := s.policies(n)
		table, err := Build(policies)
		if err != nil {
			t.Fatal(err)
		}
		flows := 4000
		if n == 10_000 {
			flows = 150
		}
		for range flows {
			f := s.flow()
			agree(t, table, policies, &f)
		}
	}
}

// TestTenThousandTunnels is a hub's shape: own prefix pairs with a default behind them,
// each remote prefix or each local one the distinguishing half.
func TestTenThousandTunnels(t *testing.T) {
	for _, byLocal := range []bool{false, true} {
		policies := hub(10_000, byLocal)
		table, err := Build(policies)
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(3, 4))
		for range 150 {
			f := hubFlow(r.Uint32N(10_500), byLocal)
			agree(t, table, policies, &f)
		}
	}
}

// hub makes n policies, policy i for the /28 with number i, and a last one for everything.
func hub(n int, byLocal bool) []Policy {
	everything := []Range{RangeOf(netip.MustParsePrefix("0.0.0.0/0"))}
	policies := make([]Policy, 0, n+1)
	for i := range n {
		one := []Range{RangeOf(netip.PrefixFrom(hubAddr(uint32(i)), 28))}
		s := Selector{Local: everything, Remote: one, LocalPorts: AnyPorts, RemotePorts: AnyPorts}
		if byLocal {
			s.Local, s.Remote = one, everything
		}
		policies = append(policies, Policy{Name: "tunnel", Selectors: []Selector{s}, Tunnel: uint32(i)})
	}
	return append(policies, Policy{Name: "rest", Action: Discard, Selectors: []Selector{{Local: everything, Remote: everything, LocalPorts: AnyPorts, RemotePorts: AnyPorts}}})
}

func hubAddr(i uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 18 + byte(i>>12), byte(i >> 4), byte(i << 4)})
}

func hubFlow(i uint32, byLocal bool) packet.Flow {
	f := packet.FlowBetween(netip.MustParseAddr("192.0.2.1"), hubAddr(i).Next(), 6)
	f.SrcPort, f.DstPort, f.Flags = 1, 2, packet.FlagPorts
	if byLocal {
		f.Src, f.Dst = f.Dst, f.Src
	}
	return f
}

func FuzzTable(f *testing.F) {
	f.Add(uint64(1), uint64(2), uint8(3))
	f.Add(uint64(5), uint64(1), uint8(40))
	f.Fuzz(func(t *testing.T, a, b uint64, n uint8) {
		s := source{rand.New(rand.NewPCG(a, b))}
		policies := s.policies(int(n))
		table, err := Build(policies)
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			flow := s.flow()
			agree(t, table, policies, &flow)
			if n == 0 {
				continue
			}
			p := &policies[s.IntN(len(policies))]
			sel, err := CompileSelectors(p.Selectors)
			if err != nil {
				t.Fatal(err)
			}
			if _, want := scan([]Policy{*p}, &flow, true); sel.MatchInbound(&flow) != want {
				t.Fatalf("%+v against %+v: %s, want %s", flow, p.Selectors, sel.MatchInbound(&flow), want)
			}
			if _, want := scan([]Policy{*p}, &flow, false); sel.MatchOutbound(&flow) != want {
				t.Fatalf("outbound %+v against %+v: %s, want %s", flow, p.Selectors, sel.MatchOutbound(&flow), want)
			}
		}
	})
}

// TestPlainSelectorsMatchNothingElse holds the short form of selectors against them.
func TestPlainSelectorsMatchNothingElse(t *testing.T) {
	s := source{rand.New(rand.NewPCG(8, 9))}
	var matched, missed [2]int // by version
	for range 15000 {
		policies := s.policies(1)
		sel, err := CompileSelectors(policies[0].Selectors)
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			flow := s.flow()
			if flow.Proto != packet.ProtoUDP && flow.Proto != packet.ProtoTCP {
				continue
			}
			flow.Flags = packet.FlagPorts
			full := sel.MatchInbound(&flow) == Matched
			plain, version := false, 0
			if flow.Version == 4 {
				plain = sel.Plain().Matches(uint32(flow.Src.Lo), uint32(flow.Dst.Lo), flow.Proto)
			} else {
				six := sel.Plain6()
				plain, version = sel.Plain().Matches6(&flow, &six), 1
			}
			if plain && !full {
				t.Fatalf("%+v matches the short form of %+v", flow, policies[0].Selectors)
			}
			if plain {
				matched[version]++
			} else if full {
				missed[version]++
			}
		}
	}
	if min(matched[0], matched[1], missed[0], missed[1]) < 30 {
		t.Errorf("%d by the short form, %d by the long one only", matched, missed)
	}
}

func TestNoAllocation(t *testing.T) {
	for _, n := range []int{1, 10_000} {
		table, err := Build(hub(n, false))
		if err != nil {
			t.Fatal(err)
		}
		sel, err := CompileSelectors(hub(1, false)[0].Selectors)
		if err != nil {
			t.Fatal(err)
		}
		f := hubFlow(0, false)
		if n := testing.AllocsPerRun(100, func() {
			table.Outbound(&f)
			table.Inbound(&f)
			sel.MatchInbound(&f)
		}); n != 0 {
			t.Fatalf("%v allocations", n)
		}
	}
}

func benchmarkHub(b *testing.B, n int, byLocal bool) {
	table, err := Build(hub(n, byLocal))
	if err != nil {
		b.Fatal(err)
	}
	flows := make([]packet.Flow, 1024)
	for i := range flows {
		flows[i] = hubFlow(uint32(i*n/len(flows)), byLocal)
	}
	i := 0
	for b.Loop() {
		if _, m := table.Outbound(&flows[i&1023]); m != Matched {
			b.Fatal(m)
		}
		i++
	}
}

func BenchmarkOnePolicy(b *testing.B)           { benchmarkHub(b, 1, false) }
func BenchmarkTenThousandByRemote(b *testing.B) { benchmarkHub(b, 10_000, false) }
func BenchmarkTenThousandByLocal(b *testing.B)  { benchmarkHub(b, 10_000, true) }
func BenchmarkBuildTenThousand(b *testing.B) {
	policies := hub(10_000, false)
	for b.Loop() {
		if _, err := Build(policies); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSelectorsOfOnePair(b *testing.B) {
	s, err := CompileSelectors(hub(1, false)[0].Selectors)
	if err != nil {
		b.Fatal(err)
	}
	f := hubFlow(0, false)
	f.Src, f.Dst = f.Dst, f.Src
	for b.Loop() {
		if s.MatchInbound(&f) != Matched {
			b.Fatal()
		}
	}
}
