package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sallyport/bench/result"
	"sallyport/bench/wire"
)

// part is one verb's share of a run. It is a process of its own: what goes wrong in it costs that part only.
type part struct {
	name string
	args []string
	// share of the run's time, in the seconds of one of its usual length. What a part leaves over goes to those behind it.
	share float64
	// fixed says that it takes its time, whatever the run's.
	fixed bool
	// needs says what the part lacks here; "" for nothing.
	needs func(o *runOptions) string
}

// matrix is a named part of all that the verbs can measure.
type matrix struct {
	name  string
	parts []part
}

// quick is what every machine can tell about itself, and the peers in memory if they are built already.
var quick = matrix{"quick", []part{
	{"crypto", []string{"crypto", "--bits", "128", "--runs", "11"}, 5, false, nil},
	{"pipeline", []string{"pipeline", "--sizes", "64,512,1420,imix", "--associations", "1,64", "--runs", "5", "--seconds", "0.08"}, 12, false, nil},
	{"ike", []string{"ike", "--measure", "handshake,rekey", "--runs", "3", "--handshakes", "400"}, 12, false, nil},
	{"peers", []string{"peers", "--modes", "legacy", "--sizes", "64", "--runs", "3", "--seconds", "1"}, 25, false, (*runOptions).needsPeers},
	{"wire", []string{"wire", "--quick"}, 54, false, (*runOptions).needsNamespaces},
}}

// standard is all sizes, suites and directions, scaling, every peer that can be had. Slices are short and rounds many, so that
// what disturbs a machine for a while meets few samples of each figure.
var standard = matrix{"standard", []part{
	{"crypto", []string{"crypto", "--runs", "31"}, 16, false, nil},
	{"pipeline", []string{"pipeline", "--associations", "1,64", "--runs", "7", "--seconds", "0.15"}, 80, false, nil},
	{"suites", []string{"pipeline", "--sizes", "64,1420", "--suites", "all", "--associations", "1", "--runs", "5", "--seconds", "0.05"}, 95, false, nil},
	{"kinds", []string{"pipeline", "--sizes", "64,1420", "--kinds", "ipv6,natt,route", "--associations", "1", "--runs", "5", "--seconds", "0.1"}, 20, false, nil},
	{"associations", []string{"pipeline", "--sizes", "64", "--associations", "1000,100000", "--runs", "5", "--seconds", "0.3"}, 30, false, nil},
	{"million", []string{"pipeline", "--sizes", "64", "--associations", "1000000", "--runs", "3", "--seconds", "0.3"}, 90, false, needsMemory(8)},
	{"workers", []string{"pipeline", "--sizes", "64,1420", "--associations", "64", "--workers", "2", "--runs", "7", "--seconds", "0.2"}, 45, false, needsCores(2)},
	{"churn", []string{"pipeline", "--sizes", "64", "--associations", "1000", "--churn", "--runs", "5", "--seconds", "1"}, 40, false, needsCores(2)},
	{"ike", []string{"ike", "--measure", "handshake,rekey,setup", "--runs", "5", "--handshakes", "800"}, 70, false, nil},
	{"daemons", []string{"ike", "--measure", "daemons-setup,daemons-flood,daemons-overload", "--runs", "3", "--overload", "20s"}, 120, true, (*runOptions).needsNamespaces},
	{"peers", []string{"peers", "--modes", "legacy,cpu-crypto", "--runs", "5", "--seconds", "1"}, 230, false, (*runOptions).needsRoot},
	{"tunnels", slices.Concat(searches, alone, []string{"--directions", "encrypt,decrypt", "--sizes", "64", "--tunnels", "100,1000,10000", "--latency", "0"}),
		170, false, (*runOptions).needsNamespaces},
	{"both", slices.Concat(searches, alone, []string{"--directions", "both", "--sizes", "64,imix", "--ceilings=false"}),
		90, false, (*runOptions).needsNamespaces},
	{"stacks", slices.Concat(searches, []string{"--directions", "encrypt", "--sizes", "64,1420", "--latency", "0", "--ceilings=false", "--peer=", "--testpmd="}),
		110, false, (*runOptions).needsNamespaces},
	{"sizes", slices.Concat(searches, beside, []string{"--directions", "encrypt", "--sizes", "128,256,1024,1280", "--runs", "3", "--latency", "0"}),
		140, false, (*runOptions).needsNamespaces},
	{"wire", slices.Concat(searches, beside, []string{"--directions", "encrypt,decrypt"}),
		425, false, (*runOptions).needsNamespaces},
}}

// What the parts of a full run on the wire have in common, and that those have that look at this gateway alone, or beside those that
// take AF_XDP too.
var (
	searches = []string{"wire", "--runs", "5", "--trial", "0.15", "--sum", "0.3", "--latency", "0.5"}
	alone    = []string{"--peer=", "--testpmd=", "--kernel=false", "--wireguard=", "--strongswan="}
	beside   = []string{"--kernel=false", "--wireguard=", "--strongswan="}
)

// Times of a run for which nothing else is asked, a little less than what is promised.
const (
	quickWithin = 115 * time.Second
	fullWithin  = 29 * time.Minute
)

type runOptions struct {
	quick  bool
	within time.Duration // 0: the usual
	out    string
	bin    string
	only   []string
}

func runCommand(stdout, stderr io.Writer) *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:   "run",
		Short: "Measure everything this machine can, and make a page of it",
		Long: "Run goes through the other verbs, one after another, and writes FOLDER/results.json and FOLDER/report.html. A full run takes\n" +
			"half an hour over the matrix named " + standard.name + ", --quick two minutes over the one named " + quick.name + "; --within says another time: with\n" +
			"less everything is measured less often, from about ten minutes on. Unstable figures are measured again while there is\n" +
			"time. A full run as root first builds the peers that are missing, which takes minutes more. What cannot be measured here, for want of root, CPUs or a\n" +
			"peer, is said, the rest goes on, and the page tells. On Ctrl-C nothing is left behind, and nothing is written.\n\n" +
			standard.describe() + "\n" + quick.describe(),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), stdout, stderr) },
	}
	f := c.Flags()
	f.BoolVar(&o.quick, "quick", false, "two minutes instead of thirty")
	f.DurationVar(&o.within, "within", 0, "time that it may take, 0 for the usual")
	f.StringVar(&o.out, "out", "build/bench", "folder to write to")
	f.StringVar(&o.bin, "bin", "build", "folder of sallyportd")
	f.StringSliceVar(&o.only, "only", nil, "parts to run, instead of all")
	return c
}

func (o *runOptions) needsRoot() string {
	if os.Geteuid() != 0 {
		return "needs root, for packages and huge pages"
	}
	return ""
}

func (o *runOptions) needsNamespaces() string {
	switch _, err := os.Stat(filepath.Join(o.bin, "sallyportd")); {
	case os.Geteuid() != 0:
		return "needs root, for network namespaces"
	case runtime.NumCPU() < 2:
		return "needs two CPUs, one for the sender and one for the gateway"
	case err != nil:
		return "needs " + filepath.Join(o.bin, "sallyportd") + ": make build"
	}
	return ""
}

// needsPeers keeps a quick run from installing and building for minutes.
func (o *runOptions) needsPeers() string {
	if why := o.needsRoot(); why != "" {
		return why
	}
	if existing(secgwBuilt) == "" && os.Getenv(peerVariable) == "" {
		return "DPDK's ipsec-secgw is not built yet: sallyport-bench peers installs and builds it"
	}
	return ""
}

func needsCores(n int) func(*runOptions) string {
	return func(*runOptions) string {
		if runtime.NumCPU() < n {
			return fmt.Sprintf("needs %d CPUs", n)
		}
		return ""
	}
}

// needsMemory keeps a machine with less memory, in GiB, from swapping.
func needsMemory(n uint64) func(*runOptions) string {
	return func(*runOptions) string {
		var info unix.Sysinfo_t
		if err := unix.Sysinfo(&info); err == nil && info.Totalram*uint64(info.Unit)>>30 < n {
			return fmt.Sprintf("needs %d GiB of memory", n)
		}
		return ""
	}
}

// describe lists the parts of a matrix.
func (m *matrix) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "The matrix %s, each part with its usual time:\n", m.name)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, p := range m.parts {
		fmt.Fprintf(w, "  %s\t%.0f s\t%s\n", p.name, p.share, strings.Join(p.args, " "))
	}
	w.Flush()
	return b.String()
}

// matrix is what is chosen from.
func (o *runOptions) matrix() *matrix {
	if o.quick {
		return &quick
	}
	return &standard
}

// parts returns what is to be run.
func (o *runOptions) parts() ([]part, error) {
	all := o.matrix().parts
	if len(o.only) == 0 {
		return all, nil
	}
	var chosen []part
	for _, name := range o.only {
		found := false
		for _, p := range all {
			if p.name == name {
				chosen, found = append(chosen, p), true
			}
		}
		if !found {
			return nil, fmt.Errorf("%wpart %q: there are %s", errUsage, name, strings.Join(names(all), ", "))
		}
	}
	return chosen, nil
}

func names(parts []part) (all []string) {
	for _, p := range parts {
		all = append(all, p.name)
	}
	return all
}

// share returns the time of the first of these parts, if so much is left for all of them.
func share(parts []part, left time.Duration) time.Duration {
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	if parts[0].fixed {
		return seconds(parts[0].share)
	}
	sum := 0.0
	for _, p := range parts {
		if p.fixed {
			left -= seconds(p.share)
		} else {
			sum += p.share
		}
	}
	return max(0, time.Duration(float64(left)*parts[0].share/sum))
}

func (o *runOptions) run(ctx context.Context, stdout, stderr io.Writer) error {
	parts, err := o.parts()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "sallyport-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)

	within := o.within
	if within == 0 {
		within = fullWithin
		if o.quick {
			within = quickWithin
		}
		if len(o.only) > 0 { // each part as long as in a whole run
			within = 0
			for _, p := range parts {
				within += time.Duration(p.share * float64(time.Second))
			}
		}
	}
	file, end := newFile(), time.Now().Add(within)
	file.Matrix = o.matrix().name
	if len(o.only) > 0 {
		file.Matrix = "a part of " + file.Matrix
	}
	if !o.quick && slices.ContainsFunc(parts, func(p part) bool { return slices.Contains([]string{"peers", "stacks", "sizes", "wire"}, p.name) }) && o.needsRoot() == "" {
		var peers wire.Options
		peers.Peer, peers.Wireguard = cmp.Or(os.Getenv(peerVariable), existing(secgwBuilt)), existing(wireguardBuilt)
		if err := buildPeers(ctx, &peers, stderr); err != nil { // a hole of the parts that need them
			fmt.Fprintln(stderr, "goes on without:", err)
		}
	}
	for i, p := range parts {
		left := time.Until(end)
		p.share = share(parts[i:], left).Seconds()
		fmt.Fprintf(stderr, "%d of %d: %s, about %s; %s in all are left\n", i+1, len(parts), p.name, duration(p.share), duration(left.Seconds()))
		file.Calibrate()
		if p.needs != nil {
			if why := p.needs(o); why != "" {
				file.Miss(p.name, why)
				fmt.Fprintln(stderr, "  left out:", why)
				continue
			}
		}
		json, began := filepath.Join(folder, p.name+".json"), time.Now()
		args := p.arguments(o)
		why := o.measure(ctx, self, args, json, stderr)
		file.Parts = append(file.Parts, result.Part{Name: p.name, Command: "sallyport-bench " + strings.Join(args, " "), Seconds: math.Round(time.Since(began).Seconds())})
		if ctx.Err() != nil {
			return errors.New("interrupted; nothing was written")
		}
		rows, err := result.Read(json) // a part that fails late may have written what it has
		if err == nil {
			file.AddNew(rows.Rows...)
			file.Holes = append(file.Holes, rows.Holes...)
			file.Overheard(rows.Noise)
			for _, i := range rows.Interfaces {
				file.Attach(i)
			}
		} else if why == "" {
			why = err.Error()
		}
		if why != "" {
			file.Miss(p.name, why)
			fmt.Fprintln(stderr, "  failed:", why)
		}
	}
	if len(file.Rows) == 0 {
		return errors.New("nothing could be measured")
	}
	out := output{json: filepath.Join(o.out, "results.json")}
	file.Finish()
	if why := file.Noise.Noisy(); why != "" {
		fmt.Fprintf(stdout, "This machine was too noisy to trust the figures: %s. The page marks them, and leaves out those that did not agree.\n", why)
	}
	if err := out.write(file, stdout); err != nil {
		return err
	}
	return writePage(file, filepath.Join(o.out, "report.html"), stdout)
}

// graceTime is how long a part that is interrupted may take to clean up.
const graceTime = 20 * time.Second

// partStart is about how long a part takes to begin and to end, in seconds.
const partStart = 0.7

// arguments are those of the part's command, for the time that it has.
func (p *part) arguments(o *runOptions) []string {
	args := slices.Clone(p.args)
	if !p.fixed {
		args = append(args, "--within", fmt.Sprintf("%.1fs", max(0.1, p.share-partStart)))
	}
	if p.args[0] == "wire" || p.name == "daemons" {
		args = append(args, "--bin", o.bin)
	}
	return args
}

// measure runs a part and returns why it failed, "" if it did not. An interruption reaches it as such, so that it cleans up.
func (o *runOptions) measure(ctx context.Context, self string, args []string, json string, stderr io.Writer) string {
	c := exec.CommandContext(ctx, self, append(slices.Clone(args), "--json", json)...)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = graceTime
	// In a group of its own: a terminal's Ctrl-C comes once, from here.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	var errs bytes.Buffer
	c.Stderr = io.MultiWriter(&errs, indented{stderr})
	runtime.LockOSThread() // the death signal is of the thread that started the part
	defer runtime.UnlockOSThread()
	if err := c.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
		if last := lines[len(lines)-1]; last != "" {
			return strings.TrimPrefix(last, "sallyport-bench: ")
		}
		return err.Error()
	}
	return ""
}

// indented moves whole writes to the right.
type indented struct{ io.Writer }

func (w indented) Write(b []byte) (int, error) {
	text := "  " + strings.ReplaceAll(strings.TrimSuffix(string(b), "\n"), "\n", "\n  ") + "\n"
	_, err := io.WriteString(w.Writer, text)
	return len(b), err
}

func duration(seconds float64) string {
	return (time.Duration(seconds) * time.Second).Round(time.Second).String()
}
