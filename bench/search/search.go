// Package search finds how much load a device carries at given loss goals, after the ideas of
// MLRsearch (draft-ietf-bmwg-mlrsearch). It knows nothing of how a trial is made: Next says which
// trial it wants, Add is told what that trial lost.
//
//	s := search.New(min, max, goals...)
//	for t, more := s.Next(); more; t, more = s.Next() {
//		s.Add(t, measure(t))
//	}
//	b := s.Bounds(0)
//
// A goal does not ask for one good trial but judges all trials at a load together: their
// durations are summed until there is enough, and up to a share of that time, the exceed
// ratio, may lose more than the goal allows. So a single disturbance condemns no load, and a single lucky trial
// acquits none. All goals share all trials.
package search

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Goal is one question: the load up to which loss stays within a bound.
type Goal struct {
	Name string
	// LossRatio is the largest share of packets that a good trial loses.
	LossRatio float64
	// Exceed is the share of the time at one load in which trials may lose more: 0 to below 1.
	Exceed float64
	// Initial and Final are the durations of the first trials and of those that count, Sum is how long trials at
	// one load must last together. All in seconds.
	Initial, Final, Sum float64
	// Width is how close the bounds come, as a share of the upper one.
	Width float64
}

// Trial is what is to be measured.
type Trial struct {
	Load    float64 // packets a second, or whatever unit the caller has
	Seconds float64
}

// Bounds are what was found for a goal.
type Bounds struct {
	// Lower is the largest load that was found good, below Upper, the smallest that was found bad. Lower is 0 if
	// even the least load was bad, Upper is infinite if even the largest was good.
	Lower, Upper float64
	// Throughput is the conditional throughput: Lower, less what the trials there lost at the exceed ratio's quantile.
	Throughput float64
	// Trials and Seconds are those of the whole search, for all goals, AtLower the trials at Lower.
	Trials, AtLower int
	Seconds         float64
	// Regular says that the bounds are as close as the goal wants.
	Regular bool
}

// TrialsMax bounds a search whose device never behaves the same way twice.
const TrialsMax = 400

type result struct {
	Trial
	loss float64
}

// Search is one search. It is not safe for concurrent use.
type Search struct {
	min, max float64
	goals    []Goal
	targets  []target // from coarse to fine; the last of each goal is the goal itself
	results  []result
	seconds  float64
}

// target is a goal or, before it, something easier on the way to it.
type target struct {
	Goal
	goal int
}

// New returns a search between two loads, 0 < min < max.
func New(min, max float64, goals ...Goal) (*Search, error) {
	if !(min > 0) || !(max > min) || math.IsInf(max, 1) || len(goals) == 0 {
		return nil, fmt.Errorf("a search from %v to %v with %d goals", min, max, len(goals))
	}
	s := &Search{min: min, max: max, goals: slices.Clone(goals)}
	const steps = 2 // easier targets before the goal
	for i := steps; i >= 0; i-- {
		for g, goal := range goals {
			if !(goal.LossRatio >= 0 && goal.LossRatio < 1) || !(goal.Exceed >= 0 && goal.Exceed < 1) ||
				!(goal.Initial > 0 && goal.Final >= goal.Initial) || !(goal.Sum > 0) || !(goal.Width > 0 && goal.Width < 1) {
				return nil, errors.New("goal " + goal.Name + ": its numbers make no sense")
			}
			t := target{goal, g}
			if i > 0 {
				// One trial decides, shorter and between bounds further apart.
				t.Final = goal.Initial * math.Pow(goal.Final/goal.Initial, float64(steps-i)/steps)
				t.Sum, t.Exceed = t.Final, 0
				t.Width = min1(goal.Width * math.Pow(2, float64(i)))
			}
			s.targets = append(s.targets, t)
		}
	}
	return s, nil
}

// min1 keeps a widened width a share.
func min1(width float64) float64 { return min(width, 0.5) }

// Next returns the next trial, or false when every goal is reached, or cannot be.
func (s *Search) Next() (Trial, bool) {
	if len(s.results) >= TrialsMax {
		return Trial{}, false
	}
	for _, t := range s.targets {
		if load, more := s.next(t); more {
			return Trial{load, t.Final}, true
		}
	}
	return Trial{}, false
}

// next returns the load that a target wants measured.
func (s *Search) next(t target) (float64, bool) {
	lower, upper := s.bounds(t.Goal)
	if math.IsInf(upper, 1) {
		if lower >= s.max {
			return 0, false
		}
		if lower == 0 {
			return s.start(t), true
		}
		return s.undecided(t, lower, s.max, min(s.max, lower/(1-s.reach(t)))), true
	}
	if lower == 0 {
		if upper <= s.min {
			return 0, false
		}
		// What passed a trial above is a better guess than a step down.
		down := upper * (1 - s.reach(t))
		if rate := s.forwarded(upper); rate < upper*(1-t.Width) && rate > upper/4 {
			down = min(down, rate)
		}
		return s.undecided(t, s.min, upper, max(s.min, down)), true
	}
	if upper-lower <= t.Width*upper*(1+1e-9) {
		return 0, false
	}
	return s.undecided(t, lower, upper, math.Sqrt(lower*upper)), true
}

// start is the load to begin with: the largest one measured for an easier target's bound, or the maximum.
func (s *Search) start(t target) float64 {
	before := 0.0
	for _, other := range s.targets {
		if other.goal == t.goal && other.Final <= t.Final {
			if l, _ := s.bounds(other.Goal); l > 0 {
				before = l
			}
		}
	}
	if before > 0 {
		return before
	}
	return s.undecided(t, s.min, s.max, s.max)
}

// reach is how far a target steps to find its second bound: twice as far for each bound found in
// vain since, so that a device that has changed is caught up with quickly.
func (s *Search) reach(t target) float64 {
	var loads []float64
	for _, r := range s.results {
		if r.Seconds >= t.Final && !slices.Contains(loads, r.Load) {
			loads = append(loads, r.Load)
		}
	}
	return min(0.5, t.Width*math.Pow(2, float64(min(len(loads), 8)-1)))
}

// undecided returns a load within [from, to] that was measured but not enough to judge it, or else the proposed one.
func (s *Search) undecided(t target, from, to, proposed float64) float64 {
	for i := len(s.results) - 1; i >= 0; i-- {
		r := s.results[i]
		if r.Load < from || r.Load > to || r.Seconds < t.Final {
			continue
		}
		if good, bad := s.judge(t.Goal, r.Load); !good && !bad {
			return r.Load
		}
	}
	return proposed
}

// forwarded is the rate at which packets came through in the longest trial at a load.
func (s *Search) forwarded(load float64) float64 {
	rate, seconds := load, 0.0
	for _, r := range s.results {
		if r.Load == load && r.Seconds >= seconds {
			rate, seconds = load*(1-r.loss), r.Seconds
		}
	}
	return rate
}

// Add tells of a trial and the share of packets that it lost, 0 to 1.
func (s *Search) Add(t Trial, loss float64) {
	s.results = append(s.results, result{t, min(1, max(0, loss))})
	s.seconds += t.Seconds
}

// judge says whether the trials at a load make it a lower bound, an upper bound, or neither yet (the draft's load classification). Short trials
// speak against a load only as far as short good ones do not outweigh them.
func (s *Search) judge(g Goal, load float64) (lower, upper bool) {
	var fullGood, fullBad, shortGood, shortBad float64
	for _, r := range s.results {
		if r.Load != load {
			continue
		}
		full, good := r.Seconds >= g.Final, r.loss <= g.LossRatio
		switch {
		case full && good:
			fullGood += r.Seconds
		case full:
			fullBad += r.Seconds
		case good:
			shortGood += r.Seconds
		default:
			shortBad += r.Seconds
		}
	}
	bad := fullBad + max(0, shortBad-shortGood*g.Exceed/(1-g.Exceed))
	whole := max(fullGood+bad, g.Sum)
	allowed := whole*g.Exceed + 1e-9
	missing := whole - fullGood - bad
	return bad+missing <= allowed, bad > allowed
}

// bounds returns the relevant bounds of a goal so far.
func (s *Search) bounds(g Goal) (lower, upper float64) {
	upper = math.Inf(1)
	for _, r := range s.results {
		if _, bad := s.judge(g, r.Load); bad {
			upper = min(upper, r.Load)
		}
	}
	for _, r := range s.results {
		if good, _ := s.judge(g, r.Load); good && r.Load < upper {
			lower = max(lower, r.Load)
		}
	}
	return lower, upper
}

// Load is what all trials at one load lost together.
type Load struct {
	Load, Seconds float64
	Loss          float64 // the mean by time
	Trials        int
}

// Loads returns every load that was tried, in rising order.
func (s *Search) Loads() (all []Load) {
	for _, r := range s.results {
		i := slices.IndexFunc(all, func(l Load) bool { return l.Load == r.Load })
		if i < 0 {
			i = len(all)
			all = append(all, Load{Load: r.Load})
		}
		l := &all[i]
		l.Loss = (l.Loss*l.Seconds + r.loss*r.Seconds) / (l.Seconds + r.Seconds)
		l.Seconds += r.Seconds
		l.Trials++
	}
	slices.SortFunc(all, func(a, b Load) int { return cmp.Compare(a.Load, b.Load) })
	return all
}

// Bounds returns what is known of a goal, by its place in New's arguments.
func (s *Search) Bounds(goal int) Bounds {
	g := s.goals[goal]
	b := Bounds{Trials: len(s.results), Seconds: s.seconds}
	b.Lower, b.Upper = s.bounds(g)
	if b.Lower == 0 {
		return b
	}
	b.Regular = b.Lower >= s.max || b.Upper-b.Lower <= g.Width*b.Upper*(1+1e-9)
	var at []result
	for _, r := range s.results {
		if r.Load == b.Lower && r.Seconds >= g.Final {
			at = append(at, r)
		}
	}
	slices.SortFunc(at, func(a, b result) int { return cmp.Compare(a.loss, b.loss) })
	b.AtLower = len(at)
	total := 0.0
	for _, r := range at {
		total += r.Seconds
	}
	left, loss := max(g.Sum, total)*(1-g.Exceed)-1e-9, 0.0
	for _, r := range at {
		if left <= 0 {
			break
		}
		left -= r.Seconds
		loss = r.loss
	}
	b.Throughput = b.Lower * (1 - loss)
	return b
}
