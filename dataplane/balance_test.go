package dataplane

import "testing"

// TestBalancerSharesTheWork lets everything arrive at one worker's queues. A worker is as busy as it has packets
// to seal; the balancer looks once a second of that model's time.
func TestBalancerSharesTheWork(t *testing.T) {
	const tunnels, batches = 32, 20
	o := options{workers: 2, queues: 2, ring: 512}
	a, b := newGateway(t, sideA, sideB, o), newGateway(t, sideB, sideA, o)
	m := newMany(a, b, o, tunnels)
	var frames [][]byte
	for i := range 60 { // of some tunnels more than of others
		frames = append(frames, m.frame(i*i%tunnels, uint64(i)))
	}
	var last [2]uint64
	var share [2]float64
	second := func() {
		for range batches {
			a.run()
			a.injectAll(inside, 0, frames...)
			a.run()
			a.drain(outside)
		}
		for i, w := range a.Engine.group.Workers {
			sealed := w.Counters.Sealed.Load()
			share[i] = float64(sealed-last[i]) / (batches * float64(len(frames)))
			last[i] = sealed
		}
		a.rebalance(share[:])
	}
	second()
	if share[0] != 1 || share[1] != 0 {
		t.Fatalf("shares %v at first", share)
	}
	for range 12 {
		second()
	}
	if share[0] < 0.33 || share[1] < 0.33 {
		t.Errorf("shares %v after 12 looks", share)
	}
	// Balanced, it leaves everything where it is.
	moved := a.Stats().Total.HandedOut
	for range 3 {
		before := share
		second()
		if share != before {
			t.Errorf("shares %v, then %v: associations still move", before, share)
		}
	}
	if a.Stats().Total.HandedOut == moved {
		t.Error("nothing is handed over, though all arrives at one worker")
	}
	if d := sum(a.dropped()); d != 0 {
		t.Errorf("dropped %v", a.dropped())
	}
	a.settled()
}

// TestBalancerKeepsOneElephantInPlace has nothing to gain from moving the only busy association.
func TestBalancerKeepsOneElephantInPlace(t *testing.T) {
	o := options{workers: 2, queues: 2}
	a, b := newGateway(t, sideA, sideB, o), newGateway(t, sideB, sideA, o)
	m := newMany(a, b, o, 4)
	for range 10 {
		a.run()
		a.injectAll(inside, 0, repeat(m.frame(1, 1), 50)...)
		a.run()
		a.drain(outside)
		a.rebalance([]float64{0.9, 0})
	}
	if n := a.Stats().Total.HandedOut; n != 0 {
		t.Errorf("%d packets handed over", n)
	}
	a.settled()
}
