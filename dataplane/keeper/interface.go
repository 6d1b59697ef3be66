package keeper

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The alias of a virtual interface is this and its owner: so it is known again by the next process.
const ownerPrefix = "sallyport "

// DefaultInterfaceMTU is that of a new virtual interface: what fits every kind of encapsulation on a path of 1500 bytes, but for the rarest.
const DefaultInterfaceMTU = 1400

// OpenInterface implements [Keeper]. While nobody has the device open the kernel drops what routes lead there. Reverse-path filter, multicast and
// IPv6 link-local address are as the host has them for any interface: routing daemons rely on them.
func (l *Local) OpenInterface(name, owner string, mtu int) (*TUN, error) {
	return openTUN("interface", name, func(fd int) (*TUN, error) { return l.setUpInterface(fd, name, owner, mtu) })
}

func (l *Local) setUpInterface(fd int, name, owner string, mtu int) (*TUN, error) {
	before, err := l.handle.LinkByName(name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		if mtu == 0 {
			mtu = DefaultInterfaceMTU
		}
	case err != nil:
		return nil, err
	case before.Attrs().Alias != ownerPrefix+owner:
		return nil, errors.New("there is an interface of this name, which is somebody else's")
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	link, err := l.attachTUN(fd, req)
	if errors.Is(err, unix.EBUSY) {
		return nil, errors.New("another process serves it")
	}
	if err != nil {
		return nil, err
	}
	if mtu != 0 {
		if err := l.handle.LinkSetMTU(link, mtu); err != nil {
			return nil, fmt.Errorf("setting MTU %d: %w", mtu, err)
		}
	}
	if err := l.handle.LinkSetAlias(link, ownerPrefix+owner); err != nil {
		return nil, fmt.Errorf("setting its alias: %w", err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return nil, fmt.Errorf("making it persistent: %w", err)
	}
	if err := l.handle.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("bringing up: %w", err)
	}
	return &TUN{Name: name, Ifindex: link.Attrs().Index}, nil
}

// Interfaces implements [Keeper].
func (l *Local) Interfaces(owner string) (names []string, err error) {
	links, err := l.handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing links: %w", err)
	}
	for _, link := range links {
		if a := link.Attrs(); link.Type() == "tuntap" && a.Alias == ownerPrefix+owner {
			names = append(names, a.Name)
		}
	}
	return names, nil
}

// DeleteInterface implements [Keeper].
func (l *Local) DeleteInterface(name, owner string) error {
	link, err := l.handle.LinkByName(name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		return nil
	case err == nil && link.Attrs().Alias != ownerPrefix+owner:
		err = errors.New("it is somebody else's")
	case err == nil:
		err = l.handle.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("deleting interface %s: %w", name, err)
	}
	return nil
}
