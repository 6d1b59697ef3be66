package offheap

import "testing"

// TestValuesAreZeroAndApart writes every value of several sizes of memory and finds it again.
func TestValuesAreZeroAndApart(t *testing.T) {
	for _, n := range []int{1, 1000, hugePage / 8, hugePage/8 + 1} {
		values, m, err := New[uint64](n)
		if err != nil {
			t.Fatal(err)
		}
		if len(values) != n {
			t.Fatalf("%d values, want %d", len(values), n)
		}
		for i := range values {
			if values[i] != 0 {
				t.Fatalf("value %d of %d is not zero", i, n)
			}
			values[i] = uint64(i) + 1
		}
		for i := range values {
			if values[i] != uint64(i)+1 {
				t.Fatalf("value %d of %d was changed", i, n)
			}
		}
		m.Release()
	}
	Mapping(nil).Release()
	if _, _, err := New[uint64](1 << 58); err == nil {
		t.Error("more memory than there are addresses")
	}
}
