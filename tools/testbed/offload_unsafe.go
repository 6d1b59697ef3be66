package testbed

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The ethtool flags word (include/uapi/linux/ethtool.h).
const (
	flagTxVLAN = 1 << 7
	flagRxVLAN = 1 << 8
	flagLRO    = 1 << 15
)

// OffloadsOff makes an interface send what a wire would carry: finished checksums,
// no packet larger than the MTU, VLAN tags in the frame. veth postpones all of
// these to a receiver that knows how to finish them, and an XDP program does not.
func (n *Namespace) OffloadsOff(name string) error {
	return n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("socket for ethtool: %w", err)
		}
		defer unix.Close(fd)
		for _, o := range []struct {
			what     string
			set, get uint32
			mask     uint32
		}{
			{"tx checksumming", unix.ETHTOOL_STXCSUM, unix.ETHTOOL_GTXCSUM, 1},
			{"tso", unix.ETHTOOL_STSO, unix.ETHTOOL_GTSO, 1},
			{"gso", unix.ETHTOOL_SGSO, unix.ETHTOOL_GGSO, 1},
			{"gro", unix.ETHTOOL_SGRO, unix.ETHTOOL_GGRO, 1},
			{"txvlan, rxvlan, lro", unix.ETHTOOL_SFLAGS, unix.ETHTOOL_GFLAGS, flagTxVLAN | flagRxVLAN | flagLRO},
		} {
			value, err := ethtool(fd, name, o.get, 0)
			if err != nil {
				return fmt.Errorf("reading %s of %s in %s: %w", o.what, name, n.Name, err)
			}
			if value&o.mask == 0 {
				continue
			}
			if _, err := ethtool(fd, name, o.set, value&^o.mask); err != nil {
				return fmt.Errorf("%s off on %s in %s: %w", o.what, name, n.Name, err)
			}
			if value, err = ethtool(fd, name, o.get, 0); err != nil || value&o.mask != 0 {
				return fmt.Errorf("%s stays on on %s in %s (%#x, %v)", o.what, name, n.Name, value, err)
			}
		}
		return nil
	})
}

// GROOn lets an interface join received packets. A veth with it receives by NAPI, which the kernel can then put on a CPU.
func (n *Namespace) GROOn(name string) error {
	return n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("socket for ethtool: %w", err)
		}
		defer unix.Close(fd)
		if _, err := ethtool(fd, name, unix.ETHTOOL_SGRO, 1); err != nil {
			return fmt.Errorf("gro on on %s in %s: %w", name, n.Name, err)
		}
		return nil
	})
}

// ethtool performs one command of those that carry a single word
// (struct ethtool_value) and returns the word.
func ethtool(fd int, name string, command, word uint32) (uint32, error) {
	value := struct{ command, word uint32 }{command, word}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	// The kernel reads and writes both structures only during the call; request
	// holds value's address as a pointer, so the collector sees both.
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return 0, errno
	}
	return value.word, nil
}
