package ike

import (
	"fmt"
	"slices"
	"strings"

	"sallyport/ike/ikesa"
)

// group is the connections of one site: those that share a child by its selectors, in the order of priority. Only the
// first is begun; when it fails the next stands in, and goes again once the first is back.
type group struct{ links []*link }

// childKey names a child by what it carries; children of the connections of one site have the same.
func childKey(c *ikesa.Child) string {
	var b strings.Builder
	for _, side := range [][]ikesa.Selector{c.LocalTS, c.RemoteTS} {
		words := make([]string, len(side))
		for i, s := range side {
			if s.Dynamic {
				return "" // a host's own address: never the same as another's
			}
			words[i] = s.TS.String()
		}
		slices.Sort(words)
		fmt.Fprintf(&b, "%d%s|", c.Mode, strings.Join(words, ","))
	}
	return b.String()
}

// regroup finds the sites anew.
func (m *manager) regroup(order []*ikesa.Connection) {
	byKey := make(map[string]*group)
	for _, l := range m.links {
		l.group = nil
	}
	for _, conn := range order {
		l := m.links[conn.Name]
		for _, c := range conn.Children {
			key := childKey(c)
			if key == "" {
				continue
			}
			g := byKey[key]
			if g == nil {
				g = new(group)
				byKey[key] = g
			}
			g.links = append(g.links, l)
		}
	}
	for _, conn := range order { // each link joins the largest site of its children
		l := m.links[conn.Name]
		for _, c := range conn.Children {
			if g := byKey[childKey(c)]; g != nil && len(g.links) > 1 && (l.group == nil || len(g.links) > len(l.group.links)) {
				l.group = g
			}
		}
	}
	for _, g := range byKey {
		slices.SortStableFunc(g.links, func(a, b *link) int { return a.conn.Priority - b.conn.Priority })
		g.links = slices.Compact(g.links)
		if len(g.links) > 1 && g.links[0].conn.Priority == g.links[len(g.links)-1].conn.Priority {
			for _, l := range g.links { // equal ones do not stand in for each other: the operator wants both
				if l.group == g {
					l.group = nil
				}
			}
		}
	}
}

// twin returns the child of another connection of the site that carries the same.
func (l *link) twin(c *ikesa.Child) *ikesa.Child {
	key := childKey(c)
	for _, o := range l.conn.Children {
		if key != "" && childKey(o) == key {
			return o
		}
	}
	return nil
}

// first says whether nobody of the site goes before the link.
func (l *link) first() bool { return l.group == nil || l.group.links[0] == l }

// best returns where a child is to be brought up: on the first connection of the site that does not fail.
func (l *link) best(c *ikesa.Child) (*link, *ikesa.Child) {
	if l.group == nil {
		return l, c
	}
	for _, o := range l.group.links {
		if twin := o.twin(c); twin != nil && !o.failing {
			return o, twin
		}
	}
	return l, c
}

// stoodInFor says whether a later connection of the site has children up, or tries: then this one goes on trying.
func (l *link) stoodInFor() bool {
	if l.group == nil {
		return false
	}
	at := slices.Index(l.group.links, l)
	for _, o := range l.group.links[at+1:] {
		if len(o.want) > 0 {
			return true
		}
	}
	return false
}

// standIn lets the next connection of the site carry what this one cannot.
func (m *manager) standIn(l *link) {
	for c := range l.want {
		m.standInFor(l, c)
	}
}

func (m *manager) standInFor(l *link, c *ikesa.Child) {
	if l.group == nil || m.closing {
		return
	}
	at := slices.Index(l.group.links, l)
	for _, o := range l.group.links[at+1:] {
		twin := o.twin(c)
		if twin == nil || o.failing {
			continue
		}
		m.wish(l, c, wantAlways) // goes on trying
		m.wish(o, twin, wantOnce)
		m.pursue(o)
		return
	}
}

// failBack lets go of the connections that stood in for one that has all its children again.
func (m *manager) failBack(l *link) {
	if l.group == nil {
		return
	}
	for c := range l.want {
		if !l.has(c) {
			return
		}
	}
	at := slices.Index(l.group.links, l)
	for _, o := range l.group.links[at+1:] {
		clear(o.want)
		for _, p := range o.peers {
			if p.initiator && !p.ending {
				p.ending = true
				m.command(p, ikesa.DeleteIKE{Reason: ikesa.ReasonReplaced})
			}
		}
		if o.attempt {
			m.finish(o)
		}
	}
}
