package dataplane

import (
	"reflect"
	"testing"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
)

// injectAll lets frames arrive at one queue at once, without a step in between.
func (g *gateway) injectAll(port, queue int, frames ...[]byte) {
	g.t.Helper()
	if n := g.queues[port][queue].InjectBatch(frames); n != len(frames) {
		g.t.Fatalf("the queue took %d of %d", n, len(frames))
	}
}

func repeat(f []byte, n int) (frames [][]byte) {
	for range n {
		frames = append(frames, f)
	}
	return frames
}

// step lets one worker do n batches.
func (g *gateway) step(worker, n int) {
	for range n {
		g.now += 1000
		g.workers[worker].Step(g.now)
	}
}

// TestFullTransmitRing lets nobody take what is sent: the ring's worth leaves, the rest is
// counted, and the next packets pass as soon as there is room.
func TestFullTransmitRing(t *testing.T) {
	a, _ := newRig(t, options{ring: 64})
	a.run()
	for range 5 {
		a.injectAll(inside, 0, repeat(udp4("198.51.100.5", "198.51.100.200", 100, 64), 32)...)
		a.run()
	}
	if want := map[string]uint64{"tx-full": 96}; !reflect.DeepEqual(a.dropped(), want) {
		t.Errorf("dropped %v, want %v", a.dropped(), want)
	}
	if n := len(a.drain(outside)); n != 64 {
		t.Errorf("%d packets were in the ring", n)
	}
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
	if n := len(a.drain(outside)); n != 1 {
		t.Errorf("%d packets left after there was room again", n)
	}
	a.settled()
}

// TestFullReceiveRing lets more arrive than a ring holds while the worker does nothing: the queue's
// own statistics count the rest.
func TestFullReceiveRing(t *testing.T) {
	a, _ := newRig(t, options{ring: 64})
	a.run()
	taken := a.queues[inside][0].InjectBatch(repeat(udp4("198.51.100.5", "198.51.100.200", 100, 64), 60))
	for range 40 {
		if a.queues[inside][0].Inject(udp4("198.51.100.5", "198.51.100.200", 100, 64)) {
			taken++
		}
	}
	if refused := a.refused(inside); taken != 64 || refused != 36 {
		t.Errorf("%d taken, %d refused of 100", taken, refused)
	}
	a.run()
	if s := a.Stats().Total; s.Received != 64 || s.Sent != 64 {
		t.Errorf("received %d, sent %d", s.Received, s.Sent)
	}
	a.drain(outside)
	a.settled()
}

// TestFullHandoverRing keeps the owner of the only association from working, until the ring to it is full.
func TestFullHandoverRing(t *testing.T) {
	a, _ := newRig(t, options{workers: 2, queues: 2, ring: 64})
	a.Associations(func(x *sad.Info) bool { a.sad.RequestMove(x.Handle, 1); return true }) // unowned: at once
	for range 18 {
		a.step(0, 1)
		a.injectAll(inside, 0, repeat(udp4("198.51.100.5", "198.51.100.200", 100, 64), 60)...)
		a.step(0, 2)
	}
	if want := map[string]uint64{"handover-full": 18*60 - 1024}; !reflect.DeepEqual(a.dropped(), want) {
		t.Errorf("dropped %v, want %v", a.dropped(), want)
	}
	sent := 0
	for range 40 {
		a.step(1, 1)
		for _, q := range a.queues[outside] {
			sent += q.Drain(func([]byte) {})
		}
	}
	if sent != 1024 {
		t.Errorf("%d packets left, of the 1024 in the ring", sent)
	}
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
	if n := len(a.drain(outside)); n != 1 {
		t.Error("no packet passes afterwards")
	}
	a.settled()
}

// TestStoppedWithFullRings ends workers that never got to work through what was handed to them.
func TestStoppedWithFullRings(t *testing.T) {
	a, _ := newRig(t, options{workers: 2, queues: 2, ring: 64})
	a.Associations(func(x *sad.Info) bool { a.sad.RequestMove(x.Handle, 1); return true })
	for range 5 {
		a.step(0, 1)
		a.injectAll(inside, 0, repeat(udp4("198.51.100.5", "198.51.100.200", 100, 64), 60)...)
		a.step(0, 2)
	}
	a.group.Drain()
	if want := map[string]uint64{"stopped": 300}; !reflect.DeepEqual(a.dropped(), want) {
		t.Errorf("dropped %v, want %v", a.dropped(), want)
	}
	a.settled()
}

// fragmentable returns a UDP packet whose sender lets routers cut it up.
func fragmentable(size int) []byte {
	f := udp4("198.51.100.5", "198.51.100.200", size, 64)
	f[14+6], f[14+10], f[14+11] = 0, 0, 0
	sum := packet.Checksum(f[14:34], 0)
	f[14+10], f[14+11] = byte(sum>>8), byte(sum)
	return f
}

// TestTooManyFragments asks one batch for more pieces than a worker keeps: whole packets are
// refused by name, and no piece of them leaves.
func TestTooManyFragments(t *testing.T) {
	a, b := newRig(t, options{mtu: 400, ring: 512})
	a.run()
	a.injectAll(inside, 0, repeat(fragmentable(1400), 64)...)
	a.run()
	refused := a.dropped()["no-room"]
	if refused == 0 || sum(a.dropped()) != refused {
		t.Errorf("dropped %v", a.dropped())
	}
	pieces := int(a.Stats().Total.Originated) + 64 - int(refused)
	if esp := cross(t, a, b); len(esp) != pieces {
		t.Errorf("%d pieces left, want %d", len(esp), pieces)
	}
	if n := len(b.drain(inside)); n != pieces {
		t.Errorf("%d pieces arrived, want %d", n, pieces)
	}
	a.settled()
	b.settled()
}

// TestPiecesLeaveWhileOthersHandOver hands an owner a full batch at every step: the pieces that it made
// itself are not kept waiting behind them until there is no room for more.
func TestPiecesLeaveWhileOthersHandOver(t *testing.T) {
	a, _ := newRig(t, options{workers: 2, queues: 2, mtu: 1000, ring: 512})
	a.Associations(func(x *sad.Info) bool { a.sad.RequestMove(x.Handle, 1); return true })
	for range 16 {
		a.step(0, 1)
		a.injectAll(inside, 0, repeat(fragmentable(1400), 60)...)
		a.step(0, 1)
	}
	sent := 0
	for range 100 {
		a.step(1, 1)
		for _, q := range a.queues[outside] {
			sent += q.Drain(func([]byte) {})
		}
	}
	if sent != 2*16*60 || sum(a.dropped()) != 0 {
		t.Errorf("%d pieces of %d left; dropped %v", sent, 2*16*60, a.dropped())
	}
	a.settled()
}
