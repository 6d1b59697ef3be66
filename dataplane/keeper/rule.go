package keeper

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The rules by destination, for each length that protected prefixes have, the longest first: two
// priorities from ruleLength on, the first for the main table as far as its routes are longer, the second for the
// table of the length. They come after the local table (0), and before the rules that an administrator adds by hand, most of
// which have priorities just below main's (32766).
const (
	lengthTable = 8300 // + length: 8301 to 8428
	ruleLength  = 8000 // + 2 × (128 - length): 8000 to 8255
)

// coversMax bounds the rules of one length that look into the main table: each packet that the kernel routes is
// compared with all rules. The kernel's tables themselves may be as large as they like.
const coversMax = 16

// reconcileLengths makes the gateway's own rules by destination lead to exactly the routes of want.
func (l *Local) reconcileLengths(want []Route) error {
	byLength := map[int][]netip.Prefix{} // IPv4's are negative, less one
	for _, r := range want {
		p := r.Prefix.Masked()
		key := p.Bits()
		if p.Addr().Is4() {
			key = -1 - key
		}
		byLength[key] = append(byLength[key], p)
	}
	var v4, v6 []*netlink.Rule
	for key, prefixes := range byLength {
		if key < 0 {
			v4 = append(v4, lengthRules(prefixes)...)
		} else {
			v6 = append(v6, lengthRules(prefixes)...)
		}
	}
	return errors.Join(l.reconcileRules(unix.AF_INET, ruleLength, ruleMain-1, v4), l.reconcileRules(unix.AF_INET6, ruleLength, ruleMain-1, v6))
}

// lengthRules returns the rules for protected prefixes of one length and family. What the main table has for a part of one of them stays
// valid; that is asked only for destinations inside them, or near them where they are many, so that rules of others for
// other destinations still have their say.
func lengthRules(prefixes []netip.Prefix) (rules []*netlink.Rule) {
	length, of := prefixes[0].Bits(), prefixes[0].Addr()
	priority := ruleLength + 2*(128-length)
	if length < of.BitLen() {
		for _, p := range covers(prefixes) {
			r := newRule(of, priority, unix.RT_TABLE_MAIN)
			r.SuppressPrefixlen = length
			if p.Bits() > 0 {
				r.Dst = ipNet(p)
			}
			rules = append(rules, r)
		}
	}
	return append(rules, newRule(of, priority+1, lengthTable+length))
}

// covers returns the prefixes, each once; or, if they are too many, those that hold neighbours together, cut where neighbours
// have least in common.
func covers(prefixes []netip.Prefix) (list []netip.Prefix) {
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	prefixes = slices.Compact(prefixes)
	if len(prefixes) <= coversMax {
		return prefixes
	}
	common := func(a, b netip.Prefix) netip.Prefix {
		for !a.Contains(b.Addr()) || a.Bits() > b.Bits() {
			a = netip.PrefixFrom(a.Addr(), a.Bits()-1).Masked()
		}
		return a
	}
	cuts := make([]int, 0, len(prefixes)) // before prefixes[i]
	for i := 1; i < len(prefixes); i++ {
		cuts = append(cuts, i)
	}
	slices.SortStableFunc(cuts, func(i, j int) int {
		return cmp.Compare(common(prefixes[i-1], prefixes[i]).Bits(), common(prefixes[j-1], prefixes[j]).Bits())
	})
	cuts = append(cuts[:coversMax-1], len(prefixes))
	slices.Sort(cuts)
	first := 0
	for _, next := range cuts {
		list = append(list, common(prefixes[first], prefixes[next-1]))
		first = next
	}
	return list
}

// newRule returns a rule of the gateway's own, of the family of an address.
func newRule(of netip.Addr, priority, table int) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Protocol, r.Priority, r.Table = family(of), Protocol, priority, table
	return r
}

// reconcileRules makes the gateway's own rules of one family and with priorities from first to last exactly those. Where one
// leads past others, these are there before it.
func (l *Local) reconcileRules(family, first, last int, want []*netlink.Rule) error {
	slices.SortStableFunc(want, func(a, b *netlink.Rule) int { return cmp.Compare(a.Priority, b.Priority) })
	list, err := l.handle.RuleList(family)
	if err != nil {
		return fmt.Errorf("listing routing rules: %w", err)
	}
	key := func(r *netlink.Rule) string {
		return fmt.Sprint(r.Priority, r.Src, r.Dst, r.Table, r.SuppressPrefixlen)
	}
	wanted, there := make(map[string]bool, len(want)), map[string]bool{}
	for i := range list {
		if list[i].Protocol == Protocol {
			there[key(&list[i])] = true
		}
	}
	var failed []error
	for _, r := range want {
		wanted[key(r)] = true
		if there[key(r)] {
			continue
		}
		if err := l.handle.RuleAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
			failed = append(failed, fmt.Errorf("adding the routing %v: %w", r, err))
		}
	}
	for i := range list {
		h := &list[i]
		if h.Protocol != Protocol || h.Priority < first || h.Priority > last || wanted[key(h)] {
			continue
		}
		if err := l.handle.RuleDel(h); err != nil && !errors.Is(err, unix.ENOENT) {
			failed = append(failed, fmt.Errorf("deleting the routing %v: %w", h, err))
		}
	}
	return errors.Join(failed...)
}
