package replay

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
)

// oracle is the window as the RFC's text has it: a set of what was received.
type oracle struct {
	top  uint64
	size uint64
	seen map[uint64]bool
}

func (o *oracle) check(seq uint64) Verdict {
	switch {
	case seq == 0, seq <= o.top && o.top-seq >= o.size:
		return TooOld
	case o.seen[seq]:
		return Replayed
	}
	return OK
}

func (o *oracle) advance(seq uint64) Verdict {
	v := o.check(seq)
	if v == OK {
		o.seen[seq] = true
		o.top = max(o.top, seq)
	}
	return v
}

// infer tries every upper half near the top: the right one puts the number
// closest to the window, that is in [top-size+1, top-size+2^32].
func (o *oracle) infer(lo uint32) uint64 {
	hi := o.top >> 32
	for _, h := range []uint64{hi - 1, hi, hi + 1} {
		if hi == 0 && h == hi-1 || h > math.MaxUint32 {
			continue
		}
		seq := h<<32 | uint64(lo)
		reached := seq > o.top || o.top-seq < o.size
		near := seq <= o.top || seq-o.top+o.size <= 1<<32
		// The first subspace has no predecessor: what could only be there lies ahead.
		if reached && (near || h == 0) {
			return seq
		}
	}
	return 0
}

func start(size uint32, esn bool, top uint64) (*Window, []uint64, *oracle) {
	w := New(size, esn)
	words := make([]uint64, Words(size))
	o := &oracle{size: uint64(size), seen: map[uint64]bool{}}
	if top != 0 {
		w.Advance(words, top)
		o.advance(top)
	}
	return &w, words, o
}

// sizes are powers of two and others, smaller than one word and larger than the default.
var sizes = []uint32{32, 33, 63, 64, 65, 100, 128, 1000, 4096, 65535, 65536}

func TestSizesAreTakenExactly(t *testing.T) {
	for _, c := range []struct{ wish, size, words uint32 }{
		{0, 32, 1}, {31, 32, 1}, {32, 32, 1}, {33, 33, 1}, {64, 64, 1}, {65, 65, 2}, {100, 100, 2}, {129, 129, 4},
		{4096, 4096, 64}, {4097, 4097, 128}, {65535, 65535, 1024}, {65536, 65536, 1024}, {1 << 31, 65536, 1024},
	} {
		w := New(c.wish, true)
		if w.Size() != c.size || w.Words() != int(c.words) || Words(c.wish) != int(c.words) {
			t.Errorf("a window of %d: %d numbers in %d words, Words says %d", c.wish, w.Size(), w.Words(), Words(c.wish))
		}
	}
}

// TestSmallestWindow states the smallest window by example, on both sides of 2^32: 32 numbers are 32, not the 64 of a word.
func TestSmallestWindow(t *testing.T) {
	for _, top := range []uint64{100, 1<<32 - 1, 1 << 32, 1<<32 + 30, 1<<32 + 31} {
		w, words, _ := start(32, true, top)
		for _, c := range []struct {
			below uint64
			want  Verdict
		}{{0, Replayed}, {1, OK}, {31, OK}, {32, TooOld}, {33, TooOld}, {63, TooOld}} {
			if got := w.Check(words, top-c.below); got != c.want {
				t.Errorf("top %#x: the number %d below has verdict %d, want %d", top, c.below, got, c.want)
			}
		}
		// What fell out of the window while its bit was still set is old, not replayed; and is new again 2^32 later.
		if w.Advance(words, top+40) != OK || w.Check(words, top) != TooOld || w.Infer(uint32(top)) != top+1<<32 {
			t.Errorf("top %#x: what fell out of the window", top)
		}
	}
}

// tops lie on both sides of every wrap.
var tops = []uint64{0, 1, 62, 63, 64, 65, 127, 4095, 4096, 65535, 65536, 1<<31 - 1, 1 << 31,
	1<<32 - 65537, 1<<32 - 65536, 1<<32 - 4096, 1<<32 - 64, 1<<32 - 1, 1 << 32, 1<<32 + 62, 1<<32 + 63, 1<<32 + 4094, 1<<32 + 65535,
	7<<32 - 1, 7 << 32, 7<<32 + 99, 1<<63 - 1, math.MaxUint64 - 1<<32, math.MaxUint64 - 65536, math.MaxUint64 - 1, math.MaxUint64}

func TestInferenceAgreesWithSearch(t *testing.T) {
	for _, size := range sizes {
		for _, top := range tops {
			w, _, o := start(size, true, top)
			for _, base := range append(tops, top, top-o.size, top+1<<31) {
				for d := -2; d <= 2; d++ {
					lo := uint32(base) + uint32(d)
					if got, want := w.Infer(lo), o.infer(lo); got != want {
						t.Fatalf("size %d top %#x: Infer(%#x) = %#x, want %#x", size, top, lo, got, want)
					}
				}
			}
		}
	}
}

// TestInferenceByTheAppendix states RFC 4303, A2.2 by example.
func TestInferenceByTheAppendix(t *testing.T) {
	for _, c := range []struct {
		name     string
		top      uint64
		lo       uint32
		want     uint64
		advanced Verdict
	}{
		{"first packet", 0, 1, 1, OK},
		{"zero is never sent", 0, 0, 0, TooOld},
		{"case A, in the window", 5 << 32, 0, 5 << 32, Replayed},
		{"case A, ahead", 5<<32 + 1000, 2000, 5<<32 + 2000, OK},
		{"case A, left of the window means the next subspace", 5<<32 + 1000, 1000 - 64, 6<<32 + 1000 - 64, OK},
		{"case B, window reaches back", 5<<32 + 10, 1<<32 - 5, 5<<32 - 5, OK},
		{"case B, ahead", 5<<32 + 10, 70, 5<<32 + 70, OK},
		{"across 2^32", 1<<32 - 1, 0, 1 << 32, OK},
		{"nothing lies before the first subspace", 10, 1<<32 - 5, 1<<32 - 5, OK},
		{"nothing lies behind the last subspace", math.MaxUint64, 5, 0, TooOld},
	} {
		w, words, _ := start(64, true, c.top)
		got := w.Infer(c.lo)
		if got != c.want {
			t.Errorf("%s: Infer(%#x) = %#x, want %#x", c.name, c.lo, got, c.want)
		}
		if v := w.Advance(words, got); v != c.advanced {
			t.Errorf("%s: verdict %d, want %d", c.name, v, c.advanced)
		}
	}
}

func TestWithoutESNNothingWraps(t *testing.T) {
	w, words, _ := start(64, false, 1<<32-1)
	for lo, want := range map[uint32]Verdict{0: TooOld, 1: TooOld, 1<<32 - 1: Replayed, 1<<32 - 2: OK, 1<<32 - 64: OK, 1<<32 - 65: TooOld} {
		if seq := w.Infer(lo); seq != uint64(lo) || w.Check(words, seq) != want {
			t.Errorf("%#x: seq %#x, verdict %d, want %d", lo, seq, w.Check(words, seq), want)
		}
	}
}

// TestForgedPacketMovesNothing is hazard D7: Infer and Check leave the window as it is.
func TestForgedPacketMovesNothing(t *testing.T) {
	w, words, _ := start(128, true, 1000)
	before, state := append([]uint64(nil), words...), *w
	for _, lo := range []uint32{1, 999, 1000, 1001, 1 << 31, 1<<32 - 1} {
		w.Check(words, w.Infer(lo))
	}
	for i := range words {
		if words[i] != before[i] {
			t.Fatal("Check changed the window")
		}
	}
	if *w != state {
		t.Fatal("Check moved the top, or more")
	}
}

// TestDuplicatesInOneBatchAreCaught is hazard D8: both pass Check, only the first Advance.
func TestDuplicatesInOneBatchAreCaught(t *testing.T) {
	w, words, _ := start(64, true, 10)
	for range 2 {
		if w.Check(words, 11) != OK {
			t.Fatal("a new number was refused")
		}
	}
	if v := w.Advance(words, 11); v != OK {
		t.Fatal(v)
	}
	if v := w.Advance(words, 11); v != Replayed {
		t.Fatalf("the second copy: verdict %d", v)
	}
	// One that Check let pass and that the batch's other packets pushed out of the window.
	if w.Check(words, 9) != OK || w.Advance(words, 9+64) != OK {
		t.Fatal("set-up")
	}
	if v := w.Advance(words, 9); v != TooOld {
		t.Fatalf("pushed out: verdict %d", v)
	}
}

func TestWindowAgreesWithSet(t *testing.T) {
	for _, size := range sizes {
		for _, top := range []uint64{0, 1<<32 - 3, 1<<32 - 70000, 3<<32 - 5000, math.MaxUint64 - 200000} {
			r := rand.New(rand.NewPCG(uint64(size), top))
			w, words, o := start(size, true, top)
			steps := []uint64{2, 70, o.size + 3, 3 * o.size}
			for range 5000 {
				span := steps[r.IntN(len(steps))]
				seq := o.top + r.Uint64N(span)
				if r.IntN(2) == 0 {
					if back := r.Uint64N(max(o.size+3, 70)); back <= o.top {
						seq = o.top - back
					} else {
						seq = 0
					}
				}
				if seq < o.top && seq+o.size+80 < o.top || seq > o.top && seq-o.top > 1<<40 {
					continue // wrapped past the end of all numbers
				}
				step(t, w, words, o, seq)
			}
		}
	}
}

// TestPacketsInOrderTouchNoBits gives the window no words at all: numbers without a gap need none, nor does finding their replays, however
// many they are. Where a gap ends the run, all that it had are in the words.
func TestPacketsInOrderTouchNoBits(t *testing.T) {
	for _, size := range sizes {
		for _, first := range []uint64{1, 1<<32 - 40, math.MaxUint64 - 200_000} {
			for _, n := range []uint64{1, 5, uint64(size) - 1, uint64(size), uint64(size) + 1, 2*uint64(size) + 7} {
				w, words, o := start(size, true, first-1)
				for seq := first; seq < first+n; seq++ {
					if w.Check(nil, seq) != OK || w.Advance(nil, seq) != OK || w.Check(nil, seq) != Replayed || o.advance(seq) != OK {
						t.Fatalf("size %d: number %#x behind %#x", size, seq, first-1)
					}
				}
				for _, gap := range []uint64{0, 2, 65, uint64(size) - 1, uint64(size) / 2} {
					if gap > 1 {
						step(t, w, words, o, o.top+gap)
					}
					for below := range min(uint64(size)+70, o.top) {
						if seq := o.top - below; w.Check(words, seq) != o.check(seq) {
							t.Fatalf("size %d, %d numbers from %#x, a gap of %d: %d below the top", size, n, first, gap, below)
						}
					}
				}
			}
		}
	}
}

func step(t *testing.T, w *Window, words []uint64, o *oracle, seq uint64) {
	t.Helper()
	if hi, lo := w.Ahead(); uint32(seq) > lo {
		if ahead := hi | uint64(uint32(seq)); w.Infer(uint32(seq)) != ahead || w.Check(words, ahead) != OK {
			t.Fatalf("size %d top %#x: %#x is said to lie ahead of %#x", o.size, o.top, ahead, lo)
		}
	}
	if seq == o.top+1 && seq != 0 && seq&1 == 0 { // the others by Advance, below
		if w.Check(words, seq) == OK && o.advance(seq) == OK {
			w.Follow(seq)
		}
	}
	if got, want := w.Check(words, seq), o.check(seq); got != want {
		t.Fatalf("size %d top %#x: Check(%#x) = %d, want %d", o.size, o.top, seq, got, want)
	}
	if got, want := w.Advance(words, seq), o.advance(seq); got != want || w.Top() != o.top {
		t.Fatalf("size %d: Advance(%#x) = %d, want %d; top %#x, want %#x", o.size, seq, got, want, w.Top(), o.top)
	}
}

// FuzzWindow reads sequence numbers as signed distances from the top, over the wire's 32 bits.
func FuzzWindow(f *testing.F) {
	f.Add(uint8(0), uint64(0), []byte{0, 1, 0, 1, 0xff, 0xff, 0, 64, 0, 63})
	f.Add(uint8(1), uint64(1<<32-2), []byte{0, 1, 0, 1, 0, 1, 0xff, 0x80, 0xff, 0x7f})
	f.Add(uint8(3), uint64(1<<32+5), []byte{0xf0, 0, 0x10, 1, 0xef, 0xff})
	f.Add(uint8(4), uint64(1<<33-1), []byte{0x7f, 0xff, 0x80, 0, 0, 2})
	f.Fuzz(func(t *testing.T, class uint8, top uint64, moves []byte) {
		w, words, o := start(sizes[int(class)%len(sizes)], true, top)
		for ; len(moves) >= 2; moves = moves[2:] {
			lo := uint32(o.top) + uint32(int32(int16(binary.BigEndian.Uint16(moves)))*3)
			seq := w.Infer(lo)
			if want := o.infer(lo); seq != want {
				t.Fatalf("size %d top %#x: Infer(%#x) = %#x, want %#x", o.size, o.top, lo, seq, want)
			}
			step(t, w, words, o, seq)
		}
	})
}

func TestNoAllocation(t *testing.T) {
	w, words, _ := start(4096, true, 0)
	if n := testing.AllocsPerRun(100, func() { w.Advance(words, w.Infer(uint32(w.Top())+3)) }); n != 0 {
		t.Fatal(n)
	}
}

func BenchmarkInOrder(b *testing.B) {
	w, words, _ := start(4096, true, 0)
	for b.Loop() {
		seq := w.Infer(uint32(w.Top()) + 1)
		if w.Check(words, seq) != OK || w.Advance(words, seq) != OK {
			b.Fatal(seq)
		}
	}
}
