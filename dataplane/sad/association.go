package sad

import (
	"net/netip"
	"sync/atomic"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/replay"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
)

// Flags are properties of an association that its packets depend on.
type Flags uint32

const (
	// FlagEncap says that ESP travels in UDP (RFC 3948).
	FlagEncap Flags = 1 << iota
	// FlagUDPChecksum says that the outer UDP checksum is computed. Without it, and always over
	// IPv4, it is zero (RFC 3948, 2.1; RFC 6935).
	FlagUDPChecksum
	// FlagESN says that sequence numbers have 64 bits.
	FlagESN
	// FlagECN says that ECN crosses the tunnel (RFC 6040, normal mode).
	FlagECN
	// FlagCopyDSCP says that the outer DSCP is the inner one (RFC 4301, 5.1.2); of an inbound association, that the inner one becomes
	// the outer one (RFC 2983, 4.1).
	FlagCopyDSCP
	// FlagCopyDF says that an IPv4 packet in IPv4 gives its DF bit to the outer header.
	FlagCopyDF
	// FlagSetDF says that the outer IPv4 header has DF set where it is not copied.
	FlagSetDF
	// FlagRoaming says that packets may come from any outer source, in UDP or not.
	FlagRoaming
	// FlagManual says that the keys come from the configuration, not from IKE.
	FlagManual
	// FlagGuarded says that every packet has to pass a filter or a rate limit, see [Terms]. Such associations take the long way.
	FlagGuarded
	// FlagPadded says that inner packets get traffic flow confidentiality padding (RFC 4303, 2.7).
	FlagPadded
	// FlagDSCP says that the outer DSCP is one that the prepared header holds, and not 0.
	FlagDSCP
	// FlagCopyTTL says that the outer TTL is the inner one.
	FlagCopyTTL
	// FlagFragmentOuter says that a packet too large for the path is cut up after encryption (RFC 4301, 8.1), if its outer
	// header has no Don't Fragment.
	FlagFragmentOuter
	// FlagEnded says that a hard bound of the lifetime is reached; the owner sets it.
	FlagEnded
	// FlagTransport says that packets keep their IP header (RFC 4303, 3.1.1).
	FlagTransport
	// FlagOriginal says that a NAT on the way changes the addresses of packets in transport mode, and that Original says what it
	// does to upper-layer checksums (RFC 3948, 3.1.2 (a)).
	FlagOriginal
	// FlagRenewChecksum says that it may, and nobody knows how: upper-layer checksums are computed anew (RFC 3948, 3.1.2 (b)).
	FlagRenewChecksum
	// FlagAH says that the association is one of AH (RFC 4302).
	FlagAH
	// FlagGRE says that a GRE header stands in front of inner packets (RFC 2784), and FlagGREKey that it has a key (RFC 2890).
	FlagGRE
	FlagGREKey
	// FlagBundled says that the association is one half of a [Bundle]; with FlagAH, the outer one.
	FlagBundled
	// FlagInterface says that Interface is not 0: packets of the others need not read that cold line.
	FlagInterface
)

// Fixed returns FlagBundled and FlagAH as far as they are set. They never change, so anyone may call it; the rest is the owner's.
func (f *Flags) Fixed() Flags {
	return Flags(atomic.LoadUint32((*uint32)(f))) & (FlagBundled | FlagAH)
}

// End sets FlagEnded. Only the owner calls it.
func (f *Flags) End() { f.store(*f | FlagEnded) }

func (f *Flags) store(v Flags) { atomic.StoreUint32((*uint32)(f), uint32(v)) }

// FlagsUnusual are the flags of outbound associations that few have: their packets take the long way, so that it costs the others nothing.
const FlagsUnusual = FlagPadded | FlagDSCP | FlagCopyTTL | FlagGRE | FlagBundled

// HeaderMax is the room for a prepared outer header: IPv6, UDP and ESP.
const HeaderMax = 56

// Inbound is the runtime of an inbound association: one slot of the arena. It
// holds no Go pointer. All fields but those of Ownership and the counters are
// written before publication only; Window, and what [Table.Move] changes, by the owner.
type Inbound struct {
	// hot: what look-up, replay check and opening read; one cache line

	live uint32 // atomic: the SPI while the association can be found, else 0
	// SPI in host order, and the slot in the arena, which indexes the side tables.
	SPI, Slot uint32
	Ownership
	bits  uint32 // index of the first replay word
	Flags Flags
	// RemotePort and LocalPort are the peer's and our UDP port if FlagEncap is set.
	RemotePort, LocalPort uint16
	Suite                 transform.Suite
	IVLen, ICVLen, Align  uint8
	// Version of the outer IP header, 4 or 6.
	Version uint8
	// Original is the one's complement sum of the addresses that the peer computes checksums with, with FlagOriginal.
	Original uint16
	// Window belongs to the owner; its words are those of Table.Bits.
	Window replay.Window
	// Packets and Bytes (of inner IP datagrams) count what was accepted.
	Packets packet.Counter

	// warm: compared or counted once a packet or once a batch; of what stands across the line's end, an IPv4 header's part lies before it

	Bytes packet.Counter
	// Last is when a packet was last accepted, on the workers' clock; 0 before.
	Last packet.Counter
	Bounds
	// Plain is what most packets are held against instead of the selectors in [Table.Selectors]: those lie in memory of their own. It is spd.NoPlain where
	// most packets are held against those, as in transport mode. For IPv6, see [Table.Plain6].
	Plain spd.Plain
	// Addresses are the peer's outer address and ours as they stand in the outer header: the first 8 bytes over IPv4, and zeros.
	Addresses [32]byte

	// cold

	// GREKey is the key of its GRE headers, with FlagGREKey.
	GREKey uint32
	// Replayed, TooOld, BadICV and OtherDrops count what was dropped.
	Replayed, TooOld, BadICV, OtherDrops packet.Counter
	partner                              uint32 // slot of the other half, with FlagBundled
	// Interface is the number of the virtual interface that its packets arrive by, 0 for none.
	Interface uint16
	signed    uint8 // bytes that AH adds, of the half of ESP of a bundle
	_         [1]byte
}

// Outbound is the runtime of an outbound association: one slot of the arena. It
// holds no Go pointer. All fields but those of Ownership, the counters and what is marked
// as the owner's are written before publication only.
type Outbound struct {
	// hot: what look-up and sealing read; one cache line

	live uint32 // atomic: the handle while the association can be found, else 0
	// SPI in host order, and the slot in the arena, which indexes the side tables.
	SPI, Slot uint32
	Ownership
	// Hop caches the next hop of the outer header in the FIB snapshot HopGeneration; both
	// are the owner's. HopGeneration is 0 at first.
	Hop, HopGeneration   uint32
	Flags                Flags
	Suite                transform.Suite
	IVLen, ICVLen, Align uint8
	// Version of the outer IP header, 4 or 6.
	Version uint8
	// HeaderLen is the length of what is put in front of the IV: the prepared header in Header, which is outer IP, UDP if any, and
	// the 8 bytes of SPI and sequence number; in transport mode without the outer IP header. Of AH, the padding counts too.
	HeaderLen uint8
	// MTU of the path to the peer as configured; 0 = that of the route.
	MTU uint16
	// Seq is the last sequence number used; the owner's, see Next.
	Seq    packet.Counter
	SeqMax uint64 // the last one that may be used
	// Packets and Bytes (of inner IP datagrams) count what was sent.
	Packets packet.Counter

	// warm: counted, or read by those that are put behind a plain IPv4 header, which ends with this line

	// path is what was learned of the way to the peer, atomic: its MTU, 0 for none, and from bit 16 on why packets do not arrive.
	path uint32
	// bound is 1 + the tunnel that was bound to the association last, while it still is, else 0; atomic, see [Table.Current].
	bound uint32
	Bytes packet.Counter
	// Last is when a packet was last sent, on the workers' clock; 0 before.
	Last packet.Counter
	Bounds
	room
	// HeaderSum is the one's complement sum of the IPv4 header in Header, not complemented:
	// add what is filled in (packet.Complement), and it is the header's checksum.
	HeaderSum uint16
	// Header is the outer header with every field in place that no packet changes.
	// TOS or traffic class hold the DSCP that is not copied. Zero are: lengths, IPv4 identification, DF and checksum, UDP
	// checksum, sequence number.
	Header [HeaderMax]byte

	// cold, for IPv4 without UDP

	// UDPSum is that of the UDP pseudo-header without length, and of the ports, with
	// FlagUDPChecksum: add the UDP length twice and the payload.
	UDPSum uint16
	// UDP is the offset of the UDP header in Header, 0 without; ESP that of the SPI.
	UDP, ESP uint8
	// PadTo is the length to which inner packets are padded, with FlagPadded: what was asked for in tfc, as far as it fits the path,
	// which the owner knows.
	PadTo, tfc uint16
	// TooBig, Exhausted and OtherDrops count what was dropped.
	TooBig, Exhausted, OtherDrops packet.Counter
	// CutBefore and CutAfter count packets that were cut up, before they were encrypted and after it.
	CutBefore, CutAfter packet.Counter
	// GREKey is the key of its GRE headers, with FlagGREKey.
	GREKey  uint32
	partner uint32 // slot of the other half, with FlagBundled
	// Interface is the number of the virtual interface that its packets leave by, 0 for none.
	Interface uint16
	signed    uint8 // bytes that AH adds, of the half of ESP of a bundle
	_         [29]byte
}

// Next gives out the next sequence number, or says that none is left: the
// counter never cycles (RFC 4303, 3.3.3). Only the owner calls it.
func (o *Outbound) Next() (seq uint64, ok bool) {
	seq = o.Seq.Load()
	if seq >= o.SeqMax {
		return 0, false
	}
	o.Seq.Add(1)
	return seq + 1, true
}

// Handle returns the association's name. Only while it is looked up.
func (o *Outbound) Handle() Handle { return Handle(atomic.LoadUint32(&o.live)) }

// Left returns how many sequence numbers are left. Anyone may call it.
func (o *Outbound) Left() uint64 {
	seq := o.Seq.Load()
	if seq >= o.SeqMax {
		return 0
	}
	return o.SeqMax - seq
}

// InnerMTU returns the length of the largest inner datagram whose ESP packet
// fits the outer MTU of linkMTU bytes, or of the association's own path MTU if that is
// known and smaller. It is 0 if nothing fits.
func (o *Outbound) InnerMTU(linkMTU int) int {
	if mtu := o.PathMTU(); mtu != 0 {
		linkMTU = min(linkMTU, int(mtu))
	}
	if o.Flags&FlagBundled != 0 {
		linkMTU -= int(o.signed)
	}
	return o.inner(linkMTU-int(o.HeaderLen)-int(o.IVLen)-int(o.ICVLen), o.Align)
}

// room says what of a packet's bytes is not for the text to be encrypted.
type room struct {
	front   uint8 // the IP header, where that stays in front: at least so many bytes
	trailer uint8 // pad length and next header (RFC 4303, 2.4), padding that cannot be foreseen, and a GRE header
}

// roomOf returns the room of an association for packets whose text is aligned to align. In transport mode
// options may stand in front, in fours of bytes, and move the text's end against the alignment.
func roomOf(flags Flags, version, align uint8) (r room) {
	if flags&FlagAH == 0 {
		r.trailer = trailerLen
	}
	r.trailer += uint8(flags.GRELen())
	if flags&FlagTransport != 0 {
		r.front = uint8(ipHeaderLen(version))
		if flags&FlagAH == 0 {
			r.trailer += align - 4
		}
	}
	return r
}

// signedLen is the length of AH with an ICV of icv bytes (RFC 4302, 2.6).
func signedLen(version uint8, icv int) int {
	if version == 4 {
		return (ahLen + icv + 3) &^ 3
	}
	return (ahLen + icv + 7) &^ 7
}

// ipHeaderLen is the length of an IP header without options.
func ipHeaderLen(version uint8) int {
	if version == 4 {
		return ipv4HeaderLen
	}
	return ipv6HeaderLen
}

// inner is the length of the largest datagram where so many bytes are left for what stays in front and the encrypted text.
func (r room) inner(left int, align uint8) int {
	text := left - int(r.front)
	if text < 0 {
		return 0
	}
	text = text&^(int(align)-1) - int(r.trailer)
	if text < 0 {
		return 0
	}
	return text + int(r.front)
}

// InnerMTU returns what the InnerMTU of an outbound association would be that goes back the
// way this one comes, with a path MTU of pathMTU, 0 for none. Its own belongs to another worker, perhaps.
func (in *Inbound) InnerMTU(linkMTU int, pathMTU uint16) int {
	if pathMTU != 0 {
		linkMTU = min(linkMTU, int(pathMTU))
	}
	header := espLen
	if in.Flags&FlagTransport == 0 {
		header += ipHeaderLen(in.Version)
	}
	if in.Flags&FlagEncap != 0 {
		header += udpLen
	}
	tail := int(in.IVLen) + int(in.ICVLen)
	if in.Flags&FlagAH != 0 {
		header, tail = header-espLen+signedLen(in.Version, tail), 0
	}
	return roomOf(in.Flags, in.Version, in.Align).inner(linkMTU-int(in.signed)-header-tail, in.Align)
}

// LocalAddr returns our outer address.
func (in *Inbound) LocalAddr() netip.Addr {
	if in.Version == 4 {
		return netip.AddrFrom4([4]byte(in.Addresses[4:8]))
	}
	return netip.AddrFrom16([16]byte(in.Addresses[16:]))
}

// RemoteAddr returns the peer's outer address.
func (in *Inbound) RemoteAddr() netip.Addr {
	if in.Version == 4 {
		return netip.AddrFrom4([4]byte(in.Addresses[:4]))
	}
	return netip.AddrFrom16([16]byte(in.Addresses[:16]))
}

// RemoteAddr returns the peer's outer address.
func (o *Outbound) RemoteAddr() netip.Addr {
	if o.Version == 4 {
		return netip.AddrFrom4([4]byte(o.Header[16:20]))
	}
	return netip.AddrFrom16([16]byte(o.Header[24:40]))
}

// LocalAddr returns our outer address.
func (o *Outbound) LocalAddr() netip.Addr {
	if o.Version == 4 {
		return netip.AddrFrom4([4]byte(o.Header[12:16]))
	}
	return netip.AddrFrom16([16]byte(o.Header[8:24]))
}
