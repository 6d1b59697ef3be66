package hosttest

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// Behind host-b, which is a router here, there is one more network, in the selectors as well, whose packets are smaller:
//
//	host-a ── gw-a ══ tunnel ══ gw-b ── host-b ── 1300 bytes ── far
//
// host-a has a second address, so that an error may reach the wrong one. far has more than one as well, as host-a's kernel remembers how large packets to
// an address may be. To lost host-b lets nobody through; hidden is its address outside all selectors.
const (
	far4, far6       = "198.51.100.200", "2001:db8:b:0:1::10"
	lost4, lost6     = "198.51.100.240", "2001:db8:b:0:2::1"
	second4, second6 = "198.51.100.11", "2001:db8:a::11"
	hidden4, hidden6 = "203.0.113.77", "2001:db8:77::77"
	farMTU           = 1300
	addresses        = 8 // of far in each family
)

// TestPingAndTraceroute asks the programs that everybody asks. The gateways are hops like other routers, answer for themselves on the protected side,
// and every error on the way, also from behind the tunnel, reaches the program and the address it is for.
func TestPingAndTraceroute(t *testing.T) {
	testbed.Need(t, "ping", "traceroute")
	crossed := rig.Negotiated()
	crossed[0].LocalTS, crossed[1].LocalTS = crossed[1].LocalTS, crossed[0].LocalTS
	crossed[0].RemoteTS, crossed[1].RemoteTS = crossed[1].RemoteTS, crossed[0].RemoteTS
	for _, x := range []struct {
		name    string
		tunnels []rig.Tunnel
		hop4    string // gateway b, as the other side sees it
	}{
		{"in the same family", rig.Negotiated(), rig.RouterB4}, {"in the other family", crossed, rig.RouterB4},
		{"by interfaces", rig.Routed(), "203.0.113.2"}, // the interface has an address of IPv4 alone
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			g := lay(t, x.tunnels)
			far := g.extend()
			g.must(g.pair.Start())
			if name := x.tunnels[0].Interface; name != "" {
				for _, to := range []string{rig.LANB4, rig.LANB6} {
					g.must(g.net.GwA.RouteOut(to, name))
				}
				for _, to := range []string{rig.LANA4, rig.LANA6} {
					g.must(g.net.GwB.RouteOut(to, name))
				}
			}
			for _, to := range []string{far4, far6} {
				g.eventually("the tunnel carries the first ping", func() bool {
					_, ok := g.run(g.net.HostA, "ping", "-n", "-c", "1", "-W", "1", to)
					return ok
				})
			}
			beforeA, beforeB := g.counters(g.pair.A), g.counters(g.pair.B)
			var a, b answers
			g.ways(x.hop4, &a, &b)
			g.errors(x.hop4, &a, &b)
			g.ports(far)
			g.balanced()
			for _, x := range []struct {
				gateway *rig.Gateway
				before  counters
				want    answers
			}{{g.pair.A, beforeA, a}, {g.pair.B, beforeB, b}} {
				after := g.counters(x.gateway)
				got := answers{after.drop("ttl-expired") - x.before.drop("ttl-expired"), after.drop("too-big") - x.before.drop("too-big")}
				made := after.Totals.Originated - x.before.Totals.Originated
				pieces := after.Totals.Fragmented - x.before.Totals.Fragmented // of each there is one more than there was
				if got != x.want || made != got.hops+got.large+pieces {
					t.Errorf("%s ended %+v, want %+v; it made %d packets, %d of them pieces", x.gateway.Name, got, x.want, made, pieces)
				}
			}
			g.sealed()
		})
	}
}

// answers are what a gateway has to give: to packets at the end of their hops, and to packets that are too large.
type answers struct{ hops, large uint64 }

// address returns the nth address of far of the family of another one.
func address(of string, n int) string {
	if of == far6 {
		return fmt.Sprintf("2001:db8:b:0:1::%x", 0x10+n)
	}
	return fmt.Sprintf("198.51.100.%d", 200+n)
}

// extend lays the network behind host-b and returns its host.
func (g *ground) extend() *testbed.Namespace {
	g.t.Helper()
	far, err := g.bed.Namespace("far")
	g.must(err)
	b := g.net.HostB
	g.must(errors.Join(
		b.Sysctl("net.ipv4.ip_forward", "1"), b.Sysctl("net.ipv6.conf.all.forwarding", "1"),
		g.bed.Veth(b, "far", far, "eth0", 1),
	))
	for _, x := range []struct {
		ns   *testbed.Namespace
		name string
	}{{b, "far"}, {far, "eth0"}} {
		l, err := x.ns.Netlink().LinkByName(x.name)
		g.must(err)
		g.must(x.ns.Netlink().LinkSetMTU(l, farMTU))
	}
	for _, ns := range []*testbed.Namespace{b, far, g.net.HostA} { // errors as they are asked for: nothing here is about their limits
		g.must(errors.Join(ns.Sysctl("net.ipv4.icmp_ratelimit", "0"), ns.Sysctl("net.ipv6.icmp.ratelimit", "0")))
	}
	g.must(b.Address("far", "198.51.100.193/26", "2001:db8:b:0:1::1/80"))
	for n := range addresses {
		g.must(far.Address("eth0", address(far4, n)+"/26", address(far6, n)+"/80"))
	}
	g.must(errors.Join(
		far.Route("default4", "198.51.100.193"), far.Route("default6", "2001:db8:b:0:1::1"),
		g.net.GwB.Route("198.51.100.192/26", rig.HostB4), g.net.GwB.Route("2001:db8:b:0:1::/80", rig.HostB6),
		g.net.GwB.Route(lost6+"/128", rig.HostB6),
		g.net.HostA.Address("eth0", second4+"/25", second6+"/64"),
		b.Address("lo", hidden4+"/32", hidden6+"/128"),
	))
	for _, to := range []string{lost4 + "/32", lost6 + "/128"} {
		dst, err := netlink.ParseIPNet(to)
		g.must(err)
		g.must(b.Netlink().RouteAdd(&netlink.Route{Dst: dst, Type: syscall.RTN_PROHIBIT}))
	}
	return far
}

// hides gives the errors of host-b a source outside all selectors, or their usual one again.
func (g *ground) hides(yes bool) {
	g.t.Helper()
	for _, x := range []struct{ to, router, hidden, usual string }{{"0.0.0.0/0", rig.RouterB4, hidden4, rig.HostB4}, {"::/0", rig.RouterB6, hidden6, rig.HostB6}} {
		_, dst, err := net.ParseCIDR(x.to)
		g.must(err)
		src := x.usual
		if yes {
			src = x.hidden
		}
		g.must(g.net.HostB.Netlink().RouteReplace(&netlink.Route{Dst: dst, Gw: net.ParseIP(x.router), Src: net.ParseIP(src)}))
	}
}

var hopLine = regexp.MustCompile(`(?m)^ *\d+  (\S+)`)

// hops fails unless traceroute on host-a shows exactly these.
func (g *ground) hops(args []string, want ...string) {
	g.t.Helper()
	args = append([]string{"-n", "-q", "1", "-w", "5", "-m", "8"}, args...)
	out, ok := g.run(g.net.HostA, "traceroute", args...)
	var got []string
	for _, m := range hopLine.FindAllStringSubmatch(out, -1) {
		got = append(got, m[1])
	}
	if !ok || !slices.Equal(got, want) {
		g.t.Errorf("traceroute %s shows %v, want %v: %s", strings.Join(args, " "), got, want, out)
	}
}

// pings fails unless ping on host-a says this.
func (g *ground) pings(says string, args ...string) {
	g.t.Helper()
	args = append([]string{"-n", "-c", "1", "-W", "5"}, args...)
	if out, _ := g.run(g.net.HostA, "ping", args...); !strings.Contains(out, says) {
		g.t.Errorf("ping %s does not say %q: %s", strings.Join(args, " "), says, out)
	}
}

// ways are the answers of hops and hosts. hop4 is what gateway b is called as a hop; a and b count what the gateways have to say.
func (g *ground) ways(hop4 string, a, b *answers) {
	g.t.Helper()
	for _, way := range []string{"-U", "-I", "-T"} { // UDP, ICMP, TCP
		g.hops([]string{way, far4}, rig.RouterA4, hop4, rig.HostB4, far4)
		g.hops([]string{way, far6}, rig.RouterA6, rig.RouterB6, rig.HostB6, far6)
		a.hops, b.hops = a.hops+2, b.hops+2
	}
	for _, x := range []string{rig.RouterA4, rig.RouterA6, second4, second6} { // its own gateway, with and without the tunnel's help
		g.pings("1 received", x)
	}
	g.hops([]string{rig.RouterA4}, rig.RouterA4)
	g.hops([]string{rig.RouterA6}, rig.RouterA6)
	g.hops([]string{rig.RouterB4}, rig.RouterA4, rig.RouterB4)
	g.hops([]string{rig.RouterB6}, rig.RouterA6, rig.RouterB6)
	a.hops += 2
	for _, x := range []string{rig.RouterB4, rig.RouterB6, rig.HostB4, rig.HostB6, far4, far6} {
		g.pings("1 received", x)
		g.pings("1 received", "-s", "0", x)
		g.pings("1 received", "-Q", "0xb9", "-p", "00ff", "-s", "1200", x)
	}
	// Larger than the tunnel: gateways cut IPv4 up. Of IPv6 the sender is told, then that of the answer.
	g.pings("1 received", "-s", "1460", "-M", "dont", far4)
	g.pings("1 received", "-c", "3", "-i", "0.1", "-W", "1", "-s", "1400", rig.HostB6)
	a.large, b.large = a.large+1, b.large+1
	g.pings("1 received", "-R", far4) // IPv4 options
	g.pings("1 received", "-T", "tsonly", far4)
}

// errors are those that ping shows, each from the router that it is of, for the address that asked.
func (g *ground) errors(hop4 string, a, b *answers) {
	g.t.Helper()
	for _, x := range []struct {
		second, routerA, routerB, host, hidden, far, lost string
		expired, tooBig, lostWord                         string
		headers                                           int
	}{
		{second4, rig.RouterA4, hop4, rig.HostB4, hidden4, far4, lost4, "Time to live exceeded", "Frag needed and DF set (mtu = %d", "Packet filtered", 28},
		{second6, rig.RouterA6, rig.RouterB6, rig.HostB6, hidden6, far6, lost6, "Time exceeded: Hop limit", "Packet too big: mtu=%d", "Destination unreachable: ", 48},
	} {
		unused := 1
		for _, from := range [][]string{nil, {"-I", x.second}} {
			says := func(router, what string, args ...string) {
				g.t.Helper()
				g.pings("From "+router+" icmp_seq=1 "+what, slices.Concat(from, args)...)
			}
			says(x.routerA, x.expired, "-t", "1", x.far)
			says(x.routerB, x.expired, "-t", "2", x.far)
			a.hops, b.hops = a.hops+1, b.hops+1
			for _, host := range []string{x.host, x.hidden} {
				g.hides(host == x.hidden)
				says(host, x.expired, "-t", "3", x.far)
				says(host, x.expired, "-t", "3", "-s", "1200", x.far) // its quote is cut
				to := address(x.far, unused)
				unused++
				says(host, fmt.Sprintf(x.tooBig, farMTU), "-M", "do", "-s", fmt.Sprint(farMTU-x.headers+1), to)
				g.pings("1 received", "-M", "do", "-s", fmt.Sprint(farMTU-x.headers), to)
			}
			g.hides(false)
			says(x.routerA, strings.TrimSuffix(x.tooBig, "%d"), "-M", "do", "-s", fmt.Sprint(1500-x.headers), address(x.far, unused)) // before the tunnel
			unused++
			a.large++
		}
		g.eventually("the way to lost is closed", func() bool { // host-b's kernel says so once a second
			out, _ := g.run(g.net.HostA, "ping", "-n", "-c", "1", "-W", "1", x.lost)
			return strings.Contains(out, "From "+x.host+" icmp_seq=1 "+x.lostWord)
		})
	}
}

// ports sends to a closed port of far from one of two sockets that differ in their address alone: the kernel matches
// the error by what it quotes, and only that socket hears of it.
func (g *ground) ports(far *testbed.Namespace) {
	g.t.Helper()
	for _, x := range []struct{ network, first, second, far string }{{"udp4", rig.HostA4, second4, far4}, {"udp6", rig.HostA6, second6, far6}} {
		var conns [2]*net.UDPConn
		for i, local := range []string{x.first, x.second} {
			from, err := net.ResolveUDPAddr(x.network, net.JoinHostPort(local, "4000"))
			g.must(err)
			to, err := net.ResolveUDPAddr(x.network, net.JoinHostPort(x.far, "9"))
			g.must(err)
			g.must(g.net.HostA.Do(func() (err error) { conns[i], err = net.DialUDP(x.network, from, to); return err }))
			defer conns[i].Close()
		}
		for i, c := range conns {
			_, err := c.Write(g.net.Mark)
			g.must(err)
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Read(make([]byte, 10)); !errors.Is(err, syscall.ECONNREFUSED) {
				g.t.Errorf("%s, socket %d hears %v of a port that is closed", x.network, i, err)
			}
			conns[1-i].SetReadDeadline(time.Now().Add(30 * time.Millisecond))
			if _, err := conns[1-i].Read(make([]byte, 10)); err == nil || errors.Is(err, syscall.ECONNREFUSED) {
				g.t.Errorf("%s, socket %d hears %v, though the other one sent", x.network, 1-i, err)
			}
		}
	}
}
