package xsk

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// channels is the kernel's struct ethtool_channels (include/uapi/linux/ethtool.h).
type channels struct {
	command                             uint32
	maxRx, maxTx, maxOther, maxCombined uint32
	rx, tx, other, combined             uint32
}

// Queues returns how many RX queues an interface has in use, each of which needs a socket, as
// ethtool -l shows them. An interface whose driver does not tell has one.
func Queues(ifname string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	c := channels{command: unix.ETHTOOL_GCHANNELS}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&c)}
	copy(request.name[:unix.IFNAMSIZ-1], ifname)
	// The kernel uses both structures only during the call, and request keeps c reachable.
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errors.Is(errno, unix.EOPNOTSUPP) {
		return 1, nil
	}
	if errno != 0 {
		return 0, errno
	}
	return max(int(c.rx+c.combined), 1), nil
}
