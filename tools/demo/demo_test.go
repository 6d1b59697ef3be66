package main

import (
	"io"
	"os"
	"strings"
	"testing"

	"sallyport/tools/testbed"
)

// TestKernelForwardingFailsTheDemo puts plain forwarding where the gateways should
// be: all traffic arrives, and the demo must still fail, for the plaintext.
func TestKernelForwardingFailsTheDemo(t *testing.T) {
	testbed.Need(t, testbed.Root...)
	stdout := os.Stdout
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout = w
	go io.Copy(io.Discard, r)
	defer func() { os.Stdout = stdout; w.Close() }()

	res := &result{MTU: map[string]int{}}
	err = run(res, t.TempDir(), "kernel", 4<<20)
	if err == nil || !strings.Contains(err.Error(), "plaintext") {
		t.Fatalf("the demo over plain forwarding said: %v", err)
	}
	if len(res.TCP) != 4 || len(res.UDP) != 2 || len(res.Ping) != 2 {
		t.Errorf("traffic was cut short: %d TCP, %d UDP, %d pings", len(res.TCP), len(res.UDP), len(res.Ping))
	}
	if left := testbed.Left("demo"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOnlyESPRefusesEverythingElse(t *testing.T) {
	good := testbed.Figures{Kinds: map[string]uint64{"esp": 3, "esp-in-udp": 2, "ike": 9, "arp": 1, "nd": 1}}
	if err := onlyESP(good); err != nil {
		t.Error(err)
	}
	for name, f := range map[string]testbed.Figures{
		"missed frames":   {Missed: 1, Kinds: good.Kinds},
		"plaintext":       {Needles: 1, Kinds: good.Kinds},
		"inner addresses": {Inner: 1, Kinds: good.Kinds},
		"other":           {Kinds: map[string]uint64{"esp": 3, "esp-in-udp": 2, "other": 1}},
		"no UDP":          {Kinds: map[string]uint64{"esp": 3}},
	} {
		if onlyESP(f) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
