package config

import (
	"net/netip"
	"slices"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/spd"
)

// Bounds of a virtual interface's MTU: what every IPv4 host takes (RFC 791, 3.1), and what a frame holds.
const (
	interfaceMTUMin = 576
	interfaceMTUMax = packet.LenMax - packet.EtherLen
)

// virtual checks what is special about an interface that the daemon makes, and that no other has it.
func (k *checker) virtual(i *Interface, path string) {
	if !i.Virtual() {
		if i.MTU != 0 || len(i.Addrs) > 0 {
			k.errorAt(path, "%s: mtu and addrs are for role: tunnel; set those of a real interface as the system does", path)
		}
		return
	}
	if i.XDPMode != "auto" {
		k.errorAt(path+".xdp_mode", "%s: xdp_mode is for real interfaces", path)
	}
	if i.Name == k.File.Dataplane.TUN {
		k.errorAt(path, "%s: dataplane.tun has this name", path)
	}
	if i.MTU != 0 {
		k.between(path+".mtu", int(i.MTU), interfaceMTUMin, interfaceMTUMax)
	}
	if i.MTU != 0 && i.MTU < 1280 && slices.ContainsFunc(i.Addrs, func(a AddressWithPrefix) bool { return a.Addr().Is6() }) {
		k.errorAt(path+".mtu", "%s.mtu: IPv6 needs 1280 (RFC 8200, 5)", path)
	}
	if !slices.ContainsFunc(k.File.Connections, func(c Connection) bool {
		return slices.ContainsFunc(c.Children, func(child Child) bool { return child.Interface == i.Name })
	}) {
		k.warnAt(path, "%s: no child has it as its interface: what routes lead there is dropped", path)
	}
}

// byInterface checks what is special about a child whose traffic routes lead to it. Selectors that are left out stand for everything.
func (k *checker) byInterface(child *Child, path string) {
	var names []string
	var of *Interface
	for i := range k.File.Interfaces {
		if n := &k.File.Interfaces[i]; n.Virtual() {
			names = append(names, n.Name)
			if n.Name == child.Interface {
				of = n
			}
		}
	}
	switch {
	case of != nil:
	case slices.ContainsFunc(k.File.Interfaces, func(i Interface) bool { return i.Name == child.Interface }):
		k.errorAt(path+".interface", "%s.interface: %s has no role: tunnel", path, child.Interface)
	case len(names) == 0:
		k.errorAt(path+".interface", "%s.interface: interfaces has no %q with role: tunnel", path, shorten(child.Interface))
	default:
		k.errorAt(path+".interface", "%s.interface: interfaces has no %q: did you mean %q?", path, shorten(child.Interface), nearest(child.Interface, names))
	}
	if child.transport() {
		k.errorAt(path+".mode", "%s: what routes lead to a child needs mode: tunnel", path)
		child.Mode = "tunnel"
	}
	if len(child.LocalTS) == 0 {
		child.LocalTS = everything()
	}
	if len(child.RemoteTS) == 0 {
		child.RemoteTS = everything()
	}
}

// everything are selectors of all addresses.
func everything() []TrafficSelector {
	var list []TrafficSelector
	for _, p := range []string{"0.0.0.0/0", "::/0"} {
		list = append(list, TrafficSelector{Range: spd.RangeOf(netip.MustParsePrefix(p)), Ports: spd.AnyPorts})
	}
	return list
}
