package soak

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// TestTwentySeconds goes through every rekey and fault once.
func TestTwentySeconds(t *testing.T) {
	testbed.Need(t, testbed.Root...)
	bin, err := rig.Programs()
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(bin)
	var happened []string
	rows, err := Run(context.Background(), Options{
		Bin: bin, Duration: 20 * time.Second, Every: time.Second, Rate: 100, Command: "x",
		Progress: func(what string) { happened = append(happened, what) },
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		if !slices.ContainsFunc(happened, func(s string) bool { return strings.Contains(s, f.name) }) {
			t.Errorf("%s did not happen: %q", f.name, happened)
		}
	}
	got := map[string]float64{}
	for _, r := range rows {
		got[r.Name] = r.Value
		t.Logf("%s %.4g %s (%s %.4g), %d samples", r.Name, r.Value, r.Unit, r.Peer, r.PeerValue, len(r.Samples))
	}
	for _, name := range []string{"soak/throughput", "soak/roundtrip/p99", "soak/memory/rss", "soak/captured", "soak/outage/daemon killed and started"} {
		if got[name] <= 0 {
			t.Errorf("row %s: %v", name, got[name])
		}
	}
	if left := testbed.Left("soak"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestJudgeRefusesWhatMustNotCross(t *testing.T) {
	kinds := map[string]uint64{"esp": 60, "esp-in-udp": 38, "ike": 2, "arp": 1}
	if err := judge(testbed.Figures{Kinds: kinds}, 100); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		seen testbed.Figures
		sent uint64
	}{
		"missed":         {testbed.Figures{Kinds: kinds, Missed: 1}, 100},
		"plaintext":      {testbed.Figures{Kinds: kinds, Needles: 1}, 100},
		"inner":          {testbed.Figures{Kinds: kinds, Inner: 1}, 100},
		"other":          {testbed.Figures{Kinds: map[string]uint64{"esp": 99, "other": 1}}, 100},
		"nonce twice":    {testbed.Figures{Kinds: kinds, Repeated: 1}, 100},
		"more than sent": {testbed.Figures{Kinds: kinds}, 99},
		"hardly any":     {testbed.Figures{Kinds: kinds}, 200},
		"none":           {testbed.Figures{}, 0},
	} {
		if judge(c.seen, c.sent) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestCollectionsAreReadFromTheLog(t *testing.T) {
	got := collections("{\"level\":\"info\"}\ngc 1 @0.080s 1%: 0.018+1.3+0.076 ms clock, 0.074+0.1/1.2/0.5+0.3 ms cpu, 4->5->1 MB, 5 MB goal, 0 MB stacks, 0 MB globals, 4 P\ngc nonsense\ngc 2 @1s 0%: 1+2 ms clock, x\n")
	if len(got) != 1 || got[0].liveMiB != 1 || got[0].stoppedMS < 0.0939 || got[0].stoppedMS > 0.0941 {
		t.Errorf("got %+v", got)
	}
}
