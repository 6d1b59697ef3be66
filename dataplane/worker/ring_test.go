package worker

import (
	"slices"
	"sync"
	"testing"
)

func TestRingSizesAreRoundedUp(t *testing.T) {
	for want, got := range map[int]int{1: 1, 2: 2, 3: 4, 1000: 1024, 1024: 1024} {
		if n := len(newRing[int](want).slots); n != got {
			t.Errorf("%d slots for %d, want %d", n, want, got)
		}
	}
}

// FuzzRingAgainstModel runs pushes, publications and takes beside plain slices.
func FuzzRingAgainstModel(f *testing.F) {
	f.Add(uint8(8), []byte{3, 0, 1, 5, 9, 0, 2, 4, 200, 1, 7, 9, 9, 9, 0, 5})
	f.Add(uint8(1), []byte{0, 0, 1, 2, 0, 1, 5, 0, 1, 8})
	f.Fuzz(func(t *testing.T, size uint8, ops []byte) {
		r := newRing[int](int(size))
		var staged, published []int
		next := 0
		for _, op := range ops {
			switch op % 3 {
			case 0:
				for range op/3%16 + 1 {
					want := len(staged)+len(published) < len(r.slots)
					if got := r.push(next); got != want {
						t.Fatalf("push %v with %d+%d of %d", got, len(staged), len(published), len(r.slots))
					}
					if want {
						staged = append(staged, next)
					}
					next++
				}
			case 1:
				if got := r.publish(); got != (len(staged) > 0) {
					t.Fatalf("publish %v with %d staged", got, len(staged))
				}
				published, staged = append(published, staged...), nil
			case 2:
				dst := make([]int, op/3)
				want := min(len(dst), len(published))
				if n := r.take(dst); n != want || !slices.Equal(dst[:n], published[:want]) {
					t.Fatalf("took %v, want %v", dst[:n], published[:want])
				}
				published = published[want:]
			}
			if r.empty() != (len(published) == 0) {
				t.Fatalf("empty %v with %d published", r.empty(), len(published))
			}
		}
	})
}

// TestRingAcrossGoroutines passes a sequence through a small ring in batches of odd sizes.
func TestRingAcrossGoroutines(t *testing.T) {
	const total = 200000
	r := newRing[int](64)
	var producer sync.WaitGroup
	producer.Go(func() {
		for i := 0; i < total; {
			for range i%37 + 1 {
				if i == total || !r.push(i) {
					break
				}
				i++
			}
			r.publish()
		}
	})
	next, dst := 0, make([]int, 23)
	for next < total {
		for _, v := range dst[:r.take(dst)] {
			if v != next {
				t.Fatalf("took %d, want %d", v, next)
			}
			next++
		}
	}
	producer.Wait()
	if !r.empty() {
		t.Error("something is left")
	}
}
