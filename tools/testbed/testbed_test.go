package testbed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// wire is host a ── transit (bridge) ── host z, each cable with two queues.
func wire(t *testing.T) (a, transit, z *Namespace) {
	t.Helper()
	Need(t, SysAdmin, NetAdmin, NetRaw)
	b := ForTest(t, "bed")
	spaces := make([]*Namespace, 3)
	for i, name := range []string{"a", "transit", "z"} {
		var err error
		if spaces[i], err = b.Namespace(name); err != nil {
			t.Fatal(err)
		}
	}
	a, transit, z = spaces[0], spaces[1], spaces[2]
	err := errors.Join(
		b.Veth(a, "eth0", transit, "pa", 2),
		b.Veth(z, "eth0", transit, "pz", 2),
		transit.Bridge("br0", "pa", "pz"),
		a.Address("eth0", "192.0.2.1/24", "2001:db8::1/64"),
		z.Address("eth0", "192.0.2.2/24", "2001:db8::2/64"),
	)
	if err != nil {
		t.Fatal(err)
	}
	return a, transit, z
}

func TestVethIsNeverSeenOutsideItsNamespaces(t *testing.T) {
	Need(t, SysAdmin, NetAdmin, NetRaw)
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	updates, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	defer close(done)
	if err := netlink.LinkSubscribeAt(home, updates, done); err != nil {
		t.Fatal(err)
	}
	a, _, _ := wire(t)
	link, err := a.Netlink().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if got := link.Attrs(); got.NumRxQueues != 2 || got.NumTxQueues != 2 {
		t.Errorf("%d RX and %d TX queues, want 2 and 2", got.NumRxQueues, got.NumTxQueues)
	}
	for {
		select {
		case u := <-updates:
			if name := u.Link.Attrs().Name; name == "pa" || name == "pz" {
				t.Errorf("%s was seen in the namespace of the test", name)
			}
		case <-time.After(50 * time.Millisecond):
			return
		}
	}
}

func TestDoPutsTheThreadBackAndPassesPanicsOn(t *testing.T) {
	a, _, _ := wire(t)
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	func() {
		defer func() {
			if recover() != "oops" {
				t.Error("the panic did not arrive")
			}
		}()
		a.Do(func() error { panic("oops") })
	}()
	for range 20 {
		inside := false
		if err := a.Do(func() error {
			here, err := netns.Get()
			inside = here.Equal(a.handle)
			here.Close()
			return err
		}); err != nil || !inside {
			t.Fatalf("inside %v, error %v", inside, err)
		}
		if now, _ := netns.Get(); !now.Equal(home) {
			t.Fatal("a thread of the test is in the wrong namespace")
		} else {
			now.Close()
		}
	}
}

func TestCaptureCountsKindsAndFindsWhatItWatchesFor(t *testing.T) {
	a, transit, z := wire(t)
	inner := netip.MustParsePrefix("198.51.100.0/24")
	c, err := transit.Capture(Watch{
		Inner:   []netip.Prefix{inner},
		Pairs:   []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")},
		Needles: [][]byte{[]byte("needle in the hay")},
	}, "pa", "pz")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Address("eth0", "198.51.100.1/24"); err != nil {
		t.Fatal(err)
	}
	if err := z.Address("eth0", "198.51.100.2/24"); err != nil {
		t.Fatal(err)
	}
	send := func(network, to string, payload []byte) {
		t.Helper()
		err := a.Do(func() error {
			conn, err := net.Dial(network, to)
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write(payload)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		send("udp", "192.0.2.2:4500", append([]byte{0, 0, 1, 1}, make([]byte, 60)...))
	}
	send("udp", "[2001:db8::2]:4500", append([]byte{0, 0, 1, 1}, make([]byte, 60)...))
	send("udp", "192.0.2.2:4500", make([]byte, 60))                                // non-ESP marker
	send("udp", "192.0.2.2:9", []byte("a needle in the hay"))                      // plaintext
	send("udp", "198.51.100.2:9", []byte("x"))                                     // inner header
	send("udp", "192.0.2.2:9", []byte{1, 2, 3, 203, 0, 113, 2, 203, 0, 113, 1, 9}) // inner header inside
	send("ip4:50", "192.0.2.2", append([]byte{0, 0, 1, 1}, make([]byte, 60)...))
	send("ip4:50", "192.0.2.2", []byte("ESP with a needle in the hay")) // that does not encrypt
	f, err := c.Settled(100*time.Millisecond, 5*time.Second)
	// On a busy machine a neighbour may answer after that silence, and what waits for it is sent then.
	for end := time.Now().Add(5 * time.Second); err == nil && f.ESP() < 103 && time.Now().Before(end); {
		f, err = c.Settled(100*time.Millisecond, 5*time.Second)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		what      string
		got, want uint64
	}{
		{"ESP in UDP", f.Kinds["esp-in-udp"], 101},
		{"ESP", f.Kinds["esp"], 2},
		{"both", f.ESP(), 103},
		{"IKE", f.Kinds["ike"], 1},
		{"plaintext", f.Needles, 2},
		{"outside ESP", f.Bare, f.Needles + f.Inner - 1},
		{"missed", f.Missed, 0},
	} {
		if x.got != x.want {
			t.Errorf("%s: %d, want %d", x.what, x.got, x.want)
		}
	}
	// The answers "port unreachable" quote an inner header again.
	if f.Inner < 2 {
		t.Errorf("inner addresses: %d frames, want 2 or more", f.Inner)
	}
	if f.Kinds["arp"] == 0 || f.Kinds["nd"] == 0 {
		t.Errorf("no ARP or no ND: %v", f.Kinds)
	}
	if later := f.Sub(f); later.Frames != 0 || later.ESP() != 0 || len(later.Examples) != 0 {
		t.Errorf("a difference with itself is not empty: %+v", later)
	}
}

func TestProcessRunsInsideAndEndsWithTheBed(t *testing.T) {
	a, _, _ := wire(t)
	var out bytes.Buffer
	list := exec.Command("cat", "/proc/net/dev")
	list.Stdout = &out
	p, err := a.Start(list)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "eth0") || strings.Contains(out.String(), "pa:") {
		t.Errorf("the process saw other interfaces:\n%s", out.String())
	}
	sleeper, err := a.Start(exec.Command("sleep", "1000"))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.bed.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-sleeper.Done():
	default:
		t.Error("a process outlived its bed")
	}
	if left, _ := filepath.Glob(filepath.Join(folderNamed, a.bed.Prefix()+"*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestNothingIsMadeBehindClose takes beds down while namespaces are being made on them.
func TestNothingIsMadeBehindClose(t *testing.T) {
	Need(t, SysAdmin, NetAdmin)
	for range 10 {
		b, err := New("behind")
		Must(t, err)
		var makers sync.WaitGroup
		for _, name := range []string{"a", "b", "c", "d"} {
			makers.Go(func() { b.Namespace(name) })
		}
		named := func() []string {
			all, _ := filepath.Glob(filepath.Join(folderNamed, b.Prefix()+"*"))
			return all
		}
		for len(named()) == 0 {
			time.Sleep(10 * time.Microsecond)
		}
		Must(t, b.Close())
		if left := named(); len(left) != 0 {
			t.Errorf("there when Close has returned: %v", left)
		}
		makers.Wait()
		if _, err := b.Namespace("late"); err == nil {
			t.Error("a namespace was made on a bed that is down")
		}
	}
}

// TestInterruptedProcessLeavesNothing runs this test binary as the victim: first
// ended by SIGINT, also where that was ignored when it started, as it is for what a script runs in the background, then by SIGKILL and swept by the next bed.
func TestInterruptedProcessLeavesNothing(t *testing.T) {
	Need(t, SysAdmin, NetAdmin, NetRaw)
	if os.Getenv("TESTBED_VICTIM") == "1" {
		b, err := New("victim")
		if err == nil {
			_, err = b.Namespace("x")
		}
		if err == nil {
			_, err = b.Folder()
		}
		fmt.Println("ready", err)
		select {}
	}
	for _, c := range []struct {
		signal  os.Signal
		ignored bool
	}{{os.Interrupt, false}, {os.Interrupt, true}, {os.Kill, false}} {
		signal, shell := c.signal, `exec "$0" "$1"`
		if c.ignored {
			shell = `trap "" INT; ` + shell
		}
		victim := exec.Command("sh", "-c", shell, os.Args[0], "-test.run=^TestInterruptedProcessLeavesNothing$")
		victim.Env = append(os.Environ(), "TESTBED_VICTIM=1")
		stdout, err := victim.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := victim.Start(); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 64)
		if n, err := io.ReadAtLeast(stdout, line, len("ready <nil>")); err != nil || !strings.HasPrefix(string(line[:n]), "ready <nil>") {
			t.Fatalf("victim said %q, %v", line[:n], err)
		}
		mine := filepath.Join(folderNamed, fmt.Sprintf("sp-victim-%d-*", victim.Process.Pid))
		if found, _ := filepath.Glob(mine); len(found) != 1 {
			t.Fatalf("victim made %v", found)
		}
		victim.Process.Signal(signal)
		late := time.AfterFunc(20*time.Second, func() { victim.Process.Kill() })
		victim.Wait()
		if !late.Stop() {
			t.Errorf("after %v, ignored at its start %v: the process goes on", signal, c.ignored)
		}
		if signal == os.Kill {
			ForTest(t, "sweeper")
		}
		folders := filepath.Join(os.TempDir(), fmt.Sprintf("sp-victim-%d-*", victim.Process.Pid))
		if found, _ := filepath.Glob(folders); len(found) != 0 {
			t.Errorf("after %v: left behind %v", signal, found)
		}
		if found, _ := filepath.Glob(mine); len(found) != 0 {
			t.Errorf("after %v: left behind %v", signal, found)
		}
	}
}

func TestClassify(t *testing.T) {
	v4 := func(proto byte, payload ...byte) []byte {
		f := append(make([]byte, 12), 8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2)
		return append(f, payload...)
	}
	udp := func(from, to byte, payload ...byte) []byte {
		ports := map[byte][]byte{4: {0x11, 0x94}, 5: {1, 0xf4}, 9: {0, 9}}
		return append(append(append(append([]byte{}, ports[from]...), ports[to]...), 0, 0, 0, 0), payload...)
	}
	icmp6 := func(src, dst string, kind byte) []byte {
		f := append(make([]byte, 12), 0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 58, 255)
		f = append(append(f, netip.MustParseAddr(src).AsSlice()...), netip.MustParseAddr(dst).AsSlice()...)
		return append(f, kind, 0, 0, 0, 0, 0, 0, 0)
	}
	for _, x := range []struct {
		name  string
		frame []byte
		want  Kind
	}{
		{"empty", nil, Other},
		{"neighbour solicitation", icmp6("2001:db8::1", "2001:db8::2", 135), ND},
		{"ICMPv6 error of the link", icmp6("fe80::1", "fe80::2", 1), ND},
		{"ICMPv6 error of a router", icmp6("fe80::1", "2001:db8::2", 1), Other},
		{"ICMPv6 echo", icmp6("2001:db8::1", "2001:db8::2", 128), Other},
		{"ESP", v4(50, 1, 2, 3, 4, 0, 0, 0, 1), ESP},
		{"TCP", v4(6, make([]byte, 20)...), Other},
		{"IKE on 500", v4(17, udp(5, 5, make([]byte, 28)...)...), IKE},
		{"IKE on 4500", v4(17, udp(4, 4, make([]byte, 28)...)...), IKE},
		{"keepalive", v4(17, udp(4, 4, 0xff)...), IKE},
		{"ESP in UDP", v4(17, udp(4, 4, 0, 0, 1, 0, 0, 0, 0, 1)...), ESPInUDP},
		{"ESP in UDP behind a NAT", v4(17, udp(9, 4, 0, 0, 1, 0, 0, 0, 0, 1)...), ESPInUDP},
		{"other UDP", v4(17, udp(9, 9, 0, 0, 1, 0, 0, 0, 0, 1)...), Other},
	} {
		if got, _, _ := Classify(x.frame); got != x.want {
			t.Errorf("%s: %v, want %v", x.name, got, x.want)
		}
		for n := range x.frame {
			Classify(x.frame[:n])
			describe(x.frame[:n])
		}
	}
}
