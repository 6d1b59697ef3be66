package wire

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/cilium/ebpf/rlimit"

	"sallyport/bench/result"
	"sallyport/bench/search"
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
}

func (o *FindOptions) check() error {
	if o.Runs < 1 || !(o.Trial > 0) || !(o.Sum >= o.Trial) || !(o.Width > 0 && o.Width < 1) {
		return fmt.Errorf("%d runs of trials of %v seconds, %v at one load, to %v: want at least one, of some length", o.Runs, o.Trial, o.Sum, o.Width)
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

// scene is one cell of the matrix.
type scene struct {
	direction, size string
	tunnels         int
}

func (s scene) String() string {
	name := s.direction + "/" + s.size
	if s.tunnels > 1 {
		name += fmt.Sprintf("/%d-tunnels", s.tunnels)
	}
	return name
}

func (s scene) traffic() traffic {
	sizes, _ := sizesOf(s.size)
	return traffic{s.direction == Decrypt, sizes, s.tunnels}
}

// carries says whether a contender takes part: the others know one tunnel, one gateway, one size at a time.
func (s scene) carries(who contender) bool {
	if who == wireguard || who == kernel { // nobody seals for the one; the other has no route for ESP
		return s.direction == Encrypt && s.tunnels == 1 && s.size != IMIX
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
	if missing := testbed.Missing(testbed.Root...); len(missing) > 0 {
		return nil, nil, fmt.Errorf("needs root: this process lacks %v", missing)
	}
	if n := runtime.NumCPU(); n < 2 {
		return nil, nil, fmt.Errorf("needs two CPUs, one for the sender and one for the gateway; there is %d", n)
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, nil, fmt.Errorf("raising the limit of locked memory: %w", err)
	}
	f := &finder{FindOptions: o, out: map[contender]string{}}
	if o.Peer != "" || o.Testpmd != "" {
		release, err := secgw.ReserveHugePages()
		if err != nil {
			f.drop(peers, err)
			f.drop(testpmd, err)
		} else {
			defer func() { err = errors.Join(err, release()) }()
		}
	}
	var scenes []scene
	for _, d := range o.Directions {
		for _, s := range o.Sizes {
			for _, t := range o.Tunnels {
				scenes = append(scenes, scene{d, s, t})
			}
		}
	}
	f.plan(scenes)
	top := map[scene]float64{}
	for _, s := range scenes {
		if top[s], err = f.ceilings(ctx, s); err != nil {
			return f.rows, f.holes, err
		}
	}
	for _, s := range scenes {
		pdr, err := f.search(ctx, s, top[s])
		if err != nil {
			return f.rows, f.holes, err
		}
		if o.LatencySeconds > 0 && pdr > 0 {
			if err := f.latencies(ctx, s, pdr); err != nil {
				return f.rows, f.holes, err
			}
		}
	}
	return f.rows, f.holes, nil
}

type finder struct {
	FindOptions
	rows  []result.Row
	holes []result.Hole
	out   map[contender]string // those that do not start, and why
	steps int
	done  int
	began time.Time
}

// plan counts the steps.
func (f *finder) plan(scenes []scene) {
	f.began = time.Now()
	for _, s := range scenes {
		for _, w := range f.contenders() {
			if s.carries(w) {
				f.steps += f.Runs
			}
		}
		f.steps++ // ceilings
		if f.LatencySeconds > 0 {
			f.steps++
		}
	}
}

// say tells of the next step and of the time that the rest will take, if it is like what was.
func (f *finder) say(what string) {
	if f.Progress == nil {
		return
	}
	if f.done > 0 {
		rest := time.Since(f.began) / time.Duration(f.done) * time.Duration(f.steps-f.done)
		what += fmt.Sprintf("; about %v left", rest.Round(time.Second))
	}
	f.done++
	f.Progress(fmt.Sprintf("%d of %d: %s", f.done, f.steps, what))
}

// drop leaves a contender out from now on.
func (f *finder) drop(who contender, err error) {
	if f.out[who] == "" {
		f.out[who] = err.Error()
		f.holes = append(f.holes, result.Hole{Name: "wire/" + who.String(), Reason: err.Error()})
	}
}

func (f *finder) hole(name string, err error) {
	f.holes = append(f.holes, result.Hole{Name: name, Reason: err.Error()})
}

// ceilings measures what the senders offer into a sink that drops, and returns that of the searches' one.
func (f *finder) ceilings(ctx context.Context, s scene) (top float64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	f.say("the senders' own ceilings, " + s.String())
	kinds := []string{f.Sender}
	if f.Ceilings && s.tunnels == 1 {
		kinds = []string{SenderXSK, SenderAsavie, SenderLive}
	}
	for _, kind := range kinds {
		if kind == SenderLive && s.size == IMIX {
			continue // its frames have one length
		}
		var samples []float64
		for range 3 {
			rate, err := f.ceiling(s, kind)
			if err != nil {
				f.hole("wire/sender/"+kind+"/"+s.String(), err)
				break
			}
			samples = append(samples, rate/1e6)
			if !f.Ceilings {
				break
			}
		}
		if len(samples) == 0 {
			continue
		}
		what := s.parameters("ceiling")
		what.By = kind
		row := result.NewRow("wire/sender/"+kind+"/"+s.String(), "Mpps", f.Command, samples).With(what)
		f.rows = append(f.rows, row)
		if kind == f.Sender {
			top = 1e6 * row.Value
		}
	}
	if top == 0 {
		return 0, fmt.Errorf("the sender %s does not work: %s", f.Sender, f.holes[len(f.holes)-1].Reason)
	}
	return top, nil
}

func (f *finder) ceiling(s scene, kind string) (rate float64, err error) {
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
	const seconds = 0.5
	if kind == SenderLive {
		if r.generator, err = newGenerator(src); err != nil {
			return 0, err
		}
		if err := r.generator.start(r.sender, senderIf, f.SenderCPU); err != nil {
			return 0, err
		}
		got, err := r.measure(seconds, nil, 0)
		return 1e6 * got.perSecond, err
	}
	p, err := r.paced(&f.FindOptions, kind, src)
	if err != nil {
		return 0, err
	}
	o, err := r.trial(p, math.Inf(1), seconds)
	return float64(o.received) / seconds, err
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
}

// prepare builds a rig and waits until the contender carries.
func (f *finder) prepare(s scene, who contender, sampling bool) (_ *ready, err error) {
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
	// Every tunnel once, and whatever else is done at first sight.
	_, err = r.trial(a.paced, 50_000, max(0.2, float64(s.tunnels)/40_000))
	return a, err
}

// Goals of the searches; the second is the one that is compared.
const (
	goalNDR = iota
	goalPDR
	goals
)

var goalNames = [goals]string{"ndr", "pdr"}

// lossPDR is the loss at PDR.
const lossPDR = 0.005

func (f *finder) searchGoals() []search.Goal {
	g := search.Goal{Exceed: 0.5, Initial: f.Trial / 4, Final: f.Trial, Sum: f.Sum, Width: f.Width}
	ndr, pdr := g, g
	ndr.Name, pdr.Name, pdr.LossRatio = "NDR", "PDR", lossPDR
	return []search.Goal{ndr, pdr}
}

// search finds NDR and PDR of all contenders and returns our median PDR, 0 if there is none.
func (f *finder) search(ctx context.Context, s scene, top float64) (float64, error) {
	var found [contenders][goals][]float64
	var last []search.Bounds // of our last search
	var tried []search.Load
	for run := range f.Runs {
		for _, who := range f.contenders() {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			if !s.carries(who) {
				continue
			}
			if f.out[who] != "" {
				f.done++
				continue
			}
			f.say(fmt.Sprintf("%s, run %d of %d, %s", s, run+1, f.Runs, who))
			bounds, loads, veth, err := f.one(ctx, s, who, top)
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			if err != nil && who == ours {
				f.hole("wire/"+s.String(), err)
				return 0, nil
			}
			if err != nil {
				f.drop(who, err)
				continue
			}
			for g, b := range bounds {
				found[who][g] = append(found[who][g], b.Throughput/1e6)
			}
			if who == ours {
				last, tried = bounds, loads
			}
			if f.Log != nil {
				f.Log(fmt.Sprintf("%s, %s: %s; %s; %d trials of %v in all, %d packets lost in veth's rings", s, who,
					describe("NDR", bounds[goalNDR]), describe("PDR", bounds[goalPDR]), bounds[0].Trials, round(bounds[0].Seconds), veth))
			}
		}
	}
	for g, goal := range goalNames {
		name := "wire/" + goal + "/" + s.String()
		mine := found[ours][g]
		if len(mine) == 0 {
			continue
		}
		row := func(suffix string) result.Row {
			r := result.NewRow(name+suffix, "Mpps", f.Command, mine).With(s.parameters(goal))
			r.Bounds = f.bounds(g, last[g])
			for _, l := range tried {
				r.Loss = append(r.Loss, result.LossPoint{Offered: l.Load / 1e6, Loss: l.Loss, Trials: l.Trials, Seconds: l.Seconds})
			}
			return r
		}
		plain := true
		for _, who := range f.contenders()[1:] {
			if theirs := found[who][g]; len(theirs) > 0 {
				f.rows = append(f.rows, row(who.suffix()).Against(who.String(), theirs))
				plain = plain && who != peers
			}
		}
		if plain {
			f.rows = append(f.rows, row(""))
		}
	}
	return 1e6 * result.Median(found[ours][goalPDR]), nil
}

// parameters describe the rows of a scene.
func (s scene) parameters(measure string) result.Parameters {
	sizes := s.traffic().sizes
	sum := 0
	for _, n := range sizes {
		sum += n
	}
	return result.Parameters{
		Measure: measure, Direction: s.direction, Size: s.size, Bytes: float64(sum) / float64(len(sizes)),
		Tunnels: s.tunnels, Workers: 1, Suite: "aes128gcm16",
	}
}

// bounds are those of our last search, as a row has them: an upper one of 0 says that the sender's most was carried.
func (f *finder) bounds(g int, b search.Bounds) *result.Bounds {
	upper := b.Upper
	if math.IsInf(upper, 1) {
		upper = 0
	}
	goal := f.searchGoals()[g]
	return &result.Bounds{
		Lower: b.Lower / 1e6, Upper: upper / 1e6, Trials: b.Trials,
		Goal: fmt.Sprintf("at most %v %% lost in trials of %v s, %v s together at one load, of which %.0f %% may lose more",
			100*goal.LossRatio, goal.Final, goal.Sum, 100*goal.Exceed),
	}
}

func describe(name string, b search.Bounds) string {
	upper := fmt.Sprintf("%.3f", b.Upper/1e6)
	if math.IsInf(b.Upper, 1) {
		upper = "the sender's most"
	}
	word := ""
	if !b.Regular {
		word = ", not as close as wanted"
	}
	return fmt.Sprintf("%s %.3f Mpps (%.3f to %s, %d trials at the lower%s)", name, b.Throughput/1e6, b.Lower/1e6, upper, b.AtLower, word)
}

func round(seconds float64) time.Duration {
	return time.Duration(seconds * float64(time.Second)).Round(100 * time.Millisecond)
}

// one is one search on one rig.
func (f *finder) one(ctx context.Context, s scene, who contender, top float64) (bounds []search.Bounds, loads []search.Load, veth uint64, err error) {
	a, err := f.prepare(s, who, false)
	if err != nil {
		return nil, nil, 0, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	// The sender keeps its schedule up to a little below its most.
	most := 0.95 * top
	look, err := search.New(most/200, most, f.searchGoals()...)
	if err != nil {
		return nil, nil, 0, err
	}
	for t, more := look.Next(); more; t, more = look.Next() {
		if err := ctx.Err(); err != nil {
			return nil, nil, 0, err
		}
		o, err := a.trial(a.paced, t.Load, t.Seconds)
		if err != nil {
			return nil, nil, 0, err
		}
		veth += o.byVeth
		look.Add(t, o.loss(a.vethIsTheirs))
	}
	for g := range goals {
		bounds = append(bounds, look.Bounds(g))
	}
	return bounds, look.Loads(), veth, nil
}

// percentiles of the latency rows; the last is the maximum.
var percentiles = []float64{50, 90, 99, 99.9, 99.99, 100}

// idle is the rate of "0 %".
const idle = 500

// shareShown is the share of PDR whose 99th percentile is the row's value.
const shareShown = 50

// latencies measures how long packets are on their way at shares of a rate, from when each was due.
func (f *finder) latencies(ctx context.Context, s scene, pdr float64) error {
	f.say(s.String() + ", latency")
	name := "wire/latency/" + s.String()
	var all []result.Latency
	var shown []float64
	for _, share := range []int{0, 10, 50, 90} {
		samples := make([][]float64, len(percentiles))
		at := result.Latency{Load: fmt.Sprintf("%d %% of PDR", share), Offered: max(idle, pdr*float64(share)/100) / 1e6}
		for range 3 {
			if err := ctx.Err(); err != nil {
				return err
			}
			times, count, err := f.latency(s, at.Offered*1e6)
			if err != nil {
				f.hole(fmt.Sprintf("%s/%d", name, share), err)
				return nil
			}
			at.Count += count
			for i, t := range times {
				samples[i] = append(samples[i], t)
			}
			if share == shareShown {
				shown = append(shown, times[slices.Index(percentiles, 99)])
			}
		}
		words := ""
		for i, p := range percentiles {
			median := result.Median(samples[i])
			at.Percentiles = append(at.Percentiles, result.Percentile{Percent: p, Microseconds: median})
			words += fmt.Sprintf("  %v %%: %.1f", p, median)
		}
		if f.Log != nil {
			f.Log(fmt.Sprintf("%s, latency in µs at %s:%s", s, at.Load, words))
		}
		all = append(all, at)
	}
	r := result.NewRow(fmt.Sprintf("%s/%d/p99", name, shareShown), "µs", f.Command, shown).With(s.parameters("latency"))
	r.Latency = all
	f.rows = append(f.rows, r)
	return nil
}

func (f *finder) latency(s scene, rate float64) (times []float64, count int64, err error) {
	a, err := f.prepare(s, ours, true)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	if err := a.sink.forget(); err != nil {
		return nil, 0, err
	}
	// The sink has room for so many records.
	if _, err = a.trial(a.paced, rate, min(f.LatencySeconds, records/rate)); err != nil {
		return nil, 0, err
	}
	h, err := a.sink.stamps(s.direction == Encrypt, a.tunnels)
	if err != nil {
		return nil, 0, err
	}
	for _, p := range percentiles {
		times = append(times, float64(h.ValueAtPercentile(p))/1e3)
	}
	return times, h.TotalCount(), nil
}

// Quicken makes the run end within a minute, but for what set says was chosen.
func (o *FindOptions) Quicken(set func(flag string) bool) {
	for flag, f := range map[string]func(){
		"directions": func() { o.Directions = []string{Encrypt, Decrypt} },
		"sizes":      func() { o.Sizes = []string{"64", "1420"} },
		"runs":       func() { o.Runs = 2 },
		"peer":       func() { o.Peer = "" },
		"testpmd":    func() { o.Testpmd = "" },
		"kernel":     func() { o.Kernel = false },
		"wireguard":  func() { o.Wireguard = "" },
		"trial":      func() { o.Trial = 0.15 },
		"sum":        func() { o.Sum = 0.3 },
		"latency":    func() { o.LatencySeconds = 0.2 },
		"ceilings":   func() { o.Ceilings = false },
	} {
		if !set(flag) {
			f()
		}
	}
}
