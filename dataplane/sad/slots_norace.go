//go:build !race

package sad

import (
	"sallyport/dataplane/offheap"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
)

// newSlots maps an arena of n slots.
func newSlots[T Inbound | Outbound | transform.Key | Flight | spd.Plain6](n int) ([]T, offheap.Mapping, error) {
	return offheap.New[T](n)
}
