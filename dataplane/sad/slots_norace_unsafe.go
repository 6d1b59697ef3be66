//go:build !race

package sad

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"sallyport/dataplane/transform"
)

// newSlots maps an arena of n slots.
func newSlots[T Inbound | Outbound | transform.Key](n int) ([]T, mapping, error) {
	var slot T
	m, err := reserve(n*int(unsafe.Sizeof(slot)), unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return nil, nil, err
	}
	return slotsIn[T](m, n), m, nil
}
