package keeper

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// SourceTable is the routing table behind the fence of a tunnel for everything. It holds default routes
// only: one into TUN while the gateway runs, one that is unreachable.
const SourceTable = 83

// Priorities of the rules that lead there, for packets from a fenced prefix: first the main
// table without its default route, then SourceTable. They come after those by destination, and
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
		failed = append(failed, l.reconcileRules(family(all.Addr()), ruleMain, ruleSource, sourceRules(from, all.Addr().Is4())))
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

// sourceRules returns the rules for the prefixes of one family.
func sourceRules(from []netip.Prefix, v4 bool) (rules []*netlink.Rule) {
	for _, p := range from {
		if p.Addr().Is4() == v4 {
			main, own := newRule(p.Addr(), ruleMain, unix.RT_TABLE_MAIN), newRule(p.Addr(), ruleSource, SourceTable)
			main.Src, main.SuppressPrefixlen, own.Src = ipNet(p.Masked()), 0, ipNet(p.Masked())
			rules = append(rules, main, own)
		}
	}
	return rules
}
