package xsk

import "sync/atomic"

// fillRing gives frames to the kernel for reception. We produce, the kernel
// consumes.
type fillRing struct {
	indices
	entries []uint64
	// next is our copy of the producer index, the only truth about it.
	next uint32
	// seen is the consumer index when we last looked; the kernel only moves it
	// forward, so the room computed from it is never too large.
	seen uint32
}

// room returns how many frames the ring takes now. It looks at the kernel's
// index only if fewer than want are known to fit.
func (r *fillRing) room(want uint32) uint32 {
	free := r.size - (r.next - r.seen)
	if free < want {
		r.seen = atomic.LoadUint32(r.consumer) // acquire: the kernel has read the entries before
		free = r.size - (r.next - r.seen)
	}
	return free
}

// put writes one address, unpublished; the caller has made sure of room.
func (r *fillRing) put(addr uint64) {
	r.entries[r.next&r.mask] = addr
	r.next++
}

// publish lets the kernel see everything put, with one store.
func (r *fillRing) publish() {
	atomic.StoreUint32(r.producer, r.next) // entries before index, and both before needsWakeup looks
}

// needsWakeup reports whether the driver waits for a system call before it
// takes frames. Copy mode never sets it.
func (r *fillRing) needsWakeup() bool { return atomic.LoadUint32(r.flags)&ringNeedWakeup != 0 }
