package spd

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sallyport/dataplane/packet"
)

func ranges(list ...string) (out []Range) {
	for _, s := range list {
		if first, last, ok := strings.Cut(s, "-"); ok {
			out = append(out, Range{netip.MustParseAddr(first), netip.MustParseAddr(last)})
		} else {
			out = append(out, RangeOf(netip.MustParsePrefix(s)))
		}
	}
	return out
}

func policy(name string, action Action, local, remote string, proto uint8, localPorts, remotePorts PortRange) Policy {
	return Policy{Name: name, Action: action, Selectors: []Selector{{Local: ranges(local), Remote: ranges(remote), Proto: proto, LocalPorts: localPorts, RemotePorts: remotePorts}}}
}

// TestLaterFragments is RFC 4301, 7: what has no ports never reaches a policy behind one that
// would need them.
func TestLaterFragments(t *testing.T) {
	web := PortRange{80, 80}
	table, err := Build([]Policy{
		policy("icmp", Bypass, "198.51.100.0/24", "203.0.113.0/24", 1, AnyPorts, AnyPorts),
		policy("web", Protect, "198.51.100.0/24", "203.0.113.0/24", 6, AnyPorts, web),
		policy("rest", Bypass, "198.51.100.0/24", "203.0.113.0/24", 0, AnyPorts, AnyPorts),
		policy("six", Protect, "2001:db8:1::/48", "2001:db8:2::/48", 6, AnyPorts, AnyPorts),
	})
	if err != nil {
		t.Fatal(err)
	}
	v4 := [2]netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("203.0.113.1")}
	v6 := [2]netip.Addr{netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:2::1")}
	later := packet.FlagFragment | packet.FlagLaterFragment
	for _, c := range []struct {
		name   string
		addr   [2]netip.Addr
		proto  uint8
		port   uint16
		flags  packet.Flags
		policy string
		want   Match
	}{
		{"web", v4, 6, 80, packet.FlagPorts, "web", Matched},
		{"other port", v4, 6, 81, packet.FlagPorts, "rest", Matched},
		{"later fragment of TCP", v4, 6, 0, later, "web", NeedsPorts},
		{"later fragment with stale ports", v4, 6, 80, later | packet.FlagPorts, "web", NeedsPorts},
		{"TCP cut short before its ports", v4, 6, 0, 0, "web", NeedsPorts},
		{"later fragment of ICMP matches any ports", v4, 1, 0, later, "icmp", Matched},
		{"GRE has no ports", v4, 47, 0, 0, "rest", Matched},
		{"IPv6 fragment that hides its protocol", v6, 60, 0, later, "six", NeedsPorts},
		{"IPv6 destination options, not a fragment", v6, 60, 0, 0, "", NoMatch},
	} {
		f := packet.FlowBetween(c.addr[0], c.addr[1], c.proto)
		f.DstPort, f.Flags = c.port, c.flags
		i, m := table.Outbound(&f)
		if m != c.want || m != NoMatch && table.Policy(i).Name != c.policy {
			t.Errorf("%s: policy %q %s, want %q %s", c.name, table.Policy(i).Name, m, c.policy, c.want)
		}
	}
}

// TestICMPTypeStandsForPorts: type and code are judged alike in both directions.
func TestICMPTypeStandsForPorts(t *testing.T) {
	echo := PortRange{8 << 8, 8 << 8}
	for _, p := range []Policy{
		policy("local", Protect, "198.51.100.0/24", "203.0.113.0/24", 1, echo, AnyPorts),
		policy("remote", Protect, "198.51.100.0/24", "203.0.113.0/24", 1, AnyPorts, echo),
		policy("both", Protect, "198.51.100.0/24", "203.0.113.0/24", 1, echo, echo),
	} {
		table, err := Build([]Policy{p})
		if err != nil {
			t.Fatal(err)
		}
		f := packet.FlowBetween(netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("203.0.113.1"), 1)
		f.SrcPort, f.Flags = 8<<8, packet.FlagPorts
		if _, m := table.Outbound(&f); m != Matched {
			t.Errorf("%s: echo out: %s", p.Name, m)
		}
		f.Src, f.Dst = f.Dst, f.Src
		if _, m := table.Inbound(&f); m != Matched {
			t.Errorf("%s: echo in: %s", p.Name, m)
		}
		f.SrcPort = 0 // echo reply
		if _, m := table.Inbound(&f); m != NoMatch {
			t.Errorf("%s: reply in: %s", p.Name, m)
		}
	}
}

func TestBuildNamesThePolicyAtFault(t *testing.T) {
	good := policy("good", Protect, "198.51.100.0/24", "203.0.113.0/24", 0, AnyPorts, AnyPorts)
	bad := func(change func(*Policy)) Policy {
		p := policy("bad one", Protect, "198.51.100.0/24", "203.0.113.0/24", 6, AnyPorts, AnyPorts)
		change(&p)
		return p
	}
	a, b := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.9")
	six := netip.MustParseAddr("2001:db8::1")
	for name, p := range map[string]Policy{
		"no selectors":     bad(func(p *Policy) { p.Selectors = nil }),
		"no addresses":     bad(func(p *Policy) { p.Selectors[0].Local = nil }),
		"families differ":  bad(func(p *Policy) { p.Selectors[0].Local = ranges("2001:db8::/64") }),
		"range backwards":  bad(func(p *Policy) { p.Selectors[0].Local = []Range{{b, a}} }),
		"range mixes":      bad(func(p *Policy) { p.Selectors[0].Local = []Range{{a, six}} }),
		"range zoned":      bad(func(p *Policy) { p.Selectors[0].Local = []Range{{six.WithZone("x"), six.WithZone("x")}} }),
		"range empty":      bad(func(p *Policy) { p.Selectors[0].Remote = []Range{{}} }),
		"ports backwards":  bad(func(p *Policy) { p.Selectors[0].RemotePorts = PortRange{2, 1} }),
		"no action":        bad(func(p *Policy) { p.Action = 9 }),
		"contradicts good": bad(func(p *Policy) { p.Selectors[0].Proto, p.Action = 0, Bypass }),
	} {
		_, err := Build([]Policy{good, p})
		if err == nil || !strings.Contains(err.Error(), `"bad one"`) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := Build([]Policy{good, bad(func(p *Policy) { p.Selectors[0].Proto = 0 })}); err != nil {
		t.Errorf("the same twice is no contradiction: %v", err)
	}
	if _, err := CompileSelectors(nil); err == nil {
		t.Error("an association without selectors was accepted")
	}
}

func TestRangesSplitExactly(t *testing.T) {
	for in, want := range map[string][]string{
		"198.51.100.0-198.51.100.255":                {"198.51.100.0/24"},
		"198.51.100.1-198.51.100.4":                  {"198.51.100.1/32", "198.51.100.2/31", "198.51.100.4/32"},
		"0.0.0.0-255.255.255.255":                    {"0.0.0.0/0"},
		"255.255.255.254-255.255.255.255":            {"255.255.255.254/31"},
		"2001:db8::1-2001:db8::2":                    {"2001:db8::1/128", "2001:db8::2/128"},
		"::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": {"::/0"},
	} {
		r := ranges(in)[0]
		var got []string
		for _, p := range r.appendPrefixes(nil) {
			got = append(got, p.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", in, got, want)
		}
	}
}

func TestPrefixesAreTheFewest(t *testing.T) {
	table, err := Build([]Policy{
		policy("a", Protect, "198.51.100.0/25", "203.0.113.0/26", 0, AnyPorts, AnyPorts),
		policy("b", Protect, "198.51.100.128/25", "203.0.113.64-203.0.113.200", 0, AnyPorts, AnyPorts),
		policy("c", Protect, "2001:db8::/64", "::/0", 0, AnyPorts, AnyPorts),
		policy("d", Discard, "2001:db8::/48", "2001:db8:9::/48", 0, AnyPorts, AnyPorts),
		policy("e", Bypass, "192.0.2.0/24", "192.0.2.0/24", 0, AnyPorts, AnyPorts),
	})
	if err != nil {
		t.Fatal(err)
	}
	local, remote := table.Prefixes()
	text := func(list []netip.Prefix) string {
		var b strings.Builder
		for _, p := range list {
			b.WriteString(p.String() + " ")
		}
		return b.String()
	}
	if got := text(local); got != "198.51.100.0/24 2001:db8::/48 " {
		t.Errorf("local %s", got)
	}
	if got := text(remote); got != "203.0.113.0/25 203.0.113.128/26 203.0.113.192/29 203.0.113.200/32 ::/0 " {
		t.Errorf("remote %s", got)
	}
}
