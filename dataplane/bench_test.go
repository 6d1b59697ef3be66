package dataplane_test

import (
	"fmt"
	"testing"

	"sallyport/bench/pipeline"
)

// cases of BenchmarkGateway. 0 bytes stands for IMIX.
func cases(f func(name string, o pipeline.Options)) {
	for _, direction := range []string{"encrypt", "decrypt"} {
		for _, size := range []int{64, 512, 1420, 0} {
			for _, associations := range []int{1, 64} {
				o := pipeline.Options{Decrypt: direction == "decrypt", Sizes: []int{size}, Associations: associations}
				name := fmt.Sprintf("%s/%d/associations=%d", direction, size, associations)
				if size == 0 {
					o.Sizes = pipeline.IMIX
					name = fmt.Sprintf("%s/imix/associations=%d", direction, associations)
				}
				f(name, o)
			}
		}
	}
}

// kinds of tunnels beside those of cases.
func kinds(f func(name string, o pipeline.Options)) {
	for _, word := range pipeline.Kinds()[1:] {
		kind, _ := pipeline.ParseKind(word)
		for _, decrypt := range []bool{false, true} {
			f(fmt.Sprintf("%s/decrypt=%v", word, decrypt), pipeline.Options{Kind: kind, Decrypt: decrypt})
		}
	}
}

func open(t testing.TB, o pipeline.Options) *pipeline.Rig {
	r, err := pipeline.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// BenchmarkGateway carries packets through a whole gateway in memory, AES-128-GCM with ESN and a
// window of 4096, and reports the time a packet takes.
func BenchmarkGateway(b *testing.B) {
	cases(func(name string, o pipeline.Options) {
		b.Run(name, func(b *testing.B) {
			s, err := open(b, o).Lanes[0].Measure(b.N, 0)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(0, "ns/op") // has sealing and checking in it
			b.ReportMetric(s.Nanoseconds(), "ns/packet")
			b.ReportMetric(s.Best, "best-ns/packet")
			b.ReportMetric(s.Mpps(), "Mpps")
		})
	})
}

// TestGatewayAllocatesNothing runs each benchmark once, and counts.
func TestGatewayAllocatesNothing(t *testing.T) {
	carry := func(name string, o pipeline.Options) {
		t.Run(name, func(t *testing.T) {
			r := open(t, o).Lanes[0]
			if _, err := r.Measure(1000, 0); err != nil {
				t.Fatal(err)
			}
			r.Refresh()
			if n := testing.AllocsPerRun(min(r.Left()/64, 60)-1, func() {
				if r.Left() == 0 {
					r.Refresh() // of a source that only repeats itself: costs nothing
				}
				r.Carry()
			}); n != 0 {
				t.Errorf("%v allocations a batch", n)
			}
		})
	}
	cases(carry)
	kinds(carry)
}
