package main

import (
	"fmt"
	"io"
	"os"
	"strings"
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

// reportRows prints rows beside their peers, each value as the verb says, and writes them to a file, if one is named.
func reportRows(file *result.File, rows []result.Row, verb, json string, stdout io.Writer) error {
	printRows(rows, verb, stdout)
	file.Add(rows...)
	return writeRows(file, json, stdout)
}

// writeRows writes a file of rows, if one is named, and says so.
func writeRows(file *result.File, json string, stdout io.Writer) error {
	if file.Noise == nil {
		file.Finish()
	}
	if why := file.Noise.Noisy(); why != "" {
		fmt.Fprintln(stdout, "This machine was too noisy to trust these figures:", why)
	}
	if json == "" {
		return nil
	}
	if err := file.Write(json); err != nil {
		return fmt.Errorf("write the rows: %w", err)
	}
	fmt.Fprintln(stdout, "rows:", json)
	return nil
}
