// Package ethtool asks the kernel what an interface's driver has: its queues and its
// offloads (kernel: include/uapi/linux/ethtool.h). It reads only, which needs no
// privilege, and sees the interfaces of the calling thread's network namespace.
package ethtool

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Queues returns how many RX queues an interface has in use, each of which needs a socket, as
// ethtool -l shows them. An interface whose driver does not tell has one.
func Queues(ifname string) (int, error) {
	// struct ethtool_channels: command, the four largest numbers possible, then
	// rx, tx, other and combined in use.
	channels := make([]uint32, 9)
	channels[0] = unix.ETHTOOL_GCHANNELS
	err := call(ifname, channels)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return 1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("channels of %s: %w", ifname, err)
	}
	return max(int(channels[5]+channels[8]), 1), nil
}

const (
	setFeatures = 4    // ETH_SS_FEATURES
	nameLen     = 32   // ETH_GSTRING_LEN
	featuresMax = 1024 // ten times as many as there are
)

// Features returns the offloads that are on, by name, as ethtool -k shows them.
func Features(ifname string) (map[string]bool, error) {
	// struct ethtool_sset_info: command, reserved, the mask of sets as 64 bits, the number of names.
	set := make([]uint32, 5)
	set[0], set[2] = unix.ETHTOOL_GSSET_INFO, 1<<setFeatures
	if err := call(ifname, set); err != nil {
		return nil, fmt.Errorf("features of %s: %w", ifname, err)
	}
	n := min(set[4], featuresMax)
	// struct ethtool_gstrings: command, set, number, then the names.
	names := make([]uint32, 3+n*nameLen/4)
	names[0], names[1], names[2] = unix.ETHTOOL_GSTRINGS, setFeatures, n
	if err := call(ifname, names); err != nil {
		return nil, fmt.Errorf("features of %s: %w", ifname, err)
	}
	// struct ethtool_gfeatures: command, number of blocks, then for every 32 features the
	// words available, requested, active and never changed.
	blocks := (n + 31) / 32
	state := make([]uint32, 2+4*blocks)
	state[0], state[1] = unix.ETHTOOL_GFEATURES, blocks
	if err := call(ifname, state); err != nil {
		return nil, fmt.Errorf("features of %s: %w", ifname, err)
	}
	on := map[string]bool{}
	text := octets(names[3:])
	for i := range n {
		name, _, _ := bytes.Cut(text[i*nameLen:(i+1)*nameLen], []byte{0})
		if state[2+4*(i/32)+2]&(1<<(i%32)) != 0 {
			on[string(name)] = true
		}
	}
	return on, nil
}
