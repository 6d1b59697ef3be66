package sad

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	hugePage = 2 << 20
	// wordsStep is by how many replay words the usable part of their arena grows: 1 MiB.
	wordsStep = 1 << 17
)

// mapping is anonymous memory outside the Go heap, never in a core dump or a forked child.
type mapping []byte

// reserve maps size bytes with the given protection. Pages cost nothing until they are touched.
func reserve(size, prot int) (mapping, error) {
	m, err := unix.Mmap(-1, 0, size, prot, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", size, err)
	}
	if err := unix.Madvise(m, unix.MADV_DONTDUMP); err != nil {
		unix.Munmap(m)
		return nil, fmt.Errorf("keep %d bytes out of core dumps: %w", size, err)
	}
	// These two are of help where the kernel has them, and not needed.
	unix.Madvise(m, unix.MADV_WIPEONFORK)
	if size >= hugePage {
		unix.Madvise(m, unix.MADV_HUGEPAGE)
	}
	return m, nil
}

func (m mapping) release() {
	if m != nil {
		unix.Munmap(m)
	}
}

// slotsIn views memory as n slots. It holds because mmap aligns to pages, the
// caller mapped n slots, and slots contain no Go pointers; the mapping outlives
// the view, which Table.Close ends.
func slotsIn[T any](m mapping, n int) []T {
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(m))), n)
}

// words is the arena of replay bits: reserved for the worst case, and made
// usable step by step, so that neither memory nor the overcommit limit pays for
// what is not used.
type words struct {
	mapping
	all    []uint64
	usable int
}

func newWords(n int) (words, error) {
	m, err := reserve(n*8, unix.PROT_NONE)
	if err != nil {
		return words{}, err
	}
	return words{mapping: m, all: slotsIn[uint64](m, n)}, nil
}

// grow makes at least the first n words usable. n is at most the reserved number.
func (w *words) grow(n int) error {
	if n <= w.usable {
		return nil
	}
	to := min((n+wordsStep-1)/wordsStep*wordsStep, len(w.all))
	// Steps are whole pages, so what begins at usable is page-aligned.
	if err := unix.Mprotect(w.mapping[w.usable*8:to*8], unix.PROT_READ|unix.PROT_WRITE); err != nil {
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
