package ike

import (
	"fmt"
	"reflect"
	"slices"

	"sallyport/ike/auth"
	"sallyport/ike/ikesa"
)

// Config is everything that a reload may change. The server keeps what it points to: it must not be changed afterwards.
type Config struct {
	Connections []*ikesa.Connection // names are unique; where several match a peer equally, the first counts
	Store       *auth.Store
	Pools       []Pool
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
	s.config.Store(newSnapshot(next, &m.names))
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
		p.shard.call(func() { p.shard.dismiss(p.spi, ikesa.ReasonReload) })
	}
}
