package pipeline

import (
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// gate has several threads begin together, time and again. They spin: a thread that sleeps is back too late, and with a cold core.
type gate struct {
	threads uint64
	state   atomic.Uint64 // threads that have not left; those that wait; how often it has opened: gateBits bits each, but the last
}

const (
	gateBits = 20
	gateMask = 1<<gateBits - 1
)

func newGate(threads int) *gate {
	g := &gate{threads: uint64(threads)}
	g.state.Store(uint64(threads))
	return g
}

// pass returns when all threads that have not left wait, and whether none has left.
func (g *gate) pass() (whole bool) {
	var turn uint64
	for {
		s := g.state.Load()
		turn = s >> (2 * gateBits)
		if next := opened(s + 1<<gateBits); g.state.CompareAndSwap(s, next) {
			if next>>(2*gateBits) != turn {
				return next&gateMask == g.threads
			}
			break
		}
	}
	for spun := 1; g.state.Load()>>(2*gateBits) == turn; spun++ {
		if spun%spinsMax == 0 { // fewer CPUs than threads
			_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
			runtime.Gosched()
		}
	}
	return g.state.Load()&gateMask == g.threads
}

// spinsMax is how often a thread looks before it lets others run.
const spinsMax = 1 << 14

// leave has nobody wait for this thread any more.
func (g *gate) leave() {
	for {
		s := g.state.Load()
		if g.state.CompareAndSwap(s, opened(s-1)) {
			return
		}
	}
}

// opened is the state with nobody waiting any more, if all do.
func opened(s uint64) uint64 {
	threads, waiting := s&gateMask, s>>gateBits&gateMask
	if waiting == 0 || waiting < threads {
		return s
	}
	return (s>>(2*gateBits)+1)<<(2*gateBits) | threads
}
