package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// The addresses of a gateway that stands behind a NAT, and of the NAT in front of it.
const (
	outerBehind4 = "203.0.113.2"
	insideNAT4   = "203.0.113.1"
)

// Topologies of the transit network.
const (
	direct         = "direct"
	routed         = "routed"         // a router stands in front of the gateway
	natSallyport   = "nat-sallyport"  // the gateway stands behind a NAT
	natStrongSwan  = "nat-strongswan" // the peer does
	masqueradeLow  = ":20000-29999"   // UDP ports of the NAT at first ...
	masqueradeHigh = ":40000-49999"   // ... and after it has forgotten everything
)

// network is two gateways with a host behind each, and what lies between them.
type network struct {
	hostA, gwA, nat, transit, gwB, hostB *testbed.Namespace

	mark    []byte           // in every payload, so that a capture knows plaintext
	capture *testbed.Capture // what gateway a sends into the transit network
}

// gateways returns the namespace of the gateway by name, and that of its peer.
func (n *network) gateways(name string) (own, peer *testbed.Namespace) {
	if name == sallyport {
		return n.gwA, n.gwB
	}
	return n.gwB, n.gwA
}

// side is what the two halves of the network differ in.
type side struct {
	gateway, host *testbed.Namespace
	port          string   // in the transit namespace
	host4, host6  string   // the host's addresses
	router        []string // the gateway's, as the host sees them
	outer         []string // the gateway's outer addresses
	peer          []string // next hops of the gateway
	outer4        string   // what the transit network sees of it, with a NAT or without
}

// lay makes the namespaces and cables of a topology.
func lay(bed *testbed.Bed, topology string, mark []byte) (*network, error) {
	n := &network{mark: mark}
	for _, x := range []struct {
		name string
		into **testbed.Namespace
	}{{"host-a", &n.hostA}, {"gw-a", &n.gwA}, {"transit", &n.transit}, {"gw-b", &n.gwB}, {"host-b", &n.hostB}} {
		var err error
		if *x.into, err = bed.Namespace(x.name); err != nil {
			return nil, err
		}
	}
	a := side{n.gwA, n.hostA, "port-a", rig.HostA4, rig.HostA6, []string{rig.RouterA4, rig.RouterA6},
		[]string{rig.GwA4, rig.GwA6}, []string{rig.GwB4, rig.GwB6}, rig.GwA4}
	b := side{n.gwB, n.hostB, "port-b", rig.HostB4, rig.HostB6, []string{rig.RouterB4, rig.RouterB6},
		[]string{rig.GwB4, rig.GwB6}, []string{rig.GwA4, rig.GwA6}, rig.GwB4}
	err := errors.Join(n.half(bed, a, topology == natSallyport || topology == routed), n.half(bed, b, topology == natStrongSwan))
	if err == nil && topology == routed {
		err = n.gwB.Route("203.0.113.0/24", a.outer4)
	}
	if err == nil && (topology == natSallyport || topology == natStrongSwan) {
		err = n.masquerade(masqueradeLow)
	}
	if err != nil {
		return nil, err
	}
	if err := n.transit.Bridge(bridge, a.port, b.port); err != nil {
		return nil, err
	}
	watch := testbed.Watch{Needles: [][]byte{mark}}
	for _, p := range []string{rig.HostA4 + "/32", rig.HostA6 + "/128"} {
		watch.Inner = append(watch.Inner, netip.MustParsePrefix(p))
	}
	n.capture, err = n.transit.Capture(watch, a.port)
	return n, err
}

// half lays one gateway with its host, up to the transit namespace.
func (n *network) half(bed *testbed.Bed, s side, behindNAT bool) error {
	err := errors.Join(
		forwards(s.gateway),
		bed.Veth(s.gateway, "lan", s.host, "eth0", 2),
		s.host.Address("eth0", s.host4+"/25", s.host6+"/64"),
		s.gateway.Address("lan", s.router[0]+"/25", s.router[1]+"/64"),
		s.host.Route("default4", s.router[0]), s.host.Route("default6", s.router[1]),
	)
	if err != nil {
		return err
	}
	if !behindNAT {
		return errors.Join(
			bed.Veth(s.gateway, "wan", n.transit, s.port, 2),
			s.gateway.Address("wan", s.outer[0]+"/24", s.outer[1]+"/64"),
			s.gateway.Route("default4", s.peer[0]), s.gateway.Route("default6", s.peer[1]),
		)
	}
	if n.nat, err = bed.Namespace("nat"); err != nil {
		return err
	}
	return errors.Join(
		forwards(n.nat),
		bed.Veth(s.gateway, "wan", n.nat, "inside", 2),
		bed.Veth(n.nat, "outside", n.transit, s.port, 2),
		n.nat.Address("inside", insideNAT4+"/24"),
		n.nat.Address("outside", s.outer4+"/24"),
		s.gateway.Address("wan", outerBehind4+"/24"),
		s.gateway.Route("default4", insideNAT4),
	)
}

// forwards makes a namespace a router, one that keeps an address when the one before it goes.
func forwards(ns *testbed.Namespace) error {
	return errors.Join(
		ns.Sysctl("net.ipv4.ip_forward", "1"),
		ns.Sysctl("net.ipv6.conf.all.forwarding", "1"),
		ns.Sysctl("net.ipv4.conf.all.promote_secondaries", "1"),
		ns.Sysctl("net.ipv4.conf.all.rp_filter", "0"),
		ns.Sysctl("net.ipv4.conf.default.rp_filter", "0"),
	)
}

// masquerade makes the NAT rewrite sources, UDP ports included.
func (n *network) masquerade(ports string) error {
	return n.rules(`table ip translate
delete table ip translate
table ip translate {
	chain out {
		type nat hook postrouting priority srcnat
		oifname "outside" meta l4proto udp masquerade to ` + ports + `
		oifname "outside" masquerade
	}
}
`)
}

// lose makes the router throw so many of a hundred datagrams away.
func (n *network) lose(percent int) error {
	return n.rules(fmt.Sprintf(`table ip lose
delete table ip lose
table ip lose {
	chain on {
		type filter hook forward priority 0
		meta l4proto udp numgen random mod 100 < %d drop
	}
}
`, percent))
}

// narrow gives the router's outer link an MTU. What is too large from outside the link itself throws away; of the router's own errors none leaves.
func (n *network) narrow(mtu int) error {
	if err := n.rules(`table ip narrow
delete table ip narrow
table ip narrow {
	chain own {
		type filter hook output priority 0
		meta l4proto icmp drop
	}
}
`); err != nil {
		return err
	}
	link, err := n.nat.Netlink().LinkByName("outside")
	if err == nil {
		err = n.nat.Netlink().LinkSetMTU(link, mtu)
	}
	if err != nil {
		return fmt.Errorf("MTU of the router's link: %w", err)
	}
	return nil
}

// cut makes the router throw away what comes from or goes to an address outside, or nothing any more if it is empty.
func (n *network) cut(address string) error {
	rule := ""
	if address != "" {
		rule = "ip saddr " + address + " drop\n\t\tip daddr " + address + " drop"
	}
	return n.rules(`table ip cut
delete table ip cut
table ip cut {
	chain on {
		type filter hook forward priority 0
		` + rule + `
	}
}
`)
}

// forget makes the NAT drop a UDP mapping after so many seconds of silence.
func (n *network) forget(seconds int) error {
	if n.nat == nil {
		return errors.New("no NAT stands between the gateways in this topology")
	}
	text := strconv.Itoa(seconds)
	return errors.Join(n.nat.Sysctl("net.netfilter.nf_conntrack_udp_timeout", text), n.nat.Sysctl("net.netfilter.nf_conntrack_udp_timeout_stream", text))
}

// addressLists is where revocation lists are to be had, in the transit network.
const addressLists = "192.0.2.254"

// publish serves them there.
func (n *network) publish(bed *testbed.Bed, lists http.Handler) error {
	if err := n.transit.Address(bridge, addressLists+"/24"); err != nil {
		return err
	}
	return n.transit.Do(func() error {
		l, err := net.Listen("tcp", addressLists+":80")
		if err != nil {
			return err
		}
		server := &http.Server{Handler: lists, ReadTimeout: 5 * time.Second}
		go server.Serve(l)
		bed.Defer(server.Close)
		return nil
	})
}

// rules has nftables read rules in the NAT's namespace.
func (n *network) rules(text string) error {
	if n.nat == nil {
		return errors.New("nothing stands between the gateways in this topology")
	}
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	p, err := n.nat.Start(cmd)
	if err == nil {
		err = p.Wait()
	}
	if err != nil {
		return fmt.Errorf("nftables in %s: %w: %s", n.nat.Name, err, complaint.String())
	}
	return nil
}

// rebind makes the NAT forget its mappings and use other ports from now on, as one does
// that was switched off and on again.
func (n *network) rebind() error {
	if err := n.masquerade(masqueradeHigh); err != nil {
		return err
	}
	return n.nat.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
}

// move gives a gateway another outer address and takes the old one, if one is named, away: new one first.
func move(ns *testbed.Namespace, from, to string) error {
	if err := ns.Address("wan", to+prefixLength(to)); err != nil || from == "" {
		return err
	}
	link, err := ns.Netlink().LinkByName("wan")
	if err != nil {
		return err
	}
	old, err := netlink.ParseAddr(from + prefixLength(from))
	if err != nil {
		return err
	}
	if err := ns.Netlink().AddrDel(link, old); err != nil {
		return fmt.Errorf("taking %s from %s: %w", from, ns.Name, err)
	}
	return nil
}

func prefixLength(addr string) string {
	if strings.Contains(addr, ":") {
		return "/64"
	}
	return "/24"
}

// silence takes a gateway's cable off the transit network, or puts it back. The gateway's own end
// keeps its carrier: nothing tells it.
func (n *network) silence(port string, silent bool) error {
	if !silent {
		return n.transit.Enslave(port, bridge)
	}
	link, err := n.transit.Netlink().LinkByName(port)
	if err == nil {
		err = n.transit.Netlink().LinkSetNoMaster(link)
	}
	if err != nil {
		return fmt.Errorf("taking %s off the bridge: %w", port, err)
	}
	return nil
}

// bridge is the transit network.
const bridge = "br0"

// port is the transit namespace's end of a gateway's cable.
func port(sallyport bool) string {
	if sallyport {
		return "port-a"
	}
	return "port-b"
}
