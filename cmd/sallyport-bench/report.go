package main

import (
	"fmt"
	"io"

	"sallyport/bench/result"
	"sallyport/cmd/internal/version"
)

// reportRows prints rows beside their peers, each value as the verb says, and writes them to a file, if one is named.
func reportRows(rows []result.Row, verb, json string, stdout io.Writer) error {
	printRows(rows, verb, stdout)
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
