package ike

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sallyport/ike/ikesa"
)

// idleMax is what an established IKE SA with one child may cost, in bytes, with everything that the server keeps of it.
const idleMax = 10 << 10

// TestIdleIKESACostsLittle measures both ends of many tunnels at rest, with the connections' own configuration left out.
func TestIdleIKESACostsLittle(t *testing.T) {
	if underRace {
		t.Skip("the race detector's memory would be measured")
	}
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		p := newPair(t, 1)
		for _, nd := range []*node{p.a, p.b} {
			nd.server.Store(NewServer(Options{Workers: 2, Limits: Limits{HalfOpenPerAddress: n}, Log: zerolog.Nop()}, nd, nd))
		}
		p.configure(t, n, func(side string, c *ikesa.Connection) {
			c.Children[0].StartAction = ikesa.ActionTrap
		})
		before := heap()
		for _, l := range p.a.server.Load().config.Load().order {
			p.a.server.Load().Acquire(l.Name, "net")
		}
		time.Sleep(10 * time.Minute) // answers and first messages are forgotten by then
		if got := paired(t, p.a, p.b); got != n {
			t.Fatalf("%d children", got)
		}
		nodes := heap()
		for _, nd := range []*node{p.a, p.b} { // what stands in for the data plane does not count
			nd.mu.Lock()
			clear(nd.in)
			clear(nd.out)
			nd.in, nd.out, nd.refuse = map[uint32]*association{}, map[uint32]*association{}, func(*ikesa.ChildSA) error { return nil }
			nd.mu.Unlock()
		}
		after := heap()
		each := (after - before) / (2 * n)
		t.Logf("%d bytes an IKE SA; with the test's own associations %d", each, (nodes-before)/(2*n))
		if each > idleMax {
			t.Errorf("%d bytes an IKE SA", each)
		}
		p.close(t)
	})
}

func heap() int {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
