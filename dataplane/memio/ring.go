package memio

import (
	"sync/atomic"

	"sallyport/dataplane/release"
)

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
// A store to tail or head publishes the entries before it, once a batch. The two
// sides lie on cache lines of their own.
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

// space returns the entries i to i+n places behind the tail, unpublished, as far as they
// lie together. Producer only; i+n is at most what room returned.
func (r *ring[T]) space(i, n int) []T { return r.span(r.tail+uint32(i), n) }

// waiting returns the entries i to i+n places behind the head, as far as they lie together.
// Consumer only; i+n is at most what ready returned.
func (r *ring[T]) waiting(i, n int) []T { return r.span(r.head+uint32(i), n) }

func (r *ring[T]) span(index uint32, n int) []T {
	at := int(index & r.mask)
	return r.entries[at:min(at+n, len(r.entries))]
}

// put writes entries behind the tail, from the place i on, unpublished. Producer only; there is room.
func (r *ring[T]) put(i int, v []T) {
	n := copy(r.space(i, len(v)), v)
	copy(r.entries, v[n:])
}

// publish lets the consumer see the next n entries. Producer only.
func (r *ring[T]) publish(n int) { release.Store(&r.tail, r.tail+uint32(n)) }

// announce is publish for a producer that looks next whether the consumer sleeps: what it reads then is as new as the entries.
func (r *ring[T]) announce(n int) { atomic.StoreUint32(&r.tail, r.tail+uint32(n)) }

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

// free gives the first n entries' places back. Consumer only.
func (r *ring[T]) free(n int) { release.Store(&r.head, r.head+uint32(n)) }

// pop moves up to len(v) entries out.
func (r *ring[T]) pop(v []T) int {
	n := min(len(v), r.ready(len(v)))
	if n == 0 {
		return 0
	}
	together := copy(v[:n], r.waiting(0, n))
	copy(v[together:n], r.entries)
	r.free(n)
	return n
}
