package dataplane

import (
	"errors"
	"net/netip"
	"time"

	"sallyport/dataplane/datagram"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
)

// NewSPI reserves an SPI for an inbound association: nobody else gets it until it is installed by
// Params.SPI, or given back with ReleaseSPI. No packet is accepted for it meanwhile.
func (e *Engine) NewSPI() (uint32, error) { return 0, errors.ErrUnsupported }

// ReleaseSPI gives back an SPI that NewSPI reserved and that was not installed. Any other is left alone.
func (e *Engine) ReleaseSPI(spi uint32) {}

// Retire ends an association after grace: an inbound one receives, an outbound one sends what is on its way inside
// the gateway, until then (to a second or so). Its tunnel should be bound to another before. Removing
// it meanwhile ends it at once.
func (e *Engine) Retire(h sad.Handle, grace time.Duration) error { return errors.ErrUnsupported }

// Graces of associations that are replaced or deleted. A peer may send on the old one until our delete reaches
// it (RFC 7296, 2.8); a packet of our own spends far less than a second in the gateway.
const (
	GraceInbound  = 5 * time.Second
	GraceOutbound = time.Second
)

// UpdateEndpoints moves an association to other outer addresses, or into or out of UDP (RFC 7296, 2.23; RFC
// 4555). Sequence number and replay window go on, and no packet is lost. encap decides whether the ports mean anything. It takes
// effect with the next packet.
func (e *Engine) UpdateEndpoints(h sad.Handle, local, remote netip.AddrPort, encap bool) error {
	return errors.ErrUnsupported
}

// Usage is what an association has carried so far.
type Usage struct {
	Packets, Bytes uint64 // of inner IP datagrams
	// Last is when the last packet was received and accepted, or sent; zero before the first.
	Last time.Time
	// Sequence is the highest number received or sent, SequenceLeft how many may still be sent.
	Sequence, SequenceLeft uint64
}

// Usage says what an association has carried. It costs a few loads; ok is false if it is gone.
func (e *Engine) Usage(h sad.Handle) (u Usage, ok bool) { return Usage{}, false }

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
