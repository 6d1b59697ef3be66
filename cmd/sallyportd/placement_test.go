package main

import (
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

func TestPlacement(t *testing.T) {
	for _, c := range []struct {
		name        string
		wanted      int
		cores, cpus []int
		count       int
		pinned      []int
		fault       string
	}{
		{"one CPU", 0, nil, []int{0}, 1, nil, ""},
		{"two CPUs, as many workers", 0, nil, []int{0, 1}, 2, nil, ""},
		{"one CPU left for the rest", 0, nil, []int{0, 1, 2, 3}, 3, []int{1, 2, 3}, ""},
		{"fewer than CPUs", 1, nil, []int{0, 1}, 1, []int{1}, ""},
		{"more than CPUs", 4, nil, []int{0, 1}, 4, nil, ""},
		{"named", 0, []int{3, 1}, []int{0, 1, 2, 3}, 2, []int{3, 1}, ""},
		{"all named", 2, []int{0, 1}, []int{0, 1}, 2, []int{0, 1}, ""},
		{"not there", 0, []int{7}, []int{0, 1}, 0, nil, "CPU 7 is not"},
		{"twice", 0, []int{1, 1}, []int{0, 1}, 0, nil, "named twice"},
		{"too few named", 2, []int{1}, []int{0, 1}, 0, nil, "names 1 CPUs for 2 workers"},
	} {
		t.Run(c.name, func(t *testing.T) {
			count, pinned, err := placement(c.wanted, c.cores, c.cpus)
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) {
					t.Fatalf("error %v, want %q", err, c.fault)
				}
				return
			}
			if err != nil || count != c.count || !slices.Equal(pinned, c.pinned) {
				t.Errorf("%d workers on %v, %v; want %d on %v", count, pinned, err, c.count, c.pinned)
			}
		})
	}
}

// TestReadingLeavesTheCollectorAsItWas: also where there is nothing to read.
func TestReadingLeavesTheCollectorAsItWas(t *testing.T) {
	before := debug.SetGCPercent(gcPercent)
	defer func() { debug.SetGCPercent(before) }()
	if _, err := loadLean(filepath.Join(t.TempDir(), "none.yaml")); err == nil {
		t.Error("a file that is not there was read")
	}
	if got := debug.SetGCPercent(gcPercent); got != gcPercent {
		t.Errorf("%d per cent", got)
	}
}
