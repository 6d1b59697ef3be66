package failclosed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/tools/rig"
)

// TestRestartRepeatsNoNonce kills a gateway, stops it and starts it again, with keys that the gateways agree on: no SPI and IV crosses
// twice, since what a gateway counted and its keys end with it. It leaves no file from which either could come back.
func TestRestartRepeatsNoNonce(t *testing.T) {
	g := lay(t, rig.Negotiated())
	watch := g.net.Watch()
	watch.Nonces = true
	c, err := g.net.Transit.Capture(watch, "port-a", "port-b")
	must(t, err)
	g.captures = append(g.captures, c)
	must(t, g.pair.Start())
	g.send()
	g.flows("at the start")
	before := files(t, g.pair)
	for _, end := range []struct {
		name string
		how  func() error
	}{
		{"killed", func() error { g.pair.A.Kill(); return nil }},
		{"stopped", func() error { return g.pair.A.Stop(10 * time.Second) }},
	} {
		must(t, end.how())
		if after := files(t, g.pair); !slices.Equal(before, after) {
			t.Errorf("%s: the files were %v and are %v", end.name, before, after)
		}
		must(t, g.pair.A.Launch())
		g.flows("after it was " + end.name)
	}
	f, err := c.Figures()
	must(t, err)
	if f.Missed > 0 || f.ESP() < 40 || f.Repeated > 0 {
		t.Errorf("%d packets of ESP crossed, %d with a nonce seen before; %d missed", f.ESP(), f.Repeated, f.Missed)
	}
}

// files lists what lies beside the gateways' configurations, but for logs and sockets.
func files(t *testing.T, p *rig.Pair) (list []string) {
	t.Helper()
	must(t, filepath.WalkDir(filepath.Dir(p.A.Config), func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && !strings.HasSuffix(path, ".log") && !strings.Contains(path, "/bpf/") {
			list = append(list, path)
		}
		return err
	}))
	return list
}

// TestKeysAreNobodysToRead has a process of the same user, with the same privileges but that to trace, look into a running daemon: the
// kernel gives it nothing, and would write no core. Into a process that has not forbidden it, it may look.
func TestKeysAreNobodysToRead(t *testing.T) {
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip(err)
	}
	g := lay(t, rig.Tunnels())
	weaker := func(name string, args ...string) *exec.Cmd {
		return exec.Command(setpriv, append([]string{"--bounding-set", "-sys_ptrace", "--", name}, args...)...)
	}
	daemon := g.pair.A.Command()
	open := weaker("sleep", "60")
	closed := weaker(daemon.Path, daemon.Args[1:]...)
	for _, cmd := range []*exec.Cmd{open, closed} {
		_, err := g.net.GwA.Start(cmd)
		must(t, err)
	}
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := g.pair.A.Ask("status"); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	for what, look := range map[string]func(pid int) *exec.Cmd{
		"memory":     func(pid int) *exec.Cmd { return weaker("sh", "-c", fmt.Sprintf("exec </proc/%d/mem", pid)) },
		"executable": func(pid int) *exec.Cmd { return weaker("readlink", fmt.Sprintf("/proc/%d/exe", pid)) },
	} {
		if err := look(open.Process.Pid).Run(); err != nil {
			t.Errorf("the %s of a process that forbids nothing cannot be looked at, so the test shows nothing: %v", what, err)
		}
		if look(closed.Process.Pid).Run() == nil {
			t.Errorf("the daemon's %s can be looked at", what)
		}
	}
}
