package result

import (
	"fmt"
	"time"
)

// Rounds says how often the cases of a measurement are taken, in turn, so that what disturbs the machine meets all of them
// alike: Runs times, or as often as Within allows, and at least once. What is unstable then is taken again while there is time.
type Rounds struct {
	Runs int
	// Within bounds all rounds but the first; 0 is no bound, and nothing is taken again.
	Within time.Duration

	began  time.Time
	rounds int
	taken  int // cases
}

// againMax is how many times Runs an unstable case is taken at most.
const againMax = 3

// Next returns which of n cases the next round is of, in order; none at the end. unstable judges a case by its samples so far.
func (r *Rounds) Next(n int, unstable func(i int) bool) (cases []int) {
	if r.rounds == 0 {
		r.began = time.Now()
	}
	fit := n
	if ran := time.Since(r.began); r.Within > 0 && r.taken > 0 {
		fit = int((r.Within - ran) / (ran/time.Duration(r.taken) + 1))
	}
	again := r.rounds >= max(1, r.Runs)
	if again && (r.Within == 0 || r.rounds >= againMax*r.Runs) {
		return nil
	}
	for i := range n {
		if r.rounds > 0 && len(cases) >= fit {
			break
		}
		if !again || unstable(i) {
			cases = append(cases, i)
		}
	}
	r.rounds++
	r.taken += len(cases)
	return cases
}

// Round names the round that Next returned last.
func (r *Rounds) Round() string {
	if r.rounds > r.Runs {
		return fmt.Sprintf("%d, again", r.rounds)
	}
	return fmt.Sprintf("%d of %d", r.rounds, r.Runs)
}

// Unsteady says that one of several lists of samples is unstable.
func Unsteady(lists ...[]float64) bool {
	for _, samples := range lists {
		if NewRow("", "", "", samples).Unstable() {
			return true
		}
	}
	return false
}
