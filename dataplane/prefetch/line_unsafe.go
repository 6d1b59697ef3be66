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

// Items asks for lines cache lines, at least one, of each of the elements of list that index names, the first of them that of the element's byte from.
// Unlike Of it takes no pointers to them: to make one of a field, the compiler has the value read, for a check for nil, and that
// waits for the very line that is asked for. An index may be any number.
func Items[T any](list []T, index []uint32, from, lines int) {
	var v T
	// It holds because nothing of list is read, and no pointer is kept.
	items(uintptr(unsafe.Pointer(unsafe.SliceData(list)))+uintptr(from), unsafe.SliceData(index), uintptr(len(index)), unsafe.Sizeof(v), uintptr(lines))
}

// Of asks for the first cache lines of a value, as many as it has.
func Of[T any](v *T) {
	// It holds because the slice covers the value and nothing else, and is not kept.
	Bytes(unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)))
}
