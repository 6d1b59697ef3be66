package failclosed

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/tools/craft"
	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// everything is the tunnels with all that host-a's network sends to anywhere.
func everything() []rig.Tunnel {
	list := rig.Tunnels()
	list[0].RemoteTS, list[1].RemoteTS = []string{"0.0.0.0/0"}, []string{"::/0"}
	return list
}

// TestTunnelForEverything runs a tunnel for 0.0.0.0/0 and ::/0: what keeps the gateway and its links alive is
// left alone, everything else goes into the tunnel or nowhere, also while the gateway is dead.
func TestTunnelForEverything(t *testing.T) {
	g := lay(t, everything())
	sideA, sideB := g.net.Sides()
	must(t, g.pair.Start())
	g.send()
	g.flows("at the start")

	g.step("SSH to the gateway", func() {
		// A visitor from the outside network, such as an administrator.
		must(t, g.net.Transit.Address("br0", "192.0.2.99/24", "2001:db8:ff::99/64"))
		g.echo(g.net.GwA, "tcp4", ":22")
		g.echo(g.net.GwA, "tcp6", ":22")
		for _, from := range []*testbed.Namespace{g.net.HostA, g.net.Transit, g.net.GwB} {
			g.talk(from, "tcp4", "", rig.GwA4+":22", "SSH-2.0")
			g.talk(from, "tcp6", "", "["+rig.GwA6+"]:22", "SSH-2.0")
		}
		g.talk(g.net.HostA, "tcp4", "", rig.RouterA4+":22", "SSH-2.0")
		g.talk(g.net.HostA, "tcp6", "", "["+rig.RouterA6+"]:22", "SSH-2.0")
	})
	g.step("ARP and neighbour discovery", func() {
		for _, x := range []struct{ ns, of *testbed.Namespace }{{g.net.HostA, g.net.GwA}, {g.net.GwA, g.net.HostA}} {
			neighbours, err := x.ns.Netlink().NeighList(0, 0)
			must(t, err)
			for i := range neighbours {
				if err := x.ns.Netlink().NeighDel(&neighbours[i]); err != nil && !errors.Is(err, unix.ENOENT) {
					t.Fatal(err)
				}
			}
		}
		g.talk(g.net.HostA, "tcp4", "", rig.RouterA4+":22", "SSH-2.0")
		g.talk(g.net.HostA, "tcp6", "", "["+rig.RouterA6+"]:22", "SSH-2.0")
		g.flows("with neighbours found anew")
	})
	g.step("DHCP", func() {
		server, err := rig.ListenPacket(g.net.GwA, "udp4", ":67")
		must(t, err)
		defer server.Close()
		client, err := rig.ListenPacket(g.net.HostA, "udp4", ":68")
		must(t, err)
		defer client.Close()
		discover := broadcast4("0.0.0.0", "255.255.255.255", 68, 67, "discover")
		from := g.until(server, "discover", func() { g.frame(g.net.HostA, "eth0", discover) })
		if from.(*net.UDPAddr).Port != 68 {
			t.Errorf("the discover came from %v", from)
		}
		offer := broadcast4(rig.RouterA4, "255.255.255.255", 67, 68, "offer")
		g.until(client, "offer", func() { g.frame(g.net.GwA, "lan", offer) })
	})
	g.step("OSPF", func() {
		for _, x := range []struct{ network, group string }{{"ip4:89", "224.0.0.5"}, {"ip6:89", "ff02::5"}} {
			router, err := rig.ListenPacket(g.net.GwA, x.network, "")
			must(t, err)
			defer router.Close()
			must(t, join(g.net.GwA, router, "lan", x.group))
			neighbour, err := rig.ListenPacket(g.net.HostA, x.network, "")
			must(t, err)
			defer neighbour.Close()
			g.until(router, "hello", func() {
				to := &net.IPAddr{IP: net.ParseIP(x.group)}
				if to.IP.To4() == nil {
					to.Zone = "eth0"
				}
				g.in(g.net.HostA, func() error { _, err := neighbour.WriteTo([]byte("hello"), to); return err })
			})
		}
	})
	g.step("everything else goes into the tunnel", func() {
		for _, to := range []string{"203.0.113.7:53", "[2001:db8:ffff::1]:53", "198.18.0.1:443", rig.GwB4 + ":4000"} {
			before := g.sealed()
			c, err := rig.Dial(g.net.HostA, "udp", to, nil)
			must(t, err)
			for range 5 {
				c.Write(g.net.Mark)
			}
			c.Close()
			g.eventually("packets to "+to+" in the tunnel", func() bool { return g.sealed() >= before+5 })
		}
	})
	g.step("the gateway's own protected address", func() { g.own() })

	for k := range 3 {
		g.step("killed", func() {
			g.pair.A.Kill()
			time.Sleep(time.Duration(20+40*k) * time.Millisecond)
			g.talk(g.net.HostA, "tcp4", "", rig.RouterA4+":22", "SSH-2.0") // SSH does not need the daemon
			must(t, g.pair.Rekey())
			must(t, errors.Join(g.pair.A.Launch(), g.pair.B.Signal(unix.SIGHUP)))
			g.flows("after a restart")
		})
	}
	g.step("new interfaces", func() {
		g.newLAN(sideA, 50*time.Millisecond)
		g.flows("a new LAN interface at a")
		g.newWAN(sideA, 50*time.Millisecond)
		g.flows("a new WAN interface at a")
		g.newLAN(sideB, 50*time.Millisecond)
		g.flows("a new LAN interface at b")
	})
	g.step("new interfaces while the daemon is dead", func() {
		g.pair.A.Kill()
		g.newLAN(sideA, 20*time.Millisecond)
		time.Sleep(50 * time.Millisecond)
		g.newWAN(sideA, 20*time.Millisecond)
		time.Sleep(50 * time.Millisecond)
	})
}

// TestGatewaysTakePartInTheTunnel lets hosts and the far gateway's kernel talk, and the gateway itself with the far host.
func TestGatewaysTakePartInTheTunnel(t *testing.T) {
	g := lay(t, rig.Tunnels())
	must(t, g.pair.Start())
	g.send()
	g.flows("at the start")
	g.own()
}

// own has hosts talk with the protected addresses of the gateways, and gateway a with host-b.
func (g *ground) own() {
	g.t.Helper()
	for _, x := range []struct {
		network, routerA, hostB, routerB string
	}{{"tcp4", rig.RouterA4, rig.HostB4, rig.RouterB4}, {"tcp6", rig.RouterA6, rig.HostB6, rig.RouterB6}} {
		g.echo(g.net.GwB, x.network, net.JoinHostPort(x.routerB, "2200"))
		g.echo(g.net.GwA, x.network, net.JoinHostPort(x.routerA, "2200"))
		g.echo(g.net.HostB, x.network, net.JoinHostPort(x.hostB, "2200"))
		g.talk(g.net.HostA, x.network, "", net.JoinHostPort(x.routerB, "2200"), string(g.net.Mark))
		g.talk(g.net.HostB, x.network, "", net.JoinHostPort(x.routerA, "2200"), string(g.net.Mark))
		g.talk(g.net.GwA, x.network, x.routerA, net.JoinHostPort(x.hostB, "2200"), string(g.net.Mark))
	}
	g.tight("the gateways' own traffic")
}

// echo serves TCP connections inside a namespace: what comes is sent back.
func (g *ground) echo(ns *testbed.Namespace, network, addr string) {
	g.t.Helper()
	var l net.Listener
	g.in(ns, func() (err error) { l, err = net.Listen(network, addr); return err })
	g.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 4096)
				for {
					n, err := c.Read(b)
					if err != nil {
						return
					}
					c.Write(b[:n])
				}
			}()
		}
	}()
}

// talk has a TCP connection carry a text there and back, from an address of the namespace if one is given.
func (g *ground) talk(ns *testbed.Namespace, network, from, to, text string) {
	g.t.Helper()
	var c net.Conn
	err := ns.Do(func() (err error) {
		d := net.Dialer{Timeout: patience}
		if from != "" {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
		}
		c, err = d.Dial(network, to)
		return err
	})
	if err != nil {
		g.dump()
		g.t.Fatalf("%s from %s: %v", network, ns.Name, err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte(text)); err != nil {
		g.t.Fatal(err)
	}
	b := make([]byte, len(text))
	if _, err := c.Read(b); err != nil {
		g.t.Fatalf("%s from %s to %s: no answer: %v", network, ns.Name, to, err)
	}
}

// in runs f inside a namespace.
func (g *ground) in(ns *testbed.Namespace, f func() error) {
	g.t.Helper()
	must(g.t, ns.Do(f))
}

// until sends again and again until a datagram with that text arrives, and returns its sender.
func (g *ground) until(c net.PacketConn, text string, send func()) net.Addr {
	g.t.Helper()
	deadline := time.Now().Add(patience)
	b := make([]byte, 2048)
	for time.Now().Before(deadline) {
		send()
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		n, from, err := c.ReadFrom(b)
		if err == nil && string(b[:n]) == text {
			return from
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			g.t.Fatal(err)
		}
	}
	g.t.Fatalf("no %q arrived", text)
	return nil
}

func (g *ground) eventually(what string, ok func() bool) {
	g.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatalf("%s: not seen", what)
		}
	}
}

// sealed is the number of packets that gateway a has put into tunnels.
func (g *ground) sealed() uint64 {
	g.t.Helper()
	_, s, err := g.pair.A.Read()
	must(g.t, err)
	return s.Sealed
}

// frame sends a frame by an interface. The load's own packets may be counted as well: callers compare from below.
func (g *ground) frame(ns *testbed.Namespace, name string, frame []byte) {
	g.t.Helper()
	index, err := ns.Index(name)
	must(g.t, err)
	g.in(ns, func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: index})
	})
}

// broadcast4 is a UDP datagram over IPv4 in a broadcast frame.
func broadcast4(src, dst string, from, to uint16, text string) []byte {
	a, b := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	everybody := [6]byte{255, 255, 255, 255, 255, 255}
	return craft.Ethernet(everybody, [6]byte{2, 0, 0, 0, 0, 1}, craft.IP(a, b, craft.UDPv, craft.UDP(a, b, from, to, []byte(text))))
}

// join makes a socket take packets to a group that arrive by an interface.
func join(ns *testbed.Namespace, c net.PacketConn, name, group string) error {
	index, err := ns.Index(name)
	if err != nil {
		return err
	}
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	addr := netip.MustParseAddr(group)
	var option error
	err = raw.Control(func(fd uintptr) {
		if addr.Is4() {
			option = unix.SetsockoptIPMreqn(int(fd), unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: addr.As4(), Ifindex: int32(index)})
		} else {
			option = unix.SetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: addr.As16(), Interface: uint32(index)})
		}
	})
	return errors.Join(err, option)
}
