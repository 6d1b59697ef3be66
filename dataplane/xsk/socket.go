package xsk

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/dataplane/packet"
)

// Socket is one AF_XDP socket on one queue of one interface. Its packet methods
// belong to one worker and never allocate.
type Socket struct {
	// hot
	rx    receiveRing
	tx    transmitRing
	queue *queue
	fd    int
	// unsent: see Unsent.
	unsent bool

	// cold
	domain                               *Domain
	ifindex, queueID                     int
	rxMap, txMap, fillMap, completionMap mapping
	reclaimed                            []uint64
	closed                               bool
}

// Stats are the kernel's counters of one socket since it was bound
// (kernel: include/uapi/linux/if_xdp.h, struct xdp_statistics).
type Stats struct {
	RxDropped   uint64 // dropped for other reasons than a full RX ring
	RxInvalid   uint64 // invalid addresses in the fill ring
	TxInvalid   uint64 // invalid descriptors in the TX ring
	RxRingFull  uint64 // dropped because the RX ring was full
	FillEmpty   uint64 // times the fill ring was found empty
	TxRingEmpty uint64 // times the TX ring was found empty
	Faults      uint64 // frames given twice, or returned without having been given: 0 in a correct world
}

const (
	// txBudget is how many packets one kick may send in copy mode, where the
	// kernel's default is 32.
	txBudget = 2048
	// sendBuffer bounds the bytes in flight in copy mode; the system's default
	// of 208 KiB holds some 90 large packets.
	sendBuffer = 8 << 20
)

// tune sets what makes copy mode faster and what an older kernel may refuse.
func (s *Socket) tune() {
	_ = unix.SetsockoptInt(s.fd, unix.SOL_XDP, unix.XDP_MAX_TX_SKB_BUDGET, txBudget)
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != nil {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	}
}

// mapRings maps the four rings of a bound socket.
func (s *Socket) mapRings(c *Config) error {
	off, err := ringOffsets(s.fd)
	if err != nil {
		return fmt.Errorf("ask for ring offsets: %w", err)
	}
	const descSize, addrSize = 16, 8
	q := s.queue
	for _, r := range []struct {
		to    *mapping
		page  int64
		off   *unix.XDPRingOffset
		size  uint32
		width uintptr
	}{
		{&s.rxMap, unix.XDP_PGOFF_RX_RING, &off.Rx, c.RxSize, descSize},
		{&s.txMap, unix.XDP_PGOFF_TX_RING, &off.Tx, c.TxSize, descSize},
		{&s.fillMap, unix.XDP_UMEM_PGOFF_FILL_RING, &off.Fr, q.fillSize, addrSize},
		{&s.completionMap, unix.XDP_UMEM_PGOFF_COMPLETION_RING, &off.Cr, q.completionSize, addrSize},
	} {
		if *r.to, err = mapRing(s.fd, r.page, r.off, r.size, r.width); err != nil {
			return err
		}
	}
	s.rx = receiveRing{indices: s.rxMap.indices, entries: s.rxMap.descriptors()}
	s.tx = transmitRing{indices: s.txMap.indices, entries: s.txMap.descriptors()}
	return nil
}

func (s *Socket) on(c *Config) bool { return s.ifindex == c.Ifindex && s.queueID == c.Queue }

// Receive dequeues up to len(d) received packets and returns how many. Their
// frames become the caller's.
func (s *Socket) Receive(d []packet.Desc) int {
	n := s.rx.pop(d)
	s.queue.receiving -= uint32(n)
	kept := 0
	for i := 0; i < n; i++ {
		d[i].Addr = start(d[i].Addr)
		if s.queue.ledger.take(d[i].Addr) {
			d[kept] = d[i]
			kept++
		}
	}
	return kept
}

// Transmit enqueues packets and returns how many were taken: the first so many
// of d, whose frames become the kernel's. They leave with the next Flush. A
// packet must end inside its chunk. A frame that the kernel has already is a
// fault of the caller's: it is counted and not sent.
func (s *Socket) Transmit(d []packet.Desc) int {
	n := int(min(uint32(len(d)), s.tx.room(uint32(len(d)))))
	for i := 0; i < n; i++ {
		if s.queue.ledger.give(d[i].Addr) {
			s.tx.put(d[i])
		}
	}
	return n
}

// Fill gives frames to the kernel for reception and returns how many it took:
// the first so many of addr. Any address in a frame will do.
func (s *Socket) Fill(addr []uint64) int {
	q := s.queue
	n := min(len(addr), s.fillRoom(uint32(len(addr))))
	if n == 0 {
		return 0
	}
	for i := 0; i < n; i++ {
		if q.ledger.give(addr[i]) {
			q.fill.put(packet.Chunk(addr[i]))
			q.receiving++
		}
	}
	q.fill.publish()
	return n
}

// Complete dequeues up to len(addr) sent packets' addresses, as they were
// transmitted, and returns how many. Their frames become the caller's. They may
// come from any socket of the same queue.
func (s *Socket) Complete(addr []uint64) int {
	n := s.queue.completion.pop(addr)
	kept := 0
	for i := 0; i < n; i++ {
		if s.queue.ledger.take(addr[i]) {
			addr[kept] = addr[i]
			kept++
		}
	}
	return kept
}

// FillRoom returns how many frames Fill takes now.
func (s *Socket) FillRoom() int { return s.fillRoom(s.queue.fill.size) }

// fillRoom is how many frames, of want, there is use for: see [queue].
func (s *Socket) fillRoom(want uint32) int {
	q := s.queue
	if q.receiving >= q.rxSize {
		return 0
	}
	return int(min(q.fill.room(want), q.rxSize-q.receiving))
}

// TransmitRoom returns how many packets Transmit takes now.
func (s *Socket) TransmitRoom() int { return int(s.tx.room(s.tx.size)) }

// Held returns how many frames the kernel has by way of this socket's queue,
// siblings included.
func (s *Socket) Held() int { return s.queue.ledger.held }

// FD returns the descriptor, for poll and for an XSKMAP. It stays the socket's.
func (s *Socket) FD() int { return s.fd }

// Doze says that the worker is about to sleep on FD, and reports whether it may:
// false means that packets wait. Poll itself drives what is left in the TX ring.
func (s *Socket) Doze() bool { return s.rx.empty() }

// Wake says that the worker no longer sleeps.
func (s *Socket) Wake() {}

// Mode returns the mode of the domain.
func (s *Socket) Mode() Mode { return s.domain.mode }

// Stats returns the kernel's counters. Any thread may call it while the socket is open.
func (s *Socket) Stats() (Stats, error) {
	k, err := statistics(s.fd)
	if err != nil {
		return Stats{}, fmt.Errorf("read AF_XDP statistics: %w", err)
	}
	return Stats{
		RxDropped: k.Rx_dropped, RxInvalid: k.Rx_invalid_descs, TxInvalid: k.Tx_invalid_descs,
		RxRingFull: k.Rx_ring_full, FillEmpty: k.Rx_fill_ring_empty_descs, TxRingEmpty: k.Tx_ring_empty_descs,
		Faults: s.queue.ledger.faults.Load(),
	}, nil
}

// Close closes the socket and returns after the kernel has let go of its
// frames. It first waits, shortly, for packets that are on their way out. Called
// again, it does nothing.
func (s *Socket) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	s.domain.forget(s)
	s.drain()
	last := s.queue.leave(s)
	err := s.release()
	if !last {
		return err // the kernel's share stays on the ledger of the queue
	}
	if s.domain.mode == ZeroCopy {
		err = errors.Join(err, s.awaitRelease())
	}
	s.reclaimed = s.queue.ledger.reclaim(s.reclaimed)
	return err
}

// drainMax bounds the wait for packets on their way out.
const drainMax = 100 * time.Millisecond

// drain takes back what the kernel has finished with: all of RX, and
// completions until only packets that the kernel has not looked at are left.
func (s *Socket) drain() {
	var d [64]packet.Desc
	for n := s.Receive(d[:]); n > 0; n = s.Receive(d[:]) {
		for _, x := range d[:n] {
			s.reclaimed = append(s.reclaimed, packet.Chunk(x.Addr))
		}
	}
	var a [64]uint64
	for deadline := time.Now().Add(drainMax); ; time.Sleep(200 * time.Microsecond) {
		for n := s.Complete(a[:]); n > 0; n = s.Complete(a[:]) {
			for _, x := range a[:n] {
				s.reclaimed = append(s.reclaimed, packet.Chunk(x))
			}
		}
		if s.queue.inFlight() == 0 || time.Now().After(deadline) {
			return
		}
	}
}

// release unmaps the rings, which keep the kernel's socket alive, and then closes it.
func (s *Socket) release() error {
	s.rx, s.tx = receiveRing{}, transmitRing{}
	for _, m := range []*mapping{&s.rxMap, &s.txMap, &s.fillMap, &s.completionMap} {
		m.close()
	}
	err := unix.Close(s.fd)
	s.fd = -1
	return err
}

// awaitRelease waits until the queue can be bound again or is gone. A driver in
// zero-copy mode may write into frames until a kernel worker has taken the pool
// away from it, after close has returned.
func (s *Socket) awaitRelease() error {
	err := probe(s.ifindex, s.queueID, Copy, s.domain.open)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("queue %d of interface %d is still held after close: %w", s.queueID, s.ifindex, err)
	}
	return nil
}

// Reclaim returns, once, the chunk addresses of the frames that were the
// kernel's when the socket closed. With siblings on the same queue still open,
// these are the ones it had finished with; the last sibling's Reclaim returns the
// rest.
func (s *Socket) Reclaim() []uint64 {
	r := s.reclaimed
	s.reclaimed = nil
	return r
}
