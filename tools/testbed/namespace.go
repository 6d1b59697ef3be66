package testbed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is one network namespace: a host of the test network.
type Namespace struct {
	Name string // as `ip netns` shows it

	bed    *Bed
	handle netns.NsHandle
	links  *netlink.Handle
}

// Namespace makes a namespace named prefix + name, with the loopback interface up,
// no duplicate address detection and no router solicitations, so that addresses
// are usable at once and the wire is quiet.
func (b *Bed) Namespace(name string) (*Namespace, error) {
	end, err := b.begin()
	if err != nil {
		return nil, err
	}
	defer end()
	n := &Namespace{Name: b.prefix + name, bed: b}
	path := filepath.Join(folderNamed, n.Name)
	result := make(chan error, 1)
	go func() {
		// The thread has left its namespace for good: it stays locked, and so
		// ends with this goroutine.
		runtime.LockOSThread()
		var err error
		n.handle, err = netns.NewNamed(n.Name)
		result <- err
	}()
	if err := <-result; err != nil {
		unix.Unmount(path, unix.MNT_DETACH)
		os.Remove(path)
		return nil, fmt.Errorf("making namespace %s: %w", n.Name, err)
	}
	b.Defer(func() error {
		if n.links != nil {
			n.links.Close()
		}
		return errors.Join(n.handle.Close(), netns.DeleteNamed(n.Name))
	})
	if n.links, err = netlink.NewHandleAt(n.handle, unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("netlink in %s: %w", n.Name, err)
	}
	err = errors.Join(
		n.Sysctl("net.ipv6.conf.default.accept_dad", "0"),
		n.Sysctl("net.ipv6.conf.all.accept_dad", "0"),
		n.Sysctl("net.ipv6.conf.default.router_solicitations", "0"),
		n.Up("lo"),
	)
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Netlink is a route netlink handle inside the namespace, for what this package
// has no verb for. The namespace owns it.
func (n *Namespace) Netlink() *netlink.Handle { return n.links }

// FD is the namespace's file descriptor. The namespace owns it.
func (n *Namespace) FD() int { return int(n.handle) }

// Do runs f on a thread that is inside the namespace, and returns what f returns.
// Sockets that f opens stay in the namespace after it. Goroutines that f starts are
// NOT in the namespace. The thread is put back afterwards; one that cannot be put
// back is never used again. A panic of f goes on in the caller.
func (n *Namespace) Do(f func() error) error {
	type outcome struct {
		err      error
		panicked any
	}
	result := make(chan outcome, 1)
	go func() {
		var out outcome
		defer func() { result <- out }()
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			out.err = fmt.Errorf("own namespace: %w", err)
			runtime.UnlockOSThread()
			return
		}
		defer home.Close()
		if err := netns.Set(n.handle); err != nil {
			out.err = fmt.Errorf("entering %s: %w", n.Name, err)
			runtime.UnlockOSThread()
			return
		}
		defer func() {
			out.panicked = recover()
			if netns.Set(home) == nil {
				runtime.UnlockOSThread()
			}
		}()
		out.err = f()
	}()
	out := <-result
	if out.panicked != nil {
		panic(out.panicked)
	}
	return out.err
}
