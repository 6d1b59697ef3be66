package ike

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"sallyport/ike/ikesa"
	"sallyport/ike/message"
)

// manager decides which children should be up: start, close and dead-peer actions, traps, operators; keying tries
// with back-off, failover and failback, uniqueness. One goroutine owns all of it. It knows IKE SAs by what shards tell it.
type manager struct {
	server  *Server
	orders  *mailbox
	links   map[string]*link
	pairs   map[string][]*link // by the two identities that the configuration says
	peers   map[message.SPI]*peer
	byIDs   map[string][]*peer // established ones, by both identities
	contact map[message.SPI]bool
	shard   int // that gets the next IKE SA of ours

	connecting int       // IKE SAs that we are setting up
	queue      []*link   // that wait for their turn
	wake       time.Time // no link's retryAt is earlier; zero = none waits
	closing    bool

	names     names // of peers, for the choice of a responder's connection
	resolving chan struct{}
}

// link is a connection with what should become of it.
type link struct {
	conn  *ikesa.Connection
	group *group
	want  map[*ikesa.Child]wanting
	peers []*peer

	attempt  bool // an IKE SA is being set up, or waits for its turn or for DNS
	queued   bool // it waits for its turn
	attempts uint64
	tries    int
	retryAt  time.Time // zero = not waiting
	failing  bool      // the last attempt failed, or the peer died, and none has gone well since
	next     int       // address to try next
	waiters  []*waiter
}

// wanting says how long a child is wanted.
type wanting uint8

const (
	wantOnce   wanting = iota + 1 // until it fails: a packet or an operator asked
	wantAlways                    // for as long as the configuration says
)

// peer is an IKE SA as the manager knows it.
type peer struct {
	spi         message.SPI
	spiI        message.SPI
	shard       *shard
	link        *link
	initiator   bool
	established bool
	ending      bool
	attempt     bool // it is the link's attempt
	since       time.Time
	ids         string
	up          []upChild
	asked       []*ikesa.Child
}

type upChild struct {
	spi   uint32
	child *ikesa.Child
}

// news is what a shard tells, copied so that the manager reads nothing of an IKE SA itself.
type news struct {
	kind       ikesa.EventKind
	reason     ikesa.Reason
	spi, spiI  message.SPI
	initiator  bool
	connection *ikesa.Connection
	child      *ikesa.Child
	childSPI   uint32
	old        uint32
	ids        string
	successor  message.SPI
	shard      *shard
}

const resolversMax = 16

func newManager(s *Server) *manager {
	m := &manager{
		server: s, orders: newMailbox(), links: make(map[string]*link), peers: make(map[message.SPI]*peer),
		byIDs: make(map[string][]*peer), contact: make(map[message.SPI]bool), resolving: make(chan struct{}, resolversMax),
	}
	return m
}

// timersGrain is how exactly retries are kept; it bounds how often all links are looked through.
const timersGrain = 50 * time.Millisecond

func (m *manager) run() {
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	for {
		if m.orders.work(m.server.guard) {
			return
		}
		wait := timersGrain
		m.server.guard(func() { wait = m.retry(time.Now()) })
		alarm.Reset(wait)
		select {
		case <-m.orders.ring:
		case <-alarm.C:
		}
	}
}

func (m *manager) post(f func()) bool { return m.orders.offer(f) }

// tell is post for shards: what they say must not get lost.
func (m *manager) tell(f func()) { m.orders.post(f) }

// call runs f and waits until it has run.
func (m *manager) call(f func()) {
	done := make(chan struct{})
	if m.orders.post(func() { defer close(done); f() }) {
		<-done
	}
}

func (m *manager) stop() { m.orders.close() }

func (m *manager) shutDown() { m.closing = true }

// retry pursues what has waited long enough, and returns when to look again. It looks through all links only when the
// earliest of them can be due.
func (m *manager) retry(now time.Time) time.Duration {
	if m.closing || m.wake.IsZero() {
		return time.Hour
	}
	if left := m.wake.Sub(now); left > 0 {
		return max(left, timersGrain)
	}
	m.wake = time.Time{}
	for _, l := range m.links {
		switch {
		case l.retryAt.IsZero():
		case l.retryAt.After(now):
			m.wakeAt(l.retryAt)
		default:
			l.retryAt = time.Time{}
			m.pursue(l) // may fail at once, and then waits again
		}
	}
	if m.wake.IsZero() {
		return time.Hour
	}
	return max(m.wake.Sub(now), timersGrain)
}

// putOff lets a link wait.
func (m *manager) putOff(l *link, until time.Time) {
	l.retryAt = until
	m.wakeAt(until)
}

func (m *manager) wakeAt(t time.Time) {
	if m.wake.IsZero() || t.Before(m.wake) {
		m.wake = t
	}
}

// pursue does what brings the wanted children of a link up, as far as it is not under way.
func (m *manager) pursue(l *link) {
	if m.closing || len(l.want) == 0 {
		return
	}
	p := l.usable()
	missing := false
	for _, c := range l.conn.Children { // in the order of the configuration
		if l.want[c] == 0 || l.has(c) || l.isAsked(c) {
			continue
		}
		missing = true
		if p != nil && l.retryAt.IsZero() {
			p.asked = append(p.asked, c)
			m.command(p, ikesa.AddChild{Child: c})
		}
	}
	if missing && p == nil && !l.attempt && l.retryAt.IsZero() {
		m.begin(l)
	}
}

// usable returns an established IKE SA of the link that children can be added to.
func (l *link) usable() *peer {
	for _, p := range l.peers {
		if p.established && !p.ending {
			return p
		}
	}
	return nil
}

func (l *link) has(c *ikesa.Child) bool {
	for _, p := range l.peers {
		for _, u := range p.up {
			if u.child == c {
				return true
			}
		}
	}
	return false
}

func (l *link) isAsked(c *ikesa.Child) bool {
	for _, p := range l.peers {
		if slices.Contains(p.asked, c) {
			return true
		}
	}
	return false
}

func (m *manager) command(p *peer, c ikesa.Command) {
	p.shard.call(func() { p.shard.command(p.spi, c) })
}

// begin starts an attempt, in its turn.
func (m *manager) begin(l *link) {
	l.attempt = true
	l.attempts++
	if m.connecting >= m.server.limits.Load().Connecting {
		m.queue, l.queued = append(m.queue, l), true
		return
	}
	m.connecting++
	m.resolve(l)
}

// finish ends an attempt, whatever its outcome, and lets the next one begin.
func (m *manager) finish(l *link) {
	if !l.attempt {
		return
	}
	l.attempt = false
	l.attempts++
	if l.queued {
		l.queued = false
		i := slices.Index(m.queue, l)
		m.queue = slices.Delete(m.queue, i, i+1)
		return
	}
	m.connecting--
	for len(m.queue) > 0 && m.connecting < m.server.limits.Load().Connecting {
		next := m.queue[0]
		m.queue, next.queued = m.queue[1:], false
		m.connecting++
		m.resolve(next)
	}
}

// dial starts the IKE SA of an attempt towards the next of the peer's addresses.
func (m *manager) dial(l *link, addrs []netip.Addr) {
	if len(addrs) == 0 {
		m.server.log.notBegun(l.conn, errNoAddress)
		m.finish(l)
		m.fail(l, errNoAddress)
		return
	}
	remote := addrs[l.next%len(addrs)]
	l.next++
	local, err := m.source(l.conn, remote)
	if err != nil {
		err = fmt.Errorf("no way to %v: %w", remote, err)
		m.server.log.notBegun(l.conn, err)
		m.finish(l)
		m.fail(l, err)
		return
	}
	o := ikesa.InitiatorOptions{InitialContact: m.initiallyContacts(l)}
	for _, c := range l.conn.Children {
		if l.want[c] != 0 {
			o.Child = c
			break
		}
	}
	sh := m.server.shards[m.shard%len(m.server.shards)]
	m.shard++
	attempt, conn := l.attempts, l.conn
	localPort, remotePort := portOr(conn.LocalPort), portOr(conn.RemotePort)
	sh.call(func() {
		made := false
		sh.connect(conn, netip.AddrPortFrom(local, localPort), netip.AddrPortFrom(remote, remotePort), o, func(sa *ikesa.SA) {
			made = true
			p := &peer{spi: sa.LocalSPI(), spiI: sa.LocalSPI(), shard: sh, link: l, initiator: true, attempt: true}
			if o.Child != nil {
				p.asked = []*ikesa.Child{o.Child}
			}
			m.tell(func() { m.began(l, p, attempt) })
		})
		if !made {
			m.tell(func() { m.finish(l); m.fail(l, ikesa.ReasonInternal) })
		}
	})
}

// initiallyContacts says whether an attempt may claim that we have no other IKE SA with the peer (RFC 7296, 2.4): none, and
// none under way, of this connection or of another one between the same two identities. The peer would delete it.
func (m *manager) initiallyContacts(l *link) bool {
	if l.conn.Unique == ikesa.UniqueNever {
		return false
	}
	for _, o := range m.pairs[pairKey(l.conn)] {
		if len(o.peers) > 0 || o.attempt && o != l {
			return false
		}
	}
	return true
}

const portIKE = 500

func portOr(p uint16) uint16 {
	if p == 0 {
		return portIKE
	}
	return p
}

// began notes the IKE SA of an attempt. If the connection is gone by now, so is that.
func (m *manager) began(l *link, p *peer, attempt uint64) {
	m.peers[p.spi] = p
	l.peers = append(l.peers, p)
	if l.attempts != attempt || m.links[l.conn.Name] != l {
		p.attempt = false
		p.ending = true
		m.command(p, ikesa.DeleteIKE{Reason: ikesa.ReasonReload})
	}
}

// source returns our address towards a peer: the host's choice, if the connection allows that one.
func (m *manager) source(c *ikesa.Connection, remote netip.Addr) (netip.Addr, error) {
	local, err := m.server.kernel.RouteSource(remote)
	if err == nil && addressed(c.LocalAddrs, local, nil) >= 0 {
		return local, nil
	}
	for _, a := range c.LocalAddrs {
		if a.Host == "" && a.Prefix.IsSingleIP() && a.Prefix.Addr().Is4() == remote.Is4() {
			return a.Prefix.Addr(), nil
		}
	}
	if err == nil {
		err = fmt.Errorf("%v is not among the local addresses", local)
	}
	return netip.Addr{}, err
}

var (
	errNoAddress   = errors.New("the peer has no address to begin with")
	errNoSuchName  = errors.New("there is no such connection or child")
	errNotUp       = errors.New("it is not up")
	errGone        = errors.New("the configuration no longer has it")
	errServerStops = errors.New("the server stops")
	errBusy        = errors.New("the server stops, or has too much to do")
)

// backoff is the wait after a number of failures: 1 s, doubling to a minute, less up to a half so that many
// connections do not come at once.
func backoff(tries int) time.Duration {
	wait := min(time.Second<<min(max(tries-1, 0), 10), time.Minute)
	return wait - time.Duration(rand.Int64N(int64(wait)/2+1))
}

// fail deals with an attempt, or a child of an established IKE SA, that did not come up.
func (m *manager) fail(l *link, err error) {
	l.tries++
	l.failing = l.usable() == nil // the peer may have come to us meanwhile
	for c, w := range l.want {
		m.woke(l, c, err)
		if w == wantOnce && !l.stoodInFor() && !l.has(c) {
			delete(l.want, c) // the next packet asks again
		}
	}
	if n := l.conn.KeyingTries; n > 0 && l.tries >= n {
		m.server.log.gaveUp(l.conn, l.tries, err)
		clear(l.want)
		l.tries = 0
	}
	m.putOff(l, time.Now().Add(backoff(l.tries)))
	if l.failing {
		m.standIn(l)
	}
}

// event is called by a shard.
func (m *manager) event(sh *shard, e ikesa.Event) {
	n := news{
		kind: e.Kind, reason: e.Reason, spi: e.SA.LocalSPI(), initiator: e.SA.Initiator(), connection: e.SA.Connection(),
		child: e.Child, childSPI: e.SPI, old: e.Old, shard: sh,
	}
	n.spiI, _ = e.SA.SPIs()
	if e.Kind == ikesa.EventEstablished {
		local, remote := e.SA.Identities()
		n.ids = identityKey(local) + "|" + identityKey(remote)
	}
	if e.Successor != nil {
		n.successor = e.Successor.LocalSPI()
	}
	m.tell(func() { m.hear(n) })
}

// ended is called by a shard, once an IKE SA.
func (m *manager) ended(spi message.SPI, r ikesa.Reason) { m.tell(func() { m.end(spi, r) }) }

// initialContact is called by a shard.
func (m *manager) initialContact(spi message.SPI) {
	m.tell(func() {
		if p := m.peers[spi]; p != nil && p.established {
			m.abandonOthers(p)
		} else {
			m.contact[spi] = true // until it is established, or ended
		}
	})
}

// holder finds the IKE SA with a child, and the child's place in up: the one that tells of it, but for what happens
// around the IKE SA's own rekey. A server's link has thousands of peers, which are not looked through for each child.
func (l *link) holder(teller *peer, spi uint32) (*peer, int) {
	is := func(u upChild) bool { return u.spi == spi }
	if i := slices.IndexFunc(teller.up, is); i >= 0 {
		return teller, i
	}
	for _, q := range l.peers {
		if i := slices.IndexFunc(q.up, is); i >= 0 {
			return q, i
		}
	}
	return nil, 0
}

func (m *manager) hear(n news) {
	p := m.peers[n.spi]
	if p == nil {
		if n.kind != ikesa.EventEstablished || n.connection == nil {
			return
		}
		if p = m.meet(n); p == nil {
			return
		}
	}
	l := p.link
	if n.child != nil {
		if c := l.conn.Child(n.child.Name); c != nil {
			n.child = c // of the present configuration
		} else if n.kind == ikesa.EventChildUp {
			m.command(p, ikesa.DeleteChild{SPI: n.childSPI, Reason: ikesa.ReasonReload})
		}
	}
	switch n.kind {
	case ikesa.EventEstablished:
		m.established(p, n)
	case ikesa.EventRekeyed:
		m.succeed(p, n)
	case ikesa.EventChildUp:
		p.asked = without(p.asked, n.child)
		p.up = append(p.up, upChild{n.childSPI, n.child})
		l.tries = 0
		m.woke(l, n.child, nil)
		m.failBack(l)
	case ikesa.EventChildRekeyed:
		if q, i := l.holder(p, n.old); q != nil {
			q.up[i].spi = n.childSPI
		}
		m.wokeRekeyed(l, 0, n.old, nil)
		for _, w := range l.waiters {
			if i := slices.Index(w.goneDown, n.old); i >= 0 {
				w.goneDown[i] = n.childSPI
			}
		}
	case ikesa.EventChildDown:
		if q, i := l.holder(p, n.childSPI); q != nil {
			q.up = slices.Delete(q.up, i, i+1)
		}
		m.wokeRekeyed(l, 0, n.childSPI, n.reason)
		m.lost(p, n.child, n.reason)
		m.wokeDown(l, 0, n.childSPI)
		m.pursue(l)
	case ikesa.EventChildFailed:
		if n.child != nil && slices.Contains(p.asked, n.child) {
			p.asked = without(p.asked, n.child)
			if n.reason == ikesa.ReasonNoAddress && !p.ending {
				// Only IKE_AUTH asks for virtual addresses: the next try needs a new IKE SA.
				p.ending = true
				m.command(p, ikesa.DeleteIKE{Reason: n.reason})
			}
			if !p.attempt {
				m.fail(l, n.reason)
			} else {
				m.woke(l, n.child, n.reason)
			}
		}
	case ikesa.EventEnding:
		p.ending = true
	}
}

func without(all []*ikesa.Child, c *ikesa.Child) []*ikesa.Child {
	return slices.DeleteFunc(all, func(o *ikesa.Child) bool { return o == c })
}

// meet notes an IKE SA that a peer began, or that reauthenticates another.
func (m *manager) meet(n news) *peer {
	l := m.links[n.connection.Name]
	if l == nil {
		n.shard.call(func() { n.shard.command(n.spi, ikesa.DeleteIKE{Reason: ikesa.ReasonReload}) })
		return nil
	}
	p := &peer{spi: n.spi, spiI: n.spiI, shard: n.shard, link: l, initiator: n.initiator}
	m.peers[p.spi] = p
	l.peers = append(l.peers, p)
	return p
}

func (m *manager) established(p *peer, n news) {
	l := p.link
	p.established, p.since, p.ids, p.spiI = true, time.Now(), n.ids, n.spiI
	m.byIDs[p.ids] = append(m.byIDs[p.ids], p)
	if p.attempt {
		p.attempt = false
		m.finish(l)
	}
	if n.connection != l.conn { // it began under a former configuration
		if compare(n.connection, l.conn) == different {
			p.ending = true
			m.command(p, ikesa.DeleteIKE{Reason: ikesa.ReasonReload})
		} else {
			m.command(p, ikesa.Reconfigured{Connection: l.conn})
		}
	}
	l.failing, l.retryAt = false, time.Time{}
	if len(p.asked) == 0 {
		l.tries = 0 // else once the child is up
	}
	for _, o := range m.pairs[pairKey(l.conn)] {
		if !o.attempt {
			continue // a server's link has thousands of peers, and began none of them
		}
		for _, q := range o.peers {
			if q != p && q.attempt && !q.established {
				m.command(q, ikesa.Accompanied{})
			}
		}
	}
	if m.contact[p.spi] {
		delete(m.contact, p.spi)
		m.abandonOthers(p)
	}
	m.keepUnique(p)
	m.pursue(l)
}

// succeed moves what an IKE SA had to its successor.
func (m *manager) succeed(p *peer, n news) {
	if n.successor == 0 || m.peers[n.successor] != nil {
		return
	}
	next := *p
	next.spi, next.spiI, next.since = n.successor, n.successor, p.since
	next.ending = false
	m.peers[next.spi] = &next
	p.link.peers = append(p.link.peers, &next)
	m.byIDs[next.ids] = append(m.byIDs[next.ids], &next)
	p.up, p.asked, p.ending = nil, nil, true
	m.wokeRekeyed(p.link, p.spi, 0, nil)
}

func (m *manager) end(spi message.SPI, r ikesa.Reason) {
	delete(m.contact, spi)
	p := m.peers[spi]
	if p == nil {
		return
	}
	l := p.link
	delete(m.peers, spi)
	if i := slices.Index(l.peers, p); i >= 0 {
		l.peers = slices.Delete(l.peers, i, i+1)
	}
	if p.established {
		left := slices.DeleteFunc(m.byIDs[p.ids], func(o *peer) bool { return o == p })
		if m.byIDs[p.ids] = left; len(left) == 0 {
			delete(m.byIDs, p.ids)
		}
	}
	m.wokeRekeyed(l, spi, 0, r)
	for _, u := range p.up {
		m.lost(p, u.child, r)
	}
	switch {
	case p.attempt:
		m.finish(l)
		m.fail(l, r)
	case r == ikesa.ReasonPanic && len(p.asked) > 0:
		m.fail(l, r) // what is wrong here is wrong again at once
	default:
		for _, c := range p.asked {
			m.woke(l, c, r)
		}
	}
	m.wokeDown(l, spi, 0)
	m.pursue(l)
}

func starts(a ikesa.ChildAction) bool {
	return a == ikesa.ActionStart || a == ikesa.ActionTrapStart
}

// lost decides what becomes of a child that is no more: the peer's wish, its death, or ours.
func (m *manager) lost(p *peer, c *ikesa.Child, r ikesa.Reason) {
	l := p.link
	if c == nil || l.has(c) || m.closing {
		return
	}
	again := false
	switch r {
	case ikesa.ReasonDeletedByPeer:
		again = starts(c.CloseAction)
	case ikesa.ReasonPeerDead, ikesa.ReasonTimeout:
		l.failing = true
		again = starts(c.DPDAction) || starts(c.StartAction)
	case ikesa.ReasonReload:
		again = l.want[c] == wantAlways
	case ikesa.ReasonReplaced, ikesa.ReasonRedundant, ikesa.ReasonInitialContact:
		// It made way for another one. If that is gone as well, the two sides did not agree which of them was to stay.
		alive := func(o *peer) bool { return o != p && !o.ending }
		again = l.want[c] == wantAlways && !slices.ContainsFunc(m.byIDs[p.ids], alive)
	case ikesa.ReasonLifetime, ikesa.ReasonExpired, ikesa.ReasonInternal, ikesa.ReasonPanic, ikesa.ReasonTemporary, ikesa.ReasonChildNotFound:
		again = starts(c.StartAction) || l.want[c] == wantAlways
		if r == ikesa.ReasonInternal || r == ikesa.ReasonPanic {
			l.tries++
			m.putOff(l, time.Now().Add(backoff(l.tries)))
		}
	}
	if again {
		l.want[c] = wantAlways
	} else {
		delete(l.want, c)
	}
	if l.failing && (p.initiator || again) {
		m.standInFor(l, c) // a responder leaves that to its peer, or to the next packet
	}
}

// acquire brings up what a packet needs, on the best connection of the site.
func (m *manager) acquire(connection, child string) {
	l, c := m.find(connection, child)
	if c == nil {
		return
	}
	if c.StartAction == ikesa.ActionNone && c.CloseAction != ikesa.ActionTrap && c.DPDAction != ikesa.ActionTrap {
		return // nobody set the trap
	}
	l, c = l.best(c)
	m.wish(l, c, wantOnce)
	m.pursue(l)
}

func (m *manager) wish(l *link, c *ikesa.Child, w wanting) { l.want[c] = max(l.want[c], w) }

func (m *manager) find(connection, child string) (*link, *ikesa.Child) {
	l := m.links[connection]
	if l == nil {
		return nil, nil
	}
	for _, c := range l.conn.Children {
		if c.Name == child {
			return l, c
		}
	}
	return l, nil
}

// abandonOthers takes a peer at its word that it has no other IKE SA with us (RFC 7296, 2.4). The word is only good for
// the same two identities, authenticated, and for what is older. Of one that we began at the same moment the peer did not know yet
// when it gave its word: which of the two stays, keepUnique decides, alike on both sides.
func (m *manager) abandonOthers(p *peer) {
	if p.link.conn.Unique == ikesa.UniqueNever {
		return
	}
	for _, o := range slices.Clone(m.byIDs[p.ids]) {
		if o != p && !o.since.After(p.since) && !o.ending && (o.initiator == p.initiator || p.since.Sub(o.since) >= crossingTime) {
			o.ending = true
			m.command(o, ikesa.Abandon{Reason: ikesa.ReasonInitialContact})
		}
	}
}

// crossingTime is how far apart two IKE SAs may come up of which either side began one before it knew of the other. Nobody starts anew
// in less.
const crossingTime = 2 * time.Second

// uniqueTime is how far apart two IKE SAs of one pair of identities may come up and still count as simultaneous.
// Retransmissions move them apart, by different times on either side; both must come to the same end.
const uniqueTime = time.Minute

// keepUnique enforces the connection's policy for several IKE SAs of one pair of identities.
func (m *manager) keepUnique(p *peer) {
	policy := p.link.conn.Unique
	if policy != ikesa.UniqueKeep && policy != ikesa.UniqueReplace {
		return
	}
	for _, o := range slices.Clone(m.byIDs[p.ids]) {
		if o == p || o.ending || p.ending {
			continue
		}
		loser, reason := o, ikesa.ReasonReplaced
		switch {
		case o.initiator != p.initiator && p.since.Sub(o.since) < uniqueTime:
			// Both sides began at once. Both must let go of the same one: that of the lower SPI.
			if reason = ikesa.ReasonRedundant; p.spiI < o.spiI {
				loser = p
			}
		case policy == ikesa.UniqueKeep:
			loser, reason = p, ikesa.ReasonRedundant
		}
		loser.ending = true
		m.command(loser, ikesa.DeleteIKE{Reason: reason})
	}
}

// addressesChanged looks, off the manager, which IKE SAs have another way to their peer now; those move. What waits
// for its next try is tried at once.
func (m *manager) addressesChanged() {
	for _, l := range m.links {
		if !l.retryAt.IsZero() {
			m.putOff(l, time.Now())
		}
	}
	for _, sh := range m.server.shards {
		sh.call(func() {
			places := sh.places()
			m.server.running.Go(func() { m.server.move(sh, places) })
		})
	}
}

// place is where an established IKE SA stands.
type place struct {
	spi           message.SPI
	conn          *ikesa.Connection
	local, remote netip.AddrPort
}

func (sh *shard) places() []place {
	var all []place
	for spi, e := range sh.sas {
		if e.sa.State() != ikesa.StateEstablished {
			continue
		}
		local, remote := e.sa.Endpoints()
		all = append(all, place{spi, e.sa.Connection(), local, remote})
	}
	return all
}

func (s *Server) move(sh *shard, places []place) {
	known := make(map[netip.Addr]netip.Addr)
	for _, p := range places {
		remote := p.remote.Addr()
		source, ok := known[remote]
		if !ok {
			var err error
			if source, err = s.kernel.RouteSource(remote); err != nil {
				source = netip.Addr{} // no way at all: perhaps soon
			}
			known[remote] = source
		}
		if !source.IsValid() || source == p.local.Addr() || addressed(p.conn.LocalAddrs, source, nil) < 0 {
			continue
		}
		sh.call(func() {
			sh.command(p.spi, ikesa.Moved{Local: netip.AddrPortFrom(source, p.local.Port())})
		})
	}
}

// wait runs f with a waiter on the manager's goroutine and waits for it.
func (m *manager) wait(ctx context.Context, f func(*waiter)) error {
	w := &waiter{done: make(chan error, 1)}
	if !m.post(func() { f(w) }) {
		return errBusy
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		m.tell(func() { m.unwait(w) })
		return ctx.Err()
	case <-m.server.context.Done():
		return errServerStops
	}
}
