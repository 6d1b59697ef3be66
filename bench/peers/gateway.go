// Package peers measures the gateway and the cipher beside those that others wrote, in one run, in turn, on the same core
// and with packets made alike: DPDK's ipsec-secgw from memory to memory, libipsec-mb's direct call, and Go's crypto/cipher.
//
// What differs is to ours' disadvantage: it has extended sequence numbers and a replay window of 4096; ipsec-secgw has
// neither, since the same sealed packets come round again. Its best mode is the one with the best median of the run.
package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"sallyport/bench/pipeline"
	"sallyport/bench/result"
	"sallyport/bench/secgw"
	"sallyport/dataplane/packet"
)

// Options say what is measured.
type Options struct {
	Sizes      []int         // of the inner packets, pipeline.SizeMin to pipeline.SizeMax
	Directions []string      // encrypt, decrypt
	Modes      []string      // of ipsec-secgw, by name
	Runs       int           // samples of each, in turn
	Within     time.Duration // bounds the samples, as result.Rounds has it
	Seconds    int           // of one sample
	Core       int
	Folder     string // where the peers are built
	Program    string // ipsec-secgw, if it is there already
	Command    string // written into the rows
	// Log is told what is installed and built, and Progress of every sample before it is taken.
	Log      io.Writer
	Progress func(what string)
}

func (o *Options) check() error {
	if o.Runs < 1 || o.Seconds < 1 {
		return fmt.Errorf("%d runs of %d seconds", o.Runs, o.Seconds)
	}
	for _, s := range o.Sizes {
		if s < pipeline.SizeMin || s > pipeline.SizeMax {
			return fmt.Errorf("size %d: %d to %d are possible", s, pipeline.SizeMin, pipeline.SizeMax)
		}
	}
	for _, d := range o.Directions {
		if d != "encrypt" && d != "decrypt" {
			return fmt.Errorf("direction %q: encrypt or decrypt", d)
		}
	}
	if len(o.Modes) == 0 {
		return errors.New("no mode of " + secgw.Name)
	}
	_, err := o.modes()
	return err
}

func (o *Options) modes() ([]secgw.Mode, error) {
	var modes []secgw.Mode
	for _, name := range o.Modes {
		i := slices.IndexFunc(secgw.Modes, func(m secgw.Mode) bool { return m.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("mode %q: one of %v", name, secgw.ModeNames())
		}
		modes = append(modes, secgw.Modes[i])
	}
	return modes, nil
}

// Samples is how many samples Run takes.
func (o *Options) Samples() int {
	return o.Runs * (len(o.Directions)*len(o.Sizes)*(1+len(o.Modes)) + 1)
}

// Run measures everything and returns the rows gateway/..., in Mpps, and aesgcm128/..., in nanoseconds. Rows of what could be
// measured come with the error of what could not.
func Run(ctx context.Context, o Options) ([]result.Row, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := secgw.Install(ctx, o.Log); err != nil {
		return nil, fmt.Errorf("installing the peers: %w", err)
	}
	cipher, cipherErr := newCiphers(ctx, &o)
	gateways, err := newGateways(ctx, &o)
	if err != nil {
		return nil, errors.Join(cipherErr, err)
	}
	defer gateways.close()
	// A round is one of the cipher's and one of each case of the gateways'.
	n := 1 + len(gateways.cases)
	unstable := func(i int) bool { return i == 0 && cipher.unstable() || i > 0 && gateways.cases[i-1].unstable() }
	rounds := result.Rounds{Runs: o.Runs, Within: o.Within}
	for list := rounds.Next(n, unstable); len(list) > 0; list = rounds.Next(n, unstable) {
		for _, i := range list {
			if i > 0 {
				if err := gateways.sample(ctx, &o, &gateways.cases[i-1], rounds.Round()); err != nil {
					return nil, errors.Join(cipherErr, err)
				} else if ctx.Err() != nil {
					return nil, ctx.Err()
				}
			} else if cipherErr == nil {
				o.Progress(fmt.Sprintf("aesgcm128, run %s", rounds.Round()))
				cipherErr = cipher.sample(ctx, &o)
			}
		}
	}
	return append(gateways.rows(&o), cipher.rows(&o)...), errors.Join(cipherErr, gateways.broken)
}

// gateways is the part of a run that measures whole gateways.
type gateways struct {
	program string
	modes   []secgw.Mode
	release func() error
	cases   []gatewayCase
	broken  error // why the peer does not carry: from then on ours stands alone
}

type gatewayCase struct {
	direction string
	size      int
	ours      []float64
	theirs    [][]float64 // by mode
}

func newGateways(ctx context.Context, o *Options) (*gateways, error) {
	modes, err := o.modes()
	if err != nil {
		return nil, err
	}
	g := &gateways{program: o.Program, modes: modes}
	if g.program == "" {
		if g.program, err = secgw.Build(ctx, o.Folder, o.Log); err != nil {
			return nil, fmt.Errorf("building %s: %w", secgw.Name, err)
		}
	}
	if g.release, err = secgw.ReserveHugePages(); err != nil {
		return nil, err
	}
	for _, d := range o.Directions {
		for _, s := range o.Sizes {
			g.cases = append(g.cases, gatewayCase{direction: d, size: s, theirs: make([][]float64, len(modes))})
		}
	}
	return g, nil
}

func (g *gateways) close() error { return g.release() }

// sample takes one sample of a case, by us and by every mode of the peer.
func (g *gateways) sample(ctx context.Context, o *Options, c *gatewayCase, round string) error {
	what := fmt.Sprintf("gateway/%s/%d, run %s: ", c.direction, c.size, round)
	o.Progress(what + "ours")
	rate, err := c.sampleOurs(o)
	if err != nil {
		return err
	}
	c.ours = append(c.ours, rate)
	for m := range g.modes {
		if g.broken != nil {
			return nil
		}
		o.Progress(what + secgw.Name + ", " + g.modes[m].Name)
		rate, err := g.samplePeer(ctx, o, c, g.modes[m])
		if err != nil {
			g.broken = fmt.Errorf("%s, %s: %w", secgw.Name, g.modes[m].Name, err)
			return nil
		}
		c.theirs[m] = append(c.theirs[m], rate)
	}
	return nil
}

func (c *gatewayCase) unstable() bool {
	return result.Unsteady(c.ours) || result.Unsteady(c.theirs...)
}

func (c *gatewayCase) sampleOurs(o *Options) (float64, error) {
	// Rings as short as a batch, since the peer has none: it copies each burst into the buffers that it freed last.
	r, err := pipeline.New(pipeline.Options{Decrypt: c.direction == "decrypt", Sizes: []int{c.size}, Flows: peerFrames, Packets: peerFrames, Ring: packet.BatchMax})
	if err != nil {
		return 0, err
	}
	defer r.Close()
	cores := []int{o.Core}
	if _, err := r.Measure(r.Round(), 100*time.Millisecond, cores); err != nil {
		return 0, err
	}
	s, err := r.Measure(0, time.Duration(o.Seconds)*time.Second, cores)
	return s.Mpps(), err
}

const peerSPI = 1000

// peerFrames is how many different packets either gateway is given, one of each flow: both read them from the second-level cache.
const peerFrames = 256

// peerKeymat is a key and a salt; what they are does not matter, the peer cannot be told to make its own.
var peerKeymat = []byte("a benchmark key only")

func (g *gateways) samplePeer(ctx context.Context, o *Options, c *gatewayCase, mode secgw.Mode) (float64, error) {
	frames, err := pipeline.Frames(c.direction == "decrypt", c.size, peerFrames, peerKeymat, peerSPI)
	if err != nil {
		return 0, err
	}
	run := secgw.Memory{
		Program: g.program, Mode: mode, Decrypt: c.direction == "decrypt", Frames: frames, Core: o.Core, Seconds: o.Seconds,
		Tunnel: secgw.Tunnel{
			SPI: peerSPI, Keymat: peerKeymat, Source: pipeline.Source, Destination: pipeline.Destination, Remote: pipeline.RemoteNet,
			MAC0: "02:00:00:00:00:0a", MAC1: "02:00:00:00:00:0b",
		},
	}
	rates, err := run.Run(ctx)
	return result.Median(rates), err
}

func (g *gateways) rows(o *Options) []result.Row {
	var rows []result.Row
	for _, c := range g.cases {
		best := 0
		for m := range c.theirs {
			if result.Median(c.theirs[m]) > result.Median(c.theirs[best]) {
				best = m
			}
		}
		row := result.NewRow(fmt.Sprintf("gateway/%s/%d", c.direction, c.size), "Mpps", o.Command, c.ours).With(result.Parameters{
			Direction: c.direction, Size: strconv.Itoa(c.size), Bytes: float64(c.size), Tunnels: 1, Workers: 1, Suite: "aes128gcm16",
		})
		if len(c.theirs[best]) > 0 {
			row = row.Against(secgw.Name+" "+g.modes[best].Name, c.theirs[best])
		}
		rows = append(rows, row)
	}
	return rows
}
