package ike

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"sallyport/ike/ikesa"
)

const resolveTime = 5 * time.Second

// resolve finds the addresses of an attempt's peer: those of the configuration, and those that its names have now.
func (m *manager) resolve(l *link) {
	var hosts []string
	var addrs []netip.Addr
	for _, a := range l.conn.RemoteAddrs {
		switch {
		case a.Host != "":
			hosts = append(hosts, a.Host)
		case a.Prefix.IsSingleIP():
			addrs = append(addrs, a.Prefix.Addr())
		}
	}
	if len(hosts) == 0 {
		m.dial(l, addrs)
		return
	}
	attempt := l.attempts
	m.lookUp(hosts, func(found map[string][]netip.Addr) {
		if l.attempts != attempt || m.closing {
			return
		}
		for _, h := range hosts {
			addrs = append(addrs, found[h]...)
		}
		m.dial(l, addrs)
	})
}

// lookUp asks for names, a few at a time, and calls then on the manager's goroutine.
func (m *manager) lookUp(hosts []string, then func(map[string][]netip.Addr)) {
	s := m.server
	s.running.Go(func() {
		found := make(map[string][]netip.Addr, len(hosts))
		select {
		case m.resolving <- struct{}{}:
			defer func() { <-m.resolving }()
		case <-s.context.Done():
		}
		for _, h := range hosts {
			ctx, cancel := context.WithTimeout(s.context, resolveTime)
			addrs, err := s.options.Resolver.LookupNetIP(ctx, "ip", h)
			cancel()
			if err != nil {
				s.log.notResolved(h, err)
				continue
			}
			for i := range addrs {
				addrs[i] = addrs[i].Unmap()
			}
			found[h] = slices.Compact(addrs)
		}
		m.tell(func() {
			m.remember(found)
			then(found)
		})
	})
}

// remember publishes the addresses of names, for the choice of a responder's connection.
func (m *manager) remember(found map[string][]netip.Addr) {
	if len(found) == 0 {
		return
	}
	next := maps.Clone(*m.resolved.Load())
	maps.Copy(next, found)
	m.resolved.Store(&next)
}

// lookUpAll learns the addresses of all names of the configuration, so that peers with names may come to us.
func (m *manager) lookUpAll(order []*ikesa.Connection) {
	for _, c := range order {
		var hosts []string
		for _, a := range c.RemoteAddrs {
			if a.Host != "" {
				hosts = append(hosts, a.Host)
			}
		}
		if len(hosts) > 0 {
			m.lookUp(hosts, func(map[string][]netip.Addr) {})
		}
	}
}
