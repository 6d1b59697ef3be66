package compare

import (
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
		got := Rows(file(row("x", c.unit, c.old...)), file(row("x", c.unit, c.fresh...)))
		if len(got) != 1 || got[0].Verdict != c.want {
			t.Errorf("%s: %+v, want %s", c.name, got, c.want)
		}
	}
}

func TestRowsThatOnlyOneFileHas(t *testing.T) {
	got := Rows(file(row("a", "ns", 1, 1, 1), row("b", "ns", 1, 1, 1), row("a", "Mpps", 1, 1, 1)), file(row("c", "ns", 1, 1, 1), row("a", "ns", 1, 1, 1)))
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
		if v := Rows(file(row("x", "Mpps", draw(1)...)), file(row("x", "Mpps", draw(1)...)))[0].Verdict; v == Better || v == Worse {
			wrong++
		}
		if v := Rows(file(row("x", "Mpps", draw(1)...)), file(row("x", "Mpps", draw(1.1)...)))[0].Verdict; v != Better {
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
