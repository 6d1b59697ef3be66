package prefetch

import "unsafe"

// Each asks for lines cache lines, at least one, at each of a list of places in mem. An element of the list begins with the place's
// offset, a uint64, as a descriptor does.
func Each[T any](mem []byte, list []T, lines int) {
	var v T
	if unsafe.Sizeof(v) < unsafe.Sizeof(uint64(0)) {
		panic("prefetch: no offset in so small an element")
	}
	// It holds because only the offsets are read, and no pointer is kept: where they lead need not be memory.
	each(unsafe.SliceData(mem), (*uint64)(unsafe.Pointer(unsafe.SliceData(list))), unsafe.Sizeof(v), uintptr(len(list)), uintptr(lines))
}

// Of asks for the first cache lines of a value, as many as it has.
func Of[T any](v *T) {
	// It holds because the slice covers the value and nothing else, and is not kept.
	Bytes(unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)))
}
