package xsk

import (
	"sync/atomic"

	"sallyport/dataplane/release"
)

// completionRing returns sent frames. The kernel produces, we consume.
type completionRing struct {
	indices
	entries []uint64
	// next is our copy of the consumer index, the only truth about it.
	next uint32
	// seen is the producer index when we last looked.
	seen uint32
}

// pop moves up to len(addr) addresses out and publishes the new consumer index
// with one store.
func (r *completionRing) pop(addr []uint64) int {
	ready := r.seen - r.next
	if ready < uint32(len(addr)) {
		r.seen = atomic.LoadUint32(r.producer) // acquire: entries after index
		ready = r.seen - r.next
	}
	n := min(uint32(len(addr)), ready)
	if n == 0 {
		return 0
	}
	together := copy(addr[:n], r.entries[r.next&r.mask:])
	copy(addr[together:n], r.entries)
	r.next += n
	release.Store(r.consumer, r.next) // we have read the entries
	return int(n)
}
