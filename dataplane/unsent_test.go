package dataplane

import (
	"testing"

	"sallyport/dataplane/memio"
)

// slow is a queue whose transmitter takes several attempts.
type slow struct {
	*memio.Queue
	left    int // flushes that will leave something behind
	flushes int
}

func (s *slow) Flush() error {
	s.flushes++
	s.left = max(0, s.left-1)
	return s.Queue.Flush()
}

func (s *slow) Unsent() bool { return s.left > 0 }

// TestWhatCouldNotBeSentIsTriedInEachStep, though nothing more is to be sent there and the worker has other things to do.
func TestWhatCouldNotBeSentIsTriedInEachStep(t *testing.T) {
	a, _ := newRig(t, options{})
	q, err := memio.NewQueue(a.Mem(), 64)
	if err != nil {
		t.Fatal(err)
	}
	s := &slow{Queue: q}
	w := a.workers[0]
	w.AddQueue(outside, s, a.ports[outside].countersOf(9))
	w.RemoveQueue(a.queues[outside][0]) // so that this one sends
	a.run()
	s.left, s.flushes = 5, 0
	a.queues[inside][0].Inject(udp4("198.51.100.5", "198.51.100.200", 100, 64))
	for range 10 {
		w.Step(a.now)
		a.queues[inside][0].Inject(udp4("198.51.100.5", "198.18.9.9", 100, 64)) // no route: leaves by another queue, or not at all
	}
	if s.flushes != 5 {
		t.Errorf("%d attempts, not 5", s.flushes)
	}
	w.RemoveQueue(s)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	w.Return(q.Reclaim())
	a.frames()
}
