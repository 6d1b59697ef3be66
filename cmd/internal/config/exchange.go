package config

import (
	"net/netip"
	"slices"

	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/ike/ikesa"
	"sallyport/ike/message"
	"sallyport/ike/suite"
)

// DataPath is what the data plane needs to know of a child that is negotiated; it travels as ikesa.Child.Data.
type DataPath struct {
	Name        string // CONNECTION/CHILD
	Priority    int    // of the connection
	Window      uint32 // packets
	Outer       sad.Outer
	UDPChecksum bool
	Terms       Terms
	Interface   string // a virtual interface; "" for none
	Carrier     sad.Carrier
}

// exchange translates what was checked into what the IKE server takes.
func (k *checker) exchange() {
	for i := range k.File.Connections {
		c := &k.File.Connections[i]
		if k.negotiated[c.Name] {
			k.Connections = append(k.Connections, k.translated(c))
		}
	}
}

func (k *checker) translated(c *Connection) *ikesa.Connection {
	i := &k.File.IKE
	out := &ikesa.Connection{
		Name: c.Name, Priority: c.Priority, LocalPort: uint16(c.LocalPort), RemotePort: uint16(c.RemotePort),
		LocalAddrs: endpoints(c.LocalAddrs), RemoteAddrs: endpoints(c.RemoteAddrs),
		Local: k.locals[c.Name], Remote: k.remotes[c.Name],
		Retransmit: ikesa.Retransmit{
			Timeout: i.RetransmitTimeout.Duration, Base: float64(i.RetransmitBase), Tries: i.RetransmitTries,
			Limit: i.RetransmitLimit.Duration, Jitter: i.RetransmitJitter,
		},
		DPDDelay: c.DPDDelay.Duration, PathTime: c.PathMTUTime.Duration, Keepalive: i.Keepalive.Duration,
		RekeyTime: c.RekeyTime.Duration, ReauthTime: c.ReauthTime.Duration, OverTime: c.OverTime.Duration, RandTime: c.RandTime.Duration,
		FragmentSize: i.FragmentSize, Encap: c.Encap, SendCertReq: c.SendCertReq,
		Fragmentation: map[string]ikesa.Fragmentation{
			"yes": ikesa.FragmentationYes, "accept": ikesa.FragmentationAccept, "force": ikesa.FragmentationForce, "no": ikesa.FragmentationNo,
		}[c.Fragmentation],
		Childless: map[string]ikesa.Childless{
			"allow": ikesa.ChildlessAllow, "prefer": ikesa.ChildlessPrefer, "force": ikesa.ChildlessForce, "never": ikesa.ChildlessNever,
		}[c.Childless],
		Unique: map[string]ikesa.Unique{
			"no": ikesa.UniqueNo, "never": ikesa.UniqueNever, "keep": ikesa.UniqueKeep, "replace": ikesa.UniqueReplace,
		}[c.Unique],
		SendCert: map[string]ikesa.SendCert{
			"ifasked": ikesa.SendCertIfAsked, "always": ikesa.SendCertAlways, "never": ikesa.SendCertNever,
		}[c.SendCert],
		KeyingTries: c.KeyingTries, Pools: c.Pools,
	}
	// An association in transport mode is bound to its addresses: when they change, it has to be made anew (RFC 4555, 1.2).
	out.MOBIKE = c.MOBIKE && !slices.ContainsFunc(c.Children, func(x Child) bool { return x.transport() })
	for _, v := range c.VIPs {
		out.VIPs = append(out.VIPs, v.Addr)
	}
	// Errors were reported when the proposals were checked.
	out.Proposals, _ = proposals(c.Proposals, suite.ParseIKE, suite.DefaultIKE())
	for j := range c.Children {
		out.Children = append(out.Children, k.negotiatedChild(c, &c.Children[j]))
	}
	return out
}

func (k *checker) negotiatedChild(c *Connection, child *Child) *ikesa.Child {
	actions := map[string]ikesa.ChildAction{
		"none": ikesa.ActionNone, "trap": ikesa.ActionTrap, "start": ikesa.ActionStart, "trap|start": ikesa.ActionTrapStart,
	}
	out := &ikesa.Child{
		Name: child.Name, LocalTS: sides(child.LocalTS), RemoteTS: sides(child.RemoteTS), Mode: ikesa.Tunnel,
		RekeyTime: child.RekeyTime.Duration, LifeTime: child.LifeTime.Duration, RandTime: child.RandTime.Duration,
		RekeyBytes: uint64(child.RekeyBytes), LifeBytes: uint64(child.LifeBytes), RandBytes: uint64(child.RandBytes),
		RekeyPackets: uint64(child.RekeyPackets), LifePackets: uint64(child.LifePackets), RandPackets: uint64(child.RandPackets),
		Inactivity:  child.Inactivity.Duration,
		StartAction: actions[child.StartAction], CloseAction: actions[child.CloseAction], DPDAction: actions[child.DPDAction],
		Data: &DataPath{
			Name: c.Name + "/" + child.Name, Priority: c.Priority, Window: uint32(child.ReplayWindow),
			Outer: child.outer(), UDPChecksum: c.UDPChecksum, Terms: k.children[c.Name+"/"+child.Name].terms,
			Interface: child.Interface, Carrier: k.children[c.Name+"/"+child.Name].carrier,
		},
	}
	if child.transport() {
		out.Mode = ikesa.Transport
	}
	out.Proposals, _ = child.proposals()
	return out
}

func endpoints(list []Endpoint) []ikesa.Address {
	var out []ikesa.Address
	for _, e := range list {
		if e.IsAny {
			return nil
		}
		out = append(out, ikesa.Address{Prefix: e.Prefix, Host: e.Host})
	}
	return out
}

func sides(list []TrafficSelector) []ikesa.Selector {
	var out []ikesa.Selector
	for _, t := range list {
		out = append(out, ikesa.Selector{Dynamic: t.Dynamic, TS: message.TrafficSelector{
			Protocol: t.Proto, StartPort: t.Ports.First, EndPort: t.Ports.Last, Start: t.Range.First, End: t.Range.Last,
		}})
	}
	return out
}

// Negotiated returns the selectors of a child as two peers agreed on them. Ports that cannot be seen in a packet match none, and
// ports of protocols without any match all.
func Negotiated(local, remote []message.TrafficSelector) []spd.Selector {
	translate := func(list []message.TrafficSelector) (out []TrafficSelector) {
		for _, t := range list {
			ports := spd.PortRange{First: t.StartPort, Last: t.EndPort}
			switch {
			case t.IsOpaque():
				continue
			case !portsOf(t.Protocol):
				ports = spd.AnyPorts
			}
			out = append(out, TrafficSelector{Range: spd.Range{First: t.Start, Last: t.End}, Proto: t.Protocol, Ports: ports})
		}
		return out
	}
	return Pair(translate(local), translate(remote))
}

// Prefixes returns the pool's addresses as prefixes.
func (p *Pool) Prefixes() []netip.Prefix {
	r := spd.Range{First: p.Addrs.First, Last: p.Addrs.Last}
	return r.Prefixes()
}

// Member is a child that is negotiated.
type Member struct {
	Connection, Child string
	Priority          int // of the connection
}

// String returns CONNECTION/CHILD.
func (m Member) String() string { return m.Connection + "/" + m.Child }

// Members lists the children that are negotiated, in the file's order.
func (c *Config) Members() []Member {
	var out []Member
	for _, conn := range c.Connections {
		for _, child := range conn.Children {
			out = append(out, Member{conn.Name, child.Name, conn.Priority})
		}
	}
	return out
}

// Negotiates says whether the daemon speaks IKE: unless it has manual keys only.
func (c *Config) Negotiates() bool { return len(c.Connections) > 0 || len(c.File.Manual) == 0 }
