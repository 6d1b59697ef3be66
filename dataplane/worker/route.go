package worker

import (
	"sallyport/dataplane/fib"
	"sallyport/dataplane/forward"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/spd"
)

// routeDecapsulated sends what came out of associations on its way. A packet whose destination
// lies behind another tunnel goes into that tunnel, never out in the clear.
func (w *Worker) routeDecapsulated() {
	b := &w.batch
	w.Counters.Opened.Add(uint64(len(w.lists.in)))
	if w.watched {
		w.foreseeDecapsulated() // expressDecapsulated did not
	}
	for _, i := range w.lists.in {
		p := &b.P[i]
		if len(w.tables.Interfaces) > 0 {
			p.Interface = w.inbound[i].Interface
		}
		if reason := packet.Martian(b, int(i)); reason != packet.DropNone {
			w.arrived(i, reason)
			continue
		}
		switch p.Class, p.Reason = w.judgeDecapsulated(int(i)); p.Reason {
		case packet.DropNone:
			w.enlist(int(i))
		case packet.DropNoOutbound:
			w.await(int(i))
		}
	}
}

// judgeDecapsulated is judge for what came out of an association.
func (w *Worker) judgeDecapsulated(i int) (packet.Class, packet.Drop) {
	flow := &w.batch.Flows[i]
	if flow.Flags&packet.FlagFragment != 0 {
		w.follow(i, w.batch.P[i].SPI)
	}
	known := w.flows.policy(w.places[i], flow)
	switch known.match {
	case spd.NeedsPorts:
		return 0, packet.DropFragmentNoPorts
	case spd.Matched:
		if known.action == spd.Protect && flow.Multicast() {
			return packet.ClassForward, 0 // to the hosts here: another tunnel, or the same, could bring it back again and again
		}
		return w.obey(i, known)
	}
	return w.onward(i)
}

// routeForward finds the next hop of everything that leaves as it is, and readies it.
func (w *Worker) routeForward() {
	b, kept := &w.batch, w.lists.forward[:0]
	for _, i := range w.lists.forward {
		p := &b.P[i]
		p.Hop = w.hop(i)
		hop := &w.tables.FIB.Hops[p.Hop]
		switch hop.Kind {
		case fib.Local:
			w.lists.punt = append(w.lists.punt, i)
			continue
		case fib.Multicast:
			if p.Flags&packet.FlagDecapsulated == 0 {
				w.lists.punt = append(w.lists.punt, i)
				continue
			}
		case fib.NoRoute:
			w.unreachable(i, packet.DropNoRoute, forward.NetUnreachable)
			continue
		case fib.Unreachable:
			w.drop(i, packet.DropUnreachable)
			continue
		case fib.Tunnel:
			w.drop(i, packet.DropTunnelLoop) // what may go into one was sent there before
			continue
		}
		if w.exposes(p, hop) {
			w.drop(i, packet.DropExposed)
			continue
		}
		if p.Flags&(packet.FlagLocal|packet.FlagRouted) == 0 && p.TTL <= 1 {
			w.timeExceeded(i)
			continue
		}
		if size := int(p.End - p.L3); size > int(hop.MTU) {
			w.tooBig(i, int(hop.MTU), packet.ClassForward)
			continue
		}
		if p.Flags&(packet.FlagLocal|packet.FlagRouted) == 0 {
			forward.DecrementTTL(b, int(i))
			if w.tables.ClampMSS && p.Flags&packet.FlagDecapsulated != 0 {
				w.clampDecapsulated(i)
			}
		}
		kept = append(kept, i)
	}
	w.lists.forward = kept
}

// hop returns the next hop of packet i's destination, as it is remembered or as the table has it.
func (w *Worker) hop(i uint8) uint32 {
	f, flow := w.tables.FIB, &w.batch.Flows[i]
	known := w.flows.find(w.places[i], flow)
	if known == nil || known.protects() {
		return f.Lookup(flow.DstAddr()) // packets that were not judged here, and entries that another flow took
	}
	if known.of != f.Generation {
		known.way, known.of = f.Lookup(flow.DstAddr()), f.Generation
	}
	return known.way
}

// exposes reports whether a packet that came out of a tunnel, and goes into none, would leave by an
// interface that is on the outside only. That happens when the interface of the protected network is
// gone: the default route, towards the peer, is then the best one left.
func (w *Worker) exposes(p *packet.Packet, hop *fib.Hop) bool {
	return p.Flags&packet.FlagDecapsulated != 0 && int(hop.Port) < len(w.tables.Ports) && w.tables.Ports[hop.Port].Role&Protected == 0
}

// clampDecapsulated fits the MSS of a SYN that came out of a tunnel to the tunnel's
// other direction, through which the data that it invites will go.
func (w *Worker) clampDecapsulated(i uint8) {
	if !forward.IsSYN(&w.batch, int(i)) {
		return
	}
	back := w.batch.Flows[i].Back()
	tunnel, ok := w.back(&w.batch.P[i], &back)
	if !ok {
		return
	}
	sa := w.group.sad.LookupOutbound(w.group.sad.Bound(tunnel))
	if sa == nil {
		return
	}
	// Endpoints of the other direction may be another worker's to change: the same are those of this one.
	in := w.inbound[i]
	hop := &w.tables.FIB.Hops[w.tables.FIB.Lookup(in.RemoteAddr())]
	if hop.MTU > 0 {
		forward.ClampMSS(&w.batch, int(i), in.InnerMTU(int(hop.MTU), sa.PathMTU()))
	}
}

// ask has the kernel find the link address that packet i needs.
func (w *Worker) ask(i uint8, hop *fib.Hop) {
	flow := packet.FlowOf(&w.batch, int(i))
	w.group.resolve(hop.Ifindex, hop.Target(flow.DstAddr()))
}

// park keeps a complete packet until its neighbour is known, and asks for it.
func (w *Worker) park(i uint8, hop *fib.Hop) {
	p := &w.batch.P[i]
	w.ask(i, hop)
	if len(w.parked) >= parkedMax {
		w.drop(i, packet.DropNeighbourUnresolved)
		return
	}
	if len(w.parked) == 0 {
		w.parkedAt = w.tables.FIB.Generation
	}
	w.parked = append(w.parked, parkedPacket{*p, w.now + parkedTimeout})
	w.Counters.Parked.Add(1)
}

// unpark tries parked packets again when routes or neighbours have changed, and ends those that
// waited too long.
func (w *Worker) unpark() {
	f := w.tables.FIB
	changed := f.Generation != w.parkedAt
	if !changed && w.now < w.parked[0].deadline {
		return
	}
	b, kept := &w.batch, w.parked[:0]
	for k, q := range w.parked {
		if b.N >= w.burst {
			kept = append(kept, w.parked[k:]...)
			break
		}
		expired := w.now >= q.deadline
		if !expired && !changed {
			kept = append(kept, q)
			continue
		}
		p := &b.P[b.N]
		*p = q.packet
		b.N++
		// The packet is complete; only its hop is looked up again.
		flow := packet.FlowOf(b, b.N-1)
		p.Hop = f.Lookup(flow.DstAddr())
		hop := &f.Hops[p.Hop]
		switch {
		case hop.Kind == fib.Forward && p.Flags&packet.FlagSealed == 0 && w.exposes(p, hop):
			p.Reason = packet.DropExposed
		case hop.Kind == fib.Forward:
			hop.Touch()
			forward.WriteEthernet(b, b.N-1, &hop.SrcMAC, &hop.DstMAC)
			p.Class = packet.ClassTransmit
			p.Port = hop.Port
			w.enlist(b.N - 1)
		case expired || hop.Kind == fib.Failed:
			reason := packet.DropNeighbourFailed
			if hop.Kind == fib.Unresolved {
				reason = packet.DropNeighbourUnresolved
			}
			w.unreachable(uint8(b.N-1), reason, forward.HostUnreachable)
		case hop.Kind == fib.Unresolved:
			kept = append(kept, q)
			b.N--
		default:
			p.Reason = packet.DropNoRoute
		}
	}
	w.parked = kept
	if b.N < w.burst {
		w.parkedAt = f.Generation
	}
}
