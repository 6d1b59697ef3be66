package worker

import (
	"net/netip"

	"sallyport/dataplane/fib"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/spd"
)

// Interface is a virtual interface: routes lead packets into it, and the policies of its children say by which association they go.
// What comes out of these associations arrives by it.
type Interface struct {
	Name string
	// SPD are the policies of its children; nil of a number that is in use no more.
	SPD *spd.Table
	// Source4 and Source6 are addresses of the interface; may be invalid.
	Source4, Source6 netip.Addr
}

// leave sends packet i, which goes out by virtual interface n, into the association for it: there is no other way out of one.
func (w *Worker) leave(i int, n uint16) (packet.Class, packet.Drop) {
	if int(n) >= len(w.tables.Interfaces) || w.tables.Interfaces[n].SPD == nil {
		return 0, packet.DropPortDown
	}
	p, flow, policies := &w.batch.P[i], &w.batch.Flows[i], w.tables.Interfaces[n].SPD
	index, match := policies.Outbound(flow)
	switch match {
	case spd.NoMatch:
		return 0, packet.DropNoPolicy
	case spd.NeedsPorts:
		return 0, packet.DropFragmentNoPorts
	}
	tunnel := policies.Policy(index).Tunnel
	return w.protect(p, flow, tunnel, w.group.sad.Bound(tunnel))
}

// onward lets packet i, which no policy says is to be protected, go as its route says: as it is, or into a virtual interface.
func (w *Worker) onward(i int) (packet.Class, packet.Drop) {
	if n, ok := w.routed(i); ok {
		return w.leave(i, n)
	}
	return packet.ClassForward, 0
}

// pass is onward for a packet in the clear.
func (w *Worker) pass(i int) (packet.Class, packet.Drop) {
	class, reason := w.onward(i)
	if class == packet.ClassForward {
		w.Counters.Bypassed.Add(1)
	}
	return class, reason
}

// routed returns the virtual interface that the route of packet i leads into, if it leads into one.
func (w *Worker) routed(i int) (n uint16, ok bool) {
	if len(w.tables.Interfaces) == 0 {
		return 0, false
	}
	hop := &w.tables.FIB.Hops[w.hop(uint8(i))]
	return hop.Port, hop.Kind == fib.Tunnel
}

// intrudes says what is wrong with packet i in the clear, if it would go into a virtual interface, or should have come by one
// (RFC 4301, 5.2). On the protected side, routes may be asymmetric.
func (w *Worker) intrudes(i int, role Role) packet.Drop {
	if len(w.tables.Interfaces) == 0 || role&Outside == 0 {
		return packet.DropNone
	}
	if _, into := w.routed(i); into && role&Protected == 0 {
		return packet.DropSpoofed
	}
	if f := w.tables.FIB; f.Hops[f.Lookup(w.batch.Flows[i].SrcAddr())].Kind == fib.Tunnel {
		return packet.DropCleartext
	}
	return packet.DropNone
}

// arrived judges packet i, which came out of an association of a virtual interface and is none that a router forwards. What
// neighbours on a link say to each other, as routing protocols do, is for the kernel.
func (w *Worker) arrived(i uint8, martian packet.Drop) {
	p := &w.batch.P[i]
	if p.Interface == 0 || !packet.LinkScope(&w.batch.Flows[i]) {
		w.drop(i, martian)
		return
	}
	p.Class = packet.ClassPunt
	w.enlist(int(i))
}

// firstInterface tells one list of interfaces from another; nil of one without any.
func (t *Tables) firstInterface() *Interface {
	if len(t.Interfaces) == 0 {
		return nil
	}
	return &t.Interfaces[0]
}

// needPorts says that a policy of a virtual interface judges a flow, that of a later fragment, by ports.
func (t *Tables) needPorts(later *packet.Flow) bool {
	for i := range t.Interfaces {
		if policies := t.Interfaces[i].SPD; policies != nil {
			if _, match := policies.Outbound(later); match == spd.NeedsPorts {
				return true
			}
		}
	}
	return false
}

// arrival returns the virtual interface that packet p, which came out of an association, arrived by; nil for none.
func (w *Worker) arrival(p *packet.Packet) *Interface {
	if len(w.tables.Interfaces) == 0 {
		return nil
	}
	in := w.group.sad.LookupInbound(p.SPI)
	if in == nil || in.Interface == 0 || int(in.Interface) >= len(w.tables.Interfaces) {
		return nil
	}
	if n := &w.tables.Interfaces[in.Interface]; n.SPD != nil {
		return n
	}
	return nil
}

// back returns the tunnel by which an answer goes to packet p, which came out of an association: by policy, or by the virtual
// interface that p came by. flow is that of the answer.
func (w *Worker) back(p *packet.Packet, flow *packet.Flow) (tunnel uint32, ok bool) {
	policies := w.tables.SPD
	index, match := policies.Outbound(flow)
	if match == spd.NoMatch {
		n := w.arrival(p)
		if n == nil {
			return 0, false
		}
		policies = n.SPD
		index, match = policies.Outbound(flow)
	}
	if match != spd.Matched || policies.Policy(index).Action != spd.Protect {
		return 0, false
	}
	return policies.Policy(index).Tunnel, true
}

// interfaceSource is answerSource for a packet that came by a virtual interface with an address of its own; handle is 0 otherwise.
func (w *Worker) interfaceSource(p *packet.Packet, flow *packet.Flow) (src netip.Addr, handle uint32) {
	n := w.arrival(p)
	if n == nil {
		return src, 0
	}
	proto := uint8(packet.ProtoICMP)
	if src = n.Source4; flow.Version == 6 {
		src, proto = n.Source6, packet.ProtoICMPv6
	}
	if !src.IsValid() {
		return src, 0
	}
	back := packet.FlowBetween(src, flow.SrcAddr(), proto)
	back.Flags = packet.FlagPorts
	if tunnel, ok := w.back(p, &back); ok {
		handle = w.group.sad.Bound(tunnel)
	}
	return src, handle
}
