package wire

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/cilium/ebpf/rlimit"

	"sallyport/bench/result"
	"sallyport/bench/secgw"
	"sallyport/tools/testbed"
)

// Options say what is measured.
type Options struct {
	Bin        string   // folder with sallyportd
	Peer       string   // path of ipsec-secgw; "" for none
	Testpmd    string   // path of DPDK's testpmd; "" for none
	Wireguard  string   // path of wireguard-go; "" for none. It and Kernel are for [Find] only.
	StrongSwan string   // path of strongSwan's charon, with ESP in user space; "" for none. For [Find] only.
	Kernel     bool     // the kernel's forwarding, too
	Directions []string // encrypt, decrypt
	Sizes      []int    // of the inner packets, SizeMin to SizeMax
	Runs       int      // samples of each gateway, in turn
	Seconds    float64  // of one sample
	SenderCPU  int
	WorkerCPU  int
	// Progress, if set, is told of every sample before it is taken.
	Progress func(what string)
	// Log, if set, is told of what was found.
	Log func(what string)
	// Interface, if set, is told of the rig's interfaces and how packets pass them.
	Interface func(result.Interface)
	// Command is written into the rows.
	Command string
}

// Sizes of inner packets: UDP needs its header, a sealed packet must fit the wire's 1500.
const (
	SizeMin = 28
	SizeMax = 1440
)

func (o *Options) check() error {
	if o.Runs < 1 || o.Seconds <= 0 {
		return fmt.Errorf("%d runs of %v seconds", o.Runs, o.Seconds)
	}
	for _, s := range o.Sizes {
		if s < SizeMin || s > SizeMax {
			return fmt.Errorf("size %d: %d to %d are possible", s, SizeMin, SizeMax)
		}
	}
	for _, d := range o.Directions {
		if d != "encrypt" && d != "decrypt" {
			return fmt.Errorf("direction %q: encrypt or decrypt", d)
		}
	}
	if o.SenderCPU == o.WorkerCPU {
		return errors.New("sender and worker need a CPU each")
	}
	return nil
}

// able says what this process or machine lacks for a rig.
func able() error {
	if missing := testbed.Missing(testbed.Root...); len(missing) > 0 {
		return fmt.Errorf("needs root: this process lacks %v", missing)
	}
	if n := runtime.NumCPU(); n < 2 {
		return fmt.Errorf("needs two CPUs, one for the sender and one for the gateway; this process may use %d", n)
	}
	return nil
}

// Samples is how many samples Run takes.
func (o *Options) Samples() int {
	return len(o.Directions) * len(o.Sizes) * (1 + o.Runs*len(o.contenders()))
}

// contender is who carries the packets of a sample.
type contender int

const (
	nobody contender = iota // the sender straight into a sink: what the rig can offer
	ours
	peers
	testpmd
	kernel
	wireguard
	strongSwan
	contenders
)

func (c contender) String() string {
	return [...]string{"the sink alone", "sallyportd", secgw.Name, TestpmdName, KernelName, WireguardName, StrongSwanName}[c]
}

// suffix tells the rows beside one contender from those beside another.
func (c contender) suffix() string {
	return [contenders]string{testpmd: "/ceiling", kernel: "/kernel", wireguard: "/wireguard", strongSwan: "/strongswan"}[c]
}

// byStack says that a contender receives by the kernel's network stack: veth's ring is then what it receives by.
func (c contender) byStack() bool { return c == kernel || c == wireguard || c == strongSwan }

// contenders are those that carry packets in this run.
func (o *Options) contenders() []contender {
	all := []contender{ours}
	if o.Peer != "" {
		all = append(all, peers)
	}
	if o.Testpmd != "" {
		all = append(all, testpmd)
	}
	if o.Kernel {
		all = append(all, kernel)
	}
	if o.Wireguard != "" {
		all = append(all, wireguard)
	}
	if o.StrongSwan != "" {
		all = append(all, strongSwan)
	}
	return all
}

// Run measures the sender alone, sallyportd and the peer, in turn, and returns the rows veth/sender/..., which
// is the rig's own ceiling, veth/encrypt/... and veth/decrypt/..., and the same with /cpu behind it, per
// second of the worker's CPU time; veth/encrypt/64/ceiling is the same beside testpmd.
// It needs root, two CPUs and nothing else that uses the names of [testbed].
func Run(ctx context.Context, o Options) (_ []result.Row, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := able(); err != nil {
		return nil, err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("raising the limit of locked memory: %w", err)
	}
	who := append([]contender{nobody}, o.contenders()...)
	for _, path := range []string{o.Peer, o.Testpmd} {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("peer: %w", err)
		}
	}
	if o.Peer != "" || o.Testpmd != "" {
		pages, err := reserve()
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, pages.Close()) }()
	}
	var rows []result.Row
	for _, direction := range o.Directions {
		for _, size := range o.Sizes {
			var rates, perCPU [contenders][]float64
			for run := range o.Runs {
				for _, w := range who {
					if w == nobody && run > 0 {
						continue // once a case is enough to know the ceiling
					}
					if o.Progress != nil {
						o.Progress(fmt.Sprintf("%s %d, run %d of %d", direction, size, run+1, o.Runs))
					}
					s, err := o.sample(ctx, w, direction == "decrypt", size)
					if err != nil {
						return rows, fmt.Errorf("%s of %d bytes by %s: %w", direction, size, w, err)
					}
					rates[w] = append(rates[w], s.perSecond)
					perCPU[w] = append(perCPU[w], s.perCPU)
				}
			}
			name := fmt.Sprintf("%s/%d", direction, size)
			rows = append(rows, result.NewRow("veth/sender/"+name, "Mpps", o.Command, rates[nobody]),
				o.row("veth/"+name, rates, peers), o.row("veth/"+name+"/cpu", perCPU, peers))
			if o.Testpmd != "" {
				rows = append(rows, o.row("veth/"+name+"/ceiling", rates, testpmd))
			}
		}
	}
	return rows, nil
}

// row is ours beside one peer's, if that took part.
func (o *Options) row(name string, samples [contenders][]float64, peer contender) result.Row {
	r := result.NewRow(name, "Mpps", o.Command, samples[ours])
	if len(samples[peer]) > 0 {
		r = r.Against(peer.String(), samples[peer])
	}
	return r
}

// keymatSize is AES-128's key and the salt (RFC 4106, 8.1).
const keymatSize = 20

// startContender makes one contender ready to carry traffic on a rig, and a sink for what it sends. Nobody gives no process.
func (r *rig) startContender(o *Options, who contender, t traffic, tunnels []tunnel, sampling bool) (p *testbed.Process, err error) {
	switch who {
	case nobody:
		return nil, r.attachSink(r.gw, inIf, t.offered(), sampling)
	case wireguard: // the sink would drop its handshake
		if p, err = r.startWireguard(o); err != nil {
			return nil, err
		}
		return p, r.attachSink(r.drain, sinkIf, wireguardWires(t), sampling)
	case strongSwan:
		if p, err = r.startStrongSwan(o); err != nil {
			return nil, err
		}
		return p, r.attachSink(r.drain, sinkIf, strongSwanWires(t), sampling)
	case testpmd, kernel: // what goes in comes out
		err = r.attachSink(r.drain, sinkIf, t.offered(), sampling)
	default:
		err = r.attachSink(r.drain, sinkIf, t.expected(), sampling)
	}
	if err != nil {
		return nil, err
	}
	switch who {
	case ours:
		return r.startOurs(o, r.only(t.decrypt), tunnels)
	case peers:
		return r.startPeer(o, t.decrypt, tunnels[0].keymat)
	case kernel:
		return nil, r.forwardByKernel(o)
	default:
		return r.startTestpmd(o)
	}
}

// sample builds a rig, lets one contender carry packets and takes the rig down.
func (o *Options) sample(ctx context.Context, who contender, decrypt bool, size int) (got sample, err error) {
	if err := ctx.Err(); err != nil {
		return got, err
	}
	r, err := newRig(false)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	t := traffic{decrypt, []int{size}, 1}
	tunnels, err := newTunnels(1)
	if err != nil {
		return got, err
	}
	gateway, err := r.startContender(o, who, t, tunnels, false)
	if err != nil {
		return got, err
	}
	if r.generator, err = newGenerator(newSource(t, tunnels, r.macs[inIf], r.macs[senderIf])); err != nil {
		return got, err
	}
	if err := r.generator.start(r.sender, senderIf, o.SenderCPU); err != nil {
		return got, err
	}
	if got, err = r.measure(o.Seconds, gateway, o.WorkerCPU); err != nil || gateway == nil {
		return got, err
	}
	r.generator.halt()
	if who == ours {
		return got, gateway.Stop(5 * time.Second)
	}
	gateway.Kill() // what it printed at its end would be of no use
	return got, nil
}
