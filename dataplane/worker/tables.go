package worker

import (
	"net/netip"

	"sallyport/dataplane/fib"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/spd"
)

// Role says on which side of the gateway a port lies.
type Role uint8

const (
	// Protected ports face the hosts whose traffic the gateway protects.
	Protected Role = 1 << iota
	// Outside ports face the network that ESP crosses.
	Outside
)

// Port describes one port to the workers.
type Port struct {
	Name string
	Role Role
	// Workers are those that have a queue of the port, without repetition.
	Workers []int
	// Source4 and Source6 are the addresses that ICMP errors sent for packets of this port carry; may be invalid.
	Source4, Source6 netip.Addr
}

func (p *Port) source(version uint8) netip.Addr {
	if version == 4 {
		return p.Source4
	}
	return p.Source6
}

// Tables is everything that workers look up and never change: an immutable
// snapshot, loaded once a batch.
type Tables struct {
	SPD *spd.Table
	FIB *fib.Table
	// Ports is indexed by port number.
	Ports []Port
	// Interfaces is indexed by the number of a virtual interface, from 1 on; empty without any.
	Interfaces []Interface
	// Endpoints are our outer addresses.
	Endpoints *AddrSet
	// Own are all addresses of the gateway.
	Own []netip.Addr
	// TUN is the port number of the way to the kernel; NoPort if there is none.
	TUN uint16
	// IKE is the port number of the way to the IKE side, of which every worker has a queue; NoPort if there is none.
	IKE uint16
	// ClampMSS says that TCP SYNs into and out of a tunnel get a maximum segment size that fits it.
	ClampMSS bool
	// DiscardUnmatched says that cleartext which no policy matches is dropped, not forwarded.
	DiscardUnmatched bool
}

// NoPort is no port's number.
const NoPort = 0xffff

// AddrSet is a set of addresses that is fast while it is small.
type AddrSet struct {
	few  []endpoint
	many map[endpoint]struct{}
}

// endpoint is an address with its family.
type endpoint struct {
	addr    packet.Addr
	version uint8
}

// few is what a linear search still wins at.
const fewMax = 8

// NewAddrSet returns the set of the given addresses.
func NewAddrSet(addrs []netip.Addr) *AddrSet {
	s := &AddrSet{many: make(map[endpoint]struct{}, len(addrs))}
	for _, a := range addrs {
		e := endpoint{packet.AddrOf(a), 6}
		if a.Is4() {
			e.version = 4
		}
		s.few = append(s.few, e)
		s.many[e] = struct{}{}
	}
	if len(addrs) <= fewMax {
		s.many = nil
	} else {
		s.few = nil
	}
	return s
}

// Has reports whether the flow's destination is in the set.
func (s *AddrSet) Has(f *packet.Flow) bool {
	for i := range s.few {
		if s.few[i].addr == f.Dst && s.few[i].version == f.Version {
			return true
		}
	}
	if s.many == nil {
		return false
	}
	_, ok := s.many[endpoint{f.Dst, f.Version}]
	return ok
}
