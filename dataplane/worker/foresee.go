package worker

import (
	"encoding/binary"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/prefetch"
	"sallyport/dataplane/sad"
)

// foresight is what a batch is going to read, as far as its headers tell at first sight.
type foresight struct {
	flows    [packet.BatchMax]uint32 // places of flows,
	to       [packet.BatchMax]uint64 // and the low halves of their destinations
	inbound  sad.Ahead
	outbound sad.Ahead
}

// foresee asks for what classification and encapsulation will read of the packets that have just come, while there is more of it than the caches hold:
// what is remembered of their flows, then the associations that these were last given to; inbound associations by their SPIs, then
// what these point to. Each is a pass over the batch, in which the answers to the one before arrive. It is a guess: nothing is
// checked, and who reads later decides.
func (w *Worker) foresee() {
	b, t, f, a := &w.batch, w.tables, w.flows, &w.ahead
	if !w.crowded && !f.many {
		return
	}
	n := 0
	a.inbound.Reset()
	a.outbound.Reset()
	for i := range b.N {
		p := &b.P[i]
		if p.Class != packet.ClassNone || p.Port == t.TUN || p.Port == t.IKE || p.Len < packet.EtherLen+20 {
			continue
		}
		// A shorter frame has slack behind it.
		place, to, spi := f.guess((*[foreseenLen]byte)(b.Mem[p.Addr:]))
		if spi != 0 {
			a.inbound.Add(spi)
			continue
		}
		a.flows[n], a.to[n] = place, to
		n++
	}
	prefetch.Items(f.places, a.flows[:n], 0, 2)
	if !w.crowded {
		return
	}
	w.group.sad.PrefetchInbound(&a.inbound)
	for k, place := range a.flows[:n] {
		e := &f.places[place][0]
		if e.flow.Dst.Lo != a.to[k] {
			e = &f.places[place][1]
		}
		if e.handle != 0 {
			a.outbound.Add(e.handle)
		}
	}
	w.group.sad.PrefetchOutbound(&a.outbound)
	w.group.sad.PrefetchWindows(&a.inbound)
}

// foreseenLen is the part of a frame that guess reads: link header, IPv6 header, UDP header, SPI.
const foreseenLen = packet.EtherLen + 40 + 8 + 4

// guess returns where the flow of a frame is remembered, and the low half of its destination, or the SPI of one of ESP. What is not usual gives
// anything.
func (f *flows) guess(h *[foreseenLen]byte) (place uint32, to uint64, spi uint32) {
	const ip = packet.EtherLen
	var proto uint8
	l4, flags := ip+20, packet.FlagPorts
	v4 := h[12] == 0x08
	if v4 {
		proto = h[ip+9]
		if h[ip+6]&0x40 != 0 {
			flags |= packet.FlagDF
		}
	} else {
		l4, proto = ip+40, h[ip+6]
		flags |= packet.FlagDF
	}
	ports := binary.BigEndian.Uint32(h[l4:])
	switch {
	case proto == packet.ProtoESP:
		return 0, 0, ports
	case proto == packet.ProtoUDP && uint16(ports) == portESP:
		return 0, 0, binary.BigEndian.Uint32(h[l4+8:])
	}
	if v4 {
		rest := packet.RestOf(uint16(ports>>16), uint16(ports), flags, 4, proto)
		to = uint64(binary.BigEndian.Uint32(h[ip+16:]))
		return f.place4(uint64(binary.BigEndian.Uint32(h[ip+12:])), to, rest), to, 0
	}
	flow := packet.Flow{Version: 6, Proto: proto, SrcPort: uint16(ports >> 16), DstPort: uint16(ports), Flags: flags}
	flow.Src = packet.Addr{Hi: binary.BigEndian.Uint64(h[ip+8:]), Lo: binary.BigEndian.Uint64(h[ip+16:])}
	flow.Dst = packet.Addr{Hi: binary.BigEndian.Uint64(h[ip+24:]), Lo: binary.BigEndian.Uint64(h[ip+32:])}
	return f.place(&flow), flow.Dst.Lo, 0
}

// foreseeDecapsulated finds where the flows of what came out of associations are remembered, and asks for that while there are more
// flows than the caches hold.
func (w *Worker) foreseeDecapsulated() {
	for k, i := range w.lists.in {
		w.places[i] = w.flows.place(&w.batch.Flows[i])
		w.ahead.flows[k] = w.places[i]
	}
	if w.flows.many {
		prefetch.Items(w.flows.places, w.ahead.flows[:len(w.lists.in)], 0, 2)
	}
}
