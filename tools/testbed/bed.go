// Package testbed builds small networks out of Linux network namespaces, for
// tests and for the demo, and takes them down again whatever happens.
//
//	bed ── Namespace ── Do        run a function with this thread in the namespace
//	   │             ├─ Address, Route, Sysctl, Bridge
//	   │             ├─ Start     a process inside
//	   │             └─ Capture   what crosses one interface
//	   └── Veth(a, b)             a cable; neither end is ever seen outside a and b
//
// It needs nothing but the kernel: no ip, no ethtool, no tcpdump. Processes are
// started with the mount namespace of the caller, unlike under `ip netns exec`,
// which mounts a private /sys without the bpffs in which the gateway pins its links.
//
// Everything is taken down by [Bed.Close], which tests get by t.Cleanup and which
// also runs at SIGINT, SIGTERM and SIGHUP. What a killed run left behind is swept
// by the next one: names carry the process number of their maker.
//
// It does not build user namespaces (it wants root) and knows nothing of IPsec
// beyond telling ESP from cleartext in a capture.
package testbed

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// folderNamed is where `ip netns` keeps named namespaces.
const folderNamed = "/run/netns"

// Bed owns namespaces, processes and whatever else was registered with [Bed.Defer].
type Bed struct {
	prefix string

	mu       sync.Mutex
	closed   bool
	cleanups []func() error
	making   sync.WaitGroup // what is being made, whose cleanup is not registered yet
}

// errClosed is the answer to whoever wants to make something on a bed that is being taken down.
var errClosed = errors.New("testbed: the bed is being taken down")

// begin holds up Close until end: what is made in between is not there by halves when Close returns.
func (b *Bed) begin() (end func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errClosed
	}
	b.making.Add(1)
	return b.making.Done, nil
}

// New makes an empty bed. The part is a short word (letters and digits) that says
// who made it; the bed's namespaces are named sp-PART-PID-N-NAME.
func New(part string) (*Bed, error) {
	if !regexp.MustCompile(`^[a-z0-9]{1,12}$`).MatchString(part) {
		return nil, fmt.Errorf("testbed: part %q is not a short lower-case word", part)
	}
	sweep()
	live.Lock()
	defer live.Unlock()
	if live.ended {
		return nil, errClosed
	}
	live.serial++
	b := &Bed{prefix: fmt.Sprintf("sp-%s-%d-%d-", part, os.Getpid(), live.serial)}
	if live.beds == nil {
		live.beds = map[*Bed]struct{}{}
		watchSignals()
	}
	live.beds[b] = struct{}{}
	return b, nil
}

// ForTest makes a bed that the test takes down at its end, and fails the test if
// something cannot be taken down.
func ForTest(t testing.TB, part string) *Bed {
	t.Helper()
	b, err := New(part)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("taking the testbed down: %v", err)
		}
	})
	return b
}

// Left returns the namespaces that this process made for a part and has not removed.
func Left(part string) []string {
	left, _ := filepath.Glob(filepath.Join(folderNamed, fmt.Sprintf("sp-%s-%d-*", part, os.Getpid()))) // the pattern is well-formed
	return left
}

// Prefix begins the name of every namespace of this bed; it is unique on the host
// and fit for file names.
func (b *Bed) Prefix() string { return b.prefix }

// Defer registers a function to be run by Close, last registered first. On a bed
// that is closed already it runs at once.
func (b *Bed) Defer(f func() error) {
	b.mu.Lock()
	if !b.closed {
		b.cleanups = append(b.cleanups, f)
		b.mu.Unlock()
		return
	}
	b.mu.Unlock()
	f()
}

// Close takes everything down: processes are killed, namespaces removed. It may be
// called more than once and from any goroutine.
func (b *Bed) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.making.Wait()
	var errs []error
	for {
		b.mu.Lock()
		n := len(b.cleanups)
		if n == 0 {
			b.mu.Unlock()
			break
		}
		f := b.cleanups[n-1]
		b.cleanups = b.cleanups[:n-1]
		b.mu.Unlock()
		errs = append(errs, f())
	}
	live.Lock()
	delete(live.beds, b)
	live.Unlock()
	return errors.Join(errs...)
}

// live holds the beds of this process, so that a signal can take them down.
var live struct {
	sync.Mutex
	serial int
	ended  bool // by a signal
	beds   map[*Bed]struct{}
}

// watchSignals takes every bed down when the process is told to end, then lets the
// signal do what it does.
func watchSignals() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		s := <-c
		live.Lock()
		live.ended = true
		beds := make([]*Bed, 0, len(live.beds))
		for b := range live.beds {
			beds = append(beds, b)
		}
		live.Unlock()
		for _, b := range beds {
			b.Close()
		}
		signal.Reset(unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
		unix.Kill(os.Getpid(), s.(syscall.Signal))
		time.Sleep(time.Second)
		os.Exit(128 + int(s.(syscall.Signal))) // the signal was ignored when the process started, and is again
	}()
}

// Folder makes a temporary folder that only its owner can enter and that goes away
// with the bed. What is mounted on its immediate subfolders is unmounted first.
func (b *Bed) Folder() (string, error) {
	end, err := b.begin()
	if err != nil {
		return "", err
	}
	defer end()
	folder, err := os.MkdirTemp("", b.prefix)
	if err != nil {
		return "", fmt.Errorf("temporary folder: %w", err)
	}
	b.Defer(func() error { return removeFolder(folder) })
	return folder, nil
}

func removeFolder(folder string) error {
	below, _ := filepath.Glob(filepath.Join(folder, "*"))
	for _, path := range below {
		unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) // EINVAL: not a mount
	}
	return os.RemoveAll(folder)
}

var nameOfOurs = regexp.MustCompile(`^sp-[a-z0-9]+-([0-9]+)-[0-9]+-`)

// sweep removes named namespaces and temporary folders whose maker was killed
// before it could. The folder of temporary files is open to everyone: what is not
// ours by owner is left alone.
func sweep() {
	for _, path := range orphans(folderNamed) {
		unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		os.Remove(path)
	}
	for _, path := range orphans(os.TempDir()) {
		info, err := os.Lstat(path)
		if err == nil && info.IsDir() && info.Sys().(*syscall.Stat_t).Uid == uint32(os.Geteuid()) {
			removeFolder(path)
		}
	}
}

// orphans returns what in a folder is named after a process that is no more.
func orphans(folder string) (paths []string) {
	names, _ := filepath.Glob(filepath.Join(folder, "sp-*"))
	for _, path := range names {
		m := nameOfOurs.FindStringSubmatch(filepath.Base(path))
		if m == nil {
			continue
		}
		if pid, err := strconv.Atoi(m[1]); err == nil && unix.Kill(pid, 0) == unix.ESRCH {
			paths = append(paths, path)
		}
	}
	return paths
}
