package dataplane

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
)

// places are ends that the rig's tunnel can move between.
var places = []struct {
	a, b  string
	encap bool
}{
	{"192.0.2.1:0", "192.0.2.2:0", false},
	{"192.0.2.1:4500", "192.0.2.2:4500", true},
	{"192.0.2.1:61000", "192.0.2.2:4500", true},
	{"[2001:db8::1]:0", "[2001:db8::2]:0", false},
	{"[2001:db8::1]:4500", "[2001:db8::2]:4500", true},
	{"203.0.113.1:0", "203.0.113.2:0", false},
}

// TestEndpointsMoveWithoutLosingCount: the tunnel goes on at other addresses, in and out of UDP and from one family to the
// other, with the same sequence numbers and the same window.
func TestEndpointsMoveWithoutLosingCount(t *testing.T) {
	a, b := newRig(t, options{esn: true})
	out, in := sad.Handle(a.sad.Bound(0)), sad.InboundHandle(0x1001)
	var earlier [][]byte
	n := uint64(0)
	for round := range 3 {
		for _, p := range places {
			la, lb := netip.MustParseAddrPort(p.a), netip.MustParseAddrPort(p.b)
			if err := a.UpdateEndpoints(out, la, lb, p.encap); err != nil {
				t.Fatal(err)
			}
			if err := b.UpdateEndpoints(in, lb, la, p.encap); err != nil {
				t.Fatal(err)
			}
			a.inject(inside, repeat(udp4("198.51.100.5", "198.51.100.200", 300, 64), 5)...)
			n += 5
			frames := a.drain(outside)
			b.inject(outside, frames...)
			if got := b.drain(inside); len(got) != 5 {
				t.Fatalf("%v: %d packets crossed: %v %v", p, len(got), a.dropped(), b.dropped())
			}
			u, _ := b.Usage(in)
			if u.Sequence != n || u.Packets != n {
				t.Errorf("%v: sequence number %d, %d packets, not %d", p, u.Sequence, u.Packets, n)
			}
			b.inject(outside, frames[4])
			earlier = append(earlier, frames[4])
			b.Associations(func(i *sad.Info) bool {
				if i.Handle == in && (i.Params.Remote != la.Addr() || i.Params.Local != lb.Addr() || i.Params.Encap != p.encap) {
					t.Errorf("%v: shown as %v", p, i.Params)
				}
				return true
			})
		}
		// What was sent to an earlier place is not of this association any more, replayed or not.
		before := b.Stats().Total.Opened
		b.inject(outside, earlier...)
		if b.Stats().Total.Opened != before {
			t.Errorf("round %d: a packet was opened twice", round)
		}
	}
	if got := b.dropped()["replayed"]; got < uint64(3*len(places)) {
		t.Errorf("%v", b.dropped())
	}
	a.settled()
	b.settled()
}

func TestImpossibleEndpointsAreRefused(t *testing.T) {
	a, _ := newRig(t, options{})
	out := sad.Handle(a.sad.Bound(0))
	at := netip.MustParseAddrPort
	for _, c := range [][2]netip.AddrPort{
		{at("192.0.2.1:0"), at("[2001:db8::2]:0")}, {at("0.0.0.0:0"), at("192.0.2.2:0")}, {at("192.0.2.1:0"), at("224.0.0.1:0")}, {},
	} {
		if err := a.UpdateEndpoints(out, c[0], c[1], false); err == nil {
			t.Errorf("%v is accepted", c)
		}
	}
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
	if got := a.drain(outside); len(got) != 1 {
		t.Errorf("%d packets after refused moves", len(got))
	}
	if err := a.UpdateEndpoints(sad.Handle(0xffffff), at("192.0.2.1:0"), at("192.0.2.2:0"), false); !errors.Is(err, sad.ErrNotFound) {
		t.Errorf("moving what is not there: %v", err)
	}
}

// TestNewLocalAddressIsAnEndpointAtOnce: what comes to it is ESP for us, though no policy names it.
func TestNewLocalAddressIsAnEndpointAtOnce(t *testing.T) {
	a, b := newRig(t, options{})
	out, in := sad.Handle(a.sad.Bound(0)), sad.InboundHandle(0x1001)
	la, lb := netip.MustParseAddrPort("192.0.2.1:0"), netip.MustParseAddrPort("203.0.113.77:0")
	if err := b.UpdateEndpoints(in, lb, la, false); err != nil {
		t.Fatal(err)
	}
	if err := a.UpdateEndpoints(out, la, lb, false); err != nil {
		t.Fatal(err)
	}
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
	b.inject(outside, a.drain(outside)...)
	if got := b.drain(inside); len(got) != 1 {
		t.Errorf("%d packets: %v", len(got), b.dropped())
	}
	// A reload of policies keeps it.
	if err := b.Apply(b.policies); err != nil {
		t.Fatal(err)
	}
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
	b.inject(outside, a.drain(outside)...)
	if got := b.drain(inside); len(got) != 1 {
		t.Errorf("%d packets after a reload: %v", len(got), b.dropped())
	}
}

// TestEndpointsMoveUnderLoad moves both ends of a tunnel to and fro while packets cross and its associations change
// workers. Roaming lets the receiver be behind or ahead: not one packet is lost, and every header is whole.
func TestEndpointsMoveUnderLoad(t *testing.T) {
	o := options{workers: 2, queues: 2, ring: 1024, live: true}
	a, b := newGateway(t, sideA, sideB, o), newGateway(t, sideB, sideA, o)
	a.tunnel(sideA, sideB, o, 0x1001, 0x2001)
	b.tunnel(sideB, sideA, o, 0x2001, 0x1001)
	in := sad.InboundHandle(0x1001)
	if err := b.Remove(in); err != nil {
		t.Fatal(err)
	}
	suite := o.withDefaults().suite
	if _, err := b.Install(sad.Params{
		Name: "rig", Inbound: true, SPI: 0x1001, Suite: suite, Keymat: keymat(suite, 0x1001), Local: sideB.outer4, Remote: sideA.outer4,
		Selectors: a.policies.SPD[0].Selectors[:0:0], Roaming: true,
	}); err == nil {
		t.Fatal("an association without selectors")
	}
	p := sad.Params{
		Name: "rig", Inbound: true, SPI: 0x1001, Suite: suite, Keymat: keymat(suite, 0x1001), Local: sideB.outer4, Remote: sideA.outer4,
		Selectors: b.policies.SPD[0].Selectors, Roaming: true,
	}
	if _, err := b.Install(p); err != nil {
		t.Fatal(err)
	}
	for _, g := range []*gateway{a, b} {
		if err := g.Start(); err != nil {
			t.Fatal(err)
		}
	}
	out := sad.Handle(a.sad.Bound(0))
	var done atomic.Bool
	var wait sync.WaitGroup
	wait.Add(1)
	go func() { // the network between them, checksums and all
		defer wait.Done()
		for !done.Load() {
			n := 0
			for q := range a.queues[outside] {
				n += a.queues[outside][q].Drain(func(f []byte) {
					if f[12] == 8 && packet.Checksum(f[14:34], 0) != 0 {
						t.Error("a torn outer header")
					}
					for !b.queues[outside][q].Inject(f) {
						time.Sleep(10 * time.Microsecond)
					}
				})
				b.queues[inside][q].Discard(1 << 20)
			}
			if n == 0 {
				time.Sleep(20 * time.Microsecond)
			}
		}
	}()
	const packets = 10_000
	moves := 0
	for i := 0; i < packets; i++ {
		for !a.queues[inside][i&1].Inject(udp4("198.51.100.5", "198.51.100.200", 100, 64)) {
			time.Sleep(10 * time.Microsecond)
		}
		for end := time.Now().Add(time.Second); b.Stats().Total.Opened+200 < uint64(i) && time.Now().Before(end); {
			time.Sleep(50 * time.Microsecond) // paced: full rings are not the question
		}
		if i%97 == 0 {
			place := places[moves%len(places)]
			la, lb := netip.MustParseAddrPort(place.a), netip.MustParseAddrPort(place.b)
			if err := a.UpdateEndpoints(out, la, lb, place.encap); err != nil {
				t.Fatal(err)
			}
			if moves%3 == 0 {
				if err := b.UpdateEndpoints(in, lb, la, place.encap); err != nil {
					t.Fatal(err)
				}
			}
			if moves == 0 { // the others are endpoints of policy
				b.learn(in, netip.MustParseAddr("203.0.113.2"))
			}
			a.sad.RequestMove(out, moves&1)
			b.sad.RequestMove(in, moves&1)
			moves++
		}
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end) && b.Stats().Total.Opened < packets; {
		time.Sleep(time.Millisecond)
	}
	done.Store(true)
	wait.Wait()
	if n := b.Stats().Total.Opened; n != packets {
		t.Errorf("%d of %d packets crossed in %d moves: %v %v", n, packets, moves, a.dropped(), b.dropped())
	}
	u, _ := b.Usage(in)
	if u.Sequence != packets {
		t.Errorf("the last sequence number is %d", u.Sequence)
	}
}
