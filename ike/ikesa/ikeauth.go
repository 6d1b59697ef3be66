package ikesa

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"

	"sallyport/ike/auth"
	"sallyport/ike/message"
	"sallyport/ike/suite"
)

// verdict is an IKE_AUTH message whose sender is authenticated but for the
// revocation of its certificate, which somebody else looks up.
type verdict struct {
	message *message.Message
	answer  *answer // as responder
}

// authPayloads makes the IKE_AUTH request.
func (s *SA) authPayloads(now time.Time) ([]message.Payload, error) {
	h := s.handshake
	s.localID = s.ownID()
	id := idPayload(s.localID, false)
	payloads := []message.Payload{id}
	proof, certs, err := s.prove(id, s.nextOut)
	if err != nil {
		return nil, err
	}
	payloads = append(payloads, certs...)
	if h.initialContact {
		payloads = append(payloads, &message.Notify{Notify: message.InitialContact})
	}
	payloads = append(payloads, s.certReqs()...)
	if peer, ok := s.conn.Remote.ID.Exact(); ok {
		payloads = append(payloads, idPayload(peer, true))
	}
	payloads = append(payloads, proof)
	first, err := s.firstChild()
	if err != nil {
		return nil, err
	}
	if first != nil {
		if h.offer, err = s.proposed(first, false); err != nil {
			return nil, err
		}
		if cp := configRequest(s.conn.VIPs); cp != nil {
			payloads = append(payloads, cp)
			h.offer.localTS = askWide(first, s.conn.VIPs)
		}
		payloads = append(payloads, h.offer.saPayload())
		payloads = append(payloads, h.offer.rest()...)
	}
	if s.conn.MOBIKE {
		payloads = append(payloads, &message.Notify{Notify: message.MobikeSupported})
		payloads = append(payloads, s.additionalAddresses()...)
	}
	return payloads, nil
}

// firstChild is the child of IKE_AUTH; nil makes a childless IKE SA (RFC 6023).
func (s *SA) firstChild() (*Child, error) {
	h := s.handshake
	use := s.conn.Childless
	switch {
	case use == ChildlessForce && !h.childless:
		return nil, &fault{reason: ReasonChildlessRefused}
	case h.childless && (use == ChildlessForce || use == ChildlessPrefer || h.first == nil):
		if h.first != nil {
			h.more = append([]*Child{h.first}, h.more...)
			h.first = nil
		}
		return nil, nil
	case h.first == nil && len(s.conn.Children) > 0:
		h.first = s.conn.Children[0]
	case h.first == nil:
		return nil, &fault{reason: ReasonChildlessRefused}
	}
	return h.first, nil
}

// askWide is the offer for our side while our virtual addresses are unknown: any
// address of the families that are asked for, which the responder narrows.
func askWide(c *Child, vips []netip.Addr) []message.TrafficSelector {
	var all []message.TrafficSelector
	for _, sel := range orDynamic(c.LocalTS) {
		if !sel.Dynamic {
			all = append(all, sel.TS)
			continue
		}
		var v4, v6 bool
		for _, vip := range vips {
			t := resolve([]Selector{sel}, []netip.Addr{vip})[0]
			switch {
			case vip.IsUnspecified() && vip.Is4(), vip.Is4() && !v4:
				t.Start, t.End, v4 = netip.IPv4Unspecified(), netip.AddrFrom4([4]byte{255, 255, 255, 255}), true
			case vip.Is6() && !v6:
				ones := [16]byte{}
				for i := range ones {
					ones[i] = 255
				}
				t.Start, t.End, v6 = netip.IPv6Unspecified(), netip.AddrFrom16(ones), true
			default:
				continue
			}
			all = append(all, t)
		}
	}
	return all
}

// authResponse takes the responder's answer: it proves who it is, and then, at
// best, there is a child.
func (s *SA) authResponse(now time.Time, m *message.Message, out *Outputs) {
	proof, ok := message.First[*message.Auth](m)
	if n := m.ErrorNotify(); n != nil && !ok {
		s.refusedHandshake(now, m, n, out)
		return
	}
	id, okID := m.Payload(message.TypeIDr).(*message.ID)
	var err error
	switch {
	case m.Payload(message.TypeEAP) != nil:
		err = &fault{reason: ReasonEAP}
	case !ok || !okID:
		err = &fault{reason: ReasonRule}
	default:
		err = s.verify(now, id, proof, m, m.Header.MessageID, out)
	}
	if err != nil {
		s.reportExchange(m, true, err, out)
		s.denounce(now, err, out)
		s.abortHandshake(now, err, out)
		return
	}
	if s.state == StateVerifying {
		s.handshake.verdict = verdict{message: m}
		s.halfOpenUntil = now.Add(halfOpenTime)
		return
	}
	s.authenticated(now, m, out)
}

// denounce tells a responder that took us in that we do not take it (RFC 7296,
// 2.21.2). There is no answer to wait for: the SA is gone.
func (s *SA) denounce(now time.Time, err error, out *Outputs) {
	h := s.header(message.Informational, s.nextOut, false)
	packets, e := s.seal(h, []message.Payload{&message.Notify{Notify: message.AuthenticationFailed}})
	if e != nil {
		return
	}
	s.nextOut++
	for _, p := range packets {
		out.add(Send{Datagram{Local: s.local, Remote: s.remote, Data: p}})
	}
}

// authenticated completes the initiator's handshake.
func (s *SA) authenticated(now time.Time, m *message.Message, out *Outputs) {
	h := s.handshake
	if n := m.ErrorNotify(); n != nil && endsIKE(n.Notify) {
		s.refusedHandshake(now, m, n, out)
		return
	}
	s.establish(now, m, out)
	if n := m.Notify(message.AuthLifetime); n != nil { // RFC 4478
		s.limitAuthentication(now, n.Data)
	}
	s.reportExchange(m, true, nil, out)
	s.report(out, Event{Kind: EventEstablished})
	if p, ok := message.First[*message.Config](m); ok && len(s.conn.VIPs) > 0 && p.Config == message.ConfigReply {
		if leases := leased(p, s.conn.VIPs); len(leases) > 0 {
			for _, l := range leases {
				s.virtual = append(s.virtual, l.Addr)
			}
			out.add(Assigned{SA: s, Leases: leases})
		}
	}
	if h.offer != nil {
		s.firstChildMade(now, m, out)
	}
	for _, c := range h.more {
		s.add(&childExchange{conf: c}, now)
	}
	s.forgetHandshake()
}

// endsIKE says whether an error means that the peer has no IKE SA, even beside its proof of who it is (RFC 7296, 2.21.2).
func endsIKE(n message.NotifyType) bool {
	return n == message.InvalidSyntax || n == message.UnsupportedCriticalPayload || n == message.AuthenticationFailed
}

// firstChildMade installs the child of IKE_AUTH, or reports why there is none. The IKE
// SA stands in either case (RFC 7296, 2.21.2).
func (s *SA) firstChildMade(now time.Time, m *message.Message, out *Outputs) {
	h := s.handshake
	offer := h.offer
	h.offer = nil
	refused := func(r Reason, n message.NotifyType, err error) {
		s.report(out, Event{Kind: EventChildFailed, Child: offer.conf, Reason: r, Notify: n, Err: err})
	}
	if n := m.ErrorNotify(); n != nil && m.Payload(message.TypeSA) == nil {
		s.env.ReleaseChildSPI(offer.spi)
		refused(reasonOfNotify(n.Notify), n.Notify, nil)
		return
	}
	var allowed []message.TrafficSelector
	if len(s.conn.VIPs) > 0 {
		allowed = s.localSelectors(offer.conf)
		if len(s.virtual) == 0 {
			s.env.ReleaseChildSPI(offer.spi)
			refused(ReasonNoAddress, 0, nil)
			return
		}
	}
	c, err := offer.accept(m, allowed)
	var in, outKey []byte
	if err == nil {
		in, outKey, err = s.keys.ChildKeymat(c.choice, nil, h.ni, h.nr, true)
	}
	if err != nil {
		// The responder has the child; it is told to remove it.
		s.add(&childDelete{spi: offer.spi, never: true, protocol: offer.protocol()}, now)
		refused(ReasonOf(err), 0, err)
		return
	}
	s.supersede(c)
	s.install(now, c, in, outKey, false, out)
	s.report(out, Event{Kind: EventChildUp, Child: c.conf, SPI: c.spiIn})
}

// establish makes the SA usable: from here on it is no longer half-open.
func (s *SA) establish(now time.Time, m *message.Message, out *Outputs) {
	s.state = StateEstablished
	s.establishedAt, s.lastIn, s.halfOpenUntil = now, now, time.Time{}
	s.mobikeOn = s.conn.MOBIKE && m.Notify(message.MobikeSupported) != nil
	if s.mobikeOn {
		s.mobike = &mobility{}
		s.peerAddresses(m)
	}
	s.scheduleReauth(now)
	s.schedule(now)
	s.schedulePath(now)
	if s.initiator {
		s.confirmed = true
	} else {
		s.livenessAt = now.Add(confirmTime)
	}
}

// limitAuthentication brings the reauthentication forward to what the peer wants, in
// seconds (RFC 4478).
func (s *SA) limitAuthentication(now time.Time, data []byte) {
	lifetime := time.Duration(binary.BigEndian.Uint32(data)) * time.Second
	at := now.Add(s.jittered(lifetime, min(lifetime/10, time.Minute)))
	if s.reauthAt.IsZero() || at.Before(s.reauthAt) {
		s.reauthAt = at
	}
}

// forgetHandshake frees everything that only the handshake needed: nonces, key exchange
// state, certificates, the first messages.
func (s *SA) forgetHandshake() {
	h := s.handshake
	if h == nil {
		return
	}
	for _, r := range h.rivals {
		r.abandonRival()
	}
	h.rivals, h.pristine = nil, nil
	s.dropHandshake()
	s.handshake = nil
}

// dropHandshake gives back what the handshake holds outside of this SA.
func (s *SA) dropHandshake() {
	h := s.handshake
	if h == nil {
		return
	}
	if h.offer != nil {
		s.env.ReleaseChildSPI(h.offer.spi)
		h.offer = nil
	}
	if h.oldKeys != nil {
		h.oldKeys.Zero()
		h.oldKeys = nil
	}
}

// refusedHandshake ends the handshake because of the peer's error notify.
func (s *SA) refusedHandshake(now time.Time, m *message.Message, n *message.Notify, out *Outputs) {
	err := &fault{reason: reasonOfNotify(n.Notify)}
	s.report(out, Event{Kind: EventExchange, Exchange: m.Header.Exchange, MessageID: m.Header.MessageID, Initiator: true, Reason: err.reason, Notify: n.Notify})
	s.abortHandshake(now, err, out)
}

func (s *SA) reportExchange(m *message.Message, initiator bool, err error, out *Outputs) {
	s.report(out, Event{Kind: EventExchange, Exchange: m.Header.Exchange, MessageID: m.Header.MessageID, Initiator: initiator, Reason: ReasonOf(err), Err: err})
}

// authRequest answers IKE_AUTH: first who the peer is, then, if certificates need to be
// looked up, a wait, then our own proof and a child.
func (s *SA) authRequest(now time.Time, m *message.Message, a *answer, out *Outputs) error {
	id, ok := m.Payload(message.TypeIDi).(*message.ID)
	proof, hasProof := message.First[*message.Auth](m)
	switch {
	case !ok:
		return &fault{reason: ReasonRule, notify: message.InvalidSyntax}
	case !hasProof: // RFC 7296, 2.16: the initiator wants EAP
		return &fault{reason: ReasonEAP, notify: message.AuthenticationFailed}
	}
	if err := s.reselect(id, m); err != nil {
		return err
	}
	s.handshake.takeCertReqs(m)
	if err := s.verify(now, id, proof, m, m.Header.MessageID, out); err != nil {
		return denied(err)
	}
	if s.state == StateVerifying {
		a.wait = true
		s.handshake.verdict = verdict{message: m, answer: a}
		s.halfOpenUntil = now.Add(halfOpenTime)
		return nil
	}
	return s.authAnswer(now, m, a, out)
}

// denied makes any failure of authentication one and the same notify.
func denied(err error) error {
	return &fault{reason: ReasonOf(err), notify: message.AuthenticationFailed, err: err}
}

// reselect finds the connection for the two identities, which may be another one than
// the addresses had led to. The proposal that was chosen must be one of its own.
func (s *SA) reselect(id *message.ID, m *message.Message) error {
	q := Query{Local: s.local, Remote: s.remote, Chosen: s.conn}
	peer := auth.IdentityOf(id)
	q.RemoteID = &peer
	if p, ok := m.Payload(message.TypeIDr).(*message.ID); ok {
		us := auth.IdentityOf(p)
		q.LocalID = &us
	}
	c := s.env.Select(q)
	if c == nil {
		return &fault{reason: ReasonNoConnection, notify: message.AuthenticationFailed}
	}
	if c != s.conn {
		chosen := []message.Proposal{s.handshake.chosen}
		if _, _, err := suite.Select(chosen, c.Proposals, suite.Options{KE: s.choice.KE}); err != nil {
			return &fault{reason: ReasonNoProposal, notify: message.AuthenticationFailed, err: err}
		}
	}
	s.conn = c
	return nil
}

// authAnswer makes the response of a peer that is authenticated: our proof, and the
// first child or the reason why there is none.
func (s *SA) authAnswer(now time.Time, m *message.Message, a *answer, out *Outputs) error {
	s.localID = s.ownID()
	id := idPayload(s.localID, true)
	proof, certs, err := s.prove(id, m.Header.MessageID)
	if err != nil {
		return denied(err)
	}
	wantsChild := m.Payload(message.TypeSA) != nil
	if !wantsChild && s.conn.Childless == ChildlessNever || wantsChild && s.conn.Childless == ChildlessForce {
		return &fault{reason: ReasonChildlessRefused, notify: message.InvalidSyntax}
	}
	a.payloads = append(append([]message.Payload{id}, certs...), proof)
	s.establish(now, m, out)
	var after Outputs
	s.report(&after, Event{Kind: EventEstablished})
	if m.Notify(message.InitialContact) != nil && s.conn.Unique != UniqueNever {
		out.add(InitialContact{s})
	}
	if s.mobikeOn {
		a.payloads = append(a.payloads, &message.Notify{Notify: message.MobikeSupported})
		a.payloads = append(a.payloads, s.additionalAddresses()...)
	}
	if t := s.conn.ReauthTime; t > 0 {
		a.payloads = append(a.payloads, &message.Notify{Notify: message.AuthLifetime, Data: binary.BigEndian.AppendUint32(nil, uint32(min(t/time.Second, math.MaxUint32)))})
	}
	a.after = append(a.after, after.Actions...)
	if wantsChild {
		s.firstChildAnswer(now, m, a)
	}
	s.forgetHandshake()
	return nil
}

// firstChildAnswer adds the child of IKE_AUTH to its response.
func (s *SA) firstChildAnswer(now time.Time, m *message.Message, a *answer) {
	refuse := func(err error) {
		n, data := noteOf(err)
		a.payloads = append(a.payloads, &message.Notify{Notify: n, Data: data})
		var after Outputs
		s.report(&after, Event{Kind: EventChildFailed, Reason: ReasonOf(err), Err: err})
		a.after = append(a.after, after.Actions...)
	}
	so := a.payloads
	var cp *message.Config
	if p, ok := message.First[*message.Config](m); ok && p.Config == message.ConfigRequest {
		var err error
		if cp, err = s.assign(p); err != nil {
			refuse(err)
			return
		}
	}
	chosen, err := s.choose(m, nil, suite.Options{NoKE: true})
	if err != nil {
		s.releaseLeases() // the peer will not hear of them
		refuse(err)
		return
	}
	if cp != nil {
		a.payloads = append(a.payloads, cp)
	}
	a.payloads = append(a.payloads, &message.SA{Proposals: []message.Proposal{chosen.sa}})
	a.payloads = append(a.payloads, chosen.rest()...)
	x := &childAnswer{child: chosen.child, ni: s.handshake.ni, nr: s.handshake.nr}
	if err := x.finish(s, now, nil, a); err != nil {
		a.payloads = so
		s.releaseLeases()
		refuse(err)
	}
}

// Verified takes the answer to a Verify output: nil if no certificate is revoked.
func (s *SA) Verified(now time.Time, id uint64, err error, out *Outputs) {
	if r := s.rivalVerifying(id); r != nil {
		s.rivalStep(now, r, out, func(rout *Outputs) { r.Verified(now, id, err, rout) })
		s.run(now, out)
		return
	}
	if s.state != StateVerifying || id != s.verifyID {
		return
	}
	v := s.handshake.verdict
	s.handshake.verdict = verdict{}
	s.state, s.verifyID = StateAuth, 0
	if err != nil {
		err = &fault{reason: ReasonRevoked, notify: message.AuthenticationFailed, err: err}
	}
	switch {
	case s.initiator && err != nil:
		s.reportExchange(v.message, true, err, out)
		s.denounce(now, err, out)
		s.abortHandshake(now, err, out)
	case s.initiator:
		s.authenticated(now, v.message, out)
	default:
		a := v.answer
		a.wait = false
		if err == nil {
			err = s.authAnswer(now, v.message, a, out)
		}
		s.answerRequest(now, a, err, out)
	}
	s.run(now, out)
}
