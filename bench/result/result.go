// Package result is the one form in which every benchmark of this project writes
// what it measured, and in which reports and comparisons read it.
package result

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Schema is the version of [File]. It grows when a field changes its meaning or goes away; new
// fields leave it as it is.
const Schema = 1

// File is one run of one command, or of several one after another.
type File struct {
	Schema int       `json:"schema"`
	Time   time.Time `json:"time"`
	// Seconds is how long the run took, 0 where nobody measured that.
	Seconds float64 `json:"seconds,omitempty"`
	Host    Host    `json:"host"`
	Build   Build   `json:"build"`
	// Noise is what the machine did beside, nil where nobody looked.
	Noise *Noise `json:"noise,omitempty"`
	Rows  []Row  `json:"rows"`
	// Holes are the measurements that could not be made.
	Holes []Hole `json:"holes,omitempty"`
}

// Hole is a measurement that could not be made.
type Hole struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Host is the machine that the figures belong to.
type Host struct {
	CPU      string   `json:"cpu"`
	MHz      float64  `json:"mhz"` // as /proc/cpuinfo has it: on most machines the clock of the cycle counter
	Cores    int      `json:"cores"`
	Flags    []string `json:"cpu_flags"` // those that matter to packet encryption
	Kernel   string   `json:"kernel"`
	MemoryKB uint64   `json:"memory_kib"`
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
	// Unit of Value, PeerValue and Samples: Mpps, ns, Gbit/s, allocs.
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
	// Command repeats the measurement.
	Command string `json:"command"`
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
// tenth at either end, at least one, is left out.
func (r Row) Spread() float64 {
	if len(r.Samples) == 0 || r.Value == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(r.Samples))
	if n := len(s); n >= 5 {
		out := max(1, n/10)
		s = s[out : n-out]
	}
	return (s[len(s)-1] - s[0]) / r.Value
}

// SpreadMax is the spread from which a row is unstable.
const SpreadMax = 0.15

// Unstable says that the row's samples differ so much that its value should not be relied on.
func (r Row) Unstable() bool { return r.Spread() > SpreadMax }

// HigherIsBetter says which way a row of this unit gets better: rates up, times and sizes down.
func (r Row) HigherIsBetter() bool {
	switch r.Unit {
	case "Mpps", "1/cpu-s", "%":
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

// NewFile describes this machine and this build.
func NewFile(version string) *File {
	return &File{Schema: Schema, Time: time.Now().UTC().Truncate(time.Second), Host: host(), Build: build(version), Rows: []Row{}}
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

// flagsOfInterest are the CPU flags that packet encryption looks for.
var flagsOfInterest = []string{"aes", "pclmulqdq", "avx", "avx2", "avx512f", "vaes", "vpclmulqdq", "sha_ni"}

// GHz is the machine's clock in cycles a nanosecond.
func (h *Host) GHz() float64 { return h.MHz / 1e3 }

func host() Host {
	h := Host{Cores: runtime.NumCPU(), Flags: []string{}}
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan() && (h.CPU == "" || len(h.Flags) == 0); {
			key, value, _ := strings.Cut(s.Text(), ":")
			switch strings.TrimSpace(key) {
			case "model name":
				h.CPU = strings.TrimSpace(value)
			case "cpu MHz":
				h.MHz, _ = strconv.ParseFloat(strings.TrimSpace(value), 64)
			case "flags":
				have := strings.Fields(value)
				for _, flag := range flagsOfInterest {
					if slices.Contains(have, flag) {
						h.Flags = append(h.Flags, flag)
					}
				}
			}
		}
	}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		h.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		h.MemoryKB = info.Totalram * uint64(info.Unit) / 1024
	}
	return h
}

func build(version string) Build {
	b := Build{Version: version, Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Commit = s.Value
			case "vcs.modified":
				b.Dirty = s.Value == "true"
			}
		}
	}
	return b
}
