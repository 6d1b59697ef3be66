// Package wire measures one worker of the running gateway over AF_XDP on veth, beside
// DPDK's ipsec-secgw over net_af_xdp on the same rig in the same run:
//
//	sender (core 0) g0 ══ a0 gateway (one worker, core 1) b0 ══ s0 sink, XDP_DROP
//
// [Run] overloads: each sample has a rig and a gateway of its own; the gateways take turns. The sender offers more than
// either carries and the sink counts only frames of the right protocol and length. For
// decryption the sender seals every packet freshly, so that a replay window sees an honest peer.
//
// [Find] searches: a paced sender offers loads that package search chooses, until it is known what a gateway carries without
// loss and with little, and how long packets are on their way then. It also has a rig with two gateways in a row.
//
// veth knows only AF_XDP's copy mode, which is most of the time of either gateway: these figures
// compare them as users of AF_XDP. What a gateway itself costs is for package pipeline.
package wire

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"sallyport/tools/testbed"
)

// The inner packets go from 203.0.113.0/24 to 198.18.0.0/15, the outer ones from outerLocal to outerRemote.
const (
	innerLocal  = "203.0.113.0/24"
	innerRemote = "198.18.0.0/15"
	outerLocal  = "192.0.2.1"
	outerRemote = "192.0.2.2"
	spi         = 1000   // of the first tunnel
	spiUnused   = 100000 // of the other direction
)

// Interfaces of the rig.
const (
	senderIf, inIf = "g0", "a0"
	outIf, sinkIf  = "b0", "s0"
	// Between two gateways.
	farIn, farOut = "c0", "d0"
)

// rig is three namespaces and what runs in them.
type rig struct {
	bed               *testbed.Bed
	sender, gw, drain *testbed.Namespace
	far               *testbed.Namespace // the second gateway, nil for one
	folder            string
	macs              map[string]net.HardwareAddr // by interface
	sink              *sink
	generator         *generator
	processes         map[int]bool // this one and those of the gateways
}

// newRig builds the namespaces and cables. Nothing sends yet.
func newRig(two bool) (_ *rig, err error) {
	bed, err := testbed.New("wire")
	if err != nil {
		return nil, err
	}
	r := &rig{bed: bed, macs: map[string]net.HardwareAddr{}, processes: map[int]bool{os.Getpid(): true}}
	defer func() {
		if err != nil {
			err = errors.Join(err, bed.Close())
		}
	}()
	if r.folder, err = bed.Folder(); err != nil {
		return nil, err
	}
	type host struct {
		name string
		to   **testbed.Namespace
	}
	hosts := []host{{"sender", &r.sender}, {"gw", &r.gw}, {"sink", &r.drain}}
	if two {
		hosts = append(hosts, host{"far", &r.far})
	}
	for _, n := range hosts {
		if *n.to, err = bed.Namespace(n.name); err != nil {
			return nil, err
		}
		if err = (*n.to).Sysctl("net.ipv6.conf.default.disable_ipv6", "1"); err != nil {
			return nil, err
		}
	}
	ends := map[string]*testbed.Namespace{senderIf: r.sender, inIf: r.gw, outIf: r.gw, sinkIf: r.drain}
	if err = bed.Veth(r.sender, senderIf, r.gw, inIf, 1); err != nil {
		return nil, err
	}
	if two {
		ends[farIn], ends[farOut] = r.far, r.far
		err = errors.Join(bed.Veth(r.gw, outIf, r.far, farIn, 1), bed.Veth(r.far, farOut, r.drain, sinkIf, 1))
	} else {
		err = bed.Veth(r.gw, outIf, r.drain, sinkIf, 1)
	}
	if err != nil {
		return nil, err
	}
	for name, ns := range ends {
		if r.macs[name], err = ns.MAC(name); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *rig) close() error {
	if r.generator != nil {
		r.generator.stop()
	}
	return r.bed.Close()
}

// address gives an interface of the gateway its address and a neighbour that never expires.
func address(ns *testbed.Namespace, name, prefix, neighbour string, mac net.HardwareAddr) error {
	if err := ns.Address(name, prefix); err != nil {
		return err
	}
	index, err := ns.Index(name)
	if err != nil {
		return err
	}
	err = ns.Netlink().NeighSet(&netlink.Neigh{
		LinkIndex: index, State: netlink.NUD_PERMANENT, IP: net.ParseIP(neighbour), HardwareAddr: mac,
	})
	if err != nil {
		return fmt.Errorf("neighbour %s on %s: %w", neighbour, name, err)
	}
	return nil
}

// attachSink makes an interface count and drop what arrives.
func (r *rig) attachSink(ns *testbed.Namespace, name string, wires []wire, sampling bool) error {
	s, err := newSink(wires, sampling)
	if err != nil {
		return err
	}
	r.sink = s
	r.bed.Defer(s.close)
	index, err := ns.Index(name)
	if err != nil {
		return err
	}
	return ns.Do(func() error {
		l, err := link.AttachXDP(link.XDPOptions{Program: s.program, Interface: index, Flags: link.XDPDriverMode})
		if err != nil {
			return fmt.Errorf("sink on %s: %w", name, err)
		}
		r.bed.Defer(l.Close)
		return nil
	})
}

// niceness is the priority of sender and gateways, so that what else the machine does disturbs none of them more
// than another. Sallyportd would take it by itself.
const niceness = -10

// start runs a gateway in its namespace, its output in a file.
func (r *rig) start(ns *testbed.Namespace, cmd *exec.Cmd) (*testbed.Process, error) {
	log, err := os.OpenFile(r.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if path, err := exec.LookPath("nice"); err == nil {
		cmd.Args = append([]string{"nice", "-n", strconv.Itoa(niceness), cmd.Path}, cmd.Args[1:]...)
		cmd.Path = path
	}
	p, err := ns.Start(cmd)
	if err == nil {
		r.processes[cmd.Process.Pid] = true
	}
	return p, err
}

func (r *rig) log() string { return r.folder + "/gateway.log" }

// startMax bounds the time until a gateway carries its first packet.
const startMax = 20 * time.Second

// settle is the time between the first packet and the measurement.
const settle = 500 * time.Millisecond

// sample is one measurement, in million packets.
type sample struct {
	perSecond float64
	// perCPU is per second that the worker had its CPU: on a machine with other work the fairer figure, as
	// long as packets always wait for the worker. 0 without a gateway.
	perCPU float64
}

// measure waits until packets arrive and then counts them for so long. p is the gateway, nil
// for none, and cpu that of its worker.
func (r *rig) measure(seconds float64, p *testbed.Process, cpu int) (s sample, err error) {
	var ended <-chan struct{}
	if p != nil {
		ended = p.Done()
	}
	deadline := time.After(startMax)
	for r.sink.count() == 0 {
		select {
		case <-ended:
			return s, fmt.Errorf("the gateway ended: %w; its last words: %s", p.Wait(), r.lastWords())
		case <-deadline:
			return s, fmt.Errorf("nothing of the right kind came out in %v (%d other packets); the gateway's last words: %s", startMax, r.sink.others(), r.lastWords())
		case err := <-r.generator.failed:
			return s, err
		case <-time.After(20 * time.Millisecond):
		}
	}
	time.Sleep(settle)
	clock := func() (time.Duration, error) {
		if p == nil {
			return 0, nil
		}
		return cpuTime(p.Cmd.Process.Pid, cpu)
	}
	ranBefore, err := clock()
	if err != nil {
		return s, err
	}
	from, began := r.sink.count(), time.Now()
	time.Sleep(time.Duration(seconds * float64(time.Second)))
	n, took := float64(r.sink.count()-from)/1e6, time.Since(began)
	ran, err := clock()
	if err != nil {
		return s, err
	}
	s.perSecond = n / took.Seconds()
	if ran > ranBefore {
		s.perCPU = n / (ran - ranBefore).Seconds()
	}
	select {
	case err := <-r.generator.failed:
		return s, err
	default:
		return s, nil
	}
}

func (r *rig) lastWords() string {
	text, _ := os.ReadFile(r.log())
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], " | ")
}
