package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The tests of this file have a network namespace and a mount namespace of
// their own, which end with the test's thread:
//
//	probe (spb0, raw socket) ──veth── gateway (spb1, the program), pins in a bpffs of their own

// TestMain runs a helper process instead of the tests if the environment asks
// for one.
func TestMain(m *testing.M) {
	switch os.Getenv("BPF_TEST_HELPER") {
	case "":
		os.Exit(m.Run())
	case "attach":
		helperAttach()
	case "mount":
		if err := EnsureBPFFS(os.Getenv("BPF_TEST_PINS")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// helperAttach is a gateway that attaches, with a socket in its slot, and then
// waits to be killed.
func helperAttach() {
	err := func() error {
		s, err := Load()
		if err != nil {
			return err
		}
		ifi, err := net.InterfaceByName("spb1")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW, 0)
		if err != nil {
			return err
		}
		if err := errors.Join(
			s.SetPrefixes(prefixes("198.51.100.0/24"), prefixes("203.0.113.0/24"), nil),
			s.SetPort(ifi.Index, 0, Protected),
			s.SetSocket(0, 0, Data, fd)); err != nil {
			return err
		}
		_, err = s.Attach("spb1", ifi.Index, Native, os.Getenv("BPF_TEST_PINS"))
		return err
	}()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	time.Sleep(time.Hour)
}

func helper(name, pins string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), "BPF_TEST_HELPER="+name, "BPF_TEST_PINS="+pins)
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return cmd
}

// rig is the two ends of a veth and a pin directory.
type rig struct {
	pins    string
	ifindex int // of spb1
	tx, rx  int // raw sockets: send on spb0, see what the kernel gets on spb1
}

// privateNamespaces moves the test's goroutine, locked to its thread, into
// namespaces of its own. The thread ends with the test.
func privateNamespaces(t *testing.T) {
	need(t)
	runtime.LockOSThread()
	check(t, unix.Unshare(unix.CLONE_NEWNET|unix.CLONE_NEWNS))
	check(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
}

func newRig(t *testing.T) *rig {
	privateNamespaces(t)
	r := &rig{pins: filepath.Join(t.TempDir(), "pins", "default")}
	check(t, EnsureBPFFS(r.pins))
	t.Cleanup(func() { unix.Unmount(r.pins, unix.MNT_DETACH) })
	r.connect(t)
	return r
}

func (r *rig) connect(t *testing.T) {
	t.Helper()
	check(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "spb0"}, PeerName: "spb1"}))
	r.tx, r.rx = up(t, "spb0"), up(t, "spb1")
	ifi, err := net.InterfaceByName("spb1")
	check(t, err)
	r.ifindex = ifi.Index
	r.waitForCarrier(t)
}

// waitForCarrier sends until a frame arrives: an interface that was just set up swallows
// frames, with no error, until the kernel's link watch has given it a queue.
func (r *rig) waitForCarrier(t *testing.T) {
	t.Helper()
	ready := ip4(v4{src: host4, dst: other4, proto: protoUDP}.with(udp(1, 1, 'r')...))
	poll := []unix.PollFd{{Fd: int32(r.rx), Events: unix.POLLIN}}
	buf := make([]byte, 2048)
	for range 500 {
		check(t, send(r.tx, ready))
		for {
			if n, err := unix.Poll(poll, 20); err != nil || n == 0 {
				break
			}
			n, _, err := unix.Recvfrom(r.rx, buf, 0)
			check(t, err)
			if string(buf[:n]) == string(ready) {
				return
			}
		}
	}
	t.Fatal("the veth carries nothing")
}

// up sets the interface up and returns a raw socket on it.
func up(t *testing.T, name string) int {
	l, err := netlink.LinkByName(name)
	check(t, err)
	check(t, netlink.LinkSetUp(l))
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	check(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: l.Attrs().Index}))
	check(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}))
	return fd
}

var (
	protectedFrame = ip4(v4{src: host4, dst: far4, proto: protoUDP}.with(udp(1, 1, 'p')...))
	openFrame      = ip4(v4{src: host4, dst: other4, proto: protoUDP}.with(udp(1, 1, 'o')...))
)

// passes sends a protected frame and then an open one, and says whether the kernel saw the
// protected one. The open frame behind it proves that the watcher sees.
func (r *rig) passes(t *testing.T) (leaked bool) {
	t.Helper()
	check(t, send(r.tx, protectedFrame))
	check(t, send(r.tx, openFrame))
	buf := make([]byte, 2048)
	for {
		n, from, err := unix.Recvfrom(r.rx, buf, 0)
		if err != nil {
			t.Fatalf("the open probe did not arrive: %v", err)
		}
		if from.(*unix.SockaddrLinklayer).Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		switch string(buf[:n]) {
		case string(protectedFrame):
			leaked = true
		case string(openFrame):
			return leaked
		}
	}
}

func send(fd int, frame []byte) error {
	_, err := unix.Write(fd, frame)
	return err
}

func (r *rig) gateway(t *testing.T) *Steering {
	s := load(t)
	check(t, s.SetPrefixes(prefixes("198.51.100.0/24"), prefixes("203.0.113.0/24"), nil))
	check(t, s.SetPort(r.ifindex, 0, Protected))
	return s
}

func (r *rig) attach(t *testing.T, s *Steering, mode Mode) *Link {
	t.Helper()
	l, err := s.Attach("spb1", r.ifindex, mode, r.pins)
	check(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

func (r *rig) program(t *testing.T) uint32 {
	t.Helper()
	a, err := attachedProgram(r.ifindex)
	check(t, err)
	return a.id
}

func TestEmptySlotDropsOnTheWire(t *testing.T) {
	for _, mode := range []Mode{Native, Generic} {
		t.Run(mode.String(), func(t *testing.T) {
			r := newRig(t)
			if !r.passes(t) {
				t.Fatal("without the program the protected probe is not seen: the test is blind")
			}
			s := r.gateway(t)
			l := r.attach(t, s, mode)
			if l.TakenOver() || l.Mode() != mode {
				t.Errorf("taken over %v, mode %v", l.TakenOver(), l.Mode())
			}
			// A raw socket sees what arrives before generic XDP; the counter decides there.
			if leaked := r.passes(t); leaked && mode == Native {
				t.Error("a protected frame passed with no socket")
			}
			counts, err := s.Counters()
			check(t, err)
			if counts[NoSocketDrop] != 1 {
				t.Errorf("counted %d drops for want of a socket, want 1", counts[NoSocketDrop])
			}
			check(t, l.Detach())
			if !r.passes(t) {
				t.Error("after Detach the protected frame is still dropped")
			}
		})
	}
}

func TestKilledProcessLeaksNothingAndIsTakenOver(t *testing.T) {
	r := newRig(t)
	for range 3 {
		child := helper("attach", r.pins)
		out, err := child.StdoutPipe()
		check(t, err)
		check(t, child.Start())
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil || line != "ready\n" {
			child.Process.Kill()
			child.Wait()
			t.Fatalf("helper: %q, %v", line, err)
		}
		before := r.program(t)
		if before == 0 || r.passes(t) {
			t.Error("the helper does not guard")
		}
		check(t, child.Process.Kill())
		child.Wait()
		if r.program(t) != before || r.passes(t) {
			t.Error("the killed helper's program is gone or leaks")
		}
		s := r.gateway(t)
		l := r.attach(t, s, Native)
		if !l.TakenOver() || r.program(t) == before {
			t.Errorf("taken over %v; program %d before, %d after", l.TakenOver(), before, r.program(t))
		}
		if r.passes(t) {
			t.Error("a protected frame passed after the take-over")
		}
		counts, err := s.Counters()
		check(t, err)
		if counts[NoSocketDrop] != 1 {
			t.Errorf("counted %d drops, want 1", counts[NoSocketDrop])
		}
	}
	names, err := Detach(r.pins)
	check(t, err)
	if len(names) != 1 || names[0] != "spb1" || r.program(t) != 0 || !r.passes(t) {
		t.Errorf("Detach answered %v, program %d", names, r.program(t))
	}
}

func TestTakeOverKeepsTheLinksMode(t *testing.T) {
	r := newRig(t)
	r.attach(t, r.gateway(t), Generic)
	if l := r.attach(t, r.gateway(t), Native); l.Mode() != Generic || !l.TakenOver() {
		t.Errorf("mode %v, taken over %v", l.Mode(), l.TakenOver())
	}
}

func TestForeignProgramIsNamed(t *testing.T) {
	r := newRig(t)
	foreign, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "stranger", Type: ebpf.XDP, License: "MIT",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
	})
	check(t, err)
	defer foreign.Close()
	l, err := link.AttachXDP(link.XDPOptions{Program: foreign, Interface: r.ifindex})
	check(t, err)
	defer l.Close()
	_, err = r.gateway(t).Attach("spb1", r.ifindex, Native, r.pins)
	var f *ForeignError
	if !errors.As(err, &f) || f.Name != "stranger" || f.ID != r.program(t) || !strings.Contains(err.Error(), "stranger") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(filepath.Join(r.pins, "spb1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused attachment left a pin: %v", err)
	}
}

func TestPinOfVanishedInterfaceIsReplaced(t *testing.T) {
	r := newRig(t)
	r.attach(t, r.gateway(t), Native)
	old, err := netlink.LinkByName("spb0")
	check(t, err)
	check(t, netlink.LinkDel(old))
	r.connect(t)
	if !r.passes(t) {
		t.Fatal("the new interface is guarded before it is attached to: the test is blind")
	}
	if l := r.attach(t, r.gateway(t), Native); l.TakenOver() {
		t.Error("a dead link was taken over")
	}
	if r.passes(t) {
		t.Error("a protected frame passed on the new interface")
	}
}

func TestPinOfAnotherLiveInterfaceIsRefused(t *testing.T) {
	r := newRig(t)
	s := r.gateway(t)
	r.attach(t, s, Native)
	other, err := net.InterfaceByName("spb0")
	check(t, err)
	check(t, os.Rename(filepath.Join(r.pins, "spb1"), filepath.Join(r.pins, "spb0")))
	if _, err := s.Attach("spb0", other.Index, Native, r.pins); err == nil || !strings.Contains(err.Error(), "another interface") {
		t.Errorf("error %v", err)
	}
	if r.program(t) == 0 {
		t.Error("the refused take-over opened the live interface")
	}
}

func TestInterfaceNameWithDot(t *testing.T) {
	r := newRig(t)
	check(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "spb2"}, PeerName: "spb3.100"}))
	ifi, err := net.InterfaceByName("spb3.100")
	check(t, err)
	l, err := r.gateway(t).Attach(ifi.Name, ifi.Index, Native, r.pins)
	check(t, err)
	defer l.Close()
	if names, err := Detach(r.pins); err != nil || len(names) != 1 || names[0] != ifi.Name {
		t.Errorf("Detach answered %v, %v", names, err)
	}
}

func TestDetachWithoutPinsIsQuiet(t *testing.T) {
	if names, err := Detach(filepath.Join(t.TempDir(), "none")); err != nil || len(names) != 0 {
		t.Errorf("%v, %v", names, err)
	}
}

func TestAttachNeedsBPFFS(t *testing.T) {
	r := newRig(t)
	_, err := r.gateway(t).Attach("spb1", r.ifindex, Native, t.TempDir())
	if err == nil || r.program(t) != 0 {
		t.Errorf("error %v, program %d", err, r.program(t))
	}
}

func TestEnsureBPFFSMountsOnce(t *testing.T) {
	privateNamespaces(t)
	if !PrivateMounts() {
		t.Log("a mount namespace of the test's own is not seen as private: /proc/1 may not be readable")
	}
	pins := filepath.Join(t.TempDir(), "pins")
	t.Cleanup(func() { unix.Unmount(pins, unix.MNT_DETACH) })
	var all []*exec.Cmd
	for range 8 {
		c := helper("mount", pins)
		c.Stderr = os.Stderr
		check(t, c.Start())
		all = append(all, c)
	}
	for _, c := range all {
		check(t, c.Wait())
	}
	check(t, EnsureBPFFS(filepath.Join(pins, "deeper", "still")))
	mounts, err := os.ReadFile("/proc/thread-self/mountinfo")
	check(t, err)
	if n := strings.Count(string(mounts), " "+pins+" "); n != 1 {
		t.Errorf("%d mounts at %s, want 1", n, pins)
	}
}

func TestEnsureBPFFSMountsTheSystemsPlace(t *testing.T) {
	privateNamespaces(t)
	check(t, unix.Mount("sysfs", "/sys", "sysfs", 0, "")) // as `ip netns exec` does
	dir := filepath.Join(systemBPFFS, fmt.Sprintf("sp-bpf-%d", os.Getpid()), "default")
	check(t, EnsureBPFFS(dir))
	on, err := onBPFFS(dir)
	if err != nil || !on {
		t.Errorf("on bpffs: %v, %v", on, err)
	}
}
