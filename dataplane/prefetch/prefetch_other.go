//go:build !amd64

package prefetch

// Bytes does nothing on this architecture.
func Bytes([]byte) {}

func each(*byte, *uint64, uintptr, uintptr, uintptr) {}

func items(uintptr, *uint32, uintptr, uintptr, uintptr) {}
