//go:build !race

package sad

import (
	"sallyport/dataplane/offheap"
	"sallyport/dataplane/transform"
)

// newSlots maps an arena of n slots.
func newSlots[T Inbound | Outbound | transform.Key | Flight](n int) ([]T, offheap.Mapping, error) {
	return offheap.New[T](n)
}
