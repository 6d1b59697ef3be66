package search

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

var (
	ndr = Goal{Name: "NDR", LossRatio: 0, Exceed: 0.5, Initial: 0.1, Final: 0.4, Sum: 2, Width: 0.02}
	pdr = Goal{Name: "PDR", LossRatio: 0.005, Exceed: 0.5, Initial: 0.1, Final: 0.4, Sum: 2, Width: 0.02}
)

// device loses what is above its capacity and, in a share of all trials, a burst besides.
type device struct {
	capacity, disturbed float64
	random              *rand.Rand
}

func (d *device) loss(t Trial) float64 {
	loss := max(0, 1-d.capacity/t.Load)
	if d.random.Float64() < d.disturbed {
		loss += 0.05 * d.random.Float64()
	}
	return loss
}

func run(t *testing.T, s *Search, loss func(Trial) float64) {
	t.Helper()
	for i := 0; ; i++ {
		trial, more := s.Next()
		if !more {
			return
		}
		if i > TrialsMax {
			t.Fatal("the search does not end")
		}
		if trial.Load < s.min || trial.Load > s.max || trial.Seconds <= 0 {
			t.Fatalf("trial %+v is out of range", trial)
		}
		s.Add(trial, loss(trial))
	}
}

// naive tries every load from the bottom in small steps and returns the largest below the first bad one.
func naive(d *device, g Goal, from, to, step float64) float64 {
	last := 0.0
	for load := from; load <= to; load += step {
		bad := 0
		const trials = 101
		for range trials {
			if d.loss(Trial{load, g.Final}) > g.LossRatio {
				bad++
			}
		}
		if float64(bad) > trials*g.Exceed {
			break
		}
		last = load
	}
	return last
}

func TestFindsWhatANaiveSearchFinds(t *testing.T) {
	for _, disturbed := range []float64{0, 0.1, 0.2} {
		for _, capacity := range []float64{1500, 77_000, 431_000, 870_000} {
			t.Run(fmt.Sprintf("%v/%v", disturbed, capacity), func(t *testing.T) {
				d := &device{capacity, disturbed, rand.New(rand.NewPCG(1, uint64(capacity)))}
				s, err := New(1000, 900_000, ndr, pdr)
				if err != nil {
					t.Fatal(err)
				}
				run(t, s, d.loss)
				for i, g := range []Goal{ndr, pdr} {
					b := s.Bounds(i)
					want := naive(d, g, capacity*0.9, capacity*1.1, capacity/1000)
					if !b.Regular {
						t.Errorf("%s: irregular: %+v", g.Name, b)
					}
					slack := 0.0
					if disturbed > 0 {
						slack = 0.03 // three unlucky trials of five at one load
					}
					if b.Lower > want*(1+0.002+slack) || b.Upper < want*(1-0.002-slack) {
						t.Errorf("%s: bounds %.0f to %.0f, a naive search finds %.0f", g.Name, b.Lower, b.Upper, want)
					}
					if b.Throughput > b.Lower || b.Throughput < b.Lower*(1-g.LossRatio) {
						t.Errorf("%s: conditional throughput %.1f at a load of %.1f", g.Name, b.Throughput, b.Lower)
					}
				}
				if n := s.Bounds(0).Trials; n > 100 {
					t.Errorf("%d trials", n)
				}
			})
		}
	}
}

func TestEnds(t *testing.T) {
	for name, c := range map[string]struct {
		loss  func(Trial) float64
		lower float64
		upper float64
	}{
		"nothing is lost":  {func(Trial) float64 { return 0 }, 1000, math.Inf(1)},
		"all is lost":      {func(Trial) float64 { return 1 }, 0, 10},
		"not a number":     {func(Trial) float64 { return math.NaN() }, 0, 10},
		"lost at the most": {func(t Trial) float64 { return t.Load / 1e9 }, 0, 10},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := New(10, 1000, ndr)
			if err != nil {
				t.Fatal(err)
			}
			run(t, s, c.loss)
			if b := s.Bounds(0); b.Lower != c.lower || b.Upper != c.upper {
				t.Errorf("%+v", b)
			}
		})
	}
	// A device that tosses a coin is given up on.
	s, _ := New(10, 1000, ndr)
	random := rand.New(rand.NewPCG(3, 4))
	run(t, s, func(Trial) float64 { return math.Round(random.Float64()) })
}

// One bad trial in a load's time condemns it for nobody but a goal without an exceed ratio.
func TestExceedRatio(t *testing.T) {
	strict := ndr
	strict.Exceed = 0
	s, _ := New(10, 1000, ndr, strict)
	for _, loss := range []float64{0.1, 0, 0, 0, 0} {
		s.Add(Trial{100, 0.4}, loss)
	}
	if b := s.Bounds(0); b.Lower != 100 || b.AtLower != 5 {
		t.Errorf("with an exceed ratio: %+v", b)
	}
	if l := s.Loads(); len(l) != 1 || l[0].Trials != 5 || math.Abs(l[0].Loss-0.02) > 1e-9 {
		t.Errorf("loads: %+v", l)
	}
	if b := s.Bounds(1); b.Lower != 0 || b.Upper != 100 {
		t.Errorf("without: %+v", b)
	}
}

func TestRefusesNonsense(t *testing.T) {
	wrong := []Goal{{}, ndr, ndr, ndr}
	wrong[1].Width, wrong[2].Exceed, wrong[3].Initial = 0, 1, 1
	for _, g := range wrong {
		if _, err := New(1, 2, g); err == nil {
			t.Errorf("goal %+v is taken", g)
		}
	}
	if _, err := New(2, 1, ndr); err == nil {
		t.Error("a minimum above the maximum is taken")
	}
}
