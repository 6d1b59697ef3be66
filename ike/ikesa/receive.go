package ikesa

import (
	"bytes"
	"errors"
	"time"

	"sallyport/ike/message"
)

// Receive takes a datagram whose SPI led here. Its Data belongs to the SA from now
// on: it is decrypted in place, and may be kept. The cheap checks come first: nothing is decrypted that the window or the
// state does not let in.
func (s *SA) Receive(now time.Time, d Datagram, out *Outputs) {
	if s.state == StateEnded {
		return
	}
	h, err := message.ParseHeader(d.Data)
	if err == nil {
		err = s.belongs(h)
	}
	if err != nil {
		s.discard(h, err, out)
		return
	}
	if h.Exchange == message.IKESAInit {
		s.receiveInit(now, d, h, out)
	} else if h.IsResponse() {
		s.receiveResponse(now, d, h, out)
	} else {
		s.receiveRequest(now, d, h, out)
	}
	s.run(now, out)
}

// belongs checks SPIs and direction.
func (s *SA) belongs(h message.Header) error {
	if s.state == StateCreated && !s.initiator {
		if h.Exchange != message.IKESAInit || h.IsResponse() || !h.FromInitiator() || h.ResponderSPI != 0 || h.MessageID != 0 {
			return ReasonState
		}
		return nil
	}
	if h.FromInitiator() == s.initiator {
		return ReasonReflected
	}
	if h.InitiatorSPI != s.spiI {
		return ReasonWrongSPI
	}
	// An initiator that follows several answers finds the one that it belongs to later.
	// IKE_SA_INIT may be without the responder's SPI.
	if h.ResponderSPI != s.spiR && h.Exchange != message.IKESAInit && !(s.initiator && s.state < StateEstablished) {
		return ReasonWrongSPI
	}
	return nil
}

// discard counts a datagram that is not taken up.
func (s *SA) discard(h message.Header, err error, out *Outputs) {
	s.report(out, Event{Kind: EventDrop, Reason: ReasonOf(err), Exchange: h.Exchange, MessageID: h.MessageID, Initiator: h.IsResponse(), Err: err})
}

// receiveRequest takes a protected request.
func (s *SA) receiveRequest(now time.Time, d Datagram, h message.Header, out *Outputs) {
	switch {
	case s.opener == nil:
		s.discard(h, ReasonState, out)
	case h.MessageID == s.nextIn && s.nextIn <= messageIDMax:
		if !s.requestAllowed(h.Exchange) {
			s.discard(h, ReasonState, out)
			return
		}
		m, err := s.open(now, d, &s.asked)
		switch {
		case m == nil && err == nil: // more fragments to come
		case err != nil && (m == nil || !m.Opened()):
			s.discard(h, err, out) // nothing of it changes the SA (RFC 7296, 2.21)
		default:
			s.heard(now, out)
			s.follow(d, out)
			if err == nil {
				err = message.Check(m)
			}
			s.takeRequest(now, d, m, err, out)
		}
	case h.MessageID == s.nextIn-1 && len(s.answer) > 0:
		s.receiveRepeated(now, d, h, out)
	default:
		s.discard(h, ReasonWindow, out)
	}
}

// receiveRepeated sends the last answer again, if the request is authentic and, of
// fragments, the first (RFC 7383, 2.6.1).
func (s *SA) receiveRepeated(now time.Time, d Datagram, h message.Header, out *Outputs) {
	m, err := message.Parse(d.Data)
	if err == nil {
		if number, _, fragment := m.Fragment(); fragment {
			if number != 1 {
				s.discard(h, ReasonFragmentStale, out)
				return
			}
			var alone message.Reassembler
			_, err = alone.Add(now, m, s.repeater)
		} else {
			err = m.Open(s.repeater)
		}
	}
	if err != nil && (m == nil || !m.Opened()) && !fragmentAuthentic(err) {
		s.discard(h, err, out)
		return
	}
	s.report(out, Event{Kind: EventRetransmit, Exchange: h.Exchange, MessageID: h.MessageID, N: 1})
	s.repeat(d, out)
}

// fragmentAuthentic says whether a single fragment was refused only after its checksum was found right.
func fragmentAuthentic(err error) bool {
	var e *message.Error
	return errors.As(err, &e) && e.Notify != 0
}

// open parses a datagram and decrypts it. It returns nil, nil while fragments are
// missing, and a message with an error if what is inside is malformed.
func (s *SA) open(now time.Time, d Datagram, fragments **message.Reassembler) (*message.Message, error) {
	m, err := message.Parse(d.Data)
	if err != nil {
		return nil, err
	}
	_, _, ok := m.Fragment()
	if !ok {
		*fragments = nil // a whole message makes fragments of it superfluous
		return m, m.Open(s.opener)
	}
	if s.conn != nil && s.conn.Fragmentation == FragmentationNo {
		return nil, &fault{reason: ReasonFragment}
	}
	if *fragments == nil {
		*fragments = new(message.Reassembler)
	}
	whole, err := (*fragments).Add(now, m, s.opener)
	if !(*fragments).Pending() {
		*fragments = nil
	}
	return whole, err
}

// receiveResponse takes a protected response.
func (s *SA) receiveResponse(now time.Time, d Datagram, h message.Header, out *Outputs) {
	if s.initiator && s.state < StateEstablished && s.handshake != nil && len(s.handshake.rivals) > 0 {
		if s.rivalReceive(now, d, h, out) {
			return
		}
	}
	r := s.request
	switch {
	case h.ResponderSPI != s.spiR:
		s.discard(h, ReasonWrongSPI, out)
		return
	case r == nil || h.MessageID != r.id || h.Exchange != r.exchange:
		s.hintOrDiscard(now, d, h, out)
		return
	case r.exchange == message.IKESAInit || s.opener == nil:
		s.discard(h, ReasonState, out)
		return
	}
	m, err := s.open(now, d, &s.answered)
	if m == nil && err == nil {
		return
	}
	if err != nil && (m == nil || !m.Opened()) {
		if errors.Is(err, &message.Error{Reason: message.ReasonNotProtected}) {
			s.hintOrDiscard(now, d, h, out)
		} else {
			s.discard(h, err, out)
		}
		return
	}
	s.heard(now, out)
	s.follow(d, out)
	if err == nil {
		err = message.Check(m)
	}
	if err != nil {
		// The peer is authentic, and broken: whatever the request was for failed. What it
		// did on its side is unknown, so nothing of the SA can be relied upon.
		s.request = nil
		r.task.drop(s)
		s.report(out, Event{Kind: EventExchange, Exchange: h.Exchange, MessageID: h.MessageID, Initiator: true, Reason: ReasonOf(err), Err: err})
		if s.state < StateEstablished {
			s.abortHandshake(now, err, out)
		} else {
			s.deleteIKE(now, ReasonOf(err), out)
		}
		return
	}
	s.request = nil
	if r.task.process(s, now, m, out) && s.state != StateEnded {
		s.step(now, r.task, out)
	}
}

// hintOrDiscard deals with clear or unexpected messages. An unprotected notify about
// an established SA may be true or forged: it makes us ask the peer, no more (RFC 7296, 2.4).
func (s *SA) hintOrDiscard(now time.Time, d Datagram, h message.Header, out *Outputs) {
	m, err := message.Parse(d.Data)
	if err != nil {
		s.discard(h, err, out)
		return
	}
	if s.state != StateEstablished || len(m.Payloads) == 0 || m.Payloads[len(m.Payloads)-1].Type() == message.TypeEncrypted ||
		m.Payloads[len(m.Payloads)-1].Type() == message.TypeEncryptedFragment {
		s.discard(h, ReasonUnexpectedResponse, out)
		return
	}
	s.discard(h, ReasonUnauthenticated, out)
	s.Hint(now)
}

// hintQuiet is how long after a sign of life a hint is not believed.
const hintQuiet = 10 * time.Second

// Hint says that somebody who is not authenticated claims that the peer has lost the
// SA, for instance an INVALID_IKE_SPI or ICMP error. It makes the next liveness check
// come at once, unless the peer was heard of just now.
func (s *SA) Hint(now time.Time) {
	if s.state == StateEstablished && now.Sub(s.lastIn) >= hintQuiet {
		s.add(&liveness{}, now)
	}
}

// takeRequest hands an authentic request to its exchange and answers it. Err is what
// is wrong with its payloads.
func (s *SA) takeRequest(now time.Time, d Datagram, m *message.Message, err error, out *Outputs) {
	x := m.Header.Exchange
	a := &answer{datagram: d, header: m.Header}
	if s.predecessor != nil {
		s.settle(now, m, out)
	}
	s.confirmAll(out)
	if err == nil {
		switch x {
		case message.IKEIntermediate:
			err = s.intermediateRequest(now, m, a, out)
		case message.IKEAuth:
			err = s.authRequest(now, m, a, out)
		case message.CreateChildSA:
			err = s.createChildRequest(now, m, a, out)
		case message.IKEFollowupKE:
			err = s.followupRequest(now, m, a, out)
		case message.Informational:
			err = s.informationalRequest(now, m, a, out)
		}
	}
	s.answerRequest(now, a, err, out)
}

// answer is the reply that a request's exchange makes up.
type answer struct {
	datagram Datagram // the request's; only its addresses are used
	header   message.Header
	payloads []message.Payload
	before   []Action // done before the reply is sent
	after    []Action // done once it is sent
	handOver *SA      // the successor that then takes over
	secret   []byte   // of an additional key exchange: the next message has other keys
	end      Reason   // the SA ends with this answer, if not none
	wait     bool     // there is no answer yet
}

// answerRequest sends the reply to a request, be it the exchange's or an error's.
func (s *SA) answerRequest(now time.Time, a *answer, err error, out *Outputs) {
	if s.state == StateEnded || a.wait {
		return
	}
	x := a.header.Exchange
	if err != nil {
		n, data := noteOf(err)
		if n == 0 {
			n = message.InvalidSyntax
		}
		a.payloads = append(a.payloads[:0:0], &message.Notify{Notify: n, Data: data})
		a.before, a.after, a.handOver, a.secret = nil, nil, nil, nil
		if s.state < StateEstablished { // nothing can come of it any more
			a.end = ReasonOf(err)
		}
	}
	out.Actions = append(out.Actions, a.before...)
	if e := s.reply(now, a.datagram, a.header, a.payloads, out); e != nil {
		s.fail(now, e, out)
		return
	}
	s.report(out, Event{Kind: EventExchange, Exchange: x, MessageID: a.header.MessageID, Reason: ReasonOf(err), Err: err})
	out.Actions = append(out.Actions, a.after...)
	if a.secret != nil {
		if e := s.nextKeys(a.secret, out); e != nil {
			s.fail(now, e, out)
			return
		}
	}
	if a.handOver != nil {
		s.handOver(now, a.handOver, out)
		s.await(now)
	}
	if a.end != ReasonNone {
		s.end(now, a.end, out)
	}
}

// receiveInit takes a datagram of IKE_SA_INIT, the only exchange in the clear.
func (s *SA) receiveInit(now time.Time, d Datagram, h message.Header, out *Outputs) {
	switch {
	case h.IsResponse() && s.initiator && s.handshake != nil:
		s.initResponse(now, d, h, out)
	case h.IsResponse():
		s.discard(h, ReasonUnexpectedResponse, out)
	case s.state == StateCreated && !s.initiator:
		s.initRequest(now, d, h, out)
	case s.question != nil && s.nextIn == 1:
		// RFC 7296, 2.1: a repeated request is told from a new one by the whole of it.
		if !bytes.Equal(s.question, d.Data) {
			s.discard(h, ReasonInitChanged, out)
			return
		}
		s.report(out, Event{Kind: EventRetransmit, Exchange: h.Exchange, N: 1})
		s.repeat(d, out)
	default:
		s.discard(h, ReasonWindow, out)
	}
}
