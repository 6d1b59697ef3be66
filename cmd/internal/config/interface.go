package config

import (
	"net/netip"
	"slices"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
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
		if i.MTU != 0 || len(i.Addrs) > 0 || i.Key.Set || i.Encapsulation != "none" {
			k.errorAt(path, "%s: mtu, addrs, encapsulation and key are for role: tunnel; set up a real interface as the system does", path)
		}
		return
	}
	k.oneOf(path+".encapsulation", i.Encapsulation, "none", "gre", "ipip")
	if i.Key.Set && i.Encapsulation != "gre" {
		k.errorAt(path+".key", "%s.key: a key goes with encapsulation: gre", path)
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

// byInterface checks what is special about a child whose traffic routes lead to it, and returns what its interface puts packets into. Selectors that
// are left out stand for everything, or for the encapsulation.
func (k *checker) byInterface(child *Child, path string) sad.Carrier {
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
	_, given := k.at[path+".mode"]
	carrier := of.carrier()
	if carrier.Encapsulation == sad.NoEncapsulation {
		if child.transport() {
			k.errorAt(path+".mode", "%s: what routes lead to a child needs mode: tunnel, or an interface with encapsulation", path)
			child.Mode = "tunnel"
		}
		if len(child.LocalTS) == 0 {
			child.LocalTS = everything()
		}
		if len(child.RemoteTS) == 0 {
			child.RemoteTS = everything()
		}
		return carrier
	}
	if given && !child.transport() {
		k.errorAt(path+".mode", "%s: %s of interface %s goes in mode: transport", path, carrier, of.Name)
	}
	child.Mode = "transport"
	if child.ah() && carrier.Encapsulation == sad.GRE {
		k.errorAt(path+".ah_proposals", "%s: no AH with encapsulation: gre", path)
	}
	var own []TrafficSelector
	for _, proto := range carriers[carrier.Encapsulation] {
		own = append(own, TrafficSelector{Dynamic: true, Proto: proto, Ports: spd.AnyPorts})
	}
	for _, side := range []struct {
		key  string
		list *[]TrafficSelector
	}{{"local_ts", &child.LocalTS}, {"remote_ts", &child.RemoteTS}} {
		for _, t := range *side.list {
			if t.Proto != 0 && !slices.Contains(carriers[carrier.Encapsulation], t.Proto) {
				k.errorAt(path+"."+side.key, "%s.%s: interface %s has encapsulation: %s, so this is for the addresses of the connection with that protocol, or left out", path, side.key, of.Name, carrier.Encapsulation)
			}
		}
		if len(*side.list) == 0 {
			*side.list = own
		}
	}
	return carrier
}

// carriers are the protocols of the datagrams that an encapsulation makes of IPv4 and of IPv6 packets.
var carriers = map[sad.Encapsulation][]uint8{sad.GRE: {packet.ProtoGRE}, sad.IPIP: {packet.ProtoIPv4, packet.ProtoIPv6}}

// carrier translates what an interface puts its packets into.
func (i *Interface) carrier() sad.Carrier {
	if i == nil {
		return sad.Carrier{}
	}
	c := sad.Carrier{Key: i.Key.Value, Keyed: i.Key.Set}
	switch i.Encapsulation {
	case "gre":
		c.Encapsulation = sad.GRE
	case "ipip":
		c.Encapsulation = sad.IPIP
	}
	return c
}

// Carried returns the selectors of the inner packets that an association of transport mode carries in an encapsulation, if its own selectors
// are these; none if they hold no such datagram.
func Carried(e sad.Encapsulation, own []spd.Selector) (inner []spd.Selector) {
	all := Pair(everything(), everything()) // IPv4, IPv6
	for i := range all {
		protos := carriers[e]
		proto := protos[i%len(protos)]
		if slices.ContainsFunc(own, func(s spd.Selector) bool { return s.Proto == 0 || s.Proto == proto }) {
			inner = append(inner, all[i])
		}
	}
	return inner
}

// outright replaces every address of selectors by any of IPv4: of interest are protocols.
func outright(list []TrafficSelector) (out []TrafficSelector) {
	for _, t := range list {
		out = append(out, TrafficSelector{Range: everything()[0].Range, Proto: t.Proto, Ports: spd.AnyPorts})
	}
	return out
}

// everything are selectors of all addresses.
func everything() []TrafficSelector {
	var list []TrafficSelector
	for _, p := range []string{"0.0.0.0/0", "::/0"} {
		list = append(list, TrafficSelector{Range: spd.RangeOf(netip.MustParsePrefix(p)), Ports: spd.AnyPorts})
	}
	return list
}
