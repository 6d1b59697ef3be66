//go:build race

package packet

import "sync/atomic"

func counterAdd(v *uint64, n uint64) { atomic.AddUint64(v, n) }
func counterSet(v *uint64, n uint64) { atomic.StoreUint64(v, n) }
