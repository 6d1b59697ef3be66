package xsk

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"sallyport/dataplane/packet"
)

// Domain is one UMEM with the sockets that share it. The first bind registers
// the memory and chooses mode and need_wakeup; later binds inherit both by
// sharing from a socket that is still bound. When every bound socket has died
// with its interface, the next bind registers the memory anew, in the same mode.
//
// Its methods may be called from any thread.
type Domain struct {
	umem       *UMEM
	mode       Mode
	needWakeup bool
	open       Opener

	mu      sync.Mutex
	sockets []*Socket // open ones, oldest first
}

// NewDomain makes a domain on u, which stays the caller's. A nil open is [OpenLocal].
func NewDomain(u *UMEM, mode Mode, needWakeup bool, open Opener) *Domain {
	if open == nil {
		open = OpenLocal
	}
	return &Domain{umem: u, mode: mode, needWakeup: needWakeup, open: open}
}

// UMEM returns the domain's memory.
func (d *Domain) UMEM() *UMEM { return d.umem }

// Mode returns the mode that every socket of the domain has.
func (d *Domain) Mode() Mode { return d.mode }

// Config describes a socket. Ring sizes are entries, powers of two; 0 is
// [RingSize]. FillSize and CompSize are without effect on the second socket of
// a queue, which shares the first one's rings.
type Config struct {
	Ifindex                            int
	Ifname                             string // for errors
	Queue                              int
	RxSize, TxSize, FillSize, CompSize uint32
}

// RingSize is the default of every ring: deep enough for 5 ms of garbage
// collection at 400,000 packets/s.
const RingSize = 2048

func (c *Config) check() error {
	for _, size := range []*uint32{&c.RxSize, &c.TxSize, &c.FillSize, &c.CompSize} {
		if *size == 0 {
			*size = RingSize
		}
		if *size&(*size-1) != 0 || *size > 1<<20 {
			return fmt.Errorf("AF_XDP ring of %d entries on %s: want a power of two up to %d", *size, c.Ifname, 1<<20)
		}
	}
	return nil
}

// Open binds a new socket. It waits up to two seconds for a queue that was
// just closed. On an error nothing stays behind. The error is an [ErrDown] or
// [ErrGone] where it says so of the interface.
func (d *Domain) Open(c Config) (*Socket, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var s *Socket
	err := retryBusy(func() (err error) {
		s, err = d.attempt(&c)
		return err
	})
	if err != nil {
		return nil, bindError(c.Ifname, c.Queue, err)
	}
	d.sockets = append(d.sockets, s)
	return s, nil
}

// attempt tries each socket that the UMEM might be shared from, one bound to
// the same queue first, then registers the UMEM anew. A candidate that is not
// bound any more answers EBADF.
func (d *Domain) attempt(c *Config) (*Socket, error) {
	candidates := slices.Clone(d.sockets)
	slices.SortStableFunc(candidates, func(a, b *Socket) int { return order(a.on(c)) - order(b.on(c)) })
	for _, from := range candidates {
		s, err := d.bindFrom(c, from)
		if !errors.Is(err, unix.EBADF) {
			return s, err
		}
	}
	return d.bindFrom(c, nil)
}

func order(first bool) int {
	if first {
		return 0
	}
	return 1
}

// bindFrom makes one socket that shares from another, or, from being nil, has
// the UMEM registered on itself.
func (d *Domain) bindFrom(c *Config, from *Socket) (_ *Socket, err error) {
	fd, err := d.open()
	if err != nil {
		return nil, fmt.Errorf("open an AF_XDP socket: %w", err)
	}
	s := &Socket{fd: fd, domain: d, ifindex: c.Ifindex, queueID: c.Queue}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	shared := -1
	if from != nil {
		shared = from.fd
	} else if err := registerUMEM(fd, d.umem.all[:d.umem.size], packet.FrameSize, d.mode.umemFlags()); err != nil {
		return nil, fmt.Errorf("register a UMEM of %d bytes (is the memlock limit raised?): %w", d.umem.size, err)
	}
	if err := sizeRings(fd, c.RxSize, c.TxSize); err != nil {
		return nil, err
	}
	sibling := from != nil && from.on(c)
	if sibling {
		s.queue = from.queue
	} else {
		s.queue = &queue{ledger: newLedger(d.umem.frames), fillSize: c.FillSize, completionSize: c.CompSize}
		if err := sizeQueueRings(fd, c.FillSize, c.CompSize); err != nil {
			return nil, err
		}
	}
	s.tune()
	flags := d.mode.bindFlag()
	if d.needWakeup {
		flags |= unix.XDP_USE_NEED_WAKEUP
	}
	if err := bind(fd, c.Ifindex, c.Queue, flags, shared); err != nil {
		return nil, err
	}
	// A bound socket maps the rings of its queue even if another socket of the
	// queue made them (kernel: net/xdp/xsk.c, xsk_mmap), so each sibling has
	// mappings of its own and the queue survives the death of any.
	if err := s.mapRings(c); err != nil {
		return nil, err
	}
	s.queue.join(s)
	return s, nil
}

// forget takes s off the list of those to share from.
func (d *Domain) forget(s *Socket) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := slices.Index(d.sockets, s); i >= 0 {
		d.sockets = slices.Delete(d.sockets, i, i+1)
	}
}
