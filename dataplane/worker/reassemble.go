package worker

import (
	"encoding/binary"

	"sallyport/dataplane/ipfrag"
	"sallyport/dataplane/packet"
)

// FragmentFrames bounds the frames that one worker keeps for fragments.
const FragmentFrames = 512

// gather takes care of fragments that belong together. One worker has all those between two addresses, wherever they arrive. What is for
// our outer addresses is put together, and goes on as if it had come so; later fragments of what is not ours go to
// the kernel, which does the same. Others are judged by the ports of their first fragment.
func (w *Worker) gather() {
	b := &w.batch
	for _, i := range w.lists.fragment {
		p, flow := &b.P[i], &b.Flows[i]
		if owner := w.fragmentOwner(flow); owner != w.ID {
			w.handOver(i, owner)
			continue
		}
		if p.Port == w.tables.TUN || !w.tables.Endpoints.Has(flow) {
			w.places[i] = w.flows.place(flow)
			w.place(int(i))
			continue
		}
		kind, reason := w.whose(p, b.IP(int(i))[p.L4-p.L3:])
		if reason != packet.DropNone {
			w.fragments.Refuse(p, flow, reason)
			w.endFragments()
			w.drop(i, reason)
			continue
		}
		fate, reason := w.fragments.Add(p, flow, kind, w.now)
		w.endFragments()
		switch fate {
		case ipfrag.Dropped:
			w.drop(i, reason)
		case ipfrag.Passed:
			if p.Class, p.Reason = w.classifyFragment(flow); p.Reason == packet.DropNone {
				w.enlist(int(i))
			}
		case ipfrag.Whole:
			w.Counters.Reassembled.Add(1)
			if p.Reason = packet.Parse(b, int(i)); p.Reason == packet.DropNone {
				w.place(int(i))
			}
		}
	}
}

// classifyFragment judges a fragment that the kernel is to put together. A first one says what it is of; the others are nothing without it.
func (w *Worker) classifyFragment(flow *packet.Flow) (packet.Class, packet.Drop) {
	if flow.Flags&packet.FlagPorts == 0 || flow.DstPort == portIKE || flow.DstPort == portESP {
		return packet.ClassPunt, 0
	}
	return w.classifyOwn(flow)
}

// whose says what a fragment with record p tells of its datagram. data is what follows the headers. A first fragment
// must hold SPI and sequence number of an association that exists: who sends others makes nothing wait.
func (w *Worker) whose(p *packet.Packet, data []byte) (ipfrag.Kind, packet.Drop) {
	later := p.Flags&packet.FlagLaterFragment != 0
	if p.Proto == packet.ProtoUDP {
		switch {
		case later:
			return ipfrag.Unknown, 0
		case len(data) < 8:
			return 0, packet.DropTinyFragment
		case p.DstPort != portESP:
			return ipfrag.Foreign, 0
		case len(data) < 8+8:
			return 0, packet.DropTinyFragment
		}
		if data = data[8:]; binary.BigEndian.Uint32(data) == 0 {
			return ipfrag.Foreign, 0 // IKE; the kernel's sockets take datagrams of any size
		}
	} else if later {
		return ipfrag.Ours, 0
	}
	if p.Proto == packet.ProtoAH {
		if len(data) < 12 {
			return 0, packet.DropTinyFragment
		}
		data = data[4:]
	}
	if len(data) < 8 {
		return 0, packet.DropTinyFragment
	}
	spi := binary.BigEndian.Uint32(data)
	if spi < 256 {
		return 0, packet.DropReservedSPI
	}
	if w.group.sad.LookupInbound(spi) == nil {
		return 0, packet.DropNoAssociation
	}
	return ipfrag.Known, 0
}

// endFragments ends the fragments that the last call gave up, or that are part of a whole datagram now.
func (w *Worker) endFragments() {
	for k := range w.fragments.Others {
		o := &w.fragments.Others[k]
		switch o.Fate {
		case ipfrag.Merged:
			w.Counters.Merged.Add(1)
			w.release(o.Packet.Addr)
		case ipfrag.Passed:
			if w.injected.len() < injectedMax {
				o.Packet.Class = packet.ClassPunt
				w.injected.put(o.Packet)
				continue
			}
			o.Reason = packet.DropPuntFull
			fallthrough
		default:
			w.Counters.Drops[o.Reason].Add(1)
			w.release(o.Packet.Addr)
		}
	}
}

// expireFragments ends what waited too long for its other fragments.
func (w *Worker) expireFragments() {
	for w.fragments.Expire(w.now) {
		w.endFragments()
	}
}
