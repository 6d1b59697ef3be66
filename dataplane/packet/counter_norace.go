//go:build !race

package packet

func counterAdd(v *uint64, n uint64) { *v += n }
func counterSet(v *uint64, n uint64) { *v = n }
