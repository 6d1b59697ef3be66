package ike

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"sallyport/ike/auth"
	"sallyport/ike/ikesa"
	"sallyport/ike/suite"
)

// Config is everything that a reload may change. The server keeps what it points to: it must not be changed afterwards.
type Config struct {
	Connections []*ikesa.Connection // names are unique; where several match a peer equally, the first counts
	Store       *auth.Store
	Pools       []Pool
}

// snapshot is a configuration, immutable, with what is looked up in it. Ten thousand connections must not make a handshake
// slow: the first look-up, by addresses and proposals, sees one connection of those that say the same; the second sees
// those of the peer's identity.
type snapshot struct {
	order    []*ikesa.Connection
	place    map[*ikesa.Connection]int
	store    *auth.Store
	byAddr   map[netip.Addr][]*ikesa.Connection    // by remote address, of connections that have only single ones
	wild     []*ikesa.Connection                   // all others
	byID     map[auth.Identity][]*ikesa.Connection // by remote identity, canonical
	patterns []*ikesa.Connection                   // whose peer may have one of several
	named    map[netip.Addr]int                    // how many connections name an address
	hosts    func() map[string][]netip.Addr        // what names were last found to mean
}

func newSnapshot(c *Config, hosts func() map[string][]netip.Addr) *snapshot {
	s := &snapshot{
		order: c.Connections, store: c.Store, hosts: hosts, place: make(map[*ikesa.Connection]int), named: make(map[netip.Addr]int),
		byAddr: make(map[netip.Addr][]*ikesa.Connection), byID: make(map[auth.Identity][]*ikesa.Connection),
	}
	seen := make(map[string]bool)
	for i, conn := range c.Connections {
		s.place[conn] = i
		if id, ok := conn.Remote.ID.Exact(); ok {
			id = id.Canonical()
			s.byID[id] = append(s.byID[id], conn)
		} else {
			s.patterns = append(s.patterns, conn)
		}
		single := len(conn.RemoteAddrs) > 0
		for _, a := range conn.RemoteAddrs {
			if a.Host != "" || !a.Prefix.IsSingleIP() {
				single = false
				continue
			}
			s.named[a.Prefix.Addr()]++
		}
		key := fmt.Sprint(conn.RemoteAddrs, conn.LocalAddrs, conn.Proposals)
		if seen[key] {
			continue // an earlier one says the same
		}
		seen[key] = true
		if !single {
			s.wild = append(s.wild, conn)
			continue
		}
		for _, a := range conn.RemoteAddrs {
			s.byAddr[a.Prefix.Addr()] = append(s.byAddr[a.Prefix.Addr()], conn)
		}
	}
	return s
}

// candidates are the connections that a look-up has to choose from.
func (s *snapshot) candidates(q ikesa.Query) [2][]*ikesa.Connection {
	if q.RemoteID == nil {
		return [2][]*ikesa.Connection{s.byAddr[q.Remote.Addr()], s.wild}
	}
	return [2][]*ikesa.Connection{s.byID[q.RemoteID.Canonical()], s.patterns}
}

// addressed says how well an address fits a connection's: -1 not at all, 0 any, else the bits that had to be right.
func addressed(allowed []ikesa.Address, a netip.Addr, hosts map[string][]netip.Addr) int {
	if len(allowed) == 0 {
		return 0
	}
	best := -1
	for _, w := range allowed {
		switch {
		case w.Host != "":
			if slices.Contains(hosts[w.Host], a) {
				best = max(best, a.BitLen())
			} else {
				best = max(best, 0) // its address may be another by now; its identity decides
			}
		case w.Prefix.Contains(a):
			best = max(best, w.Prefix.Bits())
		}
	}
	return best
}

// find chooses the connection of a peer that came to us: among those whose addresses and, if known, identities match,
// the one that says it most exactly.
func (s *snapshot) find(q ikesa.Query) *ikesa.Connection {
	var hosts map[string][]netip.Addr
	if s.hosts != nil {
		hosts = s.hosts()
	}
	var best *ikesa.Connection
	var bestFit [4]int
	for _, list := range s.candidates(q) {
		for _, c := range list {
			fit, ok := s.fit(c, q, hosts)
			if !ok {
				continue
			}
			if order := slices.Compare(fit[:], bestFit[:]); best == nil || order > 0 || order == 0 && s.place[c] < s.place[best] {
				best, bestFit = c, fit
			}
		}
	}
	return best
}

// fit says how well a connection matches: identity, remote address, proposal, local address, in this order of weight.
func (s *snapshot) fit(c *ikesa.Connection, q ikesa.Query, hosts map[string][]netip.Addr) (fit [4]int, ok bool) {
	remote, local := addressed(c.RemoteAddrs, q.Remote.Addr(), hosts), addressed(c.LocalAddrs, q.Local.Addr(), nil)
	if remote < 0 || local < 0 {
		return fit, false
	}
	identity := 0
	if q.RemoteID != nil {
		if identity, ok = matches(c.Remote.ID, *q.RemoteID); !ok {
			return fit, false
		}
	}
	identity *= 2
	if q.LocalID != nil {
		if !isOwn(c.Local.ID, *q.LocalID) {
			return fit, false
		}
		if !c.Local.ID.IsZero() {
			identity++ // the peer asked for just this one
		}
	}
	proposal := 0
	if q.Proposals != nil {
		if _, _, err := suite.Select(q.Proposals, c.Proposals, suite.Options{}); err == nil {
			proposal = 1
		}
	} else if q.Chosen != nil && (c == q.Chosen || reflect.DeepEqual(c.Proposals, q.Chosen.Proposals)) {
		proposal = 1
	}
	return [4]int{identity, remote, proposal, local}, true
}

// check refuses a configuration that cannot be applied.
func (c *Config) check() error {
	if c.Store == nil {
		return fmt.Errorf("the configuration has no store of secrets")
	}
	pools := make(map[string]bool)
	for _, p := range c.Pools {
		if pools[p.Name] {
			return fmt.Errorf("two pools are named %q", p.Name)
		}
		pools[p.Name] = true
	}
	names := make(map[string]bool)
	for _, conn := range c.Connections {
		if names[conn.Name] {
			return fmt.Errorf("two connections are named %q", conn.Name)
		}
		names[conn.Name] = true
		for _, p := range conn.Pools {
			if !pools[p] {
				return fmt.Errorf("connection %q: there is no pool %q", conn.Name, p)
			}
		}
		children := make(map[string]bool)
		for _, child := range conn.Children {
			if children[child.Name] {
				return fmt.Errorf("connection %q: two children are named %q", conn.Name, child.Name)
			}
			children[child.Name] = true
		}
	}
	return nil
}

// difference is what a reload means for one connection.
type difference uint8

const (
	same      difference = iota
	adaptable            // its IKE SAs can go on by it
	different
)

func compare(a, b *ikesa.Connection) difference {
	if a == b || reflect.DeepEqual(a, b) {
		return same
	}
	if reflect.DeepEqual(essence(a), essence(b)) {
		return adaptable
	}
	return different
}

// essence is what of a connection may not change without making its IKE SAs anew: who the two are, where, and what was agreed upon.
func essence(c *ikesa.Connection) *ikesa.Connection {
	e := *c
	e.Local = withoutCredentials(c.Local)
	e.Children, e.KeyingTries, e.Unique = nil, 0, 0
	e.Retransmit, e.DPDDelay, e.Keepalive, e.FragmentSize = ikesa.Retransmit{}, 0, 0, 0
	e.RekeyTime, e.ReauthTime, e.OverTime, e.RandTime = 0, 0, 0, 0
	e.SendCert, e.SendCertReq, e.Childless = 0, false, 0
	return &e
}

// effect is what a changed configuration means for a child that is up.
type effect uint8

const (
	keeps   effect = iota
	renews         // a rekey brings what is new
	remakes        // it carries something else
)

func compareChildren(a, b *ikesa.Child) effect {
	x, y := *a, *b
	x.StartAction, x.CloseAction, x.DPDAction = y.StartAction, y.CloseAction, y.DPDAction
	switch {
	case reflect.DeepEqual(x, y):
		return keeps
	case reflect.DeepEqual(x.LocalTS, y.LocalTS) && reflect.DeepEqual(x.RemoteTS, y.RemoteTS) && x.Mode == y.Mode:
		return renews
	}
	return remakes
}

// apply runs Server.Apply on the manager's goroutine.
func (m *manager) apply(c *Config) error {
	if err := c.check(); err != nil {
		return err
	}
	err := error(errServerStops)
	m.call(func() {
		if !m.closing {
			m.reload(c)
			err = nil
		}
	})
	return err
}

func (m *manager) reload(c *Config) {
	s := m.server
	next := &Config{Store: c.Store, Pools: c.Pools, Connections: slices.Clone(c.Connections)}
	var gone, fresh, adapted []*link
	var former []*ikesa.Connection
	links := make(map[string]*link, len(c.Connections))
	for i, conn := range next.Connections {
		old := m.links[conn.Name]
		if old == nil {
			fresh = append(fresh, &link{conn: conn, want: make(map[*ikesa.Child]wanting)})
			links[conn.Name] = fresh[len(fresh)-1]
			continue
		}
		switch compare(old.conn, conn) {
		case same:
			next.Connections[i] = old.conn
			links[conn.Name] = old
		case adaptable:
			adapted = append(adapted, old)
			former = append(former, old.conn)
			m.adapt(old, conn)
			links[conn.Name] = old
		case different:
			gone = append(gone, old)
			fresh = append(fresh, &link{conn: conn, want: make(map[*ikesa.Child]wanting)})
			links[conn.Name] = fresh[len(fresh)-1]
		}
	}
	for name, l := range m.links {
		if links[name] == nil {
			gone = append(gone, l)
		}
	}
	m.links = links
	s.pools.configure(next.Pools)
	s.config.Store(newSnapshot(next, func() map[string][]netip.Addr { return *m.resolved.Load() }))
	for _, l := range gone {
		m.drop(l)
	}
	m.pairs = make(map[string][]*link)
	for _, conn := range next.Connections {
		key := pairKey(conn)
		m.pairs[key] = append(m.pairs[key], links[conn.Name])
	}
	m.regroup(next.Connections)
	m.lookUpAll(next.Connections)
	for _, l := range fresh {
		m.beginAll(l, new(ikesa.Connection))
	}
	for i, l := range adapted {
		m.beginAll(l, former[i])
	}
	s.log.applied(len(next.Connections), len(fresh), len(gone))
}

// beginAll brings up the children that start by themselves and did not before, or carried something else.
func (m *manager) beginAll(l *link, before *ikesa.Connection) {
	for _, c := range l.conn.Children {
		old := before.Child(c.Name)
		if starts(c.StartAction) && l.first() && (old == nil || !starts(old.StartAction) || compareChildren(old, c) == remakes) {
			m.wish(l, c, wantAlways)
		}
	}
	m.pursue(l)
}

// adapt exchanges the connection of a link for one by which its IKE SAs can go on. Children are known by their names.
func (m *manager) adapt(l *link, conn *ikesa.Connection) {
	before := l.conn
	l.conn = conn
	want := make(map[*ikesa.Child]wanting, len(l.want))
	for c, w := range l.want {
		if next := conn.Child(c.Name); next != nil {
			want[next] = w
		}
	}
	l.want = want
	renamed := func(all []*ikesa.Child) (there []*ikesa.Child) {
		for _, c := range all {
			if next := conn.Child(c.Name); next != nil {
				there = append(there, next)
			}
		}
		return there
	}
	for _, p := range l.peers {
		p.asked = renamed(p.asked)
		if p.established {
			m.command(p, ikesa.Reconfigured{Connection: conn})
		}
		for i := range p.up {
			u := &p.up[i]
			old, next := before.Child(u.child.Name), conn.Child(u.child.Name)
			if old == nil || next == nil {
				m.command(p, ikesa.DeleteChild{SPI: u.spi, Reason: ikesa.ReasonReload})
				continue
			}
			switch compareChildren(old, next) {
			case remakes:
				m.command(p, ikesa.DeleteChild{SPI: u.spi, Reason: ikesa.ReasonReload})
			case renews:
				m.command(p, ikesa.RekeyChild{SPI: u.spi})
			}
			u.child = next
		}
	}
	for _, w := range l.waiters {
		asked := len(w.up)
		if w.up = renamed(w.up); len(w.up) < asked {
			w.end(errGone)
		}
	}
	m.tidy(l)
}

// drop takes a connection down that the configuration no longer has.
func (m *manager) drop(l *link) {
	clear(l.want)
	for _, w := range l.waiters {
		w.end(errGone)
	}
	l.waiters = nil
	m.finish(l)
	for _, p := range l.peers {
		p.attempt = false
		p.ending = true
		m.command(p, ikesa.DeleteIKE{Reason: ikesa.ReasonReload})
	}
}
