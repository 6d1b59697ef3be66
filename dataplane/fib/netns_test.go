package fib_test

import (
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespace gives the test's thread a fresh network namespace without a name. The thread is never
// unlocked, so it ends with the test, and the namespace with it.
func namespace(t *testing.T) netns.NsHandle {
	t.Helper()
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		if os.Getenv("STRICT") == "1" {
			t.Fatalf("needs CAP_SYS_ADMIN and CAP_NET_ADMIN: %v", err)
		}
		t.Skipf("needs CAP_SYS_ADMIN and CAP_NET_ADMIN: %v", err)
	}
	t.Cleanup(func() { ns.Close() })
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	return ns
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// addVeth makes a veth pair, name here and "peer" in the namespace given (or here).
func addVeth(t *testing.T, name string, peer netns.NsHandle) netlink.Link {
	t.Helper()
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p", PeerNamespace: netlink.NsFd(peer)}
	must(t, netlink.LinkAdd(v))
	l, err := netlink.LinkByName(name)
	must(t, err)
	must(t, netlink.LinkSetUp(l))
	h, err := netlink.NewHandleAt(peer, unix.NETLINK_ROUTE)
	must(t, err)
	defer h.Close()
	p, err := h.LinkByName(name + "p")
	must(t, err)
	must(t, h.LinkSetUp(p))
	return l
}

func addAddr(t *testing.T, h *netlink.Handle, ifname, cidr string) {
	t.Helper()
	l, err := h.LinkByName(ifname)
	must(t, err)
	a, err := netlink.ParseAddr(cidr)
	must(t, err)
	a.Flags = unix.IFA_F_NODAD
	must(t, h.AddrAdd(l, a))
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}
