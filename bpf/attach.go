package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Mode is how the program is attached to an interface.
type Mode uint8

const (
	// Native runs the program in the driver.
	Native Mode = iota
	// Generic runs it in the network stack, for drivers without XDP.
	Generic
)

func (m Mode) String() string {
	if m == Generic {
		return "generic"
	}
	return "native"
}

// ForeignError says that another program sits on the interface. Nothing was changed.
type ForeignError struct {
	Interface string
	ID        uint32 // the program's id, as bpftool shows it
	Name      string // the program's name; empty if it cannot be read
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("interface %s already has the XDP program %q (id %d), which is not ours: remove it with `ip link set dev %s xdp off`, or give the gateway another interface",
		e.Interface, e.Name, e.ID, e.Interface)
}

// Link is an attachment of the steering program. It is pinned: it outlives this process.
type Link struct {
	link      link.Link
	path      string
	mode      Mode
	takenOver bool
}

// Mode returns how the program is attached. A link that was taken over keeps the mode that
// it was made with, whatever was asked for: changing it would mean a gap. Detach
// first to change it.
func (l *Link) Mode() Mode { return l.mode }

// TakenOver says that the link existed before and its program was exchanged.
func (l *Link) TakenOver() bool { return l.takenOver }

// Path returns the path of the pin.
func (l *Link) Path() string { return l.path }

// Close gives up this process's hold. The program stays attached.
func (l *Link) Close() error { return l.link.Close() }

// Detach takes the program off the interface and removes the pin. From then on
// nothing steers or guards this interface.
func (l *Link) Detach() error { return detach(l.link, l.path) }

// Attach attaches the program to the interface ifname with index ifindex in the
// calling thread's network namespace, through a link pinned in pinDir under the
// interface's name.
//
// If that pin exists and its link is still on the interface, it is taken over: one
// link update exchanges the program, with no moment without one, also when the
// process that made the link is dead. If the link's interface is gone, the pin is
// replaced. A link that lives on another interface is an error, since
// replacing it would open that one. A program that is not ours gives a
// [*ForeignError]. pinDir must lie on a bpffs, see [EnsureBPFFS].
//
// Fill the maps and sockets before: the program judges from this call on.
func (s *Steering) Attach(ifname string, ifindex int, mode Mode, pinDir string) (*Link, error) {
	path := filepath.Join(pinDir, pinName(ifname))
	attached, err := attachedProgram(ifindex)
	if err != nil {
		return nil, fmt.Errorf("reading the XDP state of %s: %w", ifname, err)
	}
	pinned, err := link.LoadPinnedLink(path, nil)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("opening the pinned link %s: %w", path, err)
	default:
		alive, err := linkLives(pinned, ifindex, attached)
		if err != nil {
			pinned.Close()
			return nil, fmt.Errorf("taking over %s for %s: %w", path, ifname, err)
		}
		if alive {
			if err := pinned.Update(s.Program()); err != nil {
				pinned.Close()
				return nil, fmt.Errorf("exchanging the program of %s: %w", ifname, err)
			}
			return &Link{link: pinned, path: path, mode: attached.mode, takenOver: true}, nil
		}
		if err := detach(pinned, path); err != nil {
			return nil, fmt.Errorf("removing the pin of a vanished interface: %w", err)
		}
	}
	if attached.id != 0 {
		return nil, &ForeignError{Interface: ifname, ID: attached.id, Name: programName(attached.id)}
	}
	flags := link.XDPDriverMode
	if mode == Generic {
		flags = link.XDPGenericMode
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: s.Program(), Interface: ifindex, Flags: flags})
	if err != nil {
		return nil, fmt.Errorf("attaching to %s in %v mode: %w", ifname, mode, err)
	}
	if err := l.Pin(path); err != nil {
		l.Close()
		return nil, fmt.Errorf("pinning the link of %s: %w", ifname, err)
	}
	return &Link{link: l, path: path, mode: mode}, nil
}

// pinName is the interface's name with ':' for '.': a bpffs reserves names with dots
// (kernel: kernel/bpf/inode.c, bpf_lookup), an interface's name has no colon
// (net/core/dev.c, dev_valid_name).
func pinName(ifname string) string { return strings.ReplaceAll(ifname, ".", ":") }

func interfaceName(pin string) string { return strings.ReplaceAll(pin, ":", ".") }

// attachment is what netlink says about XDP on an interface. id is 0 if there is none.
type attachment struct {
	id   uint32
	mode Mode
}

func attachedProgram(ifindex int) (attachment, error) {
	l, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return attachment{}, err
	}
	x := l.Attrs().Xdp
	if x == nil || !x.Attached {
		return attachment{}, nil
	}
	a := attachment{id: x.ProgId}
	if x.AttachMode == nl.XDP_ATTACHED_SKB {
		a.mode = Generic
	}
	return a, nil
}

// linkLives says whether l is what is attached to ifindex (true) or belongs to an
// interface that is gone (false). Anything else is an error. Indexes repeat across
// network namespaces, therefore the program is compared too.
func linkLives(l link.Link, ifindex int, attached attachment) (bool, error) {
	info, err := l.Info()
	if err != nil {
		return false, fmt.Errorf("reading the link: %w", err)
	}
	xdp := info.XDP()
	if xdp == nil {
		return false, fmt.Errorf("the pin holds a link that is not XDP")
	}
	if xdp.Ifindex == 0 {
		return false, nil
	}
	if xdp.Ifindex == uint32(ifindex) && uint32(info.Program) == attached.id {
		return true, nil
	}
	return false, fmt.Errorf("the pinned link lives on another interface (index %d, program %d): is the pin directory shared with another instance or network namespace?", xdp.Ifindex, info.Program)
}

func programName(id uint32) string {
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return ""
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return ""
	}
	return info.Name
}

// Detach takes the program off every interface whose link is pinned in pinDir and
// removes the pins, also while a process still holds them. It returns the
// interfaces' names. A missing directory holds no pins.
func Detach(pinDir string) ([]string, error) {
	entries, err := os.ReadDir(pinDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the pins: %w", err)
	}
	var names []string
	var failures []error
	for _, e := range entries {
		if strings.Contains(e.Name(), ".") {
			continue // the kernel's own, which it puts into the root of every bpffs
		}
		path := filepath.Join(pinDir, e.Name())
		l, err := link.LoadPinnedLink(path, nil)
		if err == nil {
			err = detach(l, path)
		}
		ifname := interfaceName(e.Name())
		if err != nil {
			failures = append(failures, fmt.Errorf("detaching %s: %w", ifname, err))
			continue
		}
		names = append(names, ifname)
	}
	return names, errors.Join(failures...)
}

// detach breaks the link, removes its pin and closes it. The link of a vanished
// interface is broken already.
func detach(l link.Link, path string) error {
	defer l.Close()
	if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) {
		return fmt.Errorf("breaking the link: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("removing the pin: %w", err)
	}
	return nil
}
