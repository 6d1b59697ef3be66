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

// snapshot is a configuration, immutable, with what is looked up in it. Ten thousand connections must not make a handshake
// slow: both look-ups, by addresses and proposals and then by identities, find theirs in a table.
type snapshot struct {
	order []*ikesa.Connection
	place map[*ikesa.Connection]int
	agree map[*ikesa.Connection]int // equal for connections with the same proposals
	store *auth.Store
	named map[netip.Addr]int // how many connections name an address
	names *names             // what names were last found to mean

	all  table                  // of every connection
	byID map[identityPair]table // of those with these identities
}

// identityPair is a remote and a local identity as the configuration says them: canonical, zero for a remote one of which there
// may be several, and for a local one that is left out. With each goes a pair for all local ones, for peers that do not ask for any.
type identityPair struct {
	remote, local auth.Identity
	anyLocal      bool
}

// table is connections by their remote addresses. Of those that say the same in every respect that a choice asks for, it has the first.
type table struct {
	all    []*ikesa.Connection // of peers from anywhere; a peer with a name may have another address by now
	byAddr map[netip.Addr][]*ikesa.Connection
	byNet  map[netip.Prefix][]*ikesa.Connection
	byName map[string][]*ikesa.Connection
	bits   [2]map[int]bool // lengths of the prefixes in byNet, of IPv4 and IPv6
}

// tables fills tables.
type tables struct{ seen map[string]bool }

// add enters a connection. Name is the table's, said what the connection says apart from its remote addresses.
func (f *tables) add(t *table, name, said string, c *ikesa.Connection) {
	first := func(where any) bool {
		key := fmt.Sprint(name, "\x00", where, "\x00", said)
		defer func() { f.seen[key] = true }()
		return !f.seen[key]
	}
	if len(c.RemoteAddrs) == 0 && first("") {
		t.all = append(t.all, c)
	}
	for _, a := range c.RemoteAddrs {
		switch {
		case a.Host != "":
			if first("") {
				t.all = append(t.all, c)
			}
			if first(a.Host) {
				put(&t.byName, a.Host, c)
			}
		case !first(a.Prefix):
		case a.Prefix.IsSingleIP():
			put(&t.byAddr, a.Prefix.Addr(), c)
		default:
			put(&t.byNet, a.Prefix.Masked(), c)
			family := &t.bits[familyOf(a.Prefix.Addr())]
			if *family == nil {
				*family = make(map[int]bool)
			}
			(*family)[a.Prefix.Bits()] = true
		}
	}
}

func put[K comparable](m *map[K][]*ikesa.Connection, k K, c *ikesa.Connection) {
	if *m == nil {
		*m = make(map[K][]*ikesa.Connection)
	}
	(*m)[k] = append((*m)[k], c)
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// each calls f with the connections that a peer from an address may be meant by.
func (t *table) each(from netip.Addr, names *names, f func([]*ikesa.Connection)) {
	f(t.all)
	f(t.byAddr[from])
	for bits := range t.bits[familyOf(from)] {
		if p, err := from.Prefix(bits); err == nil {
			f(t.byNet[p])
		}
	}
	if len(t.byName) > 0 {
		for _, host := range names.of(from) {
			f(t.byName[host])
		}
	}
}

func newSnapshot(c *Config, n *names) *snapshot {
	s := &snapshot{
		order: c.Connections, store: c.Store, names: n, place: make(map[*ikesa.Connection]int), agree: make(map[*ikesa.Connection]int),
		named: make(map[netip.Addr]int), byID: make(map[identityPair]table),
	}
	fill := tables{make(map[string]bool)}
	classes := make(map[string]int)
	for i, conn := range c.Connections {
		s.place[conn] = i
		proposals := fmt.Sprint(conn.Proposals)
		if _, there := classes[proposals]; !there {
			classes[proposals] = len(classes)
		}
		s.agree[conn] = classes[proposals]
		for _, a := range conn.RemoteAddrs {
			if a.Host == "" && a.Prefix.IsSingleIP() {
				s.named[a.Prefix.Addr()]++
			}
		}
		said := fmt.Sprint(conn.LocalAddrs, s.agree[conn])
		fill.add(&s.all, "", said, conn)
		remote, _ := conn.Remote.ID.Exact()
		pair := identityPair{remote: remote.Canonical(), local: conn.Local.ID.Canonical()}
		said += fmt.Sprint(" ", conn.Remote.ID, " ", identityKey(pair.local))
		for _, key := range [...]identityPair{pair, {remote: pair.remote, anyLocal: true}} {
			t := s.byID[key]
			fill.add(&t, fmt.Sprint(identityKey(key.remote), "|", identityKey(key.local), "|", key.anyLocal), said, conn)
			s.byID[key] = t
		}
	}
	return s
}

// candidates calls f with the connections that a look-up has to choose from.
func (s *snapshot) candidates(q ikesa.Query, f func([]*ikesa.Connection)) {
	look := func(key identityPair) {
		if t, ok := s.byID[key]; ok {
			t.each(q.Remote.Addr(), s.names, f)
		}
	}
	switch {
	case q.RemoteID == nil:
		s.all.each(q.Remote.Addr(), s.names, f)
	case q.LocalID == nil:
		look(identityPair{remote: q.RemoteID.Canonical(), anyLocal: true})
		look(identityPair{anyLocal: true})
	default:
		remote, local := q.RemoteID.Canonical(), q.LocalID.Canonical()
		for _, key := range [...]identityPair{{remote: remote, local: local}, {remote: remote}, {local: local}, {}} {
			look(key)
		}
	}
}

// addressed says how well an address fits a connection's: -1 not at all, 0 any, else the bits that had to be right.
func addressed(allowed []ikesa.Address, a netip.Addr, names *names) int {
	if len(allowed) == 0 {
		return 0
	}
	best := -1
	for _, w := range allowed {
		switch {
		case w.Host != "":
			if slices.Contains(names.of(a), w.Host) {
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
	var best *ikesa.Connection
	var bestFit [4]int
	s.candidates(q, func(list []*ikesa.Connection) {
		for _, c := range list {
			fit, ok := s.fit(c, q)
			if !ok {
				continue
			}
			if order := slices.Compare(fit[:], bestFit[:]); best == nil || order > 0 || order == 0 && s.place[c] < s.place[best] {
				best, bestFit = c, fit
			}
		}
	})
	return best
}

// fit says how well a connection matches: identity, remote address, proposal, local address, in this order of weight.
func (s *snapshot) fit(c *ikesa.Connection, q ikesa.Query) (fit [4]int, ok bool) {
	remote, local := addressed(c.RemoteAddrs, q.Remote.Addr(), s.names), addressed(c.LocalAddrs, q.Local.Addr(), nil)
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
	} else if q.Chosen != nil && s.agrees(c, q.Chosen) {
		proposal = 1
	}
	return [4]int{identity, remote, proposal, local}, true
}

// agrees says whether a connection has the proposals of another one, perhaps of a former configuration.
func (s *snapshot) agrees(c, with *ikesa.Connection) bool {
	if class, ok := s.agree[with]; ok {
		return class == s.agree[c]
	}
	return reflect.DeepEqual(c.Proposals, with.Proposals)
}
