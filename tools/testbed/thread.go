package testbed

import (
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Thread gives the test's thread a network namespace without a name, with the loopback
// interface up, for tests of one package against the kernel that need no second
// host. The thread is never unlocked, so it ends with the test, and the namespace with
// it; the handle is the test's to use until then.
func Thread(t testing.TB) netns.NsHandle {
	t.Helper()
	Need(t, SysAdmin, NetAdmin)
	runtime.LockOSThread()
	ns, err := netns.New()
	Must(t, err)
	t.Cleanup(func() { ns.Close() })
	lo, err := netlink.LinkByName("lo")
	Must(t, err)
	Must(t, netlink.LinkSetUp(lo))
	return ns
}

// Must fails the test now if there is an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Eventually waits until ok says true, and fails the test if it never does.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// AddVeth makes a veth in the thread's namespace, called name, whose other end, called
// name+"p", is in the namespace of peer. Both are up.
func AddVeth(t testing.TB, name string, peer netns.NsHandle) netlink.Link {
	t.Helper()
	Must(t, netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p", PeerNamespace: netlink.NsFd(peer),
	}))
	l, err := netlink.LinkByName(name)
	Must(t, err)
	Must(t, netlink.LinkSetUp(l))
	h, err := netlink.NewHandleAt(peer, unix.NETLINK_ROUTE)
	Must(t, err)
	defer h.Close()
	p, err := h.LinkByName(name + "p")
	Must(t, err)
	Must(t, h.LinkSetUp(p))
	return l
}

// AddAddress gives an interface an address such as 192.0.2.1/24, usable at once.
func AddAddress(t testing.TB, h *netlink.Handle, ifname, cidr string) {
	t.Helper()
	l, err := h.LinkByName(ifname)
	Must(t, err)
	a, err := netlink.ParseAddr(cidr)
	Must(t, err)
	a.Flags = unix.IFA_F_NODAD
	Must(t, h.AddrAdd(l, a))
}
