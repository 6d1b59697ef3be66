package xsk

import (
	"sync/atomic"

	"sallyport/dataplane/packet"
)

// transmitRing holds packets to be sent. We produce, the kernel consumes.
// Putting and publishing are apart, so that a worker may transmit several times
// a batch and pay for one store.
type transmitRing struct {
	indices
	entries []packet.Desc
	// next is our copy of the producer index, entries not yet published included.
	next uint32
	// published is the producer index as the kernel sees it.
	published uint32
	// seen is the consumer index when we last looked.
	seen uint32
}

// room returns how many packets the ring takes now. It looks at the kernel's
// index only if fewer than want are known to fit.
func (r *transmitRing) room(want uint32) uint32 {
	free := r.size - (r.next - r.seen)
	if free < want {
		r.seen = atomic.LoadUint32(r.consumer) // acquire: the kernel has read the entries before
		free = r.size - (r.next - r.seen)
	}
	return free
}

// put writes one descriptor, unpublished; the caller has made sure of room.
func (r *transmitRing) put(d packet.Desc) {
	r.entries[r.next&r.mask] = d
	r.next++
}

// publish lets the kernel see everything put, with one store.
func (r *transmitRing) publish() {
	if r.published != r.next {
		r.published = r.next
		atomic.StoreUint32(r.producer, r.next) // entries before index, and both before needsWakeup looks
	}
}

// pending returns how many published packets the kernel has not taken yet.
func (r *transmitRing) pending() uint32 {
	r.seen = atomic.LoadUint32(r.consumer)
	return r.published - r.seen
}

// needsWakeup reports whether the kernel waits for a system call before it
// sends. Copy mode always sets it.
func (r *transmitRing) needsWakeup() bool { return atomic.LoadUint32(r.flags)&ringNeedWakeup != 0 }
