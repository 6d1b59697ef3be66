package ike

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// sample is one measurement of something done n times.
type sample struct {
	n    int
	wall time.Duration
	cpu  time.Duration // of the processes that did it
}

func (s sample) perSecond() float64    { return float64(s.n) / s.wall.Seconds() }
func (s sample) perCPUSecond() float64 { return float64(s.n) / s.cpu.Seconds() }

// timed measures what f does n times in this process.
func timed(n int, f func() error) (sample, error) {
	runtime.GC()
	cpu, start := processorTime(), time.Now()
	err := f()
	return sample{n, time.Since(start), processorTime() - cpu}, err
}

// processorTime is what this process has used, in user and kernel mode.
func processorTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// patience is how long a step may take before it counts as hung.
const patience = 2 * time.Minute

// establish sets up n tunnels. The configuration does not count.
func establish(ctx context.Context, p *pair, s scenario, n int) (sample, error) {
	if err := p.configure(s, n); err != nil {
		return sample{}, err
	}
	return p.raise(ctx, n)
}

// raise brings up the clients one by one, by as many goroutines as may be under way.
func (p *pair) raise(ctx context.Context, n int) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return timed(n, func() error {
		if err := parallel(n, workers, func(i int) error { return p.clients.Up(ctx, clientName(i), "") }); err != nil {
			return fmt.Errorf("%w; server: %s", err, p.troubles())
		}
		return p.installed(ctx, int64(n))
	})
}

// installed waits until both sides have installed n children.
func (p *pair) installed(ctx context.Context, n int64) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for side, name := range []string{"clients", "server"} {
		select {
		case <-p.kernel[side].reach(n):
		case <-ctx.Done():
			return fmt.Errorf("%d of %d children at the %s: %w; server: %s", p.kernel[side].installed.Load(), n, name, ctx.Err(), p.troubles())
		}
	}
	return nil
}

// troubles names the counters that say why something is missing.
func (p *pair) troubles() string {
	s, c := p.server.Stats(), p.clients.Stats()
	return fmt.Sprintf("%d SAs, %d half-open, received %d, repeated %d, drops %v; clients: %d SAs, retransmitted %d, drops %v, reasons %v",
		s.SAs, s.HalfOpen, s.Received, s.Repeated, s.Drops, c.SAs, c.Retransmitted, c.Drops, c.Reasons)
}

// workers is how many requests of the operator are under way at a time.
const workers = 128

// rekey rekeys the child of each of n tunnels rounds times, one round after another: of two rekeys of one child at a time
// only one would happen.
func rekey(ctx context.Context, p *pair, n, rounds int) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	before := p.server.Stats().ChildRekeyed
	s, err := timed(n*rounds, func() error {
		for range rounds {
			if err := parallel(n, workers, func(i int) error { return p.clients.Rekey(ctx, clientName(i), childName) }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return s, err
	}
	// The server counts a child when its answer has left; the client may have that, and have said that it is done, a moment before.
	for want := uint64(n * rounds); ; time.Sleep(time.Millisecond) {
		done := p.server.Stats().ChildRekeyed - before
		if done == want {
			return s, nil
		}
		if done > want || ctx.Err() != nil {
			return s, fmt.Errorf("%d children were rekeyed, not %d; server: %s", done, want, p.troubles())
		}
	}
}

// parallel calls f with 0 to n-1, so many at a time.
func parallel(n, at int, f func(i int) error) error {
	var next atomic.Int64
	errs := make([]error, at)
	var all sync.WaitGroup
	for w := range at {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				if err := f(int(i)); err != nil {
					errs[w] = err
					return
				}
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// fill sets up n tunnels, and returns the bytes that one IKE SA with one child takes: the mean of both ends, without what
// the configuration takes.
func fill(ctx context.Context, p *pair, s scenario, n int) (sample, float64, error) {
	if err := p.configure(s, n); err != nil {
		return sample{}, 0, err
	}
	before := heap()
	took, err := p.raise(ctx, n)
	return took, (heap() - before) / float64(2*n), err
}

// heap returns the bytes of live objects.
func heap() float64 {
	// Twice: what pools hold survives one.
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) + float64(m.StackInuse)
}
