package dataplane

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/tools/craft"
)

// rule returns a filter rule between everything and everything, of one family.
func rule(action spd.Action, proto uint8, local, remote spd.PortRange) spd.Policy {
	every := []spd.Range{spd.RangeOf(netip.MustParsePrefix("0.0.0.0/0"))}
	return spd.Policy{Name: "rule", Action: action, Selectors: []spd.Selector{{Local: every, Remote: every, Proto: proto, LocalPorts: local, RemotePorts: remote}}}
}

// guardedRig is the rig with terms on what A sends and on what B receives.
func guardedRig(t *testing.T, out, in sad.Params, o options) (a, b *gateway) {
	t.Helper()
	a, b = newRig(t, o)
	suite := o.withDefaults().suite
	for _, p := range []*sad.Params{&out, &in} {
		p.Name, p.Suite, p.SPI, p.Keymat, p.ESN = "guarded", suite, 0x1003, keymat(suite, 3), true
	}
	out.Local, out.Remote = sideA.outer4, sideB.outer4
	in.Inbound, in.Local, in.Remote, in.Selectors = true, sideB.outer4, sideA.outer4, []spd.Selector{selector(sideB, sideA)}
	h, err := a.Install(out)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Bind(0, h); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Install(in); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func TestFilterDecidesByTheFirstRuleThatMatches(t *testing.T) {
	udp := func(dst uint16) []byte {
		f := udp4("198.51.100.5", "198.51.100.200", 100, 64)
		binary.BigEndian.PutUint16(f[14+22:], dst)
		return f
	}
	icmp := func(kind byte) []byte {
		f := udp4("198.51.100.5", "198.51.100.200", 100, 64)
		f[14+9] = packet.ProtoICMP
		f[14+20], f[14+21] = kind, 0
		craft.FixIPv4(f[14:])
		return f
	}
	later := udp(5000)
	later[14+6], later[14+7] = 0, 9
	craft.FixIPv4(later[14:])
	port := func(n uint16) spd.PortRange { return spd.PortRange{First: n, Last: n} }
	rules := func(inbound, deny bool) *sad.Filter {
		local, remote := spd.AnyPorts, port(5001)
		if inbound { // the same port is ours there
			local, remote = remote, local
		}
		return filter(t, deny,
			rule(spd.Discard, packet.ProtoUDP, local, remote),
			rule(spd.Bypass, packet.ProtoUDP, spd.AnyPorts, spd.AnyPorts),
			rule(spd.Bypass, packet.ProtoICMP, spd.PortRange{First: 8 << 8, Last: 8<<8 | 0xff}, spd.AnyPorts))
	}
	for _, c := range []struct {
		name   string
		frame  []byte
		deny   bool
		reason string
	}{
		{"a port that is denied", udp(5001), false, "filtered"},
		{"a port that a later rule allows", udp(5002), true, ""},
		{"an ICMP type that is allowed", icmp(8), true, ""},
		{"one that no rule names, allowed by default", icmp(13), false, ""},
		{"one that no rule names, denied by default", icmp(13), true, "filtered"},
		{"a fragment whose ports are not to be seen", later, false, "fragment-no-ports"},
	} {
		for _, inbound := range []bool{false, true} {
			var out, in sad.Params
			if inbound {
				in.Filter = rules(true, c.deny)
			} else {
				out.Filter = rules(false, c.deny)
			}
			a, b := guardedRig(t, out, in, options{})
			a.inject(inside, append([]byte{}, c.frame...), append([]byte{}, c.frame...))
			b.inject(outside, a.drain(outside)...)
			passed := len(b.drain(inside))
			g := a
			if inbound {
				g = b
			}
			want := 2
			if c.reason != "" {
				want = 0
			}
			if passed != want || c.reason != "" && g.dropped()[c.reason] != 2 {
				t.Errorf("%s, inbound %v: %d of 2 passed; drops %v and %v", c.name, inbound, passed, a.dropped(), b.dropped())
			}
			counted := uint64(0)
			g.Associations(func(i *sad.Info) bool { counted += i.Filtered; return true })
			if c.reason == "filtered" && counted != 2 {
				t.Errorf("%s: the association counts %d", c.name, counted)
			}
			a.settled()
			b.settled()
		}
	}
}

// TestFilterAgreesWithALoop compares random rules and packets with a plain loop over the rules.
func TestFilterAgreesWithALoop(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 6 {
		deny := r.IntN(2) == 0
		var rules []spd.Policy
		for range 1 + r.IntN(12) {
			first := uint16(r.IntN(8))
			rules = append(rules, rule(spd.Action(1+r.IntN(2)), packet.ProtoUDP, spd.AnyPorts, spd.PortRange{First: first, Last: first + uint16(r.IntN(4))}))
			last := &rules[len(rules)-1]
			for _, earlier := range rules[:len(rules)-1] {
				if earlier.Selectors[0].RemotePorts == last.Selectors[0].RemotePorts {
					last.Action = earlier.Action // a contradiction is refused
				}
			}
		}
		a, _ := guardedRig(t, sad.Params{Filter: filter(t, deny, rules...)}, sad.Params{}, options{})
		for range 50 {
			port := uint16(r.IntN(12))
			frame := udp4("198.51.100.5", "198.51.100.200", 100, 64)
			binary.BigEndian.PutUint16(frame[14+22:], port)
			pass := !deny
			for _, rule := range rules {
				if rule.Selectors[0].RemotePorts.Contains(port) {
					pass = rule.Action == spd.Bypass
					break
				}
			}
			a.inject(inside, frame)
			if got := len(a.drain(outside)) == 1; got != pass {
				t.Fatalf("port %d passed: %v; rules %+v, deny %v", port, got, rules, deny)
			}
		}
	}
}

// filter compiles rules.
func filter(t *testing.T, deny bool, rules ...spd.Policy) *sad.Filter {
	t.Helper()
	f, err := sad.NewFilter(rules, deny)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestBadTermsAreRefused: rules that contradict each other, and a limit that cannot be kept.
func TestBadTermsAreRefused(t *testing.T) {
	if f, err := sad.NewFilter([]spd.Policy{rule(spd.Bypass, 17, spd.AnyPorts, spd.AnyPorts), rule(spd.Discard, 17, spd.AnyPorts, spd.AnyPorts)}, true); err == nil {
		t.Errorf("a contradiction is compiled: %v", f)
	}
	a, _ := newRig(t, options{})
	suite := options{}.withDefaults().suite
	for name, p := range map[string]sad.Params{
		"burst": {Limit: sad.Limit{Packets: 1}},
		"rate":  {Limit: sad.Limit{Bytes: sad.LimitMax + 1, Burst: time.Second}},
	} {
		p.Name, p.Suite, p.SPI, p.Keymat, p.Local, p.Remote = name, suite, 0x1003, keymat(suite, 3), sideA.outer4, sideB.outer4
		if _, err := a.Install(p); err == nil {
			t.Errorf("%s: installed", name)
		}
	}
}

// TestRateLimitLetsTheRateThrough offers ten times the limit for seconds of the workers' clock, in batches, each way: what passes is
// the rate and one burst, to the packet.
func TestRateLimitLetsTheRateThrough(t *testing.T) {
	const size = 100
	for _, c := range []struct {
		name  string
		limit sad.Limit
		want  int // packets in 2 s that begin with a full bucket
	}{
		{"packets", sad.Limit{Packets: 500, Burst: 100 * time.Millisecond}, 50 + 1000},
		{"packets, an odd rate", sad.Limit{Packets: 333, Burst: time.Second}, 333 + 666},
		{"a burst smaller than a packet", sad.Limit{Packets: 5, Burst: time.Millisecond}, 1 + 10},
		{"bytes", sad.Limit{Bytes: 50000, Burst: 2 * time.Second}, 1000 + 1000},
		{"both, of which bytes are fewer", sad.Limit{Packets: 5000, Bytes: 20000, Burst: 4 * time.Second}, 800 + 400},
	} {
		for _, inbound := range []bool{false, true} {
			out, in := sad.Params{Limit: c.limit}, sad.Params{}
			if inbound {
				out, in = in, out
			}
			a, b := guardedRig(t, out, in, options{})
			start := int64(time.Hour)
			passed, offered := 0, 0
			for ms := 0; ms <= 2000; ms += 4 {
				a.now, b.now = start+int64(ms)*1e6, start+int64(ms)*1e6
				for range 10 {
					a.queues[inside][0].Inject(udp4("198.51.100.5", "198.51.100.200", size, 64))
					offered++
				}
				a.run()
				b.inject(outside, a.drain(outside)...)
				passed += len(b.drain(inside))
			}
			if passed < c.want-1 || passed > c.want+1 {
				t.Errorf("%s, inbound %v: %d packets of %d passed, not %d", c.name, inbound, passed, offered, c.want)
			}
			if n := a.dropped()["rate-limited"] + b.dropped()["rate-limited"]; n != uint64(offered-passed) {
				t.Errorf("%s, inbound %v: %d dropped, %d missing", c.name, inbound, n, offered-passed)
			}
			a.settled()
			b.settled()
		}
	}
}

// TestHardBoundHoldsWithoutAnyoneListening: the worker itself stops an association that has carried all that it may, at the end of
// the batch in which it did, on the short way as on the long one, and when its endpoints move.
func TestHardBoundHoldsWithoutAnyoneListening(t *testing.T) {
	const size = 100
	for _, life := range []sad.Lifetime{{HardPackets: 7}, {HardBytes: 7 * size}, {HardBytes: 7*size - 1}, {SoftPackets: 2, HardPackets: 7}, {SoftBytes: 7 * size, HardPackets: 7}} {
		for _, inbound := range []bool{false, true} {
			out, in := sad.Params{Lifetime: life}, sad.Params{}
			if inbound {
				out, in = in, out
			}
			a, b := guardedRig(t, out, in, options{})
			passed := 0
			for i := range 20 {
				if i == 10 {
					h := sad.InboundHandle(0x1003)
					g, local, remote := b, sideB.outer4, sideA.outer4
					if !inbound {
						h, g, local, remote = sad.Handle(a.sad.Bound(0)), a, sideA.outer4, sideB.outer4
					}
					if err := g.UpdateEndpoints(h, netip.AddrPortFrom(local, 0), netip.AddrPortFrom(remote, 0), false); err != nil {
						t.Fatal(err)
					}
				}
				a.inject(inside, udp4("198.51.100.5", "198.51.100.200", size, 64))
				b.inject(outside, a.drain(outside)...)
				passed += len(b.drain(inside))
			}
			g := a
			if inbound {
				g = b
			}
			ended := uint64(0)
			g.Associations(func(i *sad.Info) bool { ended += i.Ended; return true })
			if passed != 7 || g.dropped()["lifetime-ended"] != 13 || ended != 13 {
				t.Errorf("%+v, inbound %v: %d passed, drops %v and %v, %d counted", life, inbound, passed, a.dropped(), b.dropped(), ended)
			}
			a.settled()
			b.settled()
		}
	}
}

// TestSequenceSpaceEndsHard is hazard D5 on the short way and the long one: without ESN the number 2^32-1 is the last.
func TestSequenceSpaceEndsHard(t *testing.T) {
	for _, limit := range []sad.Limit{{}, {Packets: 1e9, Burst: time.Second}} {
		a, _ := newRig(t, options{})
		suite := options{}.withDefaults().suite
		h, err := a.Install(sad.Params{Name: "late", Suite: suite, Local: sideA.outer4, Remote: sideB.outer4, SPI: 0x1003, Keymat: keymat(suite, 1), Sequence: 1<<32 - 4, Limit: limit})
		if err != nil {
			t.Fatal(err)
		}
		a.Bind(0, h)
		sent := 0
		for range 10 {
			a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
			for _, f := range a.drain(outside) {
				sent++
				if n := binary.BigEndian.Uint32(f[14+20+4:]); n != uint32(1<<32-4+sent) {
					t.Errorf("packet %d has the number %d", sent, n)
				}
			}
		}
		soft := 0
		for _, e := range a.heard() {
			if e.Kind == EventSoft && e.Cause == sad.CauseSequence {
				soft++
			}
		}
		if sent != 3 || a.dropped()["sequence-exhausted"] != 7 || soft != 1 {
			t.Errorf("%d sent, drops %v, told %d times", sent, a.dropped(), soft)
		}
		a.settled()
	}
}
