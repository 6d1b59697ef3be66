// Package result is the one form in which every benchmark of this project writes
// what it measured, and in which reports and comparisons read it.
package result

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Schema is the version of [File]. It grows when a field changes its meaning or goes away; new
// fields leave it as it is.
const Schema = 1

// File is one run of one command, or of several one after another.
type File struct {
	Schema int       `json:"schema"`
	Time   time.Time `json:"time"`
	// Command is the whole command line.
	Command string `json:"command,omitempty"`
	// Seconds is how long the run took, 0 where nobody measured that.
	Seconds float64 `json:"seconds,omitempty"`
	// Matrix names what was chosen of all that can be measured, and Parts are the commands it consists of.
	Matrix string `json:"matrix,omitempty"`
	Parts  []Part `json:"parts,omitempty"`
	Host   Host   `json:"host"`
	Build  Build  `json:"build"`
	// Interfaces are those that packets were measured on.
	Interfaces []Interface `json:"interfaces,omitempty"`
	// Noise is what the machine did beside, nil where nobody looked.
	Noise *Noise `json:"noise,omitempty"`
	Rows  []Row  `json:"rows"`
	// Holes are the measurements that could not be made.
	Holes []Hole `json:"holes,omitempty"`

	// Anyway has [File.Doubt] withhold nothing.
	Anyway bool `json:"-"`

	began time.Time
	meter *NoiseMeter
}

// Part is a command of a run that consists of several.
type Part struct {
	Name    string  `json:"name"`
	Command string  `json:"command"`
	Seconds float64 `json:"seconds"` // that it took
}

// Interface is one that packets were measured on.
type Interface struct {
	Name   string `json:"name"`
	Place  string `json:"place,omitempty"` // sender, gateway, sink
	Driver string `json:"driver"`
	Queues int    `json:"queues,omitempty"`
	Mode   string `json:"xdp_mode"`             // of its AF_XDP socket: zero-copy, copy or generic; native: a program without a socket
	Reason string `json:"xdp_reason,omitempty"` // why not a better one
}

// Hole is a measurement that could not be made.
type Hole struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Build is what was measured.
type Build struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Dirty   bool   `json:"dirty"`
	Go      string `json:"go"`
}

// Row is one figure.
type Row struct {
	// Name is a path from the general to the special: gateway/encrypt/64.
	Name string `json:"name"`
	// Unit of Value, PeerValue and Samples: Mpps, ns, Gbit/s, allocs, × for a multiple.
	Unit string `json:"unit"`
	// Value is the median of Samples.
	Value float64 `json:"value"`
	// Peer names what it is compared with, "" if nothing.
	Peer string `json:"peer,omitempty"`
	// PeerValue is the peer's median in the same run.
	PeerValue float64 `json:"peer_value,omitempty"`
	// Ratio is Value ÷ PeerValue, 0 without a peer.
	Ratio float64 `json:"ratio,omitempty"`
	// Samples are the single measurements, in the order in which they were taken, and PeerSamples the peer's between them.
	Samples     []float64 `json:"samples"`
	PeerSamples []float64 `json:"peer_samples,omitempty"`
	// Disturbed is during how many of the samples other processes had the CPUs, where that is known.
	Disturbed int `json:"disturbed,omitempty"`
	// Parameters say in fields what Name says in words.
	Parameters Parameters `json:"parameters,omitzero"`
	// Bounds are those of a search, if Value was searched for.
	Bounds *Bounds `json:"bounds,omitempty"`
	// Loss is what was lost at each load, by rising load.
	Loss []LossPoint `json:"loss,omitempty"`
	// Drops are what the gateway dropped in its last search, by its own reasons, and what the rings before it could not take.
	Drops []Drop `json:"drops,omitempty"`
	// Latency has the percentiles at each load, by rising load.
	Latency []Latency `json:"latency,omitempty"`
	// Command repeats the measurement.
	Command string `json:"command"`
}

// Parameters are what a row was measured with; what is empty or 0 does not apply.
type Parameters struct {
	Measure   string  `json:"measure,omitempty"`   // pdr, ndr, ceiling, latency, loss, longest; "" for a plain rate or cost
	By        string  `json:"by,omitempty"`        // who carried the packets, "" for this gateway; the generator of a ceiling
	Direction string  `json:"direction,omitempty"` // encrypt, decrypt, both
	Size      string  `json:"size,omitempty"`      // of the inner packet in bytes, or the name of a mix
	Bytes     float64 `json:"bytes,omitempty"`     // the mean of Size
	Tunnels   int     `json:"tunnels,omitempty"`
	Workers   int     `json:"workers,omitempty"`
	Suite     string  `json:"suite,omitempty"` // proposal word
	Kind      string  `json:"kind,omitempty"`  // of the tunnels, "" for IPv4 in IPv4 by policy
}

// Bounds are the ends of a search: the highest load that met the goal and the lowest that did not, in the row's unit.
type Bounds struct {
	Lower  float64 `json:"lower"`
	Upper  float64 `json:"upper"`
	Trials int     `json:"trials"`
	Goal   string  `json:"goal"` // in words: the share that may be lost, and for how long
	// Disturbed trials, during which other work had the CPUs, were taken again, up to a limit.
	Disturbed int    `json:"disturbed,omitempty"`
	Packets   uint64 `json:"packets,omitempty"` // sent in all trials
}

// Drop is a reason for which packets were dropped.
type Drop struct {
	Name    string `json:"name"`
	Packets uint64 `json:"packets"`
}

// LossPoint is one load of a loss curve.
type LossPoint struct {
	Offered float64 `json:"offered"` // in the row's unit
	Loss    float64 `json:"loss"`    // share of what was offered, 0 to 1
	Trials  int     `json:"trials"`
	Seconds float64 `json:"seconds"` // of all trials
}

// Latency are percentiles at one load.
type Latency struct {
	Load        string       `json:"load"`    // 90 % of PDR
	Offered     float64      `json:"offered"` // Mpps
	Count       int64        `json:"count"`   // of packets timed
	Percentiles []Percentile `json:"percentiles"`
}

// Percentile is one point of a distribution: 100 is the largest value seen.
type Percentile struct {
	Percent      float64 `json:"percent"`
	Microseconds float64 `json:"us"`
	// Low and High are the least and the largest of the samples that Microseconds is the median of, 0 where there are none.
	Low  float64 `json:"low_us,omitempty"`
	High float64 `json:"high_us,omitempty"`
}

// With returns the row with its parameters.
func (r Row) With(p Parameters) Row {
	r.Parameters = p
	return r
}

// plainRow is a Row without its methods.
type plainRow Row

// MarshalJSON writes, for readers that are not this package, also what follows from the samples.
func (r Row) MarshalJSON() ([]byte, error) {
	better := "lower"
	if r.HigherIsBetter() {
		better = "higher"
	}
	return json.Marshal(struct {
		plainRow
		Better   string  `json:"better"`
		Spread   float64 `json:"spread"`
		Unstable bool    `json:"unstable,omitempty"`
	}{plainRow(r), better, r.Spread(), r.Unstable()})
}

// NewRow returns a row of the samples' median.
func NewRow(name, unit, command string, samples []float64) Row {
	return Row{Name: name, Unit: unit, Command: command, Samples: samples, Value: Median(samples)}
}

// Against completes the row with a peer's samples of the same run.
func (r Row) Against(peer string, samples []float64) Row {
	r.Peer, r.PeerValue, r.PeerSamples = peer, Median(samples), samples
	if r.PeerValue != 0 {
		r.Ratio = r.Value / r.PeerValue
	}
	return r
}

// Spread is the difference between the largest and the smallest sample as a share of the median; of five samples and more a
// fifth at either end is left out.
func (r Row) Spread() float64 {
	if len(r.Samples) == 0 || r.Value == 0 {
		return 0
	}
	low, high := r.Ends()
	return (high - low) / r.Value
}

// Ends are the smallest and the largest of the samples that Spread looks at, 0 without samples.
func (r Row) Ends() (low, high float64) {
	s := slices.Sorted(slices.Values(r.Samples))
	s = s[len(s)/5 : len(s)-len(s)/5]
	if len(s) == 0 {
		return 0, 0
	}
	return s[0], s[len(s)-1]
}

// PeerRow is the peer's side of the row as a row of its own, without samples where there is no peer.
func (r Row) PeerRow() Row {
	return Row{Name: r.Name, Unit: r.Unit, Value: r.PeerValue, Samples: r.PeerSamples, Disturbed: r.Disturbed, Parameters: r.Parameters}
}

// RatioRow is the ratio as a row of its own, whose samples are the ratios of measurements that were taken next to each other.
func (r Row) RatioRow() Row {
	ratio := Row{Name: r.Name, Value: r.Ratio, Disturbed: r.Disturbed}
	for i := range min(len(r.Samples), len(r.PeerSamples)) {
		if r.PeerSamples[i] != 0 {
			ratio.Samples = append(ratio.Samples, r.Samples[i]/r.PeerSamples[i])
		}
	}
	return ratio
}

// SpreadMax is the spread from which a row is unstable.
const SpreadMax = 0.15

// Unstable says that the row's samples differ so much that its value should not be relied on.
func (r Row) Unstable() bool { return r.Spread() > SpreadMax }

// HigherIsBetter says which way a row of this unit gets better: rates up, times and sizes down.
func (r Row) HigherIsBetter() bool {
	switch r.Unit {
	case "Mpps", "1/cpu-s", "%", "×":
		return true
	}
	return strings.HasSuffix(r.Unit, "/s")
}

// Median returns the median, 0 for no samples.
func Median(samples []float64) float64 {
	if len(samples) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(samples))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// NewFile describes this machine and this build, and begins to watch the machine's noise: to be called before the first
// measurement.
func NewFile(version string) *File {
	return &File{
		Schema: Schema, Time: time.Now().UTC().Truncate(time.Second), Host: host(), Build: build(version), Rows: []Row{},
		began: time.Now(), meter: ListenForNoise(),
	}
}

// Calibrate takes another look at the machine's noise, between two measurements, if the last one is some seconds ago.
func (f *File) Calibrate() { f.meter.Glance() }

// Overheard adds the looks that a part of the run took.
func (f *File) Overheard(n *Noise) {
	if n != nil {
		f.meter.looks = append(f.meter.looks, n.Looks...)
	}
}

// Finish takes the last look at the machine's noise and notes how long the run took.
func (f *File) Finish() {
	f.Noise = f.meter.Stop()
	f.Seconds = math.Round(time.Since(f.began).Seconds()*10) / 10
}

// Attach notes an interface, once.
func (f *File) Attach(i Interface) {
	if !slices.Contains(f.Interfaces, i) {
		f.Interfaces = append(f.Interfaces, i)
	}
}

// Add adds rows.
func (f *File) Add(rows ...Row) { f.Rows = append(f.Rows, rows...) }

// AddNew adds those rows that the file does not have yet: where parts of a run overlap, the first one's stand.
func (f *File) AddNew(rows ...Row) {
	for _, r := range rows {
		if !slices.ContainsFunc(f.Rows, func(o Row) bool { return o.Name == r.Name && o.Unit == r.Unit && o.Peer == r.Peer }) {
			f.Add(r)
		}
	}
}

// Miss notes that something could not be measured.
func (f *File) Miss(name, reason string) { f.Holes = append(f.Holes, Hole{name, reason}) }

// SpreadTrust is the spread above which a row's figure says nothing.
const SpreadTrust = 0.50

// SamplesMin is how many samples it takes to see a spread.
const SamplesMin = 3

// Longest is the Measure of rows that tell the worst that was seen, whose samples need not agree.
const Longest = "longest"

// timed says that a row is of something that a noisy machine changes: what is counted stays what it is.
func (r *Row) timed() bool {
	switch r.Unit {
	case "", "Mpps", "1/cpu-s", "ns", "us", "µs", "ms", "s", "cycles", "×":
		return r.Parameters.Measure != Longest
	}
	return strings.HasSuffix(r.Unit, "/s")
}

// Doubt says why a row's figure is not to be relied on, "" if it may be, and whether it is not to be shown at all. It is the one rule
// for every table, page and sentence: what spreads by more than SpreadMax is unstable; it is withheld if it spreads by more than
// SpreadTrust or the machine was noisy, all the time or during most of its samples, and so are too few samples to see a spread then.
func (f *File) Doubt(r *Row) (why string, withheld bool) {
	apart := fmt.Sprintf("its samples lie %.0f %% apart", 100*r.Spread())
	noise := ""
	switch {
	case f.Noise.Noisy() != "":
		noise = "on a noisy machine"
	case 2*r.Disturbed > len(r.Samples):
		noise = fmt.Sprintf("other processes ran during %d of its samples", r.Disturbed)
	}
	switch {
	case !r.timed():
		if r.Unstable() {
			return apart, false
		}
		return "", false
	case r.Spread() > SpreadTrust:
		return apart, !f.Anyway
	case noise != "" && r.Unstable():
		return apart + ", " + noise, !f.Anyway
	case noise != "" && len(r.Samples) < SamplesMin:
		return fmt.Sprintf("samples: %d, %s", len(r.Samples), noise), !f.Anyway
	case r.Unstable():
		return apart, false
	}
	return noise, false
}

// Text is a row's figure for a table, in a format, or what is said in its place.
func (f *File) Text(r Row, format string) string {
	switch why, withheld := f.Doubt(&r); {
	case withheld && r.Unstable():
		return fmt.Sprintf("too noisy (%.0f %%)", 100*r.Spread())
	case withheld:
		return "too noisy"
	case r.Unstable():
		return fmt.Sprintf(format+" unstable (%.0f %%)", r.Value, 100*r.Spread())
	case why != "":
		return fmt.Sprintf("~"+format, r.Value)
	}
	return fmt.Sprintf(format, r.Value)
}

// Write puts the file at path as indented JSON, whole or not at all.
func (f *File) Write(path string) error {
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	part := path + ".part"
	if err := os.WriteFile(part, append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(part, path)
}

// Read reads a file that Write wrote and refuses other schemas.
func Read(path string) (*File, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f := new(File)
	if err := json.Unmarshal(text, f); err != nil {
		return nil, fmt.Errorf("reading results %s: %w", path, err)
	}
	if f.Schema != Schema {
		return nil, fmt.Errorf("reading results %s: schema %d, this build reads %d", path, f.Schema, Schema)
	}
	return f, nil
}

// build describes the build; its commit, which the Go tool does not record in the Makefile's builds, is the caller's.
func build(version string) Build {
	return Build{Version: version, Go: runtime.Version(), Dirty: strings.HasSuffix(version, "-dirty") || strings.HasSuffix(version, "+changes")}
}
