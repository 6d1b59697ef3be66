package result

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
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

func TestFileRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "results.json")
	f := NewFile("v0")
	f.Rows = append(f.Rows, NewRow("a/b", "ns", "cmd", []float64{1, 2}))
	if err := f.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, f) {
		t.Errorf("got %+v\nwant %+v", got, f)
	}
	text, _ := os.ReadFile(path)
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
