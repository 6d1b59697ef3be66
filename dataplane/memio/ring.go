package memio

import "sync/atomic"

// ring is a bounded queue between one producer and one consumer. Indices run
// freely over 32 bits; an entry's place is index & mask.
//
//	field     written by   read by
//	tail      producer     both
//	headSeen  producer     producer: head when it last looked
//	head      consumer     both
//	tailSeen  consumer     consumer: tail when it last looked
//	entries   producer between head+size and tail, consumer never
//
// A store to tail or head publishes the entries before it (sync/atomic orders
// them), once a batch. The two sides lie on cache lines of their own.
type ring[T any] struct {
	entries []T
	mask    uint32
	_       [64]byte

	tail     uint32
	headSeen uint32
	_        [64]byte

	head     uint32
	tailSeen uint32
	_        [64]byte
}

func newRing[T any](size uint32) ring[T] {
	return ring[T]{entries: make([]T, size), mask: size - 1}
}

// room returns how many entries fit; it looks at the consumer's index only if
// fewer than want are known to. Producer only.
func (r *ring[T]) room(want int) int {
	size := uint32(len(r.entries))
	free := size - (r.tail - r.headSeen)
	if int(free) < want {
		r.headSeen = atomic.LoadUint32(&r.head)
		free = size - (r.tail - r.headSeen)
	}
	return int(free)
}

// set writes the entry i places behind the tail, unpublished. Producer only;
// i is below what room returned.
func (r *ring[T]) set(i int, v T) { r.entries[(r.tail+uint32(i))&r.mask] = v }

// publish lets the consumer see the next n entries. Producer only.
func (r *ring[T]) publish(n int) {
	if n > 0 {
		atomic.StoreUint32(&r.tail, r.tail+uint32(n))
	}
}

// ready returns how many entries wait; it looks at the producer's index only
// if fewer than want are known to. Consumer only.
func (r *ring[T]) ready(want int) int {
	n := r.tailSeen - r.head
	if int(n) < want {
		r.tailSeen = atomic.LoadUint32(&r.tail)
		n = r.tailSeen - r.head
	}
	return int(n)
}

// at returns the entry i places behind the head. Consumer only; i is below what
// ready returned.
func (r *ring[T]) at(i int) T { return r.entries[(r.head+uint32(i))&r.mask] }

// release gives the first n entries' places back. Consumer only.
func (r *ring[T]) release(n int) {
	if n > 0 {
		atomic.StoreUint32(&r.head, r.head+uint32(n))
	}
}

// pop moves up to len(v) entries out.
func (r *ring[T]) pop(v []T) int {
	n := min(len(v), r.ready(len(v)))
	for i := range v[:n] {
		v[i] = r.at(i)
	}
	r.release(n)
	return n
}
