package esp

import (
	"encoding/binary"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
)

// The GRE header (RFC 2784, 2; RFC 2890, 2), in front of an inner packet:
//
//	0     1     2           4            8           12
//	| C K S ... version | protocol | (checksum, 0) | (key) | (sequence number) |
//
// What is sent has no checksum, as ESP protects better, and no sequence number.
const (
	greChecksum = 0x8000
	greKey      = 0x2000
	greSequence = 0x1000
	greRefused  = 0x4000 | 0x0800 | 0x0400 | 0x0007 // RFC 1701's routing, and versions other than 0
	greLen      = 4                                 // of the header, and of each optional part

	greIPv4 = 0x0800
	greIPv6 = 0x86dd
)

// putGRE writes the header of a packet of the given IP version for an association of GRE; h has its length.
func putGRE(h []byte, o *sad.Outbound, version uint8) {
	protocol := uint32(greIPv4)
	if version == 6 {
		protocol = greIPv6
	}
	if o.Flags&sad.FlagGREKey != 0 {
		protocol |= greKey << 16
		binary.BigEndian.PutUint32(h[greLen:], o.GREKey)
	}
	binary.BigEndian.PutUint32(h, protocol)
}

// readGRE reads the header of a GRE packet that came out of an association: its length, and the IP version of what is behind it as a next
// header of tunnel mode. What comes with a checksum is held against it; a sequence number says nothing that ESP's does not.
func readGRE(gre []byte, in *sad.Inbound) (length int, next uint8, reason packet.Drop) {
	if len(gre) < greLen {
		return 0, 0, packet.DropBadGRE
	}
	word := binary.BigEndian.Uint32(gre)
	flags := uint16(word >> 16)
	switch uint16(word) {
	case greIPv4:
		next = packet.ProtoIPv4
	case greIPv6:
		next = packet.ProtoIPv6
	default:
		return 0, 0, packet.DropBadGRE
	}
	length = greLen
	for _, part := range [...]uint16{greChecksum, greKey, greSequence} {
		if flags&part != 0 {
			length += greLen
		}
	}
	keyed := in.Flags&sad.FlagGREKey != 0
	if flags&greRefused != 0 || len(gre) < length || flags&greKey != 0 != keyed {
		return 0, 0, packet.DropBadGRE
	}
	at := greLen
	if flags&greChecksum != 0 {
		if packet.Checksum(gre, 0) != 0 {
			return 0, 0, packet.DropBadGRE
		}
		at += greLen
	}
	if keyed && binary.BigEndian.Uint32(gre[at:]) != in.GREKey {
		return 0, 0, packet.DropBadGRE
	}
	return length, next, packet.DropNone
}
