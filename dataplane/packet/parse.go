package packet

import (
	"encoding/binary"
)

// IP protocol numbers and IPv6 next headers (IANA, protocol-numbers) that the
// packet path tells apart.
const (
	ProtoHopByHop    = 0
	ProtoICMP        = 1
	ProtoIPv4        = 4
	ProtoTCP         = 6
	ProtoUDP         = 17
	ProtoDCCP        = 33
	ProtoIPv6        = 41
	ProtoRouting     = 43
	ProtoFragment    = 44
	ProtoGRE         = 47
	ProtoESP         = 50
	ProtoAH          = 51
	ProtoICMPv6      = 58
	ProtoNone        = 59
	ProtoDestination = 60
	ProtoSCTP        = 132
	ProtoUDPLite     = 136
)

// EtherTypes of the frames that are parsed.
const (
	EtherIPv4 = 0x0800
	EtherIPv6 = 0x86dd
	EtherVLAN = 0x8100 // IEEE 802.1Q
	EtherQinQ = 0x88a8 // IEEE 802.1ad
)

// EtherLen is the length of an Ethernet header without a tag.
const EtherLen = 14

// tagLen is the length of a tag, of which as many as tagsMax are stepped over.
const (
	tagLen  = 4
	tagsMax = 2
)

// extensionsMax is the largest number of IPv6 extension headers that are walked.
const extensionsMax = 8

// optionJumbo is the IPv6 Jumbo Payload option (RFC 2675, 2).
const optionJumbo = 0xc2

// flagsKept are the flags that say where a packet comes from, not what is in it.
const flagsKept = FlagDecapsulated | FlagLocal

// portProtos has a bit for every protocol below 64 whose first four bytes [setPorts] reads.
const portProtos uint64 = 1<<ProtoICMP | 1<<ProtoTCP | 1<<ProtoUDP | 1<<ProtoDCCP | 1<<ProtoICMPv6

// Parse fills L3, L4, End, Version, Proto, TOS, TTL, Flags and the ports of
// b.P[i] from its frame of Len bytes at Addr, which may hold anything, and b.Flows[i]. It checks what a
// router must (RFC 1812, 5.2.2; RFC 8200, 3 and 4) and returns DropNone, or why the
// packet must end; then the record's parsed fields mean nothing. Priority
// tags (VLAN 0) are stepped over, as many as the steering program looks through. AH counts as an upper layer, as ESP does.
// Addresses are not judged: see [Martian]. FlagDecapsulated and FlagLocal stay.
func Parse(b *Batch, i int) Drop {
	p := &b.P[i]
	f := b.Frame(i)
	p.Flags &= flagsKept
	if len(f) >= PlainLen && f[12] == 0x08 && f[13] == 0x00 && ParsePlain(p, &b.Flows[i], (*[PlainLen]byte)(f)) {
		return DropNone
	}
	if len(f) < EtherLen {
		return DropRunt
	}
	l3 := EtherLen
	etherType := binary.BigEndian.Uint16(f[12:])
	for n := 0; n < tagsMax && (etherType == EtherVLAN || etherType == EtherQinQ); n++ {
		l3 += tagLen
		if len(f) < l3 {
			return DropRunt
		}
		if binary.BigEndian.Uint16(f[l3-tagLen:])&0x0fff != 0 {
			return DropVLAN
		}
		etherType = binary.BigEndian.Uint16(f[l3-2:])
		p.Flags |= FlagVLAN
	}
	p.L3 = uint16(l3)
	switch etherType {
	case EtherIPv4:
		return parse4(p, &b.Flows[i], f[l3:])
	case EtherIPv6:
		return parse6(p, &b.Flows[i], f[l3:])
	}
	return DropNotIP
}

// PlainLen is the part of a frame that [ParsePlain] reads: Ethernet header, IPv4 header without options, ports.
const PlainLen = EtherLen + 20 + 4

// ParsePlain is Parse and ParseIP for what most packets are: IPv4 without options, whole, with UDP, TCP or ESP in it, whose header lies
// EtherLen bytes behind the frame's start. It reads whole words and leaves everything else, and whatever is wrong, to
// the rest of them.
//
//	word  bytes  holds
//	a     12-19  EtherType (not looked at), version and header length, TOS, total length, identification
//	b     20-27  fragment, TTL, protocol, checksum, source (first half)
//	c     28-35  source (second half), destination, source port
func ParsePlain(p *Packet, f *Flow, h *[PlainLen]byte) bool {
	a, b, c := binary.LittleEndian.Uint64(h[12:]), binary.LittleEndian.Uint64(h[20:]), binary.LittleEndian.Uint64(h[28:])
	const (
		fragmented   = 0xffbf // of b: all but DF
		dontFragment = 0x0040
	)
	proto := uint8(b >> 24)
	total := uint16(h[16])<<8 | uint16(h[17])
	if uint8(a>>16) != 0x45 || b&fragmented != 0 || total < 24 || int(total)+EtherLen > int(p.Len) {
		return false
	}
	if !PlainSum(a, b, c) {
		return false
	}
	flags := p.Flags
	if b&dontFragment != 0 {
		flags |= FlagDF
	}
	src, dst := uint16(0), uint16(0)
	switch proto {
	case ProtoUDP, ProtoTCP:
		flags |= FlagPorts
		ports := binary.BigEndian.Uint32(h[34:])
		src, dst = uint16(ports>>16), uint16(ports)
	case ProtoESP:
	default:
		return false
	}
	p.L3, p.L4, p.End = EtherLen, EtherLen+20, EtherLen+total
	p.SrcPort, p.DstPort = src, dst
	p.Version, p.Proto, p.TOS, p.TTL = 4, proto, uint8(a>>24), uint8(b>>16)
	p.Flags = flags
	f.Set4(binary.BigEndian.Uint32(h[26:]), binary.BigEndian.Uint32(h[30:]), RestOf(src, dst, flags, 4, proto))
	return true
}

// ParseIP is [Parse] for a packet whose L3 is already set: an inner packet after
// decapsulation, or one from a TUN device. The version nibble says the family.
func ParseIP(b *Batch, i int) Drop {
	p := &b.P[i]
	f := b.Frame(i)
	p.Flags &= flagsKept
	if p.L3 == EtherLen && len(f) >= PlainLen && ParsePlain(p, &b.Flows[i], (*[PlainLen]byte)(f)) {
		return DropNone
	}
	if int(p.L3) >= len(f) {
		return DropRunt
	}
	h := f[p.L3:]
	switch h[0] >> 4 {
	case 4:
		return parse4(p, &b.Flows[i], h)
	case 6:
		return parse6(p, &b.Flows[i], h)
	}
	return DropBadIPHeader
}

// parse4 parses h, the bytes from the IPv4 header to the end of the frame.
func parse4(p *Packet, f *Flow, h []byte) Drop {
	if len(h) < 20 {
		return DropRunt
	}
	header := 20
	if h[0] != 0x45 {
		if h[0]>>4 != 4 {
			return DropBadIPHeader
		}
		header = int(h[0]&15) * 4
		if header < 20 {
			return DropBadIPHeader
		}
		if len(h) < header {
			return DropRunt
		}
		p.Flags |= FlagOptions
	}
	total := int(binary.BigEndian.Uint16(h[2:]))
	if total < header || total > len(h) {
		return DropBadIPHeader
	}
	// The sum is right in either byte order (RFC 1071, 2 (B)).
	sum := binary.LittleEndian.Uint64(h)
	sum = sum>>32 + sum&0xffffffff
	more := binary.LittleEndian.Uint64(h[8:])
	sum += more>>32 + more&0xffffffff + uint64(binary.LittleEndian.Uint32(h[16:]))
	for k := 20; k < header; k += 4 {
		sum += uint64(binary.LittleEndian.Uint32(h[k:]))
	}
	sum = sum>>32 + sum&0xffffffff
	if fold(sum) != 0xffff {
		return DropBadIPChecksum
	}
	p.Version = 4
	p.TOS = h[1]
	p.TTL = h[8]
	p.Proto = h[9]
	p.L4 = p.L3 + uint16(header)
	p.End = p.L3 + uint16(total)
	// Bits: reserved, DF, MF, 13 bits of offset in units of 8 bytes (RFC 791, 3.1).
	if fragment := binary.BigEndian.Uint16(h[6:]); fragment&0x7fff != 0 {
		if fragment&0x4000 != 0 {
			p.Flags |= FlagDF
		}
		if fragment&0x3fff != 0 {
			p.Flags |= FlagFragment
		}
		if offset := int(fragment&0x1fff) * 8; offset != 0 {
			p.Flags |= FlagLaterFragment
			if offset+total-header > 65535-header { // would reassemble to more than a datagram holds
				return DropBadIPHeader
			}
		}
	}
	setPorts(p, h[header:total])
	f.set(p, h)
	return DropNone
}

// parse6 parses h, the bytes from the IPv6 header to the end of the frame. A
// datagram that claims to be a jumbogram ends as a bad extension header.
func parse6(p *Packet, f *Flow, h []byte) Drop {
	if len(h) < 40 {
		return DropRunt
	}
	if h[0]>>4 != 6 {
		return DropBadIPHeader
	}
	total := 40 + int(binary.BigEndian.Uint16(h[4:]))
	if total > len(h) {
		return DropBadIPHeader
	}
	h = h[:total]
	p.Version = 6
	p.TOS = h[0]<<4 | h[1]>>4
	p.TTL = h[7]
	p.Proto = h[6]
	p.Flags |= FlagDF
	p.End = p.L3 + uint16(total)
	l4 := 40
	if isExtension(p.Proto) {
		p.Flags |= FlagOptions
		if l4 = walkExtensions(p, h); l4 < 0 {
			return DropBadExtensionHeader
		}
	}
	p.L4 = p.L3 + uint16(l4)
	setPorts(p, h[l4:])
	f.set(p, h)
	return DropNone
}

// isExtension reports whether next is an IPv6 extension header that the parser
// steps over.
func isExtension(next uint8) bool {
	const set uint64 = 1<<ProtoHopByHop | 1<<ProtoRouting | 1<<ProtoFragment | 1<<ProtoDestination
	return next < 64 && set>>next&1 != 0
}

// walkExtensions steps over the extension headers of the IPv6 datagram h,
// sets Proto to the first header that is none, adds the fragment
// flags, and returns that header's offset in h, or -1 if the chain is refused:
// cut short (RFC 7112 asks for all of it in a first fragment), longer than extensionsMax,
// hop-by-hop options anywhere but first, a second fragment header, or routing type 0
// (RFC 5095). Behind a later fragment's header nothing is known.
func walkExtensions(p *Packet, h []byte) int {
	at, next := 40, p.Proto
	fragmented := false
	for n := 0; isExtension(next); n++ {
		if n == extensionsMax || len(h)-at < 8 {
			return -1
		}
		length := 8
		if next != ProtoFragment {
			length += int(h[at+1]) * 8
			if length > len(h)-at {
				return -1
			}
		}
		header := h[at : at+length]
		switch next {
		case ProtoHopByHop:
			if n != 0 || !hopByHopOK(header[2:]) {
				return -1
			}
		case ProtoRouting:
			if header[2] == 0 {
				return -1
			}
		case ProtoFragment:
			if fragmented {
				return -1
			}
			fragmented = true
			// 13 bits of offset in units of 8 bytes, 2 reserved, M (RFC 8200, 4.5).
			word := binary.BigEndian.Uint16(header[2:])
			offset, more := int(word&^7), word&1 != 0
			payload := len(h) - at - 8
			if more && payload%8 != 0 || offset+at-40+payload > 65535 {
				return -1
			}
			if offset != 0 || more {
				p.Flags |= FlagFragment
			}
			if offset != 0 {
				p.Flags |= FlagLaterFragment
				p.Proto = header[0]
				return at + 8
			}
		}
		next = header[0]
		at += length
	}
	p.Proto = next
	return at
}

// hopByHopOK reports whether the options of a hop-by-hop header are well formed
// and none of them is a Jumbo Payload.
func hopByHopOK(options []byte) bool {
	for len(options) > 0 {
		if options[0] == 0 { // Pad1 has no length octet
			options = options[1:]
			continue
		}
		if options[0] == optionJumbo || len(options) < 2 || len(options) < 2+int(options[1]) {
			return false
		}
		options = options[2+int(options[1]):]
	}
	return true
}

// setPorts reads the ports, or the ICMP type and code, from the upper-layer bytes
// u. A later fragment has none; an upper layer cut short gives none either.
func setPorts(p *Packet, u []byte) {
	if len(u) < 4 || p.Flags&FlagLaterFragment != 0 || !hasPorts(p.Proto) {
		p.SrcPort, p.DstPort = 0, 0
		return
	}
	p.Flags |= FlagPorts
	p.SrcPort = binary.BigEndian.Uint16(u)
	p.DstPort = 0
	if p.Proto != ProtoICMP && p.Proto != ProtoICMPv6 {
		p.DstPort = binary.BigEndian.Uint16(u[2:])
	}
}

func hasPorts(proto uint8) bool {
	if proto < 64 {
		return portProtos>>proto&1 != 0
	}
	return proto == ProtoSCTP || proto == ProtoUDPLite
}
