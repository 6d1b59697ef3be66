package xsk

import (
	"sync/atomic"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/release"
)

// receiveRing holds received packets. The kernel produces, we consume.
type receiveRing struct {
	indices
	entries []packet.Desc
	// next is our copy of the consumer index, the only truth about it.
	next uint32
	// seen is the producer index when we last looked.
	seen uint32
}

// pop moves up to len(d) descriptors out and publishes the new consumer index
// with one store.
func (r *receiveRing) pop(d []packet.Desc) int {
	ready := r.seen - r.next
	if ready < uint32(len(d)) {
		r.seen = atomic.LoadUint32(r.producer) // acquire: entries after index
		ready = r.seen - r.next
	}
	n := min(uint32(len(d)), ready)
	if n == 0 {
		return 0
	}
	together := copy(d[:n], r.entries[r.next&r.mask:])
	copy(d[together:n], r.entries)
	r.next += n
	release.Store(r.consumer, r.next) // we have read the entries
	return int(n)
}

// offsetShift is where the kernel puts the distance of a packet from the address that was filled, where buffers may lie
// anywhere (kernel: Documentation/networking/af_xdp.rst, XDP_UMEM_REG). Where they may not, it leaves 0 there.
const offsetShift = 48

// start returns where a received packet starts, given the address in its descriptor.
func start(addr uint64) uint64 { return addr&(1<<offsetShift-1) + addr>>offsetShift }

// empty reports whether nothing waits, looking at the kernel's index.
func (r *receiveRing) empty() bool {
	r.seen = atomic.LoadUint32(r.producer)
	return r.seen == r.next
}
