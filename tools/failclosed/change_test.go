package failclosed

import (
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/tools/rig"
)

// TestNothingLeaksThroughAnyChange takes two gateways through their life, from before the first start to
// detach, with hosts that never stop sending. Only detach may open.
func TestNothingLeaksThroughAnyChange(t *testing.T) {
	g := lay(t, rig.Tunnels())
	sideA, sideB := g.net.Sides()

	// Before anything has run there is no fence: lay has just shown that the kernels forward.
	must(t, errors.Join(g.pair.A.Run("--fence-only"), g.pair.B.Run("--fence-only")))
	g.send()
	g.step("before the first start, fences only", func() { time.Sleep(100 * time.Millisecond) })
	g.step("interfaces anew before the first start", func() {
		g.newLAN(sideA, 50*time.Millisecond)
		g.newWAN(sideA, 50*time.Millisecond)
	})
	if n := g.received(); n != 0 {
		t.Fatalf("%d datagrams arrived before there was a gateway", n)
	}

	g.step("the first start", func() { must(t, g.pair.Start()); g.flows("the first start") })
	g.step("a clean stop and a start", func() {
		for _, x := range g.pair.Both() {
			must(t, x.Stop(10*time.Second))
		}
		before := g.received()
		time.Sleep(100 * time.Millisecond)
		if n := g.received(); n > before+uint64(len(g.load.flows)) { // what was already in a host's socket
			t.Fatalf("%d datagrams arrived through stopped gateways", n-before)
		}
		must(t, g.pair.Rekey())
		must(t, g.pair.Start())
		g.flows("a clean stop and a start")
	})

	g.step("a reload with other keys", func() {
		for range 3 {
			must(t, g.pair.Rekey())
			g.reload()
			g.flows("a reload with other keys")
		}
	})
	g.step("a reload with other policies", func() {
		for _, list := range []string{
			"policies:\n  - {name: drop, action: discard, local_ts: [0.0.0.0/0], remote_ts: [203.0.113.0/24]}\n",
			"policies:\n  - {name: one, action: protect, child: six/net}\n  - {name: other, action: protect, child: four/net}\n",
			"",
		} {
			g.pair.Extra = func(bool) string { return list }
			must(t, g.pair.Write())
			g.reload()
			g.flows("a reload with other policies")
		}
	})
	g.step("a reload that is refused", func() {
		g.pair.Extra = func(bool) string { return "nonsense: true\n" }
		must(t, g.pair.Write())
		g.reload()
		g.flows("a reload that is refused")
		g.pair.Extra = nil
		must(t, g.pair.Rekey())
		g.reload()
		g.flows("the reload after it")
	})

	for _, s := range []rig.Side{sideA, sideB} {
		name := strings.TrimPrefix(s.Port, "port-")
		g.step("a new LAN interface at "+name, func() { g.newLAN(s, 100*time.Millisecond); g.flows("a new LAN interface") })
		g.step("a new WAN interface at "+name, func() { g.newWAN(s, 100*time.Millisecond); g.flows("a new WAN interface") })
	}
	g.step("LAN down and up", func() {
		must(t, sideA.Gateway.Down("lan"))
		time.Sleep(50 * time.Millisecond)
		must(t, errors.Join(sideA.Gateway.Up("lan"), g.net.AddressLAN(sideA)))
		g.flows("LAN down and up")
	})
	g.step("WAN down and up", func() {
		must(t, sideA.Gateway.Down("wan"))
		time.Sleep(50 * time.Millisecond)
		must(t, errors.Join(sideA.Gateway.Up("wan"), g.net.AddressWAN(sideA)))
		g.flows("WAN down and up")
	})
	g.step("interfaces anew while the daemon is dead", func() {
		g.pair.A.Kill()
		g.newLAN(sideA, 20*time.Millisecond)
		time.Sleep(50 * time.Millisecond)
		g.newWAN(sideA, 20*time.Millisecond)
		time.Sleep(50 * time.Millisecond)
		must(t, g.pair.Rekey())
		must(t, errors.Join(g.pair.A.Launch(), g.pair.B.Signal(unix.SIGHUP)))
		g.flows("interfaces anew while the daemon is dead")
	})
	for _, x := range g.pair.Both() {
		must(t, x.Alive())
	}
	t.Logf("the hosts sent %d datagrams and got %d; %d ESP packets crossed, nothing else", g.sent(), g.received(), g.figures().ESP())

	// Detach refuses to open a gateway that runs, and opens one that does not.
	if _, err := g.pair.A.Ask("detach", "--pin-dir", g.pair.A.Pins); err == nil || !strings.Contains(err.Error(), "running") {
		t.Fatalf("detach under a running daemon said: %v", err)
	}
	g.step("detach refused", func() { g.flows("detach refused") })
	for _, x := range g.pair.Both() {
		must(t, x.Stop(10*time.Second))
	}
	g.step("stopped for good", func() { time.Sleep(50 * time.Millisecond) })
	before := g.figures()
	for _, x := range g.pair.Both() {
		_, err := x.Ask("detach", "--pin-dir", x.Pins)
		must(t, err)
	}
	g.flows("detach") // the kernels forward again
	if f := g.figures().Sub(before); f.Needles < 20 || f.Inner < 20 {
		t.Fatalf("after detach %d frames with plaintext crossed; the kernels should forward again", f.Needles)
	}
}

// step does something to the gateways and fails if anything crossed in the clear.
func (g *ground) step(what string, do func()) {
	g.t.Helper()
	start := time.Now()
	do()
	g.tight(what)
	g.t.Logf("%-45s %v", what, time.Since(start).Round(time.Millisecond))
}

// reload has both gateways read their files again.
func (g *ground) reload() {
	g.t.Helper()
	for _, x := range g.pair.Both() {
		must(g.t, x.Signal(unix.SIGHUP))
	}
}

// newLAN deletes the cable between a gateway and its host, and lays another one after a while.
func (g *ground) newLAN(s rig.Side, away time.Duration) {
	g.t.Helper()
	must(g.t, s.Gateway.Delete("lan"))
	time.Sleep(away)
	must(g.t, g.net.LayLAN(s))
}

// newWAN does the same with the cable to the transit namespace. The new port is watched before
// the gateway gets addresses and routes with which it could send.
func (g *ground) newWAN(s rig.Side, away time.Duration) {
	g.t.Helper()
	must(g.t, s.Gateway.Delete("wan"))
	time.Sleep(away)
	must(g.t, g.net.LayWAN(s))
	g.capture(s.Port)
	must(g.t, g.net.Transit.Enslave(s.Port, "br0"))
	must(g.t, g.net.AddressWAN(s))
}

// received is the number of datagrams that the hosts got so far.
func (g *ground) received() (n uint64) {
	for _, f := range g.load.flows {
		n += f.received.Load()
	}
	return n
}
