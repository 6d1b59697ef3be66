// Package compare says what changed between two result files, beyond what the samples' own noise explains, and beyond what
// changed meanwhile of things that no build of ours changes: peers, the standard library, the machine's own looks.
package compare

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"sallyport/bench/result"
)

// Verdict is what is to be thought of a row's change.
type Verdict string

const (
	Better   Verdict = "better"
	Worse    Verdict = "worse"
	Same     Verdict = "same"     // the interval holds 1, or the change is below what matters
	Drifted  Verdict = "drifted"  // changed, but no more than the controls did
	Unstable Verdict = "unstable" // a spread over result.SpreadMax on either side, and the change does not stand out all the same
	Few      Verdict = "few"      // fewer than result.SamplesMin samples: nothing can be said
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

// resamples is how often both sides' samples are drawn anew (the bootstrap of Efron, 1979).
const resamples = 2000

// Band is how the speed of the controls of one kind changed, new by old: the machine's drift and what medians differ by anyhow.
type Band struct {
	Kind      string // in memory, on the wire
	Controls  int
	Low, High float64 // without a tenth at either end; always around 1
}

// Bands returns those of the two kinds of measurement. Without controls they are 1 to 1.
func Bands(old, fresh *result.File) (bands [2]Band) {
	var speeds [2][]float64
	add := func(kind int, unit string, before, after float64) {
		if before > 0 && after > 0 {
			speed := after / before
			if !(result.Row{Unit: unit}).HigherIsBetter() {
				speed = 1 / speed
			}
			speeds[kind] = append(speeds[kind], speed)
		}
	}
	find := rowsOf(old)
	for _, r := range fresh.Rows {
		o, ok := find[keyOf(r)]
		if !ok {
			continue
		}
		if foreign(r.Peer) && len(o.PeerSamples) >= result.SamplesMin && len(r.PeerSamples) >= result.SamplesMin {
			add(kindOf(r), r.Unit, o.PeerValue, r.PeerValue)
		}
		if control(r) && len(o.Samples) >= result.SamplesMin && len(r.Samples) >= result.SamplesMin {
			add(kindOf(r), r.Unit, o.Value, r.Value)
		}
	}
	if old.Noise != nil && fresh.Noise != nil {
		for _, loop := range []func(result.Look) float64{
			func(l result.Look) float64 { return l.Spin.Median }, func(l result.Look) float64 { return l.Memory.Median },
		} {
			add(inMemory, "us", medianOf(old.Noise.Looks, loop), medianOf(fresh.Noise.Looks, loop))
		}
	}
	for kind, name := range []string{inMemory: "in memory", onTheWire: "on the wire"} {
		s := slices.Sorted(slices.Values(speeds[kind]))
		b := Band{name, len(s), 1, 1}
		if s = s[len(s)/10 : len(s)-len(s)/10]; len(s) > 0 {
			b.Low, b.High = min(1, s[0]), max(1, s[len(s)-1])
		}
		bands[kind] = b
	}
	return bands
}

// Kinds of measurement, whose noise has little in common.
const (
	inMemory = iota
	onTheWire
)

func kindOf(r result.Row) int {
	if first, _, _ := strings.Cut(r.Name, "/"); first == "wire" || first == "veth" {
		return onTheWire
	}
	return inMemory
}

// foreign says that a peer is not this project's own work under other conditions.
func foreign(peer string) bool { return peer != "" && peer != "without churn" && peer != "first part" }

// control says that a row's own side is of something that no build of ours changes: the standard library's cipher, and senders that
// are not ours.
func control(r result.Row) bool {
	p := r.Parameters
	return p.By == "crypto/cipher" || p.Measure == "ceiling" && p.By != "xsk"
}

func medianOf(looks []result.Look, of func(result.Look) float64) float64 {
	var all []float64
	for _, l := range looks {
		all = append(all, of(l))
	}
	return result.Median(all)
}

// key is what makes two rows of two files the same figure.
type key struct{ name, unit, peer string }

// keyOf leaves out which mode of a peer was its best in a run.
func keyOf(r result.Row) key {
	peer, _, _ := strings.Cut(r.Peer, " ")
	return key{r.Name, r.Unit, peer}
}

func rowsOf(f *result.File) map[key]result.Row {
	all := map[key]result.Row{}
	for _, r := range f.Rows {
		all[keyOf(r)] = r
	}
	return all
}

// LeastChange is the change below which a row is the same, unless something else is asked for: two runs of one build differ by
// about so much in single rows.
const LeastChange = 0.05

// Rows compares the rows of two files by name and unit, in the order of the newer, then what is gone. Changes below least are none.
func Rows(old, fresh *result.File, least float64) []Change {
	before, bands := rowsOf(old), Bands(old, fresh)
	var all []Change
	seen := map[key]bool{}
	for _, r := range fresh.Rows {
		k := keyOf(r)
		c := Change{Name: r.Name, Unit: r.Unit, New: r, Verdict: New}
		if o, ok := before[k]; ok && !seen[k] {
			seen[k] = true
			c.Old = o
			c.judge(bands[kindOf(r)], least)
		}
		all = append(all, c)
	}
	for _, r := range old.Rows {
		if !seen[keyOf(r)] {
			all = append(all, Change{Name: r.Name, Unit: r.Unit, Old: r, Verdict: Gone})
		}
	}
	return all
}

func (c *Change) judge(drift Band, least float64) {
	switch {
	case c.Old.Value == 0 && c.New.Value == 0:
		c.Ratio, c.Low, c.High, c.Verdict = 1, 1, 1, Same
		return
	case c.Old.Value == 0:
		c.Verdict = Few
		return
	}
	c.Ratio = c.New.Value / c.Old.Value
	if len(c.Old.Samples) < result.SamplesMin || len(c.New.Samples) < result.SamplesMin {
		c.Low, c.High, c.Verdict = math.NaN(), math.NaN(), Few
		return
	}
	c.Low, c.High = interval(c.Old.Samples, c.New.Samples)
	higher := c.Ratio > 1
	slow, fast := c.Low, c.High // as speeds
	if !c.New.HigherIsBetter() {
		slow, fast = 1/c.High, 1/c.Low
	}
	switch {
	case c.Low <= 1 && c.High >= 1 || math.Abs(c.Ratio-1) < least:
		c.Verdict = Same
		if c.Old.Unstable() || c.New.Unstable() {
			c.Verdict = Unstable
		}
	case slow <= drift.High && fast >= drift.Low:
		c.Verdict = Drifted
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
