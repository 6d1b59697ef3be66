// Package esp encapsulates and decapsulates batches of packets in ESP (RFC 4303), in tunnel mode, IPv4 or IPv6 in IPv4
// or IPv6, and in transport mode, raw or in UDP (RFC 3948).
//
// The way of a batch, in either direction, is three passes:
//
//	prepare: room, sequence number, trailer, headers  |  lengths, endpoints, replay check
//	one crypto call for the whole batch
//	finish:  UDP checksum, counters                    |  ICV, window, trailer, inner header, selectors
//
// A packet that ends gets its [packet.Drop] at once and leaves the live list.
//
// The package is given associations and never looks one up, but that TakeESP goes on with those that the worker's finder knows. It writes only inside
// the chunk of each packet: never below the headers it puts in front, never behind
// the ICV.
//
// AH (RFC 4302) goes the same way, in both modes, without the crypto call in the middle.
//
// What is not handled: reassembly of outer fragments, the
// tunnel's MTU (the caller compares before it encapsulates), TTL and MSS of inner
// packets, MAC addresses.
package esp

import (
	"math/rand/v2"

	"sallyport/dataplane/ipfrag"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/transform"
)

// Scratch is what one worker needs to carry batches through ESP. It is used by
// one goroutine at a time, and only with associations that this worker owns.
type Scratch struct {
	table *sad.Table

	crypto transform.Batch
	ops    [packet.BatchMax]transform.Op
	rec    [packet.BatchMax]record
	bytes  [packet.BatchMax]uint16 // of the inner datagrams that encapsulatePlain is at work on
	runs   [packet.BatchMax]run

	plainOut plainOutbound
	plainIn  plainInbound
	take     plainTaken

	opens []openRun // what TakeESP took
	taken int       // how many packets that is

	draft sad.Record // of the packet that is being encapsulated
	// Records is how many packets that pass the flight recorders may still take of this batch, in both directions; the caller sets it.
	Records int

	// saved keeps the first covered bytes of a packet of AH while its ICV, which icv has room for, is computed.
	saved   [headersMax]byte
	covered int
	icv     [transform.IVMax + transform.ICVMax]byte

	// id is the last identification given to an outer IPv4 header that may be fragmented.
	id uint16

	// Now is the time of the batch, on the workers' clock; the caller sets it.
	Now int64
	// Reports are what the last batches found out about associations. The caller takes them away.
	Reports []Report

	// Ports remembers the ports of first fragments for those of the same datagram that come later.
	Ports *ipfrag.Ports

	// ECNAlarms counts packets whose outer and inner ECN fields no correct encapsulator
	// combines (RFC 6040, 4.2). They are forwarded.
	ECNAlarms packet.Counter

	_ [packet.Apart]byte // the scratch of another worker lies no nearer
}

// due says that a packet of an association whose last one passed at the time last is to be recorded.
func (s *Scratch) due(last *packet.Counter) bool {
	return sad.Due(s.Now, last.Load()) && s.Records > 0
}

// record is what the first pass remembers of a packet for the third.
type record struct {
	index uint8  // of the packet in its batch
	tos   uint8  // of the outer header (inbound)
	bytes uint16 // of the inner datagram (outbound)
	moved bool   // it came from elsewhere than the association says (inbound)
	esp   uint64 // UMEM offset of the ESP header (inbound)
	// length is that of the ESP packet, and ok says that its ICV matched (inbound).
	length uint16
	ok     bool
	// other says that acceptPlain is not for it, and moved means something.
	other bool
	// signed says that the packet is one of AH, and its ICV made or found right.
	signed bool
}

// Report is something that key management should know of an association.
type Report struct {
	// Inbound or Outbound is the association.
	Inbound  *sad.Inbound
	Outbound *sad.Outbound
	// Moved says that the newest packet came from Source and Port, 0 if not in UDP. Otherwise a bound of the
	// association's lifetime is reached.
	Moved   bool
	Source  packet.Addr
	Version uint8 // of Source
	Port    uint16
}

// dueBits are the bits of the time by which a packet that is to be recorded differs from the last one, see due.
func (s *Scratch) dueBits() uint64 {
	if s.Records <= 0 {
		return 0
	}
	return sad.DueBits
}

// NewScratch returns the scratch of one worker for the associations of a table, with the worker's finder.
func NewScratch(table *sad.Table, find *sad.Finder) *Scratch {
	// Each packet leaves one report of a move at most, and one of a bound.
	return &Scratch{table: table, take: plainTaken{find: find}, id: uint16(rand.Uint32()), Ports: ipfrag.NewPorts(), opens: make([]openRun, 0, packet.BatchMax), Reports: make([]Report, 0, 4*packet.BatchMax)}
}

// headerLen is the length of SPI and sequence number.
const headerLen = 8

// trailerLen is the length of pad length and next header.
const trailerLen = 2

// udpLen is the length of a UDP header.
const udpLen = 8

// padding holds what padding bytes are: 1, 2, 3, ... (RFC 4303, 2.4).
var padding = func() (p [255]byte) {
	for i := range p {
		p[i] = byte(i + 1)
	}
	return p
}()
