package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Range is an inclusive range of addresses of one family.
type Range struct{ First, Last netip.Addr }

func (r Range) contains(o Range) bool {
	return r.First.Is4() == o.First.Is4() && r.First.Compare(o.First) <= 0 && o.Last.Compare(r.Last) <= 0
}

func (r Range) String() string {
	if p, ok := r.prefix(); ok {
		return p.String()
	}
	return r.First.String() + "-" + r.Last.String()
}

// prefix returns the prefix that is exactly this range, if there is one.
func (r Range) prefix() (netip.Prefix, bool) {
	for bits := 0; bits <= r.First.BitLen(); bits++ {
		p := netip.PrefixFrom(r.First, bits)
		if p.Masked().Addr() == r.First && lastOf(p) == r.Last {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// Prefixes splits the range into the fewest prefixes.
func (r Range) Prefixes() []netip.Prefix {
	var out []netip.Prefix
	for at := r.First; at.IsValid() && at.Compare(r.Last) <= 0; {
		best := netip.PrefixFrom(at, at.BitLen())
		for bits := at.BitLen() - 1; bits >= 0; bits-- {
			p := netip.PrefixFrom(at, bits)
			if p.Masked().Addr() != at || lastOf(p).Compare(r.Last) > 0 {
				break
			}
			best = p
		}
		out = append(out, best)
		at = lastOf(best).Next()
	}
	return out
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// TrafficSelector is one side of a selector, as in swanctl.conf: a prefix, an
// address or a range FIRST-LAST, then optionally [protocol] or
// [protocol/port] or [protocol/first-last], e.g. 198.51.100.0/24[tcp/443].
type TrafficSelector struct {
	Range               Range
	Proto               uint8 // 0 is any
	FirstPort, LastPort uint16
}

var protocols = map[string]uint8{"any": 0, "icmp": 1, "igmp": 2, "ipip": 4, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58, "icmpv6": 58, "ospf": 89, "sctp": 132}

func (t *TrafficSelector) parse(text string) error {
	where, filter, hasFilter := strings.Cut(strings.TrimSpace(text), "[")
	where = strings.TrimSpace(where)
	if where == "dynamic" {
		return fmt.Errorf("dynamic needs IKE; write the prefix out")
	}
	if first, last, ok := strings.Cut(where, "-"); ok {
		a, errA := netip.ParseAddr(strings.TrimSpace(first))
		b, errB := netip.ParseAddr(strings.TrimSpace(last))
		if errA != nil || errB != nil || a.Zone() != "" || b.Zone() != "" || a.Is4() != b.Is4() || a.Compare(b) > 0 {
			return fmt.Errorf("%q is not a range of addresses FIRST-LAST of one family", shorten(where))
		}
		t.Range = Range{a, b}
	} else if strings.Contains(where, "/") {
		p, err := netip.ParsePrefix(where)
		if err != nil {
			return fmt.Errorf("%q is not a prefix ADDRESS/LENGTH", shorten(where))
		}
		if p.Masked() != p {
			return fmt.Errorf("%s has host bits set; did you mean %s?", p, p.Masked())
		}
		t.Range = Range{p.Addr(), lastOf(p)}
	} else {
		a, err := netip.ParseAddr(where)
		if err != nil || a.Zone() != "" {
			return fmt.Errorf("%q is not a prefix, an address or a range", shorten(where))
		}
		t.Range = Range{a, a}
	}
	if t.Range.First.Is4In6() {
		return fmt.Errorf("%q is an IPv4 address written as IPv6", shorten(where))
	}
	t.FirstPort, t.LastPort = 0, 65535
	if !hasFilter {
		return nil
	}
	filter, closed := strings.CutSuffix(strings.TrimSpace(filter), "]")
	if !closed {
		return fmt.Errorf("%q: the closing ] is missing", shorten(text))
	}
	proto, ports, hasPorts := strings.Cut(filter, "/")
	if n, ok := protocols[proto]; ok {
		t.Proto = n
	} else if n, err := strconv.ParseUint(proto, 10, 8); err == nil {
		t.Proto = uint8(n)
	} else {
		names := make([]string, 0, len(protocols))
		for k := range protocols {
			names = append(names, k)
		}
		return fmt.Errorf("unknown protocol %q: did you mean %q?", shorten(proto), nearest(proto, sorted(names)))
	}
	if !hasPorts || ports == "any" {
		return nil
	}
	if t.Proto != 6 && t.Proto != 17 && t.Proto != 132 && t.Proto != 33 && t.Proto != 136 {
		return fmt.Errorf("%q: ports need tcp, udp, udplite, dccp or sctp", shorten(filter))
	}
	first, last, isRange := strings.Cut(ports, "-")
	a, err := strconv.ParseUint(first, 10, 16)
	b := a
	if err == nil && isRange {
		b, err = strconv.ParseUint(last, 10, 16)
	}
	if err != nil || b < a {
		return fmt.Errorf("%q is not a port or a range of ports", shorten(ports))
	}
	t.FirstPort, t.LastPort = uint16(a), uint16(b)
	return nil
}

// Selector is one rule of a policy: traffic between any of Local and any of
// Remote. Proto 0 is any protocol; ports 0 to 65535 are any port.
type Selector struct {
	Local, Remote           []Range
	Proto                   uint8
	LocalFirst, LocalLast   uint16
	RemoteFirst, RemoteLast uint16
}

// pair joins the two sides into selectors: one for each family and each
// combination of protocols and ports that agrees.
func pair(local, remote []TrafficSelector) []Selector {
	type key struct {
		v4          bool
		proto       uint8
		first, last uint16
	}
	group := func(side []TrafficSelector) (keys []key, ranges map[key][]Range) {
		ranges = map[key][]Range{}
		for _, t := range side {
			k := key{t.Range.First.Is4(), t.Proto, t.FirstPort, t.LastPort}
			if _, ok := ranges[k]; !ok {
				keys = append(keys, k)
			}
			ranges[k] = append(ranges[k], t.Range)
		}
		return keys, ranges
	}
	localKeys, localRanges := group(local)
	remoteKeys, remoteRanges := group(remote)
	var out []Selector
	for _, l := range localKeys {
		for _, r := range remoteKeys {
			if l.v4 != r.v4 || l.proto != r.proto && l.proto != 0 && r.proto != 0 {
				continue
			}
			out = append(out, Selector{localRanges[l], remoteRanges[r], max(l.proto, r.proto), l.first, l.last, r.first, r.last})
		}
	}
	return out
}

// covers says whether s takes everything that o does.
func (s *Selector) covers(o *Selector) bool {
	return (s.Proto == 0 || s.Proto == o.Proto) &&
		s.LocalFirst <= o.LocalFirst && o.LocalLast <= s.LocalLast &&
		s.RemoteFirst <= o.RemoteFirst && o.RemoteLast <= s.RemoteLast &&
		coversAll(s.Local, o.Local) && coversAll(s.Remote, o.Remote)
}

func coversAll(outer, inner []Range) bool {
	for _, i := range inner {
		covered := false
		for _, o := range outer {
			covered = covered || o.contains(i)
		}
		if !covered {
			return false
		}
	}
	return true
}

// Sides writes both sides as the configuration file does.
func (s *Selector) Sides() (local, remote []string) {
	write := func(ranges []Range, first, last uint16) (out []string) {
		filter := ""
		if s.Proto != 0 {
			name := strconv.Itoa(int(s.Proto))
			for word, n := range protocols {
				if n == s.Proto && word != "ipv6-icmp" {
					name = word
				}
			}
			switch {
			case first == last:
				filter = fmt.Sprintf("[%s/%d]", name, first)
			case first != 0 || last != 65535:
				filter = fmt.Sprintf("[%s/%d-%d]", name, first, last)
			default:
				filter = "[" + name + "]"
			}
		}
		for _, r := range ranges {
			out = append(out, r.String()+filter)
		}
		return out
	}
	return write(s.Local, s.LocalFirst, s.LocalLast), write(s.Remote, s.RemoteFirst, s.RemoteLast)
}
