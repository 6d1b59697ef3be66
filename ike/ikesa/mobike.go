package ikesa

import (
	"bytes"
	"net/netip"
	"time"

	"sallyport/ike/message"
)

// mobility is what MOBIKE (RFC 4555) remembers.
type mobility struct {
	// cookie is the COOKIE2 of the path probe under way: children move when it comes back.
	cookie     []byte
	probeUntil time.Time
	// seen is the peer's last NAT_DETECTION_DESTINATION_IP: another one means that the
	// mapping of the NAT before us has changed (RFC 4555, 3.8).
	seen []byte
	// others are further addresses of the peer; those before next were tried since it was
	// last heard of.
	others []netip.Addr
	next   int
}

const (
	cookie2Len = 16
	othersMax  = 8
	// pathTries is how often a request is sent to each further address of a silent peer.
	pathTries = 2
	// probeTime is how long a path probe may take before children stay where they were for good.
	probeTime = 3 * time.Minute
)

// mobikeUpdate is the initiator's UPDATE_SA_ADDRESSES (RFC 4555, 3.5).
type mobikeUpdate struct {
	local, remote netip.AddrPort
	cookie        []byte
}

func (*mobikeUpdate) allowed(s *SA) bool { return s.unhindered() }

func (t *mobikeUpdate) build(s *SA, _ time.Time, _ *Outputs) (message.ExchangeType, []message.Payload, bool) {
	t.local, t.remote = s.local, s.remote
	t.cookie = make([]byte, cookie2Len)
	if _, err := s.env.Rand().Read(t.cookie); err != nil {
		return 0, nil, false
	}
	payloads := append([]message.Payload{&message.Notify{Notify: message.UpdateSAAddresses}}, s.natPayloads(s.local, s.remote)...)
	return message.Informational, append(payloads, &message.Notify{Notify: message.Cookie2, Data: t.cookie}), true
}

func (t *mobikeUpdate) process(s *SA, now time.Time, m *message.Message, out *Outputs) (more bool) {
	event := Event{Kind: EventExchange, Exchange: m.Header.Exchange, MessageID: m.Header.MessageID, Initiator: true}
	if n := m.ErrorNotify(); n != nil {
		event.Reason, event.Notify = reasonOfNotify(n.Notify), n.Notify
		s.report(out, event)
		return false
	}
	// RFC 4555, 3.7: who does not repeat the cookie did not get the request where it claims.
	if n := m.Notify(message.Cookie2); n == nil || !bytes.Equal(n.Data, t.cookie) {
		event.Reason = ReasonRule
		s.report(out, event)
		s.deleteIKE(now, ReasonRule, out)
		return false
	}
	s.report(out, event)
	if t.local != s.local || t.remote != s.remote { // moved again meanwhile
		return true
	}
	if here, there, checked := s.detectNAT(m, Datagram{Local: s.local, Remote: s.remote}); checked {
		s.natHere, s.natThere = here, there
		s.mobike.seen = bytes.Clone(m.Notify(message.NATDetectionDestinationIP).Data)
		if s.keepaliveAt = (time.Time{}); here && s.conn.Keepalive > 0 {
			s.keepaliveAt = now.Add(s.conn.Keepalive)
		}
	}
	s.updateChildren(out)
	s.report(out, Event{Kind: EventMoved})
	return false
}

func (*mobikeUpdate) drop(*SA) {}

// pathProbe asks for an answer from where the peer says that it is (RFC 4555, 3.7):
// its packets go there only then.
type pathProbe struct{ cookie []byte }

func (*pathProbe) allowed(s *SA) bool { return s.unhindered() }

func (t *pathProbe) build(s *SA, now time.Time, _ *Outputs) (message.ExchangeType, []message.Payload, bool) {
	if s.mobike == nil || !bytes.Equal(s.mobike.cookie, t.cookie) { // a later move took its place
		return 0, nil, false
	}
	return message.Informational, []message.Payload{&message.Notify{Notify: message.Cookie2, Data: t.cookie}}, true
}

func (t *pathProbe) process(s *SA, now time.Time, m *message.Message, out *Outputs) (more bool) {
	event := Event{Kind: EventExchange, Exchange: m.Header.Exchange, MessageID: m.Header.MessageID, Initiator: true}
	n := m.Notify(message.Cookie2)
	if n == nil || !bytes.Equal(n.Data, t.cookie) {
		event.Reason = ReasonRule
		s.report(out, event)
		s.deleteIKE(now, ReasonRule, out)
		return false
	}
	s.report(out, event)
	if s.mobike != nil && bytes.Equal(s.mobike.cookie, t.cookie) {
		s.mobike.cookie, s.mobike.probeUntil = nil, time.Time{}
		s.updateChildren(out)
		s.report(out, Event{Kind: EventMoved})
	}
	return false
}

func (*pathProbe) drop(*SA) {}

// mobikeAddresses tells the initiator at which addresses we, the responder, are (RFC 4555, 3.6).
type mobikeAddresses struct{}

func (*mobikeAddresses) allowed(s *SA) bool { return s.unhindered() }

func (*mobikeAddresses) build(s *SA, _ time.Time, _ *Outputs) (message.ExchangeType, []message.Payload, bool) {
	return message.Informational, append(s.additionalAddresses(), additionalAddress(s.local.Addr())), true
}

func (*mobikeAddresses) process(s *SA, _ time.Time, m *message.Message, out *Outputs) bool {
	s.report(out, Event{Kind: EventExchange, Exchange: m.Header.Exchange, MessageID: m.Header.MessageID, Initiator: true})
	return false
}

func (*mobikeAddresses) drop(*SA) {}

func additionalAddress(a netip.Addr) message.Payload {
	n := &message.Notify{Notify: message.AdditionalIPv6Address, Data: a.AsSlice()}
	if a.Is4() {
		n.Notify = message.AdditionalIPv4Address
	}
	return n
}

// additionalAddresses tells where else we can be reached (RFC 4555, 3.4).
func (s *SA) additionalAddresses() []message.Payload {
	var payloads []message.Payload
	for _, a := range s.conn.LocalAddrs {
		addr := a.Prefix.Addr()
		if a.Host == "" && a.Prefix.IsSingleIP() && addr != s.local.Addr() && len(payloads) < othersMax {
			payloads = append(payloads, additionalAddress(addr))
		}
	}
	return payloads
}

// otherPath makes the initiator try the next address of a peer that does not answer
// (RFC 4555, 3.11). The request under way goes there, and then the news that we have moved.
func (s *SA) otherPath(now time.Time) bool {
	m := s.mobike
	if m == nil || !s.initiator || s.state != StateEstablished || m.next == len(m.others) {
		return false
	}
	old := s.remote.Addr()
	s.remote = netip.AddrPortFrom(m.others[m.next], s.remote.Port())
	m.others[m.next] = old
	m.next++
	s.add(&mobikeUpdate{}, now)
	return true
}

// moved follows a change of our own address.
func (s *SA) moved(now time.Time, to Moved, out *Outputs) {
	if s.state < StateEstablished {
		return // the handshake goes on from where it began, or starts again
	}
	remote := s.remote
	if to.Remote.IsValid() {
		remote = to.Remote
	}
	if to.Local == s.local && remote == s.remote {
		return
	}
	if s.state != StateEstablished {
		s.local, s.remote = to.Local, remote
		return
	}
	if !s.mobikeOn {
		s.local, s.remote = to.Local, remote
		s.reauthenticate(now, out)
		return
	}
	s.local, s.remote = to.Local, remote
	if s.request != nil { // RFC 4555, 3.5: what is unanswered goes out again, from here
		s.transmit(s.request, out)
	}
	if s.initiator {
		s.add(&mobikeUpdate{}, now)
	} else {
		s.add(&mobikeAddresses{}, now)
	}
}

// mobikeRequest answers the notifies of RFC 4555 in an INFORMATIONAL request.
func (s *SA) mobikeRequest(now time.Time, m *message.Message, a *answer, _ *Outputs) error {
	if n := m.Notify(message.Cookie2); n != nil {
		a.payloads = append(a.payloads, &message.Notify{Notify: message.Cookie2, Data: bytes.Clone(n.Data)})
	}
	if !s.mobikeOn || s.mobike == nil {
		return nil
	}
	s.peerAddresses(m)
	here, there, checked := s.detectNAT(m, a.datagram)
	if checked {
		a.payloads = append(a.payloads, s.natPayloads(a.datagram.Local, a.datagram.Remote)...)
	}
	if m.Notify(message.UpdateSAAddresses) == nil || s.initiator || s.state != StateEstablished {
		return nil // only the original initiator decides (RFC 4555, 3.1)
	}
	if m.Notify(message.NoNATsAllowed) != nil && checked && (here || there) { // RFC 4555, 3.9
		a.payloads = []message.Payload{&message.Notify{Notify: message.UnexpectedNATDetected}}
		return nil
	}
	cookie := make([]byte, cookie2Len)
	if _, err := s.env.Rand().Read(cookie); err != nil {
		return nil // the children stay where they are
	}
	if checked {
		s.natHere, s.natThere = here, there
	}
	s.local, s.remote = a.datagram.Local, a.datagram.Remote
	s.mobike.cookie, s.mobike.probeUntil = cookie, now.Add(probeTime)
	s.add(&pathProbe{cookie: cookie}, now)
	return nil
}

// peerAddresses keeps the peer's list of further addresses.
func (s *SA) peerAddresses(m *message.Message) {
	var all []netip.Addr
	listed := m.Notify(message.NoAdditionalAddresses) != nil
	for n := range message.All[*message.Notify](m) {
		if n.Notify != message.AdditionalIPv4Address && n.Notify != message.AdditionalIPv6Address {
			continue
		}
		listed = true
		a, ok := netip.AddrFromSlice(n.Data)
		if ok && usable(a) && a.BitLen() == s.local.Addr().BitLen() && a != s.remote.Addr() && len(all) < othersMax {
			all = append(all, a)
		}
	}
	if listed {
		s.mobike.others, s.mobike.next = all, 0
	}
}

// natHints lets a liveness check find out whether the NAT before us has changed its
// mapping (RFC 4555, 3.8).
func (s *SA) natHints() []message.Payload {
	if !s.mobikeOn || !s.initiator || !s.natHere {
		return nil
	}
	return s.natPayloads(s.local, s.remote)
}

func (s *SA) natAnswer(now time.Time, m *message.Message, _ *Outputs) {
	n := m.Notify(message.NATDetectionDestinationIP)
	if n == nil || s.mobike == nil || !s.initiator {
		return
	}
	if s.mobike.seen != nil && !bytes.Equal(s.mobike.seen, n.Data) {
		s.add(&mobikeUpdate{}, now)
	}
	s.mobike.seen = bytes.Clone(n.Data)
}

// tickMobike forgets a probe that was not answered; the request itself has timed out
// long before, unless other exchanges went through.
func (s *SA) tickMobike(now time.Time, _ *Outputs) {
	if s.mobike != nil && due(s.mobike.probeUntil, now) {
		s.mobike.cookie, s.mobike.probeUntil = nil, time.Time{}
	}
}
