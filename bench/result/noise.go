package result

import (
	"bufio"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Noise is what a machine did beside a run.
type Noise struct {
	// Slowdown is by how much the slower tenth of short pieces of pure computation took longer than the fastest, measured
	// before and after the run: 0 on a quiet machine.
	Slowdown float64 `json:"slowdown"`
	// Steal is the share of time that a hypervisor gave to others, from /proc/stat; -1 where it does not tell.
	Steal float64 `json:"steal"`
	// Load is the number of other threads that wanted to run at the start (/proc/loadavg, one minute).
	Load float64 `json:"load"`
}

// Limits from which a machine is too noisy to trust a single run.
const (
	slowdownMax = 0.5
	stealMax    = 0.05
)

// Noisy says that figures of the run should not be relied on, and why; "" if they may.
func (n *Noise) Noisy() string {
	switch {
	case n == nil:
		return ""
	case n.Steal > stealMax:
		return "the hypervisor gave " + percent(n.Steal) + " of the time to others"
	case n.Slowdown > slowdownMax:
		return "pieces of pure computation took up to " + percent(n.Slowdown) + " longer than others"
	}
	return ""
}

func percent(share float64) string { return strconv.FormatFloat(100*share, 'f', 0, 64) + " %" }

// NoiseMeter watches a machine during a run.
type NoiseMeter struct {
	load       float64
	slowdown   float64
	steal, all float64 // ticks at the start
}

// ListenForNoise takes a fifth of a second and starts to watch.
func ListenForNoise() *NoiseMeter {
	m := &NoiseMeter{slowdown: slowdown()}
	m.steal, m.all = ticks()
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		if first, _, ok := strings.Cut(string(text), " "); ok {
			m.load, _ = strconv.ParseFloat(first, 64)
		}
	}
	return m
}

// Stop takes a fifth of a second and says what the machine did since the start.
func (m *NoiseMeter) Stop() *Noise {
	n := &Noise{Slowdown: max(m.slowdown, slowdown()), Steal: -1, Load: m.load}
	if steal, all := ticks(); all > m.all {
		n.Steal = (steal - m.steal) / (all - m.all)
	}
	return n
}

// pieces of pure computation, of about a hundred microseconds each.
const pieces = 2000

// slowdown computes, and compares the slower tenth of pieces with the fastest.
func slowdown() float64 {
	times := make([]float64, pieces)
	x := uint64(1)
	for i := range times {
		began := time.Now()
		for range 1 << 15 {
			x = x*6364136223846793005 + 1442695040888963407
		}
		times[i] = float64(time.Since(began))
	}
	if x == 0 {
		return math.NaN() // keeps the computation from being left out
	}
	slices.Sort(times)
	return times[len(times)*9/10]/times[0] - 1
}

// ticks returns the time stolen by a hypervisor and all time of all CPUs, in ticks (proc(5), /proc/stat).
func ticks() (steal, all float64) {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	if !s.Scan() {
		return 0, 0
	}
	fields := strings.Fields(s.Text())
	const stealField = 8 // behind the word cpu: user nice system idle iowait irq softirq steal
	for i, word := range fields[min(1, len(fields)):min(len(fields), stealField+1)] {
		v, _ := strconv.ParseFloat(word, 64)
		all += v
		if i+1 == stealField {
			steal = v
		}
	}
	return steal, all
}
