// Package offheap is anonymous memory outside the Go heap, for tables of values without Go pointers.
package offheap

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const hugePage = 2 << 20

// Mapping is memory that is never in a core dump or a forked child and, where the limit on locked memory allows it, never in swap.
type Mapping []byte

// Reserve maps size bytes with the given protection, on huge pages where the kernel has them. Pages
// cost nothing until they are touched.
func Reserve(size, prot int) (Mapping, error) {
	m, err := unix.Mmap(-1, 0, size, prot, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", size, err)
	}
	if err := unix.Madvise(m, unix.MADV_DONTDUMP); err != nil {
		unix.Munmap(m)
		return nil, fmt.Errorf("keep %d bytes out of core dumps: %w", size, err)
	}
	// What follows is of help where the kernel has it and the limits allow it, and not needed. Pages are locked as they are touched.
	unix.Madvise(m, unix.MADV_WIPEONFORK)
	unix.Syscall(unix.SYS_MLOCK2, uintptr(unsafe.Pointer(unsafe.SliceData(m))), uintptr(size), unix.MLOCK_ONFAULT)
	if size >= hugePage {
		unix.Madvise(m, unix.MADV_HUGEPAGE)
	}
	return m, nil
}

// Release gives the memory back. Nothing may look at it any more.
func (m Mapping) Release() {
	if m != nil {
		unix.Munmap(m)
	}
}

// View views memory as n values. It holds because mmap aligns to pages, the caller mapped n values, and
// they contain no Go pointers; the mapping outlives the view.
func View[T any](m Mapping, n int) []T {
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(m))), n)
}

// New maps n values that are zero, to be read and written.
func New[T any](n int) ([]T, Mapping, error) {
	var value T
	m, err := Reserve(n*int(unsafe.Sizeof(value)), unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return nil, nil, err
	}
	return View[T](m, n), m, nil
}
