// Package ipfrag is what the gateway knows of fragments: a [Reassembler] puts the outer datagrams together that are for
// the gateway itself (RFC 4303, 3.4.1: before decryption), and [Ports] lets later inner fragments follow the first one's
// ports (RFC 4301, 7).
//
// Both are bounded in memory and time, belong to one worker, read no clock and never allocate after they are made. They
// take packets that packet.Parse or packet.ParseIP accepted. Not handled: IPv6 fragments whose Fragment header is followed
// by further extension headers are found by the protocol of the first of these; datagrams larger than a frame.
package ipfrag

import (
	"encoding/binary"
	"math/bits"

	"sallyport/dataplane/packet"
)

// fragment is what the headers of a fragment say.
type fragment struct {
	id uint32
	// header is the length of what stands in front of the whole datagram's data: the IPv4 header, or the unfragmentable part
	// of IPv6 without the Fragment header (RFC 8200, 4.5). skip is the length of the Fragment header, 0 for IPv4.
	header, skip int
	// next is the offset of the octet that names the Fragment header, and proto what it will name instead (IPv6).
	next  int
	proto uint8
	// offset and length are those of the fragment's data, in bytes; more says that it is not the last.
	offset, length int
	more           bool
}

// fragmentOf reads the headers of the fragment in datagram h with record p. ok is false if there is no fragment.
func fragmentOf(p *packet.Packet, h []byte) (f fragment, ok bool) {
	if p.Flags&packet.FlagFragment == 0 {
		return f, false
	}
	if p.Version == 4 {
		word := binary.BigEndian.Uint16(h[6:])
		f.id = uint32(binary.BigEndian.Uint16(h[4:]))
		f.header, f.proto = int(p.L4-p.L3), p.Proto
		f.offset, f.more = int(word&0x1fff)*8, word&0x2000 != 0
		f.length = len(h) - f.header
		return f, true
	}
	at, name := 40, 6
	for h[name] != packet.ProtoFragment {
		switch h[name] {
		case packet.ProtoHopByHop, packet.ProtoRouting, packet.ProtoDestination:
		default:
			return f, false
		}
		if len(h) < at+8 {
			return f, false
		}
		name = at
		at += 8 + int(h[at+1])*8
	}
	if len(h) < at+8 {
		return f, false
	}
	word := binary.BigEndian.Uint16(h[at+2:])
	f.id = binary.BigEndian.Uint32(h[at+4:])
	f.header, f.skip, f.next, f.proto = at, 8, name, h[at]
	f.offset, f.more = int(word&^7), word&1 != 0
	f.length = len(h) - at - 8
	return f, true
}

// Spread returns a number that is the same for all fragments between two addresses and that nobody who does not know
// the seed can foresee: it says which worker's they are.
func Spread(f *packet.Flow, seed uint64) uint32 {
	h := mix(f.Src.Lo^seed, f.Dst.Lo^0x9e3779b97f4a7c15)
	h = mix(h^f.Src.Hi, f.Dst.Hi^seed)
	return uint32(h >> 32)
}

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0xa0761d6478bd642f, b^0xe7037ed1a0b428db)
	return hi ^ lo
}
