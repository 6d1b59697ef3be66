package dataplane

import (
	"errors"
	"testing"
	"time"

	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
)

// TestRetiredInboundReceivesUntilItsGraceIsOver: the peer goes on sending until it knows of the new one.
func TestRetiredInboundReceivesUntilItsGraceIsOver(t *testing.T) {
	a, b := newRig(t, options{})
	send := func() {
		a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
		b.inject(outside, a.drain(outside)...)
		b.drain(inside)
	}
	send()
	old := sad.InboundHandle(0x1001)
	if err := b.Retire(old, GraceInbound); err != nil {
		t.Fatal(err)
	}
	retiring := 0
	b.Associations(func(i *sad.Info) bool {
		if i.Retiring {
			retiring++
		}
		return true
	})
	if retiring != 1 {
		t.Errorf("%d associations are on their way out", retiring)
	}
	b.expire(time.Now().Add(GraceInbound - time.Second))
	send()
	if n := b.Stats().Total.Opened; n != 2 {
		t.Errorf("%d of 2 packets opened: %v", n, b.dropped())
	}
	b.expire(time.Now().Add(GraceInbound + time.Second))
	send()
	if n := b.dropped()["no-association"]; n != 1 {
		t.Errorf("%v", b.dropped())
	}
	if err := b.Retire(old, time.Second); !errors.Is(err, sad.ErrNotFound) {
		t.Errorf("retiring what is gone: %v", err)
	}
	if err := a.Retire(sad.InboundHandle(0x2001), time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := a.Remove(sad.InboundHandle(0x2001)); err != nil {
		t.Errorf("removing what retires: %v", err)
	}
	if len(a.retired.until) != 0 {
		t.Error("what is removed is still to be retired")
	}
}

// TestRekeyLosesNothingOnItsWayBetweenWorkers: packets that wait in a hand-over ring carry the old handle. They leave by
// the old association, whatever its tunnel is bound to by then.
func TestRekeyLosesNothingOnItsWayBetweenWorkers(t *testing.T) {
	o := options{workers: 2, queues: 2}
	a, b := newRig(t, o)
	frame := udp4("198.51.100.5", "198.51.100.200", 100, 64)
	a.run()
	a.queues[inside][0].Inject(frame)
	a.run() // worker 0 owns the association
	a.drain(outside)
	a.queues[inside][1].InjectBatch(repeat(frame, 40))
	a.workers[1].Step(a.now)
	if n := a.Stats().Total.HandedOut; n != 40 {
		t.Fatalf("%d packets handed over", n)
	}
	old := a.sad.Bound(0)
	p := sad.Params{
		Name: "fresh", Suite: o.withDefaults().suite, Local: sideA.outer4, Remote: sideB.outer4, SPI: 0x1002,
		Keymat: keymat(o.withDefaults().suite, 0x1002),
	}
	h, err := a.Install(p)
	if err != nil {
		t.Fatal(err)
	}
	p.Inbound, p.Local, p.Remote, p.Selectors = true, sideB.outer4, sideA.outer4, []spd.Selector{selector(sideB, sideA)}
	if _, err := b.Install(p); err != nil {
		t.Fatal(err)
	}
	if err := a.Bind(0, h); err != nil {
		t.Fatal(err)
	}
	if err := a.Retire(sad.Handle(old), GraceOutbound); err != nil {
		t.Fatal(err)
	}
	a.queues[inside][1].InjectBatch(repeat(frame, 40))
	a.run()
	b.inject(outside, a.drain(outside)...)
	if n := b.Stats().Total.Opened; n != 80 {
		t.Errorf("%d of 80 packets opened: %v %v", n, a.dropped(), b.dropped())
	}
	for spi, want := range map[uint32]uint64{0x1001: 40, 0x1002: 40} {
		if n := b.sad.LookupInbound(spi).Packets.Load(); n != want {
			t.Errorf("%d packets by association %#x, not %d", n, spi, want)
		}
	}
	a.expire(time.Now().Add(2 * GraceOutbound))
	a.run()
	if a.sad.LookupOutbound(old) != nil {
		t.Error("the old association is still there")
	}
	b.drain(inside)
	a.settled()
	b.settled()
}
