package ikesa

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"sallyport/ike/auth"
	"sallyport/ike/message"
	"sallyport/ike/suite"
)

// handshake is what is needed until the IKE SA is established, and freed then.
type handshake struct {
	initialContact bool
	first          *Child // of IKE_AUTH
	more           []*Child

	// IKE_SA_INIT. The two messages are covered by AUTH as they were on the wire.
	ni, nr     []byte
	ke         *suite.KeyExchange
	method     uint16 // what INVALID_KE_PAYLOAD asked for, 0 before
	cookie     []byte
	cookies    int // that were asked of us
	keTries    int
	request    []byte
	response   []byte
	answeredAt time.Time               // when the first response came
	hashes     []message.HashAlgorithm // that the peer's signatures may use
	certAsked  bool                    // the peer has sent CERTREQ
	chosen     message.Proposal        // our answer as responder
	childless  bool                    // the peer, as responder, allows it

	// An error or failure that may be somebody else's, believed at hintUntil.
	hint      error
	hintUntil time.Time
	// Other answers to our IKE_SA_INIT, each followed by a machine of its own that
	// begins as pristine does (RFC 7296, 2.21.1).
	pristine *SA
	rivals   []*SA
	followed *followed

	// IKE_INTERMEDIATE
	todo                         []uint16
	intermediateI, intermediateR []byte      // chains of RFC 9242, 3.3.2
	oldKeys                      *suite.Keys // of the last answer, for its repetition

	// IKE_AUTH
	offer   *childOffer
	verdict verdict
}

const (
	cookiesMax = 4
	// hintTime is how long an unauthenticated error in answer to IKE_SA_INIT may still be
	// belied by the true answer, counted from the error.
	hintTime = 3 * time.Second
	// rivalTime is how long after the first response another one may still save a
	// handshake that failed.
	rivalTime = time.Second
	// rivalsMax bounds the answers to one IKE_SA_INIT that are followed besides the first:
	// each costs a key exchange.
	rivalsMax = 3
)

// opening is the initiator's row of requests from IKE_SA_INIT to IKE_AUTH.
type opening struct{}

func (*opening) allowed(*SA) bool { return true }
func (*opening) drop(s *SA)       { s.dropHandshake() }

func (t *opening) build(s *SA, now time.Time, out *Outputs) (message.ExchangeType, []message.Payload, bool) {
	var payloads []message.Payload
	var err error
	x := message.IKESAInit
	switch s.state {
	case StateInit:
		payloads, err = s.initPayloads()
	case StateIntermediate:
		x = message.IKEIntermediate
		payloads, err = s.intermediatePayloads()
	case StateAuth:
		x = message.IKEAuth
		payloads, err = s.authPayloads(now)
	}
	if err != nil {
		s.abortHandshake(now, err, out)
		return 0, nil, false
	}
	return x, payloads, true
}

func (t *opening) process(s *SA, now time.Time, m *message.Message, out *Outputs) (more bool) {
	if m.Header.Exchange == message.IKEIntermediate {
		return s.intermediateResponse(now, m, out)
	}
	s.authResponse(now, m, out)
	return false
}

// initiate starts the handshake.
func (s *SA) initiate(now time.Time, out *Outputs) {
	if s.state != StateCreated || !s.initiator {
		return
	}
	s.state = StateInit
	s.step(now, &opening{}, out)
}

// initPayloads makes the IKE_SA_INIT request.
func (s *SA) initPayloads() ([]message.Payload, error) {
	h := s.handshake
	var err error
	if h.ni == nil {
		if h.ni, err = s.nonce(); err != nil {
			return nil, err
		}
	}
	method := h.method
	if method == message.KENone {
		method = firstKE(s.conn.Proposals, message.KENone)
	}
	if h.ke == nil || h.ke.Method() != method {
		if h.ke, err = suite.Initiate(method, s.env.Rand()); err != nil {
			return nil, &fault{reason: ReasonInternal, err: err}
		}
	}
	var payloads []message.Payload
	if h.cookie != nil { // RFC 7296, 2.6: first
		payloads = append(payloads, &message.Notify{Notify: message.Cookie, Data: h.cookie})
	}
	payloads = append(payloads,
		&message.SA{Proposals: suite.Offer(s.conn.Proposals, nil)},
		&message.KE{Method: method, Data: h.ke.Public()},
		&message.Nonce{Data: h.ni})
	payloads = append(payloads, s.natPayloads(s.local, s.remote)...)
	if s.conn.Fragmentation != FragmentationNo {
		payloads = append(payloads, &message.Notify{Notify: message.FragmentationSupported})
	}
	payloads = append(payloads, auth.HashNotify())
	if hasAdditional(s.conn.Proposals) {
		payloads = append(payloads, &message.Notify{Notify: message.IntermediateExchangeSupp})
	}
	return payloads, nil
}

func hasAdditional(proposals []suite.Proposal) bool {
	return slices.ContainsFunc(proposals, func(p suite.Proposal) bool {
		return slices.ContainsFunc(p.Additional[:], func(ids []uint16) bool { return len(ids) > 0 })
	})
}

// initResponse takes an answer to IKE_SA_INIT. Nobody vouches for it: what it
// says is believed only as far as nothing is lost by it (RFC 7296, 2.21.1).
func (s *SA) initResponse(now time.Time, d Datagram, h message.Header, out *Outputs) {
	if h.MessageID != 0 || s.state >= StateEstablished || s.state == StateCreated {
		s.discard(h, ReasonUnexpectedResponse, out)
		return
	}
	m, err := message.Parse(d.Data)
	if err == nil {
		err = message.Check(m)
	}
	if err == nil && (h.ResponderSPI == s.spiI) {
		err = ReasonOwnNonce
	}
	if err != nil {
		s.discard(h, err, out)
		return
	}
	if s.state != StateInit {
		s.rival(now, d, m, out)
		return
	}
	switch n := m.ErrorNotify(); {
	case m.Payload(message.TypeSA) == nil && m.Notify(message.Cookie) != nil:
		s.initAgain(now, h, out, func(hs *handshake) error { return hs.takeCookie(m) })
	case n != nil && n.Notify == message.InvalidKEPayload:
		s.initAgain(now, h, out, func(hs *handshake) error { return hs.takeMethod(n, s.conn.Proposals) })
	case n != nil:
		s.hinted(now, h, &fault{reason: reasonOfNotify(n.Notify)}, n.Notify, out)
	default:
		s.initAccept(now, d, m, out)
	}
}

// initAgain repeats the request with what the responder wants changed.
func (s *SA) initAgain(now time.Time, h message.Header, out *Outputs, change func(*handshake) error) {
	if err := change(s.handshake); err != nil {
		s.discard(h, err, out)
		return
	}
	t := s.request.task
	s.request, s.nextOut = nil, 0
	s.step(now, t, out)
}

// takeCookie puts the cookie in front of the next request. The rest stays the same.
func (h *handshake) takeCookie(m *message.Message) error {
	if h.cookies == cookiesMax {
		return ReasonCookies
	}
	h.cookies++
	h.cookie = bytes.Clone(m.Notify(message.Cookie).Data)
	return nil
}

// takeMethod obeys INVALID_KE_PAYLOAD, if the method is among our own (RFC 7296, 1.2).
func (h *handshake) takeMethod(n *message.Notify, own []suite.Proposal) error {
	method := binary.BigEndian.Uint16(n.Data)
	if !suite.OffersKE(own, method) || method == h.ke.Method() || h.keTries == keTriesMax {
		return ReasonKEMethod
	}
	h.keTries++
	h.method = method
	return nil
}

// hinted notes an error that ends the handshake unless a better answer comes.
func (s *SA) hinted(now time.Time, h message.Header, err error, n message.NotifyType, out *Outputs) {
	s.report(out, Event{Kind: EventHint, Exchange: h.Exchange, Initiator: true, Reason: ReasonOf(err), Notify: n})
	if hs := s.handshake; hs.hint == nil {
		hs.hint, hs.hintUntil = err, now.Add(hintTime)
	}
}

// initAccept takes the responder's choice and goes on. An answer that is wrong may
// be forged, so it is only discarded.
func (s *SA) initAccept(now time.Time, d Datagram, m *message.Message, out *Outputs) {
	h := m.Header
	sum, err := s.mayFollow(m)
	if err != nil {
		s.discard(h, err, out)
		return
	}
	before := *s // what another answer begins with
	hs := *s.handshake
	before.handshake = &hs
	if err := s.initKeys(m); err != nil {
		*s.handshake = hs
		s.spiR = 0
		s.discard(h, err, out)
		if r := ReasonOf(err); r == ReasonNoProposal || r == ReasonKEValue || r == ReasonKEMethod {
			s.hinted(now, h, err, 0, out)
		}
		return
	}
	hs2 := s.handshake
	hs2.followed.answers = append(hs2.followed.answers, sum)
	hs2.request = before.request.packets[0]
	hs2.response = bytes.Clone(d.Data)
	hs2.answeredAt, hs2.hint, hs2.hintUntil = now, nil, time.Time{}
	hs2.pristine = &before
	hs.request = hs2.request
	s.noteNAT(m, d)
	s.initAbilities(m)
	t := s.request.task
	s.request = nil
	s.heard(now, out)
	s.report(out, Event{Kind: EventExchange, Exchange: h.Exchange, Initiator: true})
	s.logKeys(out)
	s.float()
	s.state = StateAuth
	if len(hs2.todo) > 0 {
		s.state = StateIntermediate
	}
	s.step(now, t, out)
}

// initKeys checks the choice and derives the first keys.
func (s *SA) initKeys(m *message.Message) error {
	h := s.handshake
	sa, okSA := message.First[*message.SA](m)
	ke, okKE := message.First[*message.KE](m)
	nonce, okNonce := message.First[*message.Nonce](m)
	if !okSA || !okKE || !okNonce || len(sa.Proposals) != 1 || len(sa.Proposals[0].SPI) != 0 || m.Header.ResponderSPI == 0 {
		return ReasonRule
	}
	if bytes.Equal(nonce.Data, h.ni) || bytes.Equal(ke.Data, h.ke.Public()) {
		return ReasonOwnNonce // RFC 7296, 2.10: our own request, reflected
	}
	choice, err := suite.Accept(sa.Proposals[0], s.conn.Proposals)
	if err != nil {
		return &fault{reason: ReasonNoProposal, err: err}
	}
	if ke.Method != choice.KE || choice.KE != h.ke.Method() {
		return ReasonKEMethod
	}
	todo := choice.AdditionalKE()
	if len(todo) > 0 && m.Notify(message.IntermediateExchangeSupp) == nil { // RFC 9370, 2.2.1
		return ReasonRule
	}
	shared, err := h.ke.Try(ke.Data)
	if err != nil {
		return &fault{reason: ReasonKEValue, err: err}
	}
	defer clear(shared)
	s.spiR, s.choice, h.nr, h.todo = m.Header.ResponderSPI, choice, bytes.Clone(nonce.Data), todo
	return s.deriveKeys(shared)
}

func (s *SA) deriveKeys(shared []byte) error {
	h := s.handshake
	keys, err := suite.DeriveIKE(s.choice, shared, h.ni, h.nr, s.spiI, s.spiR)
	if err != nil {
		return &fault{reason: ReasonInternal, err: err}
	}
	s.useKeys(keys)
	return nil
}

func (s *SA) useKeys(keys *suite.Keys) {
	s.keys = keys
	s.sealer, s.opener = keys.Protector(s.initiator)
}

// initAbilities reads the notifies of IKE_SA_INIT.
func (s *SA) initAbilities(m *message.Message) {
	h := s.handshake
	s.fragments = m.Notify(message.FragmentationSupported) != nil
	h.childless = m.Notify(message.ChildlessIKEv2Supported) != nil
	if n := m.Notify(message.SignatureHashAlgorithms); n != nil {
		h.hashes = auth.ParseHashes(n.Data)
	}
	h.takeCertReqs(m)
}

// initRequest answers the first datagram of a responder. All that fails here leaves
// nothing behind.
func (s *SA) initRequest(now time.Time, d Datagram, h message.Header, out *Outputs) {
	m, err := message.Parse(d.Data)
	if err == nil {
		err = message.Check(m)
	}
	if err != nil { // not even an answer: it could be to a victim
		s.discard(h, err, out)
		s.end(now, ReasonOf(err), out)
		return
	}
	s.spiI, s.local, s.remote = h.InitiatorSPI, d.Local, d.Remote
	payloads, err := s.initAnswer(m, d)
	if err != nil {
		s.initRefuse(now, d, h, err, out)
		return
	}
	hs := s.handshake
	answer := message.Message{Header: s.header(message.IKESAInit, 0, true), Payloads: payloads}
	hs.request, hs.response = bytes.Clone(d.Data), answer.Append(nil)
	s.question = hs.request
	s.state = StateAuth
	if len(hs.todo) > 0 {
		s.state = StateIntermediate
	}
	s.halfOpenUntil = now.Add(halfOpenTime)
	s.keep(now, 0, [][]byte{hs.response})
	s.repeat(d, out)
	s.report(out, Event{Kind: EventExchange, Exchange: message.IKESAInit})
	s.logKeys(out)
}

// initRefuse answers with the error's notify alone, in the clear and without an SPI of
// ours, because none remains (RFC 7296, 2.6 and 2.7).
func (s *SA) initRefuse(now time.Time, d Datagram, h message.Header, err error, out *Outputs) {
	if n, data := noteOf(err); n != 0 {
		m := message.Message{
			Header:   message.Header{InitiatorSPI: h.InitiatorSPI, Exchange: message.IKESAInit, Flags: message.Response},
			Payloads: []message.Payload{&message.Notify{Notify: n, Data: data}},
		}
		out.add(Send{Datagram{Local: d.Local, Remote: d.Remote, Data: m.Append(nil)}})
	}
	s.report(out, Event{Kind: EventExchange, Exchange: message.IKESAInit, Reason: ReasonOf(err), Err: err})
	s.end(now, ReasonOf(err), out)
}

// initAnswer chooses, computes the keys and makes the payloads of the response.
func (s *SA) initAnswer(m *message.Message, d Datagram) ([]message.Payload, error) {
	hs := s.handshake
	sa, _ := message.First[*message.SA](m)
	ke, _ := message.First[*message.KE](m)
	nonce, _ := message.First[*message.Nonce](m)
	s.conn = s.env.Select(Query{Local: d.Local, Remote: d.Remote, Proposals: sa.Proposals})
	if s.conn == nil {
		return nil, &fault{reason: ReasonNoConnection, notify: message.NoProposalChosen}
	}
	intermediate := m.Notify(message.IntermediateExchangeSupp) != nil
	choice, answer, err := suite.Select(sa.Proposals, s.conn.Proposals, suite.Options{KE: ke.Method, NoAdditional: !intermediate})
	if err != nil {
		return nil, &fault{reason: ReasonNoProposal, notify: message.NoProposalChosen, err: err}
	}
	s.choice, hs.chosen = choice, answer
	public, shared, err := s.respondKE(choice.KE, ke)
	if err != nil {
		return nil, err
	}
	if public == nil { // an IKE SA without a key exchange
		return nil, &fault{reason: ReasonNoProposal, notify: message.NoProposalChosen}
	}
	defer wipe(shared)
	hs.ni, hs.todo = bytes.Clone(nonce.Data), choice.AdditionalKE()
	if hs.nr, err = s.nonce(); err != nil {
		return nil, err
	}
	s.noteNAT(m, d)
	s.spiR = s.env.NewIKESPI()
	if err := s.deriveKeys(shared[0]); err != nil {
		return nil, err
	}
	s.initAbilities(m)
	payloads := []message.Payload{
		&message.SA{Proposals: []message.Proposal{answer}},
		&message.KE{Method: choice.KE, Data: public},
		&message.Nonce{Data: hs.nr},
	}
	if s.natChecked {
		payloads = append(payloads, s.natPayloads(d.Local, d.Remote)...)
	}
	payloads = append(payloads, s.certReqs()...)
	if s.fragments && s.conn.Fragmentation != FragmentationNo { // RFC 7383, 2.3: only to who asked
		payloads = append(payloads, &message.Notify{Notify: message.FragmentationSupported})
	}
	if hs.hashes != nil {
		payloads = append(payloads, auth.HashNotify())
	}
	if s.conn.Childless != ChildlessNever {
		payloads = append(payloads, &message.Notify{Notify: message.ChildlessIKEv2Supported})
	}
	if len(hs.todo) > 0 {
		payloads = append(payloads, &message.Notify{Notify: message.IntermediateExchangeSupp})
	}
	return payloads, nil
}

// logKeys gives the keys away to whoever has asked for a key log.
func (s *SA) logKeys(out *Outputs) {
	if s.env.KeyLog() {
		out.add(KeyLog{SPIi: s.spiI, SPIr: s.spiR, Choice: s.choice, Keys: s.keys})
	}
}
