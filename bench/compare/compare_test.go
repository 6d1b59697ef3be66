package compare

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"sallyport/bench/result"
)

func file(rows ...result.Row) *result.File { return &result.File{Rows: rows} }

func row(name, unit string, samples ...float64) result.Row {
	return result.NewRow(name, unit, "", samples)
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		name       string
		unit       string
		old, fresh []float64
		want       Verdict
	}{
		{"faster", "Mpps", []float64{1, 1.01, 0.99, 1, 1.02}, []float64{1.2, 1.21, 1.19, 1.2, 1.22}, Better},
		{"slower", "Mpps", []float64{1, 1.01, 0.99, 1, 1.02}, []float64{0.8, 0.81, 0.79, 0.8, 0.82}, Worse},
		{"less time", "ns", []float64{100, 101, 99}, []float64{80, 81, 79}, Better},
		{"more time", "ns", []float64{100, 101, 99}, []float64{120, 121, 119}, Worse},
		{"within the noise", "Mpps", []float64{1, 1.05, 0.95, 1.02, 0.98}, []float64{1.01, 1.06, 0.96, 1.03, 0.99}, Same},
		{"real, but too small to matter", "ns", []float64{100, 100.1, 99.9}, []float64{101, 101.1, 100.9}, Same},
		{"all over the place", "Mpps", []float64{1, 2, 3, 1, 2}, []float64{1.2, 2.5, 3, 1, 2}, Unstable},
		{"noisy, but far apart", "Mpps", []float64{1, 1.3, 1.1}, []float64{3, 3.5, 4}, Better},
		{"one sample each", "Mpps", []float64{1}, []float64{2}, Few},
		{"from nothing", "allocs", []float64{0, 0, 0}, []float64{1, 1, 1}, Few},
		{"nothing still", "allocs", []float64{0, 0, 0}, []float64{0, 0, 0}, Same},
	} {
		got := Rows(file(row("x", c.unit, c.old...)), file(row("x", c.unit, c.fresh...)), 0.02)
		if len(got) != 1 || got[0].Verdict != c.want {
			t.Errorf("%s: %+v, want %s", c.name, got, c.want)
		}
	}
}

// TestASlowerMinuteIsNoRegression: what peers and the standard library lost too is the machine's, what is beyond that is ours.
func TestASlowerMinuteIsNoRegression(t *testing.T) {
	steady := func(name, unit string, v float64) result.Row { return row(name, unit, v, v*1.001, v*0.999) }
	at := func(ours, machine, wire float64) *result.File {
		f := file(steady("gateway/encrypt/64", "Mpps", ours), steady("gateway/decrypt/64", "ns", 1/ours), steady("wire/pdr/encrypt/64", "Mpps", ours))
		for i := range 20 {
			v := float64(i + 1)
			f.Add(steady(fmt.Sprintf("aesgcm128/go/%d", i), "ns", 1).Against("Go crypto/cipher", []float64{v / machine, v / machine, v / machine}),
				steady(fmt.Sprintf("wire/pdr/decrypt/%d", i), "Mpps", 1).Against("testpmd io", []float64{v * wire, v * wire, v * wire}))
		}
		f.Add(steady("a", "ns", 1).Against("without churn", []float64{9, 9, 9}), steady("b", "ns", 1).Against("first part", []float64{9, 9, 9}))
		// A single control that went astray decides nothing.
		f.Add(steady("stray", "ns", 1).Against("libipsec-mb", []float64{3 * ours, 3 * ours, 3 * ours}))
		return f
	}
	for _, c := range []struct {
		name                string
		ours, machine, wire float64
		memory, onWire      Verdict
	}{
		{"everything is slower", 0.8, 0.79, 0.79, Drifted, Drifted},
		{"only we are", 0.8, 1, 1, Worse, Worse},
		{"more than the machine", 0.7, 0.9, 0.9, Worse, Worse},
		{"faster on a slower machine", 1.2, 0.9, 0.9, Better, Better},
		{"the wire alone drifts", 0.8, 1, 0.79, Worse, Drifted},
		{"nothing", 1, 1, 1, Same, Same},
	} {
		got := Rows(at(1, 1, 1), at(c.ours, c.machine, c.wire), LeastChange)
		if got[0].Verdict != c.memory || got[1].Verdict != c.memory || got[2].Verdict != c.onWire {
			t.Errorf("%s: %s, %s, %s; want %s and %s", c.name, got[0].Verdict, got[1].Verdict, got[2].Verdict, c.memory, c.onWire)
		}
	}
	for _, b := range Bands(at(1, 1, 1), at(1, 0.8, 0.9)) {
		if want := map[string]float64{"in memory": 0.8, "on the wire": 0.9}[b.Kind]; math.Abs(b.Low-want) > 1e-9 || b.High != 1 || b.Controls < 20 {
			t.Errorf("%+v, want from %v", b, want)
		}
	}
}

// The looks at the machine are controls, too.
func TestLooksAreControls(t *testing.T) {
	at := func(us float64) *result.File {
		f := file(row("gateway/encrypt/64", "Mpps", 1/us, 1/us, 1/us))
		f.Noise = &result.Noise{Looks: []result.Look{{Spin: result.Slices{Median: us}, Memory: result.Slices{Median: us}}}}
		return f
	}
	if got := Rows(at(100), at(130), LeastChange)[0]; got.Verdict != Drifted {
		t.Errorf("%+v", got)
	}
}

func TestRowsThatOnlyOneFileHas(t *testing.T) {
	got := Rows(file(row("a", "ns", 1, 1, 1), row("b", "ns", 1, 1, 1), row("a", "Mpps", 1, 1, 1)), file(row("c", "ns", 1, 1, 1), row("a", "ns", 1, 1, 1)), LeastChange)
	want := []struct {
		name, unit string
		verdict    Verdict
	}{{"c", "ns", New}, {"a", "ns", Same}, {"b", "ns", Gone}, {"a", "Mpps", Gone}}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i, w := range want {
		if got[i].Name != w.name || got[i].Unit != w.unit || got[i].Verdict != w.verdict {
			t.Errorf("%d: %+v, want %+v", i, got[i], w)
		}
	}
}

// TestNoiseAloneIsNoChange draws both sides from one distribution, and one from another that is 10 % higher.
func TestNoiseAloneIsNoChange(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	draw := func(mean float64) (s []float64) {
		for range 9 {
			s = append(s, mean*math.Exp(0.03*r.NormFloat64()))
		}
		return s
	}
	const each = 200
	wrong, missed := 0, 0
	for range each {
		if v := Rows(file(row("x", "Mpps", draw(1)...)), file(row("x", "Mpps", draw(1)...)), 0.02)[0].Verdict; v == Better || v == Worse {
			wrong++
		}
		if v := Rows(file(row("x", "Mpps", draw(1)...)), file(row("x", "Mpps", draw(1.1)...)), 0.02)[0].Verdict; v != Better {
			missed++
		}
	}
	if wrong > each/10 || missed > each/10 {
		t.Errorf("of %d each, %d changes seen where there are none, %d overlooked", each, wrong, missed)
	}
}

// TestIntervalHoldsTheRatio: against all ways to draw, of samples so few that they can be listed.
func TestIntervalAgainstAllDraws(t *testing.T) {
	old, fresh := []float64{1, 2, 4}, []float64{3, 5, 6}
	low, high := interval(old, fresh)
	// The least and the largest ratio that medians of three draws can have.
	if low < 3.0/4 || high > 6.0/1 || low > 5.0/2 || high < 5.0/2 {
		t.Errorf("%v to %v", low, high)
	}
	if a, b := interval(old, fresh); a != low || b != high {
		t.Error("the same samples, another interval")
	}
}
