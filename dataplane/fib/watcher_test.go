package fib_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sallyport/dataplane/fib"
	"sallyport/dataplane/keeper"
	"sallyport/tools/testbed"
)

// rig is a gateway's namespace (the thread's) with port p0 towards a peer's namespace:
//
//	gateway  p0 192.0.2.1/24 2001:db8:1::1/64 ──── 192.0.2.2 2001:db8:1::2 p0p  peer
type rig struct {
	peer    netns.NsHandle
	here    *netlink.Handle
	there   *netlink.Handle
	keeper  *keeper.Local
	watcher *fib.Watcher

	mu    sync.Mutex
	links []fib.LinkEvent
	own   []netip.Addr
}

func newRig(t *testing.T) *rig {
	r := &rig{peer: testbed.Thread(t)}
	testbed.Thread(t)
	var err error
	r.here, err = netlink.NewHandle(unix.NETLINK_ROUTE)
	testbed.Must(t, err)
	r.there, err = netlink.NewHandleAt(r.peer, unix.NETLINK_ROUTE)
	testbed.Must(t, err)
	r.keeper, err = keeper.NewLocal()
	testbed.Must(t, err)
	r.connect(t)
	r.watcher, err = fib.NewWatcher(fib.Config{
		Ports: []fib.Port{{Name: "p0", Number: 3}}, TUN: "spt0", Resolve: r.keeper.ResolveNeighbour, KeepAlive: 100 * time.Millisecond,
		Changed: func(u fib.Update) {
			r.mu.Lock()
			r.links, r.own = append(r.links, u.Links...), u.Own
			r.mu.Unlock()
		},
	})
	testbed.Must(t, err)
	r.watcher.Start()
	t.Cleanup(func() {
		r.watcher.Close()
		r.keeper.Close()
		r.here.Close()
		r.there.Close()
	})
	return r
}

func (r *rig) connect(t *testing.T) {
	testbed.AddVeth(t, "p0", r.peer)
	testbed.AddAddress(t, r.here, "p0", "192.0.2.1/24")
	testbed.AddAddress(t, r.here, "p0", "2001:db8:1::1/64")
	testbed.AddAddress(t, r.there, "p0p", "192.0.2.2/24")
	testbed.AddAddress(t, r.there, "p0p", "2001:db8:1::2/64")
}

func (r *rig) hop(dst string) *fib.Hop {
	table := r.watcher.Table()
	return &table.Hops[table.Lookup(addr(dst))]
}

func (r *rig) kind(t *testing.T, dst string, want fib.Kind) {
	t.Helper()
	testbed.Eventually(t, fmt.Sprintf("%s becomes %v", dst, want), func() bool { return r.hop(dst).Kind == want })
}

func (r *rig) index(t *testing.T) int {
	l, err := r.here.LinkByName("p0")
	testbed.Must(t, err)
	return l.Attrs().Index
}

func cidr(s string) *net.IPNet {
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	return n
}

func TestNeighbourIsResolvedFailsAndIsKeptAlive(t *testing.T) {
	r := newRig(t)
	index := r.index(t)
	p, err := r.there.LinkByName("p0p")
	testbed.Must(t, err)
	for _, dst := range []string{"192.0.2.2", "2001:db8:1::2"} {
		r.kind(t, dst, fib.Unresolved)
		h := r.hop(dst)
		if h.Target(addr(dst)) != addr(dst) || h.Ifindex != index || h.Port != 3 || h.MTU != 1500 {
			t.Fatalf("hop of connected prefix: %+v", h)
		}
		r.watcher.Resolve(h.Ifindex, h.Target(addr(dst)))
		r.kind(t, dst, fib.Forward)
		if h = r.hop(dst); !slices.Equal(h.DstMAC[:], p.Attrs().HardwareAddr) {
			t.Errorf("link address %x, want %v", h.DstMAC, p.Attrs().HardwareAddr)
		}
		// Make it stale by hand; use must bring it back through DELAY.
		testbed.Must(t, r.here.NeighSet(&netlink.Neigh{LinkIndex: index, Family: netlink.FAMILY_ALL, IP: net.ParseIP(dst), State: netlink.NUD_STALE, HardwareAddr: p.Attrs().HardwareAddr}))
		testbed.Eventually(t, "a used stale entry is refreshed", func() bool {
			r.hop(dst).Touch()
			list, _ := r.here.NeighList(index, 0)
			for _, n := range list {
				if n.IP.Equal(net.ParseIP(dst)) {
					return n.State&(netlink.NUD_DELAY|netlink.NUD_PROBE|netlink.NUD_REACHABLE) != 0
				}
			}
			return false
		})
	}
	if r.watcher.Counters().Refreshed < 2 {
		t.Error("nothing was refreshed")
	}
	r.watcher.Resolve(index, addr("192.0.2.99"))
	r.kind(t, "192.0.2.99", fib.Failed)
	testbed.Must(t, r.here.NeighDel(&netlink.Neigh{LinkIndex: index, IP: net.ParseIP("192.0.2.2")}))
	testbed.Eventually(t, "a deleted neighbour is no longer used", func() bool { return r.hop("192.0.2.2").Kind != fib.Forward })
}

// TestGatewayIsADestinationToo learns the link address of a route's gateway after the routes: packets
// to the gateway itself must find it as well, not only those through it.
func TestGatewayIsADestinationToo(t *testing.T) {
	r := newRig(t)
	testbed.Must(t, r.here.RouteAdd(&netlink.Route{Dst: cidr("203.0.113.0/24"), Gw: net.ParseIP("192.0.2.2"), LinkIndex: r.index(t)}))
	r.kind(t, "203.0.113.1", fib.Unresolved)
	r.watcher.Resolve(r.index(t), addr("192.0.2.2"))
	r.kind(t, "203.0.113.1", fib.Forward)
	r.kind(t, "192.0.2.2", fib.Forward)
}

func TestRoutesReachTheSnapshot(t *testing.T) {
	r := newRig(t)
	index := r.index(t)
	gw := net.ParseIP("192.0.2.2")
	route := func(dst string, change func(*netlink.Route)) *netlink.Route {
		n := &netlink.Route{Dst: cidr(dst), LinkIndex: index}
		change(n)
		testbed.Must(t, r.here.RouteAdd(n))
		return n
	}
	r.kind(t, "192.0.2.1", fib.Local)
	r.kind(t, "203.0.113.1", fib.NoRoute)
	r.kind(t, "224.0.0.5", fib.Local)
	r.kind(t, "127.1.2.3", fib.Local)
	// Groups that a route names leave through its interface; the rest of multicast, and broadcast, is the kernel's.
	route("239.1.0.0/16", func(n *netlink.Route) {})
	route("ff15::/16", func(n *netlink.Route) { n.MTU = 1400 })
	r.kind(t, "239.1.200.3", fib.Multicast)
	r.kind(t, "ff15::77", fib.Multicast)
	r.kind(t, "239.2.0.1", fib.Local)
	r.kind(t, "ff0e::1", fib.Local)
	r.kind(t, "192.0.2.255", fib.Local)
	r.kind(t, "255.255.255.255", fib.Local)
	if h := r.hop("ff15::77"); h.Ifindex != index || h.MTU != 1400 || h.SrcMAC == [6]byte{} || h.DstMAC != [6]byte{} {
		t.Errorf("hop of groups: %+v", h)
	}
	via := route("203.0.113.0/24", func(n *netlink.Route) { n.Gw = gw; n.MTU = 1280 })
	r.kind(t, "203.0.113.1", fib.Unresolved)
	if h := r.hop("203.0.113.1"); h.Gateway != addr("192.0.2.2") || h.MTU != 1280 {
		t.Errorf("hop through a gateway: %+v", h)
	}
	r.watcher.Resolve(index, addr("192.0.2.2"))
	r.kind(t, "203.0.113.1", fib.Forward)
	better := route("203.0.113.0/24", func(n *netlink.Route) {
		n.Type = unix.RTN_BLACKHOLE
		n.LinkIndex = 0
		n.Priority = 0
		n.Dst = cidr("203.0.113.128/25")
	})
	r.kind(t, "203.0.113.200", fib.Unreachable)
	testbed.Must(t, r.here.RouteDel(better))
	r.kind(t, "203.0.113.200", fib.Forward)
	route("203.0.113.0/24", func(n *netlink.Route) { n.Type = unix.RTN_UNREACHABLE; n.LinkIndex = 0; n.Priority = 7 })
	testbed.Must(t, r.here.RouteDel(via))
	r.kind(t, "203.0.113.1", fib.Unreachable)
	// The gateway's own routes and fences are not for itself.
	route("198.51.100.0/24", func(n *netlink.Route) { n.Gw = gw })
	r.kind(t, "198.51.100.1", fib.Forward)
	testbed.Must(t, r.keeper.ReconcileRoutes([]keeper.Route{keeper.Fence(netip.MustParsePrefix("198.51.100.0/25"))}))
	// An IPv4 destination through an IPv6 neighbour.
	route("198.18.1.0/24", func(n *netlink.Route) {
		n.Via = &netlink.Via{AddrFamily: unix.AF_INET6, Addr: net.ParseIP("2001:db8:1::2")}
	})
	testbed.Eventually(t, "v4 via v6", func() bool { return r.hop("198.18.1.1").Gateway == addr("2001:db8:1::2") })
	if k := r.hop("198.51.100.1").Kind; k != fib.Forward {
		t.Errorf("a fence is followed: %v", k)
	}
	// Multipath: both members are used, each destination always the same.
	route("198.19.0.0/16", func(n *netlink.Route) {
		n.LinkIndex = 0
		n.MultiPath = []*netlink.NexthopInfo{{LinkIndex: index, Gw: gw}, {LinkIndex: index, Gw: net.ParseIP("192.0.2.3")}}
	})
	r.kind(t, "198.19.0.1", r.hop("198.19.0.1").Kind)
	testbed.Eventually(t, "multipath spreads", func() bool {
		seen := map[netip.Addr]int{}
		for i := range 64 {
			seen[r.hop(fmt.Sprintf("198.19.0.%d", i)).Gateway]++
		}
		return seen[addr("192.0.2.2")] > 8 && seen[addr("192.0.2.3")] > 8
	})
	// An interface that is not ours: the kernel's business.
	other := testbed.AddVeth(t, "x0", r.peer)
	route("198.18.9.0/24", func(n *netlink.Route) { n.LinkIndex = other.Attrs().Index })
	r.kind(t, "198.18.9.1", fib.Local)
}

func TestSnapshotThatDoesNotDifferKeepsItsGeneration(t *testing.T) {
	r := newRig(t)
	r.kind(t, "192.0.2.2", fib.Unresolved)
	l, err := r.here.LinkByName("p0")
	testbed.Must(t, err)
	rebuilds := r.watcher.Counters().Rebuilds
	var before uint32
	testbed.Eventually(t, "the start is over", func() bool { // IPv6 needs a while until its addresses settle
		g := r.watcher.Table().Generation
		same := g == before
		before = g
		time.Sleep(20 * time.Millisecond)
		return same
	})
	testbed.Must(t, r.here.LinkSetAlias(l, "another name"))
	testbed.Eventually(t, "a rebuild", func() bool { return r.watcher.Counters().Rebuilds > rebuilds })
	time.Sleep(20 * time.Millisecond)
	if g := r.watcher.Table().Generation; g != before && g != before+1 {
		t.Errorf("generation %d after %d", g, before)
	}
}

func TestInterfaceDeletedAndCreatedAgain(t *testing.T) {
	r := newRig(t)
	r.kind(t, "192.0.2.2", fib.Unresolved)
	old := r.index(t)
	l, err := r.here.LinkByName("p0")
	testbed.Must(t, err)
	testbed.Must(t, r.here.LinkSetMTU(l, 1400))
	testbed.Eventually(t, "the new MTU", func() bool { return r.hop("192.0.2.2").MTU == 1400 })
	testbed.Must(t, r.here.LinkDel(l))
	r.kind(t, "192.0.2.2", fib.NoRoute)
	r.connect(t)
	now := r.index(t)
	testbed.Eventually(t, "the new interface", func() bool {
		h := r.hop("192.0.2.2")
		return h.Kind == fib.Unresolved && h.Ifindex == now
	})
	r.watcher.Resolve(now, addr("192.0.2.2"))
	r.kind(t, "192.0.2.2", fib.Forward)
	testbed.Must(t, r.keeper.AddAddress("p0", netip.MustParsePrefix("192.0.2.77/32")))
	r.kind(t, "192.0.2.77", fib.Local)
	testbed.Eventually(t, "own address", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return slices.Contains(r.own, addr("192.0.2.77"))
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	gone, back := false, false
	for _, e := range r.links {
		gone = gone || e.Change == fib.LinkGone && e.Ifindex == old && e.Port == 3
		back = back || gone && e.Change == fib.LinkAppeared && e.Ifindex == now
	}
	if !gone || !back {
		t.Errorf("events %+v", r.links)
	}
}

// TestLookupAgreesWithTheKernel compares random tables with the kernel's own answers.
func TestLookupAgreesWithTheKernel(t *testing.T) {
	r := newRig(t)
	index := r.index(t)
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 1))
	gateways := []string{"192.0.2.2", "192.0.2.3", "192.0.2.4"}
	var added []*netlink.Route
	base := netip.MustParseAddr("198.18.0.0").As4()
	point := func() netip.Addr {
		b := base
		b[1] |= byte(random.IntN(2))
		b[2], b[3] = byte(random.IntN(4)), byte(random.IntN(256))
		return netip.AddrFrom4(b)
	}
	for range 300 {
		bits := 15 + random.IntN(18)
		p := netip.PrefixFrom(point(), bits).Masked()
		n := &netlink.Route{Dst: cidr(p.String()), Priority: random.IntN(3)}
		if k := random.IntN(4); k < 3 {
			n.LinkIndex, n.Gw = index, net.ParseIP(gateways[k])
		} else {
			n.Type = unix.RTN_UNREACHABLE
		}
		if r.here.RouteAdd(n) == nil { // the same prefix and metric may be there
			added = append(added, n)
		}
	}
	for range len(added) / 3 {
		_ = r.here.RouteDel(added[random.IntN(len(added))])
	}
	ask := func(dst netip.Addr) string {
		got, err := r.here.RouteGet(dst.AsSlice())
		if err != nil {
			return "none"
		}
		return got[0].Gw.String()
	}
	ours := func(dst netip.Addr) string {
		h := r.hop(dst.String())
		if h.Kind == fib.NoRoute || h.Kind == fib.Unreachable {
			return "none"
		}
		return h.Gateway.String()
	}
	for range 500 {
		dst := point()
		want := ask(dst)
		testbed.Eventually(t, fmt.Sprintf("seed %d: %v goes to %s, not %s", seed, dst, want, ours(dst)), func() bool { return ours(dst) == want })
	}
}
