//go:build !amd64 || race

package release

import "sync/atomic"

// Store stores v at p behind all loads and stores before it.
func Store(p *uint32, v uint32) { atomic.StoreUint32(p, v) }
