package result

import "testing"

// TestPeriodsForgiveSingleLooks compares times of a run, not single looks.
func TestPeriodsForgiveSingleLooks(t *testing.T) {
	var now, lasting []float64
	for i := range 60 {
		v := 47.0
		if i%4 == 3 { // a quarter of the looks, all the time
			v = 67
		}
		now = append(now, v)
		v = 47
		if i >= 50 { // the last sixth of the run
			v = 67
		}
		lasting = append(lasting, v)
	}
	for _, c := range []struct {
		name  string
		times []float64
		drift bool
	}{{"now and then", now, false}, {"lasting", lasting, true}} {
		var all []Look
		for _, v := range c.times {
			s := Slices{v, v, v}
			all = append(all, Look{Spin: s, Width: s, Memory: s})
		}
		n := judge(all)
		if got := n.Drift > driftMax; got != c.drift {
			t.Errorf("%s: drift %v", c.name, n.Drift)
		}
		if n.Shared < 0.15 || n.Shared > 0.26 {
			t.Errorf("%s: shared %v", c.name, n.Shared)
		}
	}
}

// TestProbeComputes holds that the loop is not left out.
func TestProbeComputes(t *testing.T) {
	if add(1) == add(2) {
		t.Error("the sum does not depend on what is added")
	}
	for range 100 {
		if us := Probe(); us > 0.5 {
			return // 8,192 rounds of twelve operations take longer on every core
		}
	}
	t.Error("the loop takes no time")
}
