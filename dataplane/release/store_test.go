package release

import (
	"sync/atomic"
	"testing"
)

// TestWhatWasWrittenBeforeIsSeen passes entries through a ring of four, whose two indices are stored by Store.
func TestWhatWasWrittenBeforeIsSeen(t *testing.T) {
	const n, size = 20000, 4
	var entries [size]uint64
	var head, tail uint32
	go func() {
		for i := uint32(0); i < n; {
			if i-atomic.LoadUint32(&head) < size {
				entries[i%size] = uint64(i) * 3
				i++
				Store(&tail, i)
			}
		}
	}()
	for i := uint32(0); i < n; {
		if atomic.LoadUint32(&tail) != i {
			if got := entries[i%size]; got != uint64(i)*3 {
				t.Fatalf("entry %d is %d", i, got)
			}
			i++
			Store(&head, i)
		}
	}
}

func TestNeighboursStay(t *testing.T) {
	v := [3]uint32{1, 2, 3}
	Store(&v[1], 1<<32-1)
	if v != [3]uint32{1, 1<<32 - 1, 3} {
		t.Fatal(v)
	}
}
