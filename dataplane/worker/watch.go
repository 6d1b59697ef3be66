package worker

import (
	"net/netip"
	"sync/atomic"

	"sallyport/dataplane/fib"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
)

// Stage is a step of the packet path, as a trace names it.
type Stage uint8

// The stages, in the order of [Worker.Step].
const (
	StageTake Stage = iota
	StageClassify
	StageClaim
	StageVerify // AH around ESP
	StageOpen
	StageRoute
	StageAdmit
	StageSeal
	StageSign // AH around ESP
	StageForward
	StageSend
	stageEnd
)

var stageNames = [...]string{"take", "classify", "claim", "verify", "open", "route", "admit", "seal", "sign", "forward", "send"}

func (s Stage) String() string { return stageNames[s] }

// Filter chooses packets for a trace or a capture. The zero value of a field is any. A packet is chosen if it fits at one
// stage: an ESP packet by its outer addresses as well as by those of what was in it.
type Filter struct {
	Src, Dst, Host netip.Prefix // Host is one of the two
	Port           uint16       // one of the two
	Proto          uint8
	// Dropped asks for packets that are dropped, Reason for one reason.
	Dropped bool
	Reason  packet.Drop
	// Of asks for packets of these associations. Whoever made the filter may put another set in its place.
	Of atomic.Pointer[Associations]
}

// Associations is a set of associations: all by SPI, and the outbound ones also by the values of their handles, by which
// packets go until they are sealed.
type Associations struct{ SPIs, Outbound map[uint32]struct{} }

// have tells whether packet p goes by one of the associations, or came by one.
func (a *Associations) have(p *packet.Packet) (ok bool) {
	sealed := p.Flags&packet.FlagSealed != 0
	switch {
	case p.Class == packet.ClassOutbound && !sealed:
		_, ok = a.Outbound[p.SPI]
	case p.Class == packet.ClassInbound || sealed || p.Flags&packet.FlagDecapsulated != 0:
		_, ok = a.SPIs[p.SPI]
	}
	return ok
}

// fits judges a packet at one stage.
func (f *Filter) fits(m *Moment) bool {
	p := &m.Packet
	if f.Dropped && p.Reason == packet.DropNone || f.Reason != packet.DropNone && p.Reason != f.Reason {
		return false
	}
	if of := f.Of.Load(); of != nil && !of.have(p) {
		return false
	}
	if f.Src.IsValid() || f.Dst.IsValid() || f.Host.IsValid() {
		if m.Flow.Version == 0 {
			return false
		}
		src, dst := m.Flow.SrcAddr(), m.Flow.DstAddr()
		if f.Src.IsValid() && !f.Src.Contains(src) || f.Dst.IsValid() && !f.Dst.Contains(dst) ||
			f.Host.IsValid() && !f.Host.Contains(src) && !f.Host.Contains(dst) {
			return false
		}
	}
	if f.Port != 0 && (m.Flow.Flags&packet.FlagPorts == 0 || m.Flow.SrcPort != f.Port && m.Flow.DstPort != f.Port) {
		return false
	}
	return f.Proto == 0 || m.Flow.Version != 0 && m.Flow.Proto == f.Proto
}

// Moment is a packet right after a stage that did something with it.
type Moment struct {
	Stage  Stage
	At     int64 // on the workers' clock
	Packet packet.Packet
	Flow   packet.Flow // Version is 0 before the packet is parsed
	// Owner is the worker that a handed-over packet goes to; Handed says that it does. Parked says that it waits for its neighbour.
	Owner          int
	Handed, Parked bool
	// Window is the size of the inbound association's replay window and Highest its highest sequence number; 0 elsewhere.
	Window  uint32
	Highest uint64
}

// Traced is the way of one packet through one step of one worker.
type Traced struct {
	Worker  int
	N       int              // moments in use
	Moments [stageEnd]Moment // a packet passes through no stage twice

	chosen, gone bool
}

// tracedSlots bounds the traces of one worker that wait for their reader.
const tracedSlots = 128

// Tracer follows packets through one worker. The reader takes what it found with Each.
type Tracer struct {
	filter *Filter
	left   *atomic.Int64 // packets still to trace, of all workers
	out    *ring[Traced]
	batch  [packet.BatchMax]Traced
}

// NewTracer returns a tracer that stops by itself when left, shared by the tracers of all workers, is used up.
func NewTracer(f *Filter, left *atomic.Int64) *Tracer {
	return &Tracer{filter: f, left: left, out: newRing[Traced](tracedSlots)}
}

// Each calls f with what was traced since the last call. Only one goroutine may.
func (t *Tracer) Each(f func(*Traced)) { t.out.each(func(_ uint64, v *Traced) { f(v) }) }

// Trace makes t follow the worker's packets; nil ends it. Only through Call.
func (w *Worker) Trace(t *Tracer) { w.tracer = t; w.watched = w.tracer != nil || w.capturer != nil }

// Capture makes c copy the worker's packets; nil ends it. Only through Call.
func (w *Worker) Capture(c *Capturer) {
	w.capturer = c
	w.watched = w.tracer != nil || w.capturer != nil
}

// observe lets those who watch see the batch right after a stage.
func (w *Worker) observe(s Stage) {
	if w.watched {
		w.watch(s)
	}
}

//go:noinline
func (w *Worker) watch(s Stage) {
	if s == StageTake {
		clear(w.answered[:w.batch.N])
	}
	if w.tracer != nil {
		w.tracer.after(w, s)
	}
	if w.capturer != nil {
		w.capturer.after(w, s)
	}
}

// after records every packet that the stage changed, and at the end of the step gives those that were chosen to the reader.
func (t *Tracer) after(w *Worker, s Stage) {
	if t.left.Load() <= 0 {
		return
	}
	now := monotonic()
	leaving := w.leaving(s)
	for i := range w.batch.N {
		tr, p := &t.batch[i], &w.batch.P[i]
		if s == StageTake {
			*tr = Traced{Worker: w.ID}
		} else if tr.gone || leaving&(1<<i) == 0 && *p == tr.Moments[tr.N-1].Packet && w.answered[i] == packet.DropNone {
			continue
		}
		m := &tr.Moments[tr.N]
		*m = w.moment(i, s)
		m.At = now
		tr.N++
		if tr.N > 1 && p.Handovers > tr.Moments[tr.N-2].Packet.Handovers {
			m.Handed, m.Owner = true, w.ownerOf(p)
		}
		tr.gone = m.Handed || m.Packet.Reason != packet.DropNone
		tr.chosen = tr.chosen || t.filter.fits(m)
	}
	if s == StageSend {
		t.commit(w.batch.N)
	}
}

// leaving returns the packets, a bit each, that StageSend has sent, parked or handed over; none for other stages.
func (w *Worker) leaving(s Stage) (set uint64) {
	if s != StageSend {
		return 0
	}
	l := &w.lists
	for _, list := range [...][]uint8{l.ike, l.forward, l.out, l.punt, l.transmit} {
		for _, i := range list {
			set |= 1 << i
		}
	}
	return set
}

// moment describes packet i right after a stage.
func (w *Worker) moment(i int, s Stage) Moment {
	m := Moment{Stage: s, Packet: w.batch.P[i]}
	p := &m.Packet
	if w.answered[i] != packet.DropNone {
		p.Reason = w.answered[i]
	}
	switch {
	case p.L3 == 0 || p.Reason != packet.DropNone && p.Reason < packet.DropMartian || p.Reason == packet.DropBadInner:
		// not parsed, or not to the end
	case s >= StageSeal && p.Class == packet.ClassOutbound && p.Reason == packet.DropNone:
		m.Flow = packet.FlowOf(&w.batch, i)
	default:
		m.Flow = w.batch.Flows[i]
	}
	if in := w.inboundOf(p, i); in != nil && s >= StageClaim && s <= StageOpen {
		m.Window, m.Highest = in.Window.Size(), in.Window.Top()
	}
	if s == StageSend && (p.Class == packet.ClassOutbound || p.Class == packet.ClassForward) {
		m.Parked = w.tables.FIB.Hops[p.Hop].Kind == fib.Unresolved
	}
	return m
}

// inboundOf returns the inbound association that packet i came for, if this worker owns it.
func (w *Worker) inboundOf(p *packet.Packet, i int) *sad.Inbound {
	in := w.inbound[i]
	if in == nil || in.SPI != p.SPI || w.group.sad.InboundHead(in).Owner() != w.ID || p.Class != packet.ClassInbound {
		return nil
	}
	return in
}

// ownerOf returns the worker that the association of p belongs to, or the one that sends on its port; -1 if nobody does.
func (w *Worker) ownerOf(p *packet.Packet) int {
	switch p.Class {
	case packet.ClassInbound:
		if sa := w.group.sad.LookupInbound(p.SPI); sa != nil {
			return sa.Owner()
		}
	case packet.ClassOutbound:
		if sa := w.group.sad.LookupOutbound(p.SPI); sa != nil {
			return sa.Owner()
		}
	case packet.ClassTransmit:
		if int(p.Port) < len(w.txOwner) {
			return w.txOwner[p.Port]
		}
	}
	return -1
}

// commit gives the chosen packets of the batch to the reader, as many as are still wanted.
func (t *Tracer) commit(n int) {
	for i := range n {
		tr := &t.batch[i]
		if !tr.chosen {
			continue
		}
		if t.left.Add(-1) < 0 {
			break
		}
		if !t.out.push(*tr) {
			t.left.Add(1) // the reader is behind; another packet will do
			break
		}
	}
	t.out.publish()
}

// Captured says what of a packet was copied.
type Captured struct {
	At     int64 // on the workers' clock
	Packet packet.Packet
	// Port is that by which the packet came or leaves; Sent says which.
	Port uint16
	Sent bool
	Len  int // bytes on the wire; what was copied may be less
}

// captureSlots bounds the copies of one worker that wait for their reader.
const captureSlots = 4096

// Capturer copies packets of one worker: as they arrive, and as they leave.
type Capturer struct {
	filter *Filter
	snap   int
	out    *ring[Captured]
	data   []byte // snap bytes for each slot of out
	// Lost counts packets that were chosen while all slots were in use.
	Lost atomic.Uint64

	arrived   [packet.BatchMax]Captured
	handovers [packet.BatchMax]uint8 // of each packet before this step
	taken     []byte                 // snap bytes for each packet of the batch, as it arrived
	chosen    [packet.BatchMax]bool
}

// NewCapturer returns a capturer of the first snap bytes of packets.
func NewCapturer(f *Filter, snap int) *Capturer {
	return &Capturer{filter: f, snap: snap, out: newRing[Captured](captureSlots), data: make([]byte, captureSlots*snap), taken: make([]byte, packet.BatchMax*snap)}
}

// Each calls f with what was captured since the last call; data is good until f returns. Only one goroutine may.
func (c *Capturer) Each(f func(v *Captured, data []byte)) {
	c.out.each(func(slot uint64, v *Captured) {
		at := int(slot) * c.snap
		f(v, c.data[at:at+min(v.Len, c.snap)])
	})
}

// after copies what arrives before it is changed in place, judges it at every stage, and copies what leaves.
func (c *Capturer) after(w *Worker, s Stage) {
	now := monotonic()
	b := &w.batch
	for i := range b.N {
		p := &b.P[i]
		if s == StageTake {
			c.chosen[i], c.handovers[i] = false, p.Handovers
			c.arrived[i] = Captured{At: now, Port: p.Port, Len: int(p.Len)}
			if p.Class == packet.ClassNone || p.Handovers > 0 && untouched(p) {
				copy(c.taken[i*c.snap:(i+1)*c.snap], b.Frame(i))
			} else {
				c.arrived[i].Len = 0 // it arrived in another step
			}
		}
		if !c.chosen[i] {
			m := w.moment(i, s)
			c.chosen[i] = c.filter.fits(&m)
		}
	}
	if s != StageSend {
		return
	}
	leaving := w.leaving(s)
	for i := range b.N {
		if !c.chosen[i] {
			continue
		}
		p := &b.P[i]
		// What another worker was handed as it arrived, that one copies, since it will know what became of it.
		handed := p.Reason == packet.DropNone && p.Handovers > c.handovers[i] && untouched(p)
		if a := &c.arrived[i]; a.Len > 0 && !handed {
			a.Packet = w.moment(i, s).Packet
			c.put(a, c.taken[i*c.snap:(i+1)*c.snap])
		}
		if p.Reason == packet.DropNone && leaving&(1<<i) != 0 {
			c.left(w, i, now)
		}
	}
	c.out.publish()
}

// untouched says that a packet, if it is handed over, still is as it arrived.
func untouched(p *packet.Packet) bool {
	const made = packet.FlagLocal | packet.FlagRouted | packet.FlagSealed | packet.FlagDecapsulated
	return p.Flags&made == 0 && (p.Class == packet.ClassInbound || p.Class == packet.ClassOutbound)
}

// left copies packet i if this step put it on a port's queue, and not into the hands of another worker or of the wait for its neighbour.
func (c *Capturer) left(w *Worker, i int, now int64) {
	p := &w.batch.P[i]
	if int(p.Port) >= len(w.tx) || w.tx[p.Port] == nil || w.moment(i, StageSend).Parked {
		return
	}
	c.put(&Captured{At: now, Packet: *p, Port: p.Port, Sent: true, Len: int(p.Len)}, w.batch.Frame(i))
}

func (c *Capturer) put(v *Captured, data []byte) {
	slot, ok := c.out.slot()
	if !ok {
		c.Lost.Add(1)
		return
	}
	at := int(slot) * c.snap
	copy(c.data[at:at+c.snap], data)
	c.out.push(*v)
}
