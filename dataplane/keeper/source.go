package keeper

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// SourceTable is the routing table behind the fence of a tunnel for everything. It holds default routes
// only: one into TUN while the gateway runs, one that is unreachable.
const SourceTable = 83

// Priorities of the rules that lead there, for packets from a fenced prefix: first the main
// table without its default route, then SourceTable. They come after the local table (0), and
// before main (32766).
const (
	ruleMain   = 8300
	ruleSource = 8301
)

// ReconcileSources implements [Keeper].
func (l *Local) ReconcileSources(from []netip.Prefix, tun string) error {
	var failed []error
	for _, all := range []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")} {
		used := slices.ContainsFunc(from, func(p netip.Prefix) bool { return p.Addr().Is4() == all.Addr().Is4() })
		if used {
			failed = append(failed, l.sourceRoute(Fence(all), l.handle.RouteReplace))
			if tun != "" {
				failed = append(failed, l.sourceRoute(Through(all, tun, netip.Addr{}), l.handle.RouteReplace))
			}
		}
		failed = append(failed, l.reconcileRules(family(all.Addr()), from))
		if !used {
			failed = append(failed, l.sourceRoute(Fence(all), l.handle.RouteDel))
		}
	}
	return errors.Join(failed...)
}

// sourceRoute adds or deletes a default route of SourceTable. Deleting what is not there is no error.
func (l *Local) sourceRoute(r Route, do func(*netlink.Route) error) error {
	k, err := l.kernelRoute(r)
	if err != nil {
		return err
	}
	k.Table = SourceTable
	if err := do(k); err != nil && !errors.Is(err, unix.ESRCH) {
		return routeError("changing, in a table of its own,", r, err)
	}
	return nil
}

// reconcileRules makes the gateway's own rules of one family exactly those for the prefixes of it.
func (l *Local) reconcileRules(family int, from []netip.Prefix) error {
	var want []*netlink.Rule
	for _, p := range from {
		if p.Addr().Is4() != (family == unix.AF_INET) {
			continue
		}
		for _, x := range []struct{ priority, table, suppress int }{{ruleMain, unix.RT_TABLE_MAIN, 0}, {ruleSource, SourceTable, -1}} {
			r := netlink.NewRule()
			r.Family, r.Src, r.Protocol = family, ipNet(p.Masked()), Protocol
			r.Priority, r.Table, r.SuppressPrefixlen = x.priority, x.table, x.suppress
			want = append(want, r)
		}
	}
	list, err := l.handle.RuleList(family)
	if err != nil {
		return fmt.Errorf("listing routing rules: %w", err)
	}
	same := func(a, b *netlink.Rule) bool {
		return a.Priority == b.Priority && a.Src != nil && b.Src != nil && a.Src.String() == b.Src.String()
	}
	var failed []error
	for _, r := range want {
		if err := l.handle.RuleAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
			failed = append(failed, fmt.Errorf("adding the routing rule for packets from %v: %w", r.Src, err))
		}
	}
	for i := range list {
		h := &list[i]
		if h.Protocol != Protocol || slices.ContainsFunc(want, func(r *netlink.Rule) bool { return same(h, r) }) {
			continue
		}
		if err := l.handle.RuleDel(h); err != nil && !errors.Is(err, unix.ENOENT) {
			failed = append(failed, fmt.Errorf("deleting the routing rule for packets from %v: %w", h.Src, err))
		}
	}
	return errors.Join(failed...)
}
