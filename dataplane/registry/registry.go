// Package registry names Go values by numbers, so that memory outside the Go
// heap, which must not hold pointers, can refer to them.
package registry

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// firstLog is the binary logarithm of the first chunk's length; each further one is twice as long.
const firstLog = 6

// Registry holds values of one type. Its zero value is empty. A value stays
// where it was put, so looking one up takes no lock.
type Registry[T any] struct {
	chunks [33 - firstLog]atomic.Pointer[[]T]

	mu   sync.Mutex
	next uint32   // handles above it were never given out
	free []uint32 // handles that were dropped
}

// Put returns the handle of v, never 0. It panics at 2^32 values, for which no memory suffices.
func (r *Registry[T]) Put(v T) uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.next + 1
	if n := len(r.free); n > 0 {
		h = r.free[n-1]
		r.free = r.free[:n-1]
	} else {
		r.next = h
	}
	chunk, i := place(h)
	p := r.chunks[chunk].Load()
	if p == nil {
		c := make([]T, 1<<(chunk+firstLog))
		p = &c
		r.chunks[chunk].Store(p)
	}
	(*p)[i] = v
	return h
}

// Get returns the value that a handle from Put stands for. The caller sees to it that Put happened
// before, and that Drop comes after.
func (r *Registry[T]) Get(h uint32) T {
	chunk, i := place(h)
	return (*r.chunks[chunk].Load())[i]
}

// Drop forgets a value; its handle may be given out again.
func (r *Registry[T]) Drop(h uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	chunk, i := place(h)
	var zero T
	(*r.chunks[chunk].Load())[i] = zero
	r.free = append(r.free, h)
}

// Len returns the number of values.
func (r *Registry[T]) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return int(r.next) - len(r.free)
}

// place returns where a handle's value lies.
func place(h uint32) (chunk, i int) {
	n := uint64(h) - 1 + 1<<firstLog
	chunk = bits.Len64(n) - 1 - firstLog
	return chunk, int(n) - 1<<(chunk+firstLog)
}
