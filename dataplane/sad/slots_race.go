//go:build race

package sad

import (
	"sallyport/dataplane/offheap"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
)

// newSlots takes the slots from the Go heap: the race detector knows no other memory.
func newSlots[T Inbound | Outbound | transform.Key | Flight | spd.Plain6](n int) ([]T, offheap.Mapping, error) {
	return make([]T, n), nil, nil
}
