package fib

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/gaissmai/bart"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// groupMax bounds the members of a multipath group, weights included.
const groupMax = 64

// kernelOnly are destinations that are never forwarded by a worker: broadcast, link-local, and multicast but for the groups that a
// route in the main table names.
var kernelOnly = []netip.Prefix{
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"), netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("ff00::/8"), netip.MustParsePrefix("fe80::/10"),
}

// compiler turns a listing into a table, in the order in which the kernel looks: table local,
// main, default; the longest prefix; the lowest metric; the first listed.
type compiler struct {
	builder
	state   *kernelState
	ports   map[string]uint16
	ignored map[int]bool // indices of our TUN
	virtual map[string]uint16
	used    func(neighbourKey) *atomic.Uint32
	hopsOf  map[neighbourKey][]uint32
	casts   map[netip.Prefix]uint32 // multicast prefixes with a route of their own
}

// compile makes the table and the index from neighbours to their hops.
func (c *compiler) compile() (*Table, map[neighbourKey][]uint32) {
	c.builder = *newBuilder()
	c.hopsOf = map[neighbourKey][]uint32{}
	c.casts = map[netip.Prefix]uint32{}
	local := new(bart.Table[uint32])
	for _, p := range kernelOnly {
		local.Insert(p, c.hop(Hop{Kind: Local}))
	}
	c.addTable(local, nil, unix.RT_TABLE_LOCAL)
	main := new(bart.Table[uint32])
	c.addTable(main, local, unix.RT_TABLE_MAIN)
	rest := new(bart.Table[uint32])
	c.addTable(rest, local, unix.RT_TABLE_DEFAULT)
	for p, v := range rest.All() {
		if _, ok := main.LookupPrefix(p); !ok {
			main.Insert(p, v)
		}
	}
	main.Union(local)
	for p, v := range c.casts {
		main.Insert(p, v)
	}
	c.prefixes = main
	c.addNeighbours()
	t := c.table(0)
	if len(c.virtual) > 0 {
		t.tellTunnels()
	}
	t.Hops = slices.Clip(t.Hops)
	return t, c.hopsOf
}

// addTable inserts the routes of one kernel table, but those that a prefix of before covers
// (an earlier table wins even by a shorter prefix).
func (c *compiler) addTable(into, before *bart.Table[uint32], table int) {
	metric := map[netip.Prefix]uint32{}
	for i := range c.state.routes {
		r := &c.state.routes[i]
		if r.Table != table || r.Protocol == ownProtocol || r.Tos != 0 || r.Flags&unix.RTM_F_CLONED != 0 {
			continue
		}
		p, ok := prefixOf(r)
		if !ok {
			continue
		}
		if old, ok := metric[p]; ok && old <= uint32(r.Priority) {
			continue
		}
		if table == unix.RT_TABLE_MAIN && p.Addr().IsMulticast() {
			if v, ok := c.target(r); ok {
				metric[p] = uint32(r.Priority)
				c.addGroup(p, v)
			}
			continue
		}
		if before != nil {
			if _, ok := before.LookupPrefix(p); ok {
				continue
			}
		}
		v, ok := c.target(r)
		if !ok {
			continue
		}
		metric[p] = uint32(r.Priority)
		into.Insert(p, v)
	}
}

// addGroup notes a route of the main table for multicast, in which nothing but its interface counts.
func (c *compiler) addGroup(p netip.Prefix, v uint32) {
	if v&groupBit != 0 {
		return
	}
	if h := c.hops[v]; h.Ifindex != 0 {
		c.casts[p] = c.hop(Hop{Kind: Multicast, Port: h.Port, Ifindex: h.Ifindex, MTU: h.MTU, SrcMAC: h.SrcMAC})
	}
}

// target returns the entry for a route: a hop or a group; false if the route is to be ignored.
func (c *compiler) target(r *netlink.Route) (uint32, bool) {
	switch r.Type {
	case unix.RTN_UNICAST:
	case unix.RTN_LOCAL, unix.RTN_BROADCAST, unix.RTN_ANYCAST, unix.RTN_MULTICAST:
		return c.hop(Hop{Kind: Local}), true
	case unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT, unix.RTN_BLACKHOLE:
		return c.hop(Hop{Kind: Unreachable}), true
	case unix.RTN_THROW:
		return 0, true
	default:
		return c.hop(Hop{Kind: Local}), true
	}
	if len(r.MultiPath) == 0 {
		return c.single(r, r.LinkIndex, gatewayOf(r.Gw, r.Via), r.Flags, r.Encap != nil)
	}
	var members []uint32
	for _, n := range r.MultiPath {
		v, ok := c.single(r, n.LinkIndex, gatewayOf(n.Gw, n.Via), n.Flags, n.Encap != nil)
		if !ok {
			continue
		}
		for range n.Hops + 1 {
			if len(members) < groupMax {
				members = append(members, v)
			}
		}
	}
	switch len(members) {
	case 0:
		return 0, false
	case 1:
		return members[0], true
	}
	for i, g := range c.groups {
		if slices.Equal(g, members) {
			return groupBit | uint32(i), true
		}
	}
	c.groups = append(c.groups, members)
	return groupBit | uint32(len(c.groups)-1), true
}

// single returns the hop of one way; false if the way is dead or leads into our own TUN.
func (c *compiler) single(r *netlink.Route, ifindex int, gateway netip.Addr, flags int, encap bool) (uint32, bool) {
	if flags&unix.RTNH_F_DEAD != 0 || c.ignored[ifindex] {
		return 0, false
	}
	l, ok := c.state.links[ifindex]
	if n, ours := c.virtual[l.name]; ours {
		return c.hop(Hop{Kind: Tunnel, Port: n, MTU: clipMTU(l.mtu)}), true
	}
	port, ours := c.ports[l.name]
	if !ok || !ours || !l.ether || encap {
		return c.hop(Hop{Kind: Local}), true
	}
	h := Hop{Kind: Unresolved, Port: port, Ifindex: ifindex, Gateway: gateway, MTU: clipMTU(l.mtu), SrcMAC: l.mac}
	if r.MTU > 0 && r.MTU < l.mtu {
		h.MTU = clipMTU(r.MTU)
	}
	if !gateway.IsValid() {
		return c.hop(h), true
	}
	return c.neighbourHop(h, neighbourKey{ifindex, gateway}), true
}

// neighbourHop completes h with what is known of its neighbour and notes which hop depends on it.
func (c *compiler) neighbourHop(h Hop, k neighbourKey) uint32 {
	h.Gateway = k.addr
	h.used = c.used(k)
	h.resolve(c.state.neighbour[k])
	v := c.hop(h)
	if !slices.Contains(c.hopsOf[k], v) {
		c.hopsOf[k] = append(c.hopsOf[k], v)
	}
	return v
}

// addNeighbours gives every known neighbour on a connected prefix an entry of its own.
func (c *compiler) addNeighbours() {
	keys := make([]neighbourKey, 0, len(c.state.neighbour))
	for k := range c.state.neighbour {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b neighbourKey) int {
		if a.ifindex != b.ifindex {
			return a.ifindex - b.ifindex
		}
		return a.addr.Compare(b.addr)
	})
	for _, k := range keys {
		v, _ := c.prefixes.Lookup(k.addr)
		if v&groupBit != 0 {
			continue
		}
		if h := c.hops[v]; h.glean(k.ifindex) {
			c.prefixes.Insert(netip.PrefixFrom(k.addr, k.addr.BitLen()), c.neighbourHop(h, k))
		}
	}
}

// glean reports whether h is the hop of a connected prefix on the interface.
func (h *Hop) glean(ifindex int) bool {
	return h.Kind == Unresolved && h.Ifindex == ifindex && !h.Gateway.IsValid()
}

// resolve sets kind and link address by the state of the neighbour entry.
func (h *Hop) resolve(n neighbour) {
	h.DstMAC = [6]byte{}
	switch {
	case n.state&nudValid != 0 && n.ether:
		h.Kind, h.DstMAC = Forward, n.mac
	case n.state&unix.NUD_FAILED != 0:
		h.Kind = Failed
	default:
		h.Kind = Unresolved
	}
}

// gatewayOf returns the next hop's address: RTA_GATEWAY, or RTA_VIA for one of the other family.
func gatewayOf(gw []byte, via netlink.Destination) netip.Addr {
	if v, ok := via.(*netlink.Via); ok && v != nil {
		gw = v.Addr
	}
	a, ok := addrOf(gw)
	if !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

func clipMTU(mtu int) uint16 { return uint16(min(max(mtu, 0), 65535)) }

func sortedUnique(a []netip.Addr) []netip.Addr {
	slices.SortFunc(a, netip.Addr.Compare)
	return slices.Compact(a)
}
