package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"sallyport/tools/testbed"
)

// The addresses of the drawing in main.go.
const (
	hostA4, hostA6 = "198.51.100.10", "2001:db8:a::10"
	hostB4, hostB6 = "198.51.100.138", "2001:db8:b::10"
	lanA4, lanA6   = "198.51.100.0/25", "2001:db8:a::/64"
	lanB4, lanB6   = "198.51.100.128/25", "2001:db8:b::/64"
	gwA4, gwA6     = "192.0.2.1", "2001:db8:ff::1"
	gwB4, gwB6     = "192.0.2.2", "2001:db8:ff::2"
)

// network is the topology and the mark by which its payload is known.
type network struct {
	hostA, gwA, transit, gwB, hostB *testbed.Namespace

	// mark stands in every payload that is long enough for it, so that a capture
	// recognises plaintext. Random, so that nothing else contains it.
	mark []byte
}

func build(bed *testbed.Bed) (*network, error) {
	n := &network{mark: make([]byte, 8)}
	rand.Read(n.mark)
	n.mark = []byte("plain:" + hex.EncodeToString(n.mark))
	for _, x := range []struct {
		name string
		into **testbed.Namespace
	}{{"host-a", &n.hostA}, {"gw-a", &n.gwA}, {"transit", &n.transit}, {"gw-b", &n.gwB}, {"host-b", &n.hostB}} {
		var err error
		if *x.into, err = bed.Namespace(x.name); err != nil {
			return nil, err
		}
	}
	for _, gw := range []*testbed.Namespace{n.gwA, n.gwB} {
		err := errors.Join(
			gw.Sysctl("net.ipv4.ip_forward", "1"),
			gw.Sysctl("net.ipv6.conf.all.forwarding", "1"),
		)
		if err != nil {
			return nil, err
		}
	}
	return n, errors.Join(
		bed.Veth(n.gwA, "lan", n.hostA, "eth0", 2),
		bed.Veth(n.gwB, "lan", n.hostB, "eth0", 2),
		bed.Veth(n.gwA, "wan", n.transit, "port-a", 2),
		bed.Veth(n.gwB, "wan", n.transit, "port-b", 2),
		n.transit.Bridge("br0", "port-a", "port-b"),
		n.hostA.Address("eth0", hostA4+"/25", hostA6+"/64"),
		n.hostB.Address("eth0", hostB4+"/25", hostB6+"/64"),
		n.gwA.Address("lan", "198.51.100.1/25", "2001:db8:a::1/64"),
		n.gwB.Address("lan", "198.51.100.129/25", "2001:db8:b::1/64"),
		n.gwA.Address("wan", gwA4+"/24", gwA6+"/64"),
		n.gwB.Address("wan", gwB4+"/24", gwB6+"/64"),
		n.hostA.Route("default4", "198.51.100.1"), n.hostA.Route("default6", "2001:db8:a::1"),
		n.hostB.Route("default4", "198.51.100.129"), n.hostB.Route("default6", "2001:db8:b::1"),
		n.gwA.Route("default4", gwB4), n.gwA.Route("default6", gwB6),
		n.gwB.Route("default4", gwA4), n.gwB.Route("default6", gwA6),
	)
}

// watch is what must not be seen in the transit network.
func (n *network) watch() testbed.Watch {
	w := testbed.Watch{Needles: [][]byte{n.mark}}
	for _, p := range []string{lanA4, lanA6, lanB4, lanB6} {
		w.Inner = append(w.Inner, netip.MustParsePrefix(p))
	}
	for _, a := range []string{hostA4, hostA6, hostB4, hostB6} {
		w.Pairs = append(w.Pairs, netip.MustParseAddr(a))
	}
	return w
}

// probe sends cleartext across the transit network, before there is any gateway,
// and fails unless the far host and the capture both got it.
func probe(n *network, capture *testbed.Capture) error {
	for _, to := range []struct{ network, addr string }{{"udp4", hostB4 + ":7"}, {"udp6", "[" + hostB6 + "]:7"}} {
		before, err := capture.Figures()
		if err != nil {
			return err
		}
		far, err := listenPacket(n.hostB, to.network, to.addr)
		if err != nil {
			return err
		}
		defer far.Close()
		near, err := dial(n.hostA, to.network, to.addr, nil)
		if err != nil {
			return err
		}
		defer near.Close()
		if _, err := near.Write(n.mark); err != nil {
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

// shout sends some datagrams over both families and both ways without caring for answers.
func (n *network) shout() error {
	for _, x := range []struct {
		from          *testbed.Namespace
		network, addr string
	}{
		{n.hostA, "udp4", hostB4 + ":7"}, {n.hostA, "udp6", "[" + hostB6 + "]:7"},
		{n.hostB, "udp4", hostA4 + ":7"}, {n.hostB, "udp6", "[" + hostA6 + "]:7"},
	} {
		c, err := dial(x.from, x.network, x.addr, nil)
		if err != nil {
			return err
		}
		for range 20 {
			c.Write(n.mark) // refusals by ICMP are as good as silence
			time.Sleep(time.Millisecond)
		}
		c.Close()
	}
	return nil
}

// dial opens a socket inside a namespace.
func dial(ns *testbed.Namespace, network, addr string, control controlFunc) (net.Conn, error) {
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

// listenPacket opens a datagram or raw socket inside a namespace.
func listenPacket(ns *testbed.Namespace, network, addr string) (net.PacketConn, error) {
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
