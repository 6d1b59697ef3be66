// Package memio is a queue in memory with the same methods as an AF_XDP socket.
//
//	worker's end                            other end
//	Fill ────────────► fill ──────────────► Inject, InjectBatch
//	Receive ◄───────── rx ◄──────────────── Inject, InjectBatch
//	Transmit, Flush ─► tx ────────────────► Drain, Discard
//	Complete ◄──────── completion ◄──────── Drain, Discard
//
// It carries the kernel's own traffic (a TUN device), whole gateways in one
// process, and benchmarks. Every ring has one producer and one consumer: the
// worker's end belongs to one worker; at the other end the Inject methods and the
// Drain methods may run on two goroutines, and a lock taken once a call keeps
// either from being run twice at once and from running into Close. Nothing
// allocates after [NewQueue].
//
// Frames are owned as with a socket: Fill and Transmit give them away, Receive
// and Complete take them back, and Reclaim returns what was in between at Close.
package memio

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/xsk"
)

// Queue is the in-memory queue, both ends.
type Queue struct {
	mem []byte

	// hot: the worker's end
	tx     ring[packet.Desc]
	rx     ring[packet.Desc]
	fill   ring[uint64]
	done   ring[uint64]
	placed int // descriptors put into tx and not yet published; the worker's

	// near wakes the worker, far whoever waits in Wait.
	near, far *bell

	// the other end
	inject sync.Mutex // held by Inject, InjectBatch, Close
	drain  sync.Mutex // held by Drain, Discard, Close
	closed bool       // written under both locks

	fillEmpty, rxFull, invalid packet.Counter // written under inject
	reclaimed                  []uint64

	_ [packet.Apart]byte // queues of other workers lie no nearer
}

// NewQueue makes a queue over mem, the memory that frame addresses count in,
// with rings of size entries, a power of two.
func NewQueue(mem []byte, size int) (*Queue, error) {
	if size <= 0 || size&(size-1) != 0 || size > 1<<20 {
		return nil, fmt.Errorf("in-memory queue of %d entries: want a power of two up to %d", size, 1<<20)
	}
	near, err := newBell()
	if err != nil {
		return nil, err
	}
	far, err := newBell()
	if err != nil {
		unix.Close(near.fd)
		return nil, err
	}
	n := uint32(size)
	return &Queue{
		mem: mem, near: near, far: far,
		tx: newRing[packet.Desc](n), rx: newRing[packet.Desc](n),
		fill: newRing[uint64](n), done: newRing[uint64](n),
	}, nil
}

// Receive dequeues up to len(d) packets and returns how many. Their frames
// become the caller's.
func (q *Queue) Receive(d []packet.Desc) int { return q.rx.pop(d) }

// Transmit enqueues packets and returns how many were taken: the first so many
// of d. They leave with the next Flush.
func (q *Queue) Transmit(d []packet.Desc) int {
	n := min(len(d), q.TransmitRoom())
	q.tx.put(q.placed, d[:n])
	q.placed += n
	return n
}

// Fill gives frames for reception and returns how many were taken: the first so
// many of addr. Any address in a frame will do.
func (q *Queue) Fill(addr []uint64) int {
	n := min(len(addr), q.fill.room(len(addr)))
	q.fill.put(0, addr[:n])
	q.fill.publish(n)
	return n
}

// Complete dequeues up to len(addr) sent packets' addresses, as they were
// transmitted, and returns how many.
func (q *Queue) Complete(addr []uint64) int { return q.done.pop(addr) }

// FillRoom returns how many frames Fill takes now.
func (q *Queue) FillRoom() int { return q.fill.room(len(q.fill.entries)) }

// TransmitRoom returns how many packets Transmit takes now.
func (q *Queue) TransmitRoom() int { return q.tx.room(len(q.tx.entries)) - q.placed }

// Flush publishes what Transmit took and wakes whoever waits for it. Its error
// is always nil.
func (q *Queue) Flush() error {
	if q.placed > 0 {
		q.tx.announce(q.placed)
		q.placed = 0
		q.far.ring()
	}
	return nil
}

// Unsent is always false: Flush leaves nothing behind.
func (q *Queue) Unsent() bool { return false }

// FD returns the eventfd that becomes readable when a packet arrives while the
// worker sleeps.
func (q *Queue) FD() int { return q.near.fd }

// Doze says that the worker is about to sleep on FD, and reports whether it may:
// false means that packets wait. Wake follows either.
func (q *Queue) Doze() bool {
	q.near.doze()
	return q.rx.ready(len(q.rx.entries)) == 0
}

// Wake says that the worker no longer sleeps.
func (q *Queue) Wake() { q.near.wake() }

// Stats returns the counters in the kernel's terms. Its error is always nil.
func (q *Queue) Stats() (xsk.Stats, error) {
	return xsk.Stats{FillEmpty: q.fillEmpty.Load(), RxRingFull: q.rxFull.Load(), RxDropped: q.invalid.Load()}, nil
}

// Close ends both ends and releases the eventfds. The worker has stopped using
// the queue; calls at the other end that are under way finish first, later ones
// do nothing, and Wait must have returned: [Queue.Interrupt] makes it.
func (q *Queue) Close() error {
	q.inject.Lock()
	defer q.inject.Unlock()
	q.drain.Lock()
	defer q.drain.Unlock()
	if q.closed {
		return nil
	}
	q.Flush()
	q.closed = true
	for _, r := range []*ring[packet.Desc]{&q.rx, &q.tx} {
		for i, n := 0, r.ready(len(r.entries)); i < n; i++ {
			q.reclaimed = append(q.reclaimed, packet.Chunk(r.waiting(i, 1)[0].Addr))
		}
	}
	for _, r := range []*ring[uint64]{&q.fill, &q.done} {
		for i, n := 0, r.ready(len(r.entries)); i < n; i++ {
			q.reclaimed = append(q.reclaimed, packet.Chunk(r.waiting(i, 1)[0]))
		}
	}
	unix.Close(q.near.fd)
	unix.Close(q.far.fd)
	return nil
}

// Reclaim returns, once, the chunk addresses of the frames that were in the
// rings at Close.
func (q *Queue) Reclaim() []uint64 {
	r := q.reclaimed
	q.reclaimed = nil
	return r
}

// Interrupt makes a Wait that is under way, or the next one, return.
func (q *Queue) Interrupt() {
	q.far.asleep.Store(1)
	q.far.ring()
}

// Wait sleeps until there is something to Drain, Interrupt is called, or
// timeout passes; it may return early. It belongs to the goroutine that drains.
// A negative timeout waits for ever.
func (q *Queue) Wait(timeout time.Duration) {
	q.far.doze()
	q.drain.Lock()
	closed, waiting := q.closed, q.tx.ready(len(q.tx.entries)) > 0
	q.drain.Unlock()
	if closed {
		return
	}
	if !waiting {
		ms := -1
		if timeout >= 0 {
			ms = int((timeout + time.Millisecond - 1) / time.Millisecond)
		}
		unix.Poll([]unix.PollFd{{Fd: int32(q.far.fd), Events: unix.POLLIN}}, ms)
	}
	q.far.wake()
}
