package result

import (
	"bufio"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Noise is what a machine did beside a run.
type Noise struct {
	// Slowdown is by how much the slower tenth of short pieces of pure computation took longer than the fastest, in the median
	// of the looks before, during and after the run: 0 on a quiet machine.
	Slowdown float64 `json:"slowdown"`
	// Steal is the share of time that a hypervisor gave to others, from /proc/stat; -1 where it does not tell.
	Steal float64 `json:"steal"`
	// Load is the number of other threads that wanted to run at the start (/proc/loadavg, one minute).
	Load float64 `json:"load"`
	// Crowded is the share of the looks' time in which the thread that looked had no CPU, because others ran: the median of the looks.
	Crowded float64 `json:"crowded"`
	// Drift is how far the machine's speed at one time of the run is from that at another, as a share of the fastest: of the
	// medians of the looks of each period, of which a run has up to periodsMax. What disturbs now and then, fewer than half of the looks of
	// any period, is none: the rows' samples show what it does to them.
	Drift float64 `json:"drift"`
	// Shared is the share of the looks during which the core did less at once than it can: a neighbour has its other hardware
	// thread, which no counter of this system shows.
	Shared float64 `json:"shared,omitempty"`
	// Looks are the times of the same two loops at the start, in between and at the end.
	Looks []Look `json:"looks,omitempty"`
}

// Look is one look at the machine. Its loops are a chain of multiplications, whose time depends on the clock alone; independent additions,
// as many at once as a core can do; and a walk through memory, which also needs the caches.
type Look struct {
	Time   time.Time `json:"time"`
	Spin   Slices    `json:"spin_us"`
	Width  Slices    `json:"width_us,omitzero"`
	Memory Slices    `json:"memory_us"`
	// Waited is the share of the look's time in which its thread had no CPU.
	Waited float64 `json:"waited,omitempty"`
}

// Slices are the times of many runs of one loop.
type Slices struct {
	Fastest float64 `json:"fastest"`
	Median  float64 `json:"median"`
	P90     float64 `json:"p90"`
}

// Limits from which a machine is too noisy to trust a single run.
const (
	slowdownMax = 0.5
	stealMax    = 0.05
	driftMax    = 0.35
	crowdedMax  = 0.10
	sharedMax   = 0.50
)

// Noisy says that figures of the run should not be relied on, and why; "" if they may.
func (n *Noise) Noisy() string {
	switch {
	case n == nil:
		return ""
	case n.Steal > stealMax:
		return "the hypervisor gave " + percent(n.Steal) + " of the time to others"
	case n.Crowded > crowdedMax:
		return "other processes had the CPUs for " + percent(n.Crowded) + " of the time"
	case n.Slowdown > slowdownMax:
		return "pieces of pure computation took up to " + percent(n.Slowdown) + " longer than others"
	case n.Shared > sharedMax:
		return "a neighbour used the other hardware thread of the core for " + percent(n.Shared) + " of the time"
	case n.Drift > driftMax:
		return "the same computation took " + percent(n.Drift) + " longer at one time of the run than at another"
	}
	return ""
}

func percent(share float64) string { return strconv.FormatFloat(100*share, 'f', 0, 64) + " %" }

// NoiseMeter watches a machine during a run.
type NoiseMeter struct {
	load       float64
	looks      []Look
	last       time.Time // of the end of the last look of our own
	steal, all float64   // ticks at the start
}

// ListenForNoise takes the first look and starts to watch.
func ListenForNoise() *NoiseMeter {
	m := &NoiseMeter{}
	m.steal, m.all = ticks()
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		if first, _, ok := strings.Cut(string(text), " "); ok {
			m.load, _ = strconv.ParseFloat(first, 64)
		}
	}
	m.Look()
	return m
}

// Look takes another look, for about a tenth of a second.
func (m *NoiseMeter) Look() {
	memory := make([]uint64, walkWords)
	walk(memory) // the first one meets fresh pages
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began, ran := time.Now(), threadTime()
	l := Look{Time: began.UTC().Truncate(time.Millisecond), Spin: slicesOf(spin), Width: slicesOf(func() { Probe() }), Memory: slicesOf(func() { walk(memory) })}
	m.last = time.Now()
	l.Waited = max(0, 1-float64(threadTime()-ran)/float64(m.last.Sub(began)))
	m.looks = append(m.looks, l)
}

// glanceEvery is the least time between two looks that are taken by the way.
const glanceEvery = 3 * time.Second

// Glance takes a look if the last one is glanceEvery ago.
func (m *NoiseMeter) Glance() {
	if time.Since(m.last) >= glanceEvery {
		m.Look()
	}
}

// threadTime is how long this thread has run.
func threadTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// Stop takes the last look and says what the machine did since the start.
func (m *NoiseMeter) Stop() *Noise {
	m.Look()
	n := judge(m.looks)
	n.Load, n.Steal = m.load, -1
	if steal, all := ticks(); all > m.all {
		n.Steal = (steal - m.steal) / (all - m.all)
	}
	return n
}

// judge compares looks; of the two loops the one that was disturbed more counts.
func judge(looks []Look) *Noise {
	n := &Noise{Looks: looks}
	var waited []float64
	alone := math.Inf(1)
	for i := range looks {
		waited = append(waited, looks[i].Waited)
		alone = min(alone, looks[i].Width.Median) // single slices may meet a faster clock
	}
	n.Crowded = Median(waited)
	for i := range looks {
		if looks[i].Width.Median > SharedBy*alone {
			n.Shared += 1 / float64(len(looks))
		}
	}
	for _, loop := range []func(l *Look) Slices{func(l *Look) Slices { return l.Spin }, func(l *Look) Slices { return l.Memory }} {
		var slower, medians []float64
		for i := range looks {
			s := loop(&looks[i])
			medians = append(medians, s.Median)
			if s.Fastest > 0 {
				slower = append(slower, s.P90/s.Fastest-1)
			}
		}
		n.Slowdown = max(n.Slowdown, Median(slower))
		if of := periods(medians); len(of) > 0 && slices.Min(of) > 0 {
			n.Drift = max(n.Drift, slices.Max(of)/slices.Min(of)-1)
		}
	}
	return n
}

// A run has up to periodsMax periods of at least periodLooks looks each.
const (
	periodsMax  = 8
	periodLooks = 3
)

// periods returns the medians of figures of successive looks, period by period. Too few for two periods stand for themselves.
func periods(looks []float64) (medians []float64) {
	n := min(periodsMax, len(looks)/periodLooks)
	if n < 2 {
		return looks
	}
	for i := range n {
		medians = append(medians, Median(looks[i*len(looks)/n:(i+1)*len(looks)/n]))
	}
	return medians
}

// A look has so many slices of each loop; a slice takes about 0.1 ms.
const (
	looked     = 500
	spinRounds = 1 << 15
	walkWords  = 1 << 20 / 8
)

// sunk keeps the loops from being left out.
var sunk uint64

func spin() {
	x := sunk | 1
	for range spinRounds {
		x = x*6364136223846793005 + 1442695040888963407
	}
	sunk = x
}

// walk touches each cache line.
func walk(memory []uint64) {
	sum := sunk
	for r := range 4 {
		for i := r; i < len(memory); i += 8 {
			memory[i] += sum
			sum += memory[i]
		}
	}
	sunk = sum
}

func slicesOf(loop func()) Slices {
	times := make([]float64, looked)
	for i := range times {
		began := time.Now()
		loop()
		times[i] = float64(time.Since(began)) / 1e3
	}
	slices.Sort(times)
	return Slices{times[0], times[looked/2], times[looked*9/10]}
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
