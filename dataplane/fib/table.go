// Package fib answers where a packet goes next. It keeps an immutable snapshot of the kernel's
// routes, neighbours and links, which workers load once a batch, and a [Watcher] that makes a new
// snapshot when the kernel's state changes.
//
//	kernel ── netlink ──▶ Watcher ── Table (immutable) ──▶ workers: Lookup, Hop
//	   ▲                     │  ▲
//	   └── keeper: resolve ──┘  └── Resolve (unknown neighbour), Hop.Touch (neighbour in use)
//
// The tables local, main and default are followed in this order, as the kernel's standing rules
// do. Not handled: further policy rules, VRFs, source-specific IPv6 routes, routes for a type of
// service. A route that only the kernel can follow (an interface that is not ours, an
// encapsulation) becomes a hop of kind [Local]: the packet is given to the kernel.
package fib

import (
	"net/netip"
	"sync/atomic"

	"github.com/gaissmai/bart"
)

// Kind says what happens to a packet that a [Hop] was found for.
type Kind uint8

const (
	// NoRoute: the kernel has no route. Hop 0 of every table is of this kind.
	NoRoute Kind = iota
	// Forward: send it through Port with SrcMAC and DstMAC.
	Forward
	// Unresolved: the neighbour's link address is not known yet: ask Watcher.Resolve for
	// Hop.Target of the destination, and keep or drop the packet.
	Unresolved
	// Failed: the neighbour did not answer. Asking again is allowed and limited in rate.
	Failed
	// Local: the destination is the gateway itself, or a way only the kernel knows: hand it over.
	Local
	// Unreachable: an unreachable, prohibit or blackhole route.
	Unreachable
	// Tunnel: a virtual interface of ours, whose associations carry it. Port is the interface's number.
	Tunnel
	// Multicast: a route for groups leads through Port. What comes out of a tunnel for one of them is sent from SrcMAC to the
	// group's link address; for everything else it is Local.
	Multicast
)

// String returns the kind's name.
func (k Kind) String() string {
	switch k {
	case NoRoute:
		return "no-route"
	case Forward:
		return "forward"
	case Unresolved:
		return "unresolved"
	case Failed:
		return "failed"
	case Local:
		return "local"
	case Unreachable:
		return "unreachable"
	case Tunnel:
		return "tunnel"
	case Multicast:
		return "multicast"
	}
	return "unknown"
}

// Hop is one next hop. It never changes once its table is published, but for the mark of Touch.
type Hop struct {
	// hot

	Kind Kind
	// Port is the engine's number of the port to send through (Forward, Unresolved, Failed, Multicast), or of the virtual interface (Tunnel).
	Port uint16
	// MTU is the largest IP datagram in bytes: the link's, or the route's if that is smaller.
	MTU uint16
	// SrcMAC is the port's address; DstMAC the neighbour's (Forward only).
	SrcMAC, DstMAC [6]byte
	used           *atomic.Uint32 // shared by all snapshots of this neighbour; nil if it has none

	// cold

	// Ifindex is the kernel's number of the interface (Forward, Unresolved, Failed).
	Ifindex int
	// Gateway is the neighbour's address. It is invalid in the hop of a connected prefix, where
	// every destination is its own neighbour: see Target.
	Gateway netip.Addr
}

// Target returns the address whose neighbour entry a packet to dst needs: the gateway, or dst
// itself on a connected prefix.
func (h *Hop) Target(dst netip.Addr) netip.Addr {
	if h.Gateway.IsValid() {
		return h.Gateway
	}
	return dst
}

// Touch marks the hop's neighbour as used, so that the watcher keeps its entry alive (AF_XDP
// transmission never does). Any worker may call it; it costs a load once the mark is set.
func (h *Hop) Touch() {
	if h.used != nil && h.used.Load() == 0 {
		h.used.Store(1)
	}
}

// groupBit marks an entry of the prefix table that names a group instead of a hop.
const groupBit = 1 << 31

// Table is one snapshot. Readers share it without locks.
type Table struct {
	// Generation counts published tables, from 1; it changes only if the content does.
	Generation uint32
	// Hops is what Lookup's result indexes. Hops[0] is NoRoute.
	Hops []Hop
	// Tunnels says, by the longest match, which destinations are routed into virtual interfaces.
	Tunnels []Routed
	// mtus are the MTUs of virtual interfaces by number, of those that a route leads into.
	mtus []uint16

	prefixes *bart.Table[uint32]
	groups   [][]uint32 // hop indices of multipath routes, repeated by weight
}

// Lookup returns the index in Hops of the longest matching prefix, 0 if there is none. Of a
// multipath route the hop is chosen by the destination, so packets to one destination (one peer)
// stay in order; a failed hop is passed over while the group has a better one. It does not
// allocate.
func (t *Table) Lookup(dst netip.Addr) uint32 {
	v, _ := t.prefixes.Lookup(dst)
	if v&groupBit == 0 {
		return v
	}
	members := t.groups[v&^groupBit]
	at := spread(dst) % uint32(len(members))
	for range members {
		if t.Hops[members[at]].Kind != Failed {
			break
		}
		if at++; at == uint32(len(members)) {
			at = 0
		}
	}
	return members[at]
}

// spread mixes an address into 32 bits (the finalizer of MurmurHash3).
func spread(a netip.Addr) uint32 {
	b := a.As16()
	h := uint64(0)
	for _, v := range b {
		h = h<<5 ^ h>>59 ^ uint64(v)
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	return uint32(h ^ h>>32)
}

// Size returns the number of prefixes.
func (t *Table) Size() int { return t.prefixes.Size() }

// Entry is a prefix with its hop, for [Build].
type Entry struct {
	Prefix netip.Prefix
	Hop    Hop
}

// Build makes a table from a list of prefixes, for gateways in memory and for tests that have no
// kernel to ask. Equal hops are stored once; of equal prefixes the last one counts.
func Build(generation uint32, entries []Entry) *Table {
	b := newBuilder()
	for _, e := range entries {
		b.prefixes.Insert(e.Prefix.Masked(), b.hop(e.Hop))
	}
	t := b.table(generation)
	t.tellTunnels()
	return t
}

// builder collects the hops and prefixes of a new table.
type builder struct {
	prefixes *bart.Table[uint32]
	hops     []Hop
	index    map[Hop]uint32
	groups   [][]uint32
}

func newBuilder() *builder {
	b := &builder{prefixes: new(bart.Table[uint32]), index: make(map[Hop]uint32)}
	b.hop(Hop{})
	return b
}

// hop returns the index of h, which it adds if it is new.
func (b *builder) hop(h Hop) uint32 {
	if i, ok := b.index[h]; ok {
		return i
	}
	i := uint32(len(b.hops))
	b.hops = append(b.hops, h)
	b.index[h] = i
	return i
}

func (b *builder) table(generation uint32) *Table {
	return &Table{Generation: generation, Hops: b.hops, prefixes: b.prefixes, groups: b.groups}
}

// equal reports whether two tables answer every question alike.
func (t *Table) equal(o *Table) bool {
	if len(t.Hops) != len(o.Hops) || len(t.groups) != len(o.groups) {
		return false
	}
	for i := range t.Hops {
		if t.Hops[i] != o.Hops[i] {
			return false
		}
	}
	for i := range t.groups {
		if len(t.groups[i]) != len(o.groups[i]) {
			return false
		}
		for k := range t.groups[i] {
			if t.groups[i][k] != o.groups[i][k] {
				return false
			}
		}
	}
	return t.prefixes == o.prefixes || t.prefixes.Equal(o.prefixes)
}
