package report

import (
	"bytes"
	"context"
	"encoding/json"
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
	f.Holes = []result.Hole{{Name: "wire/wireguard-go", Reason: "needs <root>"}, {Name: "strange", Reason: "no reason"}}
	for _, p := range []result.Interface{
		{Name: "a0", Place: "gateway", Driver: "veth", Mode: "copy", Reason: "veth has no zero-copy"}, {Name: "b0", Place: "gateway", Driver: "veth", Mode: "copy", Reason: "veth has no zero-copy"},
		{Name: "s0", Place: "sink", Driver: "veth", Mode: "native"}, {Name: "s0", Place: "sink", Driver: "veth", Mode: "native"},
	} {
		f.Attach(p)
	}
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
	for i, size := range []string{"64", "1420", "imix"} {
		for _, d := range []string{"encrypt", "decrypt", "both"} {
			p := result.Parameters{Direction: d, Size: size, Bytes: []float64{64, 1420, 326}[i], Tunnels: 1}
			wired := func(measure, name string, v float64) result.Row {
				p.Measure = measure
				r := result.NewRow("wire/"+name+"/"+d+"/"+size, "Mpps", "sallyport-bench wire", []float64{v, v * 1.01, v * 0.99}).With(p)
				r.Bounds = &result.Bounds{Lower: v, Upper: v * 1.04, Trials: 20, Goal: "a goal", Packets: 9000}
				r.Loss = []result.LossPoint{{Offered: v / 2, Seconds: 1}, {Offered: v, Loss: 0.004, Seconds: 1}, {Offered: 1.1 * v, Loss: 0.2, Seconds: 1}, {Offered: 2 * v, Loss: 0.9, Seconds: 0.1}}
				r.Drops = []result.Drop{{Name: "replayed", Packets: 3}, {Name: "AF_XDP ring", Packets: 77}}
				return r
			}
			ceiling := wired("ceiling", "sender/xsk", 0.9)
			ceiling.Parameters.By, ceiling.Bounds = "xsk", nil
			latency := result.Row{Name: "wire/latency/" + d + "/" + size, Unit: "µs", Value: 70, Samples: []float64{70, 71, 72}}
			for _, load := range []string{"0 %", "90 %"} {
				latency.Latency = append(latency.Latency, result.Latency{Load: load + " of PDR", Offered: 0.1, Percentiles: []result.Percentile{{Percent: 50, Microseconds: 5}, {Percent: 99.99, Microseconds: 900}, {Percent: 100, Microseconds: 2000}}})
			}
			f.Add(ceiling, wired("ndr", "ndr", 0.5), wired("pdr", "pdr", 0.6).Against("ipsec-secgw", []float64{0.5, 0.5, 0.5}),
				wired("pdr", "pdr", 0.6).Against("strongSwan kernel-libipsec", []float64{0.1, 0.1, 0.1}))
			p.Measure = "latency"
			f.Add(latency.With(p))
			p.Tunnels = 100
			f.Add(wired("pdr", "pdr", 0.55))
			p.Tunnels = 1
		}
	}
	wild := result.NewRow("wire/pdr/encrypt/512", "Mpps", "", []float64{0.1, 0.4, 0.9})
	f.Add(wild.With(result.Parameters{Measure: "pdr", Direction: "encrypt", Size: "512", Bytes: 512, Tunnels: 1}))
	f.Rows = append(f.Rows, result.NewRow("shaky", "ns", "", []float64{1, 2, 3}), result.NewRow("once", "ns", "", []float64{1}))
	return f
}

func TestPageShowsEverything(t *testing.T) {
	text, err := HTML(sample())
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	for _, want := range []string{
		"Encrypting on one core, memory to memory: 1.25× at 64 bytes, 1.25× at 512 bytes, 1.25× at 1420 bytes of what ipsec-secgw legacy carries.",
		"Encrypting on the wire with 0.5 % loss: 1.20× at 64 bytes, 1.20× at 1420 bytes, 1.20× at imix of what ipsec-secgw carries.",
		"Decrypting on the wire, one worker, veth, with 0.5 % loss: 0.60 Mpps or 0.31 Gbit/s at 64 bytes,", "gateway: a0, b0 (veth), XDP copy: veth has no zero-copy<br>", "1 figure rests on fewer than three samples",
		"Loss by load, encrypt", "64 bytes, decrypt", "p99.99", "90 % of PDR (0.10 Mpps)", "77 AF_XDP ring, 3 replayed", "0.60–0.62", "By tunnels, on the wire", "Share of the cipher", "Cost of a byte", "too noisy", "not shown: its samples lie 200 % apart",
		"<strong>strange</strong> not measured: no reason", "÷ strongSwan kernel-libipsec",
		"A packet of 64 bytes takes 100 ns", "2400 handshakes a second", "Not everything could be measured.", "needs &lt;root&gt;", "2 of 114 figures are <strong>unstable</strong>",
		"Packets a second, encrypt", "Throughput", "Time of a packet, decrypt", "Suites at 1420 bytes, decrypt", "By tunnels, in memory", "By workers, in memory", "AES-128-GCM, open", "Overloaded, encrypt", "Child rekeys a second", "Other figures", "something/else",
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
	if got, want := strings.Count(page, `<tr class="row">`), len(sample().Rows); got != want {
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
		{chart{Labels: []string{"a", "b"}, Log: true, Series: []series{{Values: []float64{12, 340}}}}, []float64{10, 20, 50, 100, 200, 500}},
		{chart{Labels: []string{"a"}, Stack: true, Series: []series{{Values: []float64{30}}, {Values: []float64{60}}}}, []float64{0, 20, 40, 60, 80}},
		{chart{Labels: []string{"a"}, Series: []series{{Values: []float64{math.NaN()}}}}, []float64{0, 0.2, 0.4, 0.6, 0.8, 1}},
		{chart{Labels: []string{"a"}, Log: true, Series: []series{{Values: []float64{math.NaN()}, Marks: []string{"withheld"}}}}, []float64{1, 2, 5, 10}},
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
	dom := browse(t, file)
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

// TestPageInBothThemes asks a browser that prefers either for the colours in use: each series' is its own, and none is that of what it is drawn on.
func TestPageInBothThemes(t *testing.T) {
	testbed.Need(t, "chromium")
	text, err := HTML(sample())
	testbed.Must(t, err)
	probe := fmt.Sprintf(`<script>var all=[];function colour(e){all.push(getComputedStyle(e).backgroundColor)}colour(document.body);colour(document.querySelector("figure"));`+
		`for(var i=0;i<%d;i++){var e=document.createElement("i");e.className="b"+i;document.body.appendChild(e);colour(e)}document.title="colours "+all.join(" | ");</script></body>`, colours)
	file := filepath.Join(t.TempDir(), "themes.html")
	testbed.Must(t, os.WriteFile(file, bytes.Replace(text, []byte("</body>"), []byte(probe), 1), 0o644))
	grounds := map[string]string{}
	for theme, number := range map[string]string{"dark": "0", "light": "1"} {
		found := regexp.MustCompile(`<title>colours (.*)</title>`).FindSubmatch(browse(t, file, "--blink-settings=preferredColorScheme="+number))
		if found == nil {
			t.Fatal("the page does not tell its colours")
		}
		all := strings.Split(string(found[1]), " | ")
		for i, a := range all {
			var from [3]float64
			if n, _ := fmt.Sscanf(a, "rgb(%f, %f, %f)", &from[0], &from[1], &from[2]); n != 3 {
				t.Fatalf("%s: colour %q", theme, a)
			}
			for k, b := range all[:i] {
				var to [3]float64
				_, _ = fmt.Sscanf(b, "rgb(%f, %f, %f)", &to[0], &to[1], &to[2])
				if apart := math.Hypot(math.Hypot(from[0]-to[0], from[1]-to[1]), from[2]-to[2]); i > 1 && apart < 45 {
					t.Errorf("%s: colours %d and %d, %s and %s, are hard to tell apart (%.0f)", theme, k, i, a, b, apart)
				}
			}
		}
		grounds[theme] = all[0]
	}
	if grounds["dark"] == grounds["light"] {
		t.Errorf("both themes are on %s", grounds["dark"])
	}
}

// TestPageOnAPhone: in 400 pixels nothing stands out to the right; wide tables move within themselves.
func TestPageOnAPhone(t *testing.T) {
	testbed.Need(t, "chromium")
	text, err := HTML(sample())
	testbed.Must(t, err)
	quoted, err := json.Marshal(string(text)) // with < as an escape, so that no script of the page ends this one
	testbed.Must(t, err)
	file := filepath.Join(t.TempDir(), "phone.html")
	host := `<body><iframe id="f" width="400" height="900" style="border:0"></iframe><script>var f=document.getElementById("f");f.onload=function(){` +
		`var e=f.contentDocument.documentElement;document.title="figures "+f.contentDocument.querySelectorAll("figure").length+", beyond "+(e.scrollWidth-e.clientWidth)};f.srcdoc=` + string(quoted) + `</script></body>`
	testbed.Must(t, os.WriteFile(file, []byte(host), 0o644))
	found := regexp.MustCompile(`<title>figures (\d+), beyond (\d+)</title>`).FindSubmatch(browse(t, file, "--virtual-time-budget=5000"))
	if found == nil || string(found[1]) == "0" || string(found[2]) != "0" {
		t.Errorf("%s", found)
	}
}

// browse opens a file in headless Chromium and returns what became of it. Anything on its console is an error.
func browse(t *testing.T, file string, args ...string) (dom []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "chromium", append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--user-data-dir=" + t.TempDir(), "--dump-dom"}, append(args, "file://"+file)...)...)
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
	return dom
}
