package ikesa

import (
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"sallyport/ike/auth"
)

// jumped is t with another reading of the wall clock and the same of the monotonic one, as time.Now returns it after
// somebody has set the host's clock. It knows the inside of a time.Time that has both: a flag, 33 bits of seconds and 30 of
// nanoseconds, then the monotonic reading (package time, type Time).
func jumped(t testing.TB, now time.Time, by time.Duration) time.Time {
	by = by.Truncate(time.Second)
	after := now
	inside := (*struct {
		wall uint64
		ext  int64
		loc  *time.Location
	})(unsafe.Pointer(&after))
	inside.wall += uint64(by/time.Second) << 30
	if after.Sub(now) != 0 || after.Round(0).Sub(now.Round(0)) != by {
		t.Fatalf("%v is not %v after %v by the wall clock alone", after, by, now)
	}
	return after
}

// jumpingWorld is a world whose clock has both readings, the wall clock's being epoch.
func jumpingWorld(t testing.TB) *world {
	w := newWorld(t, 1)
	now := time.Now()
	w.now = jumped(t, now, epoch.Sub(now))
	return w
}

const years = 365 * 24 * time.Hour

// C23: lifetimes, liveness and retransmissions go by the monotonic clock, however the wall clock is set.
func TestClockJumpsMoveNoTimer(t *testing.T) {
	for _, by := range []time.Duration{20 * years, -20 * years, 61 * time.Minute, -61 * time.Minute} {
		w := jumpingWorld(t)
		for _, h := range w.hosts {
			h.conn.DPDDelay = 30 * time.Second
		}
		a, b := w.hosts["a"], w.hosts["b"]
		a.conn.RekeyTime, a.conn.ReauthTime = time.Hour, 3*time.Hour
		a.conn.Children[0].RekeyTime, a.conn.Children[0].LifeTime = 40*time.Minute, 44*time.Minute
		s := a.initiate(InitiatorOptions{})
		w.settle()
		child := a.childByName("net")
		w.advanceWith(10*time.Minute, w.settle)

		// A request is on its way, unanswered.
		a.command(Liveness{})
		w.net = nil
		w.now = jumped(t, w.now, by)
		sent := func() int { return len(w.net) }
		w.advance(2 * time.Second)
		if sent() != 0 {
			t.Errorf("by %v: repeated at once", by)
		}
		w.advance(4 * time.Second)
		if sent() != 1 {
			t.Errorf("by %v: repeated %d times within six seconds", by, sent())
		}
		w.settle()

		for _, x := range []*SA{s, b.last} {
			if at := x.Deadline(); at.Sub(w.now) < 0 || at.Sub(w.now) > 30*time.Second {
				t.Errorf("by %v: the next deadline is in %v", by, at.Sub(w.now))
			}
		}
		w.advanceWith(25*time.Minute, w.settle)
		if s.state != StateEstablished || a.childByName("net") != child {
			t.Fatalf("by %v: %v, child %x after 35 minutes\n%s", by, s.state, a.childByName("net"), w.log.String())
		}
		w.advanceWith(6*time.Minute, w.settle)
		if s.state != StateEstablished || a.childByName("net") == child {
			t.Fatalf("by %v: %v, child %x after 41 minutes\n%s", by, s.state, a.childByName("net"), w.log.String())
		}
		w.advanceWith(20*time.Minute, w.settle)
		if s.state != StateEnded || s.successor == nil || a.last.state != StateEstablished {
			t.Fatalf("by %v: %v after 61 minutes\n%s", by, s.state, w.log.String())
		}
		if left := a.last.reauthAt.Sub(w.now); left < 118*time.Minute || left > 120*time.Minute {
			t.Errorf("by %v: reauthentication in %v", by, left)
		}
		// And a peer that dies is noticed as soon as ever.
		w.now = jumped(t, w.now, by/2)
		w.dead = map[netip.Addr]bool{a.addr: true, b.addr: true}
		w.advanceWith(5*time.Minute, w.settle)
		if len(a.sas) != 0 || len(b.sas) != 0 {
			t.Errorf("by %v: a dead peer is not noticed\n%s", by, w.log.String())
		}
	}
}

// C23: certificates end by the wall clock: who sets it past their end loses the tunnel within the hour, who sets it back does not, but
// gets no new one either.
func TestClockJumpsMoveCertificates(t *testing.T) {
	for _, c := range []struct {
		by      time.Duration
		stays   bool
		another bool // IKE SA can be made
	}{{1001 * time.Hour, false, false}, {-3 * time.Hour, true, false}, {990 * time.Hour, true, true}} {
		w := jumpingWorld(t)
		w.useCertificates(ecdsaKeys(), auth.Relaxed)
		a := w.hosts["a"]
		s := a.initiate(InitiatorOptions{})
		w.settle()
		w.advanceWith(time.Minute, w.settle)
		if s.state != StateEstablished {
			t.Fatal(w.log.String())
		}
		w.now = jumped(t, w.now, c.by)
		w.advanceWith(61*time.Minute, w.settle)
		if stays := s.state == StateEstablished; stays != c.stays || !stays && (s.reason != ReasonExpired || len(a.in) != 0 || len(w.hosts["b"].in) != 0) {
			t.Errorf("by %v: %v, %v\n%s", c.by, s.state, s.reason, w.log.String())
		}
		next := a.initiate(InitiatorOptions{})
		w.settle()
		w.advance(5 * time.Second)
		if another := next.state == StateEstablished; another != c.another {
			t.Errorf("by %v: a new one is %v, %v", c.by, next.state, next.reason)
		}
	}
}
