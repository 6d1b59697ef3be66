// Package packet holds what every stage of the packet path shares: the record
// of one packet, the batch of such records, the header parser and the table of
// drop reasons. It imports nothing else of this module.
//
// # Frame layout
//
// A frame is one UMEM chunk of [FrameSize] bytes, aligned to FrameSize, named
// by its offset from the start of the UMEM. A received packet starts at least
// [Headroom] bytes into its chunk; encapsulation grows into that headroom, so
// Packet.Addr moves down. The end of a packet never comes closer than
// [TailSlack] bytes to the end of its chunk, so assembly may read that much past
// the last byte.
//
//	chunk                Addr              Addr+L3      Addr+L4      Addr+End  Addr+Len          chunk+FrameSize
//	|<--- headroom --->|<- Ethernet(+VLAN) ->|<- IP hdr ->|<- payload ->|<- pad ->|  ... >= TailSlack |
package packet

// Sizes of frames and batches. The chunk size is the largest that the kernel
// takes for a UMEM (kernel: net/xdp/xdp_umem.c), and what zero-copy drivers
// need for an MTU of 1500.
const (
	FrameSize = 4096
	// Headroom is what XDP leaves in front of a received packet (XDP_PACKET_HEADROOM).
	Headroom = 256
	// TailSlack is the number of readable bytes that follow every packet inside its chunk.
	TailSlack = 64
	// LenMax is the largest frame, Ethernet header included, that fits a chunk as received.
	LenMax = FrameSize - Headroom - TailSlack
	// BatchMax is the largest number of packets in a [Batch].
	BatchMax = 64
)

// Packet is the record of one packet while a worker holds it: 64 bytes, no
// pointers, copied by value through the hand-over rings. Offsets count from
// Addr. The worker that holds the record owns the frame.
type Packet struct {
	// hot: set when the packet is received or handed over

	// Addr is the UMEM offset of the first byte of the Ethernet header.
	Addr uint64
	// Len is the number of bytes from Addr, Ethernet header and padding included.
	Len uint16
	// Port is the engine's number of the port (interface) that received the packet.
	Port uint16

	// hot: set by Parse

	// L3 is the offset of the (outer) IP header; L4 that of the upper-layer
	// header behind options and extension headers; End that of the first byte
	// behind the IP datagram.
	L3, L4, End uint16
	// SrcPort and DstPort are those of TCP, UDP, UDP-Lite, SCTP or DCCP; for ICMP, SrcPort is
	// type<<8|code and DstPort 0 (RFC 4301, 4.4.1.1). Host order. Valid if Flags has FlagPorts.
	SrcPort, DstPort uint16
	// Version is 4 or 6.
	Version uint8
	// Proto is the upper-layer protocol: the last Next Header of an IPv6 chain.
	Proto uint8
	// TOS is the IPv4 TOS or the IPv6 Traffic Class octet: DSCP<<2 | ECN.
	TOS uint8
	// TTL is the Time to Live or Hop Limit.
	TTL   uint8
	Flags Flags
	// Class is what the worker decided to do with the packet.
	Class Class

	// hot: set by look-up

	// SPI is the Security Parameters Index, host order. It identifies the association in a
	// hand-over; look-ups are made again by it.
	SPI uint32
	// Slot is the association's index in the arena; valid within one batch only.
	Slot uint32
	// Seq is the 64-bit (extended) sequence number.
	Seq uint64
	// Hop is the index of the next hop in the FIB snapshot of this batch.
	Hop uint32
	// Tunnel is that of the protect policy which the packet obeys.
	Tunnel uint32

	// cold

	// Reason is why the packet ended; DropNone while it lives.
	Reason Drop
	// Handovers counts how often the record went from worker to worker.
	Handovers uint8
	// Interface is the number of the virtual interface by which the packet came, out of the kernel or out of an
	// association; 0 for none.
	Interface uint16
	_         [2]byte
}

// Flags are facts about a packet found while parsing.
type Flags uint16

const (
	// FlagPorts says that SrcPort and DstPort are valid.
	FlagPorts Flags = 1 << iota
	// FlagFragment says that the datagram is a fragment (offset not 0, or more to come).
	FlagFragment
	// FlagLaterFragment says that it is a fragment other than the first: no upper-layer header.
	FlagLaterFragment
	// FlagDF says that the IPv4 header has Don't Fragment set. Always set for IPv6.
	FlagDF
	// FlagVLAN says that the Ethernet header carries priority tags (18 or 22 bytes instead of 14).
	FlagVLAN
	// FlagOptions says that the IPv4 header has options or the IPv6 header has extension headers.
	FlagOptions
	// FlagLocal says that the gateway itself made the packet (ICMP errors, the kernel's own traffic from TUN).
	FlagLocal
	// FlagRouted says that TTL and MSS were already seen to: the packet comes back from fragmentation or from another worker.
	FlagRouted
	// FlagSealed says that this gateway has encapsulated the packet.
	FlagSealed
	// FlagDecapsulated says that the packet came out of an association.
	FlagDecapsulated
	// FlagVerified says that the packet is ESP that came out of the AH around it.
	FlagVerified
)

// Class says which way a packet takes through a worker.
type Class uint8

const (
	ClassNone     Class = iota
	ClassOutbound       // cleartext to be protected by the association in SPI (outbound handle)
	ClassInbound        // ESP for the inbound association in SPI
	ClassForward        // cleartext to be routed as it is
	ClassPunt           // to the kernel through TUN
	ClassTransmit       // complete, to be sent by the worker that owns a queue of Port
	ClassIKE            // to the IKE side
	ClassWaiting        // kept until its tunnel has an outbound association
	ClassFragment       // a fragment, for the worker that keeps those between its addresses
)

var classNames = [...]string{"", "outbound", "inbound", "forward", "punt", "transmit", "ike", "waiting", "fragment"}

// String returns the word for a class; "" for none yet.
func (c Class) String() string { return classNames[c] }

// Batch is the set of packets that a worker carries through its stages
// together. Stages take the batch and a list of live indices into P and return
// the shorter list. A Batch belongs to one worker.
type Batch struct {
	// Mem is the UMEM; every Addr is an offset into it.
	Mem []byte
	// P holds the records; the first N are in use.
	P [BatchMax]Packet
	N int
	// Flows holds what selectors and routes look at, of the packets that Parse or ParseIP accepted
	// in this batch. Changes to a record afterwards do not show in it.
	Flows [BatchMax]Flow
}

// Frame returns the bytes of packet i, from its Ethernet header on.
func (b *Batch) Frame(i int) []byte {
	p := &b.P[i]
	return b.Mem[p.Addr : p.Addr+uint64(p.Len) : p.Addr+uint64(p.Len)]
}

// IP returns the bytes of packet i's IP datagram, without Ethernet padding.
func (b *Batch) IP(i int) []byte {
	p := &b.P[i]
	return b.Mem[p.Addr+uint64(p.L3) : p.Addr+uint64(p.End) : p.Addr+uint64(p.End)]
}

// Chunk returns the UMEM offset of the chunk that addr lies in.
func Chunk(addr uint64) uint64 { return addr &^ (FrameSize - 1) }

// Desc is a descriptor as it stands in an AF_XDP RX or TX ring
// (kernel: include/uapi/linux/if_xdp.h, struct xdp_desc).
type Desc struct {
	Addr    uint64 // UMEM offset of the first byte
	Len     uint32 // bytes
	Options uint32 // XDP_PKT_CONTD, XDP_TX_METADATA
}
