package ikesa

import (
	"time"

	"sallyport/ike/message"
)

// task is something that we want of the peer: one request, or several in a row.
// Its state is its own; it changes the SA only in response.
type task interface {
	// allowed says whether the SA's state lets the task begin.
	allowed(s *SA) bool
	// build makes the next request. A task that is moot by now says so with ok = false;
	// it then holds nothing any more.
	build(s *SA, now time.Time, out *Outputs) (x message.ExchangeType, payloads []message.Payload, ok bool)
	// process takes the response, which is open and keeps the payload rules. More means
	// that build is to be called again, at once.
	process(s *SA, now time.Time, m *message.Message, out *Outputs) (more bool)
	// drop gives back what the task holds, because the SA ends.
	drop(s *SA)
}

// queued is a task that waits.
type queued struct {
	task task
	at   time.Time // not before
}

// queueMax bounds the tasks of one SA. A peer cannot add any but a liveness check
// and a path probe, so who reaches it is a runaway caller.
const queueMax = 1024

// add puts a task at the end of the queue, not to begin before at. What is there
// already is not added twice.
func (s *SA) add(t task, at time.Time) bool {
	for i := range s.queue {
		if sameTask(s.queue[i].task, t) {
			if at.Before(s.queue[i].at) {
				s.queue[i].at = at
			}
			return true
		}
	}
	if s.request != nil && sameTask(s.request.task, t) {
		return true
	}
	if len(s.queue) >= queueMax {
		t.drop(s)
		return false
	}
	s.queue = append(s.queue, queued{t, at})
	if s.state == StateEstablished && !s.confirmed && !t.allowed(s) {
		s.add(&liveness{}, at) // its answer lets the task begin
	}
	return true
}

// sameTask says whether one of the two makes the other superfluous.
func sameTask(a, b task) bool {
	switch a := a.(type) {
	case *liveness:
		_, ok := b.(*liveness)
		return ok
	case *ikeRekey:
		_, ok := b.(*ikeRekey)
		return ok
	case *ikeDelete:
		_, ok := b.(*ikeDelete)
		return ok
	case *sizeProbe: // one that is under way may be of a round that is over
		_, ok := b.(*sizeProbe)
		return ok && a.of == nil
	case *childExchange:
		b, ok := b.(*childExchange)
		return ok && a.old != nil && a.old == b.old
	case *childDelete:
		b, ok := b.(*childDelete)
		return ok && a.spi == b.spi
	}
	return false
}

// run starts the next task if the window is open. It is the last step of every input.
func (s *SA) run(now time.Time, out *Outputs) {
	for s.state != StateEnded && s.request == nil {
		i := s.next(now)
		if i < 0 {
			break
		}
		t := s.queue[i].task
		s.queue = append(s.queue[:i], s.queue[i+1:]...)
		if len(s.queue) == 0 {
			s.queue = nil // an idle SA keeps no array
		}
		s.step(now, t, out)
	}
	s.reauthenticated(now, out)
}

// next is the index of the task to start now: the first that is due and allowed,
// -1 if there is none.
func (s *SA) next(now time.Time) int {
	for i := range s.queue {
		if q := &s.queue[i]; !now.Before(q.at) && q.task.allowed(s) {
			return i
		}
	}
	return -1
}

// step asks a task's next question.
func (s *SA) step(now time.Time, t task, out *Outputs) {
	if s.nextOut > messageIDMax { // never in practice: 2^32 exchanges
		t.drop(s)
		s.end(now, ReasonLifetime, out)
		return
	}
	x, payloads, ok := t.build(s, now, out)
	if ok && s.state != StateEnded {
		s.ask(now, t, x, payloads, out)
	}
}

// retryAt is when a task that met TEMPORARY_FAILURE is tried again: later each time,
// and not at the same time as the peer's (RFC 7296, 2.25).
func (s *SA) retryAt(now time.Time) time.Time {
	wait := min(retryTime<<min(s.retries, 8), retryTimeMax)
	if s.retries < 255 {
		s.retries++
	}
	return now.Add(wait/2 + time.Duration(float64(wait)*s.fraction()))
}
