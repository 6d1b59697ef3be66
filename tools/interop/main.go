// Command interop holds the gateway against an independent IKEv2 implementation, strongSwan:
//
//	host-a ───── gw-a ───── transit ───── gw-b ───── host-b
//	           sallyportd   bridge     strongSwan
//
// Each scenario is a folder: what it is about, both sides' configurations and steps with
// what is expected, read through both sides' own control tools. Traffic crosses from
// real hosts behind both; a capture sees what the gateway sends. Secrets and certificates
// are made afresh and go away with the network, also after a failure or Ctrl-C.
//
// strongSwan comes from Debian's packages and does its ESP in user space (kernel-libipsec), so the
// kernel needs none. With -reference it plays the gateway's part as well, from the
// same configuration: what fails then is wrong with the scenario.
//
// The last line is "interop: PASS" or "interop: FAIL: why" (exit status 1). The
// results go to a JSON file, the logs of both sides of what failed into a folder beside it.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/tools/testbed"
)

// report is what build/interop.json holds.
type report struct {
	Schema    int       `json:"schema"` // 1
	Pass      bool      `json:"pass"`
	Why       string    `json:"why,omitempty"`
	Start     time.Time `json:"start"`
	Seconds   float64   `json:"seconds"`
	Peer      string    `json:"peer"`      // its version
	Reference bool      `json:"reference"` // strongSwan at both ends
	Results   []*result `json:"results"`
}

func main() {
	bin := flag.String("bin", "build", "folder with sallyportd and sallyport")
	out := flag.String("json", "build/interop.json", "file for the results")
	logs := flag.String("logs", "build/interop", "folder for the logs of what failed")
	smoke := flag.Bool("smoke", false, "only the smoke subset")
	reference := flag.Bool("reference", false, "strongSwan at both ends: tests the scenarios, not the gateway")
	parallel := flag.Int("parallel", 2, "scenarios that run at the same time")
	keep := flag.Bool("keep", false, "keep the logs of what passed, too")
	list := flag.Bool("list", false, "name the scenarios and end")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "interop [flags] [SCENARIO ...]")
		flag.PrintDefaults()
	}
	flag.Parse()

	all, err := load()
	if err != nil {
		fmt.Printf("interop: FAIL: %v\n", err)
		os.Exit(1)
	}
	all = slices.DeleteFunc(all, func(s scenario) bool {
		return !s.matchesAny(flag.Args()) || *smoke && !s.Expect.Smoke || *reference && s.Expect.Reference != nil && !*s.Expect.Reference
	})
	if *list {
		for _, s := range all {
			fmt.Printf("%-34s %s\n", s.Name, firstSentence(s.Description))
		}
		return
	}
	if missing := lacks(); missing != "" {
		if os.Getenv("STRICT") == "1" {
			fmt.Printf("interop: FAIL: STRICT=1 and this machine lacks %s\n", missing)
			os.Exit(1)
		}
		fmt.Printf("interop: SKIP: this machine lacks %s\n", missing)
		return
	}
	r := &report{Schema: 1, Start: time.Now(), Peer: peerVersion(), Reference: *reference}
	o := options{bin: *bin, logs: *logs, reference: *reference, keep: *keep}
	fmt.Printf("%s; %d scenarios\n", r.Peer, len(all))
	r.Results = goThrough(all, o, *parallel)
	r.Seconds = time.Since(r.Start).Seconds()
	r.judge()
	text, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = errors.Join(os.MkdirAll(filepath.Dir(*out), 0o755), os.WriteFile(*out, append(text, '\n'), 0o644))
	}
	if err != nil && r.Pass {
		r.Pass, r.Why = false, err.Error()
	}
	fmt.Printf("%.0f s in all; results in %s\n", r.Seconds, *out)
	if !r.Pass {
		fmt.Printf("interop: FAIL: %s\n", r.Why)
		os.Exit(1)
	}
	fmt.Println("interop: PASS")
}

// judge passes when there was something to do and all of it passed.
func (r *report) judge() {
	var failed []string
	for _, x := range r.Results {
		if x.Result != "pass" {
			failed = append(failed, x.Scenario)
		}
	}
	switch {
	case len(r.Results) == 0:
		r.Why = "no scenario is called so"
	case len(failed) > 0:
		r.Why = fmt.Sprintf("%d of %d: %s", len(failed), len(r.Results), strings.Join(failed, " "))
	}
	r.Pass = r.Why == ""
}

// goThrough plays the scenarios, so many at a time, and prints a line of the table as each ends.
func goThrough(all []scenario, o options, parallel int) []*result {
	results := make([]*result, len(all))
	var group sync.WaitGroup
	var printing sync.Mutex
	slots := make(chan struct{}, max(1, parallel))
	for i := range all {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			results[i] = play(&all[i], o)
			printing.Lock()
			defer printing.Unlock()
			results[i].print()
		})
	}
	group.Wait()
	return results
}

// print writes a line of the table: scenario, result, seconds, what was checked.
func (r *result) print() {
	fmt.Printf("%-34s %-4s %5.1f s  %s\n", r.Scenario, r.Result, r.Seconds, strings.Join(r.Checked, ", "))
	if r.Why != "" {
		fmt.Printf("    %s\n    logs in %s\n", strings.ReplaceAll(r.Why, "\n", "\n    "), r.Logs)
	}
}

func firstSentence(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if end := strings.IndexAny(text, ".:;"); end > 0 {
		return text[:end]
	}
	return text
}

// lacks names what this machine cannot do, or nothing.
func lacks() string {
	var missing []string
	for _, c := range testbed.Missing(append([]testbed.Capability{"unshare", "nft", "swanctl"}, testbed.Root...)...) {
		missing = append(missing, string(c))
	}
	for _, file := range []string{charonPath, kernelLibipsec, "/dev/net/tun"} {
		if _, err := os.Stat(file); err != nil {
			missing = append(missing, file)
		}
	}
	return strings.Join(missing, ", ")
}

// peerVersion is what the peer calls itself.
func peerVersion() string {
	text, err := exec.Command(charonPath, "--version").Output()
	if err != nil {
		return "strongSwan"
	}
	return strings.TrimSpace(string(text))
}
