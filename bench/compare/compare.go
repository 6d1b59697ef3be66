// Package compare says what changed between two result files, beyond what the samples' own noise explains.
package compare

import (
	"math"
	"math/rand/v2"
	"slices"

	"sallyport/bench/result"
)

// Verdict is what is to be thought of a row's change.
type Verdict string

const (
	Better   Verdict = "better"
	Worse    Verdict = "worse"
	Same     Verdict = "same"     // the interval holds 1, or the change is below what matters
	Unstable Verdict = "unstable" // a spread over result.SpreadMax on either side, and the change does not stand out all the same
	Few      Verdict = "few"      // fewer than samplesMin samples: nothing can be said
	New      Verdict = "new"
	Gone     Verdict = "gone"
)

// Change is one row of both files.
type Change struct {
	Name, Unit string
	Old, New   result.Row
	// Ratio is new by old, of medians. Low and High bound it with 95 % confidence.
	Ratio, Low, High float64
	Verdict          Verdict
}

const (
	samplesMin = 3
	// resamples is how often both sides' samples are drawn anew (the bootstrap of Efron, 1979).
	resamples = 2000
	// matters is the change below which nobody acts.
	matters = 0.02
)

// Rows compares the rows of two files by name and unit, in the order of the newer, then what is gone.
func Rows(old, fresh *result.File) []Change {
	type key struct{ name, unit, peer string }
	of := func(r result.Row) key { return key{r.Name, r.Unit, r.Peer} }
	before := map[key]result.Row{}
	for _, r := range old.Rows {
		before[of(r)] = r
	}
	var all []Change
	seen := map[key]bool{}
	for _, r := range fresh.Rows {
		k := of(r)
		c := Change{Name: r.Name, Unit: r.Unit, New: r, Verdict: New}
		if o, ok := before[k]; ok && !seen[k] {
			seen[k] = true
			c.Old = o
			c.judge()
		}
		all = append(all, c)
	}
	for _, r := range old.Rows {
		if !seen[of(r)] {
			all = append(all, Change{Name: r.Name, Unit: r.Unit, Old: r, Verdict: Gone})
		}
	}
	return all
}

func (c *Change) judge() {
	switch {
	case c.Old.Value == 0 && c.New.Value == 0:
		c.Ratio, c.Low, c.High, c.Verdict = 1, 1, 1, Same
		return
	case c.Old.Value == 0:
		c.Verdict = Few
		return
	}
	c.Ratio = c.New.Value / c.Old.Value
	if len(c.Old.Samples) < samplesMin || len(c.New.Samples) < samplesMin {
		c.Low, c.High, c.Verdict = math.NaN(), math.NaN(), Few
		return
	}
	c.Low, c.High = interval(c.Old.Samples, c.New.Samples)
	higher := c.Ratio > 1
	switch {
	case c.Low <= 1 && c.High >= 1 || math.Abs(c.Ratio-1) < matters:
		c.Verdict = Same
		if c.Old.Unstable() || c.New.Unstable() {
			c.Verdict = Unstable
		}
	case higher == c.New.HigherIsBetter():
		c.Verdict = Better
	default:
		c.Verdict = Worse
	}
}

// interval bounds the ratio of the medians of fresh and old: the middle 95 % of the ratios of samples drawn anew from each, with
// replacement. The same samples give the same interval.
func interval(old, fresh []float64) (low, high float64) {
	r := rand.New(rand.NewPCG(1, 1))
	draw := func(from []float64) float64 {
		s := make([]float64, len(from))
		for i := range s {
			s[i] = from[r.IntN(len(from))]
		}
		return result.Median(s)
	}
	ratios := make([]float64, resamples)
	for i := range ratios {
		ratios[i] = draw(fresh) / draw(old)
	}
	slices.Sort(ratios)
	return ratios[resamples*25/1000], ratios[resamples*975/1000]
}
