package worker

import (
	"sallyport/dataplane/forward"
	"sallyport/dataplane/packet"
)

// fragmentsMax is how many further pieces one packet may be cut into: the largest frame over
// the smallest useful MTU, with room to spare.
const fragmentsMax = 16

// fragment cuts packet i, an IPv4 packet whose sender allows it, into pieces of at most mtu bytes,
// which go on as class with the next step.
func (w *Worker) fragment(i uint8, mtu int, class packet.Class) {
	b := &w.batch
	p := &b.P[i]
	if w.injected.len()+fragmentsMax >= injectedMax {
		w.drop(i, packet.DropNoRoom)
		return
	}
	if p.Flags&(packet.FlagLocal|packet.FlagRouted) == 0 {
		forward.DecrementTTL(b, int(i))
	}
	n, reason := forward.Fragment(b, int(i), mtu, w.pieces[:], w.borrow)
	if reason != packet.DropNone {
		for _, q := range w.pieces[:n] {
			w.release(q.Addr)
		}
		w.drop(i, reason)
		return
	}
	p.Class = class
	p.Flags |= packet.FlagRouted
	w.injected.put(*p)
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
