package wire

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/cilium/ebpf/rlimit"

	"sallyport/bench/result"
	"sallyport/bench/secgw"
	"sallyport/tools/testbed"
)

// IMIX is the name of a mix of packets for [FindOptions.Sizes]: 7 of 64 bytes, 4 of 512, 1 of 1420, in the order of Genome. Sizes
// are those of the inner IP packets.
const IMIX = "imix"

// Genome is the mix's order in the notation of RFC 6985: a is 64 bytes, d 512, z the largest packet, here 1420.
const Genome = "aadaadaadadz"

var genes = map[rune]int{'a': 64, 'd': 512, 'z': 1420}

// Directions of a case.
const (
	Encrypt = "encrypt"
	Decrypt = "decrypt"
	Both    = "both" // two gateways one behind the other, on one CPU
)

// SenderLive is the sender that BPF runs on live frames. It cannot be paced.
const SenderLive = "live"

// FindOptions say what Find measures. Runs is the number of searches of each contender, taken in turn.
type FindOptions struct {
	Options
	Sizes   []string // numbers, or IMIX
	Tunnels []int
	Sender  string // of the searches: SenderXSK or SenderAsavie
	// Trial is the length of a trial that counts, Sum how long trials at one load last together, in seconds.
	Trial, Sum float64
	// Width is how close the bounds come, as a share.
	Width float64
	// LatencySeconds is the length of a trial of latency, 0 for none.
	LatencySeconds float64
	// Ceilings asks for the senders' own.
	Ceilings bool
	// Within bounds the whole run: searches that it leaves no time for are holes, and what is unstable is searched again if
	// it suffices. 0 is no bound.
	Within time.Duration
}

func (o *FindOptions) check() error {
	if o.Runs < 1 || !(o.Trial > 0) || !(o.Sum >= o.Trial) || !(o.Width > 0 && o.Width < 1) {
		return fmt.Errorf("%d runs of trials of %v seconds, %v at one load, to %v: want at least one, of some length", o.Runs, o.Trial, o.Sum, o.Width)
	}
	if o.Within < 0 {
		return fmt.Errorf("within %v: want some time, or 0 for as long as it takes", o.Within)
	}
	if o.Sender != SenderXSK && o.Sender != SenderAsavie {
		return fmt.Errorf("sender %q: %s or %s", o.Sender, SenderXSK, SenderAsavie)
	}
	for _, s := range o.Sizes {
		sizes, err := sizesOf(s)
		if err != nil {
			return err
		}
		if slices.Min(sizes) < 64 || slices.Max(sizes) > SizeMax {
			return fmt.Errorf("size %s: 64 to %d are possible, or %s", s, SizeMax, IMIX)
		}
	}
	for _, d := range o.Directions {
		if d != Encrypt && d != Decrypt && d != Both {
			return fmt.Errorf("direction %q: %s, %s or %s", d, Encrypt, Decrypt, Both)
		}
	}
	for _, n := range o.Tunnels {
		if n < 1 || n > 50_000 {
			return fmt.Errorf("%d tunnels: 1 to 50000 are possible", n)
		}
	}
	if o.SenderCPU == o.WorkerCPU {
		return errors.New("sender and worker need a CPU each")
	}
	return nil
}

func sizesOf(word string) (sizes []int, err error) {
	if word == IMIX {
		for _, g := range Genome {
			sizes = append(sizes, genes[g])
		}
		return sizes, nil
	}
	n, err := strconv.Atoi(word)
	if err != nil {
		return nil, fmt.Errorf("size %q: a number of bytes, or %s", word, IMIX)
	}
	return []int{n}, nil
}

// scene is one cell of the matrix, and what was found there.
type scene struct {
	direction, size string
	tunnels         int

	top    float64                      // what the sender can offer, in packets a second
	found  [contenders][goals][]float64 // throughputs in Mpps
	last   found                        // of our last search
	broken [contenders]bool             // those that could not carry here
	shaken int                          // of our searches, those that others disturbed in spite of all repeating
}

func (s *scene) String() string {
	name := s.direction + "/" + s.size
	if s.tunnels > 1 {
		name += fmt.Sprintf("/%d-tunnels", s.tunnels)
	}
	return name
}

// unstable says that a throughput that is compared is. What stands for a range of gateways does not count.
func (s *scene) unstable() bool {
	for who := range contender(contenders) {
		if !who.byStack() && result.Unsteady(s.found[who][goalPDR], s.found[who][goalNDR]) {
			return true
		}
	}
	return false
}

func (s *scene) traffic() traffic {
	sizes, _ := sizesOf(s.size)
	return traffic{s.direction == Decrypt, sizes, s.tunnels}
}

// carries says whether a contender takes part: the others know one tunnel, one gateway, one size at a time.
func (s *scene) carries(who contender) bool {
	switch who {
	case kernel, wireguard, strongSwan: // it has no route for ESP; nobody seals for the others
		fits := who != strongSwan || slices.Max(s.traffic().sizes) <= libipsecMax
		return s.direction == Encrypt && s.tunnels == 1 && s.size != IMIX && fits
	}
	return who == ours || who == nobody || s.direction != Both && s.tunnels == 1 && s.size != IMIX
}

// Find measures the senders, then searches for what each contender carries without loss (NDR) and with a loss of 0.5 % (PDR),
// in turn, and then how long packets are on their way at shares of the gateway's PDR. What cannot be measured is a
// hole with its reason, and the rest goes on.
func Find(ctx context.Context, o FindOptions) (rows []result.Row, holes []result.Hole, err error) {
	if err := o.check(); err != nil {
		return nil, nil, err
	}
	if err := able(); err != nil {
		return nil, nil, err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, nil, fmt.Errorf("raising the limit of locked memory: %w", err)
	}
	f := &finder{FindOptions: o, out: map[contender]string{}, began: time.Now()}
	if o.Peer != "" || o.Testpmd != "" {
		if pages, err := reserve(); err != nil {
			f.drop(peers, err)
			f.drop(testpmd, err)
		} else {
			defer pages.Close()
		}
	}
	var scenes []*scene
	for _, d := range o.Directions {
		for _, s := range o.Sizes {
			for _, t := range o.Tunnels {
				scenes = append(scenes, &scene{direction: d, size: s, tunnels: t})
			}
		}
	}
	f.plan(scenes)
	for _, s := range scenes {
		if err := f.ceilings(ctx, s); err != nil {
			return f.rows, f.holes, err
		}
	}
	rounds := result.Rounds{Runs: o.Runs}
	if o.Within > 0 {
		rounds.Within = max(1, f.left()-f.latencyTime())
	}
	unstable := func(i int) bool { return scenes[i].unstable() }
	for list := rounds.Next(len(scenes), unstable); len(list) > 0; list = rounds.Next(len(scenes), unstable) {
		for _, i := range list {
			if err := f.search(ctx, scenes[i], rounds.Round()); err != nil {
				return f.rows, f.holes, err
			}
		}
	}
	for _, s := range scenes {
		f.rows = append(f.rows, f.result(s)...)
		if pdr := 1e6 * result.Median(s.found[ours][goalPDR]); o.LatencySeconds > 0 && pdr > 0 {
			if err := f.latencies(ctx, s, pdr); err != nil {
				return f.rows, f.holes, err
			}
		}
	}
	return f.rows, f.holes, nil
}

type finder struct {
	FindOptions
	rows   []result.Row
	holes  []result.Hole
	out    map[contender]string // those that do not start, and why
	worked [contenders]bool     // those that have carried packets
	steps  int
	done   int
	began  time.Time
}

// reserve gives DPDK its huge pages until the bed is closed, which a signal does, too.
func reserve() (*testbed.Bed, error) {
	bed, err := testbed.New("wire")
	if err != nil {
		return nil, err
	}
	release, err := secgw.ReserveHugePages()
	if err != nil {
		return nil, errors.Join(err, bed.Close())
	}
	bed.Defer(release)
	return bed, nil
}

// plan counts the steps.
func (f *finder) plan(scenes []*scene) {
	for _, s := range scenes {
		for _, w := range f.contenders() {
			if s.carries(w) {
				f.steps += f.searches(w)
			}
		}
		f.steps++ // ceilings
		if f.LatencySeconds > 0 {
			f.steps++
		}
	}
}

// searches is how often a contender searches a scene, unless it is unstable. Those that the kernel's stack makes
// slow, or that encrypt nothing, are there for the order of magnitude.
func (f *finder) searches(who contender) int {
	if who.byStack() {
		return min(stackRuns, f.Runs)
	}
	return f.Runs
}

const stackRuns = 3

// say tells of the next step and of the time that the rest will take, if it is like what was.
func (f *finder) say(what string) {
	if f.done > 0 && f.Progress != nil {
		rest := time.Since(f.began) / time.Duration(f.done) * time.Duration(f.steps-f.done)
		if f.Within > 0 {
			rest = min(rest, max(0, f.left()))
		}
		what += fmt.Sprintf("; about %v left", rest.Round(time.Second))
	}
	f.done++
	f.steps = max(f.steps, f.done)
	if f.Progress != nil {
		f.Progress(fmt.Sprintf("%d of %d: %s", f.done, f.steps, what))
	}
}

// left is the time that is left of a bounded run.
func (f *finder) left() time.Duration {
	return f.Within - time.Since(f.began)
}

// late says that a bounded run has no time for more, if so much is kept for the end.
func (f *finder) late(keep time.Duration) bool { return f.Within > 0 && f.left() < keep }

// drop leaves a contender out from now on.
func (f *finder) drop(who contender, err error) {
	if f.out[who] == "" {
		f.out[who] = err.Error()
		f.hole("wire/"+who.String(), err)
	}
}

// hole notes, once, that something could not be measured.
func (f *finder) hole(name string, err error) {
	if !slices.ContainsFunc(f.holes, func(h result.Hole) bool { return h.Name == name }) {
		f.holes = append(f.holes, result.Hole{Name: name, Reason: err.Error()})
	}
}

// ceilings measures what the senders offer into a sink that drops, and notes that of the searches' one.
func (f *finder) ceilings(ctx context.Context, s *scene) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.say("the senders' own ceilings, " + s.String())
	kinds := []string{f.Sender}
	if f.Ceilings && s.tunnels == 1 && s.direction != Both { // which are those of encryption
		kinds = []string{SenderXSK, SenderAsavie, SenderLive}
	}
	for _, kind := range kinds {
		if kind == SenderLive && s.size == IMIX {
			continue // its frames have one length
		}
		name := "wire/sender/" + kind + "/" + s.String()
		var samples []float64
		for range ceilingRuns {
			rate, err := f.ceiling(s, kind)
			if err != nil {
				f.hole(name, err)
				break
			}
			samples = append(samples, rate/1e6)
		}
		if len(samples) == 0 {
			continue
		}
		what := s.parameters("ceiling")
		what.By = kind
		row := result.NewRow(name, "Mpps", f.Command, samples).With(what)
		f.rows = append(f.rows, row)
		if kind == f.Sender {
			s.top = 1e6 * slices.Max(samples) // what disturbed the others says nothing of what it can
		}
	}
	if s.top == 0 {
		return fmt.Errorf("the sender %s does not work: %s", f.Sender, f.holes[len(f.holes)-1].Reason)
	}
	return nil
}

// ceilingRuns samples of ceilingSeconds are taken of each sender's ceiling.
const (
	ceilingRuns    = 3
	ceilingSeconds = 0.3
)

func (f *finder) ceiling(s *scene, kind string) (rate float64, err error) {
	r, err := newRig(false)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	t := s.traffic()
	tunnels, err := newTunnels(s.tunnels)
	if err != nil {
		return 0, err
	}
	if _, err := r.startContender(&f.Options, nobody, t, tunnels, false); err != nil {
		return 0, err
	}
	src := newSource(t, tunnels, r.macs[inIf], r.macs[senderIf])
	if kind == SenderLive {
		if r.generator, err = newGenerator(src); err != nil {
			return 0, err
		}
		if err := r.generator.start(r.sender, senderIf, f.SenderCPU); err != nil {
			return 0, err
		}
		got, err := r.measure(ceilingSeconds, nil, 0)
		return 1e6 * got.perSecond, err
	}
	p, err := r.paced(&f.FindOptions, kind, src)
	if err != nil {
		return 0, err
	}
	o, err := r.trial(p, math.Inf(1), ceilingSeconds)
	return float64(o.received) / ceilingSeconds, err
}

// paced returns a sender on the rig, which closes it.
func (r *rig) paced(o *FindOptions, kind string, src *source) (*paced, error) {
	ring, err := newRing(kind, r.sender, senderIf)
	if err != nil {
		return nil, err
	}
	p := &paced{ring: ring, source: src, cpu: o.SenderCPU}
	r.bed.Defer(p.close)
	return p, nil
}

// ready is a rig on which a contender carries packets.
type ready struct {
	*rig
	paced        *paced
	tunnels      []tunnel
	traffic      traffic
	vethIsTheirs bool
	others       others
}

// prepare builds a rig and waits until the contender carries.
func (f *finder) prepare(s *scene, who contender, sampling bool) (_ *ready, err error) {
	r, err := newRig(s.direction == Both)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	a := &ready{rig: r, traffic: s.traffic(), vethIsTheirs: who.byStack()}
	if a.tunnels, err = newTunnels(s.tunnels); err != nil {
		return nil, err
	}
	var p *testbed.Process
	if s.direction == Both {
		if err = r.attachSink(r.drain, sinkIf, a.traffic.offered(), sampling); err != nil {
			return nil, err
		}
		if _, err = r.startOurs(&f.Options, r.distant(), a.tunnels); err != nil {
			return nil, err
		}
		p, err = r.startOurs(&f.Options, r.near(), a.tunnels)
	} else {
		p, err = r.startContender(&f.Options, who, a.traffic, a.tunnels, sampling)
	}
	if err != nil {
		return nil, err
	}
	if a.paced, err = r.paced(&f.FindOptions, f.Sender, newSource(a.traffic, a.tunnels, r.macs[inIf], r.macs[senderIf])); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(startMax); r.sink.count() == 0; {
		if _, err := r.trial(a.paced, 1000, 0.05); err != nil {
			return nil, err
		}
		if p != nil {
			select {
			case <-p.Done():
				return nil, fmt.Errorf("it ended: %w; its last words: %s", p.Wait(), r.lastWords())
			default:
			}
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("nothing of the right kind came out in %v (%d other packets); last words: %s", startMax, r.sink.others(), r.lastWords())
		}
	}
	a.others.ours = r.processes
	// Every tunnel once, and whatever else is done at first sight.
	_, err = r.trial(a.paced, 50_000, max(0.2, float64(s.tunnels)/40_000))
	return a, err
}

// quickTime is how long a quick run may take.
const quickTime = time.Minute

// Quicken makes the run end within a minute, but for what set says was chosen.
func (o *FindOptions) Quicken(set func(flag string) bool) {
	for flag, f := range map[string]func(){
		"directions": func() { o.Directions = []string{Encrypt, Decrypt} },
		"sizes":      func() { o.Sizes = []string{"64", "1420"} },
		"runs":       func() { o.Runs = 3 },
		"peer":       func() { o.Peer = "" },
		"testpmd":    func() { o.Testpmd = "" },
		"kernel":     func() { o.Kernel = false },
		"wireguard":  func() { o.Wireguard = "" },
		"strongswan": func() { o.StrongSwan = "" },
		"trial":      func() { o.Trial = 0.1 },
		"sum":        func() { o.Sum = 0.2 },
		"latency":    func() { o.LatencySeconds = 0.1 },
		"ceilings":   func() { o.Ceilings = false },
		"within":     func() { o.Within = quickTime },
	} {
		if !set(flag) {
			f()
		}
	}
}
