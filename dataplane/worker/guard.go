package worker

import (
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
)

// guardDecapsulated holds what came out of associations against their filters and rate limits: only now, since a forged packet may
// use up no one's rate.
func (w *Worker) guardDecapsulated() {
	if !w.guarded {
		return
	}
	w.guarded = false
	b, kept := &w.batch, w.lists.in[:0]
	for _, i := range w.lists.in {
		if in := w.inbound[i]; in.Flags&sad.FlagGuarded != 0 {
			p := &b.P[i]
			if reason := w.group.sad.InboundTerms(in.Slot).Judge(&b.Flows[i], true, int(p.End-p.L3), w.now); reason != packet.DropNone {
				w.drop(i, reason)
				continue
			}
		}
		kept = append(kept, i)
	}
	w.lists.in = kept
}

// admits says whether packet i may go into an association with terms; it ends a packet that may not. The pieces of a packet that
// was cut up passed as one.
func (w *Worker) admits(i uint8, sa *sad.Outbound) bool {
	b, terms := &w.batch, w.group.sad.OutboundTerms(sa.Slot)
	p := &b.P[i]
	reason := packet.DropNone
	switch {
	case sa.Flags&sad.FlagEnded != 0:
		terms.Ended.Add(1)
		reason = packet.DropLifetimeEnded
	case p.Flags&packet.FlagRouted == 0:
		reason = terms.Judge(&b.Flows[i], false, int(p.End-p.L3), w.now)
	}
	if reason != packet.DropNone {
		w.drop(i, reason)
	}
	return reason == packet.DropNone
}
