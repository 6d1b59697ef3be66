package ikesa

import (
	"net/netip"
	"slices"

	"sallyport/ike/message"
)

// selectorsMax bounds what narrowing makes of two lists, and so what an
// association carries.
const selectorsMax = 64

// intersect returns what two selectors have in common (RFC 7296, 2.9); ok is false
// if that is nothing. Never is the result wider than either.
func intersect(a, b message.TrafficSelector) (c message.TrafficSelector, ok bool) {
	switch {
	case a.Start.BitLen() != b.Start.BitLen():
		return c, false
	case a.Protocol == 0:
		c.Protocol = b.Protocol
	case b.Protocol == 0 || a.Protocol == b.Protocol:
		c.Protocol = a.Protocol
	default:
		return c, false
	}
	switch {
	case a.IsOpaque() && (b.IsOpaque() || anyPort(b)), b.IsOpaque() && anyPort(a):
		c.StartPort, c.EndPort = 65535, 0 // RFC 4301, 4.4.1.1: ANY contains OPAQUE
	case a.IsOpaque() || b.IsOpaque():
		return c, false
	default:
		c.StartPort, c.EndPort = max(a.StartPort, b.StartPort), min(a.EndPort, b.EndPort)
		if c.StartPort > c.EndPort {
			return c, false
		}
	}
	c.Start, c.End = later(a.Start, b.Start), earlier(a.End, b.End)
	return c, !c.End.Less(c.Start)
}

func anyPort(t message.TrafficSelector) bool { return t.StartPort == 0 && t.EndPort == 65535 }

func later(a, b netip.Addr) netip.Addr {
	if a.Less(b) {
		return b
	}
	return a
}

func earlier(a, b netip.Addr) netip.Addr {
	if b.Less(a) {
		return b
	}
	return a
}

// within says whether everything that a matches is matched by b alone.
func within(a, b message.TrafficSelector) bool {
	c, ok := intersect(a, b)
	return ok && c == a
}

// narrow returns what both lists allow, in the order of the offered one, without
// what another selector of the result contains. It stops at selectorsMax.
func narrow(offered, own []message.TrafficSelector) []message.TrafficSelector {
	var all []message.TrafficSelector
	for _, o := range offered {
		for _, w := range own {
			c, ok := intersect(o, w)
			if !ok || slices.ContainsFunc(all, func(t message.TrafficSelector) bool { return within(c, t) }) {
				continue
			}
			all = slices.DeleteFunc(all, func(t message.TrafficSelector) bool { return within(t, c) })
			if all = append(all, c); len(all) == selectorsMax {
				return all
			}
		}
	}
	return all
}

// covered says whether each of these selectors lies within one of those.
func covered(these, those []message.TrafficSelector) bool {
	for _, t := range these {
		if !slices.ContainsFunc(those, func(o message.TrafficSelector) bool { return within(t, o) }) {
			return false
		}
	}
	return len(these) > 0
}

// resolve turns configured selectors into real ones. Dynamic ones become each of the
// hosts; without hosts they vanish.
func resolve(selectors []Selector, hosts []netip.Addr) []message.TrafficSelector {
	all := make([]message.TrafficSelector, 0, len(selectors))
	for _, s := range selectors {
		if !s.Dynamic {
			all = append(all, s.TS)
			continue
		}
		for _, host := range hosts {
			t := s.TS
			if t.StartPort == 0 && t.EndPort == 0 && t.Protocol == 0 {
				t.EndPort = 65535
			}
			t.Start, t.End = host, host
			all = append(all, t)
		}
	}
	return all
}
