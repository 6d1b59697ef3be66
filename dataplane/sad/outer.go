package sad

import (
	"fmt"
	"math"

	"sallyport/dataplane/packet"
)

// Outer says what an association's outer packets look like, as far as there is a choice. What is about headers says nothing in
// transport mode, where the packet keeps its own.
type Outer struct {
	// CopyDSCP gives outer packets the DSCP of inner ones (RFC 4301, 5.1.2). Otherwise they have DSCP, 0 to 63. AdoptDSCP gives inner
	// packets the DSCP with which outer ones arrive: any router on the way may have chosen it (RFC 2983, 4.1).
	CopyDSCP, AdoptDSCP bool
	DSCP                uint8
	// ECN says that ECN crosses the tunnel (RFC 6040, normal mode).
	ECN bool
	// CopyDF gives Don't Fragment of an IPv4 packet in IPv4 to the outer header; SetDF sets it where nothing is copied.
	CopyDF, SetDF bool
	// TTL or Hop Limit of outer packets, 0 = 64; with CopyTTL that of inner ones.
	TTL     uint8
	CopyTTL bool
	// MTU of the path to the peer; 0 = that of the route.
	MTU uint16
	// Fragment cuts up packets too large for the path after encryption, not before (RFC 4301, 8.1).
	Fragment bool
	// TFC is the length to which inner packets are padded, at most what fits the path (RFC 4303, 2.7); 0 = not. In tunnel mode of ESP only.
	TFC uint16
}

// TFCPath is a TFC of as much as fits the path.
const TFCPath = math.MaxUint16

func (p *Params) checkOuter() error {
	switch {
	case p.DSCP > 63:
		return fmt.Errorf("DSCP %d; at most 63", p.DSCP)
	case p.TFC != 0 && p.AH:
		return fmt.Errorf("traffic flow confidentiality padding with AH, which hides nothing")
	case p.TFC != 0 && p.Transport:
		return fmt.Errorf("traffic flow confidentiality padding in transport mode, where not every protocol tells its length (RFC 4303, 2.7)")
	}
	return nil
}

// dscp writes the DSCP that is not copied into an outer header.
func (o *Outer) dscp(h []byte, version uint8) {
	if o.CopyDSCP {
		return
	}
	if version == 4 {
		h[1] = o.DSCP << 2
	} else {
		h[0], h[1] = h[0]|o.DSCP>>2, o.DSCP<<6
	}
}

// ttl is that of the prepared header; 0 if it is copied.
func (o *Outer) ttl() uint8 {
	switch {
	case o.CopyTTL:
		return 0
	case o.TTL == 0:
		return outerTTL
	}
	return o.TTL
}

// DSCP returns the DSCP that outer packets have where it is not copied, in its place in the TOS or traffic class.
func (o *Outbound) DSCP() uint8 {
	if o.Version == 4 {
		return o.Header[1]
	}
	return o.Header[0]<<4 | o.Header[1]>>4
}

// DontFragment says whether the outer packet of an inner one must not be cut up: what its DF bit is over IPv4.
func (o *Outbound) DontFragment(inner *packet.Packet) bool {
	if inner.Version == 4 && o.Flags&(FlagCopyDF|FlagTransport) != 0 {
		return inner.Flags&packet.FlagDF != 0
	}
	return o.Flags&FlagSetDF != 0
}

// Pad makes mtu, the largest inner packet that fits the path, the bound of traffic flow confidentiality padding. Only the owner calls it.
func (o *Outbound) Pad(mtu int) {
	o.PadTo = uint16(min(int(o.tfc), mtu))
}
