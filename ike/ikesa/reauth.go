package ikesa

import "time"

// reauthenticate makes the IKE SA anew beside this one, and deletes this one when the
// new one has its children: make before break (RFC 7296, 2.8.3).
func (s *SA) reauthenticate(now time.Time, out *Outputs) {
	if s.state != StateEstablished || s.replacement != nil || s.redundant {
		return
	}
	if !s.unhindered() {
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

// reauthenticated deletes the SA in whose place this one stands, once nothing is left to be done.
func (s *SA) reauthenticated(now time.Time, out *Outputs) {
	old := s.replaces
	if old == nil || old.replacement != s || s.state != StateEstablished || s.request != nil || len(s.queue) > 0 {
		return
	}
	s.replaces, old.replacement = nil, nil
	old.deleteIKE(now, ReasonReauthenticated, out)
	old.run(now, out)
	out.add(Touched{old})
}
