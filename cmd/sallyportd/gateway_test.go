package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"sallyport/cmd/internal/config"
	"sallyport/cmd/internal/control"
	"sallyport/dataplane/spd"
)

// recorder is an engine and a fencer that write down what they are told.
type recorder struct {
	calls []string
	live  map[string]uint32
	bound map[uint32]uint32 // outbound handle by tunnel
	next  uint32
	fail  string // the call that fails
	// Those configured, behind a negotiated one if there is one.
	policies, negotiated []spd.Policy
}

func (r *recorder) call(format string, args ...any) error {
	s := fmt.Sprintf(format, args...)
	r.calls = append(r.calls, s)
	if r.fail != "" && strings.HasPrefix(s, r.fail) {
		return errors.New("refused by the test")
	}
	return nil
}

func (r *recorder) Start() error { return r.call("start") }
func (r *recorder) Stop() error  { return r.call("stop") }
func (r *recorder) Apply(c *config.Config, tunnels map[string]uint32) error {
	r.policies = nil
	for _, p := range c.Policies {
		r.policies = append(r.policies, spd.Policy{Name: p.Name, Action: p.Action, Selectors: p.Selectors, Tunnel: tunnels[p.Tunnel]})
	}
	return r.call("apply %d policies %v", len(c.Policies), tunnels)
}
func (r *recorder) Install(a *config.Association) (uint32, error) {
	if err := r.call("install %s", a.ID()); err != nil {
		return 0, err
	}
	r.next++
	h := r.next
	if a.Inbound {
		h = a.SPI
	}
	r.live[fmt.Sprint(a.Inbound, h)] = h
	return h, nil
}
func (r *recorder) Remove(inbound bool, h uint32) error {
	delete(r.live, fmt.Sprint(inbound, h))
	return r.call("remove %v %d", inbound, h)
}
func (r *recorder) Bind(tunnel, h uint32) error {
	r.bound[tunnel] = h
	return r.call("bind %d %d", tunnel, h)
}
func (r *recorder) Recorder(match func(string, uint32) bool) (list []control.Flight) {
	for _, f := range []control.Flight{{Name: "b/net", SPI: "0x00001001"}, {Name: "b/other", SPI: "0x00001002"}} {
		var spi uint32
		fmt.Sscanf(f.SPI, "0x%x", &spi)
		if match(f.Name, spi) {
			list = append(list, f)
		}
	}
	return list
}
func (r *recorder) Policies() []spd.Policy   { return slices.Concat(r.negotiated, r.policies) }
func (r *recorder) Ready(tunnel uint32) bool { return r.bound[tunnel] != 0 }
func (r *recorder) Trace(context.Context, control.Watch, func(*control.Traced) error) error {
	return nil
}
func (r *recorder) Capture(context.Context, control.Watch, func() error, io.Writer) error {
	return nil
}
func (r *recorder) Snapshot() snapshot                { return snapshot{} }
func (r *recorder) SAs() []control.SA                 { return nil }
func (r *recorder) Associations() int                 { return len(r.live) }
func (r *recorder) Reserve(*config.Config) error      { return nil }
func (r *recorder) Fence(fences []config.Fence) error { return r.call("fence %v", fences) }

const base = `interfaces:
  eth1: {role: protected}
  eth2: {role: outside}
connections:
  b:
    local_addrs: 192.0.2.1
    remote_addrs: 192.0.2.2
    children:
      net: {local_ts: 198.51.100.0/25, remote_ts: 198.51.100.128/25}
insecure_manual_keys: true
manual:
  b/net:
    spi_in: 4097
    spi_out: 4098
    key_in: "000000000000000000000000000000000000000000000000000000000000000000000001"
    key_out: "000000000000000000000000000000000000000000000000000000000000000000000002"
`

func started(t *testing.T) (*gateway, *recorder, func(string)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(base)
	r := &recorder{live: map[string]uint32{}, bound: map[uint32]uint32{}}
	load := func() (*config.Config, error) { return config.Load(path) }
	c, err := load()
	if err != nil {
		t.Fatal(err)
	}
	g := newGateway(zerolog.Nop(), r, silent{}, r, load)
	if err := g.start(c); err != nil {
		t.Fatal(err)
	}
	return g, r, write
}

func TestStartFencesBeforeAnythingElse(t *testing.T) {
	_, r, _ := started(t)
	want := "fence [198.51.100.128/25]|install b/net in 0x00001001|install b/net out 0x00001002|apply 1 policies map[b/net:1]|bind 1 2|start"
	if got := strings.Join(r.calls, "|"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestReloadTouchesOnlyWhatChanged(t *testing.T) {
	g, r, write := started(t)
	r.calls = nil
	if res, err := g.Reload(); err != nil || len(r.calls) != 0 || res.Unchanged != 2 {
		t.Errorf("same file: %v %+v %v", r.calls, res, err)
	}
	write(strings.Replace(base, "00000002\"", "00000003\"", 1))
	if res, err := g.Reload(); err != nil || res.Installed != 1 || res.Unchanged != 1 {
		t.Errorf("%+v %v", res, err)
	}
	if got := strings.Join(r.calls, "|"); got != "install b/net out 0x00001002|bind 1 3|remove false 2" {
		t.Error(got)
	}
	r.calls = nil
	write(strings.ReplaceAll(strings.Replace(base, "00000002\"", "00000003\"", 1), "198.51.100.128/25", "203.0.113.0/24"))
	if _, err := g.Reload(); err == nil || !strings.Contains(err.Error(), "fresh key") || len(r.calls) != 0 {
		t.Errorf("selectors under an old key: %v %v", r.calls, err)
	}
	write("interface: {}\n")
	if _, err := g.Reload(); err == nil || !strings.Contains(err.Error(), "nothing was changed") || len(r.calls) != 0 {
		t.Errorf("wrong file: %v %v", r.calls, err)
	}
}

func TestReloadSetsTheLogLevel(t *testing.T) {
	defer zerolog.SetGlobalLevel(zerolog.GlobalLevel())
	g, _, write := started(t)
	write(base + "log: {level: warn}\n")
	if r, err := g.Reload(); err != nil || !r.LogLevelChanged || zerolog.GlobalLevel() != zerolog.WarnLevel {
		t.Errorf("%+v %v, the level is %s", r, err, zerolog.GlobalLevel())
	}
}

// The flight recorder is asked for by connection, by child or by SPI.
func TestRecorderIsFoundByNameAndSPI(t *testing.T) {
	g, _, _ := started(t)
	for name, want := range map[string]int{"b": 2, "b/net": 1, "0x00001002": 1, "0x1001": 1, "c": 0, "0x1003": 0, "0xyz": 0} {
		f, err := g.Recorder(control.FlightQuery{Name: name})
		if len(f.Flights) != want || (err == nil) != (want > 0) {
			t.Errorf("%s: %d flights, %v", name, len(f.Flights), err)
		}
	}
}

// A policy is ready by what the engine has bound, not by what the file says.
func TestPolicyIsReadyOnceItsTunnelIsBound(t *testing.T) {
	g, r, _ := started(t)
	if p := g.Policies().Policies; len(p) != 1 || !p[0].Ready {
		t.Errorf("after the start: %+v", p)
	}
	clear(r.bound)
	r.negotiated = []spd.Policy{{Name: "road/net", Action: spd.Protect, Tunnel: 1 << 20, Negotiated: true}}
	if p := g.Policies().Policies; len(p) != 2 || !p[0].Negotiated || p[0].Tunnel != "road/net" || p[1].Negotiated || p[1].Tunnel != "b/net" {
		t.Errorf("policies: %+v", p)
	}
	r.negotiated = nil
	if p := g.Policies().Policies; p[0].Ready {
		t.Errorf("with nothing bound: %+v", p)
	}
}

func TestFailedReloadTakesBackWhatItInstalled(t *testing.T) {
	g, r, write := started(t)
	before := fmt.Sprint(r.live, g.handles, g.tunnels)
	second := strings.Replace(base, "insecure_manual_keys", `  c:
    local_addrs: 192.0.2.1
    remote_addrs: 192.0.2.3
    children:
      net: {local_ts: 198.51.100.0/25, remote_ts: 203.0.113.0/24}
insecure_manual_keys`, 1) + `  c/net:
    spi_in: 4099
    spi_out: 4100
    key_in: "000000000000000000000000000000000000000000000000000000000000000000000003"
    key_out: "000000000000000000000000000000000000000000000000000000000000000000000004"
`
	write(second)
	for _, fail := range []string{"apply", "install c/net out", "fence [198.51.100.128/25 203"} {
		r.fail = fail
		if _, err := g.Reload(); err == nil {
			t.Errorf("%s: accepted", fail)
		}
		if got := fmt.Sprint(r.live, g.handles, g.tunnels); got != before {
			t.Errorf("%s: %s, was %s", fail, got, before)
		}
		if last := r.calls[len(r.calls)-1]; last != "fence [198.51.100.128/25]" {
			t.Errorf("%s: the last call is %s", fail, last)
		}
		second = strings.NewReplacer("00000003\"", "00000013\"", "00000004\"", "00000014\"", "00000013\"", "00000023\"", "00000014\"", "00000024\"").Replace(second)
		write(second)
	}
}

func TestDaemonRunsReloadsAndStops(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	os.WriteFile(path, []byte(base+"control: {socket: "+dir+"/s.sock}\n"), 0o600)
	r := &recorder{live: map[string]uint32{}, bound: map[uint32]uint32{}}
	p := platform{
		fences: func() (fencer, error) { return r, nil },
		engine: func(*config.Config, zerolog.Logger) (engine, exchanger, error) { return r, silent{}, nil },
	}
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"--config", path, "--check"}, &out, &errs, nil, p); code != 0 || len(r.calls) != 0 {
		t.Errorf("--check: %d %v %s", code, r.calls, errs.String())
	}
	if code := run(t.Context(), []string{"--config", path, "--fence-only"}, &out, &errs, nil, p); code != 0 || len(r.calls) != 1 {
		t.Errorf("--fence-only: %d %v", code, r.calls)
	}
	if code := run(t.Context(), []string{"--config", path + "x"}, &out, &errs, nil, p); code != exitConfig {
		t.Errorf("no file: %d", code)
	}
	errs.Reset()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	go func() { done <- run(ctx, []string{"--config", path}, &out, &errs, nil, p) }()
	client := control.NewClient(filepath.Join(dir, "s.sock"))
	var s control.Status
	for {
		if _, err := client.Do(t.Context(), control.VerbStatus, nil, &s); err == nil {
			break
		}
	}
	if s.ManualKeys != 2 || s.Associations != 2 {
		t.Errorf("%+v", s)
	}
	if _, err := client.Do(t.Context(), control.VerbReload, nil, nil); err != nil {
		t.Error(err)
	}
	cancel()
	if code := <-done; code != 0 || r.calls[len(r.calls)-1] != "stop" {
		t.Errorf("exit %d, %v", code, r.calls)
	}
	if !strings.Contains(errs.String(), "MANUAL KEYS") || strings.Contains(errs.String(), "0000000000") {
		t.Errorf("log: %s", errs.String())
	}
}

func loaded(t *testing.T, text string) *config.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
