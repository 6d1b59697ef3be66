package failclosed

import (
	"encoding/json"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// TestRoutesDecideThroughInterfaces: between the hosts there are no policies, only routes into interfaces, which an administrator, or a routing daemon,
// changes while traffic flows. It goes by the tunnel that the routes say, or nowhere; the gateways' kernels talk through the interfaces too. Interfaces
// outlive the daemon, which finds them again, and go when they are configured no more.
func TestRoutesDecideThroughInterfaces(t *testing.T) {
	g := lay(t, rig.Routed())
	must(t, errors.Join(g.pair.A.Run("--fence-only"), g.pair.B.Run("--fence-only"))) // the interfaces are there, and routes hold
	route, used := g.route, g.used
	route("ipsec0")
	index, err := g.net.GwA.Index("ipsec0")
	must(t, err)
	g.send()
	g.step("before the first start", func() { time.Sleep(50 * time.Millisecond) })
	if n := g.received(); n != 0 {
		t.Fatalf("%d datagrams arrived before there was a gateway", n)
	}
	g.step("the first start", func() { must(t, g.pair.Start()); g.flows("the first start") })
	g.steered()

	used("first")
	g.step("other routes", func() { route("ipsec1"); g.flows("other routes"); used("second") })
	g.step("the first routes again", func() { route("ipsec0"); g.flows("the first routes again"); used("first") })

	g.step("the gateways talk through an interface", func() {
		g.echo(g.net.GwB, "tcp4", "203.0.113.2:2200")
		g.talk(g.net.GwA, "tcp4", "", "203.0.113.2:2200", strings.Repeat(string(g.net.Mark), 200))
		g.multicast(g.net.GwA, g.net.GwB, "ipsec0")
		g.multicast(g.net.GwB, g.net.GwA, "ipsec0")
	})

	g.step("a killed daemon", func() {
		g.pair.A.Kill()
		time.Sleep(100 * time.Millisecond)
	})
	if now, err := g.net.GwA.Index("ipsec0"); err != nil || now != index {
		t.Errorf("the interface is %d, was %d: %v", now, index, err)
	}
	g.step("its restart", func() {
		must(t, g.pair.A.Launch())
		g.flows("its restart")
		used("first")
	})
	if now, err := g.net.GwA.Index("ipsec0"); err != nil || now != index {
		t.Errorf("after the restart the interface is %d, was %d: %v", now, index, err)
	}

	g.step("the second interface goes and comes again", func() {
		all := g.pair.Tunnels
		g.pair.Tunnels = all[:1]
		must(t, g.pair.Write())
		g.reload()
		there := func(want bool) func() bool {
			return func() bool {
				_, a := g.net.GwA.Index("ipsec1")
				_, b := g.net.GwB.Index("ipsec1")
				return (a == nil) == want && (b == nil) == want
			}
		}
		g.eventually("the second interface goes", there(false))
		g.flows("without the second interface")
		g.pair.Tunnels = all
		must(t, g.pair.Write())
		g.reload()
		g.eventually("the second interface comes again", there(true))
		route("ipsec1")
		g.flows("with the second interface again")
		used("second")
	})

	g.step("a clean stop", func() {
		must(t, g.pair.A.Stop(10*time.Second))
		time.Sleep(50 * time.Millisecond)
	})
	out, err := g.pair.A.Ask("--instance", g.pair.A.Name, "detach", "--pin-dir", g.pair.A.Pins)
	must(t, err)
	g.open = true
	if _, err := g.net.GwA.Index("ipsec0"); err == nil {
		t.Errorf("detach left ipsec0: %s", out)
	}
}

// TestGREAndIPInIPThroughInterfaces: what routes lead into an interface goes in GRE with a key over IPv4, or as IP in IP over IPv6 and UDP, in transport mode: both
// families, datagrams up to the interface's MTU, TCP, and what routers say to all others.
func TestGREAndIPInIPThroughInterfaces(t *testing.T) {
	tunnels := rig.Routed()
	tunnels[0].Encapsulation, tunnels[1].Encapsulation = "gre, key: 7", "ipip"
	g := lay(t, tunnels)
	must(t, errors.Join(g.pair.A.Run("--fence-only"), g.pair.B.Run("--fence-only")))
	g.route("ipsec0")
	g.send()
	must(t, g.pair.Start())
	for k, name := range []string{"ipsec0", "ipsec1"} {
		g.step("by "+name, func() {
			g.route(name)
			g.flows("by " + name)
			g.used(tunnels[k].Name)
			g.multicast(g.net.GwA, g.net.GwB, name)
			g.multicast(g.net.GwB, g.net.GwA, name)
			far, _, _ := strings.Cut(tunnels[k].Addresses[1], "/")
			g.echo(g.net.GwB, "tcp4", far+":2200")
			g.talk(g.net.GwA, "tcp4", "", far+":2200", strings.Repeat(string(g.net.Mark), 150))
		})
	}
	g.echo(g.net.HostB, "tcp4", rig.HostB4+":2200")
	g.echo(g.net.HostB, "tcp6", "["+rig.HostB6+"]:2200")
	g.talk(g.net.HostA, "tcp4", "", rig.HostB4+":2200", strings.Repeat(string(g.net.Mark), 180))
	g.talk(g.net.HostA, "tcp6", "", "["+rig.HostB6+"]:2200", strings.Repeat(string(g.net.Mark), 180))

	text, err := g.pair.A.Ask("sas")
	must(t, err)
	for _, want := range []string{"INSTALLED, TRANSPORT, ESP", "INSTALLED, TRANSPORT-in-UDP", "interface ipsec0, packets in gre key 7", "interface ipsec1, packets in ipip"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("sas does not say %q: %s", want, text)
		}
	}

	// Keys that differ: nothing of it is delivered, and it is counted.
	g.pair.Tunnels[0].Encapsulation = "gre, key: 8"
	must(t, g.pair.Write())
	must(t, g.pair.A.Signal(syscall.SIGHUP))
	g.route("ipsec0")
	g.eventually("keys that differ are counted", func() bool {
		text, err := g.pair.B.Ask("counters")
		return err == nil && strings.Contains(string(text), "bad-gre")
	})
	must(t, g.pair.B.Signal(syscall.SIGHUP))
	g.flows("with the same key again")
}

// TestDeletedDevicesAreMadeAgain has somebody delete a gateway's devices while it runs: an interface comes back with its addresses, and once routes lead
// there again, so does the traffic; the device for the gateway's own traffic comes back with its routes.
func TestDeletedDevicesAreMadeAgain(t *testing.T) {
	deleted := func(g *ground, name string) {
		t.Helper()
		was, err := g.net.GwA.Index(name)
		must(t, err)
		link, err := g.net.GwA.Netlink().LinkByIndex(was)
		must(t, err)
		must(t, g.net.GwA.Netlink().LinkDel(link))
		g.eventually(name+" is made again", func() bool {
			now, err := g.net.GwA.Index(name)
			return err == nil && now != was
		})
	}
	t.Run("interface", func(t *testing.T) {
		tunnels := rig.Routed()
		g := lay(t, tunnels)
		must(t, errors.Join(g.pair.A.Run("--fence-only"), g.pair.B.Run("--fence-only")))
		g.route("ipsec0")
		must(t, g.pair.Start())
		g.send()
		g.flows("at the start")
		g.route("ipsec1")
		deleted(g, "ipsec0") // what it carried goes by the other one meanwhile
		g.flows("without the first interface")
		g.route("ipsec0")
		g.flows("by the first interface again")
		g.used("first")
		far, _, _ := strings.Cut(tunnels[0].Addresses[1], "/")
		g.echo(g.net.GwB, "tcp4", far+":2200")
		g.talk(g.net.GwA, "tcp4", "", far+":2200", string(g.net.Mark)) // by its address
		g.tight("after an interface was made again")
	})
	t.Run("own traffic", func(t *testing.T) {
		g := lay(t, rig.Tunnels())
		must(t, g.pair.Start())
		g.send()
		g.flows("at the start")
		links, err := g.net.GwA.Netlink().LinkList()
		must(t, err)
		for _, link := range links {
			if link.Type() == "tuntap" {
				deleted(g, link.Attrs().Name)
			}
		}
		g.eventually("routes into the device", func() bool {
			index, err := g.net.GwA.Index("sp-" + g.pair.A.Name)
			routes, _ := g.net.GwA.Netlink().RouteListFiltered(unix.AF_INET, &netlink.Route{LinkIndex: index}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
			return err == nil && len(routes) > 0
		})
		g.own()
		g.flows("afterwards")
	})
}

// route leads what the hosts send to each other into an interface, at both gateways.
func (g *ground) route(name string) {
	g.t.Helper()
	must(g.t, errors.Join(g.net.GwA.RouteOut(rig.LANB4, name), g.net.GwA.RouteOut(rig.LANB6, name)))
	must(g.t, errors.Join(g.net.GwB.RouteOut(rig.LANA4, name), g.net.GwB.RouteOut(rig.LANA6, name)))
}

// used waits until all that gateway a sends goes by one of the tunnels first and second.
func (g *ground) used(name string) {
	g.t.Helper()
	other := "second"
	if name == "second" {
		other = "first"
	}
	g.eventually("all of it goes by "+name, func() bool {
		before := g.carried()
		time.Sleep(30 * time.Millisecond)
		after := g.carried()
		return after[name] > before[name] && after[other] == before[other]
	})
}

// steered fails unless the program hands what the hosts send to the workers: a moment after the routes are there, the kernel's way is not taken.
func (g *ground) steered() {
	g.t.Helper()
	protect := func() (n uint64) {
		text, err := g.pair.A.Ask("counters", "--json")
		must(g.t, err)
		var counters struct {
			XDP []struct {
				Name  string
				Value uint64
			} `json:"xdp"`
		}
		must(g.t, json.Unmarshal(text, &counters))
		for _, v := range counters.XDP {
			if v.Name == "protect" {
				n = v.Value
			}
		}
		return n
	}
	before := protect()
	g.eventually("the program steers what is routed into interfaces", func() bool { return protect() > before+20 })
}

// carried is what gateway a's connections have sent, in packets, by name.
func (g *ground) carried() map[string]uint64 {
	g.t.Helper()
	text, err := g.pair.A.Ask("sas", "--json")
	must(g.t, err)
	var sas struct {
		SAs []struct {
			Name, Direction, Interface string
			Packets                    uint64
		} `json:"sas"`
	}
	must(g.t, json.Unmarshal(text, &sas))
	sum := map[string]uint64{}
	for _, sa := range sas.SAs {
		if name, _, _ := strings.Cut(sa.Name, "/"); sa.Direction == "out" {
			sum[name] += sa.Packets
		}
		if sa.Interface == "" {
			g.t.Fatalf("no interface in %s", text)
		}
	}
	return sum
}

// multicast has a program at one gateway say something to the routers of a link, as OSPF does, and one at the other hear it by its end of the interface:
// only there it has joined the group.
func (g *ground) multicast(from, to *testbed.Namespace, name string) {
	g.t.Helper()
	group := &net.UDPAddr{IP: net.IPv4(224, 0, 0, 5), Port: 7100}
	var far, near *net.UDPConn
	g.in(to, func() error {
		iface, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		far, err = net.ListenMulticastUDP("udp4", iface, group)
		return err
	})
	defer far.Close()
	g.in(from, func() error {
		index, err := from.Index(name)
		if err != nil {
			return err
		}
		if near, err = net.ListenUDP("udp4", nil); err != nil {
			return err
		}
		raw, err := near.SyscallConn()
		if err != nil {
			return err
		}
		return errors.Join(err, raw.Control(func(fd uintptr) {
			err = unix.SetsockoptIPMreqn(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(index)})
		}), err)
	})
	defer near.Close()
	g.until(far, string(g.net.Mark), func() { near.WriteTo(g.net.Mark, group) })
}
