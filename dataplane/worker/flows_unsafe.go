package worker

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapping is anonymous memory outside the Go heap.
type mapping []byte

// mapPlaces maps n places, on huge pages where the kernel has them. Pages cost nothing until they are touched. The view
// holds because mmap aligns to pages and they contain no Go pointers; the mapping outlives it.
func mapPlaces(n int) ([]flowPlace, mapping, error) {
	size := n * int(unsafe.Sizeof(flowPlace{}))
	m, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, nil, fmt.Errorf("map %d bytes for flows: %w", size, err)
	}
	unix.Madvise(m, unix.MADV_HUGEPAGE)
	return unsafe.Slice((*flowPlace)(unsafe.Pointer(unsafe.SliceData(m))), n), m, nil
}

// close gives the memory back. The worker must have stopped.
func (f *flows) close() {
	if f.mapping != nil {
		unix.Munmap(f.mapping)
		f.places, f.mapping = nil, nil
	}
}
