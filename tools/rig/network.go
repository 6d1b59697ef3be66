// Package rig lays the network on which the gateway is shown and attacked as a whole:
//
//	host-a ───── gw-a ───── transit ───── gw-b ───── host-b
//	198.51.100.10   192.0.2.1   bridge   192.0.2.2   198.51.100.138
//	2001:db8:a::10  2001:db8:ff::1   2001:db8:ff::2  2001:db8:b::10
//
// Five network namespaces, two queues on every interface of the gateways, which are
// called lan and wan. Their kernels forward (ip_forward=1, default routes to each other): whatever the
// gateways do not keep, crosses in the clear, and the capture in the transit
// namespace sees it.
//
// On it run two real sallyportd ([Pair]) from YAML files with fresh random keys, asked
// through the real sallyport. The rig knows the programs only from outside, as a user does.
package rig

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"sallyport/tools/testbed"
)

// The addresses of the drawing, and the networks of the hosts. Of these the gateways
// have the first address ([RouterA4] and so on).
const (
	HostA4, HostA6 = "198.51.100.10", "2001:db8:a::10"
	HostB4, HostB6 = "198.51.100.138", "2001:db8:b::10"
	LANA4, LANA6   = "198.51.100.0/25", "2001:db8:a::/64"
	LANB4, LANB6   = "198.51.100.128/25", "2001:db8:b::/64"
	GwA4, GwA6     = "192.0.2.1", "2001:db8:ff::1"
	GwB4, GwB6     = "192.0.2.2", "2001:db8:ff::2"

	RouterA4, RouterA6 = "198.51.100.1", "2001:db8:a::1"
	RouterB4, RouterB6 = "198.51.100.129", "2001:db8:b::1"
)

// Network is the topology and the mark by which its payload is known.
type Network struct {
	HostA, GwA, Transit, GwB, HostB *testbed.Namespace

	bed *testbed.Bed

	// Mark stands in every payload that is long enough for it, so that a capture
	// recognises plaintext. Random, so that nothing else contains it.
	Mark []byte
}

// Build makes the namespaces and lays the cables. Nothing guards the gateways yet.
func Build(bed *testbed.Bed) (*Network, error) {
	n := &Network{bed: bed, Mark: make([]byte, 8)}
	rand.Read(n.Mark)
	n.Mark = []byte("plain:" + hex.EncodeToString(n.Mark))
	for _, x := range []struct {
		name string
		into **testbed.Namespace
	}{{"host-a", &n.HostA}, {"gw-a", &n.GwA}, {"transit", &n.Transit}, {"gw-b", &n.GwB}, {"host-b", &n.HostB}} {
		var err error
		if *x.into, err = bed.Namespace(x.name); err != nil {
			return nil, err
		}
	}
	for _, gw := range []*testbed.Namespace{n.GwA, n.GwB} {
		err := errors.Join(
			gw.Sysctl("net.ipv4.ip_forward", "1"),
			gw.Sysctl("net.ipv6.conf.all.forwarding", "1"),
		)
		if err != nil {
			return nil, err
		}
	}
	a, b := n.Sides()
	return n, errors.Join(
		n.LayLAN(a), n.LayLAN(b), n.LayWAN(a), n.LayWAN(b),
		n.Transit.Bridge("br0", a.Port, b.Port),
		n.AddressWAN(a), n.AddressWAN(b),
	)
}

// Side is one half of the network.
type Side struct {
	Gateway, Host *testbed.Namespace
	Port          string // the other end of the gateway's wan, in the transit namespace

	host, router, outer []string // addresses with their prefix lengths
	gateway, peer       []string // next hops of the host and of the gateway
	mac                 net.HardwareAddr
}

// Sides returns the halves of gateway a and gateway b.
func (n *Network) Sides() (a, b Side) {
	a = Side{n.GwA, n.HostA, "port-a", []string{HostA4 + "/25", HostA6 + "/64"}, []string{RouterA4 + "/25", RouterA6 + "/64"},
		[]string{GwA4 + "/24", GwA6 + "/64"}, []string{RouterA4, RouterA6}, []string{GwB4, GwB6}, net.HardwareAddr{2, 0, 192, 0, 2, 1}}
	b = Side{n.GwB, n.HostB, "port-b", []string{HostB4 + "/25", HostB6 + "/64"}, []string{RouterB4 + "/25", RouterB6 + "/64"},
		[]string{GwB4 + "/24", GwB6 + "/64"}, []string{RouterB4, RouterB6}, []string{GwA4, GwA6}, net.HardwareAddr{2, 0, 192, 0, 2, 2}}
	return a, b
}

// LayLAN lays the cable between a gateway and its host, with addresses and the host's
// routes. To lay it again, delete lan first.
func (n *Network) LayLAN(s Side) error {
	return errors.Join(n.bed.Veth(s.Gateway, "lan", s.Host, "eth0", 2), n.AddressLAN(s))
}

// AddressLAN gives both ends of the cable what they lose when it goes down.
func (n *Network) AddressLAN(s Side) error {
	return errors.Join(
		s.Host.Address("eth0", s.host...),
		s.Gateway.Address("lan", s.router...),
		s.Host.Route("default4", s.gateway[0]), s.Host.Route("default6", s.gateway[1]),
	)
}

// LayWAN lays the cable between a gateway and the transit namespace, where it ends outside the
// bridge; see [testbed.Namespace.Enslave]. The gateway can send nothing before [Network.AddressWAN], so that a capture
// on the new port misses nothing.
func (n *Network) LayWAN(s Side) error {
	return errors.Join(
		n.bed.Veth(s.Gateway, "wan", n.Transit, s.Port, 2),
		// The same each time, as a card's is: nobody would tell the neighbour about another one.
		s.Gateway.SetMAC("wan", s.mac),
	)
}

// AddressWAN gives a gateway its outer addresses, and its default routes to the other one.
func (n *Network) AddressWAN(s Side) error {
	return errors.Join(
		s.Gateway.Address("wan", s.outer...),
		s.Gateway.Route("default4", s.peer[0]), s.Gateway.Route("default6", s.peer[1]),
	)
}

// Watch is what must not be seen in the transit network.
func (n *Network) Watch() testbed.Watch {
	w := testbed.Watch{Needles: [][]byte{n.Mark}}
	for _, p := range []string{LANA4, LANA6, LANB4, LANB6} {
		w.Inner = append(w.Inner, netip.MustParsePrefix(p))
	}
	for _, a := range []string{HostA4, HostA6, HostB4, HostB6} {
		w.Pairs = append(w.Pairs, netip.MustParseAddr(a))
	}
	return w
}

// Probe sends cleartext across the transit network, before there is any gateway,
// and fails unless the far host and the capture both got it.
func (n *Network) Probe(capture *testbed.Capture) error {
	for _, to := range []struct{ network, addr string }{{"udp4", HostB4 + ":7"}, {"udp6", "[" + HostB6 + "]:7"}} {
		before, err := capture.Figures()
		if err != nil {
			return err
		}
		far, err := ListenPacket(n.HostB, to.network, to.addr)
		if err != nil {
			return err
		}
		defer far.Close()
		near, err := Dial(n.HostA, to.network, to.addr, nil)
		if err != nil {
			return err
		}
		defer near.Close()
		if _, err := near.Write(n.Mark); err != nil {
			return fmt.Errorf("cleartext probe: %w", err)
		}
		far.SetReadDeadline(time.Now().Add(3 * time.Second))
		if _, _, err := far.ReadFrom(make([]byte, 100)); err != nil {
			return fmt.Errorf("the cleartext probe did not arrive: %w", err)
		}
		time.Sleep(20 * time.Millisecond)
		after, err := capture.Figures()
		if err != nil {
			return err
		}
		if seen := after.Sub(before); seen.Needles != 1 || seen.Inner < 1 {
			return fmt.Errorf("the capture saw %d frames with the plaintext of a deliberate cleartext packet and %d with its addresses, so it would prove nothing", seen.Needles, seen.Inner)
		}
	}
	return nil
}

// Shout sends some datagrams over both families and both ways without caring for answers.
func (n *Network) Shout() error {
	for _, x := range []struct {
		from          *testbed.Namespace
		network, addr string
	}{
		{n.HostA, "udp4", HostB4 + ":7"}, {n.HostA, "udp6", "[" + HostB6 + "]:7"},
		{n.HostB, "udp4", HostA4 + ":7"}, {n.HostB, "udp6", "[" + HostA6 + "]:7"},
	} {
		c, err := Dial(x.from, x.network, x.addr, nil)
		if err != nil {
			return err
		}
		for range 20 {
			c.Write(n.Mark) // refusals by ICMP are as good as silence
			time.Sleep(time.Millisecond)
		}
		c.Close()
	}
	return nil
}

// Dial opens a socket inside a namespace.
func Dial(ns *testbed.Namespace, network, addr string, control func(network, address string, c syscall.RawConn) error) (net.Conn, error) {
	var c net.Conn
	err := ns.Do(func() error {
		var err error
		c, err = (&net.Dialer{Timeout: 10 * time.Second, Control: control}).Dial(network, addr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("from %s: %w", ns.Name, err)
	}
	return c, nil
}

// ListenPacket opens a datagram or raw socket inside a namespace.
func ListenPacket(ns *testbed.Namespace, network, addr string) (net.PacketConn, error) {
	var c net.PacketConn
	err := ns.Do(func() error {
		var err error
		c, err = net.ListenPacket(network, addr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("in %s: %w", ns.Name, err)
	}
	return c, nil
}
