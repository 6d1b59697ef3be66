package ike

import (
	"fmt"
	"slices"
	"time"

	"sallyport/ike/ikesa"
	"sallyport/ike/message"
)

// waiter is an operator who waits for something to come true.
type waiter struct {
	done     chan error // has room for one
	finished bool
	link     *link

	up       []*ikesa.Child // that must come up
	gone     []message.SPI  // IKE SAs that must end
	goneDown []uint32       // children that must
	rekeyIKE []message.SPI  // that must have a successor
	rekey    []uint32       // children that must have one
}

func (w *waiter) end(err error) {
	if !w.finished {
		w.finished = true
		w.done <- err
	}
}

func (m *manager) unwait(w *waiter) {
	w.finished = true
	if w.link != nil {
		m.tidy(w.link)
	}
}

func (m *manager) tidy(l *link) {
	l.waiters = slices.DeleteFunc(l.waiters, func(w *waiter) bool { return w.finished })
}

func (m *manager) add(l *link, w *waiter) {
	w.link = l
	l.waiters = append(l.waiters, w)
}

// named returns the children that an operator means.
func (m *manager) named(connection, child string) (*link, []*ikesa.Child) {
	l, c := m.find(connection, child)
	switch {
	case l == nil:
		return nil, nil
	case child == "":
		return l, l.conn.Children
	case c == nil:
		return nil, nil
	}
	return l, []*ikesa.Child{c}
}

func (m *manager) up(connection, child string, w *waiter) {
	l, children := m.named(connection, child)
	if l == nil {
		w.end(errNoSuchName)
		return
	}
	for _, c := range children {
		if starts(c.StartAction) {
			m.wish(l, c, wantAlways)
		} else {
			m.wish(l, c, wantOnce)
		}
		if !l.has(c) {
			w.up = append(w.up, c)
		}
	}
	if len(w.up) == 0 {
		w.end(nil)
		return
	}
	m.add(l, w)
	if !l.attempt {
		l.tries, l.retryAt = 0, time.Time{} // who asks does not want to wait for the back-off
	}
	m.pursue(l)
}

func (m *manager) down(connection, child string, w *waiter) {
	l, children := m.named(connection, child)
	if l == nil {
		w.end(errNoSuchName)
		return
	}
	for _, c := range children {
		delete(l.want, c)
	}
	for _, p := range l.peers {
		if child == "" {
			w.gone = append(w.gone, p.spi)
			p.ending = true
			m.command(p, ikesa.DeleteIKE{Reason: ikesa.ReasonDeletedHere})
			continue
		}
		for _, u := range p.up {
			if u.child == children[0] {
				w.goneDown = append(w.goneDown, u.spi)
				m.commandHolder(p, u.spi, ikesa.DeleteChild{SPI: u.spi, Reason: ikesa.ReasonDeletedHere})
			}
		}
	}
	if len(w.gone)+len(w.goneDown) == 0 {
		w.end(nil)
		return
	}
	m.add(l, w)
}

func (m *manager) commandHolder(p *peer, spi uint32, c ikesa.Command) {
	p.shard.call(func() { p.shard.commandChild(spi, c) })
}

func (m *manager) rekey(connection, child string, w *waiter) {
	l, children := m.named(connection, child)
	if l == nil {
		w.end(errNoSuchName)
		return
	}
	for _, p := range l.peers {
		if !p.established || p.ending {
			continue
		}
		if child == "" {
			w.rekeyIKE = append(w.rekeyIKE, p.spi)
			m.command(p, ikesa.RekeyIKE{})
			continue
		}
		for _, u := range p.up {
			if u.child == children[0] {
				w.rekey = append(w.rekey, u.spi)
				m.commandHolder(p, u.spi, ikesa.RekeyChild{SPI: u.spi})
			}
		}
	}
	if len(w.rekey)+len(w.rekeyIKE) == 0 {
		w.end(errNotUp)
		return
	}
	m.add(l, w)
}

// woke tells those who wait for a child that it came up, or that it did not.
func (m *manager) woke(l *link, c *ikesa.Child, err error) {
	for _, w := range l.waiters {
		i := slices.Index(w.up, c)
		switch {
		case i < 0:
		case err != nil:
			w.end(fmt.Errorf("%s/%s: %w", l.conn.Name, c.Name, err))
		default:
			if w.up = slices.Delete(w.up, i, i+1); len(w.up) == 0 {
				w.end(nil)
			}
		}
	}
	m.tidy(l)
}

// wokeDown tells those who wait for the end of an IKE SA or of a child. What comes up meanwhile, because the peer wants
// it, is not theirs.
func (m *manager) wokeDown(l *link, spi message.SPI, child uint32) {
	for _, w := range l.waiters {
		before := len(w.gone) + len(w.goneDown)
		w.gone = slices.DeleteFunc(w.gone, func(s message.SPI) bool { return s == spi })
		w.goneDown = slices.DeleteFunc(w.goneDown, func(s uint32) bool { return s == child })
		if before > 0 && len(w.gone)+len(w.goneDown) == 0 {
			w.end(nil)
		}
	}
	m.tidy(l)
}

// wokeRekeyed tells those who wait for a successor of an IKE SA or of a child.
func (m *manager) wokeRekeyed(l *link, spi message.SPI, child uint32, err error) {
	for _, w := range l.waiters {
		i, j := -1, -1
		if spi != 0 {
			i = slices.Index(w.rekeyIKE, spi)
		}
		if child != 0 {
			j = slices.Index(w.rekey, child)
		}
		if i < 0 && j < 0 {
			continue
		}
		if err != nil {
			w.end(fmt.Errorf("%s: %w", l.conn.Name, err))
			continue
		}
		if i >= 0 {
			w.rekeyIKE = slices.Delete(w.rekeyIKE, i, i+1)
		}
		if j >= 0 {
			w.rekey = slices.Delete(w.rekey, j, j+1)
		}
		if len(w.rekey)+len(w.rekeyIKE) == 0 {
			w.end(nil)
		}
	}
	m.tidy(l)
}
