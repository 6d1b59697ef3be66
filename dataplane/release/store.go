//go:build amd64 && !race

package release

// Store stores v at p, which [sync/atomic] loads, behind all loads and stores before it. Later loads may happen before it: who goes on to
// look whether the other end sleeps stores with sync/atomic.
//
//go:noescape
func Store(p *uint32, v uint32)
