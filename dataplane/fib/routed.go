package fib

import "net/netip"

// Routed is a prefix and whether what goes there is routed into a virtual interface.
type Routed struct {
	Prefix netip.Prefix
	Tunnel bool
}

// tellTunnels fills in what a complete table says of virtual interfaces.
func (t *Table) tellTunnels() {
	t.Tunnels = routed(t)
	for i := range t.Hops {
		if h := &t.Hops[i]; h.Kind == Tunnel {
			for len(t.mtus) <= int(h.Port) {
				t.mtus = append(t.mtus, 0)
			}
			t.mtus[h.Port] = h.MTU
		}
	}
}

// InterfaceMTU returns the MTU of virtual interface n as the kernel has it, 0 if no route leads into that.
func (t *Table) InterfaceMTU(n uint16) int {
	if int(n) < len(t.mtus) {
		return int(t.mtus[n])
	}
	return 0
}

// routedMax bounds the prefixes that [Table.Tunnels] tells apart: whoever follows it keeps them in the kernel.
const routedMax = 1 << 16

// routed returns the fewest prefixes of a table that say which destinations lead into virtual interfaces: those that do, and
// inside them those that do not. If they are too many, everything of a family that has one is said to.
func routed(t *Table) []Routed {
	var list, way []Routed // way: of list, those that hold the prefix in hand, shortest first
	var families [2]bool
	for p, v := range t.prefixes.AllSorted() {
		for len(way) > 0 && !way[len(way)-1].Prefix.Overlaps(p) {
			way = way[:len(way)-1]
		}
		r := Routed{p, t.tunnels(v)}
		if r.Tunnel {
			families[p.Addr().BitLen()>>7] = true
		}
		if before := len(way) > 0 && way[len(way)-1].Tunnel; before != r.Tunnel {
			list, way = append(list, r), append(way, r)
		}
	}
	if len(list) <= routedMax {
		return list
	}
	list = nil
	for i, all := range []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")} {
		if families[i] {
			list = append(list, Routed{all, true})
		}
	}
	return list
}

// tunnels says that an entry of the prefix table leads into a virtual interface, or that a member of its group does.
func (t *Table) tunnels(v uint32) bool {
	if v&groupBit == 0 {
		return t.Hops[v].Kind == Tunnel
	}
	for _, m := range t.groups[v&^groupBit] {
		if t.Hops[m].Kind == Tunnel {
			return true
		}
	}
	return false
}
