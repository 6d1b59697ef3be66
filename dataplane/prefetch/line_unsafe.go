package prefetch

import "unsafe"

// Of asks for the first cache lines of a value, as many as it has.
func Of[T any](v *T) {
	// It holds because the slice covers the value and nothing else, and is not kept.
	Bytes(unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)))
}
