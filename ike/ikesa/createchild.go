package ikesa

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"sallyport/ike/message"
	"sallyport/ike/suite"
)

// childExchange is CREATE_CHILD_SA for a new child or the rekey of one (RFC 7296,
// 1.3.1 and 1.3.3), with as many IKE_FOLLOWUP_KE as were agreed on (RFC 9370, 2.2.4).
type childExchange struct {
	conf  *Child
	old   *child // is rekeyed; nil for a new child
	tries int    // requests that were refused because of the key exchange method

	offer  *childOffer
	method uint16 // what INVALID_KE_PAYLOAD asked for, 0 before
	ni     []byte
	ke     *suite.KeyExchange

	// Since the response, while additional key exchanges are missing:
	made   *child
	nr     []byte
	shared [][]byte
	todo   []uint16
	link   []byte
}

// allowed waits with a rekey until the peer is sure to have the child.
func (t *childExchange) allowed(s *SA) bool {
	return s.unhindered() && (t.old == nil || t.old.proofAt.IsZero())
}

func (t *childExchange) build(s *SA, now time.Time, out *Outputs) (message.ExchangeType, []message.Payload, bool) {
	if len(t.todo) > 0 {
		return t.buildFollowup(s, now, out)
	}
	if t.old != nil && (t.old.state != childUp || s.childBySPIIn(t.old.spiIn) != t.old || t.old.redundant) {
		return 0, nil, false
	}
	if err := t.prepare(s); err != nil {
		t.drop(s)
		t.failed(s, now, err, out)
		return 0, nil, false
	}
	payloads := []message.Payload{t.offer.saPayload(), &message.Nonce{Data: t.ni}}
	if t.ke != nil {
		payloads = append(payloads, &message.KE{Method: t.ke.Method(), Data: t.ke.Public()})
	}
	payloads = append(payloads, t.offer.rest()...)
	if t.old != nil { // RFC 7296, 1.3.3: the SPI is the one under which we receive
		rekey := &message.Notify{Protocol: t.old.choice.Protocol(), SPI: spiBytes(t.old.spiIn), Notify: message.RekeySA}
		payloads = append([]message.Payload{rekey}, payloads...)
	}
	return message.CreateChildSA, payloads, true
}

// prepare makes offer, nonce and key exchange.
func (t *childExchange) prepare(s *SA) error {
	if len(s.children) >= childrenMax {
		return ReasonTooMany
	}
	if t.offer == nil {
		o, err := s.proposed(t.conf, true)
		if err != nil {
			return err
		}
		t.offer = o
		if t.old != nil { // RFC 7296, 2.9.2: no narrower than what is in use
			o.localTS, o.remoteTS, o.transport = t.old.localTS, t.old.remoteTS, t.old.mode == Transport
		}
	}
	var err error
	if t.ni, err = s.nonce(); err != nil {
		return err
	}
	method := t.method
	if method == message.KENone {
		method = firstKE(t.offer.proposals, s.choice.KE)
	}
	t.ke = nil
	if method != message.KENone {
		if t.ke, err = suite.Initiate(method, s.env.Rand()); err != nil {
			return &fault{reason: ReasonInternal, err: err}
		}
	}
	return nil
}

// firstKE is the method to begin with: known to be the peer's if it is offered, else the
// preferred one.
func firstKE(proposals []suite.Proposal, known uint16) uint16 {
	if len(proposals) == 0 || len(proposals[0].KE) == 0 {
		return message.KENone
	}
	if slices.Contains(proposals[0].KE, known) {
		return known
	}
	return proposals[0].KE[0]
}

func (t *childExchange) process(s *SA, now time.Time, m *message.Message, out *Outputs) (more bool) {
	if len(t.todo) > 0 {
		return t.processFollowup(s, now, m, out)
	}
	if n := m.ErrorNotify(); n != nil {
		return t.refused(s, now, n, m, out)
	}
	c, err := t.accept(m)
	if err != nil {
		t.undo(s, now, c, err, m, out)
		return false
	}
	s.retries = 0
	if t.todo = c.choice.AdditionalKE(); len(t.todo) > 0 {
		t.made = c
		if err := t.takeLink(m, true); err != nil {
			t.undo(s, now, c, err, m, out)
			return false
		}
		return true
	}
	t.finish(s, now, c, m, out)
	return false
}

// accept checks the response and computes the shared secret.
func (t *childExchange) accept(m *message.Message) (*child, error) {
	c, err := t.offer.accept(m, nil)
	if err != nil {
		return c, err
	}
	nonce, ok := message.First[*message.Nonce](m)
	if !ok {
		return c, &fault{reason: ReasonRule}
	}
	if bytes.Equal(nonce.Data, t.ni) {
		return c, &fault{reason: ReasonOwnNonce}
	}
	t.nr = bytes.Clone(nonce.Data)
	ke, has := message.First[*message.KE](m)
	if c.choice.KE == message.KENone {
		if has {
			return c, &fault{reason: ReasonKEMethod}
		}
		return c, nil
	}
	if !has || t.ke == nil || ke.Method != c.choice.KE || t.ke.Method() != c.choice.KE {
		return c, &fault{reason: ReasonKEMethod}
	}
	shared, err := t.ke.Finish(ke.Data)
	if err != nil {
		return c, &fault{reason: ReasonKEValue, err: err}
	}
	t.shared = append(t.shared, shared)
	return c, nil
}

// refused deals with an error notify in the response.
func (t *childExchange) refused(s *SA, now time.Time, n *message.Notify, m *message.Message, out *Outputs) (more bool) {
	event := Event{Kind: EventExchange, Exchange: m.Header.Exchange, MessageID: m.Header.MessageID, Initiator: true,
		Reason: reasonOfNotify(n.Notify), Notify: n.Notify, Child: t.conf}
	if n.Notify == message.InvalidKEPayload && len(n.Data) == 2 {
		if method := binary.BigEndian.Uint16(n.Data); suite.OffersKE(t.offer.proposals, method) && method != t.keMethod() && t.tries < keTriesMax {
			t.method, t.tries = method, t.tries+1
			s.report(out, event)
			return true
		}
	}
	s.report(out, event)
	t.drop(s)
	switch {
	case n.Notify == message.TemporaryFailure:
		if t.old != nil && t.old.collision != nil && t.old.collision.spi != 0 {
			t.standsBack(s, now, out)
			return false
		}
		s.add(&childExchange{conf: t.conf, old: t.old}, s.retryAt(now))
	case t.old == nil:
		s.report(out, Event{Kind: EventChildFailed, Child: t.conf, Reason: event.Reason, Notify: n.Notify})
	case s.childBySPIIn(t.old.spiIn) != t.old:
		// The peer has deleted it in the meantime, which says it all.
	case t.old.collision != nil && t.old.collision.spi != 0:
		t.standsBack(s, now, out)
	case n.Notify == message.ChildSANotFound:
		// RFC 7296, 2.25.1: it is gone over there; a new one takes its place here.
		s.remove(t.old, ReasonChildNotFound, out)
		s.add(&childExchange{conf: t.conf}, now)
	case n.Notify == message.NoAdditionalSAs:
		// RFC 7296, 1.3: a peer that makes no more children is to be asked anew.
		s.reauthenticate(now, out)
	default:
		s.report(out, Event{Kind: EventChildFailed, Child: t.conf, SPI: t.old.spiIn, Reason: event.Reason, Notify: n.Notify})
		s.add(&childExchange{conf: t.conf, old: t.old}, s.retryAt(now))
	}
	return false
}

// keTriesMax is how often INVALID_KE_PAYLOAD is obeyed in one exchange.
const keTriesMax = 3

func (t *childExchange) keMethod() uint16 {
	if t.ke == nil {
		return message.KENone
	}
	return t.ke.Method()
}

// standsBack leaves the old child to the peer's rekey of it.
func (t *childExchange) standsBack(s *SA, now time.Time, out *Outputs) {
	if t.old.collision.spi == 0 { // it is not finished, and may never be
		s.add(&childExchange{conf: t.conf, old: t.old}, s.retryAt(now))
		return
	}
	if t.old.state == childUp {
		s.replaced(now, t.old)
	}
	if c := s.childBySPIIn(t.old.collision.spi); c != nil {
		if c.undecided = false; c.proofAt.IsZero() {
			s.release(c, out)
		}
	}
}

// undo deals with a response that we cannot accept. The peer has made its side of
// the child already, so it is told to delete it.
func (t *childExchange) undo(s *SA, now time.Time, c *child, err error, m *message.Message, out *Outputs) {
	s.report(out, Event{Kind: EventExchange, Exchange: m.Header.Exchange, MessageID: m.Header.MessageID, Initiator: true, Reason: ReasonOf(err), Child: t.conf, Err: err})
	if t.offer != nil {
		// What we tell to delete is our inbound SPI, which was never installed.
		s.add(&childDelete{spi: t.offer.spi, never: true, protocol: t.offer.protocol()}, now)
		t.offer = nil
	}
	t.failed(s, now, err, out)
}

// failed reports the end of an exchange that makes no child. A rekey is tried again.
func (t *childExchange) failed(s *SA, now time.Time, err error, out *Outputs) {
	e := Event{Kind: EventChildFailed, Child: t.conf, Reason: ReasonOf(err), Err: err}
	if t.old != nil {
		e.SPI = t.old.spiIn
		s.add(&childExchange{conf: t.conf, old: t.old}, s.retryAt(now))
	}
	s.report(out, e)
}

// finish installs the new child and decides a collision.
func (t *childExchange) finish(s *SA, now time.Time, c *child, m *message.Message, out *Outputs) {
	in, outKey, err := s.keys.ChildKeymat(c.choice, t.shared, t.ni, t.nr, true)
	if err != nil {
		t.undo(s, now, c, &fault{reason: ReasonInternal, err: err}, m, out)
		return
	}
	wipe(t.shared)
	t.offer = nil // its SPI is the child's now
	s.report(out, Event{Kind: EventExchange, Exchange: m.Header.Exchange, MessageID: m.Header.MessageID, Initiator: true, Child: c.conf, SPI: c.spiIn})
	if t.old == nil {
		s.supersede(c)
		s.install(now, c, in, outKey, false, out)
		s.report(out, Event{Kind: EventChildUp, Child: c.conf, SPI: c.spiIn})
		return
	}
	c.replaces = t.old.spiIn
	here := s.childBySPIIn(t.old.spiIn) == t.old
	if other := t.old.collision; other != nil && bytes.Compare(lower(t.ni, t.nr), other.lowest) < 0 {
		// RFC 7296, 2.8.1: ours has the lowest of the four nonces, so we close it. The peer
		// may have begun to use it, so it can receive until then.
		c.redundant = true
		s.install(now, c, in, outKey, true, out)
		clear(c.keyOut)
		s.add(&childDelete{spi: c.spiIn, reason: ReasonRedundant}, now)
		if here {
			t.standsBack(s, now, out)
		}
		return
	}
	s.install(now, c, in, outKey, false, out)
	s.report(out, Event{Kind: EventChildRekeyed, Child: c.conf, SPI: c.spiIn, Old: t.old.spiIn})
	if other := t.old.collision; other != nil {
		other.won = true
		if lost := s.childBySPIIn(other.spi); lost != nil {
			lost.redundant = true
		}
	}
	if here {
		t.old.state = childRekeyed
		s.add(&childDelete{spi: t.old.spiIn, reason: ReasonRekeyed}, now)
	}
}

func (t *childExchange) drop(s *SA) {
	if t.offer != nil {
		s.env.ReleaseChildSPI(t.offer.spi)
		t.offer = nil
	}
	wipe(t.shared)
}

func wipe(secrets [][]byte) {
	for _, b := range secrets {
		clear(b)
	}
}

// createChildRequest answers CREATE_CHILD_SA.
func (s *SA) createChildRequest(now time.Time, m *message.Message, a *answer, out *Outputs) error {
	sa, _ := message.First[*message.SA](m)
	if sa.Proposals[0].Protocol == message.ProtocolIKE {
		return s.ikeRekeyRequest(now, m, a, out)
	}
	old, err := s.mayCreate(m)
	if err != nil {
		return err
	}
	nonce, ok := message.First[*message.Nonce](m)
	if !ok {
		return &fault{reason: ReasonRule, notify: message.InvalidSyntax}
	}
	var only *Child
	if old != nil {
		only = old.conf
	}
	options := suite.Options{}
	ke, hasKE := message.First[*message.KE](m)
	if hasKE {
		options.KE = ke.Method
	}
	chosen, err := s.choose(m, only, options)
	if err != nil {
		s.report(out, Event{Kind: EventChildFailed, Child: only, Reason: ReasonOf(err), Err: err})
		return err
	}
	release := func(err error) error {
		s.env.ReleaseChildSPI(chosen.child.spiIn)
		return err
	}
	x := &childAnswer{child: chosen.child, old: old, ni: bytes.Clone(nonce.Data)}
	var public []byte
	if public, x.shared, err = s.respondKE(chosen.child.choice.KE, ke); err != nil {
		return release(err)
	}
	if x.nr, err = s.nonce(); err != nil {
		return release(err)
	}
	a.payloads = append(a.payloads, &message.SA{Proposals: []message.Proposal{chosen.sa}}, &message.Nonce{Data: x.nr})
	if public != nil {
		a.payloads = append(a.payloads, &message.KE{Method: chosen.child.choice.KE, Data: public})
	}
	a.payloads = append(a.payloads, chosen.rest()...)
	if old != nil {
		old.collision = &childCollision{lowest: lower(x.ni, x.nr)}
	}
	if todo := x.child.choice.AdditionalKE(); len(todo) > 0 {
		return s.expectFollowup(now, &followup{todo: todo, shared: x.shared, finish: x.finish, drop: x.drop}, a)
	}
	return x.finish(s, now, x.shared, a)
}

// mayCreate applies RFC 7296, 2.25.1 and 2.25.2: what goes on here may forbid a new
// child, or the rekey of the one that the request names and that is returned.
func (s *SA) mayCreate(m *message.Message) (old *child, err error) {
	temporary := &fault{reason: ReasonTemporary, notify: message.TemporaryFailure}
	if s.state != StateEstablished || s.collision != nil {
		return nil, temporary
	}
	if s.request != nil {
		switch s.request.task.(type) {
		case *ikeRekey, *ikeDelete:
			return nil, temporary
		}
	}
	n := m.Notify(message.RekeySA)
	if n == nil {
		return nil, nil
	}
	if n.Protocol == message.ProtocolESP || n.Protocol == message.ProtocolAH {
		old = s.childBySPIOut(binary.BigEndian.Uint32(n.SPI))
	}
	switch {
	case old == nil:
		return nil, &fault{reason: ReasonChildNotFound, notify: message.ChildSANotFound}
	case old.state != childUp || old.redundant || old.collision != nil:
		return nil, temporary
	}
	return old, nil
}

// respondKE answers the key exchange of a request, if there is to be one. Method is the
// chosen one; a request whose KE payload is for another one is told so (RFC 7296, 1.3).
func (s *SA) respondKE(method uint16, ke *message.KE) (public []byte, shared [][]byte, err error) {
	if method == message.KENone {
		return nil, nil, nil
	}
	if ke == nil || ke.Method != method {
		return nil, nil, &fault{reason: ReasonKEMethod, notify: message.InvalidKEPayload, data: binary.BigEndian.AppendUint16(nil, method)}
	}
	public, secret, err := suite.Respond(method, s.env.Rand(), ke.Data)
	if err != nil {
		return nil, nil, &fault{reason: ReasonKEValue, notify: message.InvalidSyntax, err: err}
	}
	return public, [][]byte{secret}, nil
}

// childAnswer is the responder's side of an exchange that makes a child.
type childAnswer struct {
	child  *child
	old    *child
	ni, nr []byte
	shared [][]byte
}

// finish installs the child with the answer that completes the exchange: the inbound
// direction before the peer can use it. The outbound one follows at once for a new
// child, and for a rekey when the old one is deleted: only then is it certain that the
// peer can receive (RFC 7296, 2.8).
func (x *childAnswer) finish(s *SA, now time.Time, shared [][]byte, a *answer) error {
	in, outKey, err := s.keys.ChildKeymat(x.child.choice, shared, x.ni, x.nr, false)
	if err != nil {
		x.drop(s)
		return &fault{reason: ReasonInternal, err: err}
	}
	wipe(shared)
	c := x.child
	var before Outputs
	if x.old == nil {
		s.supersede(c)
		s.install(now, c, in, outKey, true, &before)
		c.proofAt = now.Add(proofTime)
		a.before = append(a.before, before.Actions...)
		var after Outputs
		if c.replaces == 0 {
			s.release(c, &after)
		}
		s.report(&after, Event{Kind: EventChildUp, Child: c.conf, SPI: c.spiIn})
		a.after = append(a.after, after.Actions...)
		return nil
	}
	c.replaces = x.old.spiIn
	s.install(now, c, in, outKey, true, &before)
	a.before = append(a.before, before.Actions...)
	x.old.collision.spi = c.spiIn
	c.proofAt = now.Add(proofTime)
	switch {
	case s.rekeying(x.old): // the nonces decide when our answer is there
		c.undecided = true
	case x.old.collision.won:
		c.redundant = true
	case x.old.state == childUp:
		s.replaced(now, x.old)
	}
	var after Outputs
	s.report(&after, Event{Kind: EventChildRekeyed, Child: c.conf, SPI: c.spiIn, Old: x.old.spiIn})
	a.after = append(a.after, after.Actions...)
	return nil
}

func (x *childAnswer) drop(s *SA) {
	s.env.ReleaseChildSPI(x.child.spiIn)
	wipe(x.shared)
	if x.old != nil {
		x.old.collision = nil
	}
}

// replaced marks a child that the peer has rekeyed, and is to delete. If it does not, we do.
func (s *SA) replaced(now time.Time, c *child) {
	c.state, c.rekeyAt = childRekeyed, time.Time{}
	if last := now.Add(replacedTime); c.expireAt.IsZero() || last.Before(c.expireAt) {
		c.expireAt = last
	}
}

// rekeying says whether our own rekey of the child is on its way.
func (s *SA) rekeying(c *child) bool {
	if s.request == nil {
		return false
	}
	t, ok := s.request.task.(*childExchange)
	return ok && t.old == c
}

// supersede notes which child of the SA that is reauthenticated this one replaces.
func (s *SA) supersede(c *child) {
	if s.replaces == nil {
		return
	}
	for _, old := range s.replaces.own().children {
		if old.conf.Name == c.conf.Name && old.state == childUp {
			c.replaces = old.spiIn
		}
	}
}

// nonceLen is the length of our nonces in bytes: half of the longest PRF key is the
// least (RFC 7296, 2.10).
const nonceLen = 32

func (s *SA) nonce() ([]byte, error) {
	b := make([]byte, nonceLen)
	if _, err := s.env.Rand().Read(b); err != nil {
		return nil, &fault{reason: ReasonInternal, err: err}
	}
	return b, nil
}
