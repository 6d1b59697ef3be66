package ikesa

import (
	"net/netip"
	"time"

	"sallyport/ike/message"
)

// pathSearch finds out how large a packet may be on its way to the peer, though routers there say nothing of those that they drop
// (RFC 8899; RFC 4821). A probe is an INFORMATIONAL request that is padded to a size and must not be cut up: an answer proves that
// it arrived. If it is lost three times, an empty request with its message ID goes beside it, which every path takes: an answer to that one proves that size
// was the reason, and the window is free again. Repetitions are to be bitwise identical (RFC 7296, 2.1), so that a peer knows them: one that
// never got the first has nothing to compare, and one that did gets it again as well. Fragments (RFC 7383, 2.5.2) would be by the
// letter, but strongSwan with mediation, as Debian builds it, takes no INFORMATIONAL in fragments for a part of an IKE SA.
//
// A round tries what the link takes. If that does not arrive, what did the last time, and if a little more does not, the round is over.
// Otherwise it goes on by usual sizes, and the middle of what is still possible. A peer that has answered no probe so far is first asked by one
// that every path takes: if it leaves that without an answer too, nothing can be found out, and it is left in peace for long.
//
// IKE SAs whose packets go the same way need one search: Env.PathTurn lets one of them begin, PathFound tells the others what came of it.
type pathSearch struct {
	at    time.Time // of the next round; zero while one is under way
	began time.Time // the last one
	most  int       // what the link takes; sizes count the IP header in
	low   int       // the largest that has arrived in this round, or that every path takes
	high  int       // the largest that may still arrive
	tried bool      // most was tried
	sure  bool      // the peer answers probes
	mute  bool      // it answered none of a round, not even what every path takes

	before int // what was known before the round

	known int       // what packets may have by all that was found out; 0 if nothing was
	until time.Time // it is good
}

const (
	// probeTries is how often a probe is sent, and probeWait how long an answer is waited for each time (RFC 8899, 5.1.1 and 5.1.2).
	probeTries = 3
	probeWait  = time.Second
	// pathStep is how exact a result is.
	pathStep = 8
	// pathDelay is how long after it is established an IKE SA begins, at most twice that: many come up at once.
	pathDelay = time.Second
	// pathAgain is how soon a round may follow another because somebody says that the path is smaller.
	pathAgain = time.Minute
	// pathRest is how many times as long it takes to the next round if the peer answered nothing.
	pathRest = 6
	// pathLater is how much later than who did the last round the others of a path would begin the next one, and at most twice that.
	pathLater = 10 * time.Second
	// pathSlack is how long a result holds beyond the time of the next round.
	pathSlack = 2 * time.Minute
	// pathBase4 and pathBase6 are the sizes that every path takes (RFC 791, 3.1; RFC 8200, 5).
	pathBase4 = 576
	pathBase6 = 1280
	// pathLikely is the largest size that nearly every path takes.
	pathLikely = 1280
)

// pathSteps are sizes that many paths take, the larger first.
var pathSteps = [...]int{1500, pathLikely}

// Path is the way of packets to a peer. Behind a NAT, every port may be another host's.
type Path struct {
	Local, Remote netip.Addr
	Port          uint16 // the peer's, if there is a NAT before it; else 0
}

// PathFound is what a search of a path has come to.
type PathFound struct {
	Path Path
	MTU  int       // what packets may have; 0 if nothing was found out
	Mute bool      // the peer does not answer
	Next time.Time // the next search; zero while this one goes on
	// Until is when MTU is to be forgotten.
	Until time.Time
}

// Path is the way whose MTU this SA wants to know; ok is false if it does not.
func (s *SA) Path() (p Path, ok bool) {
	if s.path == nil || s.state != StateEstablished {
		return Path{}, false
	}
	p = Path{Local: s.local.Addr(), Remote: s.remote.Addr()}
	if s.natThere {
		p.Port = s.remote.Port()
	}
	return p, true
}

// pathBase is the size of a packet to the peer that every path takes.
func (s *SA) pathBase() int {
	if s.remote.Addr().Is4() {
		return pathBase4
	}
	return pathBase6
}

// schedulePath begins or ends the probing of the path, as the connection wants it.
func (s *SA) schedulePath(now time.Time) {
	switch {
	case s.conn.PathTime == 0:
		s.path = nil
	case s.path == nil:
		s.path = &pathSearch{at: now.Add(pathDelay + time.Duration(float64(pathDelay)*s.fraction()))}
		if way, ok := s.Path(); ok {
			f, _ := s.env.PathFound(way)
			s.path.known, s.path.until = f.MTU, f.Until
		}
	}
}

// pathProbing says in a word whether the path is probed.
func (s *SA) pathProbing() string {
	switch {
	case s.conn == nil || s.conn.PathTime == 0:
		return "off"
	case s.state >= StateEstablished && (s.path == nil || s.path.mute):
		return "unanswered"
	}
	return "on"
}

// tickPath takes over what others of the path have found out, or begins a round that is due.
func (s *SA) tickPath(now time.Time, out *Outputs) {
	p := s.path
	if p == nil || s.state != StateEstablished || !s.confirmed || !due(p.at, now) {
		return
	}
	way, _ := s.Path()
	if f, ok := s.env.PathFound(way); ok && now.Before(f.Next) {
		s.takePath(now, f, out)
		return
	}
	s.beginPath(now)
}

// takePath takes over what was found out by another IKE SA.
func (s *SA) takePath(now time.Time, f PathFound, out *Outputs) {
	way, ok := s.Path()
	p := s.path
	if !ok || way != f.Path || p.at.IsZero() { // or by a search of its own, which is under way
		return
	}
	p.known, p.until, p.mute, p.sure, p.began = f.MTU, f.Until, f.Mute, f.MTU != 0, now
	if !f.Next.IsZero() {
		p.at = f.Next.Add(pathLater + time.Duration(float64(pathLater)*s.fraction()))
	}
	s.tellPaths(out)
}

// beginPath begins a round, if it may.
func (s *SA) beginPath(now time.Time) {
	p := s.path
	most, low := s.env.LinkMTU(s.remote.Addr()), s.pathBase()
	if most <= low {
		p.began, p.at = now, s.nextPath(now)
		return
	}
	way, _ := s.Path()
	if wait := s.env.PathTurn(way, s.LocalSPI()); wait > 0 {
		p.at = now.Add(wait)
		return
	}
	p.most, p.low, p.tried, p.began = most, low, false, now
	p.high, p.before = p.most, p.known
	p.at = time.Time{}
	s.add(&sizeProbe{}, now)
}

// restartPath forgets what was found out: the path is another one. A probe that is under way says nothing of it.
func (s *SA) restartPath() {
	if s.path != nil {
		*s.path = pathSearch{at: s.lastIn, sure: s.path.sure}
	}
}

// recheckPath looks again, because somebody who is not authenticated says that less arrives.
func (s *SA) recheckPath(now time.Time) {
	if p := s.path; p != nil && s.state == StateEstablished && s.confirmed && !p.at.IsZero() && now.Sub(p.began) >= pathAgain {
		s.beginPath(now)
	}
}

func (s *SA) nextPath(now time.Time) time.Time {
	return now.Add(s.jittered(s.conn.PathTime, s.conn.PathTime/5))
}

// next is the size to try next, 0 when the round is over.
func (p *pathSearch) next() int {
	switch {
	case !p.tried:
		return p.most
	case !p.sure:
		return p.low
	case p.before > p.low && p.before <= p.high:
		return p.before
	case p.before == p.low && p.high-p.low >= pathStep:
		return p.low + pathStep
	}
	for _, size := range pathSteps {
		if size > p.low && size <= p.high {
			return size
		}
	}
	if p.high-p.low >= pathStep {
		return (p.low + p.high + 1) / 2
	}
	return 0
}

// probe makes the payload of the next probe, nil when the round is over. Size is that of its packet, which may be less than what was
// asked for by what a cipher's blocks make impossible.
func (s *SA) probe() (payload *message.Notify, size int) {
	p := s.path
	for {
		want := p.next()
		if want == 0 {
			return nil, 0
		}
		room := s.room(want)
		payload := &message.Notify{Notify: message.PathProbe}
		chain := func() int { return message.ProtectedLen(s.sealer, message.NotifyLen+len(payload.Data)) }
		payload.Data = make([]byte, max(0, room-chain()))
		for len(payload.Data) > 0 && chain() > room {
			payload.Data = payload.Data[1:]
		}
		if size = want - room + chain(); (size > p.low || !p.sure) && size <= want {
			return payload, size
		}
		p.tried, p.high = true, min(p.high, want-1) // no probe has this size
	}
}

// sizeProbe asks whether a packet of a size arrives.
type sizeProbe struct {
	of      *pathSearch
	began   time.Time // the round
	size    int
	payload *message.Notify
	lost    bool // an empty request goes beside it by now
}

func (*sizeProbe) allowed(s *SA) bool { return s.confirmed && s.unhindered() }

func (t *sizeProbe) build(s *SA, now time.Time, out *Outputs) (message.ExchangeType, []message.Payload, bool) {
	if s.path == nil || !s.path.at.IsZero() {
		return 0, nil, false
	}
	t.of, t.began = s.path, s.path.began
	if t.payload, t.size = s.probe(); t.payload == nil {
		s.found(now, true, out)
		return 0, nil, false
	}
	return message.Informational, []message.Payload{t.payload}, true
}

func (t *sizeProbe) process(s *SA, now time.Time, m *message.Message, out *Outputs) bool {
	s.report(out, Event{Kind: EventExchange, Exchange: m.Header.Exchange, MessageID: m.Header.MessageID, Initiator: true})
	p := s.path
	switch {
	case p == nil || p != t.of || p.began != t.began || !p.at.IsZero(): // the path is another one by now
		return false
	case m.ErrorNotify() != nil: // a peer that does not pass over what it does not know
		s.giveUpPath(now, out)
		s.path = nil
		return false
	case t.lost && p.tried && !p.sure:
		s.giveUpPath(now, out)
		return false
	case t.lost:
		p.high = t.size - 1
	case !p.tried:
		p.low, p.high, p.sure = t.size, t.size, true
	default:
		p.low, p.sure = max(p.low, t.size), true
	}
	if p.tried = true; p.sure {
		p.mute = false
		s.found(now, p.next() == 0, out)
	}
	if p.at.IsZero() {
		s.add(&sizeProbe{}, now)
	}
	return false
}

func (*sizeProbe) drop(*SA) {}

// giveUpPath leaves a peer in peace that answers no probe.
func (s *SA) giveUpPath(now time.Time, out *Outputs) {
	p := s.path
	p.at, p.mute = now.Add(pathRest*s.conn.PathTime), true
	way, _ := s.Path()
	out.add(PathFound{Path: way, Mute: true, Next: p.at, Until: p.at})
}

// found tells what arrives by now: until the round is over what did the last time, if it still may, or what is sure. While it is being asked for,
// that is what nearly every path takes: senders remember for minutes what they are told.
func (s *SA) found(now time.Time, over bool, out *Outputs) {
	p := s.path
	next := s.nextPath(now)
	if over {
		p.at = next
	}
	if over || p.known > p.high || p.known == 0 {
		p.known = p.low
		if !over && p.low < pathLikely && pathLikely <= p.high {
			p.known = pathLikely
		}
	}
	p.known, p.until = max(p.known, p.low), next.Add(pathSlack)
	s.tellPaths(out)
	if way, ok := s.Path(); ok {
		out.add(PathFound{Path: way, MTU: p.known, Next: p.at, Until: p.until})
	}
}

// tellPaths tells the data plane how large packets may be.
func (s *SA) tellPaths(out *Outputs) {
	for _, c := range s.children {
		if c.outbound {
			s.tellPath(c, out)
		}
	}
}

// tellPath tells the data plane how large a child's packets may be, if that is known.
func (s *SA) tellPath(c *child, out *Outputs) {
	if p := s.path; p != nil && p.known != 0 {
		out.add(PathMTU{SPIIn: c.spiIn, MTU: p.known, Until: p.until})
	}
}

// probeAgain sends a probe that was not answered once more, and after the last time by itself with an empty request beside it.
func (s *SA) probeAgain(now time.Time, r *request, t *sizeProbe, out *Outputs) {
	r.sent = now
	if r.tries+1 < probeTries {
		r.tries++
		r.at = now.Add(probeWait)
		s.transmit(r, out)
		return
	}
	packets, err := s.seal(s.header(r.exchange, r.id, false), nil)
	if err != nil {
		s.fail(now, &fault{reason: ReasonInternal, err: err}, out)
		return
	}
	t.lost, r.packets, r.tries = true, packets, 0
	r.at = now.Add(s.backoff(0))
	s.transmit(r, out)
}
