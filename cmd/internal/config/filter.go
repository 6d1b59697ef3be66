package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
)

// FilterRule says what happens to some of a child's inner packets.
type FilterRule struct {
	Action    string            `yaml:"action"`    // allow or deny
	Direction string            `yaml:"direction"` // in, out or both
	LocalTS   []TrafficSelector `yaml:"local_ts"`  // unset: everything
	RemoteTS  []TrafficSelector `yaml:"remote_ts"`
	Protocol  Protocol          `yaml:"protocol"`
	ICMPType  ICMPTypes         `yaml:"icmp_type"` // with protocol icmp or icmpv6
}

func (r *FilterRule) setDefaults() { r.Direction, r.ICMPType = "both", ICMPTypes{Last: 255} }

// RateLimit bounds one direction of a child.
type RateLimit struct {
	Packets Size     `yaml:"packets"` // a second; 0: no bound
	Bytes   Size     `yaml:"bytes"`   // of inner packets, a second; 0: no bound
	Burst   Duration `yaml:"burst"`   // of the rate, that may be saved up; unset: 100ms
}

func (l *RateLimit) limit() sad.Limit {
	if l.Packets == 0 && l.Bytes == 0 {
		return sad.Limit{}
	}
	return sad.Limit{Packets: uint64(l.Packets), Bytes: uint64(l.Bytes), Burst: l.Burst.Duration}
}

// Protocol is an IP protocol by word or number; 0 is any.
type Protocol uint8

func (p *Protocol) parse(text string) error {
	n, err := protocolOf(text)
	*p = Protocol(n)
	return err
}

// ICMPTypes is a range of types of ICMP or ICMPv6.
type ICMPTypes struct{ First, Last uint8 }

func (t *ICMPTypes) parse(text string) error {
	first, last, isRange := strings.Cut(text, "-")
	a, err := strconv.ParseUint(strings.TrimSpace(first), 10, 8)
	b := a
	if err == nil && isRange {
		b, err = strconv.ParseUint(strings.TrimSpace(last), 10, 8)
	}
	if err != nil || b < a {
		return fmt.Errorf("%q is not a type of ICMP or a range of them, such as 8 or 3-5", shorten(text))
	}
	*t = ICMPTypes{uint8(a), uint8(b)}
	return nil
}

// Terms are what a child's inner packets are subject to, each way.
type Terms struct {
	FilterIn, FilterOut *sad.Filter // nil: all pass
	LimitIn, LimitOut   sad.Limit
}

// Of returns those of one direction.
func (t *Terms) Of(inbound bool) (*sad.Filter, sad.Limit) {
	if inbound {
		return t.FilterIn, t.LimitIn
	}
	return t.FilterOut, t.LimitOut
}

// terms checks a child's filters and limits.
func (k *checker) terms(child *Child, path string) Terms {
	var t Terms
	k.oneOf(path+".filter_default", child.FilterDefault, "allow", "deny")
	var in, out []spd.Policy
	for i := range child.Filters {
		r := &child.Filters[i]
		at := fmt.Sprintf("%s.filters[%d]", path, i)
		if r.Action == "" {
			k.errorAt(at, "%s: action is missing: allow or deny", at)
			continue
		}
		k.oneOf(at+".action", r.Action, "allow", "deny")
		k.oneOf(at+".direction", r.Direction, "in", "out", "both")
		p := spd.Policy{Name: fmt.Sprintf("rule %d", i+1), Action: spd.Bypass, Selectors: k.ruleSelectors(r, at)}
		if r.Action == "deny" {
			p.Action = spd.Discard
		}
		if len(p.Selectors) == 0 {
			continue
		}
		if r.Direction != "out" {
			in = append(in, p)
		}
		if r.Direction != "in" {
			out = append(out, p)
		}
	}
	deny := child.FilterDefault == "deny"
	for _, side := range []struct {
		rules []spd.Policy
		to    **sad.Filter
		name  string
	}{{in, &t.FilterIn, "in"}, {out, &t.FilterOut, "out"}} {
		if len(side.rules) == 0 && !deny {
			continue
		}
		var err error
		if *side.to, err = sad.NewFilter(side.rules, deny); err != nil {
			k.errorAt(path+".filters", "%s.filters, direction %s: %s", path, side.name, strings.ReplaceAll(err.Error(), "policy ", ""))
		}
	}
	for _, side := range []struct {
		key  string
		from *RateLimit
		to   *sad.Limit
	}{{"limit_in", &child.LimitIn, &t.LimitIn}, {"limit_out", &child.LimitOut, &t.LimitOut}} {
		at := path + "." + side.key
		if side.from.Burst.Duration == unset {
			side.from.Burst.Duration = 100 * time.Millisecond
		}
		if b := side.from.Burst.Duration; b < sad.BurstMin || b > sad.BurstMax {
			k.errorAt(at+".burst", "%s.burst: between %v and %v", at, sad.BurstMin, sad.BurstMax)
		}
		if side.from.Packets > sad.LimitMax || side.from.Bytes > sad.LimitMax {
			k.errorAt(at, "%s: at most %d a second", at, uint64(sad.LimitMax))
		}
		*side.to = side.from.limit()
	}
	return t
}

// every stands for a side of a rule that is left out.
var every = []TrafficSelector{
	{Range: spd.RangeOf(netip.MustParsePrefix("0.0.0.0/0")), Ports: spd.AnyPorts},
	{Range: spd.RangeOf(netip.MustParsePrefix("::/0")), Ports: spd.AnyPorts},
}

// ruleSelectors pairs the sides of a rule, each of which may be left out.
func (k *checker) ruleSelectors(r *FilterRule, at string) []spd.Selector {
	k.notDynamic(at, r.LocalTS, r.RemoteTS)
	side := func(list []TrafficSelector) []TrafficSelector {
		if len(list) == 0 {
			list = every
		}
		list = slices.Clone(list)
		for i := range list {
			if list[i].Proto != 0 && r.Protocol != 0 && list[i].Proto != uint8(r.Protocol) {
				k.errorAt(at+".protocol", "%s: protocol is another than that of %s", at, list[i])
			}
			if r.Protocol != 0 {
				list[i].Proto = uint8(r.Protocol)
			}
		}
		return list
	}
	selectors := Pair(side(r.LocalTS), side(r.RemoteTS))
	if len(selectors) == 0 {
		k.errorAt(at, "%s: local_ts and remote_ts do not agree in address family and protocol", at)
	}
	if r.ICMPType == (ICMPTypes{Last: 255}) {
		return selectors
	}
	for i := range selectors {
		if p := selectors[i].Proto; p != 1 && p != 58 {
			k.errorAt(at+".icmp_type", "%s: icmp_type goes with protocol: icmp or icmpv6", at)
			break
		}
		selectors[i].LocalPorts = spd.PortRange{First: uint16(r.ICMPType.First) << 8, Last: uint16(r.ICMPType.Last)<<8 | 0xff}
	}
	return selectors
}
