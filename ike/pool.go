package ike

import (
	"fmt"
	"net/netip"
	"sync"

	"sallyport/ike/auth"
	"sallyport/ike/ikesa"
)

// Pool is a set of virtual addresses that peers are given.
type Pool struct {
	Name     string
	Prefixes []netip.Prefix // of either family; a prefix's network and IPv4 broadcast addresses are not given out
	DNS      []netip.Addr   // told to the peer along with an address of their family
}

// poolLeasesMax bounds the leases of one pool, which an IPv6 prefix does not.
const poolLeasesMax = 1 << 20

// poolSet holds all pools. A peer that comes again gets its former address, if that is still free. It is used by all
// shards, once or twice an IKE SA.
type poolSet struct {
	mu    sync.Mutex
	pools map[string]*pool
}

type pool struct {
	Pool
	leases map[netip.Addr]*lease
	former map[string][]netip.Addr // by identity, newest last
	cursor []netip.Addr            // by prefix: the last address that was tried
}

type lease struct {
	identity string
	holders  int // an IKE SA and its reauthentication may both hold it for a while
}

func newPoolSet() *poolSet { return &poolSet{pools: make(map[string]*pool)} }

// configure makes these the pools. Addresses that are given out and still in a pool of the same name stay so.
func (s *poolSet) configure(pools []Pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := make(map[string]*pool, len(pools))
	for _, p := range pools {
		n := &pool{Pool: p, leases: make(map[netip.Addr]*lease), former: make(map[string][]netip.Addr), cursor: make([]netip.Addr, len(p.Prefixes))}
		if old := s.pools[p.Name]; old != nil {
			for a, l := range old.leases {
				if n.contains(a) {
					n.leases[a] = l
					n.former[l.identity] = append(n.former[l.identity], a)
				}
			}
		}
		next[p.Name] = n
	}
	s.pools = next
}

// assign leases an address of wanted's family from the first pool that has one; the wanted one itself if it is free.
func (s *poolSet) assign(names []string, id auth.Identity, wanted netip.Addr) (ikesa.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	who := identityKey(id)
	for _, name := range names {
		p := s.pools[name]
		if p == nil {
			continue
		}
		if a, ok := p.take(who, wanted); ok {
			l := ikesa.Lease{Addr: a}
			for _, d := range p.DNS {
				if d.Is4() == a.Is4() {
					l.DNS = append(l.DNS, d)
				}
			}
			return l, nil
		}
	}
	return ikesa.Lease{}, fmt.Errorf("no free address in pools %q", names)
}

// release gives an address back. It stays reserved for its former holder as long as others are free.
func (s *poolSet) release(names []string, id auth.Identity, a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		p := s.pools[name]
		if p == nil {
			continue
		}
		if l := p.leases[a]; l != nil && l.identity == identityKey(id) {
			if l.holders > 0 {
				l.holders--
			}
			return
		}
	}
}

func (p *pool) take(who string, wanted netip.Addr) (netip.Addr, bool) {
	is4 := wanted.Is4()
	if !wanted.IsUnspecified() && wanted.IsValid() && p.contains(wanted) {
		if l := p.leases[wanted]; l == nil || l.identity == who || l.holders == 0 && p.former[who] == nil {
			if l == nil || l.identity == who {
				return p.hold(who, wanted), true
			}
		}
	}
	for _, a := range p.former[who] {
		if a.Is4() == is4 && p.leases[a].holders == 0 {
			return p.hold(who, a), true
		}
	}
	for i, prefix := range p.Prefixes {
		if prefix.Addr().Is4() != is4 {
			continue
		}
		if a, ok := p.fresh(i, prefix); ok {
			return p.hold(who, a), true
		}
	}
	return netip.Addr{}, false
}

// fresh returns an address that nobody holds: one never given out, else one whose holder is gone longest ago or so.
func (p *pool) fresh(i int, prefix netip.Prefix) (netip.Addr, bool) {
	if len(p.leases) < poolLeasesMax {
		first, last := bounds(prefix)
		a := p.cursor[i]
		for n := 0; n <= len(p.leases)+1; n++ {
			if !a.IsValid() || a == last || !prefix.Contains(a) {
				a = first
			} else {
				a = a.Next()
			}
			if p.leases[a] == nil {
				p.cursor[i] = a
				return a, true
			}
			if first == last {
				break
			}
		}
	}
	for a, l := range p.leases {
		if l.holders == 0 && prefix.Contains(a) {
			p.forgetFormer(l.identity, a)
			delete(p.leases, a)
			return a, true
		}
	}
	return netip.Addr{}, false
}

func (p *pool) hold(who string, a netip.Addr) netip.Addr {
	l := p.leases[a]
	if l == nil {
		l = &lease{identity: who}
		p.leases[a] = l
		p.former[who] = append(p.former[who], a)
	}
	l.holders++
	return a
}

func (p *pool) forgetFormer(who string, a netip.Addr) {
	left := p.former[who][:0]
	for _, f := range p.former[who] {
		if f != a {
			left = append(left, f)
		}
	}
	if p.former[who] = left; len(left) == 0 {
		delete(p.former, who)
	}
}

func (p *pool) contains(a netip.Addr) bool {
	for _, prefix := range p.Prefixes {
		if first, last := bounds(prefix); prefix.Contains(a) && !a.Less(first) && !last.Less(a) {
			return true
		}
	}
	return false
}

// bounds returns the first and last address of a prefix that hosts use.
func bounds(prefix netip.Prefix) (first, last netip.Addr) {
	s := prefix.Masked()
	first = s.Addr()
	b := first.AsSlice()
	for bit := s.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ = netip.AddrFromSlice(b)
	switch host := first.BitLen() - s.Bits(); {
	case host < 2:
		return first, last
	case first.Is4():
		return first.Next(), last.Prev()
	}
	return first.Next(), last // the subnet-router anycast address is left out (RFC 4291, 2.6.1)
}
