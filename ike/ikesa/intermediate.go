package ikesa

import (
	"encoding/binary"
	"time"

	"sallyport/ike/message"
	"sallyport/ike/suite"
)

// IKE_INTERMEDIATE (RFC 9242) carries one additional key exchange each (RFC 9370,
// 2.2.2). Its messages are protected with the keys so far, and bound into AUTH.

// intermediatePayloads makes the next request.
func (s *SA) intermediatePayloads() ([]message.Payload, error) {
	h := s.handshake
	ke, err := suite.Initiate(h.todo[0], s.env.Rand())
	if err != nil {
		return nil, &fault{reason: ReasonInternal, err: err}
	}
	h.ke = ke
	payloads := []message.Payload{&message.KE{Method: ke.Method(), Data: ke.Public()}}
	octets := message.AppendIntermediate(nil, s.header(message.IKEIntermediate, s.nextOut, false), payloads)
	h.intermediateI = s.keys.IntAuth(true, h.intermediateI, octets)
	return payloads, nil
}

// intermediateResponse takes the answer, and the keys that it makes.
func (s *SA) intermediateResponse(now time.Time, m *message.Message, out *Outputs) (more bool) {
	h := s.handshake
	if n := m.ErrorNotify(); n != nil {
		s.refusedHandshake(now, m, n, out)
		return false
	}
	octets := m.AppendIntermediate(nil)
	shared, err := finishKE(h.ke, m)
	if err != nil {
		s.reportExchange(m, true, err, out)
		s.abortHandshake(now, err, out)
		return false
	}
	h.intermediateR = s.keys.IntAuth(false, h.intermediateR, octets)
	if err := s.nextKeys(shared, out); err != nil {
		s.abortHandshake(now, err, out)
		return false
	}
	s.reportExchange(m, true, nil, out)
	return true
}

// nextKeys replaces the keys after an additional key exchange.
func (s *SA) nextKeys(shared []byte, out *Outputs) error {
	h := s.handshake
	defer clear(shared)
	keys, err := s.keys.Intermediate(shared, h.ni, h.nr, s.spiI, s.spiR)
	if err != nil {
		return &fault{reason: ReasonInternal, err: err}
	}
	if h.oldKeys != nil {
		h.oldKeys.Zero()
	}
	h.oldKeys = s.keys // the last answer may have to be repeated, and its request recognized
	s.useKeys(keys)
	s.logKeys(out)
	if h.todo = h.todo[1:]; len(h.todo) == 0 {
		s.state = StateAuth
	}
	return nil
}

// intermediateRequest answers the next additional key exchange. The answer is still
// protected with the old keys; the new ones count from the next request on.
func (s *SA) intermediateRequest(now time.Time, m *message.Message, a *answer, out *Outputs) error {
	h := s.handshake
	ke, ok := message.First[*message.KE](m)
	if !ok || ke.Method != h.todo[0] {
		return &fault{reason: ReasonKEMethod, notify: message.InvalidSyntax}
	}
	octets := m.AppendIntermediate(nil)
	public, shared, err := suite.Respond(ke.Method, s.env.Rand(), ke.Data)
	if err != nil {
		return &fault{reason: ReasonKEValue, notify: message.InvalidSyntax, err: err}
	}
	a.payloads = []message.Payload{&message.KE{Method: ke.Method, Data: public}}
	h.intermediateI = s.keys.IntAuth(true, h.intermediateI, octets)
	octets = message.AppendIntermediate(nil, s.header(message.IKEIntermediate, m.Header.MessageID, true), a.payloads)
	h.intermediateR = s.keys.IntAuth(false, h.intermediateR, octets)
	a.secret = shared
	s.halfOpenUntil = now.Add(halfOpenTime)
	return nil
}

// signedOctets are what AUTH of one side covers (RFC 7296, 2.15; RFC 9242, 3.3.1): its
// first message, the other's nonce, its identity, and every IKE_INTERMEDIATE message.
func (s *SA) signedOctets(ofInitiator bool, id *message.ID, authMessageID uint32) []byte {
	h := s.handshake
	first, nonce := h.request, h.nr
	if !ofInitiator {
		first, nonce = h.response, h.ni
	}
	macedID := s.keys.PRF(s.keys.SKp(ofInitiator), id.AppendBody(nil))
	b := make([]byte, 0, len(first)+len(nonce)+3*len(macedID)+4)
	b = append(append(append(b, first...), nonce...), macedID...)
	if h.intermediateI != nil {
		b = append(append(b, h.intermediateI...), h.intermediateR...)
		b = binary.BigEndian.AppendUint32(b, authMessageID)
	}
	return b
}
