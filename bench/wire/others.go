package wire

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// others watches how much the processes run that have no part in a measurement. Kernel threads are not looked at: they carry
// packets, too.
type others struct {
	ours   map[int]bool // processes that have a part
	kernel map[int]bool // by process, once it was looked at
}

// kthread is the flag PF_KTHREAD in /proc/PID/stat (kernel: include/linux/sched.h).
const kthread = 1 << 21

// flagsField is where the flags stand behind the name, which may have blanks in it (proc(5)).
const flagsField = 6

// ran returns for how long each thread of the others has run.
func (o *others) ran() map[string]time.Duration {
	all := map[string]time.Duration{}
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		pid, err := strconv.Atoi(filepath.Base(name))
		if err != nil || o.ours[pid] || o.isKernel(pid) {
			continue
		}
		tasks, _ := filepath.Glob(name + "/task/*/schedstat")
		for _, t := range tasks {
			if text, err := os.ReadFile(t); err == nil {
				var ran time.Duration // kernel: Documentation/scheduler/sched-stats.rst
				if _, err := fmt.Sscan(string(text), &ran); err == nil {
					all[t] = ran
				}
			}
		}
	}
	return all
}

func (o *others) isKernel(pid int) bool {
	kernel, known := o.kernel[pid]
	if known {
		return kernel
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) > flagsField {
		flags, _ := strconv.ParseUint(fields[flagsField], 10, 64)
		kernel = flags&kthread != 0
	}
	if o.kernel == nil {
		o.kernel = map[int]bool{}
	}
	o.kernel[pid] = kernel
	return kernel
}

// between is how long the others ran between two readings. What has ended meanwhile is not known any more.
func between(before, after map[string]time.Duration) (sum time.Duration) {
	for t, ran := range after {
		sum += max(0, ran-before[t])
	}
	return sum
}

// disturbedShare is the share of a trial from which the others' running makes it say little of the gateway: a
// tenth of a millisecond here and there changes nothing, a compiler does.
const disturbedShare = 0.03

// watched is a trial that also tells whether others disturbed it.
func (a *ready) watched(rate, seconds float64) (o outcome, disturbed bool, err error) {
	before := a.others.ran()
	if o, err = a.trial(a.paced, rate, seconds); err != nil {
		return o, false, err
	}
	return o, between(before, a.others.ran()).Seconds() > disturbedShare*seconds, nil
}
