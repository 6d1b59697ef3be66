package ikesa

import (
	"bytes"
	"encoding/binary"
	"time"

	"sallyport/ike/message"
	"sallyport/ike/suite"
)

// ikeRekey is CREATE_CHILD_SA for a new IKE SA in the place of this one (RFC 7296,
// 1.3.2 and 2.18), with the IKE_FOLLOWUP_KE exchanges that were agreed on.
type ikeRekey struct {
	tries  int
	method uint16
	spi    message.SPI // ours of the new SA
	ni     []byte
	ke     *suite.KeyExchange

	// Since the response, while additional key exchanges are missing:
	peer   message.SPI
	choice suite.Choice
	nr     []byte
	shared [][]byte
	todo   []uint16
	link   []byte
}

// ikeCollision is a rekey by the peer of an IKE SA that we are rekeying, too.
type ikeCollision struct {
	lowest    []byte // the lower one of its two nonces
	successor *SA    // what it made; nil while additional key exchanges are missing
}

// allowed waits until nothing of the peer's is half done (RFC 7296, 2.25.2), and while
// the SA is made anew anyhow.
func (t *ikeRekey) allowed(s *SA) bool {
	return s.unhindered() && len(s.followups) == 0 && s.replacement == nil
}

func (t *ikeRekey) build(s *SA, now time.Time, out *Outputs) (message.ExchangeType, []message.Payload, bool) {
	if len(t.todo) > 0 {
		ke, payloads, err := followupPayloads(s, t.todo[0], t.link)
		if err != nil {
			t.failed(s, now, err, out)
			return 0, nil, false
		}
		t.ke = ke
		return message.IKEFollowupKE, payloads, true
	}
	var err error
	if t.ni, err = s.nonce(); err == nil {
		method := t.method
		if method == message.KENone {
			method = firstKE(s.conn.Proposals, s.choice.KE)
		}
		t.ke, err = suite.Initiate(method, s.env.Rand())
	}
	if err != nil {
		t.failed(s, now, err, out)
		return 0, nil, false
	}
	if t.spi == 0 {
		t.spi = s.env.NewIKESPI()
	}
	return message.CreateChildSA, []message.Payload{
		&message.SA{Proposals: suite.Offer(s.conn.Proposals, ikeSPIBytes(t.spi))},
		&message.Nonce{Data: t.ni},
		&message.KE{Method: t.ke.Method(), Data: t.ke.Public()},
	}, true
}

func ikeSPIBytes(spi message.SPI) []byte { return binary.BigEndian.AppendUint64(nil, uint64(spi)) }

func (t *ikeRekey) process(s *SA, now time.Time, m *message.Message, out *Outputs) (more bool) {
	if n := m.ErrorNotify(); n != nil {
		return t.refused(s, now, n, m, out)
	}
	if err := t.take(m, s); err != nil {
		// The peer has made a successor that we cannot follow; only a new start helps.
		s.report(out, Event{Kind: EventExchange, Exchange: m.Header.Exchange, MessageID: m.Header.MessageID, Initiator: true, Reason: ReasonOf(err), Err: err})
		t.drop(s)
		s.reauthenticate(now, out)
		return false
	}
	if len(t.todo) > 0 {
		if s.state == StateDeleting { // it will not be needed; the peer forgets its half
			t.drop(s)
			return false
		}
		return true
	}
	s.report(out, Event{Kind: EventExchange, Exchange: m.Header.Exchange, MessageID: m.Header.MessageID, Initiator: true})
	t.finish(s, now, out)
	return false
}

// take checks a response and computes its shared secret.
func (t *ikeRekey) take(m *message.Message, s *SA) error {
	if len(t.todo) > 0 {
		shared, err := finishKE(t.ke, m)
		if err != nil {
			return err
		}
		t.shared = append(t.shared, shared)
		t.todo = t.todo[1:]
	} else {
		sa, ok := message.First[*message.SA](m)
		nonce, ok2 := message.First[*message.Nonce](m)
		if !ok || !ok2 || len(sa.Proposals) != 1 {
			return &fault{reason: ReasonRule}
		}
		p := sa.Proposals[0]
		if p.Protocol != message.ProtocolIKE || len(p.SPI) != 8 {
			return &fault{reason: ReasonNoProposal}
		}
		t.peer = message.SPI(binary.BigEndian.Uint64(p.SPI))
		if t.peer == 0 || t.peer == t.spi || bytes.Equal(nonce.Data, t.ni) {
			return &fault{reason: ReasonOwnNonce}
		}
		var err error
		if t.choice, err = suite.Accept(p, s.conn.Proposals); err != nil {
			return &fault{reason: ReasonNoProposal, err: err}
		}
		if t.choice.KE != t.ke.Method() {
			return &fault{reason: ReasonKEMethod}
		}
		shared, err := finishKE(t.ke, m)
		if err != nil {
			return err
		}
		t.nr, t.shared, t.todo = bytes.Clone(nonce.Data), [][]byte{shared}, t.choice.AdditionalKE()
	}
	link, err := linkOf(m, len(t.todo) > 0)
	if link != nil {
		t.link = link
	}
	return err
}

// refused deals with an error notify in the response.
func (t *ikeRekey) refused(s *SA, now time.Time, n *message.Notify, m *message.Message, out *Outputs) (more bool) {
	reason := reasonOfNotify(n.Notify)
	s.report(out, Event{Kind: EventExchange, Exchange: m.Header.Exchange, MessageID: m.Header.MessageID, Initiator: true, Reason: reason, Notify: n.Notify})
	if n.Notify == message.InvalidKEPayload && len(n.Data) == 2 && t.nr == nil {
		if method := binary.BigEndian.Uint16(n.Data); suite.OffersKE(s.conn.Proposals, method) && method != t.ke.Method() && t.tries < keTriesMax {
			t.method, t.tries = method, t.tries+1
			return true
		}
	}
	t.drop(s)
	switch {
	case s.collision != nil: // the peer's own rekey stands, if it is ever finished
		s.add(&ikeRekey{}, s.retryAt(now))
		s.standBack(now, out)
	case n.Notify == message.NoAdditionalSAs:
		s.reauthenticate(now, out)
	default:
		s.add(&ikeRekey{}, s.retryAt(now))
	}
	return false
}

func (t *ikeRekey) failed(s *SA, now time.Time, err error, out *Outputs) {
	t.drop(s)
	s.report(out, Event{Kind: EventExchange, Exchange: message.CreateChildSA, Initiator: true, Reason: ReasonOf(err), Err: err})
	s.add(&ikeRekey{}, s.retryAt(now))
}

func (t *ikeRekey) drop(*SA) { wipe(t.shared) }

// finish makes the successor and decides a collision.
func (t *ikeRekey) finish(s *SA, now time.Time, out *Outputs) {
	next, err := s.succeed(now, true, t.choice, t.shared, t.ni, t.nr, t.spi, t.peer, out)
	if err != nil {
		t.failed(s, now, err, out)
		return
	}
	out.add(NewSA{next})
	if c := s.collision; c != nil && (bytes.Compare(lower(t.ni, t.nr), c.lowest) < 0 || s.successor != nil) {
		// RFC 7296, 2.8.1: ours has the lowest of the four nonces, so we close it.
		next.deleteIKE(now, ReasonRedundant, out)
		next.run(now, out)
		s.standBack(now, out)
		return
	} else if c != nil && c.successor != nil { // the peer closes its own
		c.successor.superfluous(now)
		out.add(Touched{c.successor})
	}
	s.handOver(now, next, out)
	s.deleteIKE(now, ReasonRekeyed, out)
}

// unhindered says whether something new may begin: not while the peer rekeys the IKE
// SA, because then it belongs to the successor, and not on a successor before a collision
// is decided for it.
func (s *SA) unhindered() bool {
	return s.state == StateEstablished && s.collision == nil && s.predecessor == nil
}

// standBack leaves the IKE SA to the successor that the peer's rekey made, or will make.
func (s *SA) standBack(now time.Time, out *Outputs) {
	next := s.collision.successor
	if next == nil || s.successor != nil {
		return
	}
	s.handOver(now, next, out)
	s.await(now)
}

// superfluous waits for the delete of a successor that lost. A peer that threw our answer away has never made its
// half, and a wrong one may wait for us: we do not wait for long, and delete it ourselves.
func (s *SA) superfluous(now time.Time) {
	s.predecessor, s.redundant = nil, true
	s.awaitFor(now, redundantTime)
}

// await waits for the peer's delete of this SA, which has been replaced.
func (s *SA) await(now time.Time) { s.awaitFor(now, replacedTime) }

func (s *SA) awaitFor(now time.Time, wait time.Duration) {
	if s.state == StateEstablished {
		s.state = StateRekeyed
		s.expireAt = now.Add(wait)
		s.rekeyAt, s.reauthAt, s.livenessAt, s.keepaliveAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	}
}

// succeed makes the successor's machine. Initiator says whether we began the exchange:
// who does is its original initiator.
func (s *SA) succeed(now time.Time, initiator bool, choice suite.Choice, shared [][]byte, ni, nr []byte, spiI, spiR message.SPI, out *Outputs) (*SA, error) {
	keys, err := s.keys.Rekey(choice, shared, ni, nr, spiI, spiR)
	if err != nil {
		return nil, &fault{reason: ReasonInternal, err: err}
	}
	wipe(shared)
	next := &SA{
		env: s.env, conn: s.conn, initiator: initiator, state: StateEstablished, ability: s.ability,
		spiI: spiI, spiR: spiR, local: s.local, remote: s.remote, localID: s.localID, remoteID: s.remoteID,
		choice: choice, keys: keys,
	}
	next.confirmed = true
	next.sealer, next.opener = keys.Protector(initiator)
	next.establishedAt, next.lastIn = now, s.lastIn
	next.validUntil, next.ownUntil = s.validUntil, s.ownUntil
	next.reauthAt, next.authUntil = s.reauthAt, s.authUntil
	next.schedule(now)
	next.logKeys(out)
	return next, nil
}

// handOver gives everything that lives on to the successor: children, addresses, and
// what waits to be done (RFC 7296, 2.18).
func (s *SA) handOver(now time.Time, next *SA, out *Outputs) {
	next.conn = s.conn // which a reload may have changed meanwhile
	next.children, s.children = append(next.children, s.children...), nil
	next.leases, s.leases = s.leases, nil
	next.virtual, s.virtual = s.virtual, nil
	next.mobike, s.mobike = s.mobike, nil
	if next.path, s.path = s.path, nil; next.path != nil && next.path.at.IsZero() {
		next.path.at = now // the answer to the probe under way comes to this SA
	}
	next.replacement, s.replacement = s.replacement, nil
	if next.replacement != nil {
		next.replacement.replaces = next
	}
	if next.replaces, s.replaces = s.replaces, nil; next.replaces != nil {
		next.replaces.replacement = next
	}
	next.reauthAt = s.reauthAt
	next.local, next.remote, next.ability = s.local, s.remote, s.ability
	next.confirmed = true
	next.predecessor = nil
	s.successor = next
	s.rekeyAt, s.reauthAt, s.livenessAt, s.keepaliveAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	waiting := s.queue
	s.queue = nil
	for _, q := range waiting {
		switch q.task.(type) {
		case *ikeRekey, *liveness:
			q.task.drop(s)
		case *ikeDelete: // of this SA, which goes in any case
			s.queue = append(s.queue, q)
		default:
			next.queue = append(next.queue, q)
		}
	}
	s.report(out, Event{Kind: EventRekeyed, Successor: next})
	if s.state == StateDeleting { // the peer has moved everything there: that one goes, too
		next.deleteIKE(now, s.reason, out)
	}
	next.run(now, out)
	out.add(Touched{next})
}

// ikeRekeyRequest answers the peer's request to rekey the IKE SA.
func (s *SA) ikeRekeyRequest(now time.Time, m *message.Message, a *answer, out *Outputs) error {
	if err := s.mayRekey(); err != nil {
		return err
	}
	sa, _ := message.First[*message.SA](m)
	nonce, _ := message.First[*message.Nonce](m)
	ke, hasKE := message.First[*message.KE](m)
	options := suite.Options{}
	if hasKE {
		options.KE = ke.Method
	}
	choice, answer, err := suite.Select(sa.Proposals, s.conn.Proposals, options)
	if err != nil {
		return &fault{reason: ReasonNoProposal, notify: message.NoProposalChosen, err: err}
	}
	var peer message.SPI
	for _, p := range sa.Proposals {
		if p.Number == answer.Number && len(p.SPI) == 8 {
			peer = message.SPI(binary.BigEndian.Uint64(p.SPI))
		}
	}
	if peer == 0 || choice.KE == message.KENone {
		return &fault{reason: ReasonRule, notify: message.InvalidSyntax}
	}
	x := &ikeAnswer{choice: choice, peer: peer, ni: bytes.Clone(nonce.Data)}
	var public []byte
	if public, x.shared, err = s.respondKE(choice.KE, ke); err != nil {
		return err
	}
	if x.nr, err = s.nonce(); err != nil {
		return err
	}
	x.spi = s.env.NewIKESPI()
	answer.SPI = ikeSPIBytes(x.spi)
	a.payloads = append(a.payloads, &message.SA{Proposals: []message.Proposal{answer}}, &message.Nonce{Data: x.nr},
		&message.KE{Method: choice.KE, Data: public})
	s.collision = &ikeCollision{lowest: lower(x.ni, x.nr)}
	if todo := choice.AdditionalKE(); len(todo) > 0 {
		return s.expectFollowup(now, &followup{todo: todo, shared: x.shared, finish: x.finish, drop: x.drop}, a)
	}
	return x.finish(s, now, x.shared, a)
}

// mayRekey applies RFC 7296, 2.25.2: while a child is made, rekeyed or closed, the IKE
// SA is not rekeyed. Two rekeys of the IKE SA may meet.
func (s *SA) mayRekey() error {
	temporary := &fault{reason: ReasonTemporary, notify: message.TemporaryFailure}
	if s.state != StateEstablished || s.collision != nil || len(s.followups) > 0 {
		return temporary
	}
	if s.request == nil {
		return nil
	}
	switch s.request.task.(type) {
	case *ikeRekey, *liveness:
		return nil
	}
	return temporary
}

// ikeAnswer is the responder's side of an IKE rekey.
type ikeAnswer struct {
	choice    suite.Choice
	spi, peer message.SPI
	ni, nr    []byte
	shared    [][]byte
}

// finish makes the successor before the answer leaves, and hands over when it has left;
// unless our own rekey is on its way: then the nonces decide when its answer is there.
func (x *ikeAnswer) finish(s *SA, now time.Time, shared [][]byte, a *answer) error {
	var before Outputs
	next, err := s.succeed(now, false, x.choice, shared, x.ni, x.nr, x.peer, x.spi, &before)
	if err != nil {
		x.drop(s)
		return err
	}
	before.add(NewSA{next})
	a.before = append(a.before, before.Actions...)
	if s.collision != nil {
		s.collision.successor = next
	}
	if s.successor != nil || s.state != StateEstablished { // ours has won meanwhile
		next.superfluous(now)
		return nil
	}
	if s.ikeRekeying() {
		next.predecessor = s
		return nil
	}
	a.handOver = next
	return nil
}

func (x *ikeAnswer) drop(s *SA) {
	wipe(x.shared)
	s.collision = nil
}

// ikeRekeying says whether our own rekey of the IKE SA is on its way.
func (s *SA) ikeRekeying() bool {
	if s.request == nil {
		return false
	}
	_, ok := s.request.task.(*ikeRekey)
	return ok
}

// settle decides a collision early: a peer that uses its successor has decided it.
func (s *SA) settle(now time.Time, m *message.Message, out *Outputs) {
	for d := range message.All[*message.Delete](m) {
		if d.Protocol == message.ProtocolIKE {
			return // it lost, and goes
		}
	}
	old := s.predecessor
	old.handOver(now, s, out)
	old.await(now)
	out.add(Touched{old})
}
