package forward

import (
	"encoding/binary"
	"math/bits"

	"sallyport/dataplane/packet"
)

const (
	tcpHeaderLen = 20
	tcpSYN       = 0x02

	optionEnd = 0
	optionNop = 1
	optionMSS = 2
)

// ClampMSS lowers the Maximum Segment Size option of packet i, if it is a TCP SYN
// that announces more than fits a datagram of mtu bytes: mtu - 40 over
// IPv4, mtu - 60 over IPv6 (RFC 6691: options of IP and TCP are the sender's to subtract).
// It never raises one and never adds one, mends the TCP checksum (RFC 1624),
// and reports whether it changed the packet. Malformed options end the search.
func ClampMSS(b *packet.Batch, i, mtu int) bool {
	p := &b.P[i]
	if p.Proto != packet.ProtoTCP || p.Flags&packet.FlagLaterFragment != 0 {
		return false
	}
	t := b.Frame(i)[p.L4:p.End]
	if len(t) < tcpHeaderLen || t[13]&tcpSYN == 0 {
		return false
	}
	header := int(t[12]>>4) * 4
	limit := mtu - 20 - tcpHeaderLen
	if p.Version == 6 {
		limit = mtu - 40 - tcpHeaderLen
	}
	if header < tcpHeaderLen || header > len(t) || limit <= 0 || limit > 0xffff {
		return false
	}
	changed := false
	for at := tcpHeaderLen; at < header; {
		switch t[at] {
		case optionEnd:
			return changed
		case optionNop:
			at++
			continue
		}
		if header-at < 2 || t[at+1] < 2 || int(t[at+1]) > header-at {
			return changed
		}
		if t[at] == optionMSS && t[at+1] == 4 {
			changed = lowerMSS(t, at+2, uint16(limit)) || changed
		}
		at += int(t[at+1])
	}
	return changed
}

// lowerMSS lowers the 16-bit value at offset at of the TCP header t to limit, if it is greater.
func lowerMSS(t []byte, at int, limit uint16) bool {
	old := binary.BigEndian.Uint16(t[at:])
	if old <= limit {
		return false
	}
	binary.BigEndian.PutUint16(t[at:], limit)
	if at&1 != 0 { // the value straddles two words of the sum
		old, limit = bits.ReverseBytes16(old), bits.ReverseBytes16(limit)
	}
	check := binary.BigEndian.Uint16(t[16:])
	binary.BigEndian.PutUint16(t[16:], packet.ChecksumUpdate16(check, old, limit))
	return true
}
