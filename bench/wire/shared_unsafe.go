package wire

import (
	"sync/atomic"
	"unsafe"
)

// shared is what the sender's program and the sealer share in a mapped BPF array.
type shared struct {
	sent   atomic.Uint64 // frames sent; written by the program
	sealed atomic.Uint64 // frames ready; written by the sealer
}

const sharedSize = int(unsafe.Sizeof(shared{}))

// sharedIn views the beginning of a mapping, which the kernel aligns to a page and which
// outlives the view.
func sharedIn(memory []byte) *shared { return (*shared)(unsafe.Pointer(&memory[0])) }
