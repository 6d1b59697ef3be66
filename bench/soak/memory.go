package soak

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// memory is what the kernel says of a daemon.
type memory struct{ rssKiB, files, threads float64 }

func memoryOf(pid int) (m memory, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		n, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		switch key {
		case "VmRSS":
			m.rssKiB = n
		case "Threads":
			m.threads = n
		}
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	m.files = float64(len(files))
	return m, err
}

// collection is one collection of garbage.
type collection struct {
	liveMiB   float64 // what was found alive
	stoppedMS float64 // how long the world stood still
}

// collections reads the lines that GODEBUG=gctrace=1 makes (package runtime), such as
//
//	gc 3 @0.080s 1%: 0.018+1.3+0.076 ms clock, 0.074+0.1/1.2/0.5+0.3 ms cpu, 4->5->1 MB, 5 MB goal, ...
//
// whose first and last of the clock's times are those with the world stopped. Other lines are left out.
func collections(log string) (all []collection) {
	for line := range strings.Lines(log) {
		rest, ok := strings.CutPrefix(line, "gc ")
		if !ok {
			continue
		}
		_, rest, _ = strings.Cut(rest, ": ")
		clock, rest, ok := strings.Cut(rest, " ms clock, ")
		if !ok {
			continue
		}
		times := strings.Split(clock, "+")
		_, rest, _ = strings.Cut(rest, " ms cpu, ")
		heap, _, ok := strings.Cut(rest, " MB, ")
		sizes := strings.Split(heap, "->")
		if !ok || len(times) != 3 || len(sizes) != 3 {
			continue
		}
		first, err1 := strconv.ParseFloat(times[0], 64)
		last, err2 := strconv.ParseFloat(times[2], 64)
		live, err3 := strconv.ParseFloat(sizes[2], 64)
		if err1 == nil && err2 == nil && err3 == nil {
			all = append(all, collection{live, first + last})
		}
	}
	return all
}
