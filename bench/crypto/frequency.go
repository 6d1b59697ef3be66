package crypto

import "time"

// latencyMultiply is how many cycles a 64-bit multiplication waits for the one before it: 3
// on Intel since Nehalem and on AMD since Zen.
const latencyMultiply = 3

// sink keeps the compiler from leaving the chain out.
var sink uint64

// frequency returns the core's clock in hertz by timing a chain of multiplications. Counters of
// cycles are not to be had in most virtual machines, and the time stamp counter has a clock of its own.
func frequency() float64 {
	const rounds, each = 200, 16
	best := 0.0
	for range 5 {
		x := sink | 1
		start := time.Now()
		for range rounds {
			x *= x
			x *= x
			x *= x
			x *= x
			x *= x
			x *= x
			x *= x
			x *= x
			x *= x
			x *= x
			x *= x
			x *= x
			x *= x
			x *= x
			x *= x
			x *= x
		}
		sink = x
		best = max(best, rounds*each*latencyMultiply/time.Since(start).Seconds())
	}
	return best
}
