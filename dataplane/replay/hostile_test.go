package replay

import (
	"math"
	"math/rand/v2"
	"os"
	"testing"
)

// TestHostileNumbersAgreeWithSet sends a window numbers as somebody would who looks for where it changes its ways: runs that end short of, at and behind the window's
// edges and the ring's, gaps of every such length, what lies at an edge of the window or of the last run, one or two numbers at a time, with and without what Follow takes at once.
// SALLYPORT_LONG=1 makes it millions of steps.
func TestHostileNumbersAgreeWithSet(t *testing.T) {
	rounds := 60
	if os.Getenv("SALLYPORT_LONG") != "" {
		rounds = 3000
	}
	starts := []uint64{0, 1, 30, 63, 1<<32 - 1, 1<<32 - 66, 1 << 32, 5<<32 - 3, math.MaxUint64 - 1<<24}
	for _, size := range []uint32{32, 33, 63, 64, 65, 100, 128, 129, 255, 256} {
		r := rand.New(rand.NewPCG(uint64(size), 77))
		ring := uint64(64 * Words(size))
		near := []uint64{0, 1, 2, 3, 31, 32, 63, 64, 65, uint64(size) - 1, uint64(size), uint64(size) + 1, ring - 1, ring, ring + 1, 2 * ring, 2*ring + 1}
		pick := func() uint64 { // an edge or beside it, or anything up to three rings
			if r.IntN(4) == 0 {
				return r.Uint64N(3 * ring)
			}
			return near[r.IntN(len(near))] + uint64(r.IntN(3))
		}
		for round := range rounds {
			w, words, o := start(size, round%8 != 0, starts[round%len(starts)])
			run := uint64(0) // as the window has it
			advance := func(seq uint64) {
				if seq > 1<<32-1 && !w.ESN || seq == 0 {
					return
				}
				if seq == o.top+1 {
					run++
				} else if seq > o.top {
					run = 1
				}
				step(t, w, words, o, seq)
			}
			for range 40 {
				switch r.IntN(6) {
				case 0, 1: // in order
					for range pick() {
						advance(o.top + 1)
					}
				case 2: // a gap
					advance(o.top + 1 + pick())
				case 3: // behind: from the window's edge, or the run's
					for k := range uint64(3) {
						if below := pick() + k; below < o.top {
							advance(o.top - below)
						}
						if below := run + k - 1; below < o.top {
							advance(o.top - below)
						}
					}
				case 4: // several in order at once, as Follow is told
					n := pick()
					if o.top+n < o.top || o.top+n > 1<<32-1 && !w.ESN {
						continue
					}
					for range n {
						o.advance(o.top + 1)
					}
					w.Follow(o.top)
					run += n
				case 5: // by what stands on the wire
					if w.ESN {
						if seq := w.Infer(uint32(o.top) + uint32(pick()) - uint32(ring)); seq != 0 && (seq <= o.top || seq-o.top < 1<<20) {
							advance(seq)
						}
					}
				}
				for below := range min(ring+70, o.top) {
					if seq := o.top - below; w.Check(words, seq) != o.check(seq) {
						t.Fatalf("size %d, round %d: %d below the top %#x has verdict %d, want %d", size, round, below, o.top, w.Check(words, seq), o.check(seq))
					}
				}
				for seq := range o.seen { // what nobody asks for any more
					if o.top-seq > 4*ring {
						delete(o.seen, seq)
					}
				}
			}
		}
	}
}
