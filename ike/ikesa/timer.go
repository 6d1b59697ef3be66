package ikesa

import (
	"time"
)

// timers are the times at which something happens by itself; zero is never. All
// come from the now of the inputs, so they follow its monotonic clock.
type timers struct {
	establishedAt time.Time
	lastIn        time.Time // the last authenticated message or, as far as asked, packet of the peer
	halfOpenUntil time.Time // the handshake must be over by then
	rekeyAt       time.Time
	reauthAt      time.Time
	authUntil     time.Time // without reauthentication it ends then; successors inherit it
	expireAt      time.Time
	livenessAt    time.Time
	keepaliveAt   time.Time
	renewAt       time.Time // reauthenticate because a certificate will end
	expiryAt      time.Time // look whether the peer's certificate has ended
}

const (
	// halfOpenTime is how long a responder waits for the initiator to go on.
	halfOpenTime = 30 * time.Second
	// confirmTime is how long a responder waits for a sign of life after IKE_AUTH
	// before it asks for one.
	confirmTime = 10 * time.Second
	// redundantTime is how long an IKE SA that lost a collision waits for its delete before it sends one: whoever made it deletes it at
	// once, and does so again within this time.
	redundantTime = 10 * time.Second
	// proofTime is how often the responder of an exchange that made a child looks whether
	// the peer uses it, if it asks for nothing else. A peer that lives after proofTimeMax, when it would
	// have given up to wait for our answer, has the child in any case.
	proofTime    = 10 * time.Second
	proofTimeMax = 3 * time.Minute
	// replacedTime is how long an IKE SA or a child that the peer has rekeyed waits for its delete before it sends one: no
	// less than the peer's retransmissions may take, which still asks for our answer.
	replacedTime = 4 * time.Minute
	// retryTime is the first wait after TEMPORARY_FAILURE, and half of its jitter; it doubles.
	retryTime    = 4 * time.Second
	retryTimeMax = 64 * time.Second
	// deleteTries bounds the retransmissions of a delete: who is asked to go need not wait
	// minutes for a peer that may be dead.
	deleteTries = 3
	// renewalTime is how long before the end of a certificate the SA is made anew, at most; renewalMin is how long before it that is no
	// longer tried.
	renewalTime = 2 * time.Hour
	renewalMin  = time.Minute
	// expiryLook is how often the wall clock is looked at, should it be set while certificates count.
	expiryLook = time.Hour
)

// Deadline is when Tick wants to be called next; zero is never.
func (s *SA) Deadline() time.Time {
	if s.state == StateEnded {
		return time.Time{}
	}
	var next time.Time
	soonest := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if s.request != nil {
		soonest(s.request.at)
	} else {
		for i := range s.queue {
			if s.queue[i].task.allowed(s) {
				soonest(s.queue[i].at)
			}
		}
	}
	soonest(s.halfOpenUntil)
	if s.state == StateEstablished {
		soonest(s.renewAt)
		soonest(s.expiryAt)
	}
	soonest(s.rekeyAt)
	soonest(s.reauthAt)
	soonest(s.expireAt)
	soonest(s.livenessAt)
	soonest(s.keepaliveAt)
	if len(s.answer) > 0 {
		soonest(s.answerAt.Add(answerKept))
	}
	if s.asked != nil {
		soonest(s.asked.Deadline())
	}
	if s.answered != nil {
		soonest(s.answered.Deadline())
	}
	for _, f := range s.followups {
		soonest(f.until)
	}
	for _, c := range s.children {
		soonest(c.rekeyAt)
		soonest(c.expireAt)
		soonest(c.proofAt)
		soonest(c.inactiveAt)
	}
	if h := s.handshake; h != nil {
		soonest(h.hintUntil)
		for _, r := range h.rivals {
			soonest(r.Deadline())
		}
	}
	if s.mobike != nil {
		soonest(s.mobike.probeUntil)
	}
	if s.path != nil && s.state == StateEstablished && s.confirmed {
		soonest(s.path.at)
	}
	return next
}

func due(t, now time.Time) bool { return !t.IsZero() && !now.Before(t) }

// Tick does what is due.
func (s *SA) Tick(now time.Time, out *Outputs) {
	if s.state == StateEnded {
		return
	}
	s.tick(now, out)
	s.run(now, out)
}

// tick goes through the timers. Any step may end the SA.
func (s *SA) tick(now time.Time, out *Outputs) {
	for _, step := range [...]func(*SA, time.Time, *Outputs){
		(*SA).tickMemory, (*SA).tickHandshake, (*SA).tickRequest, (*SA).tickLifetime, (*SA).tickChildren,
		(*SA).tickLiveness, (*SA).tickMobike, (*SA).tickPath,
	} {
		if step(s, now, out); s.state == StateEnded {
			return
		}
	}
}

// tickMemory forgets what need not be kept any longer.
func (s *SA) tickMemory(now time.Time, _ *Outputs) {
	if len(s.answer) > 0 && due(s.answerAt.Add(answerKept), now) {
		s.answer, s.question = nil, nil
	}
	if s.asked != nil && due(s.asked.Deadline(), now) {
		s.asked = nil
	}
	if s.answered != nil && due(s.answered.Deadline(), now) {
		s.answered = nil
	}
	s.expireFollowups(now)
}

// paced says whether a rekey that is due may begin now, and puts its timer off or out.
func (s *SA) paced(now time.Time, timer *time.Time) bool {
	if wait := s.env.RekeyWait(); wait > 0 {
		*timer = now.Add(wait)
		return false
	}
	*timer = time.Time{}
	return true
}

func (s *SA) tickRequest(now time.Time, out *Outputs) {
	if s.request != nil && due(s.request.at, now) {
		s.overdue(now, out)
	}
}

// tickLifetime rekeys, reauthenticates or ends the IKE SA.
func (s *SA) tickLifetime(now time.Time, out *Outputs) {
	if due(s.halfOpenUntil, now) {
		s.end(now, ReasonHalfOpen, out)
		return
	}
	if s.state == StateEstablished && due(s.expiryAt, now) {
		s.expiryAt = time.Time{}
		if s.outlived(now) {
			s.deleteIKE(now, ReasonExpired, out)
		} else {
			s.lookAtExpiry(now)
		}
	}
	if due(s.expireAt, now) {
		s.expireAt = time.Time{}
		switch {
		case s.state == StateEstablished:
			s.deleteIKE(now, ReasonLifetime, out)
		case s.state == StateRekeyed && s.redundant:
			s.deleteIKE(now, ReasonRedundant, out)
		case s.state == StateRekeyed:
			s.deleteIKE(now, ReasonRekeyed, out)
		case s.state == StateDeleting:
			s.end(now, s.reason, out)
			return
		}
	}
	if due(s.reauthAt, now) || s.state == StateEstablished && due(s.renewAt, now) {
		s.reauthAt, s.renewAt = time.Time{}, time.Time{}
		s.reauthenticate(now, out)
	}
	if due(s.rekeyAt, now) && s.paced(now, &s.rekeyAt) {
		s.add(&ikeRekey{}, now)
	}
}

// outlived says whether the certificate that the peer was believed for has ended meanwhile (RFC 4945, 5.1.3; RFC 5280, 6.1.3). The wall
// clock decides, whatever it did since.
func (s *SA) outlived(now time.Time) bool {
	return !s.validUntil.IsZero() && now.Round(0).After(s.validUntil)
}

// tickLiveness asks a silent peer for a sign of life (RFC 7296, 2.4), and keeps the
// mapping of a NAT before us.
func (s *SA) tickLiveness(now time.Time, out *Outputs) {
	if due(s.keepaliveAt, now) {
		s.keepaliveAt = now.Add(s.conn.Keepalive)
		out.add(Keepalive{Local: s.local, Remote: s.remote})
	}
	if !due(s.livenessAt, now) {
		return
	}
	s.livenessAt = time.Time{}
	if s.state != StateEstablished {
		return
	}
	if !s.confirmed {
		s.add(&liveness{}, now)
		return
	}
	s.observe()
	if wait := s.lastIn.Add(s.conn.DPDDelay); now.Before(wait) {
		s.livenessAt = wait
		return
	}
	s.add(&liveness{}, now)
}

// observe takes the packets that the data plane received into account.
func (s *SA) observe() {
	for _, c := range s.children {
		if u, ok := s.env.Usage(c.spiIn, c.spiOut); ok && u.LastIn.After(s.lastIn) {
			s.lastIn = u.LastIn
		}
	}
}

// heard notes an authenticated message. The first one after IKE_AUTH confirms that
// the initiator has our answer: before, it could have neither asked nor answered.
func (s *SA) heard(now time.Time, out *Outputs) {
	s.lastIn = now
	if s.mobike != nil {
		s.mobike.next = 0
	}
	if s.state != StateEstablished {
		return
	}
	if !s.confirmed {
		s.confirmed = true
		s.confirmAll(out)
	}
	if s.livenessAt = (time.Time{}); s.conn.DPDDelay > 0 {
		s.livenessAt = now.Add(s.conn.DPDDelay)
	}
}

// scheduleReauth sets until when the authentication that there was just now is good, and when to do it again.
func (s *SA) scheduleReauth(now time.Time) {
	c := s.conn
	s.reauthAt, s.authUntil = time.Time{}, time.Time{}
	if c.ReauthTime == 0 {
		return
	}
	s.reauthAt = now.Add(s.jittered(c.ReauthTime, c.RandTime))
	if !s.initiator { // who was told the lifetime goes first (RFC 4478, 2)
		s.reauthAt = now.Add(c.ReauthTime + over(c.OverTime, c.ReauthTime)/2)
	}
	s.authUntil = s.reauthAt.Add(over(c.OverTime, s.reauthAt.Sub(now)))
}

// schedule sets the other times of an SA that is established now.
func (s *SA) schedule(now time.Time) {
	c := s.conn
	s.rekeyAt, s.livenessAt, s.keepaliveAt = time.Time{}, time.Time{}, time.Time{}
	s.expireAt = s.authUntil
	if c.RekeyTime > 0 {
		s.rekeyAt = now.Add(s.jittered(c.RekeyTime, c.RandTime))
		if last := now.Add(c.RekeyTime + over(c.OverTime, c.RekeyTime)); s.expireAt.IsZero() || last.Before(s.expireAt) {
			s.expireAt = last
		}
	}
	s.scheduleRenewal(now)
	s.lookAtExpiry(now)
	if c.DPDDelay > 0 {
		s.livenessAt = now.Add(c.DPDDelay)
	}
	if c.Keepalive > 0 && s.natHere {
		s.keepaliveAt = now.Add(c.Keepalive)
	}
}

// scheduleRenewal has the SA made anew before one of the certificates ends, so that renewed ones take their place: how long before, at
// random, since many end together.
func (s *SA) scheduleRenewal(now time.Time) {
	end := s.validUntil
	if own := s.ownUntil; !own.IsZero() && (end.IsZero() || own.Before(end)) {
		end = own
	}
	left := end.Sub(now) // by the wall clock, which end has only
	if end.IsZero() || left < renewalMin {
		return
	}
	reserve := min(left/5, renewalTime)
	s.renewAt = now.Add(s.jittered(left-reserve/2, reserve/2))
}

// lookAtExpiry sets when to look at the wall clock next.
func (s *SA) lookAtExpiry(now time.Time) {
	if s.validUntil.IsZero() {
		return
	}
	s.expiryAt = now.Add(min(s.validUntil.Sub(now)+time.Second, expiryLook))
}

// over is how long after its time a rekey may still succeed: a tenth if nothing is configured.
func over(configured, lifetime time.Duration) time.Duration {
	if configured > 0 {
		return configured
	}
	return max(lifetime/10, time.Minute)
}
