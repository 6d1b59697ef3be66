package memio

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// bell wakes one sleeper through an eventfd. The sleeper publishes asleep and
// then looks at its ring again; the other side publishes to the ring and then
// looks at asleep. sync/atomic is sequentially consistent, so at least one of the
// two sees the other, and the system call is made only for somebody who sleeps.
type bell struct {
	fd     int
	asleep atomic.Uint32 // set by the sleeper, cleared by whoever comes first
}

func newBell() (*bell, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make an eventfd: %w", err)
	}
	return &bell{fd: fd}, nil
}

// ring wakes the sleeper, if there is one.
func (b *bell) ring() {
	if b.asleep.Load() != 0 && b.asleep.Swap(0) != 0 {
		one := [8]byte{0: 1} // native order does not matter to a count that is only tested
		unix.Write(b.fd, one[:])
	}
}

// doze publishes that the sleeper is about to sleep.
func (b *bell) doze() { b.asleep.Store(1) }

// wake says that the sleeper is up, and empties the eventfd. It always reads: the
// other side writes after it has cleared asleep, so a write may still be coming
// when the sleeper wakes for another reason, and has to be eaten by a later wake.
func (b *bell) wake() {
	b.asleep.Store(0)
	var count [8]byte
	unix.Read(b.fd, count[:])
}
