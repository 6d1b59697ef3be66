package dataplane

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
)

// TestRekeysAndMovesUnderTraffic runs two gateways of two workers each on goroutines of their own. While
// packets of 200 tunnels cross, associations are replaced one after another and thrown from
// worker to worker. Whatever does not arrive is in a counter, nothing arrives twice, and every frame comes home.
func TestRekeysAndMovesUnderTraffic(t *testing.T) {
	const tunnels, packets = 200, 30000
	o := options{workers: 2, queues: 2, ring: 1024, live: true}
	a, b := newGateway(t, sideA, sideB, o), newGateway(t, sideB, sideA, o)
	m := newMany(a, b, o, tunnels)
	for _, g := range []*gateway{a, b} {
		if err := g.Start(); err != nil {
			t.Fatal(err)
		}
	}
	var wire, behind, change sync.WaitGroup
	stopWire, stopSink, stopChange := make(chan struct{}), make(chan struct{}), make(chan struct{})
	arrivals := make([]uint32, packets)
	var atB uint64
	wire.Go(func() { atB = m.carry(stopWire) })
	behind.Go(func() { m.sink(t, stopSink, arrivals) })

	rekeys := 0
	change.Go(func() {
		r := rand.New(rand.NewPCG(1, 1))
		var old []sad.Handle // at B, until their packets have passed
		for {
			select {
			case <-stopChange:
				return
			default:
			}
			i := r.IntN(tunnels)
			out, in := m.install(i)
			if err := a.Bind(uint32(i), out); err != nil {
				t.Error(err)
			}
			if err := a.Remove(m.out[i]); err != nil {
				t.Error(err)
			}
			old = append(old, m.in[i])
			if len(old) > 300 {
				if err := b.Remove(old[0]); err != nil {
					t.Error(err)
				}
				old = old[1:]
			}
			m.out[i], m.in[i] = out, in
			if rekeys++; rekeys%20 == 0 {
				a.sad.Reclaim()
				b.sad.Reclaim()
				time.Sleep(time.Millisecond)
			}
		}
	})
	moves := 0
	change.Go(func() {
		r := rand.New(rand.NewPCG(2, 2))
		for {
			select {
			case <-stopChange:
				return
			default:
			}
			for _, g := range []*gateway{a, b} {
				g.Associations(func(x *sad.Info) bool {
					if r.IntN(4) == 0 && g.sad.RequestMove(x.Handle, r.IntN(2)) == nil {
						moves++
					}
					return true
				})
			}
			time.Sleep(time.Millisecond)
		}
	})

	r := rand.New(rand.NewPCG(3, 3))
	for serial := range uint64(packets) {
		f := m.frame(r.IntN(tunnels), serial)
		for !a.queues[inside][r.IntN(2)].Inject(f) {
			time.Sleep(20 * time.Microsecond)
		}
	}
	a.quiet(t, packets)
	close(stopChange)
	change.Wait()
	close(stopWire)
	wire.Wait()
	b.quiet(t, atB)
	close(stopSink)
	behind.Wait()

	arrived := uint64(0)
	for _, n := range arrivals {
		arrived += uint64(n)
	}
	lostA, lostB, refused := sum(a.dropped()), sum(b.dropped()), b.refused(outside)
	t.Logf("%d of %d arrived, %d rekeys, %d moves, %d handed over; dropped at A %v, at B %v, refused by B's rings %d",
		arrived, packets, rekeys, moves, a.Stats().Total.HandedIn+b.Stats().Total.HandedIn, a.dropped(), b.dropped(), refused)
	if arrived+lostA+lostB+refused != packets {
		t.Errorf("%d arrived, %d + %d dropped, %d refused: that is not %d", arrived, lostA, lostB, refused, packets)
	}
	// An outbound association may go between two looks, and packets of a moving one may go
	// round too often. Nothing else has a reason to be lost, and never more than a few.
	for reason, n := range a.dropped() {
		if reason != "no-outbound" && reason != "handover-loop" && reason != "handover-full" && reason != "tx-full" {
			t.Errorf("A dropped %d: %s", n, reason)
		}
	}
	for reason, n := range b.dropped() {
		if reason != "no-association" && reason != "handover-loop" && reason != "handover-full" && reason != "tx-full" {
			t.Errorf("B dropped %d: %s", n, reason)
		}
	}
	if rekeys == 0 || moves == 0 || a.Stats().Total.HandedIn+b.Stats().Total.HandedIn == 0 {
		t.Error("nothing was rekeyed, moved or handed over: the test shows nothing")
	}
	for _, g := range []*gateway{a, b} {
		if err := g.Stop(); err != nil {
			t.Error(err)
		}
		g.settled()
	}
}

// TestStopUnderLoadReturnsEveryFrame stops a gateway in the middle of its work, again and again.
func TestStopUnderLoadReturnsEveryFrame(t *testing.T) {
	for round := range 6 {
		o := options{workers: 2, queues: 2, ring: 256, live: true}
		a := newGateway(t, sideA, sideB, o)
		b := newGateway(t, sideB, sideA, o)
		m := newMany(a, b, o, 16)
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
		frames := make([][]byte, 64)
		for i := range frames {
			frames[i] = m.frame(i%16, uint64(i))
		}
		var flood sync.WaitGroup
		stop := make(chan struct{})
		for q := range 2 {
			flood.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						n := a.queues[inside][q].InjectBatch(frames)
						if m, _ := a.queues[outside][q].Discard(48); n+m == 0 {
							time.Sleep(20 * time.Microsecond)
						}
					}
				}
			})
		}
		for a.Stats().Total.Sent < 500 {
			time.Sleep(100 * time.Microsecond)
		}
		a.Associations(func(x *sad.Info) bool { a.sad.RequestMove(x.Handle, round%2); return true })
		time.Sleep(time.Duration(round) * 300 * time.Microsecond)
		if err := a.Stop(); err != nil {
			t.Fatal(err)
		}
		close(stop)
		flood.Wait()
		a.settled()
		if t.Failed() {
			t.Fatalf("round %d: %+v %v", round, a.Stats().Total, a.dropped())
		}
	}
}

// TestWorkersRunWithoutTheirCores names a CPU that there is not: the worker runs all the same, or whatever waits
// for it would wait for ever.
func TestWorkersRunWithoutTheirCores(t *testing.T) {
	a := newGateway(t, sideA, sideB, options{live: true, cores: []int{1023}})
	a.tunnel(sideA, sideB, options{}, 0x1001, 0x2001)
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	if idle, all := a.Frames(); idle == 0 || idle > all {
		t.Errorf("%d of %d frames", idle, all)
	}
	for !a.queues[inside][0].Inject(udp4("198.51.100.5", "198.51.100.200", 100, 64)) {
		time.Sleep(time.Millisecond)
	}
	a.quiet(t, 1)
	a.Stop()
	a.settled()
}

// TestControlWhileStopping asks a gateway for everything while it carries traffic, is stopped, and after: nothing
// hangs and nothing races.
func TestControlWhileStopping(t *testing.T) {
	for range 4 {
		o := options{workers: 2, queues: 2, ring: 64, live: true}
		a := newGateway(t, sideA, sideB, o)
		a.tunnel(sideA, sideB, o, 0x1001, 0x2001)
		policies := a.policies
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		var control sync.WaitGroup
		serial := uint32(0x3000)
		for _, f := range []func(){
			func() { a.Frames() },
			func() { a.Stats() },
			func() {
				if err := a.Apply(policies); err != nil {
					t.Error(err)
				}
			},
			func() {
				serial++
				p := sad.Params{Name: "x", SPI: serial, Inbound: true, Suite: o.withDefaults().suite, Local: sideA.outer4, Remote: sideB.outer4, Keymat: keymat(o.withDefaults().suite, 1), Selectors: []spd.Selector{selector(sideA, sideB)}}
				h, err := a.Install(p)
				if err == nil {
					err = a.Remove(h)
				}
				if err != nil {
					t.Error(err)
				}
				a.sad.Reclaim()
			},
			func() { a.queues[inside][0].Inject(udp4("198.51.100.5", "198.51.100.200", 100, 64)) },
			func() { a.queues[outside][0].Discard(64); a.queues[outside][1].Discard(64) },
		} {
			control.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						f()
						time.Sleep(10 * time.Microsecond)
					}
				}
			})
		}
		time.Sleep(20 * time.Millisecond)
		for range 2 { // the second finds nothing to do
			if err := a.Stop(); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(5 * time.Millisecond)
		close(stop)
		control.Wait()
		a.settled()
	}
}
