package result

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{4, 1}, 2.5}, {[]float64{9, 1, 5}, 5}} {
		if got := Median(c.in); got != c.want {
			t.Errorf("Median(%v) = %v, want %v", c.in, got, c.want)
		}
	}
}

func TestRatioIsValueOverPeer(t *testing.T) {
	r := NewRow("gateway/encrypt/64", "Mpps", "x", []float64{2, 4, 3}).Against("other", []float64{1.5})
	if r.Value != 3 || r.PeerValue != 1.5 || r.Ratio != 2 {
		t.Errorf("got %+v", r)
	}
	if math.Abs(r.Spread()-2.0/3) > 1e-9 {
		t.Errorf("spread %v", r.Spread())
	}
	if one := NewRow("a", "ns", "x", []float64{100, 101, 99, 102, 300}); math.Abs(one.Spread()-0.02) > 0.01 {
		t.Errorf("one outlier of five makes a spread of %v", one.Spread())
	}
	if none := NewRow("a", "ns", "x", nil).Against("p", nil); none.Ratio != 0 {
		t.Errorf("ratio without figures: %v", none.Ratio)
	}
}

func TestAddNewKeepsTheFirst(t *testing.T) {
	f := new(File)
	f.AddNew(Row{Name: "a", Unit: "ns", Value: 1}, Row{Name: "a", Unit: "ns", Value: 2}, Row{Name: "a", Unit: "Mpps"}, Row{Name: "a", Unit: "ns", Peer: "p"})
	if len(f.Rows) != 3 || f.Rows[0].Value != 1 {
		t.Errorf("%+v", f.Rows)
	}
}

func TestFileRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "results.json")
	f := NewFile("v0")
	f.Add(NewRow("a/b", "ns", "cmd", []float64{1, 2}).With(Parameters{Size: "64", Bytes: 64, Direction: "encrypt"}).Against("p", []float64{3, 4}))
	f.Add(Row{Name: "wire/pdr", Unit: "Mpps", Value: 1, Bounds: &Bounds{0.9, 1.1, 7, "0.5 %", 2, 9000}, Drops: []Drop{{"bad-icv", 3}},
		Loss: []LossPoint{{1, 0.01, 2, 3}}, Latency: []Latency{{"50 %", 0.5, 10, []Percentile{{99.99, 12, 11, 13}}}}})
	f.Miss("wire", "no root")
	f.Interfaces = []Interface{{"wan", "gateway", "veth", 2, "copy", "veth cannot"}}
	f.Calibrate() // too soon after the first look
	f.Overheard(&Noise{Looks: looks(Slices{1, 2, 3})})
	f.Matrix, f.Parts = "standard", []Part{{"wire", "sallyport-bench wire", 3}}
	f.Finish()
	if err := f.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Noise.Looks) != 3 {
		t.Errorf("%d looks at the machine", len(f.Noise.Looks))
	}
	f.began, f.meter = time.Time{}, nil // what is only of the run
	if !reflect.DeepEqual(got, f) {
		t.Errorf("got %+v\nwant %+v", got, f)
	}
	text, _ := os.ReadFile(path)
	for _, want := range []string{`"better": "lower"`, `"better": "higher"`, `"unstable": true`, `"spread": `} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the file lacks %s", want)
		}
	}
	os.WriteFile(path, []byte(strings.Replace(string(text), `"schema": 1`, `"schema": 99`, 1)), 0o644)
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "schema 99") {
		t.Errorf("a newer schema was read: %v", err)
	}
}

func TestRowsSayWhichWayIsBetter(t *testing.T) {
	for unit, want := range map[string]bool{"Mpps": true, "Gbit/s": true, "1/s": true, "1/cpu-s": true, "%": true, "k/s": true, "ns": false, "us": false, "cycles": false, "allocs": false, "KiB": false, "s": false} {
		if got := (Row{Unit: unit}).HigherIsBetter(); got != want {
			t.Errorf("%s: %v", unit, got)
		}
	}
	if !NewRow("a", "ns", "", []float64{10, 12}).Unstable() || NewRow("a", "ns", "", []float64{10, 11}).Unstable() {
		t.Error("15 % is the limit")
	}
}

func TestNoiseNamesItsReason(t *testing.T) {
	for _, c := range []struct {
		noise *Noise
		want  string
	}{{nil, ""}, {&Noise{Slowdown: 0.1, Steal: -1}, ""}, {&Noise{Steal: 0.2}, "hypervisor gave 20 %"}, {&Noise{Slowdown: 2}, "200 % longer"}} {
		if got := c.noise.Noisy(); !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%+v: %q", c.noise, got)
		}
	}
	n := ListenForNoise().Stop()
	if n.Slowdown < 0 || math.IsNaN(n.Slowdown) || n.Steal > 1 {
		t.Errorf("%+v", n)
	}
}

// TestOldFilesAreRead reads what earlier builds of the same schema wrote.
func TestOldFilesAreRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "old.json")
	os.WriteFile(path, []byte(`{"schema":1,"time":"2026-01-02T03:04:05Z","host":{"cpu":"x","mhz":3000,"cores":2,"cpu_flags":["aes"],"kernel":"6.6","memory_kib":1},
		"build":{"version":"v","commit":"","dirty":false,"go":"go1.26"},
		"rows":[{"name":"gateway/encrypt/64","unit":"Mpps","value":2,"samples":[1,2,3],"peer":"p","peer_value":1,"ratio":2,"command":"c"}]}`), 0o644)
	f, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if r := f.Rows[0]; !r.HigherIsBetter() || r.Spread() != 1 || !r.Unstable() || r.Ratio != 2 || f.Noise.Noisy() != "" {
		t.Errorf("got %+v", f)
	}
}

// looks are looks that saw these times of both loops.
func looks(times ...Slices) (all []Look) {
	for _, s := range times {
		all = append(all, Look{Spin: s, Memory: s})
	}
	return all
}

func TestNoiseIsRecognised(t *testing.T) {
	calm, shaky, slow := Slices{100, 101, 110}, Slices{100, 110, 250}, Slices{139, 140, 150}
	for _, c := range []struct {
		name  string
		looks []Look
		noisy bool
	}{
		{"calm", []Look{{Spin: calm, Memory: calm}, {Spin: calm, Memory: calm}}, false},
		{"other work", []Look{{Spin: calm, Memory: calm}, {Spin: shaky, Memory: calm}}, true},
		{"caches shared with other work", []Look{{Spin: calm, Memory: shaky}}, true},
		{"slower towards the end", []Look{{Spin: calm, Memory: calm}, {Spin: calm, Memory: slow}}, true},
		{"slower once in a long run", looks(slow, calm, calm, calm, calm, calm), false},
		{"slower for a third of it", looks(slow, calm, slow, calm, calm, calm), true},
		{"other processes on the CPUs", []Look{{Spin: calm, Memory: calm, Waited: 0.3}, {Spin: calm, Memory: calm, Waited: 0.2}}, true},
		{"other processes for a moment", []Look{{Spin: calm, Memory: calm, Waited: 0.3}, {Spin: calm, Memory: calm}, {Spin: calm, Memory: calm}}, false},
		{"not looked at", nil, false},
	} {
		n := judge(c.looks)
		if got := n.Noisy(); (got != "") != c.noisy {
			t.Errorf("%s: %q of %+v", c.name, got, n)
		}
		if _, withheld := (&File{Noise: n}).Doubt(&Row{Unit: "ns", Value: 100, Samples: []float64{90, 110}}); withheld != c.noisy {
			t.Errorf("%s: an unstable figure is withheld: %v", c.name, withheld)
		}
	}
}

// TestWhatIsSaidOfAFigure is the one rule of what is shown, marked and withheld.
func TestWhatIsSaidOfAFigure(t *testing.T) {
	near, apart, far := []float64{100, 101, 102}, []float64{90, 100, 110}, []float64{60, 100, 140}
	for _, c := range []struct {
		name          string
		row           Row
		calm, noisy   string
		doubt, hidden bool // on a noisy machine
	}{
		{"agrees", NewRow("a", "ns", "", near), "101", "~101", true, false},
		{"unstable", NewRow("a", "Mpps", "", apart), "100 unstable (20 %)", "too noisy (20 %)", true, true},
		{"far apart", NewRow("a", "1/s", "", far), "too noisy (80 %)", "too noisy (80 %)", true, true},
		{"twice", NewRow("a", "µs", "", near[:2]), "100", "too noisy", true, true},
		{"a ratio of one", NewRow("a", "ns", "", near[:1]).Against("p", near[:1]).RatioRow(), "1", "too noisy", true, true},
		{"counted once", NewRow("a", "packets", "", near[:1]), "100", "100", false, false},
		{"counts that differ", NewRow("a", "KiB", "", far), "100 unstable (80 %)", "100 unstable (80 %)", true, false},
		{"disturbed twice", disturbed(NewRow("a", "Mpps", "", near), 2), "~101", "~101", true, false},
		{"unstable and disturbed", disturbed(NewRow("a", "Mpps", "", apart), 2), "too noisy (20 %)", "too noisy (20 %)", true, true},
		{"disturbed once", disturbed(NewRow("a", "Mpps", "", near), 1), "101", "~101", true, false},
		{"the worst of all", NewRow("a", "s", "", near[:1]).With(Parameters{Measure: Longest}), "100", "100", false, false},
	} {
		calm, noisy := &File{}, &File{Noise: &Noise{Drift: 1}}
		if got := calm.Text(c.row, "%.0f"); got != c.calm {
			t.Errorf("%s: %q, want %q", c.name, got, c.calm)
		}
		if got := noisy.Text(c.row, "%.0f"); got != c.noisy {
			t.Errorf("%s on a noisy machine: %q, want %q", c.name, got, c.noisy)
		}
		if why, withheld := noisy.Doubt(&c.row); withheld != c.hidden || (why != "") != c.doubt {
			t.Errorf("%s on a noisy machine: %q, %v", c.name, why, withheld)
		}
		noisy.Anyway = true
		if _, withheld := noisy.Doubt(&c.row); withheld {
			t.Errorf("%s is withheld though it was asked for", c.name)
		}
	}
}

func disturbed(r Row, n int) Row {
	r.Disturbed = n
	return r
}

// TestALookWaitsForACPU: two threads on one CPU, of which the one looks.
func TestALookWaitsForACPU(t *testing.T) {
	var set, before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	for cpu := range 1024 {
		if before.IsSet(cpu) {
			set.Set(cpu)
			break
		}
	}
	done := make(chan error)
	var busy, stop atomic.Bool
	go func() { // threads that end with their goroutines, pinned as they are
		runtime.LockOSThread()
		err := unix.SchedSetaffinity(0, &set)
		busy.Store(true)
		for !stop.Load() {
		}
		done <- err
	}()
	for !busy.Load() {
		runtime.Gosched()
	}
	m := &NoiseMeter{}
	go func() {
		runtime.LockOSThread()
		err := unix.SchedSetaffinity(0, &set)
		m.Look()
		done <- err
	}()
	err := <-done
	stop.Store(true)
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	if n := judge(m.looks); n.Crowded < crowdedMax || !strings.Contains(n.Noisy(), "other processes") {
		t.Errorf("waited for %.0f %% of the time: %q", 100*n.Crowded, n.Noisy())
	}
}
