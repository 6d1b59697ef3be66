package prefetch

import "testing"

// TestEveryLengthIsHarmless asks for slices of every length and alignment: nothing is read, nothing written,
// nothing allocated.
func TestEveryLengthIsHarmless(t *testing.T) {
	b := make([]byte, 4096)
	for i := range b {
		b[i] = byte(i)
	}
	for from := range 130 {
		for to := from; to < 400; to++ {
			Bytes(b[from:to])
		}
	}
	Bytes(nil)
	Each(b, []uint64{}, 1)
	Each(nil, []uint64{0}, 1)
	Each(b, []struct{ offset, length uint64 }{{0, 1}, {64, 1}, {4095, 1}, {1 << 60, 1}, {^uint64(0), 1}}, 3)
	Items(b, nil, 0, 1)
	Items([][200]byte{{}, {}}, []uint32{1, 0, 1 << 31, 1<<32 - 1}, 64, 2)
	Items[[200]byte](nil, []uint32{0, 5}, 0, 4)
	list := make([]uint32, 3)
	if n := testing.AllocsPerRun(100, func() { Bytes(b); Items(b, list, 0, 1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for i := range b {
		if b[i] != byte(i) {
			t.Fatal("memory changed")
		}
	}
}
