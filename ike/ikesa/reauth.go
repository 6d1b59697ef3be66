package ikesa

import (
	"slices"
	"time"
)

// reauthenticate makes the IKE SA anew beside this one, and deletes this one when the
// new one has its children: make before break (RFC 7296, 2.8.3).
func (s *SA) reauthenticate(now time.Time, out *Outputs) {
	if s.state != StateEstablished || s.replacement != nil {
		return
	}
	if !s.unhindered() || s.replaces != nil { // one after the other
		s.reauthAt = s.retryAt(now)
		return
	}
	if !s.initiator && len(s.leases) > 0 {
		return // a client with a virtual address of ours must ask for it itself
	}
	local, remote := s.local, s.remote
	next := NewInitiator(s.conn, s.env, local, remote, InitiatorOptions{})
	h := next.handshake
	for _, c := range s.children {
		switch {
		case c.state != childUp || c.redundant:
		case h.first == nil:
			h.first = c.conf
		default:
			h.more = append(h.more, c.conf)
		}
	}
	next.replaces, s.replacement = s, next
	out.add(NewSA{next})
	next.initiate(now, out)
	out.add(Touched{next})
}

// outdone says whether the SA in whose favour this one is about to go has the same
// child already: ours must not take its place.
func (s *SA) outdone(c *child) bool {
	if s.replacement == nil {
		return false
	}
	return slices.ContainsFunc(s.replacement.own().children, func(o *child) bool { return o.outbound && o.conf.Name == c.conf.Name })
}

// stay goes on with what should have been replaced.
func (s *SA) stay(now time.Time, out *Outputs) {
	s.replacement = nil
	if s.state != StateEstablished {
		return
	}
	s.reauthAt = s.retryAt(now)
	for _, c := range s.children {
		if c.state == childUp && c.proofAt.IsZero() && !c.undecided {
			s.release(c, out)
		}
	}
	out.add(Touched{s})
}

// reauthenticated deletes the SA in whose place this one stands, once nothing is left to be done.
func (s *SA) reauthenticated(now time.Time, out *Outputs) {
	old := s.replaces
	if old == nil || old.replacement != s || s.state != StateEstablished || s.request != nil || len(s.queue) > 0 {
		return
	}
	s.replaces = nil // the old one remembers who outdoes it until it has gone
	old.deleteIKE(now, ReasonReauthenticated, out)
	old.run(now, out)
	out.add(Touched{old})
}
