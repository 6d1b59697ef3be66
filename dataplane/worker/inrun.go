package worker

import (
	"encoding/binary"

	"sallyport/dataplane/forward"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/spd"
)

// inRun is the way of decapsulated packets through expressDecapsulated. The assembly knows its layout.
type inRun struct {
	b *packet.Batch
	f *flows
	// in are the packets; those that are left in it are moved to its beginning.
	in []uint8
	// list are those that were taken.
	list *[packet.BatchMax]uint8
	// valid is how what is known of a flow that no policy protects begins while it is valid, see known, shifted so that action and padding do not count;
	// routes is the generation of the routes in force.
	valid  uint64
	routes uint32
	// way is the next hop of the packet before, or noHop, and mtu the largest datagram that it takes.
	way uint32
	mtu uint32
	// next is the place in in to go on with; kept and took are how many packets were left and taken.
	next, kept, took uint64
}

// start makes r the way of the worker's decapsulated packets.
func (r *inRun) start(w *Worker, in []uint8, list *[packet.BatchMax]uint8) {
	*r = inRun{
		b: &w.batch, f: w.flows, in: in, list: list, valid: (uint64(w.flows.generation) | uint64(spd.NoMatch)<<32) << 24,
		routes: w.tables.FIB.Generation, way: noHop,
	}
}

// passGeneric takes the packets that need nothing special as long as their flows go to the next hop of r, and leaves those that do. It
// ends with what is known of the flow of packet next if that goes to another; to go on, the caller makes that the next hop of r, or
// keeps the packet. Otherwise it ends with nil, behind the last packet.
func (r *inRun) passGeneric() (other *known) {
	b, f := r.b, r.f
	for ; r.next < uint64(len(r.in)); r.next++ {
		i := r.in[r.next] & (packet.BatchMax - 1)
		p, flow := &b.P[i], &b.Flows[i]
		r.in[r.kept] = i
		r.kept++
		if p.Version != 4 {
			continue
		}
		// What is remembered of a decapsulated flow was found to be no martian before.
		rest := flow.Rest()
		k := f.find4(f.place4(flow.Src.Lo, flow.Dst.Lo, rest), flow.Src.Lo<<32|flow.Dst.Lo, rest)
		if k == nil || k.generation != f.generation || k.match != spd.NoMatch || k.of != r.routes {
			continue
		}
		if k.way != r.way {
			r.kept--
			return k
		}
		h := (*[expressLen]byte)(b.Mem[p.Addr:])
		length := p.End - packet.EtherLen
		if uint32(length) > r.mtu || length < 28 || p.TTL <= 1 ||
			p.Proto != packet.ProtoUDP && (p.Proto != packet.ProtoTCP || length < 40 || h[packet.EtherLen] != 0x45 || h[packet.EtherLen+20+13]&tcpSYN != 0) {
			continue
		}
		p.TTL--
		binary.BigEndian.PutUint32(h[22:], forward.OneHopLess(binary.BigEndian.Uint32(h[22:])))
		p.Class, p.Hop = packet.ClassForward, r.way
		r.list[r.took&(packet.BatchMax-1)] = i
		r.took++
		r.kept--
	}
	return nil
}

// keep leaves packet next.
func (r *inRun) keep() {
	r.in[r.kept] = r.in[r.next]
	r.kept++
	r.next++
}
