package pipeline

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/dataplane/threads"
)

// TestGateOpensForAllAtOnce passes a gate many times, more threads than CPUs, and none is ever a turn ahead of the others.
func TestGateOpensForAllAtOnce(t *testing.T) {
	const threads, turns = 3, 200
	g := newGate(threads)
	var passed [threads]atomic.Int64
	var wg sync.WaitGroup
	for i := range threads {
		wg.Go(func() {
			defer g.leave()
			for turn := range int64(turns) {
				passed[i].Store(turn)
				if !g.pass() && turn < turns/2 {
					t.Error("somebody has left")
				}
				for k := range passed {
					if n := passed[k].Load(); n < turn {
						t.Errorf("thread %d goes through in turn %d, and %d is in turn %d", i, turn, k, n)
					}
				}
			}
		})
	}
	wg.Wait()
}

// TestGateWaitsForNobodyWhoLeft has one of two threads leave while the other waits.
func TestGateWaitsForNobodyWhoLeft(t *testing.T) {
	g := newGate(2)
	go func() {
		time.Sleep(5 * time.Millisecond)
		g.leave()
	}()
	if g.pass() {
		t.Error("all are said to be there")
	}
	if g.pass() {
		t.Error("all are said to be there, later")
	}
}

// TestRoundsOfOthersDoNotCount takes rounds of which a witness saw somebody else in some.
func TestRoundsOfOthersDoNotCount(t *testing.T) {
	var s Sample
	r := rounds{limit: 1, all: []float64{10, 20, 20, 20, 20}}
	if r.into(&s); s.Typical != 20 || s.Shared != 1 || s.Best != 10 {
		t.Errorf("nobody was ever alone: %+v", s)
	}
	for range wholeMin {
		r.all, r.whole = append(r.all, 12), append(r.whole, 12)
	}
	r.all = append(r.all, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30)
	if r.into(&s); s.Typical != 12 || s.Shared < 0.5 || s.Shared > 0.7 || s.Best != 10 {
		t.Errorf("%+v", s)
	}
	r = rounds{all: []float64{30, 10, 20}}
	if r.into(&s); s.Typical != 20 || s.Best != 10 {
		t.Errorf("without a witness: %+v", s)
	}
}

// TestWitnessKnowsTheCPUs calibrates on each CPU, and says no for one that there is not. Nobody watches without a witness or CPUs.
func TestWitnessKnowsTheCPUs(t *testing.T) {
	cpus, err := threads.Allowed()
	if err != nil {
		t.Fatal(err)
	}
	w := &Witness{}
	for _, cores := range [][]int{cpus[:1], cpus} {
		first, err := w.limit(cores)
		if err != nil || first <= 0 {
			t.Fatalf("%v: %v, %v", cores, first, err)
		}
		if again, err := w.limit(cores); err != nil || again > first {
			t.Errorf("%v: %v, then %v, %v: the fastest counts", cores, first, again, err)
		}
	}
	if us, err := w.limit(nil); us != 0 || err != nil {
		t.Errorf("without CPUs: %v, %v", us, err)
	}
	if us, err := (*Witness)(nil).limit(cpus); us != 0 || err != nil {
		t.Errorf("without a witness: %v, %v", us, err)
	}
	if _, err := w.limit([]int{1 << 12}); err == nil {
		t.Error("CPU 4096 is there")
	}
}

// TestAWitnessChangesNoPacket measures with one on CPUs of the lanes' own.
func TestAWitnessChangesNoPacket(t *testing.T) {
	cpus, err := threads.Allowed()
	if err != nil {
		t.Fatal(err)
	}
	workers := min(2, len(cpus))
	r, err := New(Options{Associations: 4, Workers: workers, Decrypt: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.Witness = &Witness{}
	s, err := r.Measure(20000, 0, cpus[:workers])
	if err != nil || s.Typical <= 0 || s.Shared < 0 || s.Shared > 1 {
		t.Errorf("%+v, %v", s, err)
	}
}
