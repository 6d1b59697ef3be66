package hosttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// programs is the folder of sallyportd and sallyport, built once for all tests here.
var programs string

func TestMain(m *testing.M) { os.Exit(rig.WithPrograms(&programs, m.Run)) }

// ground is the rig with a capture between the gateways, which must see no plaintext.
type ground struct {
	t       *testing.T
	bed     *testbed.Bed
	net     *rig.Network
	pair    *rig.Pair // nil where the gateways' configurations are the test's own
	a, b    *rig.Gateway
	capture *testbed.Capture
}

// lay builds the network and prepares two gateways with these tunnels, which do not run yet.
func lay(t *testing.T, tunnels []rig.Tunnel) *ground {
	t.Helper()
	g := build(t)
	var err error
	g.pair, err = rig.NewPair(g.net, programs, tunnels)
	g.must(err)
	g.a, g.b = g.pair.A, g.pair.B
	return g
}

// build builds the network without gateways.
func build(t *testing.T) *ground {
	t.Helper()
	testbed.Need(t, testbed.Root...)
	g := &ground{t: t, bed: testbed.ForTest(t, "hosttest")}
	var err error
	g.net, err = rig.Build(g.bed)
	g.must(err)
	g.capture, err = g.net.Transit.Capture(g.net.Watch(), "port-a", "port-b")
	g.must(err)
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, x := range []*rig.Gateway{g.a, g.b} {
			if x == nil {
				continue
			}
			if text, err := x.Report(40); err == nil {
				t.Log(text)
			}
		}
	})
	return g
}

// gateway prepares one gateway with a configuration of the test's own, which follows what all have in common.
func (g *ground) gateway(ns *testbed.Namespace, name string, workers, associations int, config string) *rig.Gateway {
	g.t.Helper()
	x, err := rig.NewGateway(g.bed, ns, programs, name, associations, func(x *rig.Gateway) string {
		return fmt.Sprintf("instance: %s\ncontrol: {socket: %s}\nworkers: {count: %d}\ndataplane: {pin_dir: %s}\n%s", name, x.Socket, workers, x.Pins, config)
	})
	g.must(err)
	return x
}

func (g *ground) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

// sealed fails unless ESP crossed between the gateways, and no plaintext or inner address.
func (g *ground) sealed() {
	g.t.Helper()
	f, err := g.capture.Settled(50*time.Millisecond, 3*time.Second)
	g.must(err)
	if f.ESP() == 0 || f.Bare > 0 || f.Missed > 0 {
		g.t.Errorf("between the gateways: %+v", f)
	}
}

// run runs a program on a host and returns what it prints and whether it calls that a success.
func (g *ground) run(ns *testbed.Namespace, name string, args ...string) (string, bool) {
	g.t.Helper()
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	p, err := ns.Start(cmd)
	g.must(err)
	select {
	case <-p.Done():
	case <-time.After(20 * time.Second):
		p.Kill()
		g.t.Fatalf("%s %s does not end: %s", name, strings.Join(args, " "), out.String())
	}
	err = p.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		g.t.Fatalf("%s: %v", name, err)
	}
	return out.String(), err == nil
}

// counters are what one gateway has counted.
type counters struct {
	Totals struct {
		Received, Originated, Sent, Punted, Delivered, Merged, Fragmented uint64

		SentESP uint64 `json:"sent_esp"`
	}
	Drops []struct {
		Name    string
		Packets uint64
	}
}

// unbalanced is what does not add up, "" if all does.
func (c counters) unbalanced() string {
	in, out := c.Totals.Received+c.Totals.Originated, c.Totals.Sent+c.Totals.Punted+c.Totals.Delivered+c.Totals.Merged
	for _, d := range c.Drops {
		out += d.Packets
	}
	if in != out {
		return fmt.Sprintf("%d packets came in or were made, %d ended: %+v", in, out, c)
	}
	return ""
}

func (c counters) drop(name string) uint64 {
	for _, d := range c.Drops {
		if d.Name == name {
			return d.Packets
		}
	}
	return 0
}

func (g *ground) counters(of *rig.Gateway) (c counters) {
	g.t.Helper()
	text, err := of.Ask("counters", "--json")
	g.must(err)
	g.must(json.Unmarshal(text, &c))
	return c
}

// balanced fails unless, at both gateways, every packet has ended in one way once nothing moves.
func (g *ground) balanced() {
	g.t.Helper()
	for _, x := range []*rig.Gateway{g.a, g.b} {
		if x == nil {
			continue
		}
		deadline := time.Now().Add(10 * time.Second)
		for {
			wrong := g.counters(x).unbalanced()
			if wrong == "" {
				break
			}
			if time.Now().After(deadline) {
				g.t.Errorf("%s: %s", x.Name, wrong)
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// eventually waits until ok says true, and fails the test if it never does.
func (g *ground) eventually(what string, ok func() bool) {
	g.t.Helper()
	testbed.Eventually(g.t, what, ok)
}
