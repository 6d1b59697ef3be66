package spd

import (
	"fmt"
	"slices"

	"sallyport/dataplane/packet"
)

// Selectors are the compiled traffic selectors of one association, which every
// decrypted packet must match (RFC 4301, 5.2 step 4). Immutable.
type Selectors struct {
	first clause // apart, so that the common single pair costs one object
	rest  []clause
	plain Plain
}

// Plain is what many selectors come to for whole packets of IPv4 with UDP or TCP: two ranges of addresses and perhaps a
// protocol, whatever the ports. It is small, and assembly reads it.
type Plain struct {
	Remote, Remotes uint32 // first address, and how many follow it
	Local, Locals   uint32
	Proto, Matters  uint16 // protocol, and the bits of it that matter; and has6, which does not
}

// Plain6 is what many selectors come to for whole packets of IPv6 with UDP or TCP: two ranges of addresses. It is a cache line.
type Plain6 struct{ remote, local span }

const (
	noProto = 1 << 8 // the protocol of no packet
	has6    = 1 << 9 // in Plain.Proto: there is a Plain6 beside
)

// Plain returns the form of which a match is one of the selectors, but not every one that does not match is none.
func (s *Selectors) Plain() *Plain { return &s.plain }

// Matches says that a decrypted packet matches.
func (p *Plain) Matches(src, dst uint32, proto uint8) bool {
	return src-p.Remote <= p.Remotes && dst-p.Local <= p.Locals && (uint16(proto)^p.Proto)&p.Matters == 0
}

// Matches6 says that a decrypted packet of IPv6 matches. Of p, six is the Plain6 that belongs to it; if there is none, six is not read.
func (p *Plain) Matches6(f *packet.Flow, six *Plain6) bool {
	return p.Has6() && six.remote.contains(&f.Src) && six.local.contains(&f.Dst)
}

// Has6 says that there is a Plain6 beside it.
func (p *Plain) Has6() bool { return p.Proto&has6 != 0 }

// NoPlain is the Plain that no packet matches: that of selectors without such a form, nor one for IPv6.
func NoPlain() Plain { return Plain{Proto: noProto, Matters: noProto} }

// None says that it is NoPlain. The assembly asks the same.
func (p *Plain) None() bool { return p.Proto == noProto && p.Matters == noProto }

// Plain6 returns the form for IPv6 of which a match is one of the selectors, if Plain says that there is one.
func (s *Selectors) Plain6() Plain6 {
	c := &s.first
	for i := 0; !c.is6() && i < len(s.rest); i++ {
		c = &s.rest[i]
	}
	return Plain6{c.remote, c.local}
}

// is6 says that a clause comes to a Plain6.
func (c *clause) is6() bool { return c.version == 6 && c.anyPorts && c.proto == 0 }

// plainOf returns the Plain of clauses: of the first that comes to one.
func plainOf(clauses []clause) Plain {
	p := NoPlain()
	if k := slices.IndexFunc(clauses, func(c clause) bool { return c.version == 4 && c.anyPorts }); k >= 0 {
		p = clauses[k].plain()
	}
	if slices.ContainsFunc(clauses, func(c clause) bool { return c.is6() }) {
		p.Proto |= has6
	}
	return p
}

// plain returns the Plain of a clause of IPv4 with any ports.
func (c *clause) plain() Plain {
	p := Plain{
		Remote: uint32(c.remote.first.Lo), Remotes: uint32(c.remote.last.Lo - c.remote.first.Lo),
		Local: uint32(c.local.first.Lo), Locals: uint32(c.local.last.Lo - c.local.first.Lo), Proto: uint16(c.proto),
	}
	if c.proto != 0 {
		p.Matters = 0xff
	}
	return p
}

// CompileSelectors compiles selectors, at least one, of which a packet has to match any.
func CompileSelectors(list []Selector) (*Selectors, error) {
	var clauses []clause
	if len(list) == 1 && len(list[0].Local) == 1 && len(list[0].Remote) == 1 {
		var one [1]clause
		clauses = one[:0]
	}
	for i := range list {
		var err error
		if clauses, err = appendClauses(clauses, &list[i], 0); err != nil {
			return nil, fmt.Errorf("selector %d: %w", i+1, err)
		}
	}
	if len(clauses) == 0 {
		return nil, fmt.Errorf("no selectors")
	}
	s := &Selectors{first: clauses[0], plain: plainOf(clauses)}
	if len(clauses) > 1 {
		s.rest = clauses[1:]
	}
	return s, nil
}

// MatchInbound compares a decrypted packet: its source is remote. NeedsPorts
// only if nothing else matches.
func (s *Selectors) MatchInbound(f *packet.Flow) Match {
	return s.match(f, inbound)
}

// MatchOutbound compares a packet to be protected: its source is local.
func (s *Selectors) MatchOutbound(f *packet.Flow) Match {
	return s.match(f, outbound)
}

func (s *Selectors) match(f *packet.Flow, way side) Match {
	m := s.first.match(f, way)
	for i := range s.rest {
		if m == Matched {
			return m
		}
		if n := s.rest[i].match(f, way); n != NoMatch {
			m = n
		}
	}
	return m
}
