package dataplane

import (
	"errors"
	"sync/atomic"
	"time"

	"sallyport/dataplane/sad"
	"sallyport/dataplane/worker"
)

// PathStats counts what ICMP errors about ESP of ours came to.
type PathStats struct {
	Learned     uint64 // path MTUs that were learned, or confirmed
	Forgotten   uint64 // that grew too old
	Unreachable uint64 // errors of another kind that were passed on to a sender of inner packets
	Implausible uint64 // errors that quoted no packet sent lately, or said what cannot be
	Stale       uint64 // errors that said nothing new
}

type pathCounters struct {
	learned, forgotten, unreachable, implausible, stale atomic.Uint64
}

func (c *pathCounters) stats() PathStats {
	return PathStats{c.learned.Load(), c.forgotten.Load(), c.unreachable.Load(), c.implausible.Load(), c.stale.Load()}
}

// complain has the association table judge an ICMP error about ESP of ours.
func (e *Engine) complain(w *worker.Event) {
	c := w.Complaint()
	h, mtu, err := e.sad.Complain(&c, time.Now())
	switch {
	case errors.Is(err, sad.ErrNothingNew):
		e.paths.stale.Add(1)
	case err != nil:
		e.paths.implausible.Add(1)
	case c.TooBig:
		e.paths.learned.Add(1)
		e.log.Info().Stringer("association", h).Stringer("peer", c.Remote).Int("mtu", mtu).Msg("path MTU learned")
	default:
		e.paths.unreachable.Add(1)
		e.log.Debug().Stringer("association", h).Stringer("peer", c.Remote).Msg("packets to the peer do not arrive")
	}
}
