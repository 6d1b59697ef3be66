package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// limitScenario bounds one scenario; it ends like any other failure.
const limitScenario = 60 * time.Second

// result is what becomes of one scenario.
type result struct {
	Scenario string     `json:"scenario"`
	About    string     `json:"about"`
	Result   string     `json:"result"` // pass or fail
	Why      string     `json:"why,omitempty"`
	Seconds  float64    `json:"seconds"`
	Checked  []string   `json:"checked"`
	Streams  []rig.Flow `json:"streams,omitempty"`
	Logs     string     `json:"logs,omitempty"` // folder, after a failure
}

// run is one scenario being gone through.
type run struct {
	scenario  *scenario
	reference bool // strongSwan plays the gateway's part
	network   *network
	ends      map[string]end
	result    *result

	authority *pki           // if there are certificates
	initiator string         // in this round
	offsets   map[string]int // where each log began with this round
	stream    *rig.Stream
	dropped   map[string]uint64 // by the gateway when the stream began
}

// options are what the command line says.
type options struct {
	bin       string // folder of sallyportd and sallyport
	logs      string // folder for the logs of what failed
	reference bool
	keep      bool // logs of what passed, too
}

// play goes through one scenario, on a network of its own that is gone afterwards.
func play(s *scenario, o options) *result {
	started := time.Now()
	r := &run{scenario: s, reference: o.reference, result: &result{Scenario: s.Name, About: s.Description, Result: "pass"}}
	err := r.play(o)
	r.result.Seconds = time.Since(started).Seconds()
	if err != nil {
		r.result.Result, r.result.Why = "fail", err.Error()
	}
	return r.result
}

func (r *run) play(o options) (err error) {
	bed, err := testbed.New("interop")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bed.Close()) }()
	folder, err := bed.Folder()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), limitScenario)
	defer cancel()
	mark := make([]byte, 12)
	rand.Read(mark)
	mark = []byte("plain:" + hex.EncodeToString(mark))
	if r.network, err = lay(bed, r.scenario.Expect.Topology, mark); err != nil {
		return err
	}
	if err := r.equip(bed, folder, o); err != nil {
		return err
	}
	err = r.steps(ctx)
	if r.stream != nil {
		r.stream.End()
	}
	if err == nil {
		err = r.leaks()
	}
	if err != nil || o.keep {
		err = errors.Join(err, r.keep(ctx, filepath.Join(o.logs, r.scenario.Name)))
	}
	if err != nil {
		return err
	}
	for _, name := range []string{sallyport, strongswan} {
		if err := r.ends[name].Stop(); err != nil {
			return errors.Join(fmt.Errorf("%s did not end as it should: %w", name, err), r.keep(ctx, filepath.Join(o.logs, r.scenario.Name)))
		}
	}
	return nil
}

// equip writes the configurations, with a fresh secret and fresh certificates.
func (r *run) equip(bed *testbed.Bed, folder string, o options) error {
	secret := make([]byte, 24)
	rand.Read(secret)
	put := func(text string) string { return strings.ReplaceAll(text, "${PSK}", hex.EncodeToString(secret)) }
	ours, theirs := map[string][]byte{}, map[string][]byte{}
	if c := r.scenario.Expect.Credentials; c != nil {
		p, err := issue(*c, "http://"+addressLists)
		if err != nil {
			return err
		}
		if c.CRL || c.OCSP {
			if err := r.network.publish(bed, p); err != nil {
				return err
			}
		}
		r.authority = p
		if c.Without == strongswan {
			p.strongSwan.intermediates = nil
		}
		ours, theirs = p.folder(p.sallyport), p.folder(p.strongSwan)
	}
	peer, err := newStrongSwan(r.network.gwB, filepath.Join(folder, "strongswan"), put(r.scenario.Swanctl), r.scenario.StrongSwan, theirs)
	if err != nil {
		return err
	}
	r.ends = map[string]end{strongswan: peer}
	if !o.reference {
		gateway, err := newGateway(bed, r.network.gwA, o.bin, put(r.scenario.Sallyport), ours)
		r.ends[sallyport] = gateway
		return err
	}
	swanctl, err := reference([]byte(put(r.scenario.Sallyport)))
	if err != nil {
		return err
	}
	twin, err := newStrongSwan(r.network.gwA, filepath.Join(folder, "reference"), swanctl, r.scenario.StrongSwan, ours)
	r.ends[sallyport] = twin
	return err
}

// steps starts both sides and does the scenario's steps, once for each initiator.
func (r *run) steps(ctx context.Context) error {
	for _, name := range []string{strongswan, sallyport} {
		if err := r.ends[name].Start(ctx); err != nil {
			return err
		}
	}
	for _, r.initiator = range r.scenario.Expect.Initiators {
		r.offsets = map[string]int{}
		for name, e := range r.ends {
			text, err := e.Log()
			if err != nil {
				return err
			}
			r.offsets[name] = len(text)
		}
		for i, s := range r.scenario.Expect.Steps {
			if err := s.do.perform(ctx, r); err != nil {
				return fmt.Errorf("initiator %s, step %d, %s: %w", r.initiator, i+1, s.verb, err)
			}
		}
	}
	return nil
}

// leaks is an error if the gateway has sent something of its host in the clear; inside ESP that is as it should be where a suite does
// not encrypt.
func (r *run) leaks() error {
	seen, err := r.network.capture.Figures()
	switch {
	case err != nil:
		return err
	case r.reference: // its kernel forwards what no tunnel takes
		return nil
	case r.scenario.Expect.Readable && seen.Bare == 0 && seen.Needles > 0:
		return nil
	case r.scenario.Expect.Readable && seen.Bare == 0:
		return errors.New("nothing that gateway a sent is readable, though the suite does not encrypt")
	case seen.Needles+seen.Inner > 0:
		return fmt.Errorf("gateway a sent %d frames of its host in the clear: %v", seen.Needles+seen.Inner, seen.Examples)
	}
	return nil
}

// end finds a side by its name or by its role in this round.
func (r *run) end(name string) (end, string, error) {
	switch name {
	case initiator, "":
		name = r.initiator
	case responder:
		name = map[string]string{sallyport: strongswan, strongswan: sallyport}[r.initiator]
	}
	e, ok := r.ends[name]
	if !ok {
		return nil, "", fmt.Errorf("there is no side called %q", name)
	}
	return e, name, nil
}

// log is what a side has written in this round.
func (r *run) log(name string) ([]byte, error) {
	text, err := r.ends[name].Log()
	return text[min(r.offsets[name], len(text)):], err
}

// check notes something that was seen to be so.
func (r *run) check(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(r.result.Checked, text) {
		r.result.Checked = append(r.result.Checked, text)
	}
}

// drops are the gateway's drop counters, if it has any.
func (r *run) drops(ctx context.Context) map[string]uint64 {
	g, ok := r.ends[sallyport].(*gateway)
	if !ok {
		return nil
	}
	counters, err := g.Drops(ctx)
	if err != nil {
		return nil
	}
	return counters
}

// newDrops tells what the gateway has dropped since the stream began.
func (r *run) newDrops(ctx context.Context) string {
	var b strings.Builder
	for name, n := range r.drops(ctx) {
		if n > r.dropped[name] {
			fmt.Fprintf(&b, "; the gateway counts %d %s", n-r.dropped[name], name)
		}
	}
	return b.String()
}

// keep saves both sides' logs and associations.
func (r *run) keep(ctx context.Context, folder string) error {
	if err := errors.Join(os.RemoveAll(folder), os.MkdirAll(folder, 0o755)); err != nil {
		return err
	}
	r.result.Logs = folder
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	for name, e := range r.ends {
		log, err := e.Log()
		if err != nil {
			log = []byte(err.Error())
		}
		var b bytes.Buffer
		if all, err := e.SAs(ctx); err != nil {
			fmt.Fprintln(&b, err)
		} else {
			for _, s := range all {
				fmt.Fprintf(&b, "%+v\n", s)
			}
		}
		if g, ok := e.(*gateway); ok {
			b.WriteString(g.Report(ctx))
		}
		if err := errors.Join(
			os.WriteFile(filepath.Join(folder, name+".log"), log, 0o644),
			os.WriteFile(filepath.Join(folder, name+".sas"), b.Bytes(), 0o644),
		); err != nil {
			return err
		}
	}
	return nil
}
