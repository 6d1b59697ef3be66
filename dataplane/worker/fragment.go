package worker

import (
	"sallyport/dataplane/forward"
	"sallyport/dataplane/packet"
)

// fragmentsMax is how many further pieces one packet may be cut into: the largest frame over
// the smallest useful MTU, with room to spare.
const fragmentsMax = 16

// fragment cuts packet i, an IPv4 packet whose sender allows it, into pieces of at most mtu bytes,
// which go on as class with the next step; or it ends.
func (w *Worker) fragment(i uint8, mtu int, class packet.Class) (cut bool) {
	b := &w.batch
	p := &b.P[i]
	if p.Flags&(packet.FlagLocal|packet.FlagRouted) == 0 {
		forward.DecrementTTL(b, int(i))
	}
	n, ok := w.cut(i, mtu)
	if !ok {
		return false
	}
	w.Counters.Fragmented.Add(1)
	p.Class = class
	p.Flags |= packet.FlagRouted
	w.injected.put(*p)
	w.keepPieces(n, class)
	return true
}

// cut cuts packet i up. The first piece takes its place, the other n are w.pieces. If that cannot be, the packet ends.
func (w *Worker) cut(i uint8, mtu int) (n int, ok bool) {
	if w.injected.len()+fragmentsMax >= injectedMax {
		w.drop(i, packet.DropNoRoom)
		return 0, false
	}
	reason := packet.DropNone
	if w.batch.P[i].Version == 6 {
		w.fragmentID++
		n, reason = forward.FragmentSource(&w.batch, int(i), mtu, w.fragmentID, w.pieces[:], w.borrow)
	} else {
		n, reason = forward.Fragment(&w.batch, int(i), mtu, w.pieces[:], w.borrow)
	}
	if reason == packet.DropNone {
		return n, true
	}
	for _, q := range w.pieces[:n] {
		w.release(q.Addr)
	}
	w.drop(i, reason)
	return 0, false
}

// keepPieces keeps the first n of w.pieces for the next step, where they go on as class.
func (w *Worker) keepPieces(n int, class packet.Class) {
	for _, q := range w.pieces[:n] {
		q.Class = class
		q.Flags |= packet.FlagRouted
		w.injected.put(q)
	}
	w.Counters.Originated.Add(uint64(n))
}

// takeFree takes a frame of this worker's home.
func (w *Worker) takeFree() (addr uint64, ok bool) {
	if len(w.free) == 0 {
		return 0, false
	}
	addr = w.free[len(w.free)-1]
	w.free = w.free[:len(w.free)-1]
	return addr, true
}
