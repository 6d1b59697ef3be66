package worker

import (
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
)

// recordsCrowded is how many packets that pass a batch enters into flight recorders while there are more associations than the caches
// hold: each of them costs two cache lines that nothing else reads.
const recordsCrowded = 1

// flown is a record that is to be entered into the flight recorder of an association; of none if flight is nil.
type flown struct {
	flight *sad.Flight
	handle sad.Handle
	record sad.Record
}

// recordDrop enters packet i, which ends for a reason, into the flight recorder of its association, if it has one of this worker's.
func (w *Worker) recordDrop(i int, reason packet.Drop) {
	f := w.flownOf(i, reason)
	w.enter(&f)
}

func (w *Worker) enter(f *flown) {
	if f.flight != nil && f.flight.Drop(&f.record) {
		w.tell(Event{Kind: EventBurst, Handle: f.handle, Reason: f.record.Reason})
	}
}

// flownOf describes packet i as it stands in the frame.
func (w *Worker) flownOf(i int, reason packet.Drop) (f flown) {
	p, t := &w.batch.P[i], w.group.sad
	outbound, decapsulated := p.Class == packet.ClassOutbound, p.Flags&packet.FlagDecapsulated != 0
	outer := false
	switch {
	case outbound && (p.Seq == 0 || decapsulated): // not sealed yet: the SPI is the handle
		if o := t.LookupOutbound(p.SPI); o != nil && t.OutboundHead(o).Owner() == w.ID {
			f.flight, f.handle = t.OutboundFlight(o.Slot), sad.Handle(p.SPI)
		}
	case outbound:
		outer = true
		if o := w.outbound[i]; o != nil && o.SPI == p.SPI && t.OutboundHead(o).Owner() == w.ID {
			f.flight, f.handle = t.OutboundFlight(o.Slot), o.Handle()
		}
	case p.Class == packet.ClassInbound || decapsulated:
		outer = !decapsulated
		if in := t.LookupInbound(p.SPI); in != nil && t.InboundHead(in).Owner() == w.ID {
			f.flight, f.handle = t.InboundFlight(in.Slot), sad.InboundHandle(p.SPI)
		}
	}
	if f.flight == nil {
		return f
	}
	if reason == packet.DropBadInner { // there is no header
		f.record = sad.Record{At: w.now, Sequence: p.Seq, Reason: reason}
		return f
	}
	f.record = sad.RecordOf(&w.batch, i, w.now)
	f.record.Reason, f.record.Outer = reason, outer
	return f
}
