package fib

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// kernelState is one listing of everything that a table is made of.
type kernelState struct {
	links     map[int]link
	routes    []netlink.Route // tables local, main and default, in the kernel's order
	own       []netip.Addr    // sorted, without duplicates
	neighbour map[neighbourKey]neighbour
}

// link is what matters of an interface.
type link struct {
	name  string
	index int
	mtu   int
	mac   [6]byte
	ether bool // has a link address of six bytes
	up    bool // administratively
}

type neighbourKey struct {
	ifindex int
	addr    netip.Addr
}

// neighbour is an entry of the kernel's neighbour table. State is a set of NUD bits; 0 means
// there is no entry.
type neighbour struct {
	state int
	mac   [6]byte
	ether bool
}

// nudValid are the states in which the link address may be used (kernel: include/net/neighbour.h, NUD_VALID).
const nudValid = unix.NUD_PERMANENT | unix.NUD_NOARP | unix.NUD_REACHABLE | unix.NUD_PROBE | unix.NUD_STALE | unix.NUD_DELAY

// dumpTries bounds how often an interrupted listing is begun again.
const dumpTries = 4

// list reads a whole listing. A listing during which the kernel's state changed is repeated; the
// last try's answer is returned with ErrDumpInterrupted.
func list(h *netlink.Handle) (*kernelState, error) {
	var s *kernelState
	var err error
	for range dumpTries {
		s, err = listOnce(h)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return s, err
}

func listOnce(h *netlink.Handle) (*kernelState, error) {
	s := &kernelState{links: map[int]link{}, neighbour: map[neighbourKey]neighbour{}}
	var interrupted error
	check := func(what string, err error) error {
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			interrupted = err
			return nil
		}
		if err != nil {
			return fmt.Errorf("listing %s: %w", what, err)
		}
		return nil
	}
	links, err := h.LinkList()
	if err = check("links", err); err != nil {
		return nil, err
	}
	for _, l := range links {
		a := l.Attrs()
		n := link{name: a.Name, index: a.Index, mtu: a.MTU, up: a.Flags&net.FlagUp != 0}
		n.ether = len(a.HardwareAddr) == 6 && a.Flags&net.FlagLoopback == 0
		copy(n.mac[:], a.HardwareAddr)
		s.links[a.Index] = n
	}
	addrs, err := h.AddrList(nil, netlink.FAMILY_ALL)
	if err = check("addresses", err); err != nil {
		return nil, err
	}
	s.own = ownAddresses(addrs)
	filter := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
	err = h.RouteListFilteredIter(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
		if r.Family == unix.AF_INET || r.Family == unix.AF_INET6 {
			switch r.Table {
			case unix.RT_TABLE_LOCAL, unix.RT_TABLE_MAIN, unix.RT_TABLE_DEFAULT:
				s.routes = append(s.routes, r)
			}
		}
		return true
	})
	if err = check("routes", err); err != nil {
		return nil, err
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := h.NeighList(0, family)
		if err = check("neighbours", err); err != nil {
			return nil, err
		}
		for i := range list {
			if k, n, ok := neighbourOf(&list[i]); ok {
				s.neighbour[k] = n
			}
		}
	}
	return s, interrupted
}

// ownAddresses returns the addresses, sorted and each once.
func ownAddresses(list []netlink.Addr) []netip.Addr {
	var own []netip.Addr
	for _, a := range list {
		if a.IPNet == nil {
			continue
		}
		if ip, ok := addrOf(a.IP); ok {
			own = append(own, ip)
		}
	}
	return sortedUnique(own)
}

// neighbourOf converts a neighbour entry; ok is false for those of no interest (bridge entries, proxies).
func neighbourOf(n *netlink.Neigh) (neighbourKey, neighbour, bool) {
	addr, ok := addrOf(n.IP)
	if !ok || (n.Family != unix.AF_INET && n.Family != unix.AF_INET6) || n.Flags&unix.NTF_PROXY != 0 {
		return neighbourKey{}, neighbour{}, false
	}
	e := neighbour{state: n.State, ether: len(n.HardwareAddr) == 6}
	copy(e.mac[:], n.HardwareAddr)
	return neighbourKey{n.LinkIndex, addr}, e, true
}

func addrOf(ip net.IP) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip)
	return a.Unmap(), ok
}

// prefixOf returns the destination of a route.
func prefixOf(r *netlink.Route) (netip.Prefix, bool) {
	if r.Dst == nil {
		if r.Family == unix.AF_INET {
			return netip.PrefixFrom(netip.IPv4Unspecified(), 0), true
		}
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0), true
	}
	a, ok := addrOf(r.Dst.IP)
	bits, size := r.Dst.Mask.Size()
	if !ok || size != a.BitLen() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, bits).Masked(), true
}
