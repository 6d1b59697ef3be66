package xsk

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"sallyport/dataplane/packet"
)

// indices are the shared words of one ring, wherever the ring lies: in memory
// mapped from the kernel, or on the heap in tests. Indices run freely over 32
// bits; an entry's place is index & mask. The producer's end alone writes
// producer, the consumer's end alone writes consumer, the kernel alone writes
// flags (kernel: net/xdp/xsk_queue.h, where the pairing of barriers is drawn).
type indices struct {
	producer, consumer, flags *uint32
	mask                      uint32
	size                      uint32
}

// mapping is one ring mapped from an AF_XDP socket. While it exists the kernel
// keeps the socket open, whatever happens to its descriptor, so close must run
// before the descriptor is closed.
type mapping struct {
	mem []byte
	indices
	first unsafe.Pointer // first entry, inside mem
}

// mapRing maps the ring that begins at page offset pgoff of the socket and has
// size entries of width bytes, a power of two.
func mapRing(fd int, pgoff int64, off *unix.XDPRingOffset, size uint32, width uintptr) (mapping, error) {
	length := uintptr(off.Desc) + uintptr(size)*width
	mem, err := unix.Mmap(fd, pgoff, int(length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return mapping{}, fmt.Errorf("map a ring of %d entries: %w", size, err)
	}
	// The kernel reports offsets inside the ring it allocated for exactly this
	// many entries, 4-byte aligned for the words and 8-byte aligned for the entries.
	word := func(at uint64) *uint32 { return (*uint32)(unsafe.Pointer(&mem[at])) }
	return mapping{
		mem: mem,
		indices: indices{
			producer: word(off.Producer), consumer: word(off.Consumer), flags: word(off.Flags),
			mask: size - 1, size: size,
		},
		first: unsafe.Pointer(&mem[off.Desc]),
	}, nil
}

// addresses views the entries of a fill or completion ring. The slice lives as
// long as the mapping, which is outside the Go heap.
func (m *mapping) addresses() []uint64 { return unsafe.Slice((*uint64)(m.first), m.size) }

// descriptors views the entries of an RX or TX ring; packet.Desc has the layout
// of struct xdp_desc, which a test asserts.
func (m *mapping) descriptors() []packet.Desc {
	return unsafe.Slice((*packet.Desc)(m.first), m.size)
}

func (m *mapping) close() {
	if m.mem != nil {
		unix.Munmap(m.mem)
		*m = mapping{}
	}
}
