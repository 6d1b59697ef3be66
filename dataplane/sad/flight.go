package sad

import (
	"math"
	"slices"

	"sallyport/dataplane/packet"
)

// Record is what the flight recorder keeps of one packet: its headers as far as they were read, and what became of it. It holds
// nothing of the payload and no key; 64 bytes.
type Record struct {
	At               int64 // the workers' clock
	Sequence         uint64
	Src, Dst         packet.Addr // of the inner packet, or the outer one if Outer is set
	SrcPort, DstPort uint16      // valid if Flags has packet.FlagPorts
	Len              uint16      // of the datagram
	Flags            packet.Flags
	Version          uint8 // 0: the addresses were not read
	Proto, TOS, TTL  uint8
	Reason           packet.Drop // DropNone: it passed
	Outer            bool        // not decrypted yet, or already encrypted
	_                [2]byte
}

// Sizes of a flight, and what a burst of errors is.
const (
	passedKept  = 4
	droppedKept = 4
	burstDrops  = 100
	burstWithin = int64(1e9)  // nanoseconds
	burstAgain  = int64(60e9) // nanoseconds that one association's next burst is not told
)

// Flight is the flight recorder of one association: its last packets, those that passed apart from those that were dropped, so that a
// flood of one kind does not push out the other. It belongs to the association's owner.
type Flight struct {
	passed, dropped uint64 // recorded so far
	burst           uint64 // drops since burstAt that count as errors
	burstAt, toldAt int64
	_               [24]byte
	records         [passedKept + droppedKept]Record
}

// recordShift makes the interval of which at most one packet that passes is recorded, 2^23 ns, 8 ms, out of the clock.
const recordShift = 23

// DueBits are the bits of the clock that say in which of these intervals a time lies.
const DueBits = uint64(math.MaxUint64) &^ (1<<recordShift - 1)

// Due says that a packet that passes now is to be recorded if the last one passed at the time last.
func Due(now int64, last uint64) bool { return (uint64(now)^last)&DueBits != 0 }

// Pass records a packet that passed.
func (f *Flight) Pass(r *Record) {
	f.records[f.passed%passedKept] = *r
	f.passed++
}

// Drop records a packet that was dropped, and says whether it makes a burst of errors of which nobody knows yet.
func (f *Flight) Drop(r *Record) (burst bool) {
	f.records[passedKept+f.dropped%droppedKept] = *r
	f.dropped++
	if packet.Drops[r.Reason].Severity == packet.Normal {
		return false
	}
	if f.burst == 0 || r.At-f.burstAt > burstWithin {
		f.burst, f.burstAt = 0, r.At
	}
	f.burst++
	if f.burst < burstDrops || f.toldAt != 0 && r.At-f.toldAt < burstAgain {
		return false
	}
	f.toldAt = max(r.At, 1)
	return true
}

// Records returns what is recorded, the oldest first, and how much was in all.
func (f *Flight) Records() (list []Record, passed, dropped uint64) {
	list = append(list, f.records[:min(f.passed, passedKept)]...)
	list = append(list, f.records[passedKept:passedKept+min(f.dropped, droppedKept)]...)
	slices.SortStableFunc(list, func(a, b Record) int { return int(min(max(a.At-b.At, -1), 1)) })
	return list, f.passed, f.dropped
}

// InboundFlight and OutboundFlight return the recorder of an association in a slot that was looked up.
func (t *Table) InboundFlight(slot uint32) *Flight  { return &t.flights[in][slot] }
func (t *Table) OutboundFlight(slot uint32) *Flight { return &t.flights[out][slot] }

// RecordOf returns a record of packet i as its headers stand in the frame. A header that was not found whole gives no addresses.
func RecordOf(b *packet.Batch, i int, now int64) Record {
	p := &b.P[i]
	r := Record{At: now, Sequence: p.Seq, Len: p.End - p.L3, Flags: p.Flags, Proto: p.Proto, TOS: p.TOS, TTL: p.TTL, SrcPort: p.SrcPort, DstPort: p.DstPort, Reason: p.Reason}
	if length := int(p.End) - int(p.L3); p.Version == 4 && length >= 20 || p.Version == 6 && length >= 40 {
		flow := packet.FlowOf(b, i)
		r.Src, r.Dst, r.Version = flow.Src, flow.Dst, p.Version
	}
	return r
}

// Flown is a copy of one association's recorder.
type Flown struct {
	Name            string
	Handle          Handle
	SPI             uint32
	Records         []Record
	Passed, Dropped uint64
}

// Flight copies the recorder of an association. The caller is its owner between two batches, or nobody owns it; ok is false if
// that is not so, or it is gone.
func (t *Table) Flight(h Handle, worker int) (f Flown, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, _, _, _ := t.carried(h)
	if p == nil {
		return f, false
	}
	var flight *Flight
	var owner int
	if h.Inbound() {
		a := t.LookupInbound(h.Value())
		flight, owner = t.InboundFlight(a.Slot), t.InboundHead(a).Owner()
	} else {
		a := t.LookupOutbound(h.Value())
		flight, owner = t.OutboundFlight(a.Slot), t.OutboundHead(a).Owner()
	}
	if owner >= 0 && owner != worker {
		return f, false
	}
	f = Flown{Name: p.Name, Handle: h, SPI: p.SPI}
	f.Records, f.Passed, f.Dropped = flight.Records()
	return f, true
}
