package xsk

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// A queue whose socket was just closed answers EBUSY until a kernel worker has
// taken its pool apart (kernel: net/xdp/xsk_buff_pool.c, xp_put_pool).
const (
	busyWaitMax = 2 * time.Second
	busyPause   = 2 * time.Millisecond
)

// retryBusy calls try until it answers anything but EBUSY, for busyWaitMax.
func retryBusy(try func() error) error {
	for deadline := time.Now().Add(busyWaitMax); ; time.Sleep(busyPause) {
		err := try()
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
	}
}

// bind binds fd to a queue. shared is the descriptor whose UMEM to use, or -1
// for the one registered on fd.
func bind(fd, ifindex, queue int, flags uint16, shared int) error {
	sa := unix.SockaddrXDP{Flags: flags, Ifindex: uint32(ifindex), QueueID: uint32(queue)}
	if shared >= 0 {
		sa.Flags, sa.SharedUmemFD = unix.XDP_SHARED_UMEM, uint32(shared)
	}
	return unix.Bind(fd, &sa)
}

func (m Mode) bindFlag() uint16 {
	if m == ZeroCopy {
		return unix.XDP_ZEROCOPY
	}
	return unix.XDP_COPY
}

// umemFlags are those of registering a UMEM. The kernel has a record of two cache lines for every buffer. While buffers may lie
// anywhere, it takes the record that it used last; while each stands for one chunk, the record goes the rounds with
// its frame, thousands of others in between, and is in no cache when it is needed (kernel: net/xdp/xsk_buff_pool.c,
// xp_get_xskb). So copy mode asks for the former, though a frame is one chunk there, too. With zero-copy not
// every driver can do it.
func (m Mode) umemFlags() uint32 {
	if m == ZeroCopy {
		return 0
	}
	return unix.XDP_UMEM_UNALIGNED_CHUNK_FLAG
}

// bindError says what a failed bind means.
func bindError(name string, queue int, err error) error {
	what := fmt.Sprintf("bind an AF_XDP socket to %s queue %d", name, queue)
	switch {
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%s: %w", what, ErrGone)
	case errors.Is(err, unix.ENETDOWN):
		return fmt.Errorf("%s: %w", what, ErrDown)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%s: another AF_XDP socket holds the queue: %w", what, err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%s: the interface has no such queue, or its MTU does not fit a frame: %w", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
