package testbed

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Capability is something that a test needs from the machine.
type Capability string

// What can be needed. Any other value is the name of a program in PATH.
const (
	NetAdmin Capability = "CAP_NET_ADMIN" // interfaces, routes, attaching XDP
	NetRaw   Capability = "CAP_NET_RAW"   // packet sockets, AF_XDP
	SysAdmin Capability = "CAP_SYS_ADMIN" // making and entering namespaces
	BPF      Capability = "CAP_BPF"       // loading programs and maps
	XDP      Capability = "AF_XDP"        // the kernel has the socket family
)

// Root is what a namespace test with a running gateway needs.
var Root = []Capability{SysAdmin, NetAdmin, NetRaw, BPF, XDP}

var capabilityBit = map[Capability]uint{
	NetAdmin: unix.CAP_NET_ADMIN, NetRaw: unix.CAP_NET_RAW, SysAdmin: unix.CAP_SYS_ADMIN, BPF: unix.CAP_BPF,
}

// Missing returns those of the capabilities that this process does not have.
func Missing(want ...Capability) []Capability {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) != nil {
		data = [2]unix.CapUserData{}
	}
	var missing []Capability
	for _, c := range want {
		bit, isCapability := capabilityBit[c]
		switch {
		case isCapability:
			if data[bit/32].Effective&(1<<(bit%32)) == 0 {
				missing = append(missing, c)
			}
		case c == XDP:
			fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				unix.Close(fd)
			} else if err == unix.EAFNOSUPPORT {
				missing = append(missing, c)
			}
		default:
			if _, err := exec.LookPath(string(c)); err != nil {
				missing = append(missing, c)
			}
		}
	}
	return missing
}

// Need skips the test, naming what is missing. With STRICT=1 in the environment,
// as in CI, a missing capability fails the test instead.
func Need(t testing.TB, want ...Capability) {
	t.Helper()
	missing := Missing(want...)
	if len(missing) == 0 {
		return
	}
	names := make([]string, len(missing))
	for i, c := range missing {
		names[i] = string(c)
	}
	if os.Getenv("STRICT") == "1" {
		t.Fatalf("STRICT=1 and this machine lacks %s", strings.Join(names, ", "))
	}
	t.Skipf("needs %s", strings.Join(names, ", "))
}
