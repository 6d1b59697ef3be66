package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sallyport/bench/gateway"
	"sallyport/bench/result"
	"sallyport/cmd/internal/version"
	"sallyport/dataplane/transform"
)

// suiteDefault is the suite that rows do not name.
const suiteDefault = "aes128gcm16"

// gatewayOptions are the options of the verb gateway.
type gatewayOptions struct {
	sizes, suites, directions []string
	associations              []int
	seconds                   float64
	runs, core                int
	json                      string
}

func gatewayCommand(stdout, stderr io.Writer) *cobra.Command {
	var o gatewayOptions
	c := &cobra.Command{
		Use:   "gateway",
		Short: "Measure the whole packet path, memory to memory, on one core",
		Long: "Gateway carries packets through a whole gateway in this process: policy, association, sequence number with\n" +
			"ESN, replay window of 4096, cipher, TTL, next hop, link header, and one copy of each packet on its way in.\n" +
			"One packet in 1,000 is checked by an implementation of its own. Sizes are those of the inner IPv4 packet;\n" +
			"imix is 64, 576 and 1420 bytes as 7 : 4 : 1. Best is the fastest round of 1,024 packets: on a machine\n" +
			"with other work it still tells what a change is worth, the median does not.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cases, err := o.cases()
			if err != nil {
				return fmt.Errorf("%w%w", errUsage, err)
			}
			return o.run(cmd.Context(), cases, stdout, stderr)
		},
	}
	f := c.Flags()
	f.StringSliceVar(&o.sizes, "sizes", []string{"64", "512", "1420", "imix"}, "inner packets' sizes in bytes, or imix")
	f.StringSliceVar(&o.suites, "suites", []string{suiteDefault}, "ESP suites by proposal word")
	f.StringSliceVar(&o.directions, "directions", []string{"encrypt", "decrypt"}, "directions")
	f.IntSliceVar(&o.associations, "associations", []int{1, 64}, "numbers of associations that the packets spread over")
	f.Float64Var(&o.seconds, "seconds", 0.3, "time of one measurement")
	f.IntVar(&o.runs, "runs", 5, "how often each is measured, in turn; the median counts")
	f.IntVar(&o.core, "core", -1, "CPU to measure on; -1 for any")
	f.StringVar(&o.json, "json", "", "file to write the rows to")
	return c
}

// measurement is one row's worth of work.
type measurement struct {
	name    string
	options gateway.Options
	samples []gateway.Sample
}

// cases checks the options and returns what is to be measured.
func (o *gatewayOptions) cases() ([]*measurement, error) {
	if o.runs < 1 || o.seconds <= 0 {
		return nil, fmt.Errorf("%d runs of %v seconds", o.runs, o.seconds)
	}
	var all []*measurement
	for _, name := range o.suites {
		suite, err := transform.Parse(name)
		if err != nil {
			return nil, err
		}
		for _, associations := range o.associations {
			if associations < 1 || associations > gateway.AssociationsMax {
				return nil, fmt.Errorf("%d associations: 1 to %d are possible", associations, gateway.AssociationsMax)
			}
			for _, direction := range o.directions {
				if direction != "encrypt" && direction != "decrypt" {
					return nil, fmt.Errorf("direction %q: encrypt or decrypt", direction)
				}
				for _, word := range o.sizes {
					sizes, err := parseSize(word)
					if err != nil {
						return nil, err
					}
					all = append(all, &measurement{
						name:    rowName(direction, word, suite, associations),
						options: gateway.Options{Decrypt: direction == "decrypt", Suite: suite, Sizes: sizes, Associations: associations},
					})
				}
			}
		}
	}
	return all, nil
}

func parseSize(word string) ([]int, error) {
	if word == "imix" {
		return gateway.IMIX, nil
	}
	n, err := strconv.Atoi(word)
	if err != nil || n < gateway.SizeMin || n > gateway.SizeMax {
		return nil, fmt.Errorf("size %q: %d to %d, or imix", word, gateway.SizeMin, gateway.SizeMax)
	}
	return []int{n}, nil
}

// rowName is gateway/DIRECTION/SIZE, and what differs from the common case behind it.
func rowName(direction, size string, suite transform.Suite, associations int) string {
	parts := []string{"gateway", direction, size}
	if suite.String() != suiteDefault {
		parts = append(parts, suite.String())
	}
	if associations != 1 {
		parts = append(parts, fmt.Sprintf("associations=%d", associations))
	}
	return strings.Join(parts, "/")
}

// run measures every case in turn, runs times, so that what disturbs the machine meets all alike.
func (o *gatewayOptions) run(ctx context.Context, cases []*measurement, stdout, stderr io.Writer) error {
	runtime.LockOSThread()
	if err := pin(o.core); err != nil {
		return err
	}
	progress := newProgress(stderr, o.runs*len(cases))
	for range o.runs {
		for _, m := range cases {
			progress.next(m.name)
			if ctx.Err() != nil {
				progress.done()
				return ctx.Err()
			}
			if err := m.measure(time.Duration(o.seconds * float64(time.Second))); err != nil {
				progress.done()
				return fmt.Errorf("%s: %w", m.name, err)
			}
		}
	}
	progress.done()
	return o.report(cases, stdout)
}

// pin binds the thread to a CPU, unless that is negative.
func pin(core int) error {
	if core < 0 {
		return nil
	}
	var set unix.CPUSet
	set.Set(core)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("run on CPU %d: %w", core, err)
	}
	return nil
}

// measure takes one sample with a rig of its own.
func (m *measurement) measure(atLeast time.Duration) error {
	r, err := gateway.New(m.options)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := r.Measure(0, atLeast/10); err != nil { // warms caches and pages
		return err
	}
	s, err := r.Measure(0, atLeast)
	m.samples = append(m.samples, s)
	return err
}

func (o *gatewayOptions) report(cases []*measurement, stdout io.Writer) error {
	file := result.NewFile(version.String())
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "benchmark\tMpps\tns/packet\tbest ns\tGbit/s\tspread")
	for _, m := range cases {
		var mpps, ns, best []float64
		for _, s := range m.samples {
			mpps, ns = append(mpps, s.Mpps()), append(ns, s.Nanoseconds())
			best = append(best, s.Best)
		}
		command := m.command(o)
		rate, cost := result.NewRow(m.name, "Mpps", command, mpps), result.NewRow(m.name, "ns", command, ns)
		file.Rows = append(file.Rows, rate, cost, result.NewRow(m.name+"/best", "ns", command, best))
		fmt.Fprintf(w, "%s\t%.2f\t%.0f\t%.0f\t%.2f\t%.0f %%\n", m.name, rate.Value, cost.Value, slices.Min(best), rate.Value*m.meanBits()/1e3, 100*rate.Spread())
	}
	w.Flush()
	if o.json == "" {
		return nil
	}
	if err := file.Write(o.json); err != nil {
		return fmt.Errorf("write the rows: %w", err)
	}
	fmt.Fprintln(stdout, "rows:", o.json)
	return nil
}

// meanBits is the mean length of the inner packets in bits.
func (m *measurement) meanBits() float64 {
	sum := 0
	for _, s := range m.options.Sizes {
		sum += 8 * s
	}
	return float64(sum) / float64(len(m.options.Sizes))
}

// command repeats one measurement.
func (m *measurement) command(o *gatewayOptions) string {
	direction, size := "encrypt", strconv.Itoa(m.options.Sizes[0])
	if m.options.Decrypt {
		direction = "decrypt"
	}
	if slices.Equal(m.options.Sizes, gateway.IMIX) {
		size = "imix"
	}
	return fmt.Sprintf("sallyport-bench gateway --directions %s --sizes %s --suites %s --associations %d --seconds %v --runs %d",
		direction, size, m.options.Suite, m.options.Associations, o.seconds, o.runs)
}

// progress tells a terminal what is being measured.
type progress struct {
	w         io.Writer
	count, of int
	terminal  bool
}

func newProgress(w io.Writer, of int) *progress {
	f, ok := w.(*os.File)
	return &progress{w: w, of: of, terminal: ok && term.IsTerminal(f.Fd())}
}

func (p *progress) next(name string) {
	p.count++
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%d of %d: %s", p.count, p.of, name)
	}
}

func (p *progress) done() {
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
