// Package soak keeps two gateways under mixed traffic, rekeys and faults, and compares the first part of the run with the last:
//
//	host-a ───── gw-a ───── transit ───── gw-b ───── host-b
//	  streams over IPv4 and IPv6, both ways      faults: rekeys, reloads, a link that goes down, a daemon killed
//
// The gateways agree on keys by IKE. A capture in the transit namespace, which first has to catch a deliberate packet in the
// clear, sees every frame between them: there may be no plaintext and no (SPI, IV) twice, and it may see no more ESP than
// the gateways say they sent. Only gw-b is killed, so that gw-a's memory tells of the whole run.
package soak

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"sallyport/bench/result"
	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// Options say how long and how hard.
type Options struct {
	Bin      string        // folder of sallyportd and sallyport
	Duration time.Duration // of the traffic
	Every    time.Duration // from one rekey or fault to the next
	Rate     int           // datagrams a second of each of the four streams
	Command  string        // written into the rows
	// Progress is told of every rekey and fault.
	Progress func(what string)
}

// DurationMin leaves room for a part before and after the faults.
const DurationMin = 10 * time.Second

// recoveryMax is how long a fault may keep traffic from coming back.
const recoveryMax = 60 * time.Second

func (o *Options) check() error {
	if o.Duration < DurationMin || o.Every < time.Second || o.Rate < 1 || o.Rate > 20_000 {
		return fmt.Errorf("%v with a fault every %v, %d datagrams a second: at least %v, a second, and 1 to 20,000", o.Duration, o.Every, o.Rate, DurationMin)
	}
	if missing := testbed.Missing(testbed.Root...); len(missing) > 0 {
		return fmt.Errorf("needs root: this process lacks %v", missing)
	}
	return nil
}

// edge is the length of the first and the last part: a minute, or a quarter of a short run.
func (o *Options) edge() time.Duration { return min(time.Minute, o.Duration/4) }

// Run returns the rows soak/...; an error if anything crossed in the clear, a nonce was used twice, traffic did not
// come back or a gateway ended.
func Run(ctx context.Context, o Options) (rows []result.Row, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	bed, err := testbed.New("soak")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, bed.Close()) }()
	s := &soak{Options: o}
	if s.network, err = rig.Build(bed); err != nil {
		return nil, err
	}
	watch := s.network.Watch()
	watch.Nonces = true
	if s.capture, err = s.network.Transit.Capture(watch, "port-a", "port-b"); err != nil {
		return nil, err
	}
	if err := s.network.Probe(s.capture); err != nil {
		return nil, err
	}
	if s.probe, err = s.capture.Settled(200*time.Millisecond, 3*time.Second); err != nil {
		return nil, err
	}
	// The daemons tell their log of every collection of garbage.
	defer os.Setenv("GODEBUG", os.Getenv("GODEBUG"))
	os.Setenv("GODEBUG", "gctrace=1")
	if s.pair, err = rig.NewPair(s.network, o.Bin, rig.Negotiated()); err != nil {
		return nil, err
	}
	if err := s.pair.Start(); err != nil {
		return nil, s.explained(err)
	}
	if err := s.run(ctx); err != nil {
		return nil, s.explained(err)
	}
	return s.rows()
}

type soak struct {
	Options
	network *rig.Network
	capture *testbed.Capture
	probe   testbed.Figures
	pair    *rig.Pair
	streams []*stream

	memory  []memory             // of gw-a, one a second
	outages map[string][]float64 // seconds until all streams were back, by fault
	said    uint64               // by gateways that were killed since
	seen    testbed.Figures
	total   uint64 // packets that the gateways sent, less what the kernel's veth dropped
}

// explained adds the ends of the logs to an error.
func (s *soak) explained(err error) error {
	for _, g := range s.pair.Both() {
		if text, reportErr := g.Report(12); reportErr == nil {
			err = fmt.Errorf("%w\n%s", err, text)
		}
	}
	return err
}

// fault is something that happens to the gateways under traffic.
type fault struct {
	name string
	do   func(s *soak) error
}

// faults come round in this order. The link comes back without its IPv6 addresses, as the kernel has it.
var faults = []fault{
	{"rekey of a child", func(s *soak) error { return ask(s.pair.A, "rekey", s.pair.Tunnels[0].Name+"/net") }},
	{"rekey of an IKE SA", func(s *soak) error { return ask(s.pair.B, "rekey", s.pair.Tunnels[1].Name) }},
	{"reload", func(s *soak) error { return ask(s.pair.A, "reload") }},
	{"link down and up", func(s *soak) error {
		a, _ := s.network.Sides()
		if err := a.Gateway.Down("wan"); err != nil {
			return err
		}
		time.Sleep(300 * time.Millisecond)
		if err := a.Gateway.Up("wan"); err != nil {
			return err
		}
		return s.network.AddressWAN(a)
	}},
	{"daemon killed and started", (*soak).restart},
}

func ask(g *rig.Gateway, args ...string) error {
	_, err := g.Ask(args...)
	return err
}

// restart kills gw-b under traffic. What it has sent is read before, with the traffic halted, since nobody can afterwards.
func (s *soak) restart() error {
	for _, x := range s.streams {
		x.pause(true)
	}
	if _, err := s.capture.Settled(300*time.Millisecond, 3*time.Second); err != nil {
		return err
	}
	_, sent, err := s.pair.B.Read()
	if err != nil {
		return err
	}
	s.said += sent.Packets
	s.pair.B.Kill()
	for _, x := range s.streams {
		x.pause(false)
	}
	time.Sleep(500 * time.Millisecond) // traffic meets a gateway without a daemon
	if err := s.pair.B.Launch(); err != nil {
		return err
	}
	return s.pair.B.Ready(recoveryMax)
}

func (s *soak) run(ctx context.Context) (err error) {
	defer func() {
		for _, x := range s.streams {
			x.close()
		}
	}()
	for i, c := range crossings {
		x, err := start(s.network, c, i, s.Rate)
		if err != nil {
			return err
		}
		s.streams = append(s.streams, x)
	}
	if _, err := s.back(time.Now()); err != nil {
		return err
	}
	s.outages = map[string][]float64{}
	began, next := time.Now(), 0
	for _, x := range s.streams {
		x.from(began)
	}
	due := s.edge() // the first part is undisturbed, and so is the last
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for time.Since(began) < s.Duration {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		at := time.Since(began)
		for _, g := range s.pair.Both() {
			if err := g.Alive(); err != nil {
				return err
			}
		}
		m, err := memoryOf(s.pair.A.PID())
		if err != nil {
			return err
		}
		s.memory = append(s.memory, m)
		if at < due || at > s.Duration-s.edge() {
			continue
		}
		f := faults[next%len(faults)]
		next++
		due = at + s.Every
		s.Progress(fmt.Sprintf("%v of %v: %s", at.Round(time.Second), s.Duration, f.name))
		happened := time.Now()
		if err := f.do(s); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		outage, err := s.back(happened)
		if err != nil {
			return fmt.Errorf("after %s: %w", f.name, err)
		}
		s.outages[f.name] = append(s.outages[f.name], outage)
	}
	for _, x := range s.streams {
		x.pause(true)
	}
	return s.judge()
}

// back waits until a datagram sent from now on has come back on every stream, and returns how many seconds after a moment that was.
func (s *soak) back(since time.Time) (float64, error) {
	for _, x := range s.streams {
		x.mark()
	}
	waiting := func(x *stream) bool { return !x.returnedSinceMark() }
	for slices.ContainsFunc(s.streams, waiting) {
		if time.Since(since) > recoveryMax {
			return 0, fmt.Errorf("traffic did not come back within %v", recoveryMax)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(since).Seconds(), nil
}

// judge compares what the capture saw with what the gateways say.
func (s *soak) judge() error {
	seen, err := s.capture.Settled(400*time.Millisecond, 5*time.Second)
	if err != nil {
		return err
	}
	s.seen = seen.Sub(s.probe)
	said := s.said
	var dropped uint64
	for _, g := range s.pair.Both() {
		_, sent, err := g.Read()
		if err != nil {
			return err
		}
		said += sent.Packets
		d, err := g.NS.Dropped("wan")
		if err != nil {
			return err
		}
		dropped += d
	}
	if said < dropped {
		return fmt.Errorf("the gateways sent %d packets, of which veth dropped %d", said, dropped)
	}
	s.total = said - dropped
	return judge(s.seen, s.total)
}

// unseenMax is the share of what the gateways sent that the capture need not see: what was in a link's rings when it went down.
const unseenMax = 0.02

func judge(seen testbed.Figures, sent uint64) error {
	crossed := seen.ESP() + seen.Kinds[testbed.IKE.String()]
	switch {
	case seen.Missed > 0:
		return fmt.Errorf("the capture missed %d frames, so it proves nothing", seen.Missed)
	case seen.Needles+seen.Inner+seen.Kinds[testbed.Other.String()] > 0:
		return fmt.Errorf("something crossed in the clear: %d frames with plaintext, %d with inner addresses, %v %q", seen.Needles, seen.Inner, seen.Kinds, seen.Examples)
	case seen.Repeated > 0:
		return fmt.Errorf("%d packets of ESP had the SPI and the IV of another one", seen.Repeated)
	case seen.ESP() == 0:
		return errors.New("no ESP crossed")
	case crossed > sent:
		return fmt.Errorf("the capture saw %d packets of ESP and IKE, the gateways sent only %d", crossed, sent)
	case float64(sent-crossed) > unseenMax*float64(sent):
		return fmt.Errorf("the gateways sent %d packets of ESP and IKE, the capture saw only %d", sent, crossed)
	}
	return nil
}

func (s *soak) rows() ([]result.Row, error) {
	var rows []result.Row
	row := func(name, unit string, last, first []float64) {
		r := result.NewRow("soak/"+name, unit, s.Command, last)
		if first != nil {
			r = r.Against("first part", first)
		}
		rows = append(rows, r)
	}
	longest := func(name, unit string, all []float64) {
		r := result.NewRow("soak/"+name, unit, s.Command, []float64{slices.Max(all)})
		rows = append(rows, r.With(result.Parameters{Measure: result.Longest}))
	}
	whole := s.Duration.Seconds()
	first, last := s.window(0, s.edge().Seconds()), s.window(whole-s.edge().Seconds(), whole)
	row("throughput", "Mbit/s", last.mbits, first.mbits)
	for _, p := range []float64{0.5, 0.99} {
		row(fmt.Sprintf("roundtrip/p%g", 100*p), "us", last.quantile(p), first.quantile(p))
	}
	row("lost", "packets", last.lost, first.lost)
	n := max(1, len(s.memory)*int(s.edge())/int(s.Duration))
	for _, x := range []struct {
		name, unit string
		of         func(m memory) float64
	}{
		{"rss", "KiB", func(m memory) float64 { return m.rssKiB }},
		{"descriptors", "files", func(m memory) float64 { return m.files }},
		{"threads", "threads", func(m memory) float64 { return m.threads }},
	} {
		var all []float64
		for _, m := range s.memory {
			all = append(all, x.of(m))
		}
		row("memory/"+x.name, x.unit, all[len(all)-n:], all[:n])
	}
	text, err := os.ReadFile(s.pair.A.Log)
	if err != nil {
		return nil, err
	}
	if gcs := collections(string(text)); len(gcs) > 0 {
		k := max(1, len(gcs)/4)
		heap := func(list []collection) (all []float64) {
			for _, c := range list {
				all = append(all, c.liveMiB)
			}
			return all
		}
		row("memory/heap", "MiB", heap(gcs[len(gcs)-k:]), heap(gcs[:k]))
		row("gc/collections", "per run", []float64{float64(len(gcs))}, nil)
		var stopped []float64
		for _, c := range gcs {
			stopped = append(stopped, c.stoppedMS)
		}
		longest("gc/stopped", "ms", stopped)
	}
	count := 0
	for _, f := range faults {
		if all := s.outages[f.name]; len(all) > 0 {
			longest("outage/"+f.name, "s", all)
			count += len(all)
		}
	}
	row("faults", "events", []float64{float64(count)}, nil)
	row("captured", "packets", []float64{float64(s.seen.ESP())}, nil)
	row("unseen", "packets", []float64{float64(s.total - s.seen.ESP() - s.seen.Kinds[testbed.IKE.String()])}, nil)
	row("repeated-nonces", "packets", []float64{float64(s.seen.Repeated)}, nil)
	row("plaintext", "packets", []float64{float64(s.seen.Needles + s.seen.Inner)}, nil)
	return rows, nil
}
