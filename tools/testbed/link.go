package testbed

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Veth lays a cable between two namespaces: aName in a, zName in z, each with the
// given number of RX and TX queues, MTU 1500, offloads off (see [Namespace.OffloadsOff])
// and up. Both ends are made inside their namespaces.
func (b *Bed) Veth(a *Namespace, aName string, z *Namespace, zName string, queues int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = aName
	attrs.MTU = 1500
	attrs.NumTxQueues, attrs.NumRxQueues = queues, queues
	veth := netlink.NewVeth(attrs)
	veth.PeerName = zName
	veth.PeerNamespace = netlink.NsFd(z.FD())
	veth.PeerNumTxQueues, veth.PeerNumRxQueues = uint32(queues), uint32(queues)
	if err := a.links.LinkAdd(veth); err != nil {
		return fmt.Errorf("veth %s in %s to %s in %s: %w", aName, a.Name, zName, z.Name, err)
	}
	return errors.Join(a.OffloadsOff(aName), z.OffloadsOff(zName), a.Up(aName), z.Up(zName))
}

// Bridge makes a bridge of existing interfaces, without spanning tree and without
// multicast snooping: a plain wire with several ends. It gets no address.
func (n *Namespace) Bridge(name string, ports ...string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	snooping := false
	bridge := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
	if err := n.links.LinkAdd(bridge); err != nil {
		return fmt.Errorf("bridge %s in %s: %w", name, n.Name, err)
	}
	for _, port := range ports {
		if err := n.Enslave(port, name); err != nil {
			return err
		}
	}
	return n.Up(name)
}

// Enslave makes an interface a port of a bridge.
func (n *Namespace) Enslave(port, bridge string) error {
	link, err := n.link(port)
	if err != nil {
		return err
	}
	master, err := n.link(bridge)
	if err != nil {
		return err
	}
	if err := n.links.LinkSetMaster(link, master); err != nil {
		return fmt.Errorf("%s under bridge %s: %w", port, bridge, err)
	}
	return nil
}

// Up brings interfaces up.
func (n *Namespace) Up(names ...string) error {
	for _, name := range names {
		link, err := n.link(name)
		if err != nil {
			return err
		}
		if err := n.links.LinkSetUp(link); err != nil {
			return fmt.Errorf("%s up in %s: %w", name, n.Name, err)
		}
	}
	return nil
}

// Down takes an interface down. The kernel then forgets its IPv6 addresses and the routes by way of it.
func (n *Namespace) Down(name string) error {
	link, err := n.link(name)
	if err != nil {
		return err
	}
	if err := n.links.LinkSetDown(link); err != nil {
		return fmt.Errorf("%s down in %s: %w", name, n.Name, err)
	}
	return nil
}

// Delete removes an interface (and with it the other end of a veth).
func (n *Namespace) Delete(name string) error {
	link, err := n.link(name)
	if err != nil {
		return err
	}
	if err := n.links.LinkDel(link); err != nil {
		return fmt.Errorf("deleting %s in %s: %w", name, n.Name, err)
	}
	return nil
}

// Address adds addresses such as 192.0.2.1/24 or 2001:db8::1/64 to an interface.
// IPv6 addresses are usable at once. One that is there already is no error.
func (n *Namespace) Address(name string, prefixes ...string) error {
	link, err := n.link(name)
	if err != nil {
		return err
	}
	for _, p := range prefixes {
		addr, err := netlink.ParseAddr(p)
		if err != nil {
			return fmt.Errorf("address %q: %w", p, err)
		}
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := n.links.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("%s on %s in %s: %w", p, name, n.Name, err)
		}
	}
	return nil
}

// Route adds a route to a prefix ("default4" and "default6" for everything) by way of a gateway,
// or replaces the one that is there.
func (n *Namespace) Route(prefix, gateway string) error {
	switch prefix {
	case "default4":
		prefix = "0.0.0.0/0"
	case "default6":
		prefix = "::/0"
	}
	dst, err := netip.ParsePrefix(prefix)
	if err != nil {
		return fmt.Errorf("route: %w", err)
	}
	route := &netlink.Route{
		Dst: &net.IPNet{IP: dst.Addr().AsSlice(), Mask: net.CIDRMask(dst.Bits(), dst.Addr().BitLen())},
		Gw:  net.ParseIP(gateway),
	}
	if err := n.links.RouteReplace(route); err != nil {
		return fmt.Errorf("route %s via %s in %s: %w", prefix, gateway, n.Name, err)
	}
	return nil
}

// RouteOut adds a route to a prefix out of an interface without neighbours, such as a TUN device.
func (n *Namespace) RouteOut(prefix, name string) error {
	dst, err := netip.ParsePrefix(prefix)
	if err != nil {
		return fmt.Errorf("route: %w", err)
	}
	index, err := n.Index(name)
	if err != nil {
		return err
	}
	route := &netlink.Route{
		LinkIndex: index, Scope: netlink.SCOPE_LINK,
		Dst: &net.IPNet{IP: dst.Addr().AsSlice(), Mask: net.CIDRMask(dst.Bits(), dst.Addr().BitLen())},
	}
	if err := n.links.RouteReplace(route); err != nil {
		return fmt.Errorf("route %s out of %s in %s: %w", prefix, name, n.Name, err)
	}
	return nil
}

// Sysctl sets a kernel setting by its dotted name, as seen from inside the namespace.
func (n *Namespace) Sysctl(name, value string) error {
	path := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
	err := n.Do(func() error { return os.WriteFile(path, []byte(value), 0) })
	if err != nil {
		return fmt.Errorf("sysctl %s=%s in %s: %w", name, value, n.Name, err)
	}
	return nil
}

// Index returns the number of an interface in its namespace.
func (n *Namespace) Index(name string) (int, error) {
	link, err := n.link(name)
	if err != nil {
		return 0, err
	}
	return link.Attrs().Index, nil
}

// SetMAC changes the link-layer address of an interface. It is for interfaces that have no IPv6
// address yet but their link-local one, which stays.
func (n *Namespace) SetMAC(name string, mac net.HardwareAddr) error {
	link, err := n.link(name)
	if err != nil {
		return err
	}
	if err := n.links.LinkSetHardwareAddr(link, mac); err != nil {
		return fmt.Errorf("address %s for %s in %s: %w", mac, name, n.Name, err)
	}
	return nil
}

// MAC returns the link-layer address of an interface.
func (n *Namespace) MAC(name string) (net.HardwareAddr, error) {
	link, err := n.link(name)
	if err != nil {
		return nil, err
	}
	return link.Attrs().HardwareAddr, nil
}

// Dropped returns the packets that the kernel itself dropped when an interface
// sent: for a veth, those for which the other end had no room.
func (n *Namespace) Dropped(name string) (uint64, error) {
	link, err := n.link(name)
	if err != nil {
		return 0, err
	}
	if s := link.Attrs().Statistics; s != nil {
		return s.TxDropped, nil
	}
	return 0, fmt.Errorf("%s in %s shows no statistics", name, n.Name)
}

func (n *Namespace) link(name string) (netlink.Link, error) {
	link, err := n.links.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s in %s: %w", name, n.Name, err)
	}
	return link, nil
}
