package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sallyport/dataplane/spd"
)

// TrafficSelector is one side of a selector, as in swanctl.conf: a prefix, an
// address or a range FIRST-LAST, then optionally [protocol] or
// [protocol/port] or [protocol/first-last], e.g. 198.51.100.0/24[tcp/443].
type TrafficSelector struct {
	Range spd.Range
	Proto uint8 // 0 is any
	Ports spd.PortRange
	// Dynamic stands for the tunnel's own end on that side: the virtual address if there is
	// one, else the outer address. Range is empty then.
	Dynamic bool
}

var protocols = map[string]uint8{"any": 0, "icmp": 1, "igmp": 2, "ipip": 4, "tcp": 6, "udp": 17, "ipv6": 41, "gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58, "icmpv6": 58, "ospf": 89, "sctp": 132}

func (t *TrafficSelector) parse(text string) error {
	where, filter, hasFilter := strings.Cut(strings.TrimSpace(text), "[")
	where = strings.TrimSpace(where)
	if where == "dynamic" {
		t.Dynamic = true
	} else if first, last, ok := strings.Cut(where, "-"); ok {
		a, errA := netip.ParseAddr(strings.TrimSpace(first))
		b, errB := netip.ParseAddr(strings.TrimSpace(last))
		if errA != nil || errB != nil || a.Zone() != "" || b.Zone() != "" || a.Is4() != b.Is4() || a.Compare(b) > 0 {
			return fmt.Errorf("%q is not a range of addresses FIRST-LAST of one family", shorten(where))
		}
		t.Range = spd.Range{First: a, Last: b}
	} else if strings.Contains(where, "/") {
		p, err := netip.ParsePrefix(where)
		if err != nil {
			return fmt.Errorf("%q is not a prefix ADDRESS/LENGTH", shorten(where))
		}
		if p.Masked() != p {
			return fmt.Errorf("%s has host bits set; did you mean %s?", p, p.Masked())
		}
		t.Range = spd.RangeOf(p)
	} else {
		a, err := netip.ParseAddr(where)
		if err != nil || a.Zone() != "" {
			return fmt.Errorf("%q is not a prefix, an address or a range", shorten(where))
		}
		t.Range = spd.Range{First: a, Last: a}
	}
	if !t.Dynamic && t.Range.First.Is4In6() {
		return fmt.Errorf("%q is an IPv4 address written as IPv6", shorten(where))
	}
	t.Ports = spd.AnyPorts
	if !hasFilter {
		return nil
	}
	filter, closed := strings.CutSuffix(strings.TrimSpace(filter), "]")
	if !closed {
		return fmt.Errorf("%q: the closing ] is missing", shorten(text))
	}
	proto, ports, hasPorts := strings.Cut(filter, "/")
	var err error
	if t.Proto, err = protocolOf(proto); err != nil {
		return err
	}
	if !hasPorts || ports == "any" {
		return nil
	}
	if !portsOf(t.Proto) {
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
	t.Ports = spd.PortRange{First: uint16(a), Last: uint16(b)}
	return nil
}

// protocolOf reads a protocol's word or number.
func protocolOf(text string) (uint8, error) {
	if n, ok := protocols[text]; ok {
		return n, nil
	}
	if n, err := strconv.ParseUint(text, 10, 8); err == nil {
		return uint8(n), nil
	}
	names := make([]string, 0, len(protocols))
	for k := range protocols {
		names = append(names, k)
	}
	return 0, fmt.Errorf("unknown protocol %q: did you mean %q?", shorten(text), nearest(text, sorted(names)))
}

// portsOf says whether packets of a protocol begin with two ports: TCP, UDP, DCCP, SCTP and UDP-Lite.
func portsOf(proto uint8) bool {
	return proto == 6 || proto == 17 || proto == 33 || proto == 132 || proto == 136
}

// Pair joins the two sides into selectors: one for each family and each
// combination of protocols and ports that agrees.
func Pair(local, remote []TrafficSelector) []spd.Selector {
	type key struct {
		v4    bool
		proto uint8
		ports spd.PortRange
	}
	group := func(side []TrafficSelector) (keys []key, ranges map[key][]spd.Range) {
		ranges = map[key][]spd.Range{}
		for _, t := range side {
			k := key{t.Range.First.Is4(), t.Proto, t.Ports}
			if _, ok := ranges[k]; !ok {
				keys = append(keys, k)
			}
			ranges[k] = append(ranges[k], t.Range)
		}
		return keys, ranges
	}
	localKeys, localRanges := group(local)
	remoteKeys, remoteRanges := group(remote)
	var out []spd.Selector
	for _, l := range localKeys {
		for _, r := range remoteKeys {
			if l.v4 != r.v4 || l.proto != r.proto && l.proto != 0 && r.proto != 0 {
				continue
			}
			out = append(out, spd.Selector{
				Local: localRanges[l], Remote: remoteRanges[r], Proto: max(l.proto, r.proto), LocalPorts: l.ports, RemotePorts: r.ports,
			})
		}
	}
	return out
}

// covers says whether a takes everything that b does.
func covers(a, b *spd.Selector) bool {
	return (a.Proto == 0 || a.Proto == b.Proto) &&
		coversPorts(a.LocalPorts, b.LocalPorts) && coversPorts(a.RemotePorts, b.RemotePorts) &&
		coversAll(a.Local, b.Local) && coversAll(a.Remote, b.Remote)
}

func coversPorts(a, b spd.PortRange) bool { return a.First <= b.First && b.Last <= a.Last }

// coversAll says whether each of inner lies within one of outer.
func coversAll(outer, inner []spd.Range) bool {
	for _, i := range inner {
		if !slices.ContainsFunc(outer, func(o spd.Range) bool { return o.Contains(i.First) && o.Contains(i.Last) }) {
			return false
		}
	}
	return true
}

// Sides writes both sides of a selector as the configuration file does.
func Sides(s *spd.Selector) (local, remote []string) {
	write := func(ranges []spd.Range, ports spd.PortRange) (out []string) {
		for _, r := range ranges {
			out = append(out, TrafficSelector{Range: r, Proto: s.Proto, Ports: ports}.String())
		}
		return out
	}
	return write(s.Local, s.LocalPorts), write(s.Remote, s.RemotePorts)
}

// String writes the selector as the configuration file does.
func (t TrafficSelector) String() string {
	where := "dynamic"
	if !t.Dynamic {
		where = t.Range.String()
	}
	if t.Proto == 0 {
		return where
	}
	name := strconv.Itoa(int(t.Proto))
	for word, n := range protocols {
		if n == t.Proto && word != "ipv6-icmp" {
			name = word
		}
	}
	switch {
	case t.Ports.First == t.Ports.Last:
		return fmt.Sprintf("%s[%s/%d]", where, name, t.Ports.First)
	case t.Ports != spd.AnyPorts:
		return fmt.Sprintf("%s[%s/%d-%d]", where, name, t.Ports.First, t.Ports.Last)
	}
	return fmt.Sprintf("%s[%s]", where, name)
}
