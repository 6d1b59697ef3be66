package worker

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/spd"
)

// portESP is the UDP port of encapsulated ESP (RFC 3948); portIKE that of IKE.
const (
	portIKE = 500
	portESP = 4500
)

// classify parses the packets that came from queues and puts each on the list of what
// is to be done with it, or ends it.
func (w *Worker) classify() {
	b := &w.batch
	if len(w.lists.shortOut)+len(w.lists.shortIn) == w.fresh {
		return // the short ways took them all
	}
	for i := range b.N {
		p := &b.P[i]
		if p.Class != packet.ClassNone {
			continue // handed over or made here: classified before
		}
		if p.Port == w.tables.TUN || p.Port == w.tables.IKE {
			p.Flags |= packet.FlagLocal
			if p.Port == w.tables.TUN && len(w.tables.Interfaces) > 0 && p.Len >= packet.EtherLen {
				p.Interface = packet.InterfaceOf(b.Frame(i))
			}
		}
		if p.Reason = packet.Parse(b, i); p.Reason == packet.DropNone {
			w.places[i] = w.flows.place(&b.Flows[i])
		}
	}
	for i := range b.N {
		p := &b.P[i]
		if p.Class != packet.ClassNone || p.Reason != packet.DropNone {
			continue
		}
		w.place(i)
	}
}

// place puts packet i, which is parsed and came from a queue, on the list of what is to be done with it, or ends it.
func (w *Worker) place(i int) {
	p := &w.batch.P[i]
	switch p.Class, p.Reason = w.judge(i); p.Reason {
	case packet.DropNone:
		w.enlist(i)
	case packet.DropNoOutbound:
		w.await(i)
	}
}

// judge says what is to be done with packet i, which is parsed and came from a queue, or why it ends.
func (w *Worker) judge(i int) (packet.Class, packet.Drop) {
	p := &w.batch.P[i]
	local := p.Port == w.tables.TUN
	switch {
	case p.Port == w.tables.IKE:
		return packet.ClassForward, 0 // no policy speaks of it (RFC 4301, 4.4.1)
	case p.Flags&packet.FlagFragment != 0 && (local || !w.tables.Endpoints.Has(&w.batch.Flows[i])) && w.follow(i, 0):
		return packet.ClassFragment, 0
	case local:
		return w.classifyLocal(i)
	case w.tables.Endpoints.Has(&w.batch.Flows[i]):
		if packet.IsError(p) {
			return w.classifyError(i)
		}
		return w.classifyEndpoint(p, &w.batch.Flows[i], w.batch.IP(i))
	}
	return w.classifyCleartext(i)
}

// classifyEndpoint judges a packet to one of our outer addresses. ip is the datagram. What
// is not IPsec at all goes to the kernel, unless policy wants it protected in transport mode.
func (w *Worker) classifyEndpoint(p *packet.Packet, flow *packet.Flow, ip []byte) (packet.Class, packet.Drop) {
	payload := ip[p.L4-p.L3:]
	if p.Flags&packet.FlagFragment != 0 && (p.Proto == packet.ProtoESP || p.Proto == packet.ProtoUDP || p.Proto == packet.ProtoAH) {
		return packet.ClassFragment, 0
	}
	switch p.Proto {
	case unix.IPPROTO_ESP:
		return w.classifyESP(p, payload)
	case unix.IPPROTO_AH:
		if len(payload) < 12 {
			return 0, packet.DropBadAH
		}
		return w.classifyESP(p, payload[4:]) // the SPI follows two words later (RFC 4302, 2)
	case unix.IPPROTO_UDP:
		if p.DstPort == portIKE {
			return w.classifyIKE(p)
		}
		if p.DstPort != portESP {
			return w.classifyOwn(flow)
		}
		if len(payload) < 8 {
			return 0, packet.DropShortESP // Parse reads the ports, and no further
		}
		payload = payload[8:]
		if len(payload) >= 4 && binary.BigEndian.Uint32(payload) == 0 {
			return w.classifyIKE(p) // the non-ESP marker, RFC 3948, 2.2
		}
		if len(payload) == 1 && payload[0] == 0xff {
			return 0, packet.DropKeepalive
		}
		return w.classifyESP(p, payload)
	}
	return w.classifyOwn(flow)
}

// classifyOwn judges cleartext to one of our outer addresses. Policies of tunnels do not speak of it, however wide they are: the
// gateway must stay reachable. Those of transport mode do.
func (w *Worker) classifyOwn(flow *packet.Flow) (packet.Class, packet.Drop) {
	t := w.tables.SPD
	if !t.IsPeer(flow.SrcAddr()) {
		return packet.ClassPunt, 0
	}
	index, match := t.Inbound(flow)
	switch {
	case match == spd.NoMatch || !t.Policy(index).Transport:
		return packet.ClassPunt, 0
	case match == spd.NeedsPorts:
		return 0, packet.DropFragmentNoPorts
	}
	return 0, packet.DropCleartext // RFC 4301, 5.2
}

// classifyIKE judges an IKE message.
func (w *Worker) classifyIKE(p *packet.Packet) (packet.Class, packet.Drop) {
	if w.tables.IKE == NoPort {
		return 0, packet.DropUnexpectedIKE
	}
	return packet.ClassIKE, 0
}

// classifyESP reads the SPI of an ESP packet.
func (w *Worker) classifyESP(p *packet.Packet, esp []byte) (packet.Class, packet.Drop) {
	if len(esp) < 8 {
		return 0, packet.DropShortESP
	}
	p.SPI = binary.BigEndian.Uint32(esp)
	if p.SPI < 256 {
		return 0, packet.DropReservedSPI
	}
	return packet.ClassInbound, 0
}

// classifyLocal judges a packet that the kernel routed into TUN: the gateway's own traffic, or
// what the kernel forwards. It may leave under a protect policy only: the route
// into TUN says that its destination is protected.
func (w *Worker) classifyLocal(i int) (packet.Class, packet.Drop) {
	flow := &w.batch.Flows[i]
	if n := w.batch.P[i].Interface; n != 0 {
		known := w.flows.policy(w.places[i], flow)
		switch {
		case known.match == spd.NeedsPorts:
			return 0, packet.DropFragmentNoPorts
		case known.match == spd.Matched && known.action != spd.Bypass:
			return w.obey(i, known)
		}
		return w.leave(i, n)
	}
	ike := flow.Flags&packet.FlagPorts != 0 && flow.Proto == packet.ProtoUDP && (flow.SrcPort == portIKE || flow.SrcPort == portESP)
	if ike && w.tables.SPD.IsPeer(flow.DstAddr()) {
		return packet.ClassForward, 0 // of the kernel's sockets: no policy speaks of it (RFC 4301, 4.4.1)
	}
	known := w.flows.policy(w.places[i], flow)
	switch known.match {
	case spd.NeedsPorts:
		return 0, packet.DropFragmentNoPorts
	case spd.NoMatch:
		if known = w.reported(i); known == nil {
			if w.tables.SPD.IsPeer(flow.DstAddr()) && !w.tables.DiscardUnmatched {
				return w.forwardable(i) // transport mode may be for some of what goes to a peer, and all of it comes this way
			}
			return 0, packet.DropNoPolicy
		}
	}
	return w.obey(i, known)
}

// reported returns the protect policy of the traffic that the ICMP error of packet i is about: the error goes the same way as what that
// answers, whoever reports it (RFC 4301, 6.1.1). It returns nil if i is no such error, or if there is no such policy.
func (w *Worker) reported(i int) *known {
	flow, ok := packet.Reported(&w.batch, i)
	if !ok {
		return nil
	}
	if known := w.flows.policy(w.flows.place(&flow), &flow); known.protects() {
		return known
	}
	return nil
}

// classifyCleartext judges a packet in the clear, by the side it came from.
func (w *Worker) classifyCleartext(i int) (packet.Class, packet.Drop) {
	t, p, flow := w.tables, &w.batch.P[i], &w.batch.Flows[i]
	role := t.Ports[p.Port].Role
	if known := w.flows.policy(w.places[i], flow); known.match != spd.NoMatch {
		if role&Protected == 0 {
			if known.match == spd.Matched && known.action != spd.Protect {
				return w.obey(i, known)
			}
			return 0, packet.DropSpoofed
		}
		if known.match == spd.NeedsPorts {
			return 0, packet.DropFragmentNoPorts
		}
		return w.obey(i, known)
	}
	if role&Protected != 0 {
		if known := w.reported(i); known != nil {
			return w.obey(i, known)
		}
	}
	index, match := t.SPD.Inbound(flow)
	if match != spd.NoMatch {
		if match == spd.NeedsPorts {
			return 0, packet.DropFragmentNoPorts
		}
		switch t.SPD.Policy(index).Action {
		case spd.Bypass: // also of what comes from behind a virtual interface: so says the policy
			return w.forwardable(i)
		case spd.Discard:
			return 0, packet.DropPolicyDiscard
		}
		if role&Outside == 0 {
			return 0, packet.DropSpoofed
		}
		return 0, packet.DropCleartext // RFC 4301, 5.2: it should have come protected
	}
	if reason := w.intrudes(i, role); reason != packet.DropNone {
		return 0, reason
	}
	if _, into := w.routed(i); t.DiscardUnmatched && !into {
		return 0, packet.DropNoPolicy
	}
	class, reason := w.forwardable(i)
	if class == packet.ClassOutbound && w.intrudes(i, Protected|Outside) == packet.DropNone {
		w.flows.lead(t, w.places[i], flow, p.Tunnel, p.SPI)
	}
	return class, reason
}

// obey does what the policy of its flow says with packet i, which is on its way out.
func (w *Worker) obey(i int, known *known) (packet.Class, packet.Drop) {
	switch known.action {
	case spd.Bypass:
		return w.pass(i)
	case spd.Discard:
		return 0, packet.DropPolicyDiscard
	}
	_, known.of = w.group.sad.Current(known.way, known.of)
	return w.protect(&w.batch.P[i], &w.batch.Flows[i], known.way, known.of)
}

// protect sends a packet into the association that a tunnel is bound to, by its handle; 0 for none.
func (w *Worker) protect(p *packet.Packet, flow *packet.Flow, tunnel, handle uint32) (packet.Class, packet.Drop) {
	p.SPI, p.Tunnel = handle, tunnel
	if p.SPI == 0 {
		w.acquire(tunnel, flow)
		return 0, packet.DropNoOutbound
	}
	return packet.ClassOutbound, 0
}

// forwardable lets packet i pass in the clear, unless its addresses forbid it.
func (w *Worker) forwardable(i int) (packet.Class, packet.Drop) {
	if reason := packet.Martian(&w.batch, i); reason != packet.DropNone {
		return 0, reason
	}
	return w.pass(i)
}
