package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"

	"sallyport/cmd/internal/config"
	"sallyport/dataplane/threads"
)

// otherThreads is how many threads may run Go code beside the workers, which never
// give theirs up: control socket, netlink, TUN, and the garbage collector.
const otherThreads = 2

// gcPercent lets the heap grow to four times what lives before it is collected: the
// packet path allocates nothing, so the collector has little to do and should do it seldom.
const gcPercent = 400

// loadPercent is that while a configuration is read, which leaves a hundred times the file's length behind as garbage.
const loadPercent = 100

// loadLean reads a configuration in a running daemon, whose memory does not stay what reading took.
func loadLean(path string) (*config.Config, error) {
	before := debug.SetGCPercent(loadPercent)
	defer debug.FreeOSMemory()
	defer debug.SetGCPercent(before)
	return config.Load(path)
}

// place decides how many workers there are and on which CPUs, and prepares the process for
// them: the scheduler gets threads beside the workers', which keep off the
// workers' CPUs where others are left.
func place(w config.Workers) (count int, cores []int, err error) {
	cpus, err := threads.Allowed()
	if err != nil {
		return 0, nil, err
	}
	count, cores, err = placement(int(w.Count), w.Cores, cpus)
	if err != nil {
		return 0, nil, err
	}
	threads.Prefer(niceness)
	runtime.GOMAXPROCS(count + otherThreads)
	debug.SetGCPercent(gcPercent)
	if len(cores) > 0 {
		if err := threads.Avoid(cores); err != nil {
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
	return count, threads.Place(count, cpus), nil
}

// niceness is that of every thread. About every 10 ms the Go scheduler takes a worker's turn away, and
// another thread of this process must run to give it back. Where that
// one waits for its CPU behind other work, the worker waits too: 3 ms of every 13 were seen.
const niceness = -10
