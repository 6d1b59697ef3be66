package worker

import (
	"encoding/binary"

	"sallyport/dataplane/fib"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
)

// expressLen is the part of a frame that express reads: Ethernet header, IPv4 header without options, and of TCP the flags.
const expressLen = packet.EtherLen + 20 + 14

// notPlain are the flags of associations whose packets need something special.
const notPlain = sad.FlagGuarded | sad.FlagEnded | sad.FlagsUnusual

// express takes the packets that need nothing special from reception to the point where they are to be encapsulated: what classify,
// claimOutbound and admitOutbound come to for them, in one pass that calls nothing. It leaves every other packet as it
// was, for those stages, and so need not know what is wrong with one.
//
// Nothing special is: from a protected port; untagged IPv4 without options, whole, UDP or TCP but no SYN; a flow that is remembered
// as protected by the policies in force; an outbound association that is this worker's and was not asked to move; a way to the
// peer known in the routes in force; not larger than the tunnel's MTU; TTL left.
func (w *Worker) express() {
	t := w.tables
	if w.watched {
		return // who watches wants to see every stage
	}
	var protected uint64 // ports
	for i := range t.Ports[:min(len(t.Ports), 64)] {
		if n := uint16(i); t.Ports[i].Role&Protected != 0 && n != t.TUN && n != t.IKE {
			protected |= 1 << i
		}
	}
	if w.came&protected == 0 {
		return
	}
	r := &w.outRun
	r.start(w, protected)
	for known := r.pass(); known != nil; known = r.pass() {
		sa, handle := w.group.sad.Current(known.way, known.of)
		known.of = handle
		if !w.takesShortWay(sa) {
			r.tunnel = noTunnel
			r.next++
			continue
		}
		r.sa, r.handle, r.tunnel, r.hop = sa, handle, known.way, sa.Hop
		r.mtu = uint64(sa.InnerMTU(int(t.FIB.Hops[sa.Hop].MTU)))
	}
	w.lists.shortOut = w.lists.shortOut[:r.took]
	w.Counters.Sealed.Add(r.took)
}

// takesShortWay says that packets for an association may go the short way: it is this worker's, was not asked to move, needs nothing special,
// and the way to its peer is known.
func (w *Worker) takesShortWay(sa *sad.Outbound) bool {
	fib := w.tables.FIB
	return sa != nil && sa.Owner() == w.ID && !sa.Asked() && sa.Flags&notPlain == 0 && sa.HopGeneration == fib.Generation && leads(fib.Hops[sa.Hop].Kind)
}

// leads says that packets to a next hop of some kind are for a neighbour.
func leads(k fib.Kind) bool { return k == fib.Forward || k == fib.Unresolved || k == fib.Failed }

// join returns one list of the packets that express took and of those that came the long way, in the order in which they arrived: a flow
// some of whose packets need something special stays in order.
func (l *lists) join(short, long []uint8) []uint8 {
	switch {
	case len(long) == 0:
		return short
	case len(short) == 0:
		return long
	}
	joined := l.joined[l.nextJoined][:0]
	l.nextJoined++
	for len(short) > 0 && len(long) > 0 {
		if short[0] < long[0] {
			joined, short = append(joined, short[0]), short[1:]
		} else {
			joined, long = append(joined, long[0]), long[1:]
		}
	}
	return append(append(joined, short...), long...)
}

// noHop is the number of no next hop.
const noHop = ^uint32(0)

// tcpSYN is the SYN flag in the fourteenth octet of a TCP header (RFC 9293, 3.1).
const tcpSYN = 0x02

// expressInbound does for ESP in IPv4, not in UDP, what express does for packets to be protected: it takes them to the point where
// they are to be opened. The association must be this worker's, not asked to move, and between exactly the addresses that they have. esp reads
// the packets, a run for one association at a time.
func (w *Worker) expressInbound() {
	b, t := &w.batch, w.tables
	w.esp.BeginESP()
	if w.watched || t.Endpoints == nil || len(w.lists.shortOut) == b.N {
		return
	}
	var (
		of    uint32 // SPI of sa
		sa    *sad.Inbound
		table = w.group.sad
		list  = w.lists.shortIn
	)
	for i := 0; i < b.N; {
		p := &b.P[i&(packet.BatchMax-1)]
		if p.Class != packet.ClassNone || p.Port == t.TUN || p.Port == t.IKE || p.Len < expressLen {
			i++
			continue
		}
		h := (*[expressLen]byte)(b.Mem[p.Addr:])
		if h[packet.EtherLen-2] != packet.EtherIPv4>>8 || h[packet.EtherLen-1] != packet.EtherIPv4&0xff || h[packet.EtherLen+9] != packet.ProtoESP {
			i++
			continue
		}
		if spi := binary.BigEndian.Uint32(h[34:]); sa == nil || spi != of {
			if sa = table.LookupInbound(spi); sa == nil {
				i++
				continue
			}
			taken := sa.Owner() == w.ID && !sa.Asked() && sa.Flags&notPlain == 0 && w.esp.TakesESP(sa)
			if taken { // nobody but the owner may read the endpoints: it moves them
				flow := packet.Flow{Dst: packet.Addr{Lo: uint64(binary.BigEndian.Uint32(sa.Local[:]))}, Version: 4}
				taken = t.Endpoints.Has(&flow)
			}
			if !taken {
				sa = nil
				i++
				continue
			}
			of = spi
		}
		next := w.esp.TakeESP(b, i, sa)
		if next == i {
			i++
			continue
		}
		for ; i < next; i++ {
			list = append(list, uint8(i))
		}
	}
	w.lists.shortIn = list
}

// lengthenInbound sends what expressInbound took the long way as well, if other packets take it: of one association all are to be opened in the order in
// which they came, since a replay is one of what came before.
func (w *Worker) lengthenInbound() {
	l := &w.lists
	if len(l.in) == 0 || len(l.shortIn) == 0 {
		return
	}
	for _, i := range l.shortIn {
		w.esp.Leave(&w.batch, i)
	}
	l.in, l.shortIn = l.join(l.shortIn, l.in), nil
}

// openInbound takes inbound packets out of ESP and AH.
func (w *Worker) openInbound() {
	if len(w.lists.shortIn) > 0 {
		w.lists.in = w.esp.OpenESP(&w.batch, w.lists.shortIn)
	} else {
		w.lists.in = w.esp.Decapsulate(&w.batch, w.lists.in, w.inbound[:])
	}
}

// associate notes the associations of decapsulated packets for stages of the long way.
func (w *Worker) associate(list []uint8) {
	for _, i := range list {
		w.inbound[i] = w.group.sad.InboundAt(w.batch.P[i].Slot)
	}
}

// expressDecapsulated sends on what came out of associations and needs nothing special: what routeDecapsulated and routeForward come
// to for it. It leaves every other packet in the list for them.
//
// Nothing special is: IPv4, UDP or TCP but no SYN; a flow that is remembered as going into no tunnel, with its next hop in the
// routes in force; a next hop on the protected side whose MTU is large enough; TTL left.
func (w *Worker) expressDecapsulated() {
	b, t, f := &w.batch, w.tables, w.flows
	if w.watched {
		return
	}
	if f.many {
		w.foreseeDecapsulated()
	}
	r := &w.inRun
	r.start(w, w.lists.in, (*[packet.BatchMax]uint8)(w.lists.shortForward[:packet.BatchMax]))
	for known := r.pass(); known != nil; known = r.pass() {
		hop := &t.FIB.Hops[known.way]
		if hop.Kind != fib.Forward || w.exposes(&b.P[r.in[r.next]], hop) {
			r.keep()
			continue
		}
		r.way, r.mtu = known.way, uint32(hop.MTU)
	}
	in := r.in[:r.kept]
	w.lists.in, w.lists.shortForward = in, r.list[:r.took]
	for _, i := range in {
		w.places[i] = f.place(&b.Flows[i])
	}
	if len(w.lists.shortIn) > 0 {
		w.associate(in)
	}
	w.Counters.Opened.Add(r.took)
}
