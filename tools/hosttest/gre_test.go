package hosttest

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// python is Debian's, which sees Debian's packages.
const python = "/usr/bin/python3"

// needScapy skips the test, or fails it where nothing may be missing, if there is no scapy.
func needScapy(t *testing.T) {
	t.Helper()
	testbed.Need(t, testbed.Root...)
	if out, err := exec.Command(python, "-c", "import scapy.layers.ipsec, cryptography").CombinedOutput(); err != nil {
		if os.Getenv("STRICT") == "1" {
			t.Fatalf("needs python3-scapy and python3-cryptography: %v: %s", err, out)
		}
		t.Skip("needs python3-scapy and python3-cryptography")
	}
}

// The router of testdata/router.py, at the bridge between the gateways, and a host behind it that it answers for with a wrong key.
const (
	routerPeer = "192.0.2.9"
	badHost    = "198.51.100.166"
)

// seen is what the router prints.
type seen struct {
	Ready    bool
	Error    string
	Key      *uint32
	Sequence int
	Src, Dst string
	TTL      int
	DF       bool
}

// TestGREWithAnotherImplementation: a gateway and a router that is scapy's carry pings of hosts in GRE in ESP, in transport mode, in both families. What comes
// with another key is counted, and not delivered.
func TestGREWithAnotherImplementation(t *testing.T) {
	needScapy(t)
	testbed.Need(t, "ping")
	g := build(t)
	keys := [2][]byte{make([]byte, 20), make([]byte, 20)}
	rand.Read(keys[0])
	rand.Read(keys[1])
	const spiIn, spiOut, greKey = 0x5a110701, 0x5a110702, 7
	g.a = g.gateway(g.net.GwA, "gw-a", 2, 2, fmt.Sprintf(`interfaces:
  lan: {role: protected}
  wan: {role: outside}
  gre1: {role: tunnel, encapsulation: gre, key: %d, addrs: 203.0.113.1/30}
connections:
  router:
    local_addrs: %s
    remote_addrs: %s
    children: {net: {interface: gre1, esp_proposals: aes128gcm16-noesn}}
insecure_manual_keys: true
manual:
  router/net: {spi_in: %#x, spi_out: %#x, key_in: "%x", key_out: "%x"}
`, greKey, rig.GwA4, routerPeer, spiIn, spiOut, keys[0], keys[1]))
	g.must(g.a.Launch())
	g.must(g.a.Ready(15 * time.Second))
	for _, to := range []string{rig.LANB4, rig.LANB6} {
		g.must(g.net.GwA.RouteOut(to, "gre1"))
	}
	// Nobody has the router's address: its kernel's part of it is this.
	bridge, err := g.net.Transit.MAC("br0")
	g.must(err)
	wan, err := g.net.GwA.MAC("wan")
	g.must(err)
	index, err := g.net.GwA.Index("wan")
	g.must(err)
	g.must(g.net.GwA.Netlink().NeighSet(&netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: net.ParseIP(routerPeer), HardwareAddr: bridge}))

	settings, err := json.Marshal(map[string]any{
		"iface": "br0", "me": routerPeer, "peer": rig.GwA4, "mac": wan.String(), "gre_key": greKey,
		"spi_in": spiOut, "spi_out": spiIn, "key_in": fmt.Sprintf("%x", keys[1]), "key_out": fmt.Sprintf("%x", keys[0]),
	})
	g.must(err)
	cmd := exec.Command(python, "testdata/router.py", string(settings))
	out, err := cmd.StdoutPipe()
	g.must(err)
	cmd.Stderr = os.Stderr
	p, err := g.net.Transit.Start(cmd)
	g.must(err)
	lines := make(chan seen, 100)
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			var one seen
			if json.Unmarshal(s.Bytes(), &one) == nil {
				lines <- one
			}
		}
		close(lines)
	}()
	next := func() seen { // but for what the gateway's kernel says to its neighbours on a link
		t.Helper()
		for {
			select {
			case one, ok := <-lines:
				if !ok || one.Error != "" {
					t.Fatalf("the router: %+v", one)
				}
				if !strings.HasPrefix(one.Src, "fe80:") {
					return one
				}
			case <-time.After(15 * time.Second):
				t.Fatal("the router says nothing")
			}
		}
	}
	if !next().Ready {
		t.Fatal("the router is not ready")
	}

	before := g.counters(g.a)
	sent := uint64(0)
	for _, x := range []struct {
		from, to string
		size     int
		hop      int // what is left of 64 hops behind the gateway
		answered bool
	}{
		{rig.HostA4, rig.HostB4, 56, 63, true}, {rig.HostA6, rig.HostB6, 56, 63, true}, {rig.HostA4, rig.HostB4, 0, 63, true},
		{rig.HostA4, rig.HostB4, 1301, 63, true}, {rig.HostA6, rig.HostB6, 1301, 63, true}, {rig.HostA4, badHost, 56, 63, false},
	} {
		patience := "5"
		if !x.answered {
			patience = "0.5"
		}
		text, ok := g.run(g.net.HostA, "ping", "-n", "-c", "1", "-W", patience, "-s", fmt.Sprint(x.size), x.to)
		if ok != x.answered {
			t.Errorf("%+v: %s", x, text)
		}
		sent++
		if got := next(); got.Key == nil || *got.Key != greKey || got.Sequence != 0 || got.Src != x.from || got.Dst != x.to || got.TTL != x.hop {
			t.Errorf("the router got %+v for %+v", got, x)
		}
	}
	// The gateway itself, by its address in the tunnel, and what it says to all routers of the link.
	if text, ok := g.run(g.net.GwA, "ping", "-n", "-c", "1", "-W", "5", "203.0.113.2"); !ok {
		t.Errorf("the gateway's own ping: %s", text)
	}
	if got := next(); got.Src != "203.0.113.1" || got.TTL != 64 {
		t.Errorf("the router got %+v of the gateway itself", got)
	}
	g.run(g.net.GwA, "ping", "-n", "-c", "1", "-W", "0.1", "-I", "gre1", "224.0.0.5")
	if got := next(); got.Dst != "224.0.0.5" {
		t.Errorf("the router got %+v, to no group", got)
	}
	sent += 2

	g.balanced()
	after := g.counters(g.a)
	if n := after.drop("bad-gre") - before.drop("bad-gre"); n != 1 || after.Totals.SentESP-before.Totals.SentESP < sent {
		t.Errorf("%d packets with another key, want 1; %d packets sealed, want %d at least", n, after.Totals.SentESP-before.Totals.SentESP, sent)
	}
	g.sealed()
	p.Kill()
}
