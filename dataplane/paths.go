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
	Probed      uint64 // results of probing, see [Engine.SetPathMTU]
	Lowered     uint64 // of these, that were less than what was known or the route's, and more than was known
	Raised      uint64
}

type pathCounters struct {
	learned, forgotten, unreachable, implausible, stale, probed, lowered, raised atomic.Uint64
}

func (c *pathCounters) stats() PathStats {
	return PathStats{c.learned.Load(), c.forgotten.Load(), c.unreachable.Load(), c.implausible.Load(), c.stale.Load(), c.probed.Load(), c.lowered.Load(), c.raised.Load()}
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
		if e.events != nil {
			e.events(Event{Kind: EventPathDoubted, Handle: h, SPI: c.SPI})
		}
	default:
		e.paths.unreachable.Add(1)
		e.log.Debug().Stringer("association", h).Stringer("peer", c.Remote).Msg("packets to the peer do not arrive")
	}
}

// SetPathMTU takes over what the peer of an outbound association has proven to arrive, until it is to be forgotten.
func (e *Engine) SetPathMTU(h sad.Handle, mtu int, until time.Time) error {
	before, err := e.sad.Probed(h, mtu, time.Now(), until)
	if err != nil {
		return err
	}
	e.paths.probed.Add(1)
	if before == 0 {
		if o := e.sad.LookupOutbound(h.Value()); o != nil {
			before = e.LinkMTU(o.RemoteAddr())
		}
	}
	switch {
	case mtu < before:
		e.paths.lowered.Add(1)
	case mtu > before:
		e.paths.raised.Add(1)
	default:
		return nil
	}
	e.log.Debug().Stringer("association", h).Int("mtu", mtu).Int("before", before).Msg("path MTU probed")
	return nil
}

// InnerMTU returns the length of the largest inner packet that an outbound association carries in one packet, by the route to its peer and what is
// known of the path; 0 if that is not known, or of an inbound one.
func (e *Engine) InnerMTU(h sad.Handle) int {
	if h.Inbound() {
		return 0
	}
	o := e.sad.LookupOutbound(h.Value())
	if o == nil {
		return 0
	}
	link := e.LinkMTU(o.RemoteAddr())
	if link == 0 {
		return 0
	}
	return o.InnerMTU(link)
}
