package worker

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/dataplane/threads"
)

// start is the zero of the workers' clock.
var start = time.Now()

func monotonic() int64 { return int64(time.Since(start)) }

// Time returns the time of a reading of the workers' clock.
func Time(now int64) time.Time { return start.Add(time.Duration(now)) }

// pollTimeout bounds a sleep in milliseconds, so that parked packets age.
const pollTimeout = 100

// Run runs the worker on the calling goroutine, locked to its thread, until Stop. It
// steps, spins for at most spin when there is nothing to do, and then sleeps in
// poll. core pins the thread to that CPU; -1 leaves it free.
func (w *Worker) Run(core int, spin time.Duration) error {
	runtime.LockOSThread()
	// The thread is never unlocked: it ends with the goroutine, pinning with it.
	if core >= 0 {
		if err := threads.Pin(core); err != nil {
			return err
		}
	}
	w.group.sad.Wake(w.ID)
	defer w.group.sad.Sleep(w.ID)
	idle := int64(0)
	for !w.stopped.Load() {
		began := monotonic()
		if w.Step(began) > 0 {
			idle = 0
			w.Counters.Busy.Add(uint64(monotonic() - began))
			continue
		}
		if idle == 0 {
			idle = began
		} else if began-idle >= int64(spin) {
			w.sleep()
			idle = 0
		}
	}
	w.runCalls()
	return nil
}

// Stop makes Run return.
func (w *Worker) Stop() {
	w.stopped.Store(true)
	w.wake()
}

// sleep waits in poll for a queue, another worker or a call. It publishes that it sleeps
// first and looks at its rings again after that: a producer that publishes
// later sees the flag and writes the eventfd.
func (w *Worker) sleep() {
	w.sleeping.Store(true)
	defer w.sleeping.Store(false)
	if w.stopped.Load() || w.calls.Load() || w.injected.len() > 0 || !w.ringsEmpty() {
		return
	}
	w.poll = append(w.poll[:0], unix.PollFd{Fd: int32(w.eventfd), Events: unix.POLLIN})
	defer w.wakeQueues()
	if !w.doze(w.rx) || !w.doze(w.first) {
		return
	}
	w.Counters.Sleeps.Add(1)
	w.group.sad.Sleep(w.ID)
	timeout := pollTimeout
	if len(w.waiting.list) > 0 {
		timeout = waitingPoll
	}
	unix.Poll(w.poll, timeout) // an interruption is as good as a time-out
	w.group.sad.Wake(w.ID)
	if w.poll[0].Revents != 0 {
		var b [8]byte
		unix.Read(w.eventfd, b[:])
	}
}

// doze readies queues for poll, and reports whether nothing waits in them.
func (w *Worker) doze(queues []*port) bool {
	for _, p := range queues {
		if p.failed != nil {
			continue
		}
		if !p.queue.Doze() {
			return false
		}
		w.poll = append(w.poll, unix.PollFd{Fd: int32(p.queue.FD()), Events: unix.POLLIN})
	}
	return true
}

func (w *Worker) wakeQueues() {
	for _, p := range w.rx {
		p.queue.Wake()
	}
	for _, p := range w.first {
		p.queue.Wake()
	}
}

func (w *Worker) ringsEmpty() bool {
	for from := range w.group.Workers {
		if from == w.ID {
			continue
		}
		if !w.group.handover[from][w.ID].empty() || !w.group.homeward[from][w.ID].empty() {
			return false
		}
	}
	return true
}

// wake ends the worker's sleep, if it sleeps. Anyone may call it.
func (w *Worker) wake() {
	if w.sleeping.Load() {
		one := [8]byte{1}
		unix.Write(w.eventfd, one[:])
	}
}
