package prefetch

// Bytes asks for all cache lines of b. It reads nothing, so it cannot fault, and returns at once.
//
//go:noescape
func Bytes(b []byte)

//go:noescape
func each(mem *byte, offset *uint64, stride, n, lines uintptr)

//go:noescape
func items(list uintptr, index *uint32, n, size, lines uintptr)
