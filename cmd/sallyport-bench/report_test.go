package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/bench/crypto"
	"sallyport/bench/pipeline"
	"sallyport/bench/result"
)

// noisy is a file of a run during which the machine's speed changed.
func noisy() *result.File {
	f := newFile()
	n := &result.Noise{}
	for i := range 20 {
		us := result.Slices{Fastest: 100, Median: 100 + 100*float64(i%2), P90: 210}
		n.Looks = append(n.Looks, result.Look{Spin: us, Memory: us})
	}
	f.Overheard(n)
	return f
}

// TestVerbsSayWhatIsTooNoisy: on a machine that is not to be trusted that is said first, and figures that do not agree are not printed,
// by any of the tables, unless they are asked for. The file has them all.
func TestVerbsSayWhatIsTooNoisy(t *testing.T) {
	agree, differ := []float64{731, 732, 733}, []float64{641, 741, 841}
	tables := map[string]func(o output, samples []float64, out *bytes.Buffer) error{
		"rows": func(o output, samples []float64, out *bytes.Buffer) error {
			return o.report(noisy(), []result.Row{result.NewRow("wire/pdr", "Mpps", "", samples).Against("peer", samples)}, "%.0f", out)
		},
		"pipeline": func(o output, samples []float64, out *bytes.Buffer) error {
			m := &measurement{size: "64", name: "gateway/encrypt/64", options: pipeline.Options{Sizes: []int{64}}}
			for _, ns := range samples {
				m.samples = append(m.samples, pipeline.Sample{Packets: 1, Elapsed: 1, Typical: ns})
				m.library = append(m.library, pipeline.Sample{Packets: 1, Elapsed: 1, Typical: ns})
			}
			return (&pipelineOptions{output: o}).table(noisy(), []*measurement{m}, out)
		},
		"crypto": func(o output, samples []float64, out *bytes.Buffer) error {
			c := &crypto.Case{Name: crypto.Names()[0], Bits: 128, Size: 64, Seal: samples, Open: samples, SealCycles: samples, OpenCycles: samples}
			return (&cryptoOptions{output: o}).table(noisy(), []*crypto.Case{c}, out)
		},
	}
	for name, table := range tables {
		for _, c := range []struct {
			samples  []float64
			anyway   bool
			has, not string
		}{
			{agree, false, "~732", "too noisy ("},
			{differ, false, "too noisy (27 %)", "741"},
			{differ, true, "741", "too noisy ("},
		} {
			var out bytes.Buffer
			o := output{json: filepath.Join(t.TempDir(), "rows.json"), anyway: c.anyway}
			if err := table(o, c.samples, &out); err != nil {
				t.Fatal(err)
			}
			text := out.String()
			if !strings.HasPrefix(text, "This machine was too noisy to trust these figures: ") {
				t.Errorf("%s does not say so first: %q", name, text)
			}
			if !strings.Contains(text, c.has) || strings.Contains(text, c.not) {
				t.Errorf("%s of %v, anyway %v:\n%s", name, c.samples, c.anyway, text)
			}
			f, err := result.Read(o.json)
			if err != nil || len(f.Rows) == 0 || f.Noise.Noisy() == "" || len(f.Rows[0].Samples) != 3 {
				t.Errorf("%s: the file lacks samples: %v", name, err)
			}
		}
	}
}
