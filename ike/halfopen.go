package ike

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
)

// halfOpen counts IKE SAs whose peer is not proven, altogether and by address: an IPv6 peer has a whole /64 to choose
// from, so that counts as one.
type halfOpen struct {
	all     atomic.Int64
	seed    maphash.Seed
	stripes [64]struct {
		sync.Mutex
		count map[netip.Addr]int
	}
}

func (h *halfOpen) start() {
	h.seed = maphash.MakeSeed()
	for i := range h.stripes {
		h.stripes[i].count = make(map[netip.Addr]int)
	}
}

// sourceOf is what counts as one address.
func sourceOf(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// addressShare is which part of all half-open IKE SAs one address may have, where it has shown that it receives there: many clients may be
// behind it. Before, the limit for one address holds, so that nobody uses it up in another's name.
const addressShare = 100

// enter counts one more from a source, unless that would be more than limit or allMax.
func (h *halfOpen) enter(source netip.Addr, limit, allMax int) Drop {
	if h.all.Add(1) > int64(allMax) {
		h.all.Add(-1)
		return DropHalfOpen
	}
	s := &h.stripes[maphash.Comparable(h.seed, source)%uint64(len(h.stripes))]
	s.Lock()
	defer s.Unlock()
	if s.count[source] >= limit {
		h.all.Add(-1)
		return DropHalfOpenAddress
	}
	s.count[source]++
	return DropNone
}

// leave takes back what enter counted.
func (h *halfOpen) leave(source netip.Addr) {
	h.all.Add(-1)
	s := &h.stripes[maphash.Comparable(h.seed, source)%uint64(len(h.stripes))]
	s.Lock()
	defer s.Unlock()
	if s.count[source]--; s.count[source] <= 0 {
		delete(s.count, source)
	}
}
