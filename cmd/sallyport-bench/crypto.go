package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sallyport/bench/crypto"
	"sallyport/bench/pipeline"
	"sallyport/bench/result"
)

// cryptoOptions are the options of the verb crypto.
type cryptoOptions struct {
	implementations []string
	bits, sizes     []int
	seconds         float64
	within          time.Duration
	runs, core      int
	output
}

func cryptoCommand(stdout, stderr io.Writer) *cobra.Command {
	var o cryptoOptions
	c := &cobra.Command{
		Use:   "crypto",
		Short: "Measure sealing and opening packets with AES-GCM",
		Long: "Crypto seals and opens batches of 64 packets with each implementation of AES-GCM that this machine can run,\n" +
			"and with Go's crypto/cipher packet by packet, in turn. Sizes are those of the text; additional data are 8 bytes.\n" +
			"Ratios are those of medians in this run. Cycles are those of the core, whose clock is measured beside.",
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
	f.StringSliceVar(&o.implementations, "implementations", crypto.Names(), "what to measure")
	f.IntSliceVar(&o.bits, "bits", []int{128, 256}, "key sizes")
	f.IntSliceVar(&o.sizes, "sizes", []int{64, 128, 256, 512, 1024, 1420}, "texts' sizes in bytes")
	f.Float64Var(&o.seconds, "seconds", 0.005, "time of one measurement")
	f.IntVar(&o.runs, "runs", 21, "how often each is measured, in turn; the median counts")
	withinFlag(f, &o.within)
	f.IntVar(&o.core, "core", -1, "CPU to measure on; -1 for the last one where another is left, else any")
	o.flags(f, "")
	return c
}

// cases checks the options and returns what is to be measured.
func (o *cryptoOptions) cases() ([]*crypto.Case, error) {
	if o.runs < 1 || o.seconds <= 0 {
		return nil, fmt.Errorf("%d runs of %v seconds", o.runs, o.seconds)
	}
	var all []*crypto.Case
	for _, bits := range o.bits {
		if bits != 128 && bits != 192 && bits != 256 {
			return nil, fmt.Errorf("keys of %d bits: 128, 192 and 256 are possible", bits)
		}
		for _, size := range o.sizes {
			if size < 0 || size > crypto.SizeMax {
				return nil, fmt.Errorf("size %d: 0 to %d are possible", size, crypto.SizeMax)
			}
			for _, name := range o.implementations {
				if !slices.Contains(crypto.Names(), name) {
					return nil, fmt.Errorf("implementation %q: this machine can run %v", name, crypto.Names())
				}
				all = append(all, &crypto.Case{Name: name, Bits: bits, Size: size})
			}
		}
	}
	return all, nil
}

func (o *cryptoOptions) run(ctx context.Context, cases []*crypto.Case, stdout, stderr io.Writer) error {
	file := newFile()
	progress := newProgress(stderr, o.runs*len(cases), file)
	measure := func() error {
		return crypto.Run(ctx, cases, result.Rounds{Runs: o.runs, Within: o.within}, time.Duration(o.seconds*float64(time.Second)), progress.next)
	}
	var named []int
	if o.core >= 0 {
		named = []int{o.core}
	}
	cores, err := place(1, named)
	if err != nil {
		return err
	}
	if len(cores) > 0 {
		err = pipeline.OnCore(cores[0], measure)
	} else {
		err = measure()
	}
	progress.done()
	if err != nil {
		return err
	}
	return o.table(file, cases, stdout)
}

func (o *cryptoOptions) table(file *result.File, cases []*crypto.Case, stdout io.Writer) error {
	o.finish(file, stdout)
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "bits\tbytes\timplementation\tseal ns\tcycles\tbest ns\tof Go's\topen ns\tcycles\tbest ns\tof Go's\t")
	for _, c := range cases {
		standard := &crypto.Case{}
		if i := slices.IndexFunc(cases, func(d *crypto.Case) bool {
			return d.Name == crypto.Standard && d.Bits == c.Bits && d.Size == c.Size
		}); i >= 0 && c.Name != crypto.Standard {
			standard = cases[i]
		}
		fmt.Fprintf(w, "%d\t%d\t%s", c.Bits, c.Size, c.Name)
		for _, d := range []struct {
			name, direction   string
			ns, cycles, other []float64
		}{{"", "encrypt", c.Seal, c.SealCycles, standard.Seal}, {"/open", "decrypt", c.Open, c.OpenCycles, standard.Open}} {
			p := result.Parameters{Direction: d.direction, Size: strconv.Itoa(c.Size), Bytes: float64(c.Size), Suite: fmt.Sprintf("aes%dgcm16", c.Bits)}
			if c.Name != crypto.Names()[0] {
				p.By = c.Name
			}
			row := result.NewRow(cryptoRow(c, d.name), "ns", o.command(c), d.ns).With(p)
			ratio := "-"
			if standard.Name != "" {
				row = row.Against(crypto.Standard, d.other)
				ratio = file.Text(row.RatioRow(), "%.2f")
			}
			cycles := result.NewRow(cryptoRow(c, d.name)+"/cycles", "cycles", o.command(c), d.cycles).With(p)
			file.Rows = append(file.Rows, row, cycles)
			fmt.Fprintf(w, "\t%s\t%s\t%.1f\t%s", file.Text(row, "%.1f"), file.Text(cycles, "%.0f"), slices.Min(d.ns), ratio)
		}
		fmt.Fprintln(w, "\t")
	}
	w.Flush()
	return o.write(file, stdout)
}

// cryptoRow is aesgcmBITS/go/SIZE for the preferred implementation's Seal beside the standard library's, and
// what differs behind it.
func cryptoRow(c *crypto.Case, direction string) string {
	name := fmt.Sprintf("aesgcm%d/go/%d%s", c.Bits, c.Size, direction)
	if c.Name != crypto.Names()[0] {
		name += "/" + c.Name
	}
	return name
}

// command repeats one measurement.
func (o *cryptoOptions) command(c *crypto.Case) string {
	names := c.Name
	if c.Name != crypto.Standard {
		names += "," + crypto.Standard
	}
	return fmt.Sprintf("sallyport-bench crypto --implementations %s --bits %d --sizes %d --seconds %v --runs %d", names, c.Bits, c.Size, o.seconds, o.runs)
}
