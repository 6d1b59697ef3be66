package ikesa

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"

	"sallyport/ike/message"
)

// Anybody can answer our IKE_SA_INIT; only AUTH tells who was the right one. So
// further answers are not thrown away: each that differs is followed by a machine of
// its own, a rival, from the same request on. Whichever is established first becomes
// the SA, and the others vanish (RFC 7296, 2.21.1).

// followed are the answers to one IKE_SA_INIT that were ever followed, shared by all
// machines that follow one. Keys depend on nothing else of an answer than what is hashed
// here, and every machine counts its IVs from the beginning: the same answer, or one
// that differs in other payloads only, must never be followed twice.
type followed struct{ answers [][sha256.Size]byte }

// mayFollow says why an answer is not to be followed; if it may be, it returns what
// followed knows it by.
func (s *SA) mayFollow(m *message.Message) (sum [sha256.Size]byte, err error) {
	h := s.handshake
	if h.followed == nil {
		h.followed = new(followed)
	}
	ke, _ := message.First[*message.KE](m)
	nonce, _ := message.First[*message.Nonce](m)
	if ke == nil || nonce == nil {
		return sum, ReasonRule
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(m.Header.ResponderSPI))
	b = append(append(append(b, byte(len(nonce.Data))), nonce.Data...), ke.Data...)
	sum = sha256.Sum256(b)
	switch {
	case slices.Contains(h.followed.answers, sum):
		return sum, ReasonWindow
	case len(h.followed.answers) > rivalsMax:
		return sum, ReasonRivals
	}
	return sum, nil
}

// rival takes an answer to IKE_SA_INIT that comes after the first one.
func (s *SA) rival(now time.Time, d Datagram, m *message.Message, out *Outputs) {
	h := s.handshake
	if h == nil || h.pristine == nil || m.ErrorNotify() != nil || m.Payload(message.TypeSA) == nil {
		s.discard(m.Header, ReasonUnexpectedResponse, out)
		return
	}
	r := s.fork()
	var rout Outputs
	r.initAccept(now, d, m, &rout)
	if r.state != StateInit { // else it was not even acceptable
		h.rivals = append(h.rivals, r)
	}
	s.adopt(r, rout, out)
}

// fork copies the machine as it was before the first response.
func (s *SA) fork() *SA {
	r := *s.handshake.pristine
	h := *r.handshake
	r.handshake = &h
	request := *r.request
	r.request, r.queue = &request, nil
	return &r
}

// adopt takes over a rival's outputs as our own.
func (s *SA) adopt(r *SA, rout Outputs, out *Outputs) {
	for _, a := range rout.Actions {
		switch x := a.(type) {
		case Report:
			x.Event.SA = s
			a = x
		case Ended:
			continue
		case Assigned:
			x.SA = s
			a = x
		case InitialContact:
			x.SA = s
			a = x
		}
		out.add(a)
	}
}

// rivalStep drives a rival, and lets it take over if it is established.
func (s *SA) rivalStep(now time.Time, r *SA, out *Outputs, step func(*Outputs)) {
	var rout Outputs
	step(&rout)
	s.adopt(r, rout, out)
	switch {
	case r.state == StateEnded:
		s.removeRival(r)
	case r.state >= StateEstablished:
		s.removeRival(r)
		s.dropRequest()
		s.forgetHandshake()
		s.become(r)
	}
}

// become makes this machine the rival, for whoever knows it by its pointer.
func (s *SA) become(r *SA) {
	replaces, queue := s.replaces, s.queue
	*s = *r
	s.queue = append(queue, r.queue...)
	if s.replaces = replaces; replaces != nil {
		replaces.replacement = s
	}
}

func (s *SA) removeRival(r *SA) {
	h := s.handshake
	for i, o := range h.rivals {
		if o == r {
			h.rivals = append(h.rivals[:i:i], h.rivals[i+1:]...)
			return
		}
	}
}

// abandonRival frees what a rival holds.
func (s *SA) abandonRival() {
	s.giveUp()
	s.dropHandshake()
	if s.keys != nil {
		s.keys.Zero()
	}
	s.state = StateEnded
}

// rivalReceive gives a protected response to the rival whose keys fit; false if it
// is nobody's but perhaps ours.
func (s *SA) rivalReceive(now time.Time, d Datagram, h message.Header, out *Outputs) bool {
	for _, r := range s.handshake.rivals {
		if r.spiR != h.ResponderSPI || r.spiR == s.spiR && !r.fits(d) {
			continue
		}
		s.rivalStep(now, r, out, func(rout *Outputs) { r.Receive(now, d, rout) })
		return true
	}
	return false
}

// fits says whether a message opens with this machine's keys. Two answers may name the
// same SPI. The datagram is left as it is.
func (s *SA) fits(d Datagram) bool {
	m, err := message.Parse(bytes.Clone(d.Data))
	if err != nil || s.opener == nil {
		return false
	}
	if _, _, fragment := m.Fragment(); fragment {
		var alone message.Reassembler
		_, err = alone.Add(time.Time{}, m, s.opener)
		return err == nil
	}
	return m.Open(s.opener) == nil
}

func (s *SA) rivalVerifying(id uint64) *SA {
	if s.handshake == nil {
		return nil
	}
	for _, r := range s.handshake.rivals {
		if r.state == StateVerifying && r.verifyID == id {
			return r
		}
	}
	return nil
}

// abortHandshake ends a handshake that failed, unless another answer can still save it.
func (s *SA) abortHandshake(now time.Time, err error, out *Outputs) {
	h := s.handshake
	if s.state == StateEnded || h == nil {
		return
	}
	s.dropHandshake()
	if len(h.rivals) > 0 {
		next, rest := h.rivals[0], h.rivals[1:]
		h.rivals = nil
		s.dropRequest()
		s.become(next)
		s.handshake.rivals = rest
		s.handshake.pristine = h.pristine
		return
	}
	until := h.answeredAt.Add(rivalTime)
	if s.initiator && h.pristine != nil && now.Before(until) {
		s.dropRequest()
		if s.keys != nil {
			s.keys.Zero()
		}
		r := s.fork()
		s.become(r)
		s.handshake.hint, s.handshake.hintUntil = err, until
		s.request.triesMax = s.request.tries // it need not be asked again
		s.request.at = until.Add(time.Second)
		return
	}
	s.report(out, Event{Kind: EventEnding, Reason: ReasonOf(err), Err: err})
	s.end(now, ReasonOf(err), out)
}

// tickHandshake drives the rivals, and believes an error that nothing has belied.
func (s *SA) tickHandshake(now time.Time, out *Outputs) {
	h := s.handshake
	if h == nil {
		return
	}
	for _, r := range append([]*SA(nil), h.rivals...) {
		if due(r.Deadline(), now) {
			s.rivalStep(now, r, out, func(rout *Outputs) { r.Tick(now, rout) })
			if s.handshake != h {
				return
			}
		}
	}
	if due(h.hintUntil, now) {
		err := h.hint
		s.report(out, Event{Kind: EventEnding, Reason: ReasonOf(err), Err: err})
		s.end(now, ReasonOf(err), out)
	}
}
