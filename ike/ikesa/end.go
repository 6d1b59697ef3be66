package ikesa

import "time"

// end takes everything down. Nothing comes after it but Touched of other SAs.
func (s *SA) end(now time.Time, reason Reason, out *Outputs) {
	if s.state == StateEnded {
		return
	}
	s.giveUp()
	s.forgetHandshake()
	for len(s.children) > 0 {
		s.remove(s.children[len(s.children)-1], reason, out)
	}
	if len(s.virtual) > 0 {
		out.add(Unassigned{SA: s, Addrs: s.virtual})
		s.virtual = nil
	}
	s.releaseLeases()
	if s.predecessor != nil {
		if c := s.predecessor.collision; c != nil && c.successor == s { // the peer has taken its rekey back
			s.predecessor.collision = nil
		}
		s.predecessor = nil
	}
	if c := s.collision; c != nil && c.successor != nil && c.successor.predecessor == s {
		// It would have got what has just ended.
		c.successor.predecessor = nil
		c.successor.deleteIKE(now, reason, out)
		c.successor.run(now, out)
		out.add(Touched{c.successor})
	}
	if old := s.replaces; old != nil && old.replacement == s { // the new SA did not come about; the old one tries again
		s.replaces = nil
		old.stay(now, out)
	}
	if next := s.replacement; next != nil {
		s.replacement, next.replaces = nil, nil
	}
	if s.keys != nil {
		s.keys.Zero()
	}
	s.state, s.reason = StateEnded, reason
	s.keys, s.sealer, s.opener, s.handshake, s.collision, s.mobike = nil, nil, nil, nil, nil, nil
	s.window = window{}
	s.timers = timers{}
	out.add(Ended{SA: s, Reason: reason})
}

// releaseLeases takes back the virtual addresses of the peer.
func (s *SA) releaseLeases() {
	for _, addr := range s.leases {
		s.env.ReleaseAddress(s.conn, s.remoteID, addr)
	}
	s.leases = nil
}

// giveUp drops all tasks and what they hold.
func (s *SA) giveUp() {
	s.dropRequest()
	for _, q := range s.queue {
		q.task.drop(s)
	}
	s.queue = nil
	for _, f := range s.followups {
		f.drop(s)
	}
	s.followups = nil
}

// fail ends the SA because of a fault of our own.
func (s *SA) fail(now time.Time, err error, out *Outputs) {
	s.report(out, Event{Kind: EventEnding, Reason: ReasonOf(err), Err: err})
	s.end(now, ReasonOf(err), out)
}

// dropRequest forgets the request under way.
func (s *SA) dropRequest() {
	if r := s.request; r != nil {
		s.request = nil
		r.task.drop(s)
	}
}
