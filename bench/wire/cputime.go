package wire

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime returns how long the threads of a process that may run on cpu only, its worker, have run.
func cpuTime(pid, cpu int) (total time.Duration, err error) {
	var worker unix.CPUSet
	worker.Set(cpu)
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		return 0, err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(filepath.Base(t))
		if err != nil {
			return 0, err
		}
		var set unix.CPUSet
		if unix.SchedGetaffinity(tid, &set) != nil || set != worker {
			continue // ended meanwhile, or not the worker
		}
		text, err := os.ReadFile(filepath.Join(t, "schedstat"))
		if err != nil {
			continue
		}
		ran, _, _ := strings.Cut(string(text), " ") // kernel: Documentation/scheduler/sched-stats.rst
		n, err := strconv.ParseInt(ran, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s/schedstat: %w", t, err)
		}
		total += time.Duration(n)
	}
	return total, nil
}
