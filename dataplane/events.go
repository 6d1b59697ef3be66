package dataplane

import (
	"net/netip"
	"time"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/worker"
)

// EventKind says what an [Event] tells.
type EventKind uint8

const (
	// EventAcquire: a packet needs an outbound association and its tunnel has none. At most one a second
	// and tunnel.
	EventAcquire EventKind = iota
	// EventSoft: an association has carried so much that it should be replaced. Once.
	EventSoft
	// EventHard: an association has carried all that it may, and is removed.
	EventHard
	// EventPeerMoved: the newest authenticated packet of a roaming inbound association came from
	// another address or port than its peer's (RFC 7296, 2.23). At most one a second and association.
	EventPeerMoved
	// EventPathDoubted: an ICMP error that may be true says that less arrives at the peer of an outbound association than was known.
	EventPathDoubted
)

func (k EventKind) String() string {
	return [...]string{"acquire", "soft-lifetime", "hard-lifetime", "peer-moved", "path-doubted"}[k]
}

// Event is something on the packet path that key management should know. Which fields are set depends on
// the kind.
type Event struct {
	Kind EventKind
	// Tunnel and Flow of EventAcquire: the number in the policy, and the packet.
	Tunnel uint32
	Flow   packet.Flow
	// Handle of the association, with its SPI as on the wire; but for EventAcquire.
	Handle sad.Handle
	SPI    uint32
	// Cause of EventSoft and EventHard: which limit was reached.
	Cause sad.Cause
	// Remote of EventPeerMoved: where the packet came from. The port is 0 if it was not in UDP.
	Remote netip.AddrPort
}

// HandleEvents names the receiver of events. It is called by one goroutine. While it does not return, events
// wait in a bounded ring for each worker; what finds it full is lost and counted. Before Start.
func (e *Engine) HandleEvents(f func(Event)) { e.events = f }

// listen hands events on until Stop.
func (e *Engine) listen() {
	defer e.others.Done()
	for {
		select {
		case <-e.done:
			return
		default:
		}
		if e.group.Events(e.hear) == 0 {
			e.group.WaitEvents(listenMax)
		}
	}
}

// listenMax bounds a sleep of listen, which Close ends.
const listenMax = 2 * time.Second

// hear translates a worker's event, and does itself what needs no key management.
func (e *Engine) hear(w *worker.Event) {
	if w.Kind == worker.EventComplaint {
		e.complain(w)
		return
	}
	ev := Event{Kind: EventAcquire, Tunnel: w.Tunnel, Flow: w.Flow, Handle: w.Handle}
	if w.Kind != worker.EventAcquire {
		u, ok := e.sad.Usage(w.Handle)
		if !ok || e.retired.retires(w.Handle) {
			return // replaced meanwhile
		}
		ev.SPI = u.SPI
	}
	switch w.Kind {
	case worker.EventBurst:
		e.burst(w.Handle, w.Reason)
		return
	case worker.EventBound:
		cause, hard, err := e.sad.Expire(w.Handle)
		if err != nil {
			return
		}
		ev.Kind, ev.Cause = EventSoft, cause
		if hard {
			ev.Kind = EventHard
			e.Remove(w.Handle)
		}
	case worker.EventMoved:
		ev.Kind, ev.Remote = EventPeerMoved, netip.AddrPortFrom(w.Source.Netip(w.Version), w.Port)
	}
	if e.events != nil {
		e.events(ev)
	}
}
