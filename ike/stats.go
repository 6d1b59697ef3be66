package ike

import (
	"sync/atomic"

	"sallyport/ike/ikesa"
	"sallyport/ike/message"
)

// counters are all that is counted; each is only ever added to.
type counters struct {
	received, sent, retransmitted, repeated   atomic.Uint64
	established, rekeyed, ended               atomic.Uint64
	childUp, childRekeyed, childDown, childNo atomic.Uint64
	hints, panics                             atomic.Uint64
	exchanges, failed                         [16]atomic.Uint64 // by exchange type, less IKE_SA_INIT's
	drops                                     [DropCount]atomic.Uint64
	reasons                                   [ikesa.ReasonCount]atomic.Uint64
}

func (c *counters) drop(d Drop)                { c.drops[d].Add(1) }
func (c *counters) reason(r ikesa.Reason)      { c.reasons[int(r)%ikesa.ReasonCount].Add(1) }
func exchangeIndex(x message.ExchangeType) int { return int(x-message.IKESAInit) & 15 }

// event counts what an IKE SA reports.
func (c *counters) event(e ikesa.Event) {
	switch e.Kind {
	case ikesa.EventExchange:
		if e.Reason == ikesa.ReasonNone {
			c.exchanges[exchangeIndex(e.Exchange)].Add(1)
		} else {
			c.failed[exchangeIndex(e.Exchange)].Add(1)
			c.reason(e.Reason)
		}
	case ikesa.EventRetransmit:
		if e.Initiator {
			c.retransmitted.Add(1)
		} else {
			c.repeated.Add(1)
		}
	case ikesa.EventDrop:
		c.reason(e.Reason)
	case ikesa.EventEstablished:
		c.established.Add(1)
	case ikesa.EventRekeyed:
		c.rekeyed.Add(1)
	case ikesa.EventChildUp:
		c.childUp.Add(1)
	case ikesa.EventChildRekeyed:
		c.childRekeyed.Add(1)
	case ikesa.EventChildDown:
		c.childDown.Add(1)
		c.reason(e.Reason)
	case ikesa.EventChildFailed:
		c.childNo.Add(1)
		c.reason(e.Reason)
	case ikesa.EventHint:
		c.hints.Add(1)
	}
}

// Stats is a copy of everything that is counted.
type Stats struct {
	SAs      int // IKE SAs, half-open ones among them
	HalfOpen int // those whose peer is not proven, which we did not begin

	Received, Sent           uint64 // datagrams
	Retransmitted, Repeated  uint64 // requests sent again, answers sent again
	Established, Rekeyed     uint64 // IKE SAs
	Ended                    uint64 // half-open ones too
	ChildrenUp, ChildRekeyed uint64
	ChildrenDown, ChildNo    uint64 // removed; not made
	Hints                    uint64 // unauthenticated notifies that were not acted upon
	Panics                   uint64

	Exchanges, Failed map[message.ExchangeType]uint64 // that ended well, that did not
	Drops             [DropCount]uint64
	Reasons           [ikesa.ReasonCount]uint64
}

var exchangeTypes = []message.ExchangeType{message.IKESAInit, message.IKEAuth, message.CreateChildSA, message.Informational,
	message.IKEIntermediate, message.IKEFollowupKE}

// Stats returns the counters as they are now.
func (s *Server) Stats() Stats {
	c := &s.stats
	out := Stats{
		SAs: int(s.total.Load()), HalfOpen: int(s.gate.halfOpen.all.Load()),
		Received: c.received.Load(), Sent: c.sent.Load(), Retransmitted: c.retransmitted.Load(), Repeated: c.repeated.Load(),
		Established: c.established.Load(), Rekeyed: c.rekeyed.Load(), Ended: c.ended.Load(),
		ChildrenUp: c.childUp.Load(), ChildRekeyed: c.childRekeyed.Load(), ChildrenDown: c.childDown.Load(), ChildNo: c.childNo.Load(),
		Hints: c.hints.Load(), Panics: c.panics.Load(),
		Exchanges: make(map[message.ExchangeType]uint64), Failed: make(map[message.ExchangeType]uint64),
	}
	for _, x := range exchangeTypes {
		out.Exchanges[x], out.Failed[x] = c.exchanges[exchangeIndex(x)].Load(), c.failed[exchangeIndex(x)].Load()
	}
	for i := range c.drops {
		out.Drops[i] = c.drops[i].Load()
	}
	for i := range c.reasons {
		out.Reasons[i] = c.reasons[i].Load()
	}
	return out
}
