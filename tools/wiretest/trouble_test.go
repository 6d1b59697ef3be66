package wiretest

import (
	"encoding/binary"
	"errors"
	mathrand "math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sallyport/tools/craft"
)

// TestGarbageOnBothCables sends random bytes and random changes of right packets from both sides. Whatever each of
// them is taken for, it is counted once, and good packets pass in between.
func TestGarbageOnBothCables(t *testing.T) {
	w := start(t)
	rest := w.still()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := mathrand.New(mathrand.NewPCG(seed, 1))
	right := [][]byte{
		w.esp(w.good(far4, host4)), w.esp6(w.good(far6, host6)), w.fromHost(w.good(host4, far4)), w.fromHost(w.good(host6, far6)),
		w.toGateway(w.good(far4, host4)), w.icmpError(), craft.Tag(w.esp(w.good(far4, host4)), 3),
		w.toGateway(craft.IPv6(peer6, gw6, 44, append([]byte{craft.UDPv, 0, 0, 1, 0, 0, 0, 9}, make([]byte, 40)...))),
	}
	for round := range 20 {
		before := w.still()
		for range 50 {
			f := make([]byte, 14+r.IntN(1486))
			for i := range f {
				f[i] = byte(r.Uint32())
			}
			if x := r.IntN(4); x > 0 {
				f = append([]byte{}, right[r.IntN(len(right))]...)
				for range x {
					f[12+r.IntN(len(f)-12)] = byte(r.Uint32())
				}
				if r.IntN(4) == 0 {
					f = f[:14+r.IntN(len(f)-14)]
				}
				if f[12] == 8 && r.IntN(2) == 0 {
					craft.FixIPv4(f[14:])
				}
			}
			w.send([]*end{w.host, w.peer}[r.IntN(2)], f)
		}
		w.settle(before)
		if round%5 == 0 {
			w.host.received()
			w.peer.received()
			w.pass("garbage")
		}
	}
	w.settle(rest)
	w.home(rest)
}

// TestFullRings stops the daemon's threads, sends more than its rings hold, and lets it go on: what did not
// fit is in the sockets' own statistics, the rest is carried.
func TestFullRings(t *testing.T) {
	w := start(t)
	w.pass("at first")
	rest := w.still()
	w.must(w.gateway.Signal(unix.SIGSTOP))
	const flood = 3 * 2 * ring // three times what both queues hold
	for i := range flood {
		w.send(w.host, w.fromHost(w.good(host4, far4)))
		w.send(w.peer, w.esp(w.good(far4, host4)))
		if i%32 == 0 {
			time.Sleep(time.Millisecond) // the cable's own ring holds 256
		}
	}
	w.must(w.gateway.Signal(unix.SIGCONT))
	got := w.settle(rest)
	t.Logf("%d sent, %d lost on the cables, %d received, %d refused (ring full %d, fill ring empty %d), %d sent on, dropped %v",
		got.sent, got.lost, got.received, got.refused, got.ringFull, got.fillEmpty, got.out, got.drops)
	if got.refused == 0 {
		t.Error("no ring was full: the test shows nothing")
	}
	if got.received < ring || got.out+got.drops["tx-full"] != got.received {
		t.Errorf("%d received, %d sent on, dropped %v", got.received, got.out, got.drops)
	}
	w.host.received()
	w.peer.received()
	w.pass("after the flood")
	w.home(rest)
}

// TestDeadNeighbour takes the peer's and the host's link addresses away: packets wait, are dropped by name when
// nobody answers, and flow again as soon as somebody does.
func TestDeadNeighbour(t *testing.T) {
	w := start(t)
	w.pass("at first")
	rest := w.still()
	for _, c := range []struct {
		name string
		dead *end
		send func(n int)
	}{
		{"peer", w.peer, func(n int) {
			for range n {
				w.send(w.host, w.fromHost(w.good(host4, far4)))
			}
		}},
		{"host", w.host, func(n int) {
			for range n {
				w.send(w.peer, w.esp(w.good(far4, host4)))
			}
		}},
	} {
		index, err := w.ns.Index(c.dead.near)
		w.must(err)
		gone := peer4
		if c.dead == w.host {
			gone = host4
		}
		w.must(w.ns.Netlink().NeighDel(&netlink.Neigh{LinkIndex: index, IP: gone.AsSlice()}))
		time.Sleep(300 * time.Millisecond) // the next snapshot of neighbours
		before := w.figures()
		c.send(10)
		got := w.settle(before)
		if n := got.drops["neighbour-unresolved"] + got.drops["neighbour-failed"]; n != 10 || sum(got.drops) != 10 {
			t.Errorf("dead %s: 10 packets: dropped %v, %d sent", c.name, got.drops, got.out)
		}
		w.neighbours(c.dead)
		w.recovers(c.name + " answers again")
	}
	w.settle(rest)
	w.home(rest)
}

// recovers waits until good packets pass again, and fails if they never do.
func (w *wire) recovers(what string) {
	w.t.Helper()
	before, began := w.figures(), time.Now()
	for deadline := began.Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		w.host.received()
		w.peer.received()
		w.send(w.host, w.fromHost(w.good(host4, far4)))
		w.send(w.peer, w.esp(w.good(far4, host4)))
		time.Sleep(30 * time.Millisecond)
		if len(w.host.received()) > 0 && len(w.peer.received()) > 0 {
			w.t.Logf("%s after %v", what, time.Since(began).Round(time.Millisecond))
			w.pass(what)
			return
		}
	}
	w.t.Fatalf("%s: packets do not pass again: %+v", what, w.figures().since(before))
}

// attached waits until the steering program runs on one of the gateway's interfaces.
func (w *wire) attached(name string) {
	w.t.Helper()
	for range 500 {
		link, err := w.ns.Netlink().LinkByName(name)
		if err == nil && link.Attrs().Xdp != nil && link.Attrs().Xdp.Attached {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Fatalf("no program on %s", name)
}

// TestInterfaceVanishesUnderLoad deletes the outside interface while packets for it arrive, and creates it again.
// Everything that came is accounted for, nothing else suffers, and every frame comes home.
func TestInterfaceVanishesUnderLoad(t *testing.T) {
	w := start(t)
	w.pass("at first")
	rest := w.still()
	for round := range 3 {
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
				}
				w.send(w.host, w.fromHost(craft.IP(host4, far4, craft.UDPv, craft.UDP(host4, far4, 4000, 5000, make([]byte, 200)))))
				time.Sleep(200 * time.Microsecond)
			}
		}()
		time.Sleep(50 * time.Millisecond)
		w.must(w.ns.Delete("wan"))
		time.Sleep(100 * time.Millisecond)
		w.connect(w.peer)
		time.Sleep(50 * time.Millisecond)
		close(stop)
		<-done
		w.attached("wan") // what arrives before, nobody counts
		w.recovers("the interface is back")
		got := w.settle(rest)
		t.Logf("round %d: %d sent, %d passed, dropped %v", round, got.sent, got.out, got.drops)
		for reason := range got.drops {
			switch reason {
			case "no-route", "port-down", "unreachable", "neighbour-unresolved", "neighbour-failed", "tx-full":
			default:
				t.Errorf("dropped %v", got.drops)
			}
		}
		w.home(rest)
	}
}

// TestInterfaceComesBackDown creates the outside interface again and leaves it down for a while: it takes sockets
// only when it comes up.
func TestInterfaceComesBackDown(t *testing.T) {
	w := start(t)
	w.pass("at first")
	rest := w.still()
	w.must(w.ns.Delete("wan"))
	time.Sleep(100 * time.Millisecond)
	w.connect(w.peer, func() {
		w.must(w.ns.Delete("wan")) // it was up from the start
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.NumTxQueues, attrs.NumRxQueues = "wan", 2, 2
		veth := netlink.NewVeth(attrs)
		veth.PeerName, veth.PeerNamespace, veth.PeerNumTxQueues, veth.PeerNumRxQueues = "eth0", netlink.NsFd(w.peer.ns.FD()), 2, 2
		w.must(w.ns.Netlink().LinkAdd(veth))
		w.must(errors.Join(w.ns.OffloadsOff("wan"), w.peer.ns.OffloadsOff("eth0"), w.peer.ns.Up("eth0")))
		w.attached("wan") // what policy protects is dropped already
		time.Sleep(200 * time.Millisecond)
		w.must(w.ns.Up("wan"))
	})
	w.recovers("the interface is up")
	w.settle(rest)
	w.home(rest)
}

// TestInterfaceGoesDown takes the outside interface down and up.
func TestInterfaceGoesDown(t *testing.T) {
	w := start(t)
	w.pass("at first")
	rest := w.still()
	link, err := w.ns.Netlink().LinkByName("wan")
	w.must(err)
	w.must(w.ns.Netlink().LinkSetDown(link))
	for range 20 {
		w.send(w.host, w.fromHost(w.good(host4, far4)))
		time.Sleep(5 * time.Millisecond)
	}
	got := w.settle(rest)
	if sum(got.drops)+got.out != 20+got.originated || got.drops["no-route"]+got.drops["port-down"]+got.drops["unreachable"] < 15 {
		t.Errorf("20 packets while the interface was down: dropped %v, %d sent", got.drops, got.out)
	}
	w.must(w.ns.Up("wan"))
	w.ns.Address("wan", "2001:db8::1/64") // the kernel takes IPv6 addresses away with the link
	w.must(w.ns.Route("default4", peer4.String()))
	w.neighbours(w.peer)
	w.recovers("the interface is up again")
	w.settle(rest)
	w.home(rest)
}

// TestGarbageConfigurationChangesNothing reloads files that are none.
func TestGarbageConfigurationChangesNothing(t *testing.T) {
	w := start(t)
	w.pass("at first")
	rest := w.still()
	right, err := os.ReadFile(w.gateway.Config)
	w.must(err)
	sas, err := w.gateway.Ask("policies", "--json")
	w.must(err)
	noise := make([]byte, 4096)
	for i := range noise {
		binary.NativeEndian.PutUint64(noise[i&^7:], mathrand.Uint64())
	}
	for name, text := range map[string]string{
		"empty":           "",
		"noise":           string(noise),
		"not YAML":        "connections: [}{",
		"unknown key":     strings.Replace(string(right), "remote_addrs", "remote_adrs", 1),
		"half a file":     string(right[:len(right)/2]),
		"keys too short":  strings.Replace(string(right), "key_in: \"", "key_in: \"00\" #", 1),
		"no interfaces":   strings.Replace(string(right), "wan: {role: outside}", "", 1),
		"another type":    "- a\n- b\n",
		"deep":            strings.Repeat("[", 100000),
		"many references": "a: &a [x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b]\nd: [*c, *c, *c, *c, *c, *c, *c, *c]\n",
	} {
		w.must(os.WriteFile(w.gateway.Config, []byte(text), 0o600))
		if out, err := w.gateway.Ask("reload"); err == nil {
			t.Errorf("%s: accepted: %s", name, out)
		} else if len(err.Error()) < 40 || len(err.Error()) > 2000 {
			t.Errorf("%s: an error of %d bytes: %.300s", name, len(err.Error()), err)
		}
		w.must(w.gateway.Signal(unix.SIGHUP))
		w.pass(name)
		w.must(w.gateway.Alive())
	}
	w.must(os.WriteFile(w.gateway.Config, right, 0o600))
	for range 100 {
		if _, err = w.gateway.Ask("reload"); err == nil || !strings.Contains(err.Error(), "running already") {
			break // the one that the signal asked for has ended
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		t.Errorf("the right configuration is refused afterwards: %v", err)
	}
	w.pass("afterwards")
	if now, err := w.gateway.Ask("policies", "--json"); err != nil || string(now) != string(sas) {
		t.Errorf("policies are %s (%v), were %s", now, err, sas)
	}
	w.settle(rest)
	w.home(rest)
}

// TestGarbageOnTheControlSocket speaks nonsense to the daemon.
func TestGarbageOnTheControlSocket(t *testing.T) {
	w := start(t)
	for _, text := range []string{"\n", "{}\n", "[1]\n", "{\"verb\": 3}\n", "{\"verb\": \"no\"}\n", "{\"verb\": \"sas\", \"args\": {\"limit\": -9}}\n", strings.Repeat("{", 70000) + "\n", strings.Repeat("x", 200000)} {
		c, err := net.Dial("unix", w.gateway.Socket)
		w.must(err)
		c.SetDeadline(time.Now().Add(3 * time.Second))
		c.Write([]byte(text)) // the daemon may hang up before all is written
		if strings.HasSuffix(text, "\n") {
			answer := make([]byte, 4096)
			if n, err := c.Read(answer); err == nil && !strings.Contains(string(answer[:n]), "\"") {
				t.Errorf("%.40q is answered with %q", text, answer[:n])
			}
		}
		c.Close()
	}
	w.must(w.gateway.Alive())
	w.pass("afterwards")
}
