package sad

import (
	"math/rand/v2"
	"testing"
)

// TestCurrentIsWhatIsBound binds, installs and removes at random, and asks with right, old and foreign handles for what each tunnel is bound to:
// the answer never depends on what was known before.
func TestCurrentIsWhatIsBound(t *testing.T) {
	const tunnels, capacity = 5, 8
	table := table(t, capacity, 0)
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	var all []uint32 // handles that ever were
	var known, bound [tunnels]uint32
	hits := 0
	for n := range 20000 {
		switch tunnel := r.Uint32N(tunnels); r.IntN(6) {
		case 0:
			if h, err := table.Install(params(false, 1000+uint32(n))); err == nil {
				all = append(all, h.Value())
			}
		case 1:
			if len(all) > 0 {
				table.RemoveOutbound(all[max(0, len(all)-1-r.IntN(capacity))])
			}
		case 2, 3:
			handle := uint32(0)
			if len(all) > 0 && r.IntN(5) > 0 { // one association may serve several tunnels, and one that is gone may be bound
				handle = all[max(0, len(all)-1-r.IntN(capacity))]
			}
			if err := table.Bind(tunnel, handle); err != nil {
				t.Fatal(err)
			}
			bound[tunnel] = handle
		default:
			hint := known[tunnel]
			if r.IntN(3) == 0 && len(all) > 0 {
				hint = all[r.IntN(len(all))]
			}
			o, handle := table.Current(tunnel, hint)
			if handle != bound[tunnel] || o != table.LookupOutbound(handle) {
				t.Fatalf("seed %d, step %d: tunnel %d is bound to %#x, not %#x", seed, n, tunnel, bound[tunnel], handle)
			}
			if o != nil && o.bound == tunnel+1 && hint == handle {
				hits++
			}
			known[tunnel] = handle
		}
	}
	if hits == 0 {
		t.Error("the association itself never said that it is bound")
	}
}
