// Package threads says on which CPUs the threads of this process run, and how readily.
package threads

import (
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Allowed returns the CPUs that the calling thread may run on, in ascending order.
func Allowed() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("asking for the CPUs of this process: %w", err)
	}
	var cpus []int
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// Pin keeps the calling thread on one CPU.
func Pin(cpu int) error {
	if err := unix.SchedSetaffinity(0, setOf([]int{cpu})); err != nil {
		return fmt.Errorf("run on CPU %d: %w", cpu, err)
	}
	return nil
}

// Avoid keeps the threads of this process, and those that they start, off the given CPUs, which are the workers': these pin
// their own threads afterwards. Where no other CPU is left it does nothing.
func Avoid(cpus []int) error {
	rest, err := Allowed()
	if err != nil {
		return err
	}
	rest = slices.DeleteFunc(rest, func(cpu int) bool { return slices.Contains(cpus, cpu) })
	if len(rest) == 0 {
		return nil
	}
	if err := Allow(rest); err != nil {
		return fmt.Errorf("keeping off the workers' CPUs: %w", err)
	}
	return nil
}

// Allow has the threads of this process, and those that they start, run on the given CPUs, whatever they were told before.
func Allow(cpus []int) error {
	set := setOf(cpus)
	return each(func(id int) error {
		if err := unix.SchedSetaffinity(id, set); err != nil && err != unix.ESRCH {
			return fmt.Errorf("having thread %d run on CPUs %v: %w", id, cpus, err)
		}
		return nil
	})
}

// Place chooses among these CPUs those of so many workers: the last ones. It returns none where that leaves none to the rest of the
// process: the threads are better free then.
func Place(workers int, cpus []int) []int {
	if workers >= len(cpus) {
		return nil
	}
	return cpus[len(cpus)-workers:]
}

// Prefer gives the threads of this process, and those that they start, a priority. Without the right to, it does nothing: the
// process works, only less evenly.
func Prefer(niceness int) {
	_ = each(func(id int) error {
		_ = unix.Setpriority(unix.PRIO_PROCESS, id, niceness)
		return nil
	})
}

func setOf(cpus []int) *unix.CPUSet {
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	return &set
}

// each calls f with the number of each thread of this process.
func each(f func(id int) error) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("listing the threads of this process: %w", err)
	}
	for _, t := range tasks {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			if err := f(id); err != nil {
				return err
			}
		}
	}
	return nil
}
