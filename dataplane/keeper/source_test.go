package keeper_test

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sallyport/dataplane/keeper"
	"sallyport/tools/testbed"
)

// TestSourceFencesAreExactlyThose fences prefixes by source, changes them and takes the fence away
// again. Rules of somebody else stay.
func TestSourceFencesAreExactlyThose(t *testing.T) {
	testbed.Thread(t)
	here, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	testbed.Must(t, err)
	t.Cleanup(here.Close)
	foreign := netlink.NewRule()
	foreign.Priority, foreign.Table, foreign.Src = 8300, 254, &net.IPNet{IP: net.IPv4(198, 51, 100, 0).To4(), Mask: net.CIDRMask(24, 32)}
	testbed.Must(t, here.RuleAdd(foreign))
	k := local(t)
	rules := func() (own, others int) {
		list, err := here.RuleList(netlink.FAMILY_ALL)
		testbed.Must(t, err)
		for _, r := range list {
			if r.Protocol == keeper.Protocol {
				own++
			} else if r.Priority == 8300 {
				others++
			}
		}
		return own, others
	}
	routes := func() int {
		list, err := here.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: keeper.SourceTable}, netlink.RT_FILTER_TABLE)
		testbed.Must(t, err)
		return len(list)
	}
	from := []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8:a::/64")}
	for range 2 { // doing it again changes nothing
		testbed.Must(t, k.ReconcileSources(from, ""))
		if own, others := rules(); own != 4 || others != 1 || routes() != 2 {
			t.Fatalf("%d rules of ours, %d of others, %d routes", own, others, routes())
		}
	}
	testbed.Must(t, k.ReconcileSources(from[:1], ""))
	if own, others := rules(); own != 2 || others != 1 || routes() != 1 {
		t.Fatalf("%d rules of ours, %d of others, %d routes", own, others, routes())
	}
	testbed.Must(t, k.ReconcileSources(slices.Clip(from[1:]), ""))
	testbed.Must(t, k.ReconcileSources(nil, ""))
	if own, others := rules(); own != 0 || others != 1 || routes() != 0 {
		t.Fatalf("left behind: %d rules, %d routes; %d rules of others", own, routes(), others)
	}
}
