package spd

import (
	"fmt"

	"sallyport/dataplane/packet"
)

// Selectors are the compiled traffic selectors of one association, which every
// decrypted packet must match (RFC 4301, 5.2 step 4). Immutable.
type Selectors struct {
	first clause // apart, so that the common single pair costs one object
	rest  []clause
	plain Plain // of first
}

// Plain is what many selectors come to for whole packets of IPv4 with UDP or TCP: two ranges of addresses and perhaps a
// protocol, whatever the ports. It is small, and assembly reads it.
type Plain struct {
	Remote, Remotes uint32 // first address, and how many follow it
	Local, Locals   uint32
	Proto, Matters  uint16 // protocol, and the bits of it that matter
}

// noProto is the protocol of no packet.
const noProto = 1 << 8

// Plain returns the form of which a match is one of the selectors, but not every one that does not match is none.
func (s *Selectors) Plain() *Plain { return &s.plain }

// Matches says that a decrypted packet matches.
func (p *Plain) Matches(src, dst uint32, proto uint8) bool {
	return src-p.Remote <= p.Remotes && dst-p.Local <= p.Locals && (uint16(proto)^p.Proto)&p.Matters == 0
}

// NoPlain is the Plain that no packet matches: that of selectors without such a form.
func NoPlain() Plain { return Plain{Proto: noProto, Matters: noProto} }

// None says that it is NoPlain.
func (p *Plain) None() bool { return *p == NoPlain() }

// plain returns a clause's Plain.
func (c *clause) plain() Plain {
	if c.version != 4 || !c.anyPorts {
		return NoPlain()
	}
	p := Plain{
		Remote: uint32(c.remote.first.Lo), Remotes: uint32(c.remote.last.Lo - c.remote.first.Lo),
		Local: uint32(c.local.first.Lo), Locals: uint32(c.local.last.Lo - c.local.first.Lo), Proto: uint16(c.proto),
	}
	if c.proto != 0 {
		p.Matters = 0xffff
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
	s := &Selectors{first: clauses[0], plain: clauses[0].plain()}
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
