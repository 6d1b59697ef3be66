package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sallyport/bench/compare"
	"sallyport/bench/report"
	"sallyport/bench/result"
)

func reportCommand(stdout io.Writer) *cobra.Command {
	var out, json string
	c := &cobra.Command{
		Use:   "report FILE...",
		Short: "Make one page of the rows that other verbs wrote",
		Long:  "Report reads files of rows, of one machine and one build, and writes a page that needs no network.",
		RunE: func(_ *cobra.Command, files []string) error {
			if len(files) == 0 {
				return fmt.Errorf("%wno files of rows named", errUsage)
			}
			all, err := merged(files)
			if err != nil {
				return err
			}
			if json != "" {
				if err := (&output{json: json}).write(all, stdout); err != nil {
					return err
				}
			}
			return writePage(all, out, stdout)
		},
	}
	c.Flags().StringVar(&out, "out", "build/bench/report.html", "file to write the page to")
	c.Flags().StringVar(&json, "json", "", "file to write the rows of all files to")
	return c
}

// merged reads files and puts their rows into the first.
func merged(files []string) (*result.File, error) {
	var all *result.File
	for _, name := range files {
		f, err := result.Read(name)
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = f
			continue
		}
		if f.Host.CPU != all.Host.CPU || f.Build.Version != all.Build.Version {
			return nil, fmt.Errorf("%s is of %s, build %s, and %s of %s, build %s: one page is of one machine and one build",
				files[0], all.Host.CPU, all.Build.Version, name, f.Host.CPU, f.Build.Version)
		}
		all.Rows, all.Holes = append(all.Rows, f.Rows...), append(all.Holes, f.Holes...)
		all.Seconds += f.Seconds
	}
	return all, nil
}

func writePage(f *result.File, path string, stdout io.Writer) error {
	text, err := report.HTML(f)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	fmt.Fprintln(stdout, "page:", path)
	return nil
}

func compareCommand(stdout io.Writer) *cobra.Command {
	var strict, all bool
	var least float64
	c := &cobra.Command{
		Use:   "compare OLD NEW",
		Short: "Say what changed between two files of rows beyond the noise",
		Long: "Compare takes the rows that both files have and bounds the ratio of their medians, new by old, with 95 % confidence\n" +
			"(bootstrap over the samples). A change counts if that interval leaves out 1, the change is at least --least, and it is more than\n" +
			"the controls changed: what both files have of peers, of the standard library, of senders that are not ours, and of the\n" +
			"looks at the machine, in memory and on the wire apart, but for the tenth at either end. A row with fewer than three samples\n" +
			"says nothing. For a decision about a few per cent, measure both builds in turn.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("%wtwo files: sallyport-bench compare OLD NEW", errUsage)
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			old, err := result.Read(args[0])
			if err != nil {
				return err
			}
			fresh, err := result.Read(args[1])
			if err != nil {
				return err
			}
			return printChanges(old, fresh, least, strict, all, stdout)
		},
	}
	c.Flags().BoolVar(&strict, "strict", false, "fail (exit 1) if anything got worse")
	c.Flags().Float64Var(&least, "least", compare.LeastChange, "the change below which a row is the same, as a share")
	c.Flags().BoolVar(&all, "all", false, "show rows that did not change, too")
	return c
}

func printChanges(old, fresh *result.File, least float64, strict, all bool, stdout io.Writer) error {
	if old.Host.CPU != fresh.Host.CPU {
		fmt.Fprintf(stdout, "different machines: %s, then %s\n", old.Host.CPU, fresh.Host.CPU)
	}
	for _, f := range []*result.File{old, fresh} {
		if why := f.Noise.Noisy(); why != "" {
			fmt.Fprintf(stdout, "the run of %s was on a machine too noisy to trust: %s\n", f.Build.Version, why)
		}
	}
	for _, b := range compare.Bands(old, fresh) {
		if b.Controls > 0 {
			fmt.Fprintf(stdout, "%d controls %s changed their speed by %.3f to %.3f\n", b.Controls, b.Kind, b.Low, b.High)
		}
	}
	changes := compare.Rows(old, fresh, least)
	counts := map[compare.Verdict]int{}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "verdict\tbenchmark\tunit\told\tnew\tratio\t95 %")
	for _, c := range changes {
		counts[c.Verdict]++
		if !all && (c.Verdict == compare.Same || c.Verdict == compare.Drifted || c.Verdict == compare.Few) {
			continue
		}
		before, after := "–", "–"
		if c.Verdict != compare.New {
			before = old.Text(c.Old, "%.4g")
		}
		if c.Verdict != compare.Gone {
			after = fresh.Text(c.New, "%.4g")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s", c.Verdict, c.Name, c.Unit, before, after)
		if c.Ratio > 0 && !math.IsNaN(c.Low) {
			fmt.Fprintf(w, "\t%.3f\t%.3f to %.3f", c.Ratio, c.Low, c.High)
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	for _, v := range []compare.Verdict{compare.Better, compare.Worse, compare.Same, compare.Drifted, compare.Unstable, compare.Few, compare.New, compare.Gone} {
		if counts[v] > 0 {
			fmt.Fprintf(stdout, "%d %s  ", counts[v], v)
		}
	}
	fmt.Fprintln(stdout)
	if strict && slices.ContainsFunc(changes, func(c compare.Change) bool { return c.Verdict == compare.Worse }) {
		return fmt.Errorf("%d figures got worse", counts[compare.Worse])
	}
	return nil
}
