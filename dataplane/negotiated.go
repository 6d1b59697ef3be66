package dataplane

import (
	"net/netip"
	"time"

	"sallyport/dataplane/datagram"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/worker"
)

// NewSPI reserves an SPI for an inbound association: nobody else gets it until it is installed by
// Params.SPI, or given back with ReleaseSPI. No packet is accepted for it meanwhile.
func (e *Engine) NewSPI() (uint32, error) { return e.sad.Reserve() }

// ReleaseSPI gives back an SPI that NewSPI reserved and that was not installed. Any other is left alone.
func (e *Engine) ReleaseSPI(spi uint32) { e.sad.Unreserve(spi) }

// Usage is what an association has carried so far.
type Usage struct {
	Packets, Bytes uint64 // of inner IP datagrams
	// Last is when the last packet was received and accepted, or sent; zero before the first.
	Last time.Time
	// Sequence is the highest number received or sent, SequenceLeft how many may still be sent.
	Sequence, SequenceLeft uint64
}

// Usage says what an association has carried. It costs a few loads; ok is false if it is gone.
func (e *Engine) Usage(h sad.Handle) (u Usage, ok bool) {
	c, ok := e.sad.Usage(h)
	if !ok {
		return u, false
	}
	u = Usage{Packets: c.Packets, Bytes: c.Bytes, Sequence: c.Sequence, SequenceLeft: c.SequenceLeft}
	if c.Last != 0 {
		u.Last = worker.Time(c.Last)
	}
	return u, true
}

// RouteSource returns the address that the kernel's routes give packets to remote as their source.
func (e *Engine) RouteSource(remote netip.Addr) (netip.Addr, error) { return datagram.Route(remote) }
