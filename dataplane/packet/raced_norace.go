//go:build !race

package packet

// Raced says that the race detector watches.
const Raced = false
