package testbed

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Kind is what a captured frame is.
type Kind uint8

// The kinds.
const (
	Other    Kind = iota // anything that has no kind of its own: cleartext, as a rule
	ESP                  // IP protocol 50
	ESPInUDP             // UDP 4500 without the non-ESP marker (RFC 3948, 2.1)
	IKE                  // UDP 500, or UDP 4500 with the marker or a keepalive
	ARP                  // Ethernet type 0x0806
	ND                   // neighbour discovery and listener reports: ICMPv6 130 to 137 and 143; all ICMPv6 between link-local addresses
	kindCount
)

func (k Kind) String() string {
	return [...]string{"other", "esp", "esp-in-udp", "ike", "arp", "nd", "invalid"}[min(k, kindCount)]
}

// Classify tells what an Ethernet frame is and between which IP addresses it goes
// (invalid addresses for what is not IP). One VLAN tag is looked through.
func Classify(frame []byte) (k Kind, src, dst netip.Addr) {
	if len(frame) < 14 {
		return Other, src, dst
	}
	kind, b := binary.BigEndian.Uint16(frame[12:]), frame[14:]
	if (kind == 0x8100 || kind == 0x88a8) && len(b) >= 4 {
		kind, b = binary.BigEndian.Uint16(b[2:]), b[4:]
	}
	var proto uint8
	switch {
	case kind == 0x0806:
		return ARP, src, dst
	case kind == 0x0800 && len(b) >= 20:
		src, dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		proto = b[9]
		fragment := binary.BigEndian.Uint16(b[6:])&0x1fff != 0
		b = b[min(len(b), max(20, int(b[0]&15)*4)):]
		if fragment && proto != 50 {
			return Other, src, dst
		}
	case kind == 0x86dd && len(b) >= 40:
		src, dst = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		proto, b = b[6], b[40:]
		if proto == 0 && len(b) >= 8 { // listener reports carry a router alert
			proto, b = b[0], b[min(len(b), 8+int(b[1])*8):]
		}
	default:
		return Other, src, dst
	}
	switch {
	case proto == 50:
		return ESP, src, dst
	case proto == 58 && len(b) >= 1 && (b[0] >= 130 && b[0] <= 137 || b[0] == 143):
		return ND, src, dst
	case proto == 58 && src.IsLinkLocalUnicast() && dst.IsLinkLocalUnicast(): // errors and the like of the link itself: nothing that was forwarded
		return ND, src, dst
	case proto == 17 && len(b) > 8:
		from, to := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		switch {
		case from == 500 || to == 500:
			return IKE, src, dst
		case from != 4500 && to != 4500:
			return Other, src, dst
		case len(b) == 9 && b[8] == 0xff || len(b) >= 12 && binary.BigEndian.Uint32(b[8:]) == 0:
			return IKE, src, dst
		case len(b) >= 16:
			return ESPInUDP, src, dst
		}
	}
	return Other, src, dst
}

// describe says in one line what a frame is, for a person who wants to know why it is there.
func describe(frame []byte) string {
	k, src, dst := Classify(frame)
	if !src.IsValid() {
		return fmt.Sprintf("%s, %d bytes, starts % x", k, len(frame), frame[:min(len(frame), 14)])
	}
	proto := -1
	switch {
	case src.Is4():
		proto = int(frame[14+9])
	default:
		proto = int(frame[14+6])
	}
	return fmt.Sprintf("%s, %d bytes, %s to %s, protocol %d", k, len(frame), src, dst, proto)
}
