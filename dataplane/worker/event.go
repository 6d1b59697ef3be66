package worker

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/dataplane/esp"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
)

// EventKind says what an [Event] tells.
type EventKind uint8

const (
	// EventAcquire: a packet of tunnel Tunnel, Flow, found no outbound association.
	EventAcquire EventKind = iota
	// EventBound: association Handle has reached a bound of its lifetime.
	EventBound
	// EventMoved: the newest packet of association Handle came from Source and Port.
	EventMoved
	// EventBurst: many packets of association Handle were dropped within a second, the last one for Reason.
	EventBurst
	// EventComplaint: an ICMP error about an ESP packet of ours. Flow is the outer packet's.
	EventComplaint
)

// Event is what a worker tells key management. It holds no pointer.
type Event struct {
	Kind    EventKind
	Version uint8 // of Source
	Port    uint16
	Tunnel  uint32
	Handle  sad.Handle
	Reason  packet.Drop
	Source  packet.Addr
	Flow    packet.Flow
	Error   Error
}

// Error is what an ICMP error says, and what it quotes of an ESP packet.
type Error struct {
	SPI, Sequence uint32
	Length        int // of the packet, bytes
	Type, Code    uint8
	MTU           int // of a packet that was too big; 0: it does not tell
}

// eventSlots bounds the events of one worker that wait.
const eventSlots = 1024

// againAfter is how long one tunnel's or association's event is not repeated, in nanoseconds.
const againAfter = int64(time.Second)

// recent remembers which events were told of late. It is a small table in which newcomers displace the old: an event may be
// repeated too early, but none is kept from being told.
type recent [4096]struct {
	key uint64
	at  int64 // 0: empty
}

// again says whether the event of key may be told at the time now, and takes note of it.
func (r *recent) again(key uint64, now int64) bool {
	e := &r[key*0x9e3779b97f4a7c15>>52]
	if e.key == key && e.at != 0 && now-e.at < againAfter {
		return false
	}
	e.key, e.at = key, max(now, 1)
	return true
}

// acquire tells that packet i of a tunnel found no outbound association.
func (w *Worker) acquire(tunnel uint32, flow *packet.Flow) {
	if w.told.again(uint64(tunnel), w.now) {
		w.tell(Event{Kind: EventAcquire, Tunnel: tunnel, Flow: *flow})
	}
}

// movedKey keeps the events of associations apart from those of tunnels.
const movedKey = 1 << 32

// report passes on what the stages found out about associations.
func (w *Worker) report() {
	for i := range w.esp.Reports {
		r := &w.esp.Reports[i]
		switch {
		case r.Moved:
			if w.told.again(movedKey|uint64(r.Inbound.SPI), w.now) {
				w.tell(Event{Kind: EventMoved, Handle: sad.InboundHandle(r.Inbound.SPI), Source: r.Source, Version: r.Version, Port: r.Port})
			}
		case r.Inbound != nil:
			if w.tell(Event{Kind: EventBound, Handle: sad.InboundHandle(r.Inbound.SPI)}) {
				in := r.Inbound
				in.Told(w.group.sad.InboundTerms(in.Slot), in.Bytes.Load(), in.Packets.Load())
			}
		default:
			if w.tell(Event{Kind: EventBound, Handle: r.Outbound.Handle()}) {
				o := r.Outbound
				o.Told(w.group.sad.OutboundTerms(o.Slot), o.Bytes.Load(), o.Packets.Load())
			}
		}
		*r = esp.Report{}
	}
	w.esp.Reports = w.esp.Reports[:0]
}

// tell puts an event on the worker's ring; false if it is full.
func (w *Worker) tell(e Event) bool {
	if !w.events.push(e) {
		w.Counters.EventsLost.Add(1)
		return false
	}
	return true
}

// listener is the goroutine that reads the workers' events, as they see it.
type listener struct {
	eventfd int
	asleep  atomic.Bool
}

func (l *listener) wake() {
	if l.asleep.Load() && l.asleep.Swap(false) {
		one := [8]byte{1}
		unix.Write(l.eventfd, one[:])
	}
}

// Events shows f every event that waits, and returns how many. It belongs to one goroutine.
func (g *Group) Events(f func(*Event)) (n int) {
	for _, w := range g.Workers {
		for k := w.events.take(g.heard[:]); k > 0; k = w.events.take(g.heard[:]) {
			for i := range g.heard[:k] {
				f(&g.heard[i])
			}
			n += k
		}
	}
	return n
}

// WaitEvents returns when there may be events, after Interrupt, or after d. It belongs to the goroutine of Events.
func (g *Group) WaitEvents(d time.Duration) {
	g.listener.asleep.Store(true)
	waiting := false
	for _, w := range g.Workers {
		waiting = waiting || !w.events.empty()
	}
	if !waiting {
		unix.Poll([]unix.PollFd{{Fd: int32(g.listener.eventfd), Events: unix.POLLIN}}, int(d.Milliseconds()))
	}
	g.listener.asleep.Store(false)
	var b [8]byte
	unix.Read(g.listener.eventfd, b[:])
}

// Interrupt ends a WaitEvents that is under way.
func (g *Group) Interrupt() {
	g.listener.asleep.Store(true)
	g.listener.wake()
}
