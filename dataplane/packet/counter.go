package packet

import "sync/atomic"

// Counter is a 64-bit counter with one writer and any number of readers. The
// writer pays a plain add (an aligned 8-byte store is indivisible on Go's
// 64-bit ports); under the race detector the add is atomic.
type Counter struct{ v uint64 }

// Add adds n. Only the counter's owner calls it.
func (c *Counter) Add(n uint64) { counterAdd(&c.v, n) }

// Set replaces the value. Only the counter's owner calls it.
func (c *Counter) Set(n uint64) { counterSet(&c.v, n) }

// Load returns the value. Anyone may call it.
func (c *Counter) Load() uint64 { return atomic.LoadUint64(&c.v) }
