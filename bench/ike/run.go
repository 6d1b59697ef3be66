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
	"time"

	"sallyport/bench/result"
	"sallyport/ike"
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
	// Progress, if set, is told of every sample before it is taken.
	Progress func(what string)
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
	r := &run{Options: o}
	for _, which := range o.Which {
		var err error
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
	rows []result.Row
}

// pairs collects samples of two sides that take turns.
type pairs struct{ ours, theirs []float64 }

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

// theirs measures with strongSwan, if there is one.
func (r *run) theirs(ctx context.Context, s scenario, f func(p *peer) error) (err error) {
	p, err := newPeer(ctx, r.Peer, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	return f(p)
}

func (r *run) handshake(ctx context.Context) error {
	for _, h := range handshakes {
		var rate, cpu, limit pairs
		for i := range r.Runs {
			r.next(fmt.Sprintf("%s %d of %d", h.name, i+1, r.Runs))
			b, err := bound(h.scenario)
			if err != nil {
				return err
			}
			limit.theirs = append(limit.theirs, b)
			err = r.ours(unlimited, func(p *pair) error {
				s, err := establish(ctx, p, h.scenario, r.Handshakes)
				rate.ours, cpu.ours, limit.ours = append(rate.ours, s.perSecond()), append(cpu.ours, s.perCPUSecond()), append(limit.ours, s.perCPUSecond())
				return err
			})
			if err != nil {
				return err
			}
			if r.Peer == "" || h.alone {
				continue
			}
			r.next(fmt.Sprintf("%s, strongSwan, %d of %d", h.name, i+1, r.Runs))
			err = r.theirs(ctx, h.scenario, func(p *peer) error {
				s, err := p.establish(ctx, max(1, r.Handshakes/4))
				rate.theirs, cpu.theirs = append(rate.theirs, s.perSecond()), append(cpu.theirs, s.perCPUSecond())
				return err
			})
			if err != nil {
				return err
			}
		}
		r.row("handshake/"+h.name, "1/s", strongSwan, rate)
		r.row("handshake/"+h.name+"/cpu", "1/cpu-s", strongSwan, cpu)
		r.row("handshake/"+h.name+"/bound", "1/cpu-s", "its public-key operations alone", limit)
	}
	return nil
}

func (r *run) rekey(ctx context.Context) error {
	for _, k := range rekeys {
		var rate, cpu pairs
		for i := range r.Runs {
			r.next(fmt.Sprintf("rekeys %s %d of %d", k.name, i+1, r.Runs))
			err := r.ours(unlimited, func(p *pair) error {
				if _, err := establish(ctx, p, k.scenario, rekeyed); err != nil {
					return err
				}
				s, err := rekey(ctx, p, rekeyed, 5*rekeyRounds)
				rate.ours, cpu.ours = append(rate.ours, s.perSecond()), append(cpu.ours, s.perCPUSecond())
				return err
			})
			if err != nil {
				return err
			}
			if r.Peer == "" {
				continue
			}
			r.next(fmt.Sprintf("rekeys %s, strongSwan, %d of %d", k.name, i+1, r.Runs))
			err = r.theirs(ctx, k.scenario, func(p *peer) error {
				if _, err := p.establish(ctx, rekeyed); err != nil {
					return err
				}
				s, err := p.rekey(ctx, rekeyed, rekeyRounds)
				rate.theirs, cpu.theirs = append(rate.theirs, s.perSecond()), append(cpu.theirs, s.perCPUSecond())
				return err
			})
			if err != nil {
				return err
			}
		}
		r.row("rekey/"+k.name, "1/s", strongSwan, rate)
		r.row("rekey/"+k.name+"/cpu", "1/cpu-s", strongSwan, cpu)
	}
	return nil
}

// setup measures how long many tunnels take, and what each takes of memory.
func (r *run) setup(ctx context.Context) error {
	s := handshakes[0].scenario
	var seconds, memory pairs
	for i := range r.Runs {
		r.next(fmt.Sprintf("%d tunnels %d of %d", r.Tunnels, i+1, r.Runs))
		err := r.ours(unlimited, func(p *pair) error {
			took, bytes, err := fill(ctx, p, s, r.Tunnels)
			seconds.ours, memory.ours = append(seconds.ours, took.wall.Seconds()), append(memory.ours, bytes)
			return err
		})
		if err != nil {
			return err
		}
		if r.Peer == "" {
			continue
		}
		r.next(fmt.Sprintf("%d tunnels, strongSwan, %d of %d", r.Tunnels, i+1, r.Runs))
		err = r.theirs(ctx, s, func(p *peer) error {
			before := p.memory()
			took, err := p.establish(ctx, r.Tunnels)
			seconds.theirs = append(seconds.theirs, took.wall.Seconds())
			memory.theirs = append(memory.theirs, (p.memory()-before)/float64(2*r.Tunnels))
			return err
		})
		if err != nil {
			return err
		}
	}
	r.row(fmt.Sprintf("setup/%d", r.Tunnels), "s", strongSwan, seconds)
	r.row("memory", "bytes", strongSwan, memory)
	return nil
}

func (r *run) flood(ctx context.Context) error {
	const tried, honest = 400, 4
	var success, p50, p99, offered []float64
	for i := range r.Runs {
		r.next(fmt.Sprintf("flood %d of %d", i+1, r.Runs))
		err := r.ours(ike.Limits{}, func(p *pair) error {
			f, err := underFlood(ctx, p, handshakes[0].scenario, r.Flood, tried, honest)
			if err != nil {
				return err
			}
			success, offered = append(success, 100*f.success()), append(offered, f.offered)
			p50, p99 = append(p50, f.milliseconds(0.5)), append(p99, f.milliseconds(0.99))
			return nil
		})
		if err != nil {
			return err
		}
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
	for i := range r.Runs {
		r.next(fmt.Sprintf("%d tunnels of two daemons %d of %d", r.Tunnels, i+1, r.Runs))
		m, err := massive(ctx, r.Bin, r.Tunnels)
		if err != nil {
			return err
		}
		seconds.ours, reload.ours = append(seconds.ours, m.all-m.first), append(reload.ours, m.all)
		sent, lost, memory = append(sent, m.rate), append(lost, float64(m.lost)), append(memory, m.residentKB)
		if r.Peer == "" {
			continue
		}
		r.next(fmt.Sprintf("%d tunnels, strongSwan, %d of %d", r.Tunnels, i+1, r.Runs))
		err = r.theirs(ctx, handshakes[0].scenario, func(p *peer) error {
			took, err := p.establish(ctx, r.Tunnels)
			seconds.theirs = append(seconds.theirs, took.wall.Seconds())
			return err
		})
		if err != nil {
			return err
		}
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
	for i := range r.Runs {
		r.next(fmt.Sprintf("flood of a daemon %d of %d", i+1, r.Runs))
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
			continue
		}
		r.next(fmt.Sprintf("flood, strongSwan, %d of %d", i+1, r.Runs))
		if f, err = spoofing(ctx, r.Bin, r.Peer, r.Flood, triedPeer, honest); err != nil {
			return err
		}
		add(f, &offered.theirs, &success.theirs, &p50.theirs, &p99.theirs)
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
	for i := range r.Runs {
		r.next(fmt.Sprintf("overload %d of %d", i+1, r.Runs))
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
