package dataplane

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/worker"
)

// heard returns the events that wait.
func (g *gateway) heard() (list []Event) {
	g.HandleEvents(func(e Event) { list = append(list, e) })
	g.group.Events(g.hear)
	return list
}

// TestPacketWithoutAssociationAsksForOne, once a second and tunnel, with what it is.
func TestPacketWithoutAssociationAsksForOne(t *testing.T) {
	a := newGateway(t, sideA, sideB, options{})
	a.tunnel(sideA, sideB, options{noBind: true}, 0x1001, 0x2001)
	frame := udp4("198.51.100.5", "198.51.100.200", 100, 64)
	a.inject(inside, repeat(frame, 100)...)
	events := a.heard()
	if len(events) != 1 || events[0].Kind != EventAcquire || events[0].Tunnel != 0 {
		t.Fatalf("%+v", events)
	}
	f := events[0].Flow
	if f.SrcAddr() != netip.MustParseAddr("198.51.100.5") || f.DstAddr() != netip.MustParseAddr("198.51.100.200") || f.Proto != packet.ProtoUDP || f.SrcPort != 4000 || f.DstPort != 5000 {
		t.Errorf("%+v", f)
	}
	a.now += int64(2 * time.Second)
	a.inject(inside, frame)
	if events := a.heard(); len(events) != 1 {
		t.Errorf("two seconds later: %+v", events)
	}
	if n := a.dropped()["no-outbound"]; n != 101 {
		t.Errorf("%v", a.dropped())
	}
	// A tunnel whose association was removed under it asks as well.
	h, err := a.Install(sad.Params{Name: "short", Suite: options{}.withDefaults().suite, Local: sideA.outer4, Remote: sideB.outer4, SPI: 0x1003, Keymat: keymat(options{}.withDefaults().suite, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Bind(0, h); err != nil {
		t.Fatal(err)
	}
	if err := a.Remove(h); err != nil {
		t.Fatal(err)
	}
	a.now += int64(2 * time.Second)
	a.inject(inside, frame)
	if events := a.heard(); len(events) != 1 || events[0].Kind != EventAcquire {
		t.Errorf("%+v", events)
	}
}

// TestEveryTunnelAsksOnItsOwn: a thousand tunnels ask for a thousand associations.
func TestEveryTunnelAsksOnItsOwn(t *testing.T) {
	const n = 1000
	a := newGateway(t, sideA, sideB, options{ring: 2048})
	var policies []spd.Policy
	for i := range n {
		s := selector(sideA, sideB)
		s.Remote = []spd.Range{spd.RangeOf(netip.PrefixFrom(host(i), 32))}
		policies = append(policies, spd.Policy{Name: "many", Action: spd.Protect, Selectors: []spd.Selector{s}, Tunnel: uint32(i)})
	}
	if err := a.Apply(Policies{SPD: policies, Endpoints: []netip.Addr{sideA.outer4}}); err != nil {
		t.Fatal(err)
	}
	asked := map[uint32]int{}
	for i := range n {
		a.inject(inside, udp4("198.51.100.5", host(i).String(), 100, 64))
		for _, e := range a.heard() {
			asked[e.Tunnel]++
		}
	}
	if len(asked) != n {
		t.Errorf("%d of %d tunnels asked", len(asked), n)
	}
}

func host(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}) }

// TestFullEventRingLosesEventsAndCountsThem, and a bound that could not be told is told later.
func TestFullEventRingLosesEventsAndCountsThem(t *testing.T) {
	a, _ := newRig(t, options{})
	p := sad.Params{
		Name: "short", Suite: options{}.withDefaults().suite, Local: sideA.outer4, Remote: sideB.outer4, SPI: 0x1003,
		Keymat: keymat(options{}.withDefaults().suite, 1), Lifetime: sad.Lifetime{SoftPackets: 1},
	}
	h, err := a.Install(p)
	if err != nil {
		t.Fatal(err)
	}
	var policies []spd.Policy
	for i := range 1200 {
		s := selector(sideA, sideB)
		s.Remote = []spd.Range{spd.RangeOf(netip.PrefixFrom(host(i), 32))}
		policies = append(policies, spd.Policy{Name: "many", Action: spd.Protect, Selectors: []spd.Selector{s}, Tunnel: uint32(i + 1)})
	}
	policies = append(policies, spd.Policy{Name: "rig", Action: spd.Protect, Selectors: []spd.Selector{selector(sideA, sideB)}})
	if err := a.Apply(Policies{SPD: policies, Endpoints: []netip.Addr{sideA.outer4}}); err != nil {
		t.Fatal(err)
	}
	for i := range 1200 {
		a.inject(inside, udp4("198.51.100.5", host(i).String(), 100, 64))
	}
	if err := a.Bind(0, h); err != nil {
		t.Fatal(err)
	}
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
	if lost := a.Stats().Total.EventsLost; lost == 0 {
		t.Error("nothing was lost")
	}
	for _, e := range a.heard() {
		if e.Kind == EventSoft {
			t.Fatal("the ring was not full")
		}
	}
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
	if events := a.heard(); len(events) != 1 || events[0].Kind != EventSoft || events[0].Handle != h {
		t.Errorf("%+v", events)
	}
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
	if events := a.heard(); len(events) != 0 {
		t.Errorf("told again: %+v", events)
	}
}

// TestLifetimes carries packets through associations with bounds, in both directions: soft is told once, hard
// once, and then the association is gone.
func TestLifetimes(t *testing.T) {
	const size = 100 // of the inner datagram
	for _, c := range []struct {
		name       string
		life       sad.Lifetime
		soft, hard int // told after so many packets; 0: never
		softCause  sad.Cause
		hardCause  sad.Cause
	}{
		{"bytes", sad.Lifetime{SoftBytes: 3 * size, HardBytes: 5 * size}, 3, 5, sad.CauseBytes, sad.CauseBytes},
		{"packets", sad.Lifetime{SoftPackets: 2, HardPackets: 7}, 2, 7, sad.CausePackets, sad.CausePackets},
		{"both", sad.Lifetime{SoftBytes: 4*size - 1, HardPackets: 6}, 4, 6, sad.CauseBytes, sad.CausePackets},
		{"only soft", sad.Lifetime{SoftPackets: 4}, 4, 0, sad.CausePackets, 0},
		{"only hard", sad.Lifetime{HardBytes: 6*size + 1}, 0, 7, 0, sad.CauseBytes},
		{"none", sad.Lifetime{}, 0, 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := newRig(t, options{})
			suite := options{}.withDefaults().suite
			p := sad.Params{Name: "short", Suite: suite, Local: sideA.outer4, Remote: sideB.outer4, SPI: 0x1003, Keymat: keymat(suite, 1), Lifetime: c.life}
			out, err := a.Install(p)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Bind(0, out); err != nil {
				t.Fatal(err)
			}
			p.Inbound, p.Local, p.Remote, p.Selectors = true, sideB.outer4, sideA.outer4, []spd.Selector{selector(sideB, sideA)}
			in, err := b.Install(p)
			if err != nil {
				t.Fatal(err)
			}
			told := map[sad.Handle]string{}
			for i := 1; i <= 10; i++ {
				a.inject(inside, udp4("198.51.100.5", "198.51.100.200", size, 64))
				b.inject(outside, a.drain(outside)...)
				b.drain(inside)
				for h, g := range map[sad.Handle]*gateway{out: a, in: b} {
					for _, e := range g.heard() {
						if e.Kind == EventAcquire {
							continue // the association is gone
						}
						told[e.Handle] += fmt.Sprintf("%v after %d for %v, ", e.Kind, i, e.Cause)
						if e.SPI != 0x1003 || e.Kind == EventHard && g.sad.Has(h) {
							t.Errorf("%+v, still installed: %v", e, g.sad.Has(h))
						}
					}
				}
			}
			want := ""
			if c.soft != 0 {
				want += fmt.Sprintf("%v after %d for %v, ", EventSoft, c.soft, c.softCause)
			}
			if c.hard != 0 {
				want += fmt.Sprintf("%v after %d for %v, ", EventHard, c.hard, c.hardCause)
			}
			if told[out] != want {
				t.Errorf("outbound: told %q, not %q", told[out], want)
			}
			// Nothing reaches the other end from the hard bound on; it counts the same.
			if told[in] != want {
				t.Errorf("inbound: told %q, not %q", told[in], want)
			}
			if a.sad.Has(out) != (c.hard == 0) || b.sad.Has(in) != (c.hard == 0) {
				t.Error("an association has outlived its hard bound, or ended without one")
			}
		})
	}
}

// TestShortSequenceNumbersRunningOutAreTold: 32 bits last for minutes, so key management learns of it in time.
func TestShortSequenceNumbersRunningOutAreTold(t *testing.T) {
	suite := options{}.withDefaults().suite
	for _, esn := range []bool{false, true} {
		a, _ := newRig(t, options{})
		h, err := a.Install(sad.Params{
			Name: "late", Suite: suite, Local: sideA.outer4, Remote: sideB.outer4, SPI: 0x1003, Keymat: keymat(suite, 1),
			Sequence: 3<<30 - 3, ESN: esn,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Bind(0, h); err != nil {
			t.Fatal(err)
		}
		for i := 1; i <= 4; i++ {
			a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
			events := a.heard()
			if told := len(events) == 1 && events[0].Kind == EventSoft && events[0].Cause == sad.CauseSequence; told != (i == 3 && !esn) {
				t.Errorf("ESN %v, packet %d: %+v", esn, i, events)
			}
		}
	}
}

// TestRoamingPeerIsFollowedByItsNewestPacketOnly: a packet of the peer's that comes late from its old place, or a
// forged one, moves nothing (RFC 7296, 2.23).
func TestRoamingPeerIsFollowedByItsNewestPacketOnly(t *testing.T) {
	suite := options{}.withDefaults().suite
	sequence := uint64(0)
	send := func(a *gateway, src string, port uint16, encap bool) []byte {
		t.Helper()
		sequence++
		h, err := a.Install(sad.Params{
			Name: "moves", Suite: suite, Local: netip.MustParseAddr(src), Remote: sideB.outer4, SPI: 0x1003, Keymat: keymat(suite, 1),
			Encap: encap, LocalPort: port, Sequence: sequence,
		})
		if err != nil {
			t.Fatal(err)
		}
		a.Bind(0, h)
		a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
		frames := a.drain(outside)
		if len(frames) != 1 {
			t.Fatalf("%d frames, %v", len(frames), a.dropped())
		}
		if err := a.Remove(h); err != nil {
			t.Fatal(err)
		}
		return frames[0]
	}
	for _, roaming := range []bool{true, false} {
		a, b := newRig(t, options{})
		in := sad.Params{
			Name: "moves", Inbound: true, Suite: suite, Local: sideB.outer4, Remote: sideA.outer4, SPI: 0x1003, Keymat: keymat(suite, 1),
			Encap: true, Selectors: []spd.Selector{selector(sideB, sideA)}, Roaming: roaming,
		}
		h, err := b.Install(in)
		if err != nil {
			t.Fatal(err)
		}
		home := send(a, "192.0.2.1", 4500, true)
		late := send(a, "192.0.2.1", 4500, true)
		away := send(a, "203.0.113.9", 61000, true)
		old := send(a, "203.0.113.10", 61001, true)
		raw := send(a, "203.0.113.11", 0, false)
		forged := send(a, "203.0.113.12", 61002, true)
		forged[len(forged)-1] ^= 1
		for _, step := range []struct {
			name  string
			frame []byte
			want  string
		}{
			{"home", home, ""}, {"away", away, "203.0.113.9:61000"}, {"late", late, ""}, {"forged", forged, ""},
			{"raw", raw, "203.0.113.11:0"}, {"late from elsewhere", old, ""},
		} {
			b.now += int64(2 * time.Second)
			b.inject(outside, step.frame)
			got := ""
			for _, e := range b.heard() {
				if e.Kind != EventPeerMoved || e.Handle != h || e.SPI != 0x1003 {
					t.Errorf("%+v", e)
				}
				got += e.Remote.String()
			}
			want := step.want
			if !roaming {
				want = ""
			}
			if got != want {
				t.Errorf("%s, roaming %v: told %q, not %q", step.name, roaming, got, want)
			}
		}
		opened, want := b.Stats().Total.Opened, uint64(5)
		if !roaming {
			want = 2
		}
		if opened != want {
			t.Errorf("roaming %v: %d packets opened, not %d: %v", roaming, opened, want, b.dropped())
		}
	}
}

// TestUsageTellsWhatWasCarriedAndWhen, in both directions, to the batch.
func TestUsageTellsWhatWasCarriedAndWhen(t *testing.T) {
	a, b := newRig(t, options{esn: true})
	out, in := sad.Handle(a.sad.Bound(0)), sad.InboundHandle(0x1001)
	if u, ok := a.Usage(out); !ok || u.Packets != 0 || !u.Last.IsZero() {
		t.Errorf("%+v %v", u, ok)
	}
	for i := 1; i <= 3; i++ {
		a.now, b.now = int64(i)*int64(time.Minute), int64(i)*int64(time.Minute)
		a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
		b.inject(outside, a.drain(outside)...)
		b.drain(inside)
		for _, x := range []struct {
			*gateway
			h sad.Handle
		}{{a, out}, {b, in}} {
			u, ok := x.Usage(x.h)
			if !ok || u.Packets != uint64(i) || u.Bytes != uint64(100*i) || u.Sequence != uint64(i) {
				t.Errorf("%v: %+v %v", x.h, u, ok)
			}
			if d := u.Last.Sub(worker.Time(int64(i) * int64(time.Minute))).Abs(); d > time.Second {
				t.Errorf("%v: the last packet %v off", x.h, d)
			}
		}
	}
	a.Remove(out)
	if _, ok := a.Usage(out); ok {
		t.Error("usage of what is gone")
	}
}

// TestEventsAreHeardWhileTheEngineRuns has the engine's own goroutines carry one.
func TestEventsAreHeardWhileTheEngineRuns(t *testing.T) {
	a := newGateway(t, sideA, sideB, options{live: true})
	got := make(chan Event, 16)
	a.HandleEvents(func(e Event) { got <- e })
	a.tunnel(sideA, sideB, options{noBind: true}, 0x1001, 0x2001)
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
	if !a.queues[inside][0].Inject(udp4("198.51.100.5", "198.51.100.200", 100, 64)) {
		t.Fatal("not taken")
	}
	select {
	case e := <-got:
		if e.Kind != EventAcquire {
			t.Errorf("%+v", e)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("nothing was heard")
	}
	began := time.Now()
	a.Stop()
	if d := time.Since(began); d > time.Second {
		t.Errorf("stopping took %v", d)
	}
}
