package ike

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/ike"
	"sallyport/ike/ikesa"
)

// kernel stands in for the data plane: it hands out SPIs and counts what is installed. Waiters are told of every
// outbound direction, which is the last thing that a child needs.
type kernel struct {
	next      atomic.Uint32
	installed atomic.Int64 // children whose both directions are installed
	mu        sync.Mutex
	target    int64
	reached   chan struct{}
}

func newKernel() *kernel {
	k := new(kernel)
	k.next.Store(0x1000)
	return k
}

// reach returns a channel that is closed when the number of children installed since the start is n.
func (k *kernel) reach(n int64) <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.target, k.reached = n, make(chan struct{})
	if k.installed.Load() >= n {
		close(k.reached)
		k.target = 0
	}
	return k.reached
}

func (k *kernel) InstallOutbound(c *ikesa.ChildSA) error {
	clear(c.KeyOut)
	n := k.installed.Add(1)
	k.mu.Lock()
	if k.target != 0 && n >= k.target {
		close(k.reached)
		k.target = 0
	}
	k.mu.Unlock()
	return nil
}

func (k *kernel) NewChildSPI() (uint32, error)                       { return k.next.Add(1), nil }
func (k *kernel) ReleaseSPI(uint32)                                  {}
func (k *kernel) InstallInbound(c *ikesa.ChildSA) error              { clear(c.KeyIn); return nil }
func (k *kernel) RemoveChild(spiIn, spiOut uint32, reason string)    {}
func (k *kernel) UpdateChild(*ikesa.ChildSA) error                   { return nil }
func (k *kernel) Usage(spiIn, spiOut uint32) (ike.Usage, bool)       { return ike.Usage{}, true }
func (k *kernel) PathMTU(uint32, int, time.Time)                     {}
func (k *kernel) LinkMTU(netip.Addr) int                             { return 1500 }
func (k *kernel) RouteSource(netip.Addr) (netip.Addr, error)         { return serverAddr, nil }
func (k *kernel) Assigned(*ikesa.Connection, []ikesa.Lease)          {}
func (k *kernel) Unassigned(c *ikesa.Connection, addrs []netip.Addr) {}
