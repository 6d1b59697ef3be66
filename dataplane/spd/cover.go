package spd

import (
	"net/netip"
	"slices"
)

// lastOf returns the last address of a masked prefix.
func lastOf(p netip.Prefix) netip.Addr {
	if p.Addr().Is4() {
		b := p.Addr().As4()
		setFrom(b[:], p.Bits())
		return netip.AddrFrom4(b)
	}
	b := p.Addr().As16()
	setFrom(b[:], p.Bits())
	return netip.AddrFrom16(b)
}

// setFrom sets every bit of b from bit n on.
func setFrom(b []byte, n int) {
	for i := range b {
		if i*8 >= n {
			b[i] = 0xff
		} else if n < i*8+8 {
			b[i] |= 0xff >> (n - i*8)
		}
	}
}

// prefix returns the range as a prefix, if it is one.
func (r *Range) prefix() (netip.Prefix, bool) {
	p := commonPrefix(r.First, r.Last)
	return p, p.Addr() == r.First && lastOf(p) == r.Last
}

// commonPrefix returns the longest prefix that holds both addresses of one family.
func commonPrefix(a, b netip.Addr) netip.Prefix {
	x, y := a.AsSlice(), b.AsSlice()
	n := 0
	for n < a.BitLen() && (x[n/8]^y[n/8])>>(7-n%8)&1 == 0 {
		n++
	}
	return netip.PrefixFrom(a, n).Masked()
}

// Prefixes returns the fewest prefixes that together are exactly the range, in ascending order.
func (r *Range) Prefixes() []netip.Prefix { return r.appendPrefixes(nil) }

// appendPrefixes appends the prefixes that together are exactly the range, the
// fewest there are, in ascending order.
func (r *Range) appendPrefixes(list []netip.Prefix) []netip.Prefix {
	for first := r.First; ; {
		// The largest block that starts at first and ends within the range.
		p := netip.PrefixFrom(first, first.BitLen())
		for p.Bits() > 0 {
			wider := netip.PrefixFrom(first, p.Bits()-1).Masked()
			if wider.Addr() != first || r.Last.Less(lastOf(wider)) {
				break
			}
			p = wider
		}
		list = append(list, p)
		last := lastOf(p)
		if last == r.Last {
			return list
		}
		first = last.Next()
	}
}

// cover returns the fewest prefixes whose union is that of list.
func cover(list []netip.Prefix) []netip.Prefix {
	slices.SortFunc(list, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var out []netip.Prefix
	for _, p := range list {
		if n := len(out); n > 0 && out[n-1].Overlaps(p) {
			continue // sorted, so the one before holds it
		}
		out = append(out, p)
		for n := len(out); n > 1; n = len(out) { // two halves make one
			a, b := out[n-2], out[n-1]
			if a.Bits() != b.Bits() || a.Bits() == 0 || a.Addr().BitLen() != b.Addr().BitLen() {
				break
			}
			wider := netip.PrefixFrom(a.Addr(), a.Bits()-1).Masked()
			if wider.Addr() != a.Addr() || !wider.Contains(b.Addr()) {
				break
			}
			out = append(out[:n-2], wider)
		}
	}
	return out
}
