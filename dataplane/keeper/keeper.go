// Package keeper is the seam between the engine and its privileges: every operation that needs a
// capability or root's files goes through [Keeper]. [Local] performs them in this process. The
// verbs take and return plain data and descriptors, so that a process of its own can serve them
// over a socket pair; nothing in here parses anything from the network.
package keeper

import (
	"errors"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"sallyport/bpf"
)

// Protocol is the routing protocol number (rtm_protocol) of every route that a keeper adds. It
// is how the gateway knows its own routes again after a restart. Values above 4 are free for
// routing daemons (kernel: include/uapi/linux/rtnetlink.h); 83 is in none of iproute2's tables.
const Protocol = 83

// Metrics of the gateway's own routes: lower wins, among routes for the same prefix.
//
// While the gateway runs, its own traffic for a remote protected prefix goes into the TUN device;
// when process and device are gone, the kernel takes their route away and the fence is next.
// Both stand in tables of their own, one for each length of a prefix, which rules ask before the main
// table (see ReconcileRoutes): so a route of somebody else for the same prefix, or a shorter one, cannot
// carry protected traffic in the clear, whatever its metric.
//
// A longer prefix of the main table always wins over a fence. That is wanted where a connected network lies
// within a remote prefix (local 198.51.100.0/25 inside remote 198.51.100.0/24: hosts of our own
// stay reachable), and means that a fence does not hold for a part of the remote prefix that
// somebody routes elsewhere on purpose. There only the XDP program protects.
const (
	MetricTUN   = 1
	MetricFence = 2
)

// Route is a route of the gateway's own, in the table for its prefix's length.
type Route struct {
	Prefix netip.Prefix
	// Interface is where the route leads to; empty for a fence (an unreachable route).
	Interface string
	// Source is the preferred source address of the gateway's own packets; may be invalid.
	Source netip.Addr
	Metric uint32
}

// Fence returns the unreachable route for a remote protected prefix.
func Fence(p netip.Prefix) Route { return Route{Prefix: p.Masked(), Metric: MetricFence} }

// Through returns the route that leads the gateway's own traffic for a remote protected prefix
// into the TUN device, with source (an address of the gateway inside the local selector) if valid.
func Through(p netip.Prefix, tun string, source netip.Addr) Route {
	return Route{Prefix: p.Masked(), Interface: tun, Source: source, Metric: MetricTUN}
}

// TUN is an open TUN device without packet information: each read and write is one IP datagram.
type TUN struct {
	// File is non-blocking, so Close and deadlines interrupt reads. The device lives as long as File.
	File    *os.File
	Name    string
	Ifindex int
}

// Deleted says whether somebody has deleted the device under its file, which then serves nothing any more (kernel: drivers/net/tun.c,
// __tun_chr_ioctl).
func (t *TUN) Deleted() bool {
	raw, err := t.File.SyscallConn()
	if err != nil {
		return false
	}
	deleted := false
	err = raw.Control(func(fd uintptr) {
		req, _ := unix.NewIfreq("")
		deleted = errors.Is(unix.IoctlIfreq(int(fd), unix.TUNGETIFF, req), unix.EBADFD)
	})
	return err == nil && deleted
}

// Keeper performs the privileged operations. Every verb is idempotent where the word allows it:
// adding what is there and deleting what is not are no errors.
type Keeper interface {
	// SocketXDP opens an AF_XDP socket (CAP_NET_RAW). The caller owns the descriptor.
	SocketXDP() (int, error)

	// LoadSteering loads the steering program and creates its maps (CAP_BPF, CAP_NET_ADMIN).
	LoadSteering() (*bpf.Steering, error)
	// AttachXDP makes s steer the packets of an interface: it creates the link pinned in pinDir,
	// or takes it over from a process that has ended.
	AttachXDP(s *bpf.Steering, ifname string, ifindex int, mode bpf.Mode, pinDir string) (*bpf.Link, error)

	// Routes lists the gateway's own routes.
	Routes() ([]Route, error)
	// ReconcileRoutes makes the gateway's own routes exactly want, and leads packets to them: first it adds, then it
	// deletes, so no prefix is without a fence in between. A route of somebody else in our tables with the prefix
	// and metric of one of ours is left alone, and an error.
	ReconcileRoutes(want []Route) error
	// ReconcileSources fences a tunnel for everything, for which a route in the main table would take the
	// gateway itself off the network. Packets from these prefixes that would follow the default route
	// go into the device tun, or are unreachable while there is none ("", or it is gone). Routes
	// more special than the default one are followed as before.
	ReconcileSources(from []netip.Prefix, tun string) error

	// AddAddress and DeleteAddress change the addresses of an interface.
	AddAddress(ifname string, p netip.Prefix) error
	DeleteAddress(ifname string, p netip.Prefix) error

	// ResolveNeighbour makes the kernel find, or confirm, the link address of addr.
	// It returns at once; the result comes as a neighbour event.
	ResolveNeighbour(ifindex int, addr netip.Addr) error

	// OpenTUN creates the TUN device, sets its MTU (bytes) and brings it up.
	OpenTUN(name string, mtu int) (*TUN, error)

	// OpenInterface opens a virtual interface, a TUN device that outlives the process, or makes it and brings it up; mtu 0 leaves that of one that is there
	// as it is. owner marks the device, so that it is known again; somebody else's of this name is an error.
	OpenInterface(name, owner string, mtu int) (*TUN, error)
	// Interfaces lists the virtual interfaces of an owner, DeleteInterface removes one, which nobody has open.
	Interfaces(owner string) ([]string, error)
	DeleteInterface(name, owner string) error

	// SocketUDP opens a UDP socket of a family (unix.AF_INET, AF_INET6) on port 500 or 4500 of every address, which
	// says to which of them a datagram came.
	SocketUDP(family int, port uint16) (int, error)

	// RaiseMemlock lifts the limit on locked memory (RLIMIT_MEMLOCK); an error if it still binds.
	RaiseMemlock() error
	// ReadFile reads a file that only root may read: configuration and secrets.
	ReadFile(path string) ([]byte, error)
}
