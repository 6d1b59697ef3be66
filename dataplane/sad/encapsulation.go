package sad

import "fmt"

// Encapsulation is what inner packets, of any kind, are put into before they are protected: datagrams between the two outer addresses.
// On the wire, and in its negotiation, such an association is one of transport mode. With IP in IP its packets are those of tunnel
// mode (RFC 3884); with GRE a header stands in front of the inner packet. Selectors are those of inner packets.
type Encapsulation uint8

const (
	NoEncapsulation Encapsulation = iota
	GRE                           // RFC 2784, RFC 2890
	IPIP                          // RFC 2003, RFC 4213, RFC 2473
)

// String returns the word for it; "" for none.
func (e Encapsulation) String() string { return [...]string{"", "gre", "ipip"}[e] }

// Carrier is an encapsulation with what it is set to.
type Carrier struct {
	Encapsulation Encapsulation
	// Key is that of GRE headers in both directions, if Keyed.
	Key   uint32
	Keyed bool
}

// String describes it; "" for none.
func (c Carrier) String() string {
	if c.Keyed {
		return fmt.Sprintf("%s key %d", c.Encapsulation, c.Key)
	}
	return c.Encapsulation.String()
}

func (p *Params) checkCarrier() error {
	switch c := &p.Carrier; {
	case c.Encapsulation > IPIP:
		return fmt.Errorf("no such encapsulation")
	case c.Keyed && c.Encapsulation != GRE:
		return fmt.Errorf("a key is for GRE")
	case c.Encapsulation != NoEncapsulation && p.Transport:
		return fmt.Errorf("encapsulation %s, and inner packets that keep their IP header", c.Encapsulation)
	case c.Encapsulation == GRE && p.AH:
		return fmt.Errorf("GRE with AH")
	}
	return nil
}

// GRELen is the length of the GRE header that the flags ask for.
func (f Flags) GRELen() int {
	switch {
	case f&FlagGRE == 0:
		return 0
	case f&FlagGREKey == 0:
		return 4
	}
	return 8
}
