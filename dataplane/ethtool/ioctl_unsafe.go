package ethtool

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call performs one ethtool command. The words hold the command's structure, which begins with
// the command's number, and take the answer.
func call(ifname string, words []uint32) error {
	if len(ifname) >= unix.IFNAMSIZ {
		return fmt.Errorf("the interface name %q is too long", ifname)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request := struct { // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(unsafe.SliceData(words))}
	copy(request.name[:], ifname)
	// The kernel uses both structures only during the call, and request holds the words' address
	// as a pointer, so the collector sees them. The counts in the words bound what it writes.
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}

// octets returns the memory of words as bytes.
func octets(words []uint32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), 4*len(words))
}
