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
	s := &Selectors{first: clauses[0]}
	if len(clauses) > 1 {
		s.rest = clauses[1:]
	}
	return s, nil
}

// MatchInbound compares a decrypted packet: its source is remote. NeedsPorts
// only if nothing else matches.
func (s *Selectors) MatchInbound(f *packet.Flow) Match {
	v := inward(f)
	return s.match(&v)
}

// MatchOutbound compares a packet to be protected: its source is local.
func (s *Selectors) MatchOutbound(f *packet.Flow) Match {
	return s.match(f)
}

func (s *Selectors) match(f *packet.Flow) Match {
	m := s.first.match(f)
	for i := range s.rest {
		if m == Matched {
			return m
		}
		if n := s.rest[i].match(f); n != NoMatch {
			m = n
		}
	}
	return m
}
