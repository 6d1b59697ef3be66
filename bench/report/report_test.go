package report

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport/bench/result"
	"sallyport/tools/testbed"
)

// sample is a file with something for every section.
func sample() *result.File {
	f := result.NewFile("v0-test")
	f.Time, f.Seconds = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), 61
	f.Noise = &result.Noise{Slowdown: 0.02, Steal: 0, Load: 1}
	f.Holes = []result.Hole{{Name: "veth", Reason: "needs <root>"}}
	add := func(name, unit, peer string, v, p float64) {
		r := result.NewRow(name, unit, "sallyport-bench x", []float64{v, v * 1.01, v * 0.99})
		if peer != "" {
			r = r.Against(peer, []float64{p, p, p})
		}
		f.Rows = append(f.Rows, r)
	}
	for i, size := range []int{64, 512, 1420} {
		k := float64(i + 1)
		for _, d := range []string{"encrypt", "decrypt"} {
			name := fmt.Sprintf("gateway/%s/%d", d, size)
			add(name, "Mpps", "", 10/k, 0)
			add(name, "Mpps", "ipsec-secgw legacy", 10/k, 8/k)
			add(name, "ns", "", 100*k, 0)
			add(name+"/associations=64", "ns", "", 120*k, 0)
			add(fmt.Sprintf("veth/%s/%d", d, size), "Mpps", "ipsec-secgw", 0.5/k, 0.4/k)
			add(fmt.Sprintf("veth/sender/%s/%d", d, size), "Mpps", "", 2, 0)
		}
		for _, way := range []string{"", "/open"} {
			add(fmt.Sprintf("aesgcm128/go/%d%s", size, way), "ns", "Go crypto/cipher", 14*k, 100*k)
			add(fmt.Sprintf("aesgcm128/libipsec-mb/%d%s", size, way), "ns", "libipsec-mb direct call", 14*k, 30*k)
		}
	}
	add("gateway/encrypt/64/associations=64/workers=2", "Mpps", "", 19, 0)
	add("gateway/encrypt/64/associations=64/workers=1", "Mpps", "", 10, 0)
	add("ike/handshake/psk-x25519", "1/s", "strongSwan", 2400, 700)
	add("ike/rekey/plain", "1/s", "", 9000, 0)
	for _, suite := range []string{"aes256gcm16", "null-sha256"} {
		for _, d := range []string{"encrypt", "decrypt"} {
			f.Rows = append(f.Rows, result.NewRow("gateway/"+d+"/1420/"+suite+"/library", "ns", "", []float64{700, 700, 700}).
				With(result.Parameters{Direction: d, Size: "1420", Suite: suite}).Against("standard library, ciphers alone", []float64{600, 600, 600}))
		}
	}
	add("something/else", "ns", "", 1, 0)
	f.Rows = append(f.Rows, result.NewRow("shaky", "ns", "", []float64{1, 2, 3}))
	return f
}

func TestPageShowsEverything(t *testing.T) {
	text, err := HTML(sample())
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	for _, want := range []string{
		"Encrypting on one core, memory to memory, by DPDK&#39;s ipsec-secgw: 1.25× at 64 bytes, 1.25× at 512 bytes, 1.25× at 1420 bytes.",
		"A packet of 64 bytes takes 100 ns", "2400 handshakes a second", "What could not be measured", "needs &lt;root&gt;", "1 of 58 figures are <strong>unstable</strong>",
		"Packets a second, encrypt", "Throughput", "Time of a packet, decrypt", "Suites at 1420 bytes, decrypt", "Packets spread over associations", "AES-128-GCM, open", "One worker over AF_XDP on veth, encrypt", "Child rekeys a second", "Other figures", "something/else",
		"2 January 2026, 03:04 UTC, took 1m1s",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is missing", want)
		}
	}
	// Nothing of it comes from elsewhere.
	if regexp.MustCompile(`(?i)(src|href|url)\s*[=(]`).MatchString(page) {
		t.Error("the page asks for something else")
	}
	if strings.Contains(page, "NaN") || strings.Contains(page, "Inf") {
		t.Error("a value that is none was drawn")
	}
	// Each row stands in one table.
	if got, want := strings.Count(page, "<tr><td>"), len(sample().Rows)+1; got != want {
		t.Errorf("%d lines in tables, want %d", got, want)
	}
}

func TestPageOfNothingStillStands(t *testing.T) {
	if _, err := HTML(&result.File{}); err != nil {
		t.Error(err)
	}
	f := result.NewFile("x")
	f.Rows = []result.Row{{Name: "gateway/encrypt/64", Unit: "Mpps"}, {Name: "gateway", Unit: "ns"}, {Name: "", Unit: ""}, {Name: "aesgcm128/go/x", Unit: "ns"}, {Name: "veth", Unit: "Mpps"}}
	if text, err := HTML(f); err != nil || bytes.Contains(text, []byte("NaN")) {
		t.Error(err)
	}
}

func TestAxes(t *testing.T) {
	for _, c := range []struct {
		chart chart
		ticks []float64
	}{
		{chart{Labels: []string{"a"}, Series: []series{{Values: []float64{10}}}}, []float64{0, 2, 4, 6, 8, 10}},
		{chart{Labels: []string{"a"}, Series: []series{{Values: []float64{0.37}}}}, []float64{0, 0.1, 0.2, 0.3}},
		{chart{Labels: []string{"a", "b"}, Log: true, Series: []series{{Values: []float64{12, 340}}}}, []float64{10, 20, 50, 100, 200, 500, 1000}},
		{chart{Labels: []string{"a"}, Stack: true, Series: []series{{Values: []float64{30}}, {Values: []float64{60}}}}, []float64{0, 20, 40, 60, 80}},
		{chart{Labels: []string{"a"}, Series: []series{{Values: []float64{math.NaN()}}}}, []float64{0, 0.2, 0.4, 0.6, 0.8, 1}},
	} {
		low, high := c.chart.bounds()
		got := c.chart.ticks(low, high)
		if len(got) != len(c.ticks) {
			t.Errorf("%v to %v: %v, want %v", low, high, got, c.ticks)
			continue
		}
		for i := range got {
			if math.Abs(got[i]-c.ticks[i]) > 1e-9 {
				t.Errorf("%v to %v: %v, want %v", low, high, got, c.ticks)
				break
			}
		}
	}
}

// TestPageInABrowser opens the page in headless Chromium: no errors on its console, the plots drawn, the theme switched by its button.
func TestPageInABrowser(t *testing.T) {
	testbed.Need(t, "chromium")
	text, err := HTML(sample())
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	// Behind the page's own script: the button is pressed, and what came of it written down.
	probe := `<script>var before=document.documentElement.className;document.getElementById("theme").click();` +
		`document.title="theme "+(before===document.documentElement.className?"stays":"changes");</script></body>`
	file := filepath.Join(folder, "report.html")
	if err := os.WriteFile(file, bytes.Replace(text, []byte("</body>"), []byte(probe), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--user-data-dir="+filepath.Join(folder, "profile"), "--dump-dom", "file://"+file)
	var errs bytes.Buffer
	c.Stderr = &errs
	dom, err := c.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	for _, line := range strings.Split(errs.String(), "\n") {
		if strings.Contains(line, "CONSOLE") {
			t.Error(line)
		}
	}
	for class, least := range map[string]int{`class="bar `: 20, `class="line `: 8, `class="point `: 20} {
		if n := strings.Count(string(dom), class); n < least {
			t.Errorf("%d of %s, want at least %d", n, class, least)
		}
	}
	if regexp.MustCompile(`height="-|height="0\.0"|d="M?"`).Match(dom) {
		t.Error("a plot without extent")
	}
	if !strings.Contains(string(dom), "theme changes") {
		t.Error("the button does nothing")
	}
}
