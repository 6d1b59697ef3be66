package ikesa

import (
	"bytes"
	"slices"
	"time"

	"sallyport/ike/message"
	"sallyport/ike/suite"
)

// followup is an exchange of the peer that waits for its additional key exchanges
// (RFC 9370, 2.2.4).
type followup struct {
	link   []byte // names it; the peer sends it back
	until  time.Time
	todo   []uint16 // methods, the next first
	shared [][]byte
	// finish completes the exchange with the last answer, drop gives up what it holds.
	finish func(s *SA, now time.Time, shared [][]byte, a *answer) error
	drop   func(s *SA)
}

const (
	// followupsMax bounds what one peer can leave unfinished. With a window of 1 an
	// honest one needs one, or two when it starts anew after a failure.
	followupsMax = 2
	// followupTime is how long the next additional key exchange is waited for.
	followupTime = 60 * time.Second
	linkLen      = 8
	linkMax      = 256 // bytes of the peer's link that are kept
)

// expectFollowup keeps an exchange, and adds to its answer what the peer names it by.
func (s *SA) expectFollowup(now time.Time, f *followup, a *answer) error {
	f.link = make([]byte, linkLen)
	if _, err := s.env.Rand().Read(f.link); err != nil {
		f.drop(s)
		return &fault{reason: ReasonInternal, err: err}
	}
	f.until = now.Add(followupTime)
	if len(s.followups) >= followupsMax { // the older one is the one that was given up
		s.followups[0].drop(s)
		s.followups = slices.Delete(s.followups, 0, 1)
	}
	s.followups = append(s.followups, f)
	a.payloads = append(a.payloads, &message.Notify{Notify: message.AdditionalKeyExchange, Data: f.link})
	return nil
}

// followupRequest answers IKE_FOLLOWUP_KE.
func (s *SA) followupRequest(now time.Time, m *message.Message, a *answer, out *Outputs) error {
	n := m.Notify(message.AdditionalKeyExchange)
	i := -1
	if n != nil {
		i = slices.IndexFunc(s.followups, func(f *followup) bool { return bytes.Equal(f.link, n.Data) })
	}
	if i < 0 { // RFC 9370, 2.2.4
		return &fault{reason: ReasonStateNotFound, notify: message.StateNotFound}
	}
	f := s.followups[i]
	s.followups = slices.Delete(s.followups, i, i+1)
	if len(s.followups) == 0 {
		s.followups = nil
	}
	if s.state == StateDeleting && s.successor == nil { // RFC 7296, 2.25.2: what it makes would go with this SA
		f.drop(s)
		return &fault{reason: ReasonTemporary, notify: message.TemporaryFailure}
	}
	ke, ok := message.First[*message.KE](m)
	if !ok || ke.Method != f.todo[0] {
		f.drop(s)
		return &fault{reason: ReasonKEMethod, notify: message.InvalidSyntax}
	}
	public, shared, err := suite.Respond(ke.Method, s.env.Rand(), ke.Data)
	if err != nil {
		f.drop(s)
		return &fault{reason: ReasonKEValue, notify: message.InvalidSyntax, err: err}
	}
	f.shared = append(f.shared, shared)
	a.payloads = append(a.payloads, &message.KE{Method: ke.Method, Data: public})
	if f.todo = f.todo[1:]; len(f.todo) > 0 {
		return s.expectFollowup(now, f, a)
	}
	return f.finish(s, now, f.shared, a)
}

// expireFollowups gives up exchanges that the peer did not finish.
func (s *SA) expireFollowups(now time.Time) {
	s.followups = slices.DeleteFunc(s.followups, func(f *followup) bool {
		if due(f.until, now) {
			f.drop(s)
			return true
		}
		return false
	})
}

// takeLink keeps what the responder names the exchange by. It must be there as long as
// key exchanges are missing.
func (t *childExchange) takeLink(m *message.Message, needed bool) error {
	link, err := linkOf(m, needed)
	if err == nil && link != nil {
		t.link = link
	}
	return err
}

func linkOf(m *message.Message, needed bool) ([]byte, error) {
	n := m.Notify(message.AdditionalKeyExchange)
	if n == nil && !needed {
		return nil, nil
	}
	if n == nil || len(n.Data) == 0 || len(n.Data) > linkMax {
		return nil, &fault{reason: ReasonRule}
	}
	return bytes.Clone(n.Data), nil
}

// buildFollowup makes the next IKE_FOLLOWUP_KE request.
func (t *childExchange) buildFollowup(s *SA, now time.Time, out *Outputs) (message.ExchangeType, []message.Payload, bool) {
	ke, payloads, err := followupPayloads(s, t.todo[0], t.link)
	if err != nil {
		t.drop(s)
		t.failed(s, now, err, out)
		return 0, nil, false
	}
	t.ke = ke
	return message.IKEFollowupKE, payloads, true
}

func followupPayloads(s *SA, method uint16, link []byte) (*suite.KeyExchange, []message.Payload, error) {
	ke, err := suite.Initiate(method, s.env.Rand())
	if err != nil {
		return nil, nil, &fault{reason: ReasonInternal, err: err}
	}
	return ke, []message.Payload{
		&message.KE{Method: method, Data: ke.Public()},
		&message.Notify{Notify: message.AdditionalKeyExchange, Data: link},
	}, nil
}

// finishKE takes the peer's value of the key exchange under way.
func finishKE(ke *suite.KeyExchange, m *message.Message) ([]byte, error) {
	p, ok := message.First[*message.KE](m)
	if !ok || p.Method != ke.Method() {
		return nil, &fault{reason: ReasonKEMethod}
	}
	shared, err := ke.Finish(p.Data)
	if err != nil {
		return nil, &fault{reason: ReasonKEValue, err: err}
	}
	return shared, nil
}

// processFollowup takes the answer to an IKE_FOLLOWUP_KE request.
func (t *childExchange) processFollowup(s *SA, now time.Time, m *message.Message, out *Outputs) (more bool) {
	if n := m.ErrorNotify(); n != nil {
		t.todo = nil
		return t.refused(s, now, n, m, out)
	}
	shared, err := finishKE(t.ke, m)
	if err == nil {
		t.shared = append(t.shared, shared)
		err = t.takeLink(m, len(t.todo) > 1)
	}
	if err != nil {
		t.undo(s, now, t.made, err, m, out)
		return false
	}
	if t.todo = t.todo[1:]; len(t.todo) > 0 {
		return true
	}
	t.finish(s, now, t.made, m, out)
	return false
}
