package pipeline

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"sallyport/bench/result"
)

// Witness tells in which rounds of a measurement the cores were the workers' own. Where machines share the hardware threads of a core, a
// neighbour takes from a tenth to a half of its speed for some milliseconds at a time, many times a second, and nothing else tells. A round
// before or after which [result.Probe] took longer than it does on these CPUs alone does not count, whatever it took itself. It
// remembers how long that is for each set of CPUs: workers of ours that share a core disturb each other, and nobody else.
// A nil Witness has every round count.
type Witness struct {
	mu    sync.Mutex
	alone map[string]float64 // µs, by the CPUs that are used at once
}

// calibrated is how long a look at some CPUs takes.
const calibrated = 3 * time.Millisecond

// limit returns the time of a probe, in microseconds, from which a core is not the workers' own, 0 for none. The CPUs are those that are
// going to be used at once.
func (w *Witness) limit(cores []int) (float64, error) {
	if w == nil || len(cores) == 0 {
		return 0, nil
	}
	quick, errs := make([]float64, len(cores)), make([]error, len(cores))
	g := newGate(len(cores))
	var wg sync.WaitGroup
	for i, cpu := range cores {
		wg.Go(func() {
			defer g.leave()
			errs[i] = OnCore(cpu, func() error {
				g.pass()
				var times []float64
				for end := time.Now().Add(calibrated); len(times) == 0 || time.Now().Before(end); {
					times = append(times, result.Probe())
				}
				slices.Sort(times)
				quick[i] = times[len(times)/4] // the fastest may have met a faster clock
				return nil
			})
		})
	}
	wg.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.alone == nil {
		w.alone = map[string]float64{}
	}
	key, all := fmt.Sprint(cores), 0.0
	for i := range quick {
		if errs[i] != nil {
			return 0, errs[i]
		}
		all = max(all, quick[i])
	}
	if before := w.alone[key]; before == 0 || all < before {
		w.alone[key] = all
	}
	return result.SharedBy * w.alone[key], nil
}

// rounds are the times of a measurement's rounds, in nanoseconds a packet.
type rounds struct {
	limit      float64 // of a probe, 0 for none
	all, whole []float64
	before     float64 // the probe before the round
}

// begin takes the probe before a round.
func (r *rounds) begin() {
	if r.limit > 0 {
		r.before = result.Probe()
	}
}

// add takes a round's time, and the probe behind it.
func (r *rounds) add(ns float64) {
	r.all = append(r.all, ns)
	if r.limit == 0 {
		return
	}
	if max(r.before, result.Probe()) <= r.limit {
		r.whole = append(r.whole, ns)
	}
}

// wholeMin is how many rounds on cores of their own it takes, at least, for these alone to count.
const wholeMin = 10

// into completes a sample.
func (r *rounds) into(s *Sample) {
	if s.Shared = 0; r.limit > 0 {
		s.Shared = 1 - float64(len(r.whole))/float64(len(r.all))
	}
	if s.Typical = result.Median(r.all); len(r.whole) >= wholeMin {
		s.Typical = result.Median(r.whole)
	}
	s.Best = slices.Min(r.all)
}
