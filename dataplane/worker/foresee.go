package worker

import (
	"encoding/binary"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/prefetch"
	"sallyport/dataplane/sad"
)

// foresight is what a batch is going to read, as far as its headers tell at first sight.
type foresight struct {
	four, six foreseenFlows
	inbound   sad.Ahead
	outbound  sad.Ahead
}

// foreseenFlows are those of one IP version.
type foreseenFlows struct {
	places [packet.BatchMax]uint32
	addrs  [packet.BatchMax]uint64 // what is compared of them: addresses of IPv4 as in an entry, the low half of the destination of IPv6
	n      int
}

func (l *foreseenFlows) add(place uint32, addrs uint64) {
	l.places[l.n&(packet.BatchMax-1)], l.addrs[l.n&(packet.BatchMax-1)] = place, addrs
	l.n++
}

// foresee asks for what classification and encapsulation will read of the packets that have just come, while there is more of it than the caches hold:
// what is remembered of their flows, then the associations that these were last given to; inbound associations by their SPIs. Each is a pass over the batch, in which the answers to the one before arrive. It is a guess: nothing is
// checked, and who reads later decides.
func (w *Worker) foresee() {
	b, t, f, a := &w.batch, w.tables, w.flows, &w.ahead
	if !w.crowded && !f.many {
		return
	}
	a.four.n, a.six.n = 0, 0
	a.inbound.Reset()
	a.outbound.Reset()
	for i := range b.N {
		p := &b.P[i]
		if p.Class != packet.ClassNone || p.Port == t.TUN || p.Port == t.IKE || p.Len < packet.EtherLen+20 {
			continue
		}
		// A shorter frame has slack behind it.
		f.guess((*[foreseenLen]byte)(b.Mem[p.Addr:]), a)
	}
	prefetch.Items(f.places, a.four.places[:a.four.n], 0, placeLines)
	prefetch.Items(f.places6, a.six.places[:a.six.n], 0, placeLines)
	if !w.crowded {
		return
	}
	w.group.sad.PrefetchInbound(&a.inbound, w.find)
	for k, place := range a.four.places[:a.four.n] {
		for j := range f.places[place] {
			if e := &f.places[place][j]; e.addrs == a.four.addrs[k] && e.protects() {
				a.outbound.Add(e.of)
				break
			}
		}
	}
	for k, place := range a.six.places[:a.six.n] {
		for j := range f.places6[place] {
			if e := &f.places6[place][j]; e.flow.Dst.Lo == a.six.addrs[k] && e.protects() {
				a.outbound.Add(e.of)
				break
			}
		}
	}
	w.group.sad.PrefetchOutbound(&a.outbound)
}

// foreseenLen is the part of a frame that guess reads: link header, IPv6 header, UDP header, SPI.
const foreseenLen = packet.EtherLen + 40 + 8 + 4

// guess notes where the flow of a frame is remembered, or the SPI of one of ESP. Of what is not usual it notes anything.
func (f *flows) guess(h *[foreseenLen]byte, a *foresight) {
	const ip = packet.EtherLen
	v4 := h[12] == packet.EtherIPv4>>8
	l4, proto, flags := ip+20, h[ip+9], packet.FlagPorts
	if !v4 {
		l4, proto = ip+40, h[ip+6]
	}
	if !v4 || h[ip+6]&0x40 != 0 {
		flags |= packet.FlagDF
	}
	ports := binary.BigEndian.Uint32(h[l4:])
	switch {
	case proto == packet.ProtoESP:
		a.inbound.Add(ports)
		return
	case proto == packet.ProtoUDP && uint16(ports) == portESP:
		a.inbound.Add(binary.BigEndian.Uint32(h[l4+8:]))
		return
	}
	src, dst := uint16(ports>>16), uint16(ports)
	if v4 {
		from, to := uint64(binary.BigEndian.Uint32(h[ip+12:])), uint64(binary.BigEndian.Uint32(h[ip+16:]))
		a.four.add(f.place4(from, to, packet.RestOf(src, dst, flags, 4, proto)), from<<32|to)
		return
	}
	flow := packet.Flow{Version: 6, Proto: proto, SrcPort: src, DstPort: dst, Flags: flags}
	flow.Src = packet.Addr{Hi: binary.BigEndian.Uint64(h[ip+8:]), Lo: binary.BigEndian.Uint64(h[ip+16:])}
	flow.Dst = packet.Addr{Hi: binary.BigEndian.Uint64(h[ip+24:]), Lo: binary.BigEndian.Uint64(h[ip+32:])}
	a.six.add(f.place(&flow), flow.Dst.Lo)
}

// foreseeDecapsulated finds where the flows of what came out of associations are remembered, and asks for that while there are more
// flows than the caches hold.
func (w *Worker) foreseeDecapsulated() {
	f, a := w.flows, &w.ahead
	a.four.n, a.six.n = 0, 0
	for _, i := range w.lists.in {
		flow := &w.batch.Flows[i]
		w.places[i] = f.place(flow)
		if flow.Version == 4 {
			a.four.add(w.places[i], 0)
		} else {
			a.six.add(w.places[i], 0)
		}
	}
	if f.many {
		prefetch.Items(f.places, a.four.places[:a.four.n], 0, placeLines)
		prefetch.Items(f.places6, a.six.places[:a.six.n], 0, placeLines)
	}
}
