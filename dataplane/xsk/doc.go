// Package xsk speaks AF_XDP: frame memory, the four rings of a socket, and the
// rules by which sockets share one memory.
//
//	         Fill            Receive                Transmit         Flush
//	worker ────────► fill ring ─► kernel ─► rx ring ──► worker ──► tx ring ─► kernel ─► completion ring ──► worker
//	                                                                                        Complete
//
// A [Domain] is one [UMEM] with every [Socket] on it, over all interfaces and
// queues: a frame received on one may be sent on any other without a copy. A
// socket's packet methods belong to one worker; sockets on the same interface and
// queue share its fill and completion rings, and belong to the same worker. What
// the domain does (open, close) may come from any thread, but a socket is closed
// only once its worker has stopped using it and its siblings on the same queue
// are at rest.
//
// A frame belongs to whoever holds its address: Fill and Transmit give it to the
// kernel, Receive and Complete give it back, and [Socket.Reclaim] gives back what
// the kernel still had when the socket closed. At every moment frames held by
// callers plus Held of all queues equal the UMEM's frames.
//
// Not handled: packets of several buffers. A chunk cannot exceed a page, so an
// interface whose MTU is above [MTUMax] has to be refused.
package xsk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"sallyport/dataplane/packet"
)

const ringNeedWakeup = unix.XDP_RING_NEED_WAKEUP

// ErrDown says that the interface cannot send now. While the link is only
// switched off the socket stays bound, and what stands in the TX ring leaves when
// it comes up again.
var ErrDown = errors.New("the interface is down")

// ErrGone says that the interface was unregistered or moved to another
// namespace: the socket is dead and has to be closed. It is an [ErrDown].
var ErrGone = fmt.Errorf("%w: it no longer exists here", ErrDown)

// Mode is how packets get between the driver and the UMEM.
type Mode uint8

const (
	// Copy works with every driver, under a native or a generic XDP program.
	Copy Mode = iota
	// ZeroCopy needs a driver that puts packets straight into the UMEM.
	ZeroCopy
)

func (m Mode) String() string { return [...]string{"copy", "zero-copy"}[m] }

// MTUMax returns the largest MTU an interface may have in mode, and the
// sentence to refuse a larger one with. MTUs count without the Ethernet header.
func MTUMax(mode Mode) (int, string) {
	const header = 18 // Ethernet and one VLAN tag
	if mode == ZeroCopy {
		// The driver wants room for a struct skb_shared_info behind the packet,
		// 320 bytes on 64-bit machines.
		const mtu = packet.FrameSize - packet.Headroom - 320 - header
		return mtu, fmt.Sprintf("a packet must fit one %d-byte frame with %d bytes in front of it and 320 behind it for the driver: the MTU can be %d at most, set it with: ip link set dev IFACE mtu %d", packet.FrameSize, packet.Headroom, mtu, mtu)
	}
	const mtu = packet.LenMax - header
	return mtu, fmt.Sprintf("a packet must fit one %d-byte frame with %d bytes in front of it and %d behind it: the MTU can be %d at most, set it with: ip link set dev IFACE mtu %d", packet.FrameSize, packet.Headroom, packet.TailSlack, mtu, mtu)
}

// Opener opens an AF_XDP socket in the right network namespace with the
// privilege that it takes.
type Opener func() (int, error)

// OpenLocal is the [Opener] of a process that has CAP_NET_RAW itself.
func OpenLocal() (int, error) {
	return unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
}
