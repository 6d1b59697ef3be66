package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/tools/testbed"
)

// TestCtrlCLeavesNothing interrupts the program itself while it measures: a verb that builds namespaces, and a run, whose parts are
// processes of their own.
func TestCtrlCLeavesNothing(t *testing.T) {
	testbed.Need(t, testbed.Root...)
	bin := t.TempDir()
	for _, program := range []string{"sallyportd", "sallyport-bench"} {
		if out, err := exec.Command("go", "build", "-o", bin, "sallyport/cmd/"+program).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	wire := strings.Fields("wire --directions encrypt --sizes 64 --ceilings=false --sum 1000 --kernel=false --peer= --testpmd= --wireguard= --strongswan= --bin " + bin)
	for _, args := range [][]string{wire, strings.Fields("run --quick --only wire --bin " + bin + " --out " + filepath.Join(bin, "out"))} {
		t.Run(args[0], func(t *testing.T) {
			var errs bytes.Buffer
			c := exec.Command(filepath.Join(bin, "sallyport-bench"), args...)
			c.Stderr = &errs
			testbed.Must(t, c.Start())
			maker := 0 // the process that has made namespaces
			for deadline := time.Now().Add(30 * time.Second); maker == 0; time.Sleep(20 * time.Millisecond) {
				for _, pid := range append(children(c.Process.Pid), c.Process.Pid) {
					// A gateway runs: the rig is whole.
					if len(namespaces(pid)) > 0 && len(processes(bin, "sallyportd")) > 0 {
						maker = pid
					}
				}
				if time.Now().After(deadline) {
					c.Process.Kill()
					t.Fatalf("no gateway was started: %s", errs.String())
				}
			}
			testbed.Must(t, c.Process.Signal(syscall.SIGINT))
			if err := c.Wait(); err == nil {
				t.Error("it says that all is well")
			}
			if left := namespaces(maker); len(left) > 0 {
				t.Errorf("namespaces are left: %v", left)
			}
			if left := processes(bin, ""); len(left) > 0 {
				t.Errorf("processes are left: %v", left)
			}
			if _, err := os.Stat(filepath.Join(bin, "out")); err == nil {
				t.Error("half a run was written")
			}
		})
	}
}

func children(pid int) (all []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, name := range lists {
		text, _ := os.ReadFile(name)
		for _, word := range strings.Fields(string(text)) {
			var child int
			if _, err := fmt.Sscan(word, &child); err == nil {
				all = append(all, child)
			}
		}
	}
	return all
}

// namespaces are those that a process made; testbed names them after it.
func namespaces(pid int) []string {
	all, _ := filepath.Glob(fmt.Sprintf("/run/netns/sp-*-%d-*", pid))
	return all
}

// processes are those whose program is in a folder.
func processes(folder, name string) (all []string) {
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, filepath.Join(folder, name)) {
			all = append(all, to)
		}
	}
	return all
}
