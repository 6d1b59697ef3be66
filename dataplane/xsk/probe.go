package xsk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"sallyport/dataplane/packet"
)

// Probe finds out, on sockets of its own that it closes again, which mode a
// queue can be bound in, and why in a sentence for people. Only the first bind of
// a domain chooses the mode for all, so every queue is probed before any is
// bound. Whether the XDP program runs natively or generically is not the socket's
// to know: both work with Copy.
func Probe(ifindex, queue int, open Opener) (Mode, string, error) {
	zero := probe(ifindex, queue, ZeroCopy, open)
	if zero == nil {
		return ZeroCopy, "the driver binds in zero-copy mode", nil
	}
	if err := probe(ifindex, queue, Copy, open); err != nil {
		return Copy, "", bindError(fmt.Sprintf("interface %d", ifindex), queue, err)
	}
	if errors.Is(zero, unix.EOPNOTSUPP) {
		return Copy, "the driver has no AF_XDP zero-copy (EOPNOTSUPP), packets are copied", nil
	}
	return Copy, fmt.Sprintf("the driver refuses zero-copy (%v), packets are copied", zero), nil
}

// probe binds once and lets go. It returns the kernel's error as it is.
func probe(ifindex, queue int, mode Mode, open Opener) error {
	const frames = 16
	mem, err := unix.Mmap(-1, 0, frames*packet.FrameSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("map probe memory: %w", err)
	}
	// Runs after the sockets are closed; should the kernel still hold the pages,
	// it has pinned them.
	defer unix.Munmap(mem)
	return retryBusy(func() error {
		fd, err := open()
		if err != nil {
			return fmt.Errorf("open an AF_XDP socket: %w", err)
		}
		defer unix.Close(fd)
		if err := registerUMEM(fd, mem, packet.FrameSize, mode.umemFlags()); err != nil {
			return fmt.Errorf("register probe memory: %w", err)
		}
		if err := sizeRings(fd, frames, frames); err != nil {
			return err
		}
		if err := sizeQueueRings(fd, frames, frames); err != nil {
			return err
		}
		return bind(fd, ifindex, queue, mode.bindFlag()|unix.XDP_USE_NEED_WAKEUP, -1)
	})
}

func sizeRings(fd int, rx, tx uint32) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_XDP, unix.XDP_RX_RING, int(rx)); err != nil {
		return fmt.Errorf("make an RX ring of %d: %w", rx, err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_XDP, unix.XDP_TX_RING, int(tx)); err != nil {
		return fmt.Errorf("make a TX ring of %d: %w", tx, err)
	}
	return nil
}

func sizeQueueRings(fd int, fill, completion uint32) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_XDP, unix.XDP_UMEM_FILL_RING, int(fill)); err != nil {
		return fmt.Errorf("make a fill ring of %d: %w", fill, err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_XDP, unix.XDP_UMEM_COMPLETION_RING, int(completion)); err != nil {
		return fmt.Errorf("make a completion ring of %d: %w", completion, err)
	}
	return nil
}
