package packet

import "encoding/binary"

// ICMP types that are errors, and so quote a packet (RFC 792; RFC 4443, 2.1).
const (
	icmpUnreachable  = 3
	icmpTimeExceeded = 11
	icmpParameter    = 12
	icmp6ErrorMax    = 127
)

// IsError reports whether p is a whole ICMP or ICMPv6 error, or the first fragment of one.
func IsError(p *Packet) bool {
	if p.Flags&FlagPorts == 0 {
		return false
	}
	kind := p.SrcPort >> 8
	switch p.Proto {
	case ProtoICMP:
		return p.Version == 4 && (kind == icmpUnreachable || kind == icmpTimeExceeded || kind == icmpParameter)
	case ProtoICMPv6:
		return p.Version == 6 && kind != 0 && kind <= icmp6ErrorMax
	}
	return false
}

// Quote is the packet that an ICMP error is about, as far as the error holds it.
type Quote struct {
	Flow
	// Total is the length of the datagram as its header says, in bytes.
	Total int
	// Data is what the error holds of it behind its IP headers; nil of a later fragment.
	Data []byte
}

// icmpHeaderLen is the length of an ICMP error's own header.
const icmpHeaderLen = 8

// QuoteOf reads what the ICMP error of packet i quotes. ok is false if that is no packet of its family, or ends before the first
// eight bytes behind the IP headers, which every error holds (RFC 792; RFC 4443, 2.4 (c)).
func QuoteOf(b *Batch, i int) (q Quote, ok bool) {
	p := &b.P[i]
	h := b.IP(i)[p.L4-p.L3:]
	if len(h) < icmpHeaderLen {
		return q, false
	}
	h = h[icmpHeaderLen:]
	at, later := 20, false
	if q.Version = p.Version; p.Version == 4 {
		if len(h) < at || h[0]>>4 != 4 || h[0]&15 < 5 {
			return q, false
		}
		at = int(h[0]&15) * 4
		q.Proto, q.Total = h[9], int(binary.BigEndian.Uint16(h[2:]))
		q.Src, q.Dst = addr4(h[12:]), addr4(h[16:])
		later = binary.BigEndian.Uint16(h[6:])&0x1fff != 0
	} else {
		at = 40
		if len(h) < at || h[0]>>4 != 6 {
			return q, false
		}
		q.Proto, q.Total = h[6], 40+int(binary.BigEndian.Uint16(h[4:]))
		q.Src, q.Dst = addr6(h[8:]), addr6(h[24:])
		for n := 0; isExtension(q.Proto); n++ {
			if n == extensionsMax || len(h) < at+8 {
				return q, false
			}
			next, length := h[at], 8
			if q.Proto != ProtoFragment {
				length += int(h[at+1]) * 8
			} else if later = binary.BigEndian.Uint16(h[at+2:])&^7 != 0; later {
				q.Proto = next
				break
			}
			q.Proto = next
			at += length
		}
	}
	if len(h) < at+8 || q.Total < at {
		return q, false
	}
	if later {
		q.Flags = FlagFragment | FlagLaterFragment
		return q, true
	}
	q.Data = h[at:]
	if hasPorts(q.Proto) {
		q.Flags = FlagPorts
		q.SrcPort = binary.BigEndian.Uint16(q.Data)
		if q.Proto != ProtoICMP && q.Proto != ProtoICMPv6 {
			q.DstPort = binary.BigEndian.Uint16(q.Data[2:])
		}
	}
	return q, true
}

// Reported returns the flow by which selectors judge the ICMP error of packet i if they do not name itself: that of a packet
// in the error's direction between the ends of the packet it is about (RFC 4301, 6.2). The error must go to whoever sent that
// packet; who reports it may have any address. ok is false if i is no such error.
func Reported(b *Batch, i int) (f Flow, ok bool) {
	if !IsError(&b.P[i]) {
		return f, false
	}
	q, ok := QuoteOf(b, i)
	if !ok || q.Src != b.Flows[i].Dst {
		return f, false
	}
	return q.Back(), true
}
