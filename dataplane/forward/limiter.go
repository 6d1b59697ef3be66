package forward

import "math"

// Limiter is a token bucket for the ICMP errors of one worker (RFC 1812, 4.3.2.8; RFC
// 4443, 2.4 (f)), kept as the time at which the bucket is full again. It has one owner and
// reads no clock. The zero value allows nothing.
type Limiter struct {
	interval int64 // ns a token
	depth    int64 // ns from empty to full
	full     int64 // when the bucket is full again, on the caller's clock
}

// NewLimiter returns a full bucket of burst tokens to which rate tokens a second
// return. With a rate or burst of 0 or less it allows nothing.
func NewLimiter(rate, burst int) Limiter {
	if rate <= 0 || burst <= 0 {
		return Limiter{}
	}
	interval := max(1e9/int64(rate), 1)
	// Under 2^60 ns (36 years), so that no sum below overflows for clocks that start near 0.
	depth := min(int64(burst), 1<<60/interval) * interval
	return Limiter{interval: interval, depth: depth, full: math.MinInt64}
}

// Allow takes a token, if there is one, at the time now in nanoseconds of any
// monotonic clock.
func (l *Limiter) Allow(now int64) bool {
	full := max(l.full, now) + l.interval
	if l.depth == 0 || full-now > l.depth {
		return false
	}
	l.full = full
	return true
}
