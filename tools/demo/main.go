// Command demo runs the gateway's main job on one machine and proves it.
//
//	host-a ───── gw-a ───── transit ───── gw-b ───── host-b
//	198.51.100.10   192.0.2.1   bridge   192.0.2.2   198.51.100.138
//	2001:db8:a::10  2001:db8:ff::1   2001:db8:ff::2  2001:db8:b::10
//
// Five network namespaces; two sallyportd from two configuration files. They agree on keys by
// IKEv2, x25519 with ML-KEM-768: over IPv4 with a fresh preshared key, over IPv6 with certificates of a
// fresh authority. IPv4 goes through an IPv4 tunnel in raw ESP, IPv6 through an IPv6
// tunnel in UDP. The hosts' own kernels ping, send TCP and UDP; both gateways renew all keys under
// traffic, and nothing may be lost. A capture on the
// bridge proves that nothing but ESP and IKE crossed it, after it has shown, with a
// deliberate cleartext packet, that it would have seen anything else. The gateways'
// kernels could forward everything in the clear (ip_forward=1, routes to each
// other): what keeps them from it is the gateway.
//
// The last line is "demo: PASS" or "demo: FAIL: why" (exit status 1). Figures go to
// a JSON file. Everything is removed again, also after a failure or Ctrl-C.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// limit bounds the whole run.
const limit = 85 * time.Second

// result is what build/demo.json holds.
type result struct {
	Schema  int             `json:"schema"` // 1
	Pass    bool            `json:"pass"`
	Why     string          `json:"why,omitempty"`
	Start   time.Time       `json:"start"`
	Seconds float64         `json:"seconds"`
	Ping    []ping          `json:"ping"`
	MTU     map[string]int  `json:"tunnel_mtu"` // bytes of the inner packet, by family
	TCP     []transfer      `json:"tcp"`
	UDP     []sweep         `json:"udp"`
	Rekeyed []rekeyed       `json:"rekeyed"`
	Probe   testbed.Figures `json:"capture_probe"`   // the deliberate cleartext packet
	Capture testbed.Figures `json:"capture_traffic"` // everything after it
	Sent    []rig.Sent      `json:"esp_sent"`        // what the gateways say
	Raw     []rig.Readings  `json:"gateways"`        // their own reports, verbatim
}

func main() {
	bin := flag.String("bin", "build", "folder with sallyportd and sallyport")
	out := flag.String("json", "build/demo.json", "file for the figures")
	gateway := flag.String("gateway", "sallyport", "what stands at the tunnel's ends: sallyport, or kernel (plain forwarding, to see the demo fail)")
	size := flag.Int("mib", 256, "MiB of TCP each way over IPv4; IPv6 takes a quarter of it")
	keep := flag.Bool("hold", false, "prove nothing: keep the gateways running with traffic until Ctrl-C")
	flag.Parse()

	if missing := testbed.Missing(testbed.Root...); len(missing) > 0 {
		fmt.Printf("The demo makes network namespaces and attaches XDP programs; this process lacks %v.\n", missing)
		fmt.Println("Run it as root: sudo make demo")
		fmt.Println("demo: FAIL: not root")
		os.Exit(1)
	}
	if *keep {
		if err := hold(*bin); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	r := &result{Schema: 1, Start: time.Now(), MTU: map[string]int{}}
	err := run(r, *bin, *gateway, *size<<20)
	r.Seconds = time.Since(r.Start).Seconds()
	r.Pass = err == nil
	if err != nil {
		r.Why = err.Error()
	}
	if text, jsonErr := json.MarshalIndent(r, "", "  "); jsonErr == nil {
		jsonErr = errors.Join(os.MkdirAll(filepath.Dir(*out), 0o755), os.WriteFile(*out, append(text, '\n'), 0o644))
		if jsonErr != nil && err == nil {
			err = jsonErr
		}
	}
	if err != nil {
		fmt.Printf("demo: FAIL: %v\n", err)
		os.Exit(1)
	}
	fmt.Printf("%.0f s in all; figures in %s\n", r.Seconds, *out)
	fmt.Println("demo: PASS")
}

// step says what is being done now; the time limit names it.
var step atomic.Value

func say(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	step.Store(line)
	fmt.Println("·", line)
}

// run does everything between an empty machine and an empty machine.
func run(r *result, bin, gateway string, size int) (err error) {
	bed, err := testbed.New("demo")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bed.Close()) }()
	watchdog := time.AfterFunc(limit, func() {
		bed.Close()
		fmt.Printf("demo: FAIL: not done after %v, at: %v\n", limit, step.Load())
		os.Exit(1)
	})
	defer watchdog.Stop()

	say("five namespaces, two queues on the gateways' interfaces")
	n, err := rig.Build(bed)
	if err != nil {
		return err
	}
	capture, err := n.Transit.Capture(n.Watch(), "port-a", "port-b")
	if err != nil {
		return err
	}

	say("the capture's test: one packet in the clear, forwarded by the kernels")
	if err := n.Probe(capture); err != nil {
		return err
	}
	if r.Probe, err = capture.Settled(200*time.Millisecond, 3*time.Second); err != nil {
		return err
	}
	fmt.Printf("  caught: %s\n", strings.Join(r.Probe.Examples, "; "))

	var gateways []*rig.Gateway
	var pair *rig.Pair
	if gateway == "sallyport" {
		say("two gateways agree on keys")
		pair, err = rig.NewPair(n, bin, rig.Negotiated())
		if err != nil {
			return err
		}
		gateways = pair.Both()
		if err := pair.Start(); err != nil {
			return errors.Join(err, logs(gateways))
		}
	}
	err = traffic(r, n, size)
	if err == nil && pair != nil {
		err = rekeys(r, n, pair)
	}
	for _, g := range gateways {
		err = errors.Join(err, g.Alive())
	}
	if err != nil {
		return errors.Join(err, logs(gateways))
	}

	say("what crossed the transit network")
	seen, err := capture.Settled(300*time.Millisecond, 5*time.Second)
	if err != nil {
		return err
	}
	r.Capture = seen.Sub(r.Probe)
	fmt.Printf("  %d frames: %v; missed by the capture: %d\n", r.Capture.Frames, r.Capture.Kinds, r.Capture.Missed)
	if err := onlyESP(r.Capture); err != nil {
		return err
	}
	for _, g := range gateways {
		reading, sent, err := g.Read()
		if err != nil {
			return err
		}
		r.Raw, r.Sent = append(r.Raw, reading), append(r.Sent, sent)
	}
	if err := counted(r, n); err != nil {
		return errors.Join(err, logs(gateways))
	}

	say("the gateways stop; their hosts go on sending")
	before, err := capture.Figures()
	if err != nil {
		return err
	}
	for _, g := range gateways {
		if err := g.Stop(10 * time.Second); err != nil {
			return errors.Join(fmt.Errorf("stopping %s: %w", g.Name, err), logs(gateways))
		}
	}
	if err := n.Shout(); err != nil {
		return err
	}
	after, err := capture.Settled(200*time.Millisecond, 3*time.Second)
	if err != nil {
		return err
	}
	if after = after.Sub(before); after.Inner+after.Needles > 0 {
		return fmt.Errorf("cleartext crossed the transit network after the gateways stopped: %v", after.Examples)
	}
	fmt.Println("  nothing crossed: a stopped gateway stays closed")
	return nil
}

// onlyESP judges what the capture saw after its test.
func onlyESP(f testbed.Figures) error {
	switch {
	case f.Missed > 0:
		return fmt.Errorf("the capture missed %d frames, so it proves nothing", f.Missed)
	case f.Needles > 0:
		return fmt.Errorf("%d frames carried plaintext across the transit network: %q", f.Needles, f.Examples)
	case f.Inner > 0:
		return fmt.Errorf("%d frames showed inner addresses in the transit network: %q", f.Inner, f.Examples)
	case f.Kinds[testbed.Other.String()] > 0:
		return fmt.Errorf("something other than ESP and IKE crossed the transit network: %v %q", f.Kinds, f.Examples)
	case f.Kinds[testbed.ESP.String()] == 0 || f.Kinds[testbed.ESPInUDP.String()] == 0:
		return fmt.Errorf("one of the tunnels carried nothing: %v", f.Kinds)
	}
	return nil
}

// counted compares the capture with the gateways' own counters: with what their
// outside interfaces sent, which must all be ESP or IKE. A packet may be sealed and then
// dropped, by name, while its next hop is being resolved. A frame that a gateway sent and the veth behind it had no room for was dropped by the kernel,
// which counts it.
func counted(r *result, n *rig.Network) error {
	var said, sealed, dropped uint64
	for i, gw := range []*testbed.Namespace{n.GwA, n.GwB} {
		d, err := gw.Dropped("wan")
		if err != nil {
			return err
		}
		r.Sent[i].KernelDropped = d
		said, sealed, dropped = said+r.Sent[i].Packets, sealed+r.Sent[i].Sealed, dropped+d
	}
	messages := r.Capture.Kinds[testbed.IKE.String()]
	fmt.Printf("  the gateways sealed %d packets and sent %d with IKE's messages, the kernel's veth dropped %d; the capture saw %d of ESP and %d of IKE\n",
		sealed, said, dropped, r.Capture.ESP(), messages)
	if sealed < r.Capture.ESP() {
		return fmt.Errorf("the capture saw %d packets of ESP, but the gateways sealed only %d", r.Capture.ESP(), sealed)
	}
	if said-dropped != r.Capture.ESP()+messages {
		return fmt.Errorf("the gateways sent %d packets (%d dropped by the kernel's veth), but the capture saw %d of ESP and %d of IKE", said, dropped, r.Capture.ESP(), messages)
	}
	for _, s := range r.Sent {
		for _, w := range s.Workers {
			share := 0.0
			if total := s.Total(); total > 0 {
				share = 100 * float64(w) / float64(total)
			}
			fmt.Printf("  %s: a worker took %d packets (%.0f %%)\n", s.Gateway, w, share)
		}
	}
	for _, g := range r.Raw {
		fmt.Printf("── sallyport sas, %s\n%s── sallyport counters, %s\n%s", g.Gateway, g.SAsText, g.Gateway, g.CountersText)
	}
	return nil
}

// logs prints the end of every daemon's log with its counters, and returns nil, or the error of reading them.
func logs(gateways []*rig.Gateway) error {
	for _, g := range gateways {
		text, err := g.Report(30)
		if err != nil {
			return err
		}
		fmt.Print(text)
	}
	return nil
}
