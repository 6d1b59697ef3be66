package registry

import (
	"math/rand/v2"
	"sync"
	"testing"
)

// TestLikeAMap does the same to a registry and to a map of pointers.
func TestLikeAMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var reg Registry[*int]
	model := map[uint32]*int{}
	var handles []uint32
	for range 20000 {
		if len(handles) == 0 || r.IntN(5) != 0 {
			v := new(int)
			h := reg.Put(v)
			if _, taken := model[h]; taken || h == 0 {
				t.Fatalf("handle %d was given out twice, or is none", h)
			}
			model[h], handles = v, append(handles, h)
		} else {
			i := r.IntN(len(handles))
			h := handles[i]
			reg.Drop(h)
			delete(model, h)
			handles[i] = handles[len(handles)-1]
			handles = handles[:len(handles)-1]
		}
		if len(handles) > 0 {
			if h := handles[r.IntN(len(handles))]; reg.Get(h) != model[h] {
				t.Fatalf("handle %d stands for something else", h)
			}
		}
		if reg.Len() != len(model) {
			t.Fatalf("%d values, want %d", reg.Len(), len(model))
		}
	}
}

// TestPlacesAreDense: every handle has a place of its own inside its chunk.
func TestPlacesAreDense(t *testing.T) {
	chunk, next := 0, 0
	for h := uint32(1); h < 1<<16; h++ {
		c, i := place(h)
		if c != chunk {
			chunk, next = chunk+1, 0
		}
		if c != chunk || i != next || i >= 1<<(c+firstLog) {
			t.Fatalf("handle %d lies in chunk %d at %d", h, c, i)
		}
		next++
	}
	var r Registry[int]
	if c, i := place(^uint32(0)); c >= len(r.chunks) || i >= 1<<(c+firstLog) {
		t.Fatalf("the last handle lies in chunk %d at %d", c, i)
	}
}

func TestReadersNeedNoLock(t *testing.T) {
	var reg Registry[int]
	h := reg.Put(7)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 1000 {
			reg.Drop(reg.Put(i))
			reg.Put(i)
		}
	})
	for range 1000 {
		if reg.Get(h) != 7 {
			t.Fatal("a value changed while others came and went")
		}
	}
	wg.Wait()
}
