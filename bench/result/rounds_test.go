package result

import (
	"slices"
	"testing"
	"time"
)

func TestRoundsTakeEverythingAndThenTheUnstable(t *testing.T) {
	shaky := func(i int) bool { return i == 1 }
	for _, c := range []struct {
		name   string
		rounds Rounds
		want   [][]int
	}{
		{"no bound", Rounds{Runs: 2}, [][]int{{0, 1, 2}, {0, 1, 2}}},
		{"time enough", Rounds{Runs: 2, Within: time.Hour}, [][]int{{0, 1, 2}, {0, 1, 2}, {1}, {1}, {1}, {1}}},
		{"no time", Rounds{Runs: 2, Within: 1}, [][]int{{0, 1, 2}}},
	} {
		var got [][]int
		var names []string
		for list := c.rounds.Next(3, shaky); len(list) > 0; list = c.rounds.Next(3, shaky) {
			got = append(got, list)
			names = append(names, c.rounds.Round())
		}
		if !slices.EqualFunc(got, c.want, slices.Equal) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if want := []string{"1 of 2", "2 of 2", "3, again", "4, again", "5, again", "6, again"}; !slices.Equal(names, want[:len(names)]) {
			t.Errorf("%s: rounds %q", c.name, names)
		}
	}
	steady := Rounds{Runs: 1, Within: time.Hour}
	steady.Next(2, shaky)
	if got := steady.Next(1, shaky); got != nil {
		t.Errorf("again without need: %v", got)
	}
}

// A bounded run begins no more cases than the mean of those so far says there is time for.
func TestRoundsStopInTime(t *testing.T) {
	r := Rounds{Runs: 1000, Within: 100 * time.Millisecond}
	all := func(int) bool { return true }
	taken := 0
	for list := r.Next(10, all); len(list) > 0; list = r.Next(10, all) {
		for range list {
			time.Sleep(2 * time.Millisecond)
			taken++
		}
	}
	if taken < 10 || taken > 50 {
		t.Errorf("%d cases of 2 ms in 100 ms", taken)
	}
}

func TestUnsteady(t *testing.T) {
	if Unsteady([]float64{1, 1, 1}, nil) || !Unsteady([]float64{1, 1, 1}, []float64{1, 2, 3}) {
		t.Error("unsteady is what has an unstable list")
	}
}
