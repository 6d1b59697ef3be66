package sad

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"sallyport/dataplane/offheap"
)

// wordsStep is by how many replay words the usable part of their arena grows: 1 MiB.
const wordsStep = 1 << 17

// words is the arena of replay bits: reserved for the worst case, and made
// usable step by step, so that neither memory nor the overcommit limit pays for
// what is not used.
type words struct {
	offheap.Mapping
	all    []uint64
	usable int
}

func newWords(n int) (words, error) {
	m, err := offheap.Reserve(n*8, unix.PROT_NONE)
	if err != nil {
		return words{}, err
	}
	return words{Mapping: m, all: offheap.View[uint64](m, n)}, nil
}

// grow makes at least the first n words usable. n is at most the reserved number.
func (w *words) grow(n int) error {
	if n <= w.usable {
		return nil
	}
	to := min((n+wordsStep-1)/wordsStep*wordsStep, len(w.all))
	// Steps are whole pages, so what begins at usable is page-aligned.
	if err := unix.Mprotect(w.Mapping[w.usable*8:to*8], unix.PROT_READ|unix.PROT_WRITE); err != nil {
		return fmt.Errorf("make %d replay words usable: %w", to-w.usable, err)
	}
	w.usable = to
	return nil
}

// reset clears everything of a slot but its first field, which readers load
// atomically at any time. It holds because the first field of both kinds of slot is the
// 4-byte publication word, which is 0 already.
func reset[T Inbound | Outbound](slot *T) {
	clear(unsafe.Slice((*byte)(unsafe.Pointer(slot)), unsafe.Sizeof(*slot))[4:])
}
