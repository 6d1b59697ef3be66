package ikesa

import (
	"slices"
	"time"

	"sallyport/ike/message"
)

// liveness is an INFORMATIONAL request without payloads: any authentic answer shows
// that the peer lives (RFC 7296, 2.4).
type liveness struct{}

func (*liveness) allowed(s *SA) bool { return s.state == StateEstablished }

func (*liveness) build(s *SA, _ time.Time, _ *Outputs) (message.ExchangeType, []message.Payload, bool) {
	return message.Informational, s.natHints(), true
}

func (*liveness) process(s *SA, now time.Time, m *message.Message, out *Outputs) bool {
	s.natAnswer(now, m, out)
	s.report(out, Event{Kind: EventExchange, Exchange: m.Header.Exchange, MessageID: m.Header.MessageID, Initiator: true})
	return false
}

func (*liveness) drop(*SA) {}

// childDelete deletes one child (RFC 7296, 1.4.1).
type childDelete struct {
	spi    uint32 // our inbound one
	reason Reason
	never  bool // the child was never installed here; only the peer has it
	// protocol is ESP or AH, of a child that was never installed.
	protocol message.ProtocolID
}

// allowed waits until the peer is sure to have the child.
func (t *childDelete) allowed(s *SA) bool {
	c := s.childBySPIIn(t.spi)
	return s.unhindered() && (c == nil || c.proofAt.IsZero())
}

func (t *childDelete) build(s *SA, _ time.Time, _ *Outputs) (message.ExchangeType, []message.Payload, bool) {
	protocol := t.protocol
	if c := s.childBySPIIn(t.spi); c != nil {
		c.state = childDeleting
		protocol = c.choice.Protocol()
	} else if !t.never {
		return 0, nil, false
	}
	return message.Informational, []message.Payload{&message.Delete{Protocol: protocol, SPIs: []uint32{t.spi}}}, true
}

// process removes the child whatever the answer says: who has no such child says
// nothing of it.
func (t *childDelete) process(s *SA, now time.Time, m *message.Message, out *Outputs) bool {
	s.report(out, Event{Kind: EventExchange, Exchange: m.Header.Exchange, MessageID: m.Header.MessageID, Initiator: true, SPI: t.spi})
	if c := s.childBySPIIn(t.spi); c != nil {
		s.remove(c, t.reason, out)
	} else if t.never {
		s.env.ReleaseChildSPI(t.spi)
	}
	return false
}

func (t *childDelete) drop(s *SA) {
	if t.never {
		s.env.ReleaseChildSPI(t.spi)
	}
}

// ikeDelete says goodbye. Before anything else that waits.
type ikeDelete struct {
	unheard bool // the request before it was not answered
}

// tries is how often the goodbye is repeated, at most as often as configured.
func (t *ikeDelete) tries(s *SA) int {
	switch configured := s.retransmit().Tries; {
	case t.unheard:
		return min(1, configured)
	case s.reason == ReasonReauthenticated: // see deleteIKE
		return configured
	default:
		return min(deleteTries, configured)
	}
}

// lastWord gives up a request that is not answered while the delete waits for the window: perhaps the peer lives, has it, and only its
// answers are lost. Then it takes the delete, and need not find out by itself that we are gone. False if there is no more to say.
func (s *SA) lastWord() bool {
	for i := range s.queue {
		if t, ok := s.queue[i].task.(*ikeDelete); ok {
			t.unheard = true
			s.dropRequest()
			return true
		}
	}
	return false
}

func (*ikeDelete) allowed(s *SA) bool { return s.state == StateDeleting }

func (*ikeDelete) build(*SA, time.Time, *Outputs) (message.ExchangeType, []message.Payload, bool) {
	return message.Informational, []message.Payload{&message.Delete{Protocol: message.ProtocolIKE}}, true
}

func (*ikeDelete) process(s *SA, now time.Time, _ *message.Message, out *Outputs) bool {
	s.end(now, s.reason, out)
	return false
}

func (*ikeDelete) drop(*SA) {}

// deleteIKE deletes the SA at the peer, too, once the window is open.
func (s *SA) deleteIKE(now time.Time, reason Reason, out *Outputs) {
	switch {
	case s.state == StateEnded || s.state == StateDeleting:
		return
	case s.state < StateEstablished:
		s.end(now, reason, out) // the peer forgets a half-open SA by itself
		return
	}
	s.state, s.reason = StateDeleting, reason
	s.report(out, Event{Kind: EventEnding, Reason: reason})
	s.rekeyAt, s.reauthAt, s.livenessAt, s.keepaliveAt, s.expireAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}, time.Time{}
	for _, q := range s.queue {
		q.task.drop(s)
	}
	s.queue = nil
	// A peer that may be dead does not hold up the goodbye for minutes. One that has just authenticated itself anew lives, and if it did not
	// hear of the end, it would go on sending by what this SA had.
	if s.request != nil && reason != ReasonReauthenticated {
		s.request.triesMax = min(s.request.triesMax, s.request.tries+1)
	}
	s.add(&ikeDelete{}, now)
}

// informationalRequest answers INFORMATIONAL: deletes, liveness checks, addresses.
func (s *SA) informationalRequest(now time.Time, m *message.Message, a *answer, out *Outputs) error {
	var esp, ah []uint32
	owner := s.own() // a delete that crossed a rekey of the IKE SA means the successor's children
	for d := range message.All[*message.Delete](m) {
		switch d.Protocol {
		case message.ProtocolIKE:
			return s.deletedByPeer(now, a, out)
		case message.ProtocolESP, message.ProtocolAH:
			for _, spi := range d.SPIs {
				answer := owner.childDeletedByPeer(now, spi, a)
				switch {
				case answer == 0:
				case d.Protocol == message.ProtocolAH:
					ah = append(ah, answer)
				default:
					esp = append(esp, answer)
				}
			}
		}
	}
	if owner != s {
		a.after = append(a.after, Touched{owner})
	}
	if len(esp) > 0 {
		a.payloads = append(a.payloads, &message.Delete{Protocol: message.ProtocolESP, SPIs: esp})
	}
	if len(ah) > 0 {
		a.payloads = append(a.payloads, &message.Delete{Protocol: message.ProtocolAH, SPIs: ah})
	}
	if n := m.ErrorNotify(); n != nil {
		// RFC 7296, 2.21.2: the initiator tells here that it could not authenticate us; other
		// errors are about nothing that we asked.
		switch n.Notify {
		case message.AuthenticationFailed:
			a.end = ReasonAuthentication
			return nil
		case message.InvalidSyntax:
			a.end = ReasonSyntax
			return nil
		}
	}
	if p, ok := message.First[*message.Config](m); ok {
		a.payloads = append(a.payloads, configAnswer(p))
	}
	return s.mobikeRequest(now, m, a, out)
}

// deletedByPeer ends the SA with the answer (RFC 7296, 2.25.2: whatever we were about
// to do with it).
func (s *SA) deletedByPeer(now time.Time, a *answer, out *Outputs) error {
	a.end = ReasonDeletedByPeer
	switch {
	case s.state == StateDeleting:
		a.end = s.reason
	case s.successor != nil:
		a.end = ReasonRekeyed
	case s.predecessor != nil || s.redundant:
		a.end = ReasonRedundant
	case s.collision != nil && s.collision.successor != nil:
		// The peer has decided the collision; our own rekey is forgotten.
		s.handOver(now, s.collision.successor, out)
		a.end = ReasonRekeyed
	}
	return nil
}

// childDeletedByPeer removes the child whose peer's inbound SPI is named, and returns
// ours for the answer. If our own delete of it is on its way the answer has none
// (RFC 7296, 1.4.1).
func (s *SA) childDeletedByPeer(now time.Time, spi uint32, a *answer) uint32 {
	c := s.childBySPIOut(spi)
	if c == nil {
		return 0
	}
	reason := ReasonDeletedByPeer
	switch {
	case c.redundant:
		reason = ReasonRedundant
	case c.state == childRekeyed || slices.ContainsFunc(s.children, func(o *child) bool { return o.replaces == c.spiIn }):
		reason = ReasonRekeyed
	}
	crossing := false
	if s.request != nil {
		t, ok := s.request.task.(*childDelete)
		if crossing = ok && t.spi == c.spiIn; crossing {
			reason = t.reason
		}
	}
	var after Outputs
	s.remove(c, reason, &after)
	a.after = append(a.after, after.Actions...)
	s.keepPredecessor(now, c)
	if crossing {
		return 0
	}
	return c.spiIn
}

// keepPredecessor has a child live on whose successor the peer has deleted first: its rekey lost against one of ours, of which perhaps
// nothing came.
func (s *SA) keepPredecessor(now time.Time, gone *child) {
	old := s.childBySPIIn(gone.replaces)
	if old == nil {
		return
	}
	if x := old.collision; x != nil && x.spi == gone.spiIn {
		old.collision = nil
	}
	replaced := func(o *child) bool { return o.replaces == old.spiIn }
	if old.state != childRekeyed || slices.ContainsFunc(s.children, replaced) {
		return
	}
	old.state, old.expireAt = childUp, time.Time{}
	if t := old.conf.LifeTime; t > 0 {
		old.expireAt = old.created.Add(t)
	}
	s.add(&childExchange{conf: old.conf, old: old}, s.retryAt(now))
}
