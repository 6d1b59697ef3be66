package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"sallyport/bench/result"
	"sallyport/cmd/internal/version"
)

// newFile describes this run; to be called before the first measurement.
func newFile() *result.File {
	f := result.NewFile(version.String())
	f.Build.Commit = version.Commit()
	f.Command = commandLine()
	return f
}

// commandLine is this process's, with the program by its name alone.
func commandLine() string {
	return strings.Join(append([]string{"sallyport-bench"}, os.Args[1:]...), " ")
}

// withinFlag gives a verb its bound.
func withinFlag(f *pflag.FlagSet, within *time.Duration) {
	f.DurationVar(within, "within", 0, "time that it may take: fewer samples if it does not suffice, more of what is unstable if it does; 0 for no limit")
}

// output says where a verb's rows go and what of them is printed.
type output struct {
	json   string
	anyway bool
}

// flags gives a verb its flags of output.
func (o *output) flags(f *pflag.FlagSet, json string) {
	f.StringVar(&o.json, "json", json, "file to write the rows to")
	f.BoolVar(&o.anyway, "anyway", false, "print figures that are too noisy to trust, too")
}

// finish ends the measurement and says, before any figure, what the machine was like.
func (o *output) finish(file *result.File, stdout io.Writer) {
	file.Finish()
	file.Anyway = o.anyway
	if why := file.Noise.Noisy(); why != "" {
		fmt.Fprintf(stdout, "This machine was too noisy to trust these figures: %s.\nWhat follows ~ agreed all the same; what did not is not shown%s.\n", why,
			map[bool]string{false: " (--anyway does)", true: " without --anyway"}[o.anyway])
	}
}

// report prints rows beside their peers, in a format, and writes them to a file, if one is named.
func (o *output) report(file *result.File, rows []result.Row, format string, stdout io.Writer) error {
	o.finish(file, stdout)
	printRows(file, rows, format, stdout)
	file.Add(rows...)
	return o.write(file, stdout)
}

// write writes a file of rows, if one is named, and says so.
func (o *output) write(file *result.File, stdout io.Writer) error {
	if o.json == "" {
		return nil
	}
	if err := file.Write(o.json); err != nil {
		return fmt.Errorf("write the rows: %w", err)
	}
	fmt.Fprintln(stdout, "rows:", o.json)
	return nil
}

func printRows(file *result.File, rows []result.Row, format string, stdout io.Writer) {
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "benchmark\tvalue\tunit\tsamples\tspread\tpeer\tits value\tratio")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%.0f %%", r.Name, file.Text(r, format), r.Unit, len(r.Samples), 100*r.Spread())
		if r.Peer != "" {
			fmt.Fprintf(w, "\t%s\t%s\t%s", r.Peer, file.Text(r.PeerRow(), format), file.Text(r.RatioRow(), "%.2f"))
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	for _, h := range file.Holes {
		fmt.Fprintf(stdout, "not measured: %s: %s\n", h.Name, h.Reason)
	}
}
