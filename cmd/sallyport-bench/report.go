package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"sallyport/bench/result"
	"sallyport/cmd/internal/version"
)

// reportRows prints rows beside their peers and writes them to a file, if one is named.
func reportRows(rows []result.Row, json string, stdout io.Writer) error {
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "benchmark\tvalue\tunit\tspread\tpeer\tits value\tratio")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%.3f\t%s\t%.0f %%", r.Name, r.Value, r.Unit, 100*r.Spread())
		if r.Peer != "" {
			fmt.Fprintf(w, "\t%s\t%.3f\t%.2f", r.Peer, r.PeerValue, r.Ratio)
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	if json == "" {
		return nil
	}
	file := result.NewFile(version.String())
	file.Rows = append(file.Rows, rows...)
	if err := file.Write(json); err != nil {
		return fmt.Errorf("write the rows: %w", err)
	}
	fmt.Fprintln(stdout, "rows:", json)
	return nil
}
