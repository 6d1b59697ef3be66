package ikesa

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"time"

	"sallyport/ike/message"
	"sallyport/ike/suite"
)

// childrenMax bounds the children of one IKE SA, those being replaced included.
const childrenMax = 256

// child is a child SA that is installed, at least its inbound direction.
type child struct {
	conf              *Child
	state             childState
	initiator         bool // we sent the request that created it
	outbound          bool // the outbound direction is installed, too
	undecided         bool // made by the peer's rekey while ours is on its way, too
	redundant         bool // it lost a collision; the peer, who made it, deletes it
	unpadded          bool // the peer takes no traffic flow confidentiality padding
	mode              Mode
	spiIn, spiOut     uint32
	replaces          uint32 // inbound SPI of the predecessor, 0 = none
	choice            suite.Choice
	keyOut            []byte // until the outbound direction is installed
	localTS, remoteTS []message.TrafficSelector
	seen              seenAddrs
	collision         *childCollision // the peer rekeys it, too

	created    time.Time
	rekeyAt    time.Time
	expireAt   time.Time
	proofAt    time.Time // look whether the peer has it; zero when that is proven
	inactiveAt time.Time // look whether packets came
}

// childCollision is a rekey by the peer of a child that we may be rekeying, too.
type childCollision struct {
	lowest []byte // the lower one of its two nonces
	spi    uint32 // our inbound SPI of the child that it made; 0 while key exchanges are missing
	won    bool   // by ours
}

type childState uint8

const (
	childUp       childState = iota
	childRekeyed             // it has a successor and waits for its delete
	childDeleting            // our delete is on its way
)

func (c childState) String() string { return [...]string{"installed", "rekeyed", "deleting"}[c] }

func (s *SA) childBySPIIn(spi uint32) *child {
	for _, c := range s.children {
		if c.spiIn == spi {
			return c
		}
	}
	return nil
}

func (s *SA) childBySPIOut(spi uint32) *child {
	for _, c := range s.children {
		if c.spiOut == spi {
			return c
		}
	}
	return nil
}

// describe is the child as the data plane sees it, without keys.
func (s *SA) describe(c *child) *ChildSA {
	return &ChildSA{
		Connection: s.conn, Child: c.conf, SPIIn: c.spiIn, SPIOut: c.spiOut, Choice: c.choice,
		Local: s.local, Remote: s.remote, Encap: s.encap(), Mode: c.mode, Unpadded: c.unpadded, LocalTS: c.localTS, RemoteTS: c.remoteTS,
		SeenLocal: c.seen.local, SeenRemote: c.seen.remote,
		Replaces: c.replaces, Initiator: c.initiator, CreatedAt: c.created, RekeyAt: c.rekeyAt, ExpireAt: c.expireAt,
	}
}

// install brings a new child up: its inbound direction now; the outbound one at
// once, or, held back, when release is called.
func (s *SA) install(now time.Time, c *child, keyIn, keyOut []byte, hold bool, out *Outputs) {
	c.created = now
	if t := c.conf.RekeyTime; t > 0 {
		c.rekeyAt = now.Add(s.jittered(t, c.conf.RandTime))
	}
	if t := c.conf.LifeTime; t > 0 {
		c.expireAt = now.Add(t)
	}
	if t := c.conf.Inactivity; t > 0 {
		c.inactiveAt = now.Add(t)
	}
	in := s.describe(c)
	in.KeyIn = keyIn
	s.limit(c, in)
	c.keyOut = keyOut
	s.children = append(s.children, c)
	out.add(InstallInbound{in})
	if !hold {
		s.release(c, out)
	}
}

// limit fills in the limits in bytes and packets, with the jitter of this association.
func (s *SA) limit(c *child, d *ChildSA) {
	soft := func(limit, spread uint64) uint64 {
		return limit - uint64(float64(min(limit, spread))*s.fraction())
	}
	d.HardBytes, d.HardPackets = c.conf.LifeBytes, c.conf.LifePackets
	if c.conf.RekeyBytes > 0 {
		d.SoftBytes = max(soft(c.conf.RekeyBytes, c.conf.RandBytes), 1)
	}
	if c.conf.RekeyPackets > 0 {
		d.SoftPackets = max(soft(c.conf.RekeyPackets, c.conf.RandPackets), 1)
	}
}

// release installs the outbound direction, which replaces the predecessor's: not on an SA that is about to go, which
// may be in the way of another one's child by now.
func (s *SA) release(c *child, out *Outputs) {
	if c.outbound || c.redundant || s.state == StateDeleting || s.outdone(c) {
		return
	}
	d := s.describe(c)
	d.KeyOut, c.keyOut = c.keyOut, nil
	s.limit(c, d)
	c.outbound = true
	out.add(InstallOutbound{d})
	s.tellPath(c, out)
}

// confirm notes that the peer has the child, that is, our answer which made it: only
// from then on may the outbound direction take the place of another one's, and may we
// ask for something about it.
func (s *SA) confirm(c *child, out *Outputs) {
	c.proofAt = time.Time{}
	if !c.undecided {
		s.release(c, out)
	}
}

// confirmAll draws the conclusion from a request of the peer: with a window of 1 it has
// all our earlier answers.
func (s *SA) confirmAll(out *Outputs) {
	for _, c := range s.children {
		if !c.proofAt.IsZero() {
			s.confirm(c, out)
		}
	}
}

// lookForProof confirms a child that the peer uses, or of which it has had long enough to get our answer: it would have given up the
// IKE SA otherwise. That it has not, it must show first.
func (s *SA) lookForProof(now time.Time, c *child, out *Outputs) {
	if u, ok := s.env.Usage(c.spiIn, c.spiOut); ok && !u.LastIn.IsZero() {
		s.confirm(c, out)
		return
	}
	if s.observe(); !s.lastIn.Before(c.created.Add(proofTimeMax)) {
		s.confirm(c, out)
	} else if !now.Before(c.created.Add(proofTimeMax)) {
		s.add(&liveness{}, now)
	}
}

// remove takes a child down. A successor that waited for that sends from now on
// (RFC 7296, 2.8).
func (s *SA) remove(c *child, reason Reason, out *Outputs) {
	s.children = slices.DeleteFunc(s.children, func(o *child) bool { return o == c })
	gone := RemoveChild{SPIIn: c.spiIn, Reason: reason}
	if c.outbound {
		gone.SPIOut = c.spiOut
	}
	clear(c.keyOut)
	c.keyOut = nil
	for _, next := range s.children {
		if next.replaces == c.spiIn {
			s.release(next, out)
		}
	}
	out.add(gone)
	s.report(out, Event{Kind: EventChildDown, Child: c.conf, SPI: c.spiIn, Reason: reason})
}

// tickChildren rekeys, moves and expires children.
func (s *SA) tickChildren(now time.Time, out *Outputs) {
	for _, c := range slices.Clone(s.children) {
		if due(c.proofAt, now) {
			c.proofAt = now.Add(proofTime)
			s.lookForProof(now, c, out)
		}
		if due(c.rekeyAt, now) && s.paced(now, &c.rekeyAt) {
			if c.state == childUp && !c.redundant {
				s.add(&childExchange{conf: c.conf, old: c}, now)
			}
		}
		if due(c.inactiveAt, now) {
			c.inactiveAt = s.inactiveAt(now, c)
			if c.inactiveAt.IsZero() && c.state == childUp {
				s.add(&childDelete{spi: c.spiIn, reason: ReasonInactive}, now)
			}
		}
		if due(c.expireAt, now) {
			c.expireAt = time.Time{}
			s.expireChild(now, c)
		}
	}
}

// expireChild deletes a child whose lifetime is over.
func (s *SA) expireChild(now time.Time, c *child) {
	reason := ReasonLifetime
	if c.state == childRekeyed {
		reason = ReasonRekeyed
	}
	s.add(&childDelete{spi: c.spiIn, reason: reason}, now)
}

// inactiveAt is when to look again, zero if the child was idle for its whole time.
func (s *SA) inactiveAt(now time.Time, c *child) time.Time {
	last := c.created
	if u, ok := s.env.Usage(c.spiIn, c.spiOut); ok {
		for _, t := range [...]time.Time{u.LastIn, u.LastOut} {
			if t.After(last) {
				last = t
			}
		}
	} else {
		last = now // unknown: not reason enough
	}
	if next := last.Add(c.conf.Inactivity); next.After(now) {
		return next
	}
	return time.Time{}
}

// dynamic stands for our side of a connection without selectors.
var dynamic = []Selector{{Dynamic: true}}

func orDynamic(selectors []Selector) []Selector {
	if len(selectors) == 0 {
		return dynamic
	}
	return selectors
}

// localSelectors and remoteSelectors are what a child's configuration allows on each
// side, with the addresses of this IKE SA for the dynamic ones.
func (s *SA) localSelectors(c *Child) []message.TrafficSelector {
	hosts := s.virtual
	if len(hosts) == 0 {
		hosts = []netip.Addr{s.local.Addr()}
	}
	return resolve(orDynamic(c.LocalTS), hosts)
}

func (s *SA) remoteSelectors(c *Child) []message.TrafficSelector {
	hosts := s.leases
	if len(hosts) == 0 {
		hosts = []netip.Addr{s.remote.Addr()}
	}
	return resolve(orDynamic(c.RemoteTS), hosts)
}

// childOffer is what we asked for as initiator of an exchange that makes a child.
type childOffer struct {
	conf              *Child
	spi               uint32 // our inbound SPI, reserved
	proposals         []suite.Proposal
	localTS, remoteTS []message.TrafficSelector
	transport         bool
	translated        bool       // a NAT is on the way
	here, there       netip.Addr // our address if a NAT hides it from the peer, the peer's as we see it if one hides that; in transport mode
}

// seenAddrs are what the peer takes our and its address to be, in transport mode: those of its selectors. With a NAT
// between they are not ours (RFC 7296, 2.23.1).
type seenAddrs struct{ local, remote netip.Addr }

func seenBy(local, remote []message.TrafficSelector) (seen seenAddrs) {
	if isHost(local[0]) && isHost(remote[0]) {
		seen = seenAddrs{local[0].Start, remote[0].Start}
	}
	return seen
}

func isHost(t message.TrafficSelector) bool { return t.Start == t.End }

// hidden returns our address and the peer's where a NAT hides them from the other side.
func (s *SA) hidden() (here, there netip.Addr) {
	if s.natHere {
		here = s.local.Addr()
	}
	if s.natThere {
		there = s.remote.Addr()
	}
	return here, there
}

// substituted returns a peer's selectors in transport mode with the address that a host has on this side of the NAT (RFC
// 7296, 2.23.1); unchanged without one.
func substituted(list []message.TrafficSelector, addr netip.Addr) []message.TrafficSelector {
	if !addr.IsValid() {
		return list
	}
	out := slices.Clone(list)
	for i := range out {
		if isHost(out[i]) && out[i].Start.BitLen() == addr.BitLen() {
			out[i].Start, out[i].End = addr, addr
		}
	}
	return out
}

// proposed is conf's offer with fresh SPI; without key exchange for IKE_AUTH.
func (s *SA) proposed(conf *Child, ke bool) (*childOffer, error) {
	o := &childOffer{conf: conf, proposals: conf.Proposals, localTS: s.localSelectors(conf), remoteTS: s.remoteSelectors(conf)}
	if len(o.proposals) == 0 {
		o.proposals = suite.DefaultESP()
	}
	if !ke {
		o.proposals = slices.Clone(o.proposals)
		for i := range o.proposals {
			o.proposals[i] = o.proposals[i].WithoutKE()
		}
	}
	if o.transport = conf.Mode == Transport; o.transport {
		o.here, o.there = s.hidden()
	}
	o.translated = s.natHere || s.natThere
	var err error
	if o.spi, err = s.env.NewChildSPI(); err != nil {
		return nil, &fault{reason: ReasonNoSPI, err: err}
	}
	return o, nil
}

// errNAT: the addresses that AH covers change on the way (RFC 3715, 2.1).
var errNAT = errors.New("AH does not pass NAT")

// protocol is that of all proposals of a child.
func (o *childOffer) protocol() message.ProtocolID { return o.proposals[0].Protocol }

func spiBytes(spi uint32) []byte { return binary.BigEndian.AppendUint32(nil, spi) }

// saPayload, tsPayloads and notifies of an offer.
func (o *childOffer) saPayload() message.Payload {
	return &message.SA{Proposals: suite.Offer(o.proposals, spiBytes(o.spi))}
}

func (o *childOffer) rest() []message.Payload {
	payloads := []message.Payload{&message.TS{Selectors: o.localTS}, &message.TS{Responder: true, Selectors: o.remoteTS}}
	if o.transport {
		payloads = append(payloads, &message.Notify{Notify: message.UseTransportMode})
	}
	return payloads
}

// accept checks the responder's answer to an offer (RFC 7296, 2.7 and 2.9): one of our
// proposals, and selectors that are no wider than ours. Allowed are those of our own
// side, if the offer had to be wider. The child that it returns is not installed.
func (o *childOffer) accept(m *message.Message, allowed []message.TrafficSelector) (*child, error) {
	sa, ok := message.First[*message.SA](m)
	if !ok || len(sa.Proposals) != 1 {
		return nil, &fault{reason: ReasonRule, notify: message.InvalidSyntax}
	}
	p := sa.Proposals[0]
	if p.Protocol != o.protocol() || len(p.SPI) != 4 {
		return nil, &fault{reason: ReasonNoProposal}
	}
	c := &child{conf: o.conf, initiator: true, spiIn: o.spi, spiOut: binary.BigEndian.Uint32(p.SPI)}
	if c.spiOut < 256 { // RFC 4303, 2.1: reserved
		return nil, &fault{reason: ReasonRule, notify: message.InvalidSyntax}
	}
	var err error
	if c.choice, err = suite.Accept(p, o.proposals); err != nil {
		return nil, &fault{reason: ReasonNoProposal, err: err}
	}
	if c.choice.AH && o.translated {
		return nil, &fault{reason: ReasonNoProposal, err: errNAT}
	}
	tsi, tsr := selectorsOf(m)
	if len(tsi) == 0 || len(tsr) == 0 {
		return nil, &fault{reason: ReasonSelectors, notify: message.TSUnacceptable}
	}
	if o.transport {
		c.seen = seenBy(tsi, tsr)
		tsi, tsr = substituted(tsi, o.here), substituted(tsr, o.there)
	}
	if allowed == nil {
		allowed = o.localTS
	}
	if !covered(tsi, allowed) || !covered(tsr, o.remoteTS) || len(tsi) > selectorsMax || len(tsr) > selectorsMax {
		return nil, &fault{reason: ReasonSelectors, notify: message.TSUnacceptable}
	}
	c.localTS, c.remoteTS, c.unpadded = tsi, tsr, m.Notify(message.ESPTFCPaddingNotSupported) != nil
	switch transport := m.Notify(message.UseTransportMode) != nil; {
	case transport && !o.transport, !transport && o.transport:
		return nil, &fault{reason: ReasonMode}
	case transport:
		c.mode = Transport
	}
	return c, nil
}

// selectorsOf returns TSi and TSr of a message, nil if they are missing.
func selectorsOf(m *message.Message) (tsi, tsr []message.TrafficSelector) {
	if p, ok := m.Payload(message.TypeTSi).(*message.TS); ok {
		tsi = p.Selectors
	}
	if p, ok := m.Payload(message.TypeTSr).(*message.TS); ok {
		tsr = p.Selectors
	}
	return tsi, tsr
}

// chosen is what we answer, as responder, to the peer's request for a child.
type chosen struct {
	child *child // not installed
	sa    message.Proposal
}

// choose finds a child of the configuration for the peer's request: the first whose
// selectors contain the first ones asked for on both sides (RFC 7296, 2.9: those may be
// of the packet that wants it), else the first that has anything in common. Only, if not
// nil, is the one that is rekeyed. Options are those of the key exchange.
func (s *SA) choose(m *message.Message, only *Child, options suite.Options) (*chosen, error) {
	sa, ok := message.First[*message.SA](m)
	tsi, tsr := selectorsOf(m)
	if !ok || m.Payload(message.TypeTSi) == nil || m.Payload(message.TypeTSr) == nil {
		return nil, &fault{reason: ReasonRule, notify: message.InvalidSyntax}
	}
	best, rank := (*child)(nil), 0
	transport := m.Notify(message.UseTransportMode) != nil
	here, there := s.hidden()
	for _, conf := range s.conn.Children {
		if only != nil && conf != only {
			continue
		}
		tsi, tsr := tsi, tsr
		if conf.Mode == Transport {
			tsi, tsr = substituted(tsi, there), substituted(tsr, here)
		}
		local, remote := narrow(tsr, s.localSelectors(conf)), narrow(tsi, s.remoteSelectors(conf))
		if len(local) == 0 || len(remote) == 0 {
			continue
		}
		r := 1
		if local[0] == tsr[0] && remote[0] == tsi[0] {
			r = 2
			if slices.Equal(local, tsr) && slices.Equal(remote, tsi) {
				r = 3
			}
		}
		if transport == (conf.Mode == Transport) {
			r += 3 // of two that would do, the one in the mode that is asked for
		}
		if r > rank {
			best, rank = &child{conf: conf, localTS: local, remoteTS: remote}, r
		}
	}
	if best == nil {
		return nil, &fault{reason: ReasonSelectors, notify: message.TSUnacceptable}
	}
	own := best.conf.Proposals
	if len(own) == 0 {
		own = suite.DefaultESP()
	}
	choice, answer, err := suite.Select(sa.Proposals, own, options)
	if err != nil {
		return nil, &fault{reason: ReasonNoProposal, notify: message.NoProposalChosen, err: err}
	}
	if choice.AH && (s.natHere || s.natThere) {
		return nil, &fault{reason: ReasonNoProposal, notify: message.NoProposalChosen, err: errNAT}
	}
	for _, p := range sa.Proposals {
		if p.Number == answer.Number && len(p.SPI) == 4 {
			best.spiOut = binary.BigEndian.Uint32(p.SPI)
		}
	}
	if best.spiOut < 256 { // RFC 4303, 2.1: reserved
		return nil, &fault{reason: ReasonSyntax, notify: message.InvalidSyntax}
	}
	if s.childBySPIOut(best.spiOut) != nil {
		return nil, &fault{reason: ReasonSyntax, notify: message.InvalidSyntax}
	}
	// A request for transport mode that is not configured is declined by an answer without the notify (RFC 7296, 1.3.1).
	switch {
	case best.conf.Mode == Transport && transport:
		best.mode, best.seen = Transport, seenBy(tsr, tsi)
	case best.conf.Mode == Transport:
		return nil, &fault{reason: ReasonMode, notify: message.NoProposalChosen}
	}
	best.choice, best.unpadded = choice, m.Notify(message.ESPTFCPaddingNotSupported) != nil
	if len(s.children) >= childrenMax {
		return nil, &fault{reason: ReasonTooMany, notify: message.NoAdditionalSAs}
	}
	if best.spiIn, err = s.env.NewChildSPI(); err != nil {
		return nil, &fault{reason: ReasonNoSPI, notify: message.NoAdditionalSAs, err: err}
	}
	answer.SPI = spiBytes(best.spiIn)
	return &chosen{best, answer}, nil
}

// payloads of the answer that follow SA, nonce and KE.
func (c *chosen) rest() []message.Payload {
	payloads := []message.Payload{
		&message.TS{Selectors: c.child.remoteTS}, &message.TS{Responder: true, Selectors: c.child.localTS},
	}
	if c.child.mode == Transport {
		payloads = append(payloads, &message.Notify{Notify: message.UseTransportMode})
	}
	return payloads
}

// lower returns the lower one of two nonces, octet by octet (RFC 7296, 2.8.1).
func lower(a, b []byte) []byte {
	if bytes.Compare(a, b) < 0 {
		return a
	}
	return b
}
