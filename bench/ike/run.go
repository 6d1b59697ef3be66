// Package ike measures the key exchange: handshakes and rekeys a second, memory, and what honest clients see of a
// flood of spoofed requests. Both ends are servers of this process, which speak over the kernel's loopback:
//
//	clients (a connection for each tunnel) ══ UDP over 127.0.0.0/8 ══ server (one connection for all)
//
// Their data planes only count. Beside them, in turn, strongSwan's charon speaks with itself over the loopback of a
// namespace, with its load tester in the kernel's place. What only whole gateways can show is measured with two sallyportd on
// package rig's network: many tunnels at once beside traffic, a flood of spoofed requests, an overloaded tunnel. Figures a CPU second are handshakes over the processor time of
// the whole process: on a machine with other work they are the ones to compare.
package ike

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/bench/result"
	"sallyport/ike"
	"sallyport/tools/testbed"
)

// PeerVariable is the environment's name for the path of strongSwan's charon.
const PeerVariable = "STRONGSWAN_CHARON"

// Options say what is measured.
type Options struct {
	Peer       string        // path of charon; "" for none
	Which      []string      // of Measurements
	Runs       int           // samples of each, in turn; the median counts
	Handshakes int           // in one sample
	Tunnels    int           // for memory and set-up
	Flood      int           // spoofed requests a second
	Bin        string        // folder of sallyportd and sallyport, for what daemons are measured in
	Overload   time.Duration // of a tunnel that is offered twice what it carries
	Within     time.Duration // bounds the samples, as result.Rounds has it; each of Which has an equal part of what is left
	// Progress, if set, is told of every sample before it is taken.
	Progress func(what string)
	// Miss, if set, is told of what could not be measured, and why.
	Miss func(name, reason string)
	// Command is written into the rows.
	Command string
}

// Measurements are what Options.Which may name.
var Measurements = []string{"handshake", "rekey", "setup", "flood", "daemons-setup", "daemons-flood", "daemons-overload"}

// handshakes are the scenarios of handshakes. strongSwan before 6.0 has no ML-KEM: hybrids stand alone.
var handshakes = []struct {
	name string
	scenario
	alone bool
}{
	{"psk-x25519", scenario{psk, "aes256gcm16-prfsha256-x25519", "aes256gcm16"}, false},
	{"ecdsa-p256", scenario{ecdsaP256, "aes256gcm16-prfsha256-x25519", "aes256gcm16"}, false},
	{"psk-hybrid", scenario{psk, "aes256gcm16-prfsha256-x25519-ke1_mlkem768", "aes256gcm16"}, true},
}

// rekeys are the scenarios of child rekeys.
var rekeys = []struct {
	name string
	scenario
}{
	{"plain", scenario{psk, "aes256gcm16-prfsha256-x25519", "aes256gcm16"}},
	{"x25519", scenario{psk, "aes256gcm16-prfsha256-x25519", "aes256gcm16-x25519"}},
}

// rekeyed is how many tunnels' children are rekeyed, rekeyRounds how often.
const rekeyed, rekeyRounds = 400, 3

const strongSwan = "strongSwan"

// Run takes all samples and returns their rows.
func Run(ctx context.Context, o Options) ([]result.Row, error) {
	if o.Runs < 1 || o.Handshakes < 1 || o.Tunnels < 1 || o.Tunnels > 1<<16 || o.Flood < 1 || o.Overload <= 0 {
		return nil, errors.New("nothing to measure")
	}
	daemons := func(which string) bool { return strings.HasPrefix(which, "daemons-") }
	if missing := testbed.Missing(testbed.Root...); len(missing) > 0 && slices.ContainsFunc(o.Which, daemons) {
		return nil, fmt.Errorf("two daemons in network namespaces need root: this process lacks %v", missing)
	}
	r := &run{Options: o}
	began := time.Now()
	for i, which := range o.Which {
		var err error
		if o.Within > 0 {
			r.share = max(1, (o.Within-time.Since(began))/time.Duration(len(o.Which)-i))
		}
		switch which {
		case "handshake":
			err = r.handshake(ctx)
		case "rekey":
			err = r.rekey(ctx)
		case "setup":
			err = r.setup(ctx)
		case "flood":
			err = r.flood(ctx)
		case "daemons-setup":
			err = r.daemonsSetup(ctx)
		case "daemons-flood":
			err = r.daemonsFlood(ctx)
		case "daemons-overload":
			err = r.daemonsOverload(ctx)
		default:
			err = fmt.Errorf("measurement %q: there are %v", which, Measurements)
		}
		if err != nil {
			return r.rows, fmt.Errorf("%s: %w", which, err)
		}
	}
	return r.rows, nil
}

type run struct {
	Options
	share time.Duration // of Within, for what is measured now
	rows  []result.Row
}

// inTurn takes samples of n scenarios in turn, each of which tells whether what was sampled so far is unstable.
func (r *run) inTurn(ctx context.Context, n int, unstable func(i int) bool, sample func(i int, round string) error) error {
	rounds := result.Rounds{Runs: r.Runs, Within: r.share}
	for list := rounds.Next(n, unstable); len(list) > 0; list = rounds.Next(n, unstable) {
		for _, i := range list {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := sample(i, rounds.Round()); err != nil {
				return err
			}
		}
	}
	return nil
}

// notAgain is for what is not taken again because it is unstable.
func notAgain(int) bool { return false }

// pairs collects samples of two sides that take turns.
type pairs struct{ ours, theirs []float64 }

func (p pairs) unstable() bool { return result.Unsteady(p.ours, p.theirs) }

func (r *run) next(what string) {
	if r.Progress != nil {
		r.Progress(what)
	}
}

// row adds a row, against a peer if there are samples of one.
func (r *run) row(name, unit, peer string, p pairs) {
	row := result.NewRow("ike/"+name, unit, r.Command, p.ours)
	if len(p.theirs) > 0 {
		row = row.Against(peer, p.theirs)
	}
	r.rows = append(r.rows, row)
}

// ours measures with two servers of this process, of which the one has these limits.
func (r *run) ours(limits ike.Limits, f func(p *pair) error) error {
	w, err := newUDPWire()
	if err != nil {
		return err
	}
	p := newPair(w, limits)
	defer p.close()
	return f(p)
}

// theirs measures with strongSwan. If it does not do what it should, it is left out from then on.
func (r *run) theirs(ctx context.Context, s scenario, f func(p *peer) error) error {
	err := func() (err error) {
		p, err := newPeer(ctx, r.Peer, s)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.close()) }()
		return f(p)
	}()
	return r.leaveOut(ctx, err)
}

// leaveOut leaves strongSwan out after an error.
func (r *run) leaveOut(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	r.Peer = ""
	if r.Miss != nil {
		r.Miss("ike/"+strongSwan, err.Error())
	}
	return nil
}

func (r *run) handshake(ctx context.Context) error {
	rate, cpu, limit := make([]pairs, len(handshakes)), make([]pairs, len(handshakes)), make([]pairs, len(handshakes))
	unstable := func(i int) bool { return rate[i].unstable() || limit[i].unstable() }
	err := r.inTurn(ctx, len(handshakes), unstable, func(i int, round string) error {
		h := &handshakes[i]
		r.next(fmt.Sprintf("%s %s", h.name, round))
		b, err := bound(h.scenario)
		if err != nil {
			return err
		}
		limit[i].theirs = append(limit[i].theirs, b)
		err = r.ours(unlimited, func(p *pair) error {
			s, err := establish(ctx, p, h.scenario, r.Handshakes)
			rate[i].add(&cpu[i], s)
			limit[i].ours = append(limit[i].ours, s.perCPUSecond())
			return err
		})
		if err != nil || r.Peer == "" || h.alone {
			return err
		}
		r.next(fmt.Sprintf("%s, strongSwan, %s", h.name, round))
		return r.theirs(ctx, h.scenario, func(p *peer) error {
			s, err := p.establish(ctx, max(1, r.Handshakes/4))
			if err == nil {
				rate[i].addTheirs(&cpu[i], s)
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	for i, h := range handshakes {
		r.row("handshake/"+h.name, "1/s", strongSwan, rate[i])
		r.row("handshake/"+h.name+"/cpu", "1/cpu-s", strongSwan, cpu[i])
		r.row("handshake/"+h.name+"/bound", "1/cpu-s", "its public-key operations alone", limit[i])
	}
	return nil
}

// add notes one sample of ours by the clock, and in cpu by the processors' time; addTheirs one of the peer's.
func (p *pairs) add(cpu *pairs, s sample) {
	p.ours, cpu.ours = append(p.ours, s.perSecond()), append(cpu.ours, s.perCPUSecond())
}

func (p *pairs) addTheirs(cpu *pairs, s sample) {
	p.theirs, cpu.theirs = append(p.theirs, s.perSecond()), append(cpu.theirs, s.perCPUSecond())
}

func (r *run) rekey(ctx context.Context) error {
	rate, cpu := make([]pairs, len(rekeys)), make([]pairs, len(rekeys))
	err := r.inTurn(ctx, len(rekeys), func(i int) bool { return rate[i].unstable() }, func(i int, round string) error {
		k := &rekeys[i]
		r.next(fmt.Sprintf("rekeys %s %s", k.name, round))
		err := r.ours(unlimited, func(p *pair) error {
			if _, err := establish(ctx, p, k.scenario, rekeyed); err != nil {
				return err
			}
			s, err := rekey(ctx, p, rekeyed, 5*rekeyRounds)
			rate[i].add(&cpu[i], s)
			return err
		})
		if err != nil || r.Peer == "" {
			return err
		}
		r.next(fmt.Sprintf("rekeys %s, strongSwan, %s", k.name, round))
		return r.theirs(ctx, k.scenario, func(p *peer) error {
			if _, err := p.establish(ctx, rekeyed); err != nil {
				return err
			}
			s, err := p.rekey(ctx, rekeyed, rekeyRounds)
			if err == nil {
				rate[i].addTheirs(&cpu[i], s)
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	for i, k := range rekeys {
		r.row("rekey/"+k.name, "1/s", strongSwan, rate[i])
		r.row("rekey/"+k.name+"/cpu", "1/cpu-s", strongSwan, cpu[i])
	}
	return nil
}

// setup measures how long many tunnels take, and what each takes of memory.
func (r *run) setup(ctx context.Context) error {
	s := handshakes[0].scenario
	var seconds, memory pairs
	err := r.inTurn(ctx, 1, func(int) bool { return seconds.unstable() }, func(_ int, round string) error {
		r.next(fmt.Sprintf("%d tunnels %s", r.Tunnels, round))
		err := r.ours(unlimited, func(p *pair) error {
			took, bytes, err := fill(ctx, p, s, r.Tunnels)
			seconds.ours, memory.ours = append(seconds.ours, took.wall.Seconds()), append(memory.ours, bytes)
			return err
		})
		if err != nil || r.Peer == "" {
			return err
		}
		r.next(fmt.Sprintf("%d tunnels, strongSwan, %s", r.Tunnels, round))
		return r.theirs(ctx, s, func(p *peer) error {
			before := p.memory()
			took, err := p.establish(ctx, r.Tunnels)
			if err == nil {
				seconds.theirs = append(seconds.theirs, took.wall.Seconds())
				memory.theirs = append(memory.theirs, (p.memory()-before)/float64(2*r.Tunnels))
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	r.row(fmt.Sprintf("setup/%d", r.Tunnels), "s", strongSwan, seconds)
	r.row("memory", "bytes", strongSwan, memory)
	return nil
}

func (r *run) flood(ctx context.Context) error {
	const tried, honest = 400, 4
	var success, p50, p99, offered []float64
	err := r.inTurn(ctx, 1, notAgain, func(_ int, round string) error {
		r.next(fmt.Sprintf("flood %s", round))
		return r.ours(ike.Limits{}, func(p *pair) error {
			f, err := underFlood(ctx, p, handshakes[0].scenario, r.Flood, tried, honest)
			if err != nil {
				return err
			}
			success, offered = append(success, 100*f.success()), append(offered, f.offered)
			p50, p99 = append(p50, f.milliseconds(0.5)), append(p99, f.milliseconds(0.99))
			return nil
		})
	})
	if err != nil {
		return err
	}
	r.row("flood/offered", "1/s", "", pairs{ours: offered})
	r.row("flood/success", "%", "", pairs{ours: success})
	r.row("flood/p50", "ms", "", pairs{ours: p50})
	r.row("flood/p99", "ms", "", pairs{ours: p99})
	return nil
}

// daemonsSetup measures how long two daemons take for many tunnels, and what an established one loses meanwhile. strongSwan's
// figures are those of setup, with nothing in the kernel's place.
func (r *run) daemonsSetup(ctx context.Context) error {
	var seconds, reload pairs
	var sent, lost, memory []float64
	err := r.inTurn(ctx, 1, func(int) bool { return seconds.unstable() }, func(_ int, round string) error {
		r.next(fmt.Sprintf("%d tunnels of two daemons %s", r.Tunnels, round))
		m, err := massive(ctx, r.Bin, r.Tunnels)
		if err != nil {
			return err
		}
		seconds.ours, reload.ours = append(seconds.ours, m.all-m.first), append(reload.ours, m.all)
		sent, lost, memory = append(sent, m.rate), append(lost, float64(m.lost)), append(memory, m.residentKB)
		if r.Peer == "" {
			return nil
		}
		r.next(fmt.Sprintf("%d tunnels, strongSwan, %s", r.Tunnels, round))
		return r.theirs(ctx, handshakes[0].scenario, func(p *peer) error {
			took, err := p.establish(ctx, r.Tunnels)
			if err == nil {
				seconds.theirs = append(seconds.theirs, took.wall.Seconds())
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	name := fmt.Sprintf("daemons/setup/%d", r.Tunnels)
	r.row(name, "s", strongSwan, seconds)
	r.row(name+"/reload", "s", "", reload)
	r.row(name+"/traffic", "1/s", "", pairs{ours: sent})
	r.row(name+"/lost", "packets", "", pairs{ours: lost})
	r.row(name+"/memory", "KiB", "", pairs{ours: memory})
	return nil
}

// daemonsFlood measures what honest clients see of a flood, of sallyportd's and of charon's.
func (r *run) daemonsFlood(ctx context.Context) error {
	const tried, triedPeer, honest = 200, 40, 4 // of the peer fewer: where it is locked out, each takes honestWait
	var success, p50, p99, offered pairs
	err := r.inTurn(ctx, 1, notAgain, func(_ int, round string) error {
		r.next(fmt.Sprintf("flood of a daemon %s", round))
		f, err := spoofing(ctx, r.Bin, "", r.Flood, tried, honest)
		if err != nil {
			return err
		}
		add := func(f flood, offered, success, p50, p99 *[]float64) {
			*offered, *success = append(*offered, f.offered), append(*success, 100*f.success())
			if len(f.latencies) > 0 { // locked out, nobody has one
				*p50, *p99 = append(*p50, f.milliseconds(0.5)), append(*p99, f.milliseconds(0.99))
			}
		}
		add(f, &offered.ours, &success.ours, &p50.ours, &p99.ours)
		if r.Peer == "" {
			return nil
		}
		r.next(fmt.Sprintf("flood, strongSwan, %s", round))
		if f, err = spoofing(ctx, r.Bin, r.Peer, r.Flood, triedPeer, honest); err != nil {
			return r.leaveOut(ctx, err)
		}
		add(f, &offered.theirs, &success.theirs, &p50.theirs, &p99.theirs)
		return nil
	})
	if err != nil {
		return err
	}
	r.row("daemons/flood/offered", "1/s", strongSwan, offered)
	r.row("daemons/flood/success", "%", strongSwan, success)
	r.row("daemons/flood/p50", "ms", strongSwan, p50)
	r.row("daemons/flood/p99", "ms", strongSwan, p99)
	return nil
}

// daemonsOverload measures what becomes of the key exchange while a tunnel is offered twice what it carries.
func (r *run) daemonsOverload(ctx context.Context) error {
	var capacity, offered, delivered, liveness, success, p50, p99 []float64
	err := r.inTurn(ctx, 1, notAgain, func(_ int, round string) error {
		r.next(fmt.Sprintf("overload %s", round))
		o, err := overloaded(ctx, r.Bin, r.Overload, 2*time.Second)
		if err != nil {
			return err
		}
		for _, err := range o.troubles {
			r.next(err.Error())
		}
		capacity, offered, delivered = append(capacity, o.capacity), append(offered, o.offered), append(delivered, o.delivered)
		liveness, success = append(liveness, o.livenessRate), append(success, 100*float64(o.tried-o.failed)/float64(o.tried))
		f := flood{latencies: o.latencies}
		p50, p99 = append(p50, f.milliseconds(0.5)), append(p99, f.milliseconds(0.99))
		return nil
	})
	if err != nil {
		return err
	}
	r.row("daemons/overload/capacity", "1/s", "", pairs{ours: capacity})
	r.row("daemons/overload/offered", "1/s", "", pairs{ours: offered})
	r.row("daemons/overload/delivered", "1/s", "", pairs{ours: delivered})
	r.row("daemons/overload/liveness", "1/s", "", pairs{ours: liveness})
	r.row("daemons/overload/success", "%", "", pairs{ours: success})
	r.row("daemons/overload/p50", "ms", "", pairs{ours: p50})
	r.row("daemons/overload/p99", "ms", "", pairs{ours: p99})
	return nil
}
