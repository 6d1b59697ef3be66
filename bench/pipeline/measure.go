package pipeline

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/threads"
)

// verifyEvery is after how many packets a batch is checked: one packet in 1,000.
const verifyEvery = 1000 * packet.BatchMax

// Sample is one measurement.
type Sample struct {
	Packets int
	Elapsed time.Duration
	// Best is the time a packet took, in nanoseconds, in the fastest round: what
	// is left of the measurement on a machine that others disturb.
	Best float64
	// Typical is the time a packet took, in nanoseconds, in the median round, by all lanes together: what a core that is
	// left alone takes. Rounds last some tenths of a millisecond, so what else the machine does for less than half of the time does not
	// count. With a [Witness] the rounds are those during which nobody else was seen on the core, if there are any to speak of.
	Typical float64
	// Shared is the share of the rounds during which a [Witness] saw somebody else on the core.
	Shared float64
	// Allocations a packet, of the whole process, in the first round of the source.
	Allocations float64
	// Gaps are the times that single batches took, in nanoseconds, if they were asked for.
	Gaps *hdrhistogram.Histogram
}

// Add makes s what it and t are as one sample.
func (s *Sample) Add(t Sample) {
	if s.Packets == 0 {
		*s = t
		return
	}
	share := float64(t.Packets) / float64(s.Packets+t.Packets)
	s.Typical += share * (t.Typical - s.Typical)
	s.Shared += share * (t.Shared - s.Shared)
	s.Best = min(s.Best, t.Best)
	s.Allocations = max(s.Allocations, t.Allocations)
	s.Packets, s.Elapsed = s.Packets+t.Packets, s.Elapsed+t.Elapsed
	if s.Gaps != nil {
		s.Gaps.Merge(t.Gaps)
	}
}

// Nanoseconds returns the time one packet took.
func (s Sample) Nanoseconds() float64 { return float64(s.Elapsed) / float64(s.Packets) }

// Mpps returns millions of packets a second.
func (s Sample) Mpps() float64 { return 1e3 / s.Nanoseconds() }

// TypicalMpps returns millions of packets a second of the median round.
func (s Sample) TypicalMpps() float64 { return 1e3 / s.Typical }

// gapMax bounds what a histogram of gaps can hold.
const gapMax = 10 * time.Second

// Measure carries packets, at least so many, until so much time has passed, and checks batches in
// between. What is timed is Carry alone.
func (l *Lane) Measure(packets int, atLeast time.Duration) (Sample, error) {
	return l.measure(packets, atLeast, nil, newGate(1), 0, true)
}

// measure begins each round together with the other lanes behind the gate, so that what they do to each other is seen. limit is the
// witness's. One of the lanes counts allocations, while the others wait.
func (l *Lane) measure(packets int, atLeast time.Duration, gaps *hdrhistogram.Histogram, together *gate, limit float64, counts bool) (Sample, error) {
	defer together.leave()
	s := Sample{Gaps: gaps}
	unchecked := verifyEvery
	rounds := rounds{limit: limit}
	var before, after runtime.MemStats
	for s.Packets < packets || s.Elapsed < atLeast {
		if l.Left() == 0 {
			l.Refresh()
		}
		if unchecked >= verifyEvery {
			unchecked = 0
			if err := l.Verify(); err != nil {
				return s, err
			}
		}
		rounds.begin()
		if whole := together.pass(); !whole && s.Packets > 0 && s.Packets >= packets {
			break // what this lane carries when another one has ended says nothing of both
		}
		if s.Packets == 0 {
			if counts {
				runtime.ReadMemStats(&before)
			}
			together.pass()
		}
		began, n := time.Now(), 0
		if gaps == nil {
			for l.Left() > 0 && n < roundMax {
				n += l.Carry()
			}
		} else {
			n = l.carryTimed(gaps)
		}
		took := time.Since(began)
		if s.Packets == 0 {
			together.pass() // what others do beside carrying is the harness's
			if counts {
				runtime.ReadMemStats(&after)
				s.Allocations = float64(after.Mallocs-before.Mallocs) / float64(n)
			}
			together.pass()
		}
		rounds.add(float64(took) / float64(n))
		s.Elapsed += took
		s.Packets += n
		unchecked += n
	}
	rounds.into(&s)
	if l.failed > 0 {
		return s, fmt.Errorf("%d batches did not come out whole: drops %v", l.failed, l.rig.drops())
	}
	return s, nil
}

// roundMax is the number of packets after which a round ends though the source has more, so that it lasts no longer than what
// disturbs a machine.
const roundMax = 4096

// carryTimed carries a round's packets and takes the time of each batch.
func (l *Lane) carryTimed(gaps *hdrhistogram.Histogram) (n int) {
	last := time.Now()
	for l.Left() > 0 && n < roundMax {
		n += l.Carry()
		now := time.Now()
		gaps.RecordValue(min(int64(now.Sub(last)), int64(gapMax)))
		last = now
	}
	return n
}

// Measure has all lanes measured at once, each on a thread of its own: on cores[i] where that is given.
// Other threads of the process keep off those meanwhile, where there are more.
// The sample's packets are those of all lanes, its time is the mean of theirs, so that Mpps is what all carry together.
func (r *Rig) Measure(packets int, atLeast time.Duration, cores []int) (Sample, error) {
	return r.measure(packets, atLeast, cores, false)
}

// MeasureGaps is Measure with Sample.Gaps.
func (r *Rig) MeasureGaps(packets int, atLeast time.Duration, cores []int) (Sample, error) {
	return r.measure(packets, atLeast, cores, true)
}

// OnCore runs work on one CPU, on a thread that ends with it.
func OnCore(cpu int, work func() error) error {
	done := make(chan error)
	go func() {
		// The thread ends with the goroutine, and the affinity with it.
		runtime.LockOSThread()
		if err := threads.Pin(cpu); err != nil {
			done <- err
			return
		}
		done <- work()
	}()
	return <-done
}

func (r *Rig) measure(packets int, atLeast time.Duration, cores []int, gaps bool) (Sample, error) {
	allowed, err := threads.Allowed()
	if err != nil {
		return Sample{}, err
	}
	if err := threads.Avoid(cores); err != nil {
		return Sample{}, err
	}
	if !gaps {
		// What is collected meanwhile is the harness's garbage, of checking packets, on a CPU that may be a worker's.
		defer debug.SetGCPercent(debug.SetGCPercent(-1))
	}
	limit := 0.0
	if len(cores) >= len(r.Lanes) {
		if limit, err = r.Witness.limit(cores[:len(r.Lanes)]); err != nil {
			return Sample{}, errors.Join(err, threads.Allow(allowed))
		}
	}
	together := newGate(len(r.Lanes))
	samples, errs := make([]Sample, len(r.Lanes)), make([]error, len(r.Lanes))
	var wg sync.WaitGroup
	for i, l := range r.Lanes {
		var h *hdrhistogram.Histogram
		if gaps {
			h = hdrhistogram.New(1, int64(gapMax), 3)
		}
		wg.Go(func() {
			work := func() (err error) {
				samples[i], err = l.measure(packets, atLeast, h, together, limit, i == 0)
				return err
			}
			if i < len(cores) {
				errs[i] = OnCore(cores[i], work)
			} else {
				errs[i] = work()
			}
		})
	}
	wg.Wait()
	if err := threads.Allow(allowed); err != nil { // the next measurement may have other cores, or none
		return Sample{}, err
	}
	all := samples[0]
	for _, s := range samples[1:] {
		all.Packets += s.Packets
		all.Elapsed += s.Elapsed
		all.Best = max(all.Best, s.Best)
		all.Typical += s.Typical
		all.Shared = max(all.Shared, s.Shared)
		if gaps {
			all.Gaps.Merge(s.Gaps)
		}
	}
	all.Elapsed /= time.Duration(len(samples))
	all.Best /= float64(len(samples))
	all.Allocations /= float64(len(samples)) // all that there were, over the packets of one lane
	all.Typical /= float64(len(samples) * len(samples))
	return all, errors.Join(errs...)
}
