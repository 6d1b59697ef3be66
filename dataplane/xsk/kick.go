package xsk

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// kickMax bounds the system calls of one Flush.
const kickMax = 8

// Flush publishes what Transmit took and wakes the kernel if it asks for it. It
// returns nil, [ErrDown] or [ErrGone]; what could not be sent yet stays in the
// ring for the next Flush or poll, which kicks again: see Unsent.
func (s *Socket) Flush() error {
	s.tx.publish()
	s.unsent = false
	if s.queue.fill.needsWakeup() {
		if errno := wakeReceive(s.fd); fatal(errno) {
			return downError(errno)
		}
	}
	left := s.tx.pending()
	for kicks := 0; left > 0 && kicks < kickMax; kicks++ {
		if s.domain.needWakeup && !s.tx.needsWakeup() {
			return nil // the driver is sending on its own
		}
		errno := wakeTransmit(s.fd)
		if fatal(errno) {
			return downError(errno)
		}
		// EAGAIN: the budget of one call is spent, the completion ring is full, or
		// too many bytes are in flight. EBUSY: the driver refused a packet and
		// completed it. ENOBUFS: no memory for an skb. Only progress makes another
		// call worth its price.
		before := left
		if left = s.tx.pending(); left == before || errno == 0 {
			break
		}
	}
	s.unsent = left > 0
	return nil
}

// Unsent says that the last Flush left packets in the ring that nobody sends before the next one.
func (s *Socket) Unsent() bool { return s.unsent }

// Check asks the kernel whether the interface is there, for a socket that
// sends nothing: [ErrDown], [ErrGone] or nil.
func (s *Socket) Check() error {
	if errno := wakeTransmit(s.fd); fatal(errno) {
		return downError(errno)
	}
	return nil
}

// wakeTransmit is sendto(2) without data and without blocking. It is a raw
// system call, of which the Go scheduler does not learn: the call cannot block
// and sends at most a batch in copy mode, so a stop of the world waits some 50 µs
// for it; with the ordinary one the monitor thread may take the processor away
// from the worker after 20 µs, which then waits for another, and each call costs
// 70 ns more.
func wakeTransmit(fd int) unix.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	return errno
}

// wakeReceive is recvfrom(2) in the same way; it makes a zero-copy driver look
// at the fill ring again.
func wakeReceive(fd int) unix.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	return errno
}

// fatal reports whether errno tells of the interface and not of the moment.
func fatal(errno unix.Errno) bool {
	switch errno {
	case 0, unix.EAGAIN, unix.EBUSY, unix.ENOBUFS, unix.EINTR, unix.ENOMEM:
		return false
	}
	return true
}

// downError names errno without allocating for those that a dying interface gives.
func downError(errno unix.Errno) error {
	switch errno {
	case unix.ENETDOWN:
		return ErrDown
	case unix.ENXIO, unix.ENODEV, unix.EBADF:
		return ErrGone
	}
	return fmt.Errorf("wake the AF_XDP socket: %w", errno)
}
