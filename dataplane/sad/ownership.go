package sad

import "sync/atomic"

// Ownership says which worker an association belongs to. Only the owner gives
// out sequence numbers, checks the replay window and uses the key, so those are plain values.
// It moves only by Release of the present owner, so what that one wrote is
// visible to the next.
type Ownership struct {
	owner uint32 // worker + 1; 0 = nobody
	want  uint32 // worker + 1 that the association shall move to, 0 = stay; and noticeBit
}

// Owner returns the worker that owns the association, -1 if none does yet. Anyone may call it.
func (o *Ownership) Owner() int { return int(atomic.LoadUint32(&o.owner)) - 1 }

// Claim makes worker the owner if nobody is, and says whether worker owns the association now.
func (o *Ownership) Claim(worker int) bool {
	if atomic.LoadUint32(&o.owner) == uint32(worker)+1 {
		return true
	}
	return atomic.CompareAndSwapUint32(&o.owner, 0, uint32(worker)+1)
}

// Wanted returns the worker that the association shall move to, -1 if it shall
// stay. Its owner looks at the end of each batch that used the association.
func (o *Ownership) Wanted() int { return int(atomic.LoadUint32(&o.want)&^noticeBit) - 1 }

// Release hands the association from worker, which must own it and be done with
// it for this batch, to the worker that was asked for, and says whether it did.
func (o *Ownership) Release(worker int) bool {
	if o.Wanted() < 0 || atomic.LoadUint32(&o.owner) != uint32(worker)+1 {
		return false
	}
	want := atomic.AndUint32(&o.want, noticeBit) &^ noticeBit
	if want == 0 {
		return false
	}
	atomic.StoreUint32(&o.owner, want)
	return true
}

// request asks for a move to worker, at once if nobody owns the association.
func (o *Ownership) request(worker int) {
	next := uint32(worker) + 1
	if atomic.CompareAndSwapUint32(&o.owner, 0, next) {
		return
	}
	if atomic.LoadUint32(&o.owner) == next {
		next = 0
	}
	for {
		old := atomic.LoadUint32(&o.want)
		if atomic.CompareAndSwapUint32(&o.want, old, old&noticeBit|next) {
			return
		}
	}
}
