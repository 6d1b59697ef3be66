package hosttest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// TestFiltersLimitsAndWhatTheyShow: gateway a's filters and its rate limit end datagrams of hosts, each under one name, and trace, capture and flight
// recorder tell what became of them. Another program reads what was captured.
func TestFiltersLimitsAndWhatTheyShow(t *testing.T) {
	needScapy(t)
	testbed.Need(t, "ping")
	g := build(t)
	config := func(local, remote, nearTS, farTS, more, action string) string {
		return fmt.Sprintf(`interfaces:
  lan: {role: protected}
  wan: {role: outside}
connections:
  four:
    local_addrs: %s
    remote_addrs: %s
    children: {net: {local_ts: %s, remote_ts: %s, start_action: %s%s}}
secrets: {ike-four: {secret: "%x%x"}}
`, local, remote, nearTS, farTS, action, more, g.net.Mark, g.net.Mark)
	}
	const burst = 20 // datagrams: what half a second allows
	// One worker: with two, the one that receives a packet and the one that owns its association each tell their part in a trace.
	g.a = g.gateway(g.net.GwA, "gw-a", 1, 2, config(rig.GwA4, rig.GwB4, rig.LANA4, rig.LANB4, `, limit_out: {packets: 40, burst: 500ms}, filters: [
      {action: deny, direction: out, remote_ts: "198.51.100.128/25[udp/7007]"},
      {action: deny, direction: in, local_ts: "198.51.100.0/25[udp/7008]"}]`, "start"))
	g.b = g.gateway(g.net.GwB, "gw-b", 2, 0, config(rig.GwB4, rig.GwA4, rig.LANB4, rig.LANA4, "", "none"))
	g.must(g.b.Launch())
	g.must(g.b.Ready(15 * time.Second))
	g.must(g.a.Launch())
	g.must(g.a.Ready(15 * time.Second))
	for _, x := range []struct {
		ns *testbed.Namespace
		to string
	}{{g.net.HostA, rig.HostB4}, {g.net.HostB, rig.HostA4}} {
		g.eventually("the first ping is answered", func() bool {
			_, ok := g.run(x.ns, "ping", "-n", "-c", "1", "-W", "1", x.to)
			return ok
		})
	}
	allowance := func() { time.Sleep(600 * time.Millisecond) } // the limit's allowance is whole again

	// Denied, each way. Others pass.
	for _, x := range []struct {
		from, to   *testbed.Namespace
		near, far  string
		port       int
		sent, come int
	}{
		{g.net.HostA, g.net.HostB, rig.HostA4, rig.HostB4, 7007, 5, 0}, {g.net.HostB, g.net.HostA, rig.HostB4, rig.HostA4, 7008, 5, 0},
		{g.net.HostA, g.net.HostB, rig.HostA4, rig.HostB4, 7008, 5, 5}, {g.net.HostB, g.net.HostA, rig.HostB4, rig.HostA4, 7007, 5, 5},
	} {
		allowance()
		before := g.counters(g.a)
		come := g.datagrams(x.from, x.near, x.to, x.far, x.port, x.sent)
		g.balanced()
		if n := g.counters(g.a).drop("filtered") - before.drop("filtered"); come != x.come || int(n) != x.sent-x.come {
			t.Errorf("port %d from %s: %d of %d datagrams arrived, want %d; %d are counted as filtered", x.port, x.near, come, x.sent, x.come, n)
		}
	}

	// More than the limit allows: what it allows at once arrives, and what is not counted.
	allowance()
	before := g.counters(g.a)
	come := g.datagrams(g.net.HostA, rig.HostA4, g.net.HostB, rig.HostB4, 7009, 10*burst)
	g.balanced()
	if n := g.counters(g.a).drop("rate-limited") - before.drop("rate-limited"); come < burst || n == 0 || come+int(n) != 10*burst {
		t.Errorf("%d of %d datagrams arrived and %d are counted as over the limit", come, 10*burst, n)
	}

	allowance()
	g.traces()
	allowance()
	g.captures()
	g.records()
	g.sealed()
}

// datagrams sends so many from one host to the other and returns how many arrived.
func (g *ground) datagrams(from *testbed.Namespace, near string, to *testbed.Namespace, far string, port, count int) (come int) {
	g.t.Helper()
	in, err := rig.ListenPacket(to, "udp4", net.JoinHostPort(far, fmt.Sprint(port)))
	g.must(err)
	defer in.Close()
	out, err := rig.ListenPacket(from, "udp4", net.JoinHostPort(near, "0"))
	g.must(err)
	defer out.Close()
	for i := range count {
		_, err := out.WriteTo(append([]byte{byte(i)}, g.net.Mark...), &net.UDPAddr{IP: net.ParseIP(far), Port: port})
		g.must(err)
		time.Sleep(200 * time.Microsecond) // a veth holds 256 frames
	}
	b := make([]byte, 100)
	for {
		in.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if _, _, err := in.ReadFrom(b); errors.Is(err, os.ErrDeadlineExceeded) {
			return come
		}
		come++
	}
}

// watching runs a verb of the tool that goes on until it has seen enough, and returns how to wait for its end.
func (g *ground) watching(args ...string) (end func() string) {
	g.t.Helper()
	text := make(chan string, 1)
	go func() {
		out, err := g.a.Ask(args...)
		if err != nil {
			out = []byte(err.Error())
		}
		text <- string(out)
	}()
	time.Sleep(300 * time.Millisecond) // until it watches
	return func() string { return <-text }
}

// traces follows a ping there and back, and a datagram that is denied.
func (g *ground) traces() {
	g.t.Helper()
	end := g.watching("trace", "add", "2", "proto=icmp", "conn=four/net", "--json", "--timeout", "10s")
	g.run(g.net.HostA, "ping", "-n", "-c", "1", "-W", "5", rig.HostB4)
	type step struct {
		Stage, Class, Interface, Association, SPI, Drop string
		Sequence                                        uint64
		Window                                          uint32
	}
	read := func(text string) (packets [][]step) {
		for d := json.NewDecoder(strings.NewReader(text)); ; {
			var one struct{ Steps []step }
			if d.Decode(&one) != nil {
				return packets
			}
			packets = append(packets, one.Steps)
		}
	}
	text := end()
	packets := read(text)
	if len(packets) != 2 {
		g.t.Fatalf("%d packets were traced: %s", len(packets), text)
	}
	slices.SortFunc(packets, func(a, b []step) int { return strings.Compare(a[0].Interface, b[0].Interface) }) // workers tell each in its time
	for i, x := range []struct{ way, from, to, stage string }{{"out", "lan", "wan", "seal"}, {"in", "wan", "lan", "open"}} {
		steps := packets[i]
		at := slices.IndexFunc(steps, func(s step) bool { return s.Stage == x.stage })
		if at < 0 || steps[0].Interface != x.from || steps[len(steps)-1].Stage != "send" || steps[len(steps)-1].Interface != x.to ||
			!strings.HasPrefix(steps[at].Association, "four/net") || steps[at].Sequence == 0 || steps[at].SPI == "" || x.way == "in" && steps[at].Window != 4096 {
			g.t.Errorf("the packet that goes %s: %+v", x.way, steps)
		}
	}
	end = g.watching("trace", "add", "1", "drop=any", "conn=four/net", "port=7007", "--json", "--timeout", "10s")
	g.datagrams(g.net.HostA, rig.HostA4, g.net.HostB, rig.HostB4, 7007, 1)
	if packets = read(end()); len(packets) != 1 || packets[0][len(packets[0])-1].Drop != "filtered" {
		g.t.Errorf("the packet that is denied: %+v", packets)
	}
}

// captures writes a ping, before ESP and after it, to a file that scapy reads.
func (g *ground) captures() {
	g.t.Helper()
	folder, err := g.bed.Folder()
	g.must(err)
	file := filepath.Join(folder, "ping.pcapng")
	end := g.watching("capture", "-w", file, "-c", "5", "conn=four/net", "--timeout", "10s")
	g.run(g.net.HostA, "ping", "-n", "-c", "1", "-W", "5", rig.HostB4)
	g.datagrams(g.net.HostA, rig.HostA4, g.net.HostB, rig.HostB4, 7007, 1)
	said := end()
	read := exec.Command(python, "testdata/capture.py", file)
	read.Stderr = os.Stderr
	out, err := read.Output()
	if err != nil {
		g.t.Fatalf("%v; the capture says %s", err, said)
	}
	type frame struct {
		Interface, Src, Dst string
		Protocol            int
	}
	want := map[frame]string{ // a part of each comment
		{"lan", rig.HostA4, rig.HostB4, 1}: ", sequence ", {"wan", rig.GwA4, rig.GwB4, 50}: ", sequence ",
		{"wan", rig.GwB4, rig.GwA4, 50}: ", sequence ", {"lan", rig.HostB4, rig.HostA4, 1}: ", sequence ",
		{"lan", rig.HostA4, rig.HostB4, 17}: "dropped: filtered",
	}
	count := 0
	for d := json.NewDecoder(bytes.NewReader(out)); ; count++ {
		var one struct {
			frame
			Comment string
		}
		if d.Decode(&one) != nil {
			break
		}
		if part, ok := want[one.frame]; !ok || !strings.HasPrefix(one.Comment, "four/net") || !strings.Contains(one.Comment, part) {
			g.t.Errorf("captured %+v", one)
		}
		delete(want, one.frame)
	}
	if count != 5 || len(want) > 0 {
		g.t.Errorf("%d packets were captured, without %v: %s", count, want, out)
	}
}

// records sends a packet of the peer over and over again: after a hundred in a second the flight recorder is kept.
func (g *ground) records() {
	g.t.Helper()
	const copies = 150
	// A bridge's ports are seen by sockets for all protocols alone.
	open := func(name string, protocol []byte) (fd int) {
		g.must(g.net.Transit.Do(func() error {
			index, err := g.net.Transit.Index(name)
			if err != nil {
				return err
			}
			if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
				return err
			}
			return errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}),
				unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(protocol), Ifindex: index}))
		}))
		g.bed.Defer(func() error { return unix.Close(fd) })
		return fd
	}
	in, out := open("port-b", []byte{0, unix.ETH_P_ALL}), open("port-a", []byte{0, 0})
	before := g.counters(g.a)
	g.run(g.net.HostA, "ping", "-n", "-c", "1", "-W", "5", rig.HostB4)
	b := make([]byte, 2000)
	var n int
	for {
		var err error
		n, _, err = unix.Recvfrom(in, b, 0)
		g.must(err)
		if kind, src, _ := testbed.Classify(b[:n]); kind == testbed.ESP && src.String() == rig.GwB4 {
			break
		}
	}
	for range copies {
		_, err := unix.Write(out, b[:n])
		g.must(err)
	}
	var replayed uint64
	g.eventually("every copy is counted", func() bool {
		replayed = g.counters(g.a).drop("replayed") - before.drop("replayed")
		return replayed >= copies
	})
	if replayed != copies {
		g.t.Errorf("%d copies are counted of %d", replayed, copies)
	}
	g.balanced()
	g.eventually("the flight recorder is kept", func() bool {
		text, err := g.a.Ask("recorder", "four/net", "--json")
		g.must(err)
		var kept struct {
			Flights []struct {
				Name, Direction, Burst string
				Dropped                uint64
				Packets                []struct{ Drop string }
			}
		}
		g.must(json.Unmarshal(text, &kept))
		f := kept.Flights[0]
		return f.Burst == "replayed" && f.Direction == "in" && f.Dropped >= 100 && len(f.Packets) > 0 && slices.ContainsFunc(f.Packets, func(p struct{ Drop string }) bool { return p.Drop == "replayed" })
	})
	log, err := os.ReadFile(g.a.Log)
	g.must(err)
	if n := strings.Count(string(log), "many packets of an association are dropped"); n != 1 {
		g.t.Errorf("the log says %d times that packets are dropped", n)
	}
}
