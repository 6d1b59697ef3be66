package wire

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"sallyport/bench/result"
	"sallyport/tools/testbed"
)

// gateway is the place of a gateway: its interfaces from the sender to the sink, and its neighbours' addresses there.
type gateway struct {
	ns             *testbed.Namespace
	in, out        string
	before, behind net.HardwareAddr
	decrypt        bool
}

// only is the place of a gateway that is alone; near and distant are those of two, which encrypt and decrypt.
func (r *rig) only(decrypt bool) gateway {
	return gateway{r.gw, inIf, outIf, r.macs[senderIf], r.macs[sinkIf], decrypt}
}
func (r *rig) near() gateway {
	return gateway{r.gw, inIf, outIf, r.macs[senderIf], r.macs[farIn], false}
}
func (r *rig) distant() gateway {
	return gateway{r.far, farIn, farOut, r.macs[outIf], r.macs[sinkIf], true}
}

// startOurs starts sallyportd with one worker: an anti-replay window of 4096, no ESN,
// because the peer has none.
func (r *rig) startOurs(o *Options, g gateway, tunnels []tunnel) (*testbed.Process, error) {
	place := "encrypt"
	if g.decrypt {
		place = "decrypt"
	}
	pins := filepath.Join(r.folder, "bpf-"+place)
	if err := os.Mkdir(pins, 0o700); err != nil {
		return nil, err
	}
	// Unmounted with the folder, and with it go the pins.
	if err := unix.Mount("bpf", pins, "bpf", 0, "mode=0700"); err != nil {
		return nil, fmt.Errorf("mounting a bpffs at %s: %w", pins, err)
	}
	// The neighbours stand for the far end and the hosts, whatever the role of their side.
	protected, outside, local, remote := g.in, g.out, outerLocal, outerRemote
	var err error
	if g.decrypt {
		protected, outside, local, remote = g.out, g.in, remote, local
		err = errors.Join(address(g.ns, g.in, outerRemote+"/24", outerLocal, g.before),
			address(g.ns, g.out, "198.51.100.1/24", "198.51.100.2", g.behind), g.ns.Route(innerRemote, "198.51.100.2"))
	} else {
		err = errors.Join(address(g.ns, g.out, outerLocal+"/24", outerRemote, g.behind),
			address(g.ns, g.in, "203.0.113.254/24", "203.0.113.1", g.before))
	}
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `instance: %s
control: {socket: %s}
workers: {count: 1, cores: %d}
dataplane: {pin_dir: %s}
interfaces:
  %s: {role: protected}
  %s: {role: outside}
insecure_manual_keys: true
connections:
  peer:
    local_addrs: %s
    remote_addrs: %s
    children:
`, place, r.socket(place), o.WorkerCPU, filepath.Join(pins, place), protected, outside, local, remote)
	for i := range tunnels {
		localTS, remoteTS := innerLocal, innerRemote
		if len(tunnels) > 1 {
			remoteTS = netip.AddrFrom4(remoteOf(i)).String() + "/32"
		}
		if g.decrypt {
			localTS, remoteTS = remoteTS, localTS
		}
		fmt.Fprintf(&b, "      net%d: {local_ts: %s, remote_ts: %s, esp_proposals: aes128gcm16-noesn}\n", i, localTS, remoteTS)
	}
	fmt.Fprintln(&b, "manual:")
	unused := make([]byte, keymatSize) // the other direction's key
	for i := range tunnels {
		rand.Read(unused)
		in, out, keyIn, keyOut := spiUnused+i, spi+i, unused, tunnels[i].keymat
		if g.decrypt {
			in, out, keyIn, keyOut = out, in, keyOut, keyIn
		}
		fmt.Fprintf(&b, "  peer/net%d: {spi_in: %d, spi_out: %d, key_in: \"%x\", key_out: \"%x\"}\n", i, in, out, keyIn, keyOut)
	}
	file := filepath.Join(r.folder, place+".yaml")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		return nil, err
	}
	return r.start(g.ns, exec.Command(filepath.Join(o.Bin, "sallyportd"), "--config", file))
}

// socket is where the gateway that encrypts or decrypts is asked.
func (r *rig) socket(place string) string { return filepath.Join(r.folder, "sock-"+place) }

// drops asks the gateways of the rig what they have dropped since they started, and adds what the rings before them could not take.
func (a *ready) drops(o *Options) ([]result.Drop, error) {
	var all []result.Drop
	add := func(name string, packets uint64) {
		if packets == 0 {
			return
		}
		if i := slices.IndexFunc(all, func(d result.Drop) bool { return d.Name == name }); i >= 0 {
			all[i].Packets += packets
			return
		}
		all = append(all, result.Drop{Name: name, Packets: packets})
	}
	gateways, err := a.counters(o)
	if err != nil {
		return nil, err
	}
	for _, g := range gateways {
		for _, d := range g.Drops {
			add(d.Name, d.Packets)
		}
		for _, p := range g.Ports {
			for _, q := range p.Queues {
				add(DropSocket, q.RxDropped)
				add(DropRing, q.RxRingFull)
			}
		}
	}
	add(DropVeth, a.droppedByVeth())
	return all, nil
}

// counters are those of one gateway, as its control tool tells them.
type counters struct {
	Drops []result.Drop `json:"drops"`
	Ports []struct {
		Name   string `json:"name"`
		Mode   string `json:"mode"`
		Reason string `json:"reason"`
		Queues []struct {
			RxDropped  uint64 `json:"rx_dropped"`
			RxRingFull uint64 `json:"rx_ring_full"`
		} `json:"queues"`
	} `json:"ports"`
}

// counters asks the gateways of the rig.
func (r *rig) counters(o *Options) (all []counters, err error) {
	for _, place := range []string{Encrypt, Decrypt} {
		if _, err := os.Stat(r.socket(place)); err != nil {
			continue // the rig has only the other one
		}
		text, err := exec.Command(filepath.Join(o.Bin, "sallyport"), "--socket", r.socket(place), "counters", "--json").Output()
		if err != nil {
			return nil, fmt.Errorf("asking the gateway for its counters: %w", err)
		}
		var c counters
		if err := json.Unmarshal(text, &c); err != nil {
			return nil, fmt.Errorf("the gateway's counters: %w", err)
		}
		all = append(all, c)
	}
	return all, nil
}

// tellInterfaces tells how packets pass the rig's interfaces: the gateways' as they say themselves.
func (r *rig) tellInterfaces(o *Options) error {
	if o.Interface == nil {
		return nil
	}
	gateways, err := r.counters(o)
	if err != nil {
		return err
	}
	const driver = "veth"
	o.Interface(result.Interface{Name: senderIf, Place: "sender", Driver: driver, Queues: 1, Mode: "copy", Reason: "asked for"})
	for _, g := range gateways {
		for _, p := range g.Ports {
			if len(p.Queues) > 0 && p.Mode != "tun" {
				o.Interface(result.Interface{Name: p.Name, Place: "gateway", Driver: driver, Queues: len(p.Queues), Mode: p.Mode, Reason: p.Reason})
			}
		}
	}
	o.Interface(result.Interface{Name: sinkIf, Place: "sink", Driver: driver, Queues: 1, Mode: "native", Reason: "its program counts and drops, without a socket"})
	return nil
}

// Names of what is lost outside the gateway's own table of reasons.
const (
	DropSocket = "AF_XDP socket"  // the kernel had no frame of the gateway's to copy to
	DropRing   = "AF_XDP ring"    // the gateway did not empty its RX ring in time
	DropVeth   = "the rig's veth" // a veth's own ring of 256 packets was full
)
