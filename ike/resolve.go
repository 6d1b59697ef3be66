package ike

import (
	"context"
	"net/netip"
	"slices"
	"sync"
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
			for host, addrs := range found {
				m.names.set(host, addrs)
			}
			then(found)
		})
	})
}

// names is what names of peers were last found to mean, for the choice of a responder's connection. The manager writes, shards read.
type names struct {
	addrs sync.Map // []netip.Addr by name
	hosts sync.Map // []string by address
}

// of returns the names of an address. A nil receiver has none.
func (n *names) of(a netip.Addr) []string {
	if n == nil {
		return nil
	}
	hosts, _ := n.hosts.Load(a)
	all, _ := hosts.([]string)
	return all
}

// set says what a name means from now on.
func (n *names) set(host string, addrs []netip.Addr) {
	former, _ := n.addrs.Swap(host, addrs)
	was, _ := former.([]netip.Addr)
	for _, a := range was {
		if !slices.Contains(addrs, a) {
			n.hosts.Store(a, slices.DeleteFunc(slices.Clone(n.of(a)), func(h string) bool { return h == host }))
		}
	}
	for _, a := range addrs {
		if known := n.of(a); !slices.Contains(known, host) {
			n.hosts.Store(a, append(slices.Clip(known), host))
		}
	}
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
