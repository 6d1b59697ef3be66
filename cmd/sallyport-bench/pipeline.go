package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"

	"sallyport/bench/pipeline"
	"sallyport/bench/result"
	"sallyport/dataplane/threads"
	"sallyport/dataplane/transform"
)

// suiteDefault and kindDefault are the suite and the kind that rows do not name.
const (
	suiteDefault = "aes128gcm16"
	kindDefault  = "ipv4"
)

// pipelineOptions are the options of the verb pipeline.
type pipelineOptions struct {
	sizes, suites, directions []string
	kinds                     []string
	associations              []int
	workers                   []int
	cores                     []int
	churn                     bool
	witness                   pipeline.Witness
	seconds                   float64
	within                    time.Duration
	runs                      int
	output
}

func pipelineCommand(stdout, stderr io.Writer) *cobra.Command {
	var o pipelineOptions
	c := &cobra.Command{
		Use:   "pipeline",
		Short: "Measure the whole packet path, memory to memory, one core a worker",
		Long: "Pipeline carries packets through a whole gateway in this process: policy, association, sequence number with\n" +
			"ESN, replay window of 4096, cipher, TTL, next hop, link header, and one copy of each packet on its way in.\n" +
			"256 flows, or one for each association if there are more. One packet in 1,000 is checked by an implementation\n" +
			"of its own. Sizes are those of the inner packet; imix is 64, 576 and 1420 bytes as 7 : 4 : 1. Times and\n" +
			"rates are those of the median round of packets, which lasts some tenths of a millisecond; rounds during which a\n" +
			"neighbour used the core's other hardware thread do not count, as far as a probe before and after shows. Best is the\n" +
			"fastest round: on a machine with other work it still tells what a change is worth, the median\n" +
			"does not. Library is the time of the suite's ciphers alone in Go's standard library, with packets as many and as\n" +
			"long, measured in turn with the gateway; once for one association and worker. Cycles are those of the clock that\n" +
			"/proc/cpuinfo names. Several workers are also told as a multiple of one worker with as many associations, on each CPU\n" +
			"in turn, and so are as many gateways of one worker each, which share nothing: what the machine allows. With --churn associations are installed and removed meanwhile, and the rows tell how many, and the time of the slowest batches with and without that.",
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
	f.StringSliceVar(&o.sizes, "sizes", []string{"64", "128", "256", "512", "1024", "1420", "imix"}, "inner packets' sizes in bytes, or imix")
	f.StringSliceVar(&o.suites, "suites", []string{suiteDefault}, "ESP suites by proposal word, or all")
	f.StringSliceVar(&o.directions, "directions", []string{"encrypt", "decrypt"}, "directions")
	f.StringSliceVar(&o.kinds, "kinds", []string{kindDefault}, "kinds of tunnels: "+strings.Join(pipeline.Kinds(), ", ")+", or all")
	f.IntSliceVar(&o.associations, "associations", []int{1, 64}, "numbers of associations that the packets spread over")
	f.Float64Var(&o.seconds, "seconds", 0.3, "time of one measurement")
	f.IntVar(&o.runs, "runs", 5, "how often each is measured, in turn; the median counts")
	withinFlag(f, &o.within)
	f.IntSliceVar(&o.workers, "workers", []int{1}, "numbers of workers")
	f.IntSliceVar(&o.cores, "cores", nil, "CPUs of the workers, in turn; none given: the last ones where another is left, as in the daemon, else any")
	f.BoolVar(&o.churn, "churn", false, "also measure while associations are installed and removed")
	o.flags(f, "")
	return c
}

// measurement is one case's worth of work.
type measurement struct {
	name, size string
	options    pipeline.Options
	samples    []pipeline.Sample
	churned    []pipeline.Sample // the same while associations come and go
	library    []pipeline.Sample // what the standard library takes for the ciphers alone
	changes    []float64         // thousand associations a second
	scaling    []float64         // how many times what one worker carries
	separate   []float64         // the same of workers that share nothing
}

// cases checks the options and returns what is to be measured.
func (o *pipelineOptions) cases() ([]*measurement, error) {
	if o.runs < 1 || o.seconds <= 0 {
		return nil, fmt.Errorf("%d runs of %v seconds", o.runs, o.seconds)
	}
	kinds, err := parseKinds(o.kinds)
	if err != nil {
		return nil, err
	}
	var all []*measurement
	names := o.suites
	if slices.Equal(names, []string{"all"}) {
		names = nil
		for _, s := range transform.List() {
			names = append(names, s.String())
		}
	}
	for _, name := range names {
		suite, err := transform.Parse(name)
		if err != nil {
			return nil, err
		}
		for _, associations := range o.associations {
			if associations < 1 || associations > pipeline.AssociationsMax {
				return nil, fmt.Errorf("%d associations: 1 to %d are possible", associations, pipeline.AssociationsMax)
			}
			for _, workers := range o.workers {
				if workers < 1 || workers > min(associations, pipeline.WorkersMax) {
					return nil, fmt.Errorf("%d workers for %d associations: 1 to %d are possible, and an association for each", workers, associations, pipeline.WorkersMax)
				}
				for _, direction := range o.directions {
					if direction != "encrypt" && direction != "decrypt" {
						return nil, fmt.Errorf("direction %q: encrypt or decrypt", direction)
					}
					for _, word := range o.sizes {
						for _, kind := range kinds {
							sizes, err := parseSize(word, kind.SizeMin())
							if err != nil {
								return nil, err
							}
							m := &measurement{size: word, options: pipeline.Options{
								Decrypt: direction == "decrypt", Kind: kind, Suite: suite, Sizes: sizes, Associations: associations, Workers: workers,
							}}
							if o.churn {
								m.options.Spare = pipeline.ChurnSpare
							}
							m.name = m.rowName()
							all = append(all, m)
						}
					}
				}
			}
		}
	}
	return all, nil
}

// parseKinds returns the kinds that words are for; all for "all".
func parseKinds(words []string) (kinds []pipeline.Kind, err error) {
	if slices.Equal(words, []string{"all"}) {
		words = pipeline.Kinds()
	}
	for _, word := range words {
		k, err := pipeline.ParseKind(word)
		if err != nil {
			return nil, err
		}
		kinds = append(kinds, k)
	}
	return kinds, nil
}

func parseSize(word string, least int) ([]int, error) {
	if word == "imix" {
		return pipeline.IMIX, nil
	}
	n, err := strconv.Atoi(word)
	if err != nil || n < least || n > pipeline.SizeMax {
		return nil, fmt.Errorf("size %q: %d to %d, or imix", word, least, pipeline.SizeMax)
	}
	return []int{n}, nil
}

func (m *measurement) direction() string {
	if m.options.Decrypt {
		return "decrypt"
	}
	return "encrypt"
}

// kind is that of the tunnels, "" for the usual one.
func (m *measurement) kind() string {
	if m.options.Kind == pipeline.IPv4 {
		return ""
	}
	return m.options.Kind.String()
}

// rowName is gateway/DIRECTION/SIZE, and what differs from the common case behind it.
func (m *measurement) rowName() string {
	name := "gateway/" + m.direction() + "/" + m.size
	if kind := m.kind(); kind != "" {
		name += "/" + kind
	}
	if suite := m.options.Suite.String(); suite != suiteDefault {
		name += "/" + suite
	}
	if n := m.options.Associations; n != 1 {
		name += fmt.Sprintf("/associations=%d", n)
	}
	if n := m.options.Workers; n != 1 {
		name += fmt.Sprintf("/workers=%d", n)
	}
	return name
}

// run measures the cases in turn.
func (o *pipelineOptions) run(ctx context.Context, cases []*measurement, stdout, stderr io.Writer) error {
	// As the daemon does.
	threads.Prefer(-10)
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(slices.Max(o.workers) + 2))
	file := newFile()
	progress := newProgress(stderr, o.runs*len(cases), file)
	turns := result.Rounds{Runs: o.runs, Within: o.within}
	unstable := func(i int) bool { return cases[i].unstable() }
	for list := turns.Next(len(cases), unstable); len(list) > 0; list = turns.Next(len(cases), unstable) {
		for _, i := range list {
			m := cases[i]
			progress.next(m.name)
			if ctx.Err() != nil {
				progress.done()
				return ctx.Err()
			}
			if err := m.measure(o); err != nil {
				progress.done()
				return fmt.Errorf("%s: %w", m.name, err)
			}
		}
	}
	progress.done()
	return o.table(file, cases, stdout)
}

// measure takes one sample with a rig of its own, and another one during a churn if that was asked for.
func (m *measurement) measure(o *pipelineOptions) error {
	cores, err := place(m.options.Workers, o.cores)
	if err != nil {
		return err
	}
	r, err := pipeline.New(m.options)
	if err != nil {
		return err
	}
	defer r.Close()
	r.Witness = &o.witness
	atLeast := time.Duration(o.seconds * float64(time.Second))
	if _, err := r.Measure(r.Round(), atLeast/10, cores); err != nil { // warms caches, pages and every association
		return err
	}
	switch {
	case o.churn:
		return m.measureChurn(r, atLeast, cores)
	case m.options.Workers > 1:
		return m.measureScaling(o, r, atLeast, cores)
	}
	s, err := calmest(func() (pipeline.Sample, error) { return r.Measure(0, atLeast, cores) })
	m.samples = append(m.samples, s)
	if err != nil || !m.plain() {
		return err
	}
	return m.measureLibrary(o, cores, atLeast/2)
}

// A sample during most of which others were on the cores is taken again, whatever it told, up to calmPatience times.
const (
	sharedMax    = 0.5
	calmPatience = 3
)

// calmest returns the sample of those that were taken during which others were seen least.
func calmest(take func() (pipeline.Sample, error)) (best pipeline.Sample, err error) {
	for try := range calmPatience {
		s, err := take()
		if err != nil {
			return s, err
		}
		if try == 0 || s.Shared < best.Shared {
			best = s
		}
		if best.Shared <= sharedMax {
			break
		}
	}
	return best, nil
}

// scalingSlices is how often, in a sample, one worker on one CPU, all of them, as many that share nothing, and one on another CPU take turns. What
// disturbs the machine for a while meets all, and many slices are short enough to end before it begins.
const scalingSlices = 24

// measureScaling takes a sample, and how many times that is what one worker carries alone.
func (m *measurement) measureScaling(o *pipelineOptions, r *pipeline.Rig, atLeast time.Duration, cores []int) error {
	options := m.options
	options.Workers = 1
	one, err := pipeline.New(options)
	if err != nil {
		return err
	}
	defer one.Close()
	one.Witness = &o.witness
	if len(cores) == 0 { // which leave none to the rest of the process; it has nothing to do meanwhile
		if cores, err = threads.Allowed(); err != nil {
			return err
		}
		cores = cores[:min(len(cores), m.options.Workers)]
	}
	single := func(turn int) (pipeline.Sample, error) {
		return one.Measure(0, atLeast/scalingSlices, cores[turn%len(cores):][:1])
	}
	if _, err := one.Measure(one.Round(), atLeast/10, cores[:1]); err != nil {
		return err
	}
	separate, err := pipeline.NewSeparate(m.options)
	if err != nil {
		return err
	}
	defer separate.Close()
	separate.Witness = &o.witness
	if _, err := separate.Measure(separate.Round(), atLeast/10, cores); err != nil {
		return err
	}
	var all pipeline.Sample
	var ratios, bounds multiples
	for slice := range scalingSlices {
		before, err := single(slice)
		if err != nil {
			return err
		}
		s, err := r.Measure(0, atLeast/scalingSlices, cores)
		if err != nil {
			return err
		}
		bound, err := separate.Measure(0, atLeast/scalingSlices, cores)
		if err != nil {
			return err
		}
		after, err := single(slice + 1)
		if err != nil {
			return err
		}
		all.Add(s)
		ratios.add(before, s, after)
		bounds.add(before, bound, after)
	}
	m.samples, m.scaling, m.separate = append(m.samples, all), append(m.scaling, ratios.median()), append(m.separate, bounds.median())
	return nil
}

// multiples are how many times what one worker carried several did, slice by slice; calm are those of slices during most of which nobody else was
// on the cores.
type multiples struct{ all, calm []float64 }

// add takes a slice of several workers between two of one.
func (m *multiples) add(before, several, after pipeline.Sample) {
	ratio := several.TypicalMpps() / ((before.TypicalMpps() + after.TypicalMpps()) / 2)
	if m.all = append(m.all, ratio); max(before.Shared, several.Shared, after.Shared) <= sharedMax {
		m.calm = append(m.calm, ratio)
	}
}

// median is that of the calm slices, if there are any.
func (m *multiples) median() float64 {
	if len(m.calm) > 0 {
		return result.Median(m.calm)
	}
	return result.Median(m.all)
}

// churnSlices is how often a sample without and one with a churn take turns. What disturbs the machine for a while meets both.
const churnSlices = 10

func (m *measurement) measureChurn(r *pipeline.Rig, atLeast time.Duration, cores []int) error {
	var calm, churned pipeline.Sample
	var all pipeline.Changes
	for range churnSlices {
		s, err := r.MeasureGaps(0, atLeast/churnSlices, cores)
		if err != nil {
			return err
		}
		calm.Add(s)
		churn := r.StartChurn()
		s, err = r.MeasureGaps(0, atLeast/churnSlices, cores)
		changes, churnErr := churn.Stop()
		if err := errors.Join(err, churnErr); err != nil {
			return err
		}
		churned.Add(s)
		all.Count, all.Elapsed = all.Count+changes.Count, all.Elapsed+changes.Elapsed
	}
	m.samples, m.churned, m.changes = append(m.samples, calm), append(m.churned, churned), append(m.changes, all.PerSecond()/1e3)
	return nil
}

// unstable says that one of the figures that were sampled is.
func (m *measurement) unstable() bool {
	return result.Unsteady(figures(m.samples, pipeline.Sample.TypicalMpps), figures(m.churned, pipeline.Sample.Mpps), figures(m.library, pipeline.Sample.TypicalMpps), m.scaling, m.separate)
}

// plain says that nothing but the cipher is measured beside the usual way of a packet.
func (m *measurement) plain() bool { return m.options.Associations == 1 && m.options.Workers == 1 }

// measureLibrary takes one sample of the standard library, on the core that the worker had.
func (m *measurement) measureLibrary(o *pipelineOptions, cores []int, atLeast time.Duration) error {
	l, err := pipeline.NewLibrary(m.options)
	if err != nil {
		return err
	}
	take := func(atLeast time.Duration) (pipeline.Sample, error) {
		if len(cores) == 0 {
			return l.Measure(atLeast)
		}
		return l.MeasureOn(cores[0], &o.witness, atLeast)
	}
	if _, err := take(atLeast / 10); err != nil {
		return err
	}
	s, err := calmest(func() (pipeline.Sample, error) { return take(atLeast) })
	m.library = append(m.library, s)
	return err
}

// place returns the CPUs of so many workers: as named, or as the daemon chooses. Where it leaves one to what else the process does,
// associations are installed and garbage is collected there, and not in a worker's time.
func place(workers int, named []int) ([]int, error) {
	if len(named) > 0 {
		return named, nil
	}
	cpus, err := threads.Allowed()
	return threads.Place(workers, cpus), err
}

// figures returns one figure of each sample.
func figures(samples []pipeline.Sample, of func(pipeline.Sample) float64) []float64 {
	var all []float64
	for _, s := range samples {
		all = append(all, of(s))
	}
	return all
}

func typical(s pipeline.Sample) float64 { return s.Typical }

// slowest is the time of a batch that 999 of 1,000 stay below, in microseconds.
func slowest(s pipeline.Sample) float64 { return float64(s.Gaps.ValueAtPercentile(99.9)) / 1e3 }

func (o *pipelineOptions) table(file *result.File, cases []*measurement, stdout io.Writer) error {
	o.finish(file, stdout)
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "benchmark\tMpps\tns/packet\tbest ns\tcycles\tGbit/s\tallocs\tspread\tlibrary ns\tratio")
	for _, m := range cases {
		command := m.command(o)
		add := func(name, unit string, samples []float64) result.Row {
			row := result.NewRow(name, unit, command, samples).With(m.parameters())
			file.Rows = append(file.Rows, row)
			return row
		}
		rate := add(m.name, "Mpps", figures(m.samples, pipeline.Sample.TypicalMpps))
		cost := add(m.name, "ns", figures(m.samples, typical))
		best := add(m.name+"/best", "ns", figures(m.samples, func(s pipeline.Sample) float64 { return s.Best }))
		allocations := add(m.name+"/allocations", "allocs", figures(m.samples, func(s pipeline.Sample) float64 { return s.Allocations }))
		library := "\t"
		if len(m.library) > 0 {
			row := result.NewRow(m.name+"/library", "ns", command, cost.Samples).With(m.parameters()).
				Against("standard library, ciphers alone", figures(m.library, typical))
			file.Rows = append(file.Rows, row)
			library = file.Text(row.PeerRow(), "%.0f") + "\t" + file.Text(row.RatioRow(), "%.2f")
		}
		derived := "–\t–"
		if _, withheld := file.Doubt(&rate); !withheld {
			derived = fmt.Sprintf("%.0f\t%.2f", cost.Value*file.Host.GHz(), rate.Value*m.meanBits()/1e3)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.0f\t%s\t%.0f\t%.0f %%\t%s\n", m.name, file.Text(rate, "%.2f"), file.Text(cost, "%.0f"),
			slices.Min(best.Samples), derived, allocations.Value, 100*rate.Spread(), library)
		if len(m.scaling) > 0 {
			scaling, separate := add(m.name+"/scaling", "×", m.scaling), add(m.name+"/scaling/separate", "×", m.separate)
			fmt.Fprintf(w, "  times what one worker carries, each turn beside one on each CPU\t%s\n", file.Text(scaling, "%.2f"))
			fmt.Fprintf(w, "  as many gateways of one worker each, which share nothing\t%s\n", file.Text(separate, "%.2f"))
		}
		if !o.churn {
			continue
		}
		churned := add(m.name+"/churn", "Mpps", figures(m.churned, pipeline.Sample.Mpps))
		changes := add(m.name+"/churn/changes", "k/s", m.changes)
		calm := figures(m.samples, slowest)
		gaps := result.NewRow(m.name+"/churn/p99.9", "us", command, figures(m.churned, slowest)).Against("without churn", calm)
		file.Rows = append(file.Rows, gaps)
		fmt.Fprintf(w, "  with %s thousand associations installed and removed a second\t%s\n", file.Text(changes, "%.0f"), file.Text(churned, "%.2f"))
		fmt.Fprintf(w, "  p99.9 of a batch: %s us, without %s us, ratio %s\n", file.Text(gaps, "%.0f"), file.Text(gaps.PeerRow(), "%.0f"), file.Text(gaps.RatioRow(), "%.2f"))
	}
	w.Flush()
	return o.write(file, stdout)
}

// meanBits is the mean length of the inner packets in bits.
func (m *measurement) meanBits() float64 {
	sum := 0
	for _, s := range m.options.Sizes {
		sum += 8 * s
	}
	return float64(sum) / float64(len(m.options.Sizes))
}

func (m *measurement) parameters() result.Parameters {
	return result.Parameters{
		Direction: m.direction(), Size: m.size, Bytes: m.meanBits() / 8, Tunnels: m.options.Associations,
		Workers: m.options.Workers, Suite: m.options.Suite.String(), Kind: m.kind(),
	}
}

// command repeats one measurement.
func (m *measurement) command(o *pipelineOptions) string {
	command := fmt.Sprintf("sallyport-bench pipeline --directions %s --sizes %s --suites %s --kinds %s --associations %d --workers %d --seconds %v --runs %d",
		m.direction(), m.size, m.options.Suite, m.options.Kind, m.options.Associations, m.options.Workers, o.seconds, o.runs)
	if o.churn {
		command += " --churn"
	}
	return command
}

// progress tells a terminal what is being measured, and looks at the machine's noise in between.
type progress struct {
	w         io.Writer
	file      *result.File
	count, of int
	terminal  bool
}

func newProgress(w io.Writer, of int, file *result.File) *progress {
	f, ok := w.(*os.File)
	return &progress{w: w, file: file, of: of, terminal: ok && term.IsTerminal(f.Fd())}
}

func (p *progress) next(name string) {
	p.file.Calibrate()
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
