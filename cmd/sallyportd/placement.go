package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"sallyport/cmd/internal/config"
)

// otherThreads is how many threads may run Go code beside the workers, which never
// give theirs up: control socket, netlink, TUN, and the garbage collector.
const otherThreads = 2

// gcPercent lets the heap grow to four times what lives before it is collected: the
// packet path allocates nothing, so the collector has little to do and should do it seldom.
const gcPercent = 400

// place decides how many workers there are and on which CPUs, and prepares the process for
// them: the scheduler gets threads beside the workers', which keep off the
// workers' CPUs where others are left.
func place(w config.Workers) (count int, cores []int, err error) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return 0, nil, fmt.Errorf("asking for the CPUs of this process: %w", err)
	}
	var cpus []int
	for cpu := range len(allowed) * 64 {
		if allowed.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	count, cores, err = placement(int(w.Count), w.Cores, cpus)
	if err != nil {
		return 0, nil, err
	}
	prefer()
	runtime.GOMAXPROCS(count + otherThreads)
	debug.SetGCPercent(gcPercent)
	if len(cores) > 0 {
		rest := slices.DeleteFunc(slices.Clone(cpus), func(cpu int) bool { return slices.Contains(cores, cpu) })
		if err := confine(rest); err != nil {
			return 0, nil, err
		}
	}
	return count, cores, nil
}

// placement chooses number and CPUs of the workers. wanted is 0 for no wish, cores empty. Without a
// wish there is a worker for every CPU, less one if there are more than two. Workers are pinned
// where CPUs are named, or where one is left for the rest of the process.
func placement(wanted int, cores, cpus []int) (count int, pinned []int, err error) {
	for i, core := range cores {
		if !slices.Contains(cpus, core) {
			return 0, nil, fmt.Errorf("workers.cores: CPU %d is not one of this process's (%v)", core, cpus)
		}
		if slices.Contains(cores[:i], core) {
			return 0, nil, fmt.Errorf("workers.cores: CPU %d is named twice", core)
		}
	}
	count = wanted
	switch {
	case count == 0 && len(cores) > 0:
		count = len(cores)
	case count == 0 && len(cpus) > 2:
		count = len(cpus) - 1
	case count == 0:
		count = len(cpus)
	}
	if len(cores) > 0 {
		if len(cores) != count {
			return 0, nil, fmt.Errorf("workers.cores names %d CPUs for %d workers", len(cores), count)
		}
		return count, cores, nil
	}
	if count < len(cpus) {
		return count, cpus[len(cpus)-count:], nil
	}
	return count, nil, nil
}

// niceness is that of every thread. About every 10 ms the Go scheduler takes a worker's turn away, and
// another thread of this process must run to give it back. Where that
// one waits for its CPU behind other work, the worker waits too: 3 ms of every 13 were seen.
const niceness = -10

// prefer raises the priority of this process's threads, and of those they start. Without the
// right to, it does nothing: the process works, only less evenly.
func prefer() {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, t := range tasks {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, id, niceness)
		}
	}
}

// confine keeps the threads of this process, and those they start, on the given CPUs; with none
// left it does nothing. Workers pin their own threads afterwards.
func confine(cpus []int) error {
	if len(cpus) == 0 {
		return nil
	}
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("listing the threads of this process: %w", err)
	}
	for _, t := range tasks {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := unix.SchedSetaffinity(id, &set); err != nil && err != unix.ESRCH {
			return fmt.Errorf("keeping thread %d off the workers' CPUs: %w", id, err)
		}
	}
	return nil
}
