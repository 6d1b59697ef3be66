package failclosed

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// programs is the folder of sallyportd and sallyport, built once for all tests here.
var programs string

func TestMain(m *testing.M) { os.Exit(rig.WithPrograms(&programs, m.Run)) }

// ground is the rig with hosts that send and captures that watch.
type ground struct {
	t    *testing.T
	net  *rig.Network
	pair *rig.Pair
	load *load

	captures []*testbed.Capture
	open     bool            // the gateways were opened on purpose
	opened   testbed.Figures // what the captures had seen when their test was over
}

// lay builds the network, proves the capture, and prepares two gateways that do not run yet.
func lay(t *testing.T, tunnels []rig.Tunnel) *ground {
	t.Helper()
	testbed.Need(t, testbed.Root...)
	bed := testbed.ForTest(t, "failclosed")
	n, err := rig.Build(bed)
	must(t, err)
	g := &ground{t: t, net: n}
	g.capture("port-a", "port-b")
	must(t, n.Probe(g.captures[0]))
	g.opened = g.figures()
	g.pair, err = rig.NewPair(n, programs, tunnels)
	must(t, err)
	t.Cleanup(func() {
		if !t.Failed() {
			time.Sleep(200 * time.Millisecond) // a loaded machine's capture may lag behind
			if !g.open {
				g.tight("at the end")
			}
			return
		}
		for _, x := range g.pair.Both() {
			if text, err := x.Report(60); err == nil {
				t.Log(text)
			}
		}
	})
	return g
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// capture starts another capture in the transit namespace.
func (g *ground) capture(ports ...string) {
	g.t.Helper()
	c, err := g.net.Transit.Capture(g.net.Watch(), ports...)
	must(g.t, err)
	g.captures = append(g.captures, c)
}

// figures is what all captures have seen together.
func (g *ground) figures() testbed.Figures {
	g.t.Helper()
	sum := testbed.Figures{Kinds: map[string]uint64{}}
	for _, c := range g.captures {
		f, err := c.Figures()
		must(g.t, err)
		sum.Frames += f.Frames
		sum.Inner += f.Inner
		sum.Needles += f.Needles
		sum.Missed += f.Missed
		for k, v := range f.Kinds {
			sum.Kinds[k] += v
		}
		sum.Examples = append(sum.Examples, f.Examples...)
	}
	return sum
}

// tight fails if plaintext or an inner address has crossed since the capture's test. A gateway's kernel may
// say on its own behalf that nobody takes ESP there yet.
func (g *ground) tight(when string) {
	g.t.Helper()
	time.Sleep(20 * time.Millisecond) // what was sent before now is in the captures' hands
	f := g.figures().Sub(g.opened)
	if f.Missed > 0 {
		g.t.Fatalf("%s: the capture missed %d frames, so it proves nothing", when, f.Missed)
	}
	if f.Inner+f.Needles > 0 {
		g.t.Fatalf("%s: %d frames with inner addresses and %d with plaintext crossed the transit network: %v %q", when, f.Inner, f.Needles, f.Kinds, f.Examples)
	}
}

// flow is one direction of one family.
type flow struct {
	name           string
	sent, received atomic.Uint64
}

// load is hosts that send to each other without end, every flow a datagram in two milliseconds.
type load struct {
	flows []*flow
	stop  chan struct{}
	wait  sync.WaitGroup
}

// pace is the time between two datagrams of a flow.
const pace = 2 * time.Millisecond

// send starts the load. Errors of sending do not matter: there are times at which nothing can be sent.
func (g *ground) send() {
	g.t.Helper()
	l := &load{stop: make(chan struct{})}
	var conns []net.PacketConn
	for _, x := range []struct{ network, a, b string }{{"udp4", rig.HostA4, rig.HostB4}, {"udp6", rig.HostA6, rig.HostB6}} {
		a, err := rig.ListenPacket(g.net.HostA, x.network, net.JoinHostPort(x.a, "7000"))
		must(g.t, err)
		b, err := rig.ListenPacket(g.net.HostB, x.network, net.JoinHostPort(x.b, "7000"))
		must(g.t, err)
		ab, ba := &flow{name: x.network + " a to b"}, &flow{name: x.network + " b to a"}
		l.flows = append(l.flows, ab, ba)
		conns = append(conns, a, b)
		for _, y := range []struct {
			conn    net.PacketConn
			to      string
			out, in *flow
		}{{a, x.b, ab, ba}, {b, x.a, ba, ab}} {
			l.wait.Add(2)
			go l.sender(y.conn, netip.MustParseAddr(y.to), g.net.Mark, y.out)
			go l.receiver(y.conn, y.in)
		}
	}
	g.load = l
	g.t.Cleanup(func() {
		close(l.stop)
		for _, c := range conns {
			c.Close()
		}
		l.wait.Wait()
	})
}

func (l *load) sender(c net.PacketConn, to netip.Addr, mark []byte, f *flow) {
	defer l.wait.Done()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	addr := net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 7000))
	payload := append(make([]byte, 64), mark...)
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
			if _, err := c.WriteTo(payload, addr); err == nil {
				f.sent.Add(1)
			}
		}
	}
}

func (l *load) receiver(c net.PacketConn, f *flow) {
	defer l.wait.Done()
	b := make([]byte, 2048)
	for {
		select {
		case <-l.stop:
			return
		default:
		}
		if _, _, err := c.ReadFrom(b); err == nil {
			f.received.Add(1)
		}
	}
}

// patience is how long traffic may take to flow again. It is far more than it should take, which
// the tests log: a loaded machine is no failure.
const patience = 30 * time.Second

// flows waits until every flow has brought five more datagrams, and returns how long that took.
func (g *ground) flows(when string) time.Duration {
	g.t.Helper()
	start := time.Now()
	before := make([]uint64, len(g.load.flows))
	for i, f := range g.load.flows {
		before[i] = f.received.Load()
	}
	for {
		still := ""
		for i, f := range g.load.flows {
			if f.received.Load() < before[i]+5 {
				still += " " + f.name
			}
		}
		if still == "" {
			return time.Since(start)
		}
		if time.Since(start) > patience {
			g.dump()
			g.t.Fatalf("%s: after %v there is still no traffic%s", when, patience, still)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// dump logs what the kernels know, for a person who wants to know why nothing flows.
func (g *ground) dump() {
	for _, ns := range []*testbed.Namespace{g.net.GwA, g.net.GwB, g.net.HostA, g.net.HostB} {
		for _, c := range []string{"rule", "-6 rule", "route show table all", "-6 route show table all", "neigh", "addr"} {
			out, _ := exec.Command("ip", append([]string{"-n", ns.Name}, strings.Fields(c)...)...).CombinedOutput()
			g.t.Logf("%s %s: %s", ns.Name, c, out)
		}
	}
	for _, pins := range []string{g.pair.A.Pins, g.pair.B.Pins} {
		g.steering(pins)
	}
}

// sent is the number of datagrams that the hosts could send so far.
func (g *ground) sent() (n uint64) {
	for _, f := range g.load.flows {
		n += f.sent.Load()
	}
	return n
}

// dice is the source of random moments. Its seed is logged and can be given again.
func dice(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("SALLYPORT_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		must(t, err)
	}
	t.Logf("SALLYPORT_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// steering logs what the programs of pinned links know.
func (g *ground) steering(pins string) {
	files, _ := filepath.Glob(filepath.Join(pins, "*"))
	for _, file := range files {
		if err := g.maps(file); err != nil {
			g.t.Logf("%s: %v", file, err)
		}
	}
}

// maps logs the maps of the program of a pinned link, but for the sockets.
func (g *ground) maps(file string) error {
	l, err := link.LoadPinnedLink(file, nil)
	if err != nil {
		return err
	}
	defer l.Close()
	attached, err := l.Info()
	if err != nil {
		return err
	}
	program, err := ebpf.NewProgramFromID(attached.Program)
	if err != nil {
		return err
	}
	defer program.Close()
	about, err := program.Info()
	if err != nil {
		return err
	}
	ids, _ := about.MapIDs()
	for _, id := range ids {
		if err := g.entries(file, id); err != nil {
			return err
		}
	}
	return nil
}

func (g *ground) entries(file string, id ebpf.MapID) error {
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return err
	}
	defer m.Close()
	about, err := m.Info()
	if err != nil || strings.HasPrefix(about.Name, "xsks") {
		return err
	}
	var text strings.Builder
	var key, value []byte
	var values [][]byte // by CPU
	entries := m.Iterate()
	if about.Type == ebpf.PerCPUArray {
		for entries.Next(&key, &values) {
			for cpu, v := range values {
				if strings.Trim(string(v), "\x00") != "" {
					fmt.Fprintf(&text, " %x@%d=%x", key, cpu, v)
				}
			}
		}
	} else {
		for entries.Next(&key, &value) {
			fmt.Fprintf(&text, " %x=%x", key, value)
		}
	}
	g.t.Logf("%s: %s:%s", file, about.Name, &text)
	return entries.Err()
}
