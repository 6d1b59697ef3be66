package sad

import (
	"math"
	"sync/atomic"

	"sallyport/dataplane/packet"
)

// epochs tells when nobody can hold a pointer to a removed association any
// more. Whoever unpublishes one begins a new epoch; each worker notes the
// epoch at every batch boundary, when it holds no pointers. A worker that noted an
// epoch, or sleeps, has let go of everything that was unpublished before that epoch began.
//
// All operations are sequentially consistent: a worker that wakes stores its note before its
// first look-up, so either the reclaimer sees it awake, or it sees what was unpublished.
type epochs struct {
	now    atomic.Uint64
	worker []note
}

type note struct {
	epoch atomic.Uint64
	_     [packet.Apart - 8]byte // those of other workers lie no nearer
}

const asleep = math.MaxUint64

func (e *epochs) start(workers int) {
	e.worker = make([]note, workers)
	e.now.Store(1)
	for i := range e.worker {
		e.worker[i].epoch.Store(asleep)
	}
}

// begin starts a new epoch and returns it.
func (e *epochs) begin() uint64 { return e.now.Add(1) }

// oldest returns the oldest epoch that some worker may still be in.
func (e *epochs) oldest() uint64 {
	oldest := uint64(asleep)
	for i := range e.worker {
		oldest = min(oldest, e.worker[i].epoch.Load())
	}
	return oldest
}

// Pass says that worker is at a batch boundary and holds no association. A
// worker that was asleep is awake afterwards.
func (t *Table) Pass(worker int) {
	n := &t.epochs.worker[worker].epoch
	if now := t.epochs.now.Load(); n.Load() != now {
		n.Store(now)
	}
}

// Sleep says that worker holds no association and looks none up until Wake or Pass. All
// workers sleep at first.
func (t *Table) Sleep(worker int) { t.epochs.worker[worker].epoch.Store(asleep) }

// Wake ends Sleep.
func (t *Table) Wake(worker int) { t.Pass(worker) }
