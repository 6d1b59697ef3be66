package gateway

import (
	"fmt"
	"time"

	"sallyport/dataplane/packet"
)

// verifyEvery is after how many packets a batch is checked: one packet in 1,000.
const verifyEvery = 1000 * packet.BatchMax

// Sample is one measurement.
type Sample struct {
	Packets int
	Elapsed time.Duration
	// Best is the time a packet took, in nanoseconds, in the fastest piece of some 4096 packets: what
	// is left of the measurement on a machine that others disturb.
	Best float64
}

// Nanoseconds returns the time one packet took.
func (s Sample) Nanoseconds() float64 { return float64(s.Elapsed) / float64(s.Packets) }

// Mpps returns millions of packets a second.
func (s Sample) Mpps() float64 { return 1e3 / s.Nanoseconds() }

// Measure carries packets, at least so many, until so much time has passed, and checks batches in
// between. What is timed is Carry alone.
func (r *Rig) Measure(packets int, atLeast time.Duration) (Sample, error) {
	var s Sample
	unchecked := verifyEvery
	for s.Packets < packets || s.Elapsed < atLeast {
		if r.Left() == 0 {
			r.Refresh()
		}
		if unchecked >= verifyEvery {
			unchecked = 0
			if err := r.Verify(); err != nil {
				return s, err
			}
			continue
		}
		// The source is short when it repeats itself; then it is not worth a look at the clock each time.
		began, n := time.Now(), 0
		for n < len(r.source) || n < 4096 {
			if r.Left() == 0 {
				if r.o.Decrypt {
					break
				}
				r.next = 0
			}
			n += r.Carry()
		}
		took := time.Since(began)
		if each := float64(took) / float64(n); s.Best == 0 || each < s.Best {
			s.Best = each
		}
		s.Elapsed += took
		s.Packets += n
		unchecked += n
	}
	if r.failed > 0 {
		return s, fmt.Errorf("%d batches did not come out whole: drops %v", r.failed, r.drops())
	}
	return s, nil
}

// IMIX is the usual mixture of sizes, 7 : 4 : 1, of which the largest is as large as fits the tunnel.
var IMIX = []int{64, 576, 64, 64, 576, 64, 1420, 64, 576, 64, 576, 64}
