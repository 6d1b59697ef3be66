package message

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// TrafficSelector is a range of addresses and ports, both ends included. Protocol 0 is any; ports 0 to 65535 are any,
// and StartPort 65535 with EndPort 0 is OPAQUE (RFC 7296, 3.13.1). For ICMP a port is type<<8 | code. Start and End are
// of one family. It is comparable.
type TrafficSelector struct {
	Protocol           uint8
	StartPort, EndPort uint16
	Start, End         netip.Addr
}

const (
	selectorIPv4 = 7
	selectorIPv6 = 8
)

// SelectorOf returns the selector that matches everything to or from a prefix.
func SelectorOf(p netip.Prefix) TrafficSelector {
	p = p.Masked()
	last := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(last)*8; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	end, _ := netip.AddrFromSlice(last)
	return TrafficSelector{EndPort: 65535, Start: p.Addr(), End: end}
}

// IsOpaque says whether the selector matches only packets whose ports cannot be seen.
func (t TrafficSelector) IsOpaque() bool { return t.StartPort == 65535 && t.EndPort == 0 }

// Prefix returns the selector's addresses as a prefix, if they are one.
func (t TrafficSelector) Prefix() (netip.Prefix, bool) {
	for bits := t.Start.BitLen(); bits >= 0; bits-- {
		p := netip.PrefixFrom(t.Start, bits)
		if p.Masked().Addr() != t.Start {
			break
		}
		if SelectorOf(p).End == t.End {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// String returns the selector as swanctl prints it: 198.51.100.0/24, 198.51.100.1..198.51.100.9, 2001:db8::/32[tcp/443].
func (t TrafficSelector) String() string {
	s := fmt.Sprintf("%v..%v", t.Start, t.End)
	if p, ok := t.Prefix(); ok {
		s = p.String()
	}
	ports := ""
	switch {
	case t.StartPort == 0 && t.EndPort == 65535:
		if t.Protocol == 0 {
			return s
		}
	case t.IsOpaque():
		ports = "/opaque"
	case t.StartPort == t.EndPort:
		ports = fmt.Sprintf("/%d", t.StartPort)
	default:
		ports = fmt.Sprintf("/%d-%d", t.StartPort, t.EndPort)
	}
	protocol := "any"
	switch t.Protocol {
	case 0:
	case 1:
		protocol = "icmp"
	case 6:
		protocol = "tcp"
	case 17:
		protocol = "udp"
	case 58:
		protocol = "icmpv6"
	default:
		protocol = fmt.Sprint(t.Protocol)
	}
	return fmt.Sprintf("%s[%s%s]", s, protocol, ports)
}

// TS is a TSi or TSr payload.
type TS struct {
	Responder bool // TSr
	Selectors []TrafficSelector
	// Skipped counts selectors of types that are not understood; narrowing leaves them out.
	Skipped int
}

func (p *TS) Type() PayloadType {
	if p.Responder {
		return TypeTSr
	}
	return TypeTSi
}

func (p *TS) AppendBody(b []byte) []byte {
	b = append(b, byte(len(p.Selectors)), 0, 0, 0)
	for _, t := range p.Selectors {
		kind, length := byte(selectorIPv4), byte(16)
		if t.Start.Is6() {
			kind, length = selectorIPv6, 40
		}
		b = append(b, kind, t.Protocol, 0, length)
		b = binary.BigEndian.AppendUint16(b, t.StartPort)
		b = binary.BigEndian.AppendUint16(b, t.EndPort)
		b = append(b, t.Start.AsSlice()...)
		b = append(b, t.End.AsSlice()...)
	}
	return b
}

func parseTS(b []byte, responder bool) (*TS, error) {
	if len(b) < 4 {
		return nil, syntaxError("TS of %d bytes", len(b))
	}
	count := int(b[0])
	b = b[4:]
	if count == 0 || count > SelectorsMax {
		return nil, tooMany("%d selectors", count)
	}
	p := &TS{Responder: responder}
	if len(b) >= 16*count {
		p.Selectors = make([]TrafficSelector, 0, count)
	}
	for range count {
		if len(b) < 4 {
			return nil, syntaxError("selector of %d bytes", len(b))
		}
		length := int(binary.BigEndian.Uint16(b[2:]))
		if length < 4 || length > len(b) {
			return nil, syntaxError("selector of %d bytes in %d bytes", length, len(b))
		}
		selector, rest := b[:length], b[length:]
		b = rest
		var addrLen int
		switch selector[0] {
		case selectorIPv4:
			addrLen = 4
		case selectorIPv6:
			addrLen = 16
		default:
			p.Skipped++
			continue
		}
		if length != 8+2*addrLen {
			return nil, syntaxError("selector of type %d and %d bytes", selector[0], length)
		}
		t := TrafficSelector{
			Protocol:  selector[1],
			StartPort: binary.BigEndian.Uint16(selector[4:]),
			EndPort:   binary.BigEndian.Uint16(selector[6:]),
		}
		t.Start, _ = netip.AddrFromSlice(selector[8 : 8+addrLen])
		t.End, _ = netip.AddrFromSlice(selector[8+addrLen:])
		if t.End.Less(t.Start) || t.StartPort > t.EndPort && !t.IsOpaque() {
			return nil, syntaxError("selector that ends before it starts")
		}
		p.Selectors = append(p.Selectors, t)
	}
	if len(b) != 0 {
		return nil, syntaxError("%d bytes after the last selector", len(b))
	}
	return p, nil
}
