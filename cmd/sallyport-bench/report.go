package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"sallyport/bench/result"
	"sallyport/cmd/internal/version"
)

// reportRows prints rows beside their peers, each value as the verb says, and writes them to a file, if one is named.
func reportRows(rows []result.Row, verb, json string, stdout io.Writer) error {
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "benchmark\tvalue\tunit\tspread\tpeer\tits value\tratio")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t"+verb+"\t%s\t%.0f %%", r.Name, r.Value, r.Unit, 100*r.Spread())
		if r.Peer != "" {
			fmt.Fprintf(w, "\t%s\t"+verb+"\t%.2f", r.Peer, r.PeerValue, r.Ratio)
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	file := result.NewFile(version.String())
	file.Rows = append(file.Rows, rows...)
	return writeRows(file, json, stdout)
}

// writeRows writes a file of rows, if one is named, and says so.
func writeRows(file *result.File, json string, stdout io.Writer) error {
	if json == "" {
		return nil
	}
	if err := file.Write(json); err != nil {
		return fmt.Errorf("write the rows: %w", err)
	}
	fmt.Fprintln(stdout, "rows:", json)
	return nil
}
