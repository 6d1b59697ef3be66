package sad

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"time"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/replay"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
)

// Params describe one association completely, as data.
type Params struct {
	Name string
	// SPI in host order. Inbound, 0 asks for a free one; outbound, it is the peer's choice.
	SPI     uint32
	Inbound bool
	Suite   transform.Suite
	// Keymat is the keying material of this direction. Install copies what it needs and
	// keeps no reference; the caller wipes it.
	Keymat []byte
	// Local is our outer address and Remote the peer's, of one family.
	Local, Remote netip.Addr
	// Encap says that ESP travels in UDP between LocalPort and RemotePort; 0 = 4500.
	Encap                 bool
	LocalPort, RemotePort uint16
	// AH asks for AH (RFC 4302) in place of ESP.
	AH bool
	// Bundle adds AH around ESP; nil for none.
	Bundle *Bundle
	half   bool // it is the half of AH of a bundle
	// Transport asks for transport mode: packets between Local and Remote themselves, which keep their IP header.
	Transport bool
	// OriginalLocal and OriginalRemote are what the peer takes our and its address to be, in transport mode with a NAT between
	// (RFC 7296, 2.23.1): what its upper-layer checksums are computed with. Neither may be given, or both. Inbound only.
	OriginalLocal, OriginalRemote netip.Addr
	// UDPChecksum asks for a UDP checksum over IPv6 instead of zero (RFC 6935).
	UDPChecksum bool
	// ESN says that sequence numbers have 64 bits.
	ESN bool
	// Window is the size of the replay window of an inbound association; 0 = 4096.
	Window uint32
	// Selectors are what decrypted packets are held against; inbound only.
	Selectors []spd.Selector
	Outer
	// Carrier is what inner packets are put into before.
	Carrier Carrier
	// Interface names the virtual interface that packets which come out of the association arrive by, and InterfaceNumber is
	// what the workers know it by; "" and 0 for none.
	Interface       string
	InterfaceNumber uint16
	// Manual marks keys from the configuration.
	Manual bool
	// Sequence is the last sequence number used, of an outbound association.
	Sequence uint64
	// Lifetime bounds what the association carries.
	Lifetime Lifetime
	// Filter and Limit say which of the inner packets pass, and how many; nil and 0 all of them.
	Filter *Filter
	Limit  Limit
	// Roaming inbound associations accept packets from any outer source, in UDP or not (RFC 7296, 2.23),
	// and tell of it when the newest one came from elsewhere.
	Roaming bool
	Created time.Time
}

// portEncap is the port of ESP in UDP (RFC 3948, 2.1; RFC 7296, 2.23).
const portEncap = 4500

// check completes p and says what is wrong with it.
func (p *Params) check() error {
	info := p.Suite.Info()
	switch {
	case info.Kind == transform.KindNone:
		return fmt.Errorf("no such suite")
	case !p.Local.IsValid() || !p.Remote.IsValid():
		return fmt.Errorf("outer address missing")
	case p.Local.BitLen() != p.Remote.BitLen():
		return fmt.Errorf("outer addresses %s and %s are of different families", p.Local, p.Remote)
	case p.Local.IsUnspecified() || p.Remote.IsUnspecified() || p.Local.IsMulticast() || p.Remote.IsMulticast():
		return fmt.Errorf("outer addresses %s and %s are not both those of a host", p.Local, p.Remote)
	case p.Local.Is4In6() || p.Remote.Is4In6() || p.Local.Zone() != "" || p.Remote.Zone() != "":
		return fmt.Errorf("outer addresses %s and %s are mapped or zoned", p.Local, p.Remote)
	case p.AH && !info.Whole():
		return fmt.Errorf("AH with %s, which encrypts", info.Name)
	case p.AH && p.Encap:
		return fmt.Errorf("AH does not pass NAT: there is none in UDP (RFC 3948, 1)")
	case p.OriginalLocal.BitLen() != p.OriginalRemote.BitLen() || p.OriginalLocal.IsValid() && p.OriginalLocal.BitLen() != p.Local.BitLen():
		return fmt.Errorf("original addresses %s and %s are not of the family of the outer ones", p.OriginalLocal, p.OriginalRemote)
	case p.SPI < spiMin && (p.SPI != 0 || !p.Inbound):
		return fmt.Errorf("SPI %d is reserved", p.SPI)
	case p.Window > replay.SizeMax:
		return fmt.Errorf("replay window of %d numbers; at most %d", p.Window, replay.SizeMax)
	case !p.Inbound && p.Sequence > p.sequenceMax():
		return fmt.Errorf("sequence number %d without extended sequence numbers", p.Sequence)
	}
	if err := p.checkOuter(); err != nil {
		return err
	}
	if err := p.checkCarrier(); err != nil {
		return err
	}
	if err := p.checkBundle(); err != nil {
		return err
	}
	if err := p.Limit.check(); err != nil {
		return err
	}
	if p.Window == 0 {
		p.Window = replay.SizeDefault
	}
	if p.Encap && p.LocalPort == 0 {
		p.LocalPort = portEncap
	}
	if p.Encap && p.RemotePort == 0 {
		p.RemotePort = portEncap
	}
	return nil
}

func (p *Params) sequenceMax() uint64 {
	if p.ESN {
		return math.MaxUint64
	}
	return math.MaxUint32
}

func (p *Params) flags() Flags {
	var f Flags
	for _, x := range []struct {
		on   bool
		flag Flags
	}{
		{p.Encap, FlagEncap},
		{p.Encap && p.UDPChecksum && p.Local.Is6(), FlagUDPChecksum},
		{p.ESN, FlagESN}, {p.ECN, FlagECN}, {p.Inbound && p.AdoptDSCP || !p.Inbound && p.CopyDSCP, FlagCopyDSCP},
		{p.CopyDF, FlagCopyDF}, {p.SetDF, FlagSetDF}, {p.Manual, FlagManual},
		{p.Inbound && p.Roaming, FlagRoaming}, {p.guarded(), FlagGuarded},
		{!p.Inbound && p.TFC != 0, FlagPadded}, {!p.Inbound && p.Fragment, FlagFragmentOuter},
		{!p.Inbound && !p.CopyDSCP && p.DSCP != 0, FlagDSCP}, {!p.Inbound && p.CopyTTL && !p.Transport, FlagCopyTTL},
		{p.Transport, FlagTransport}, {p.AH, FlagAH}, {p.Carrier.Encapsulation == GRE, FlagGRE}, {p.Carrier.Keyed, FlagGREKey}, {p.bundled(), FlagBundled}, {p.InterfaceNumber != 0, FlagInterface},
		{p.Inbound && p.Transport && p.Encap && p.OriginalRemote.IsValid(), FlagOriginal},
		{p.Inbound && p.Transport && p.Encap && !p.OriginalRemote.IsValid(), FlagRenewChecksum},
	} {
		if x.on {
			f |= x.flag
		}
	}
	return f
}

func (p *Params) version() uint8 {
	if p.Local.Is4() {
		return 4
	}
	return 6
}

// long says that outer addresses or prepared header of an association, or none, reach into its third cache line.
func (p *Params) long() bool { return p != nil && (p.version() == 6 || p.Encap && !p.Inbound) }

// lengths are those of IV, ICV and alignment. AH has all of it in front, in the ICV field, and nothing to align.
func (p *Params) lengths(info *transform.Info) (iv, icv, align uint8) {
	if p.AH {
		return 0, uint8(info.WholeICVLen()), 1
	}
	return uint8(info.IVLen), uint8(info.ICVLen), uint8(info.Align)
}

// fill writes the description into an empty slot. Publication is not its part.
func (in *Inbound) fill(p *Params, slot, bits uint32) {
	info := p.Suite.Info()
	in.SPI, in.Slot, in.bits = p.SPI, slot, bits
	in.Suite, in.Interface = p.Suite, p.InterfaceNumber
	in.GREKey = p.Carrier.Key
	in.IVLen, in.ICVLen, in.Align = p.lengths(info)
	in.Window = replay.New(p.Window, p.ESN)
	in.arm(p, 0, 0)
	in.place(p)
}

// place writes what depends on the endpoints.
func (in *Inbound) place(p *Params) {
	in.Flags.store(p.flags() | in.Flags&FlagEnded)
	in.Version = p.version()
	in.LocalPort, in.RemotePort = p.LocalPort, p.RemotePort
	n := copy(in.Addresses[:], p.Remote.AsSlice())
	n += copy(in.Addresses[n:], p.Local.AsSlice())
	clear(in.Addresses[n:])
	in.Original = 0
	if in.Flags&FlagOriginal != 0 {
		in.Original = uint16(packet.Sum(p.OriginalLocal.AsSlice(), packet.Sum(p.OriginalRemote.AsSlice(), 0)))
	}
}

// Protocol numbers and the outer TTL.
const (
	protoUDP = 17
	protoESP = 50
	protoAH  = 51
	outerTTL = 64
	udpLen   = 8
	espLen   = 8
	ahLen    = 12 // in front of the ICV

	trailerLen = 2 // pad length and next header

	ipv4HeaderLen = 20
	ipv6HeaderLen = 40
)

func (o *Outbound) fill(p *Params, slot uint32) {
	info := p.Suite.Info()
	o.SPI, o.Slot = p.SPI, slot
	o.Suite, o.MTU, o.GREKey = p.Suite, p.MTU, p.Carrier.Key
	o.Interface = p.InterfaceNumber
	o.IVLen, o.ICVLen, o.Align = p.lengths(info)
	o.Seq.Add(p.Sequence)
	o.SeqMax = p.sequenceMax()
	o.PadTo, o.tfc = p.TFC, p.TFC
	o.arm(p, 0, 0)
	o.place(p)
}

// place writes what depends on the endpoints.
func (o *Outbound) place(p *Params) {
	o.Flags.store(p.flags() | o.Flags&FlagEnded)
	o.Version = p.version()
	o.Hop, o.HopGeneration = 0, 0
	o.HeaderSum, o.UDPSum, o.UDP = 0, 0, 0
	o.room = roomOf(o.Flags, o.Version, o.Align)
	proto := uint8(protoESP)
	switch {
	case p.Encap:
		proto = protoUDP
	case p.AH:
		proto = protoAH
	}
	h := o.Header[:0]
	src, dst := p.Local.AsSlice(), p.Remote.AsSlice()
	if p.version() == 4 {
		h = append(h, 0x45, 0, 0, 0, 0, 0, 0, 0, p.ttl(), proto, 0, 0)
		h = append(append(h, src...), dst...)
		o.HeaderSum = uint16(packet.Sum(h, 0))
	} else {
		h = append(h, 0x60, 0, 0, 0, 0, 0, proto, p.ttl())
		h = append(append(h, src...), dst...)
	}
	if p.Encap {
		o.UDP = uint8(len(h))
		h = binary.BigEndian.AppendUint16(h, p.LocalPort)
		h = binary.BigEndian.AppendUint16(h, p.RemotePort)
		if o.Flags&FlagUDPChecksum != 0 {
			o.UDPSum = uint16(packet.Sum(h[o.UDP:], packet.PseudoSum(src, dst, protoUDP, 0)))
		}
		h = append(h, make([]byte, udpLen-4)...)
	}
	p.dscp(h, o.Version) // the sums are without
	o.ESP = uint8(len(h))
	if p.AH { // next header and length are the packet's
		h = append(h, 0, 0, 0, 0)
	}
	binary.BigEndian.PutUint32(o.Header[len(h):], p.SPI)
	o.HeaderLen = o.ESP + espLen
	if p.AH {
		o.HeaderLen = o.ESP + uint8(signedLen(o.Version, int(o.ICVLen))) - o.ICVLen
	}
	if p.Transport {
		o.HeaderLen -= uint8(ipHeaderLen(o.Version))
	}
}
