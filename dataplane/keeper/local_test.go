package keeper_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sallyport/dataplane/keeper"
	"sallyport/tools/testbed"
)

func local(t *testing.T) *keeper.Local {
	k, err := keeper.NewLocal()
	testbed.Must(t, err)
	t.Cleanup(k.Close)
	return k
}

func TestRoutesAreReconciled(t *testing.T) {
	ns := testbed.Thread(t)
	testbed.AddVeth(t, "v0", ns)
	h, err := netlink.NewHandle()
	testbed.Must(t, err)
	defer h.Close()
	testbed.AddAddress(t, h, "v0", "192.0.2.1/24")
	k := local(t)
	p4, p6 := netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8:9::/48")
	foreign := &netlink.Route{Dst: &net.IPNet{IP: net.IPv4(203, 0, 113, 0), Mask: net.CIDRMask(24, 32)}, Gw: net.IPv4(192, 0, 2, 2), Priority: keeper.MetricFence}
	testbed.Must(t, netlink.RouteAdd(foreign))
	want := []keeper.Route{keeper.Fence(p4), keeper.Fence(p6), keeper.Through(p4, "v0", netip.MustParseAddr("192.0.2.1")), keeper.Through(p6, "v0", netip.Addr{})}
	check := func(want []keeper.Route) {
		t.Helper()
		have, err := k.Routes()
		testbed.Must(t, err)
		if len(have) != len(want) {
			t.Fatalf("routes %v, want %v", have, want)
		}
		for _, r := range want {
			if !slices.Contains(have, r) {
				t.Fatalf("routes %v, want %v", have, want)
			}
		}
	}
	for range 2 {
		testbed.Must(t, k.ReconcileRoutes(want))
		check(want)
	}
	want[2].Source = netip.Addr{} // same key, other content: replaced
	testbed.Must(t, k.ReconcileRoutes(want))
	check(want)
	testbed.Must(t, k.ReconcileRoutes(want[:1]))
	check(want[:1])
	if got, err := netlink.RouteGet(net.IPv4(203, 0, 113, 1)); err != nil || !got[0].Gw.Equal(foreign.Gw) {
		t.Errorf("the foreign route is gone: %v %v", got, err)
	}
	// Somebody else's route in one of our tables is not overwritten.
	foreign.Table = 8300 + 24
	testbed.Must(t, netlink.RouteAdd(foreign))
	if err := k.ReconcileRoutes([]keeper.Route{keeper.Fence(netip.MustParsePrefix("203.0.113.0/24"))}); err == nil {
		t.Error("a foreign route was overwritten")
	}
	testbed.Must(t, k.ReconcileRoutes(nil))
	check(nil)
	rules, err := netlink.RuleList(netlink.FAMILY_ALL)
	testbed.Must(t, err)
	for _, r := range rules {
		if r.Protocol == keeper.Protocol {
			t.Errorf("left behind: %v", r)
		}
	}
	p := netip.MustParsePrefix("2001:db8:1::1/64")
	for range 2 {
		testbed.Must(t, k.AddAddress("v0", p))
	}
	for range 2 {
		testbed.Must(t, k.DeleteAddress("v0", p))
	}
}

// TestFenceHoldsWhenTUNVanishes: with forwarding on and a default route to the outside, protected
// prefixes become unreachable, not cleartext, when the device goes, whatever metric a route for the same prefix
// has; a connected prefix inside stays, and so do the rules of others for other destinations.
func TestFenceHoldsWhenTUNVanishes(t *testing.T) {
	for name, metrics := range map[string][2]int{"usual": {100, 100}, "lowest": {0, 1}} {
		t.Run(name, func(t *testing.T) { fenceHolds(t, metrics) })
	}
}

func fenceHolds(t *testing.T, metrics [2]int) {
	ns := testbed.Thread(t)
	testbed.AddVeth(t, "out0", ns)
	testbed.AddVeth(t, "in0", ns)
	testbed.Must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644))
	h, err := netlink.NewHandle()
	testbed.Must(t, err)
	defer h.Close()
	testbed.AddAddress(t, h, "out0", "192.0.2.1/24")
	testbed.AddAddress(t, h, "in0", "198.51.100.1/25")
	testbed.AddAddress(t, h, "out0", "2001:db8:1::1/64")
	testbed.AddAddress(t, h, "in0", "2001:db8:2:1::1/64")
	k := local(t)
	tun, err := k.OpenTUN("spf0", 1400)
	if err != nil {
		t.Fatal(err)
	}
	remote := []netip.Prefix{
		netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.19.7.9/32"),
		netip.MustParsePrefix("2001:db8:2::/48"), netip.MustParsePrefix("2001:db8:3::9/128"),
	}
	gateway := func(p netip.Prefix) (net.IP, int) {
		if p.Addr().Is6() {
			return net.ParseIP("2001:db8:1::9"), metrics[1]
		}
		return net.ParseIP("192.0.2.9"), metrics[0]
	}
	for i := range 40 { // more than have rules of their own
		remote = append(remote, netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, byte(100 + i), 0}), 24))
	}
	route := func(p netip.Prefix, table int) {
		gw, metric := gateway(p)
		testbed.Must(t, netlink.RouteAdd(&netlink.Route{Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}, Gw: gw, Priority: metric, Table: table}))
	}
	// Routes of others for the default, for the very prefixes, and by a rule of theirs for something else.
	for _, p := range append(slices.Clone(remote), netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")) {
		route(p, 0)
	}
	route(netip.MustParsePrefix("192.0.2.128/25"), 0)
	testbed.Must(t, netlink.RouteAdd(&netlink.Route{Dst: &net.IPNet{IP: net.IPv4(192, 0, 2, 128).To4(), Mask: net.CIDRMask(25, 32)}, Type: unix.RTN_PROHIBIT, Table: 77}))
	theirs := netlink.NewRule()
	theirs.Priority, theirs.Table, theirs.Family = 9000, 77, unix.AF_INET
	testbed.Must(t, netlink.RuleAdd(theirs))
	var want []keeper.Route
	for _, p := range remote {
		want = append(want, keeper.Fence(p), keeper.Through(p, tun.Name, netip.Addr{}))
	}
	for range 2 { // doing it again changes nothing
		testbed.Must(t, k.ReconcileRoutes(want))
	}
	leads := func(dst string) int {
		got, err := netlink.RouteGet(net.ParseIP(dst))
		if err != nil {
			return 0
		}
		return got[0].LinkIndex
	}
	inside := []string{"198.51.100.200", "198.18.0.1", "198.19.7.9", "203.0.100.1", "203.0.139.9", "2001:db8:2::5", "2001:db8:3::9"}
	for _, dst := range inside {
		if leads(dst) != tun.Ifindex {
			t.Errorf("%s does not go into the TUN device", dst)
		}
	}
	in, _ := netlink.LinkByName("in0")
	out, _ := netlink.LinkByName("out0")
	others := func() {
		for dst, index := range map[string]int{
			"198.51.100.7": in.Attrs().Index, "2001:db8:2:1::7": in.Attrs().Index, // connected networks inside remote prefixes
			"203.0.200.1": out.Attrs().Index, "2001:db8:3::8": out.Attrs().Index, "192.0.2.7": out.Attrs().Index,
			"192.0.2.130": 0, // by the rule of others, not by main
		} {
			if leads(dst) != index {
				t.Errorf("%s goes by interface %d, not by %d", dst, leads(dst), index)
			}
		}
	}
	others()
	tun.File.Close()
	testbed.Eventually(t, "the device is gone", func() bool { _, err := netlink.LinkByName("spf0"); return err != nil })
	for _, dst := range inside {
		if leads(dst) != 0 {
			t.Errorf("%s leaves in the clear", dst)
		}
	}
	others()
	testbed.Must(t, k.ReconcileRoutes(want[:1]))
	if leads("198.51.100.200") != 0 || leads("203.0.100.1") != out.Attrs().Index {
		t.Error("fewer prefixes: not exactly those are fenced")
	}
}

// TestTUNIsQuiet: the kernel has nothing to say on the device by itself, neither a membership
// report nor a solicitation, also on a machine that forwards.
func TestTUNIsQuiet(t *testing.T) {
	testbed.Thread(t)
	testbed.Must(t, os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0o644))
	tun, err := local(t).OpenTUN("spq0", 1400)
	testbed.Must(t, err)
	defer tun.File.Close()
	link, err := netlink.LinkByName("spq0")
	testbed.Must(t, err)
	if link.Attrs().Flags&net.FlagMulticast != 0 || link.Attrs().MTU != 1400 {
		t.Errorf("flags %v, MTU %d", link.Attrs().Flags, link.Attrs().MTU)
	}
	groups, err := os.ReadFile("/proc/thread-self/net/igmp6")
	testbed.Must(t, err)
	for line := range strings.Lines(string(groups)) {
		if f := strings.Fields(line); f[1] == "spq0" && f[2] == "ff020000000000000000000000000002" {
			t.Error("the device is in the group of all routers")
		}
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil || len(addrs) != 0 {
		t.Errorf("addresses %v, %v", addrs, err)
	}
	tun.File.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := tun.File.Read(make([]byte, 1500)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the kernel sent %d bytes, %v", n, err)
	}
}

func TestPrivilegedOpenings(t *testing.T) {
	testbed.Thread(t)
	k := local(t)
	testbed.Must(t, k.RaiseMemlock())
	fd, err := k.SocketXDP()
	testbed.Must(t, err)
	os.NewFile(uintptr(fd), "xdp").Close()
	if _, err := k.ReadFile("/nonexistent/file"); !os.IsNotExist(err) {
		t.Errorf("error %v", err)
	}
}
