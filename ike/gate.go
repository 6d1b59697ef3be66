package ike

import (
	"encoding/binary"
	"hash/maphash"
	"io"
	"net/netip"
	"sync/atomic"
	"time"

	"sallyport/ike/ikesa"
	"sallyport/ike/message"
)

// gate is what a datagram passes before anything is kept of it.
type gate struct {
	cookies  cookies
	halfOpen halfOpen
	replies  bucket // unauthenticated answers to what no IKE SA belongs to
	seed     maphash.Seed
}

func (g *gate) start(rand io.Reader) {
	g.seed = maphash.MakeSeed()
	g.cookies.start(rand)
	g.halfOpen.start()
	g.replies.set(repliesPerSecond, repliesPerSecond)
}

// repliesPerSecond bounds INVALID_IKE_SPI and INVALID_MAJOR_VERSION answers (RFC 7296, 2.21.4 wants them limited).
const repliesPerSecond = 50

// initialKey tells one initiator's attempt from another before it has an SPI of ours (RFC 7296, 2.1).
type initialKey struct {
	spi    message.SPI
	remote netip.AddrPort
}

// Receive takes a datagram without non-ESP marker. It copies what it keeps, and it neither blocks nor, for what an
// attacker can send from nowhere, allocates: a header's faults, foreign SPIs, floods of IKE_SA_INIT are dealt with here.
func (s *Server) Receive(d ikesa.Datagram) {
	s.stats.received.Add(1)
	if s.closed.Load() && s.total.Load() == 0 {
		s.stats.drop(DropClosed)
		return
	}
	h, err := message.ParseHeader(d.Data)
	if err != nil {
		s.stats.drop(DropHeader)
		s.stats.reason(ikesa.ReasonOf(err))
		if h.InitiatorSPI != 0 && !h.IsResponse() { // a higher major version (RFC 7296, 2.5)
			s.refuse(d, h, message.InvalidMajorVersion, []byte{2})
		}
		return
	}
	if h.Exchange == message.IKESAInit && h.ResponderSPI == 0 && !h.IsResponse() {
		s.receiveInitial(d, h)
		return
	}
	own := h.InitiatorSPI // a message of the original responder names us first
	if h.FromInitiator() {
		own = h.ResponderSPI
	}
	shard := shardOf(own)
	if shard >= len(s.shards) {
		s.unknown(d, h)
		return
	}
	select {
	case s.shards[shard].inbox <- copied(d):
	default:
		s.stats.drop(DropQueue)
	}
}

func copied(d ikesa.Datagram) ikesa.Datagram {
	d.Data = append(make([]byte, 0, len(d.Data)), d.Data...)
	return d
}

// receiveInitial takes a first IKE_SA_INIT request: cookie or not, then to the shard that the initiator's SPI and
// address choose, so that a repeated one gets to the same.
func (s *Server) receiveInitial(d ikesa.Datagram, h message.Header) {
	if !h.FromInitiator() || h.MessageID != 0 {
		s.stats.drop(DropDirection)
		return
	}
	shard := s.shards[s.initialShard(initialKey{h.InitiatorSPI, d.Remote})]
	if s.demandCookies(shard) && !s.showsCookie(d, h) {
		return
	}
	select {
	case shard.initials <- copied(d):
	default:
		s.stats.drop(DropQueueInit)
	}
}

// showsCookie says whether an IKE_SA_INIT request has a cookie of ours. It demands one where that is not so.
func (s *Server) showsCookie(d ikesa.Datagram, h message.Header) bool {
	found, nonce, ok := cookieAndNonce(h, d.Data)
	if !ok {
		s.stats.drop(DropInitMalformed)
		return false
	}
	now := time.Now()
	if s.gate.cookies.valid(now, found, h.InitiatorSPI, d.Remote.Addr(), nonce) {
		return true
	}
	if found != nil {
		s.stats.drop(DropCookieWrong)
	} else {
		s.stats.drop(DropCookieDemanded)
	}
	s.answerCookie(d, h, s.gate.cookies.make(now, h.InitiatorSPI, d.Remote.Addr(), nonce))
	return false
}

func (s *Server) initialShard(k initialKey) int {
	return int(maphash.Comparable(s.gate.seed, k) % uint64(len(s.shards)))
}

// demandCookies says whether a new initiator must show that it receives at its address: when half-open SAs pile up, or
// requests do.
func (s *Server) demandCookies(shard *shard) bool {
	t := s.limits.Load().CookieThreshold
	return t < 0 || s.gate.halfOpen.all.Load() >= int64(t) || len(shard.initials) >= cap(shard.initials)/2
}

// cookieAndNonce walks the payloads of an IKE_SA_INIT request without parsing them. A cookie must be the first (RFC
// 7296, 2.6); found is nil if there is none.
func cookieAndNonce(h message.Header, b []byte) (found, nonce []byte, ok bool) {
	next := h.NextPayload
	b = b[message.HeaderLen:]
	for n := 0; next != message.TypeNone && n < message.PayloadsMax; n++ {
		if len(b) < 4 {
			return nil, nil, false
		}
		length := int(binary.BigEndian.Uint16(b[2:]))
		if length < 4 || length > len(b) {
			return nil, nil, false
		}
		body := b[4:length]
		switch {
		case next == message.TypeNotify && n == 0 && len(body) > 4 && body[1] == 0 &&
			message.NotifyType(binary.BigEndian.Uint16(body[2:])) == message.Cookie:
			found = body[4:]
		case next == message.TypeNonce:
			return found, body, len(body) >= message.NonceMin && len(body) <= message.NonceMax
		}
		next, b = message.PayloadType(b[0]), b[length:]
	}
	return nil, nil, false
}

// answerCookie demands a cookie: a response without anything else, smaller than any request that has a key exchange.
func (s *Server) answerCookie(d ikesa.Datagram, h message.Header, c [cookieLen]byte) {
	s.respond(d, h, &message.Notify{Notify: message.Cookie, Data: c[:]})
}

// unknown deals with a message for an SPI that nobody has. A request may be told so, without protection, a few times a
// second; the peer takes it as a hint that we have lost everything (RFC 7296, 1.5 and 2.21.4).
func (s *Server) unknown(d ikesa.Datagram, h message.Header) {
	s.stats.drop(DropSPIUnknown)
	if !h.IsResponse() && h.Exchange != message.IKESAInit {
		s.refuse(d, h, message.InvalidIKESPI, nil)
	}
}

// refuse answers a request that no IKE SA belongs to, as often as the bucket allows.
func (s *Server) refuse(d ikesa.Datagram, h message.Header, n message.NotifyType, data []byte) {
	if len(d.Data) >= message.HeaderLen+8+len(data) && s.gate.replies.take(time.Now()) {
		s.respond(d, h, &message.Notify{Notify: n, Data: data})
	}
}

func (s *Server) respond(d ikesa.Datagram, h message.Header, p message.Payload) {
	flags := message.Response
	if !h.FromInitiator() {
		flags |= message.Initiator // the sender is the responder, so that we are the original initiator
	}
	m := message.Message{Payloads: []message.Payload{p}, Header: message.Header{
		InitiatorSPI: h.InitiatorSPI, ResponderSPI: h.ResponderSPI, Exchange: h.Exchange, Flags: flags, MessageID: h.MessageID,
	}}
	s.send(ikesa.Datagram{Local: d.Local, Remote: d.Remote, Data: m.Append(make([]byte, 0, 64))})
}

func (s *Server) send(d ikesa.Datagram) {
	if err := s.transport.Send(d); err != nil {
		s.stats.drop(DropSend)
		s.log.sendFailed(d, err)
		return
	}
	s.stats.sent.Add(1)
}

// bucket is a token bucket without a lock.
type bucket struct {
	rate, burst atomic.Int64 // tokens a second, tokens that a full one has
	epoch       atomic.Pointer[time.Time]
	level       atomic.Int64 // nanoseconds since epoch at which the bucket is full again
}

// set changes what the bucket gives.
func (b *bucket) set(rate, burst int) {
	b.rate.Store(int64(rate))
	b.burst.Store(int64(burst))
}

// take takes a token if there is one.
func (b *bucket) take(now time.Time) bool { return b.wait(now) == 0 }

// wait takes a token if there is one, and says else how long it takes until there is.
func (b *bucket) wait(now time.Time) time.Duration {
	epoch := b.epoch.Load()
	if epoch == nil {
		b.epoch.CompareAndSwap(nil, &now)
		epoch = b.epoch.Load()
	}
	each, at := int64(time.Second)/b.rate.Load(), int64(now.Sub(*epoch))
	for {
		level := b.level.Load()
		next := max(level, at)
		if early := next - at - (b.burst.Load()-1)*each; early > 0 {
			return time.Duration(early)
		}
		if b.level.CompareAndSwap(level, next+each) {
			return 0
		}
	}
}
