package main

import (
	"testing"
	"time"
)

func TestARunGivesEachPartItsShare(t *testing.T) {
	const second = time.Second
	parts := []part{{name: "a", share: 10}, {name: "b", share: 20, fixed: true}, {name: "c", share: 30}}
	for _, c := range []struct {
		from int
		left time.Duration
		want time.Duration
	}{
		{0, 60 * second, 10 * second}, {0, 40 * second, 5 * second}, {1, 25 * second, 20 * second}, {2, 45 * second, 45 * second},
		{0, 5 * second, 0}, {2, -second, 0},
	} {
		if got := share(parts[c.from:], c.left); got != c.want {
			t.Errorf("%s of %v: %v, want %v", parts[c.from].name, c.left, got, c.want)
		}
	}
	for _, whole := range []struct {
		matrix matrix
		most   time.Duration
	}{{quick, 2 * time.Minute}, {standard, 30 * time.Minute}} {
		sum := 0.0
		for _, p := range whole.matrix.parts {
			sum += p.share
		}
		if got := time.Duration(sum) * second; got > whole.most || got < whole.most*4/5 {
			t.Errorf("%v of %v", got, whole.most)
		}
	}
}
