// Package spd is the security policy database of RFC 4301, 4.4.1: an ordered
// list of policies, each of which protects, bypasses or discards the packets
// that its selectors name. A [Table] is immutable: it is built once and swapped as a whole,
// so the packet path reads it without locks and without allocation.
//
// The way of a look-up: longest prefix match of the remote address, then, where
// many policies share a remote prefix, of the local address; the few candidates
// that these give are compared exactly, and the first in the order of the
// configuration wins. Names as selectors, and decorrelation, are not handled.
package spd

import (
	"fmt"
	"net/netip"
)

// Action is what a policy does with a packet.
type Action uint8

const (
	Protect Action = iota // through the association that its tunnel is bound to
	Bypass                // forwarded in the clear
	Discard
)

func (a Action) String() string {
	switch a {
	case Protect:
		return "protect"
	case Bypass:
		return "bypass"
	case Discard:
		return "discard"
	}
	return "invalid"
}

// PortRange is an inclusive range of ports. The zero value is port 0 alone; see [AnyPorts].
type PortRange struct{ First, Last uint16 }

// AnyPorts is the range that every packet matches, those without ports too (RFC 4301's ANY).
var AnyPorts = PortRange{0, 65535}

// Contains says whether the range holds port.
func (r PortRange) Contains(port uint16) bool { return r.First <= port && port <= r.Last }

// Range is an inclusive range of addresses of one family.
type Range struct{ First, Last netip.Addr }

// RangeOf returns the range of a prefix's addresses.
func RangeOf(p netip.Prefix) Range {
	p = p.Masked()
	return Range{p.Addr(), lastOf(p)}
}

// Contains says whether the range holds a.
func (r Range) Contains(a netip.Addr) bool {
	return a.BitLen() == r.First.BitLen() && r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
}

func (r Range) String() string {
	if p, ok := r.prefix(); ok {
		return p.String()
	}
	return r.First.String() + "-" + r.Last.String()
}

func (r *Range) check() error {
	switch {
	case !r.First.IsValid() || !r.Last.IsValid():
		return fmt.Errorf("address range without addresses")
	case r.First.BitLen() != r.Last.BitLen():
		return fmt.Errorf("address range %s-%s mixes families", r.First, r.Last)
	case r.First.Zone() != "" || r.Last.Zone() != "":
		return fmt.Errorf("address range %s-%s has a zone", r.First, r.Last)
	case r.Last.Less(r.First):
		return fmt.Errorf("address range %s-%s ends before it begins", r.First, r.Last)
	}
	return nil
}

// Selector names packets by their addresses, protocol and ports. It matches if
// some local and some remote range of one family hold the packet's addresses.
//
// ICMP and ICMPv6 have type<<8|code in place of a port (RFC 4301, 4.4.1.1): whichever way
// the packet goes, it must lie in both port ranges.
type Selector struct {
	Local, Remote           []Range
	Proto                   uint8 // upper-layer protocol; 0 = any
	LocalPorts, RemotePorts PortRange
}

// Policy is one entry of the database.
type Policy struct {
	Name      string
	Action    Action
	Selectors []Selector
	// Tunnel of a Protect policy is the index of its binding in the association table.
	Tunnel uint32
	// Transport says that a Protect policy is for transport mode: its remote addresses are those of peers.
	Transport bool
	// Interface of a Protect policy names the virtual interface that it is for: it judges what a route leads there and
	// nothing else. Tables of different interfaces are built apart.
	Interface string
	// Negotiated policies stand before those that they were made of. They may say of some packets what others do not.
	Negotiated bool
}

// Match is the verdict of a comparison.
type Match uint8

const (
	NoMatch Match = iota
	Matched
	// NeedsPorts says that the packet would match by its addresses and protocol, but has no
	// ports to judge by: a later fragment (RFC 4301, 7), or one cut short before its ports.
	NeedsPorts
)

func (m Match) String() string {
	switch m {
	case NoMatch:
		return "no match"
	case Matched:
		return "matched"
	case NeedsPorts:
		return "needs ports"
	}
	return "invalid"
}
