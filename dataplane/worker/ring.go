package worker

import (
	"sync/atomic"

	"sallyport/dataplane/packet"
)

// ring is a bounded single-producer, single-consumer ring. The producer stages
// values with push and makes them visible with publish, once a batch.
//
// Writers: tail and staged belong to the producer, head to the consumer; each
// side reads the other's index and keeps its own copy of what it last saw.
type ring[T any] struct {
	_      [packet.Apart]byte
	head   atomic.Uint64 // next to take; written by the consumer
	seen   uint64        // consumer's copy of tail
	_      [packet.Apart - 16]byte
	tail   atomic.Uint64 // next to fill; written by the producer
	staged uint64        // producer's unpublished tail
	freed  uint64        // producer's copy of head
	_      [packet.Apart - 24]byte
	mask   uint64
	slots  []T
}

// newRing returns a ring of at least size slots, rounded up to a power of two.
func newRing[T any](size int) *ring[T] {
	n := 1
	for n < size {
		n <<= 1
	}
	return &ring[T]{mask: uint64(n - 1), slots: make([]T, n)}
}

// push stages v and reports whether there was room.
func (r *ring[T]) push(v T) bool {
	slot, ok := r.slot()
	if !ok {
		return false
	}
	r.slots[slot] = v
	r.staged++
	return true
}

// slot returns the index of the slot that the next push fills, and whether there is one.
func (r *ring[T]) slot() (uint64, bool) {
	if r.staged-r.freed > r.mask {
		r.freed = r.head.Load()
	}
	return r.staged & r.mask, r.staged-r.freed <= r.mask
}

// publish makes everything pushed visible and reports whether there was anything.
func (r *ring[T]) publish() bool {
	if r.tail.Load() == r.staged {
		return false
	}
	r.tail.Store(r.staged)
	return true
}

// take moves up to len(dst) values out and returns how many.
func (r *ring[T]) take(dst []T) int {
	head := r.head.Load()
	if r.seen-head < uint64(len(dst)) {
		r.seen = r.tail.Load()
	}
	n := min(int(r.seen-head), len(dst))
	for i := range dst[:n] {
		dst[i] = r.slots[(head+uint64(i))&r.mask]
	}
	if n > 0 {
		r.head.Store(head + uint64(n))
	}
	return n
}

// each calls f with the index and the value of every slot that is filled, then frees them.
func (r *ring[T]) each(f func(slot uint64, v *T)) {
	head, tail := r.head.Load(), r.tail.Load()
	for k := head; k != tail; k++ {
		f(k&r.mask, &r.slots[k&r.mask])
	}
	if head != tail {
		r.head.Store(tail)
	}
}

// empty reports whether nothing published is left. Only the consumer calls it.
func (r *ring[T]) empty() bool { return r.head.Load() == r.tail.Load() }
