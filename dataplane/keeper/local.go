package keeper

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"sallyport/bpf"
	"sallyport/dataplane/datagram"
)

// Local performs the operations in this process. Its netlink socket belongs to the network
// namespace of the thread that called NewLocal; sockets and devices to that of the caller. It may
// be used by several goroutines.
type Local struct {
	handle *netlink.Handle
}

var _ Keeper = (*Local)(nil)

// NewLocal opens the netlink socket.
func NewLocal() (*Local, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	return &Local{handle: h}, nil
}

// Close closes the netlink socket. Routes stay.
func (l *Local) Close() { l.handle.Close() }

// SocketXDP opens an AF_XDP socket.
func (l *Local) SocketXDP() (int, error) {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("opening an AF_XDP socket: %w", err)
	}
	return fd, nil
}

// SocketUDP implements [Keeper].
func (l *Local) SocketUDP(family int, port uint16) (int, error) { return datagram.Open(family, port) }

// kernelRoute translates r.
func (l *Local) kernelRoute(r Route) (*netlink.Route, error) {
	k := &netlink.Route{
		Dst: ipNet(r.Prefix.Masked()), Protocol: Protocol, Priority: int(r.Metric), Table: lengthTable + r.Prefix.Bits(),
		Type: unix.RTN_UNREACHABLE, Family: family(r.Prefix.Addr()),
	}
	if r.Interface == "" {
		return k, nil
	}
	link, err := l.handle.LinkByName(r.Interface)
	if err != nil {
		return nil, fmt.Errorf("route %v: interface %s: %w", r.Prefix, r.Interface, err)
	}
	k.Type, k.LinkIndex, k.Scope = unix.RTN_UNICAST, link.Attrs().Index, netlink.SCOPE_LINK
	if r.Prefix.Addr().Is6() {
		k.Scope = netlink.SCOPE_UNIVERSE
	}
	if r.Source.IsValid() {
		k.Src = r.Source.AsSlice()
	}
	return k, nil
}

// addRoute adds r, or makes our route for the same prefix and metric equal to it.
func (l *Local) addRoute(r Route) error {
	k, err := l.kernelRoute(r)
	if err != nil {
		return err
	}
	err = l.handle.RouteAdd(k)
	if !errors.Is(err, unix.EEXIST) {
		return routeError("adding", r, err)
	}
	// There is a route with this prefix and metric; RTM_NEWROUTE with NLM_F_REPLACE would
	// replace anybody's, so look whose it is.
	own, err := l.Routes()
	if err != nil {
		return err
	}
	for _, o := range own {
		if sameKey(o, r) {
			if equalRoutes(o, r) {
				return nil
			}
			return routeError("replacing", r, l.handle.RouteReplace(k))
		}
	}
	return routeError("adding", r, errors.New("somebody else has a route with this prefix and metric"))
}

// deleteRoute deletes our route with r's prefix and metric.
func (l *Local) deleteRoute(r Route) error {
	k := &netlink.Route{
		Dst: ipNet(r.Prefix.Masked()), Protocol: Protocol, Priority: int(r.Metric), Table: lengthTable + r.Prefix.Bits(),
		Scope: netlink.SCOPE_NOWHERE, Family: family(r.Prefix.Addr()),
	}
	err := l.handle.RouteDel(k)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return routeError("deleting", r, err)
}

// Routes implements [Keeper].
func (l *Local) Routes() ([]Route, error) {
	links, err := l.handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing links: %w", err)
	}
	names := map[int]string{}
	for _, n := range links {
		names[n.Attrs().Index] = n.Attrs().Name
	}
	filter := &netlink.Route{Table: unix.RT_TABLE_UNSPEC, Protocol: Protocol}
	var list []netlink.Route
	for range 8 {
		list, err = l.handle.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	var out []Route
	for i := range list {
		k := &list[i]
		r := Route{Prefix: prefix(k), Metric: uint32(k.Priority)}
		if k.Protocol != Protocol || k.Table != lengthTable+r.Prefix.Bits() {
			continue
		}
		if k.Type == unix.RTN_UNICAST {
			r.Interface = names[k.LinkIndex]
		}
		if a, ok := netip.AddrFromSlice(k.Src); ok {
			r.Source = a.Unmap()
		}
		out = append(out, r)
	}
	return out, nil
}

// ReconcileRoutes implements [Keeper].
func (l *Local) ReconcileRoutes(want []Route) error {
	have, err := l.Routes()
	if err != nil {
		return err
	}
	// There is a fence for each remote prefix: thousands where there are thousands of tunnels.
	type key struct {
		prefix netip.Prefix
		metric uint32
	}
	keyOf := func(r Route) key { return key{r.Prefix.Masked(), r.Metric} }
	present, wanted := make(map[key][]Route, len(have)), make(map[key]bool, len(want))
	for _, h := range have {
		present[keyOf(h)] = append(present[keyOf(h)], h)
	}
	var failed []error
	for _, r := range want {
		wanted[keyOf(r)] = true
		if !slices.ContainsFunc(present[keyOf(r)], func(h Route) bool { return equalRoutes(h, r) }) {
			failed = append(failed, l.addRoute(r))
		}
	}
	failed = append(failed, l.reconcileLengths(want))
	for _, h := range have {
		if !wanted[keyOf(h)] {
			failed = append(failed, l.deleteRoute(h))
		}
	}
	return errors.Join(failed...)
}

func sameKey(a, b Route) bool {
	return a.Prefix.Masked() == b.Prefix.Masked() && a.Metric == b.Metric
}

func equalRoutes(a, b Route) bool {
	return sameKey(a, b) && a.Interface == b.Interface && a.Source == b.Source
}

func routeError(doing string, r Route, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s route %v metric %d: %w", doing, r.Prefix, r.Metric, err)
}

// AddAddress implements [Keeper].
func (l *Local) AddAddress(ifname string, p netip.Prefix) error {
	return l.address("adding", ifname, p, unix.EEXIST, l.handle.AddrAdd)
}

// DeleteAddress implements [Keeper].
func (l *Local) DeleteAddress(ifname string, p netip.Prefix) error {
	return l.address("deleting", ifname, p, unix.EADDRNOTAVAIL, l.handle.AddrDel)
}

func (l *Local) address(doing, ifname string, p netip.Prefix, fine error, do func(netlink.Link, *netlink.Addr) error) error {
	link, err := l.handle.LinkByName(ifname)
	if err == nil {
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD // the address is usable at once
		}
		err = do(link, a)
	}
	if err == nil || errors.Is(err, fine) {
		return nil
	}
	return fmt.Errorf("%s address %v on %s: %w", doing, p, ifname, err)
}

// ResolveNeighbour implements [Keeper]. NTF_USE behaves as if the kernel had a packet to send: a
// missing entry is created and asked for, a stale one goes to DELAY and is probed (kernel:
// net/core/neighbour.c, neigh_add and __neigh_event_send). It also takes NUD_PERMANENT away (__neigh_update), so
// an entry that somebody has set for good is left alone.
func (l *Local) ResolveNeighbour(ifindex int, addr netip.Addr) error {
	if permanent(ifindex, addr) {
		return nil
	}
	err := l.handle.NeighSet(&netlink.Neigh{
		LinkIndex: ifindex, Family: family(addr), State: netlink.NUD_NONE, Flags: netlink.NTF_USE, IP: addr.AsSlice(),
	})
	if err != nil {
		return fmt.Errorf("resolving %v on interface %d: %w", addr, ifindex, err)
	}
	return nil
}

// permanent reports whether the kernel has a permanent entry for a neighbour.
func permanent(ifindex int, addr netip.Addr) bool {
	req := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, 0)
	req.AddData(&netlink.Ndmsg{Family: uint8(family(addr)), Index: uint32(ifindex)})
	req.AddData(nl.NewRtAttr(netlink.NDA_DST, addr.AsSlice()))
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
	if err != nil || len(messages) != 1 {
		return false // ENOENT: there is no entry
	}
	n, err := netlink.NeighDeserialize(messages[0])
	return err == nil && n.State&netlink.NUD_PERMANENT != 0
}

// OpenTUN implements [Keeper]. The kernel's reverse-path filter must not judge what arrives
// through the device, as decrypted packets come from everywhere: it is off for the device, or
// loose where the host asks for one on all (the stricter of both counts). The device gets no IPv6
// link-local address and no multicast, so that the kernel has nothing to say on it by itself.
func (l *Local) OpenTUN(name string, mtu int) (*TUN, error) {
	return openTUN("TUN device", name, func(fd int) (*TUN, error) { return l.setUpTUN(fd, name, mtu) })
}

// openTUN opens the kernel's TUN driver and has setUp make a device of it.
func openTUN(what, name string, setUp func(fd int) (*TUN, error)) (*TUN, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening /dev/net/tun: %w", err)
	}
	t, err := setUp(fd)
	if err != nil {
		_ = unix.Close(fd) // a device that was made goes with it
		return nil, fmt.Errorf("%s %s: %w", what, name, err)
	}
	t.File = os.NewFile(uintptr(fd), "/dev/net/tun")
	return t, nil
}

func (l *Local) setUpTUN(fd int, name string, mtu int) (*TUN, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	link, err := l.attachTUN(fd, req)
	if err != nil {
		return nil, err
	}
	name = req.Name()
	if err := l.handle.LinkSetMulticastOff(link); err != nil {
		return nil, fmt.Errorf("switching multicast off: %w", err)
	}
	// A new device of a machine that forwards IPv6 is in the group of all routers already, and the
	// kernel would report that. An MTU too small for IPv6 (RFC 8200, 5) makes it forget its
	// memberships; it makes new ones, without that group, when the MTU has grown (kernel:
	// net/ipv6/addrconf.c, addrconf_notify and ipv6_add_dev).
	for _, m := range []int{1279, mtu} {
		if err := l.handle.LinkSetMTU(link, m); err != nil {
			return nil, fmt.Errorf("setting MTU %d: %w", m, err)
		}
	}
	filter := "0"
	if all, err := os.ReadFile("/proc/sys/net/ipv4/conf/all/rp_filter"); err == nil {
		if n, _ := strconv.Atoi(strings.TrimSpace(string(all))); n != 0 {
			filter = "2"
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/rp_filter", []byte(filter), 0o644); err != nil {
		return nil, fmt.Errorf("setting rp_filter: %w", err)
	}
	err = os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/addr_gen_mode", []byte("1"), 0o644)
	if err != nil && !errors.Is(err, os.ErrNotExist) { // there is no such file without IPv6
		return nil, fmt.Errorf("setting addr_gen_mode: %w", err)
	}
	if err := l.handle.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("bringing up: %w", err)
	}
	return &TUN{Name: name, Ifindex: link.Attrs().Index}, nil
}

// attachTUN makes fd that of the TUN device of req, which is made if there is none, and returns the device.
func (l *Local) attachTUN(fd int, req *unix.Ifreq) (netlink.Link, error) {
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return nil, fmt.Errorf("creating: %w", err)
	}
	return l.handle.LinkByName(req.Name())
}

// RaiseMemlock implements [Keeper]. Without CAP_SYS_RESOURCE the soft limit goes up to the hard
// one, which is enough for a process with CAP_IPC_LOCK: it is not held to either (kernel:
// net/xdp/xdp_umem.c, xdp_umem_account_pages).
func (l *Local) RaiseMemlock() error {
	limit := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit)
	if errors.Is(err, unix.EPERM) {
		var now unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &now); err != nil {
			return fmt.Errorf("reading the limit on locked memory: %w", err)
		}
		now.Cur = now.Max
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &now); err != nil {
			return fmt.Errorf("raising the soft limit on locked memory to %d bytes: %w", now.Max, err)
		}
		if mayLockMemory() {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("lifting the limit on locked memory: %w", err)
	}
	return nil
}

// mayLockMemory reports whether the thread has CAP_IPC_LOCK.
func mayLockMemory() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0
}

// ReadFile implements [Keeper].
func (l *Local) ReadFile(path string) ([]byte, error) { return os.ReadFile(path) }

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefix(k *netlink.Route) netip.Prefix {
	if k.Dst == nil {
		if k.Family == unix.AF_INET {
			return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		}
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	a, _ := netip.AddrFromSlice(k.Dst.IP)
	bits, _ := k.Dst.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}

// LoadSteering loads the steering program and makes its maps.
func (l *Local) LoadSteering() (*bpf.Steering, error) { return bpf.Load() }

// AttachXDP attaches the steering program to an interface; the link is pinned in pinDir, which is
// made, with a bpffs under it, if it is missing.
func (l *Local) AttachXDP(s *bpf.Steering, ifname string, ifindex int, mode bpf.Mode, pinDir string) (*bpf.Link, error) {
	if err := bpf.EnsureBPFFS(pinDir); err != nil {
		return nil, err
	}
	return s.Attach(ifname, ifindex, mode, pinDir)
}
