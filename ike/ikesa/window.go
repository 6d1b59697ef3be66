package ikesa

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"

	"sallyport/ike/message"
)

// window is both sides of the request window, which is 1 (RFC 7296, 2.3): one
// request of ours is unanswered at most, and the answer to the peer's last one is kept.
type window struct {
	nextOut  uint32               // message ID of our next request
	nextIn   uint32               // of the peer's next request
	request  *request             // ours that is unanswered
	answer   [][]byte             // datagrams that answered the request nextIn-1
	answerAt time.Time            // when they were made; kept for answerKept
	repeater message.Protector    // that opened the request nextIn-1, to recognize a repetition
	question []byte               // the IKE_SA_INIT request that the first answer is for
	asked    *message.Reassembler // of the peer's request in fragments; nil if there is none
	answered *message.Reassembler // of the answer to our request
}

// answerKept is how long the last answer is kept: longer than any peer repeats a
// request. RFC 7296, 2.1 lets a responder forget it after several minutes.
const answerKept = 5 * time.Minute

// messageIDMax is the last message ID that may be used; RFC 7296, 2.2 wants the
// SA closed before they wrap.
const messageIDMax = math.MaxUint32 - 1

// request is a request of ours that waits for its response.
type request struct {
	task     task
	exchange message.ExchangeType
	id       uint32
	packets  [][]byte
	probe    []byte // goes along with them, and must not be cut up on the way
	tries    int    // how often it was sent again
	waits    int    // of those, on the path that is tried now
	triesMax int
	at       time.Time // of the next retransmission, or of giving up
	sent     time.Time // the last time
	spared   bool      // it was asked further, as the peer was heard meanwhile
}

// header is that of our next message.
func (s *SA) header(x message.ExchangeType, id uint32, response bool) message.Header {
	h := message.Header{InitiatorSPI: s.spiI, ResponderSPI: s.spiR, Exchange: x, MessageID: id}
	if s.initiator {
		h.Flags |= message.Initiator
	}
	if response {
		h.Flags |= message.Response
	}
	return h
}

// fragmentMax is the largest protected message, from the IKE header on.
func (s *SA) fragmentMax() int {
	use := s.conn.Fragmentation
	if use == FragmentationNo || use == FragmentationAccept || !s.fragments && use != FragmentationForce {
		return 0
	}
	size := s.conn.FragmentSize
	if size == 0 {
		size = DefaultFragmentSize
	}
	return max(s.room(size), fragmentSizeMin)
}

// room is how many bytes of a packet of a size are left to the IKE message.
func (s *SA) room(size int) int {
	size -= 8 // UDP
	if s.remote.Addr().Is4() {
		size -= 20
	} else {
		size -= 40
	}
	if natT(s.local, s.remote) {
		size -= 4 // the marker of RFC 3948, 2.2
	}
	return size
}

// fragmentSizeMin keeps a thoughtless configuration from making hundreds of fragments.
const fragmentSizeMin = 256

// natT says whether datagrams between these ports carry the marker of RFC 3948, 2.2.
func natT(local, remote netip.AddrPort) bool {
	return local.Port() == portNAT || remote.Port() == portNAT
}

const (
	portIKE = 500
	portNAT = 4500
)

// seal makes the datagrams of a protected message.
func (s *SA) seal(h message.Header, payloads []message.Payload) ([][]byte, error) {
	return message.AppendProtected(nil, h, payloads, s.sealer, s.fragmentMax())
}

// ask sends a request and starts its retransmission.
func (s *SA) ask(now time.Time, t task, x message.ExchangeType, payloads []message.Payload, out *Outputs) {
	r := &request{task: t, exchange: x, id: s.nextOut, triesMax: s.retransmit().Tries}
	if d, ok := t.(*ikeDelete); ok {
		r.triesMax = d.tries(s)
	}
	limit, wait := s.fragmentMax(), s.backoff(0)
	_, probe := t.(*sizeProbe)
	if probe {
		limit, wait = 0, probeWait
	}
	h := s.header(x, r.id, false)
	if x == message.IKESAInit {
		m := message.Message{Header: h, Payloads: payloads}
		r.packets = [][]byte{m.Append(nil)}
	} else {
		var err error
		if r.packets, err = message.AppendProtected(nil, h, payloads, s.sealer, limit); err != nil {
			s.fail(now, &fault{reason: ReasonInternal, err: err}, out)
			return
		}
	}
	if probe {
		r.probe, r.packets = r.packets[0], nil
	}
	s.request = r
	s.nextOut++
	r.at, r.sent = now.Add(wait), now
	s.transmit(r, out)
}

func (s *SA) transmit(r *request, out *Outputs) {
	for _, p := range r.packets {
		out.add(Send{Datagram{Local: s.local, Remote: s.remote, Data: p}})
	}
	if r.probe != nil {
		out.add(Send{Datagram{Local: s.local, Remote: s.remote, Data: r.probe, Whole: true}})
	}
}

// reply answers the peer's request h, which came with d, and keeps the answer.
func (s *SA) reply(now time.Time, d Datagram, h message.Header, payloads []message.Payload, out *Outputs) error {
	packets, err := s.seal(s.header(h.Exchange, h.MessageID, true), payloads)
	if err != nil {
		return &fault{reason: ReasonInternal, err: err}
	}
	s.keep(now, h.MessageID, packets)
	s.repeat(d, out)
	return nil
}

func (s *SA) keep(now time.Time, id uint32, packets [][]byte) {
	s.answer, s.answerAt, s.nextIn, s.repeater = packets, now, id+1, s.opener
	if id > 0 {
		s.question = nil
	}
}

// repeat sends the last answer to where the request came from (RFC 7296, 2.11).
func (s *SA) repeat(d Datagram, out *Outputs) {
	for _, p := range s.answer {
		out.add(Send{Datagram{Local: d.Local, Remote: d.Remote, Data: p}})
	}
}

// retransmit is the connection's back-off with defaults for what it leaves out.
func (s *SA) retransmit() Retransmit {
	r := DefaultRetransmit
	if s.conn != nil && s.conn.Retransmit.Timeout > 0 {
		r = s.conn.Retransmit
		if r.Base < 1 {
			r.Base = DefaultRetransmitBase
		}
	}
	return r
}

// backoff is the wait after the request was sent n times again.
func (s *SA) backoff(n int) time.Duration {
	r := s.retransmit()
	wait := float64(r.Timeout) * math.Pow(r.Base, float64(n))
	if r.Limit > 0 {
		wait = min(wait, float64(r.Limit))
	}
	wait = min(wait, float64(time.Hour))
	return time.Duration(wait * (1 - s.fraction()*float64(min(max(r.Jitter, 0), 50))/100))
}

// overdue sends the request again, or gives up.
func (s *SA) overdue(now time.Time, out *Outputs) {
	r := s.request
	if r.probe != nil && len(r.packets) == 0 {
		s.probeAgain(now, r, r.task.(*sizeProbe), out)
		return
	}
	if r.tries >= r.triesMax {
		switch {
		case s.state == StateEstablished && !r.spared && s.lastIn.After(r.sent):
			// A peer that asks for something itself is not dead. Perhaps it did not know this SA when we began to ask.
			r.spared = true
			r.triesMax += s.retransmit().Tries
		case s.otherPath(now):
			r.triesMax += pathTries
		default:
			s.unanswered(now, out)
			return
		}
		r.waits = -1
	}
	r.tries++
	r.waits++
	r.at, r.sent = now.Add(s.backoff(r.waits)), now
	s.report(out, Event{Kind: EventRetransmit, Exchange: r.exchange, MessageID: r.id, Initiator: true, N: r.tries})
	s.transmit(r, out)
}

// unanswered ends the SA whose request nobody answers (RFC 7296, 2.4).
func (s *SA) unanswered(now time.Time, out *Outputs) {
	switch {
	case s.state == StateDeleting && s.lastWord(): // comes next
	case s.state == StateDeleting:
		s.end(now, s.reason, out)
	case s.state < StateEstablished:
		s.abortHandshake(now, &fault{reason: ReasonTimeout}, out)
	case s.successor != nil: // what lives on will find out for itself
		s.end(now, ReasonRekeyed, out)
	default:
		s.end(now, ReasonPeerDead, out)
	}
}

// fraction is a random number from 0 to 1, 1 excluded.
func (s *SA) fraction() float64 {
	var b [8]byte
	if _, err := s.env.Rand().Read(b[:]); err != nil {
		return 0 // without randomness no key is made either
	}
	return float64(binary.BigEndian.Uint64(b[:])>>11) / (1 << 53)
}

// jittered is t less a random part of up to spread; never negative.
func (s *SA) jittered(t, spread time.Duration) time.Duration {
	return max(t-time.Duration(float64(min(spread, t))*s.fraction()), 0)
}
