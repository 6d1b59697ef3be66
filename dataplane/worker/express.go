package worker

import (
	"encoding/binary"

	"sallyport/dataplane/fib"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
)

// expressLen is the part of a frame that express reads: Ethernet header, IPv4 header without options, and of TCP the flags.
const expressLen = packet.EtherLen + 20 + 14

// notPlain are the flags of associations whose packets need something special.
const notPlain = sad.FlagGuarded | sad.FlagEnded | sad.FlagsUnusual

// express takes the packets that need nothing special from reception to the point where they are to be encapsulated: what classify,
// claimOutbound and admitOutbound come to for them, in one pass that calls nothing. It leaves every other packet as it
// was, for those stages, and so need not know what is wrong with one.
//
// Nothing special is: from a protected port; untagged IPv4 without options or IPv6 without extension headers, whole, UDP or TCP but no SYN; a flow that is
// remembered as protected by the policies, or routes, in force; an outbound association that is this worker's and was not asked to move; a way to the
// peer known in the routes in force; not larger than the tunnel's MTU; TTL left.
func (w *Worker) express() {
	b, t := &w.batch, w.tables
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
		r.mtu = uint64(w.innerMTU(sa))
	}
	w.lists.shortOut = w.lists.shortOut[:r.took]
	if int(r.took) < b.N {
		w.expressSix(protected)
	}
	w.Counters.Sealed.Add(uint64(len(w.lists.shortOut)))
}

// innerMTU is the largest datagram that fits an association whose next hop is known.
func (w *Worker) innerMTU(sa *sad.Outbound) int {
	fib := w.tables.FIB
	mtu := sa.InnerMTU(int(fib.Hops[sa.Hop].MTU))
	if sa.Flags&sad.FlagInterface != 0 {
		if own := fib.InterfaceMTU(sa.Interface); own != 0 {
			mtu = min(mtu, own)
		}
	}
	return mtu
}

// expressLen6 is the part of a frame that expressSix reads: Ethernet header, IPv6 header, and of TCP the flags. A shorter frame has slack behind it.
const expressLen6 = packet.EtherLen + 40 + 14

// expressSix does for IPv6 what express does for IPv4.
func (w *Worker) expressSix(protected uint64) {
	b, f, list := &w.batch, w.flows, w.sixOut[:0]
	var (
		sa          *sad.Outbound
		tunnel      = noTunnel // of sa
		handle, mtu uint32     // of sa
	)
	for i := range min(b.N, packet.BatchMax) {
		p := &b.P[i]
		if p.Class != packet.ClassNone || p.Port >= 64 || protected>>p.Port&1 == 0 || p.Len < expressLen || p.Reason != packet.DropNone {
			continue
		}
		h := (*[expressLen6]byte)(b.Mem[p.Addr:])
		ip := (*[40]byte)(h[packet.EtherLen:])
		total, proto, hops := 40+uint32(binary.BigEndian.Uint16(ip[4:])), ip[6], ip[7]
		if h[12] != packet.EtherIPv6>>8 || h[13] != packet.EtherIPv6&0xff || ip[0]>>4 != 6 || total < 48 || total+packet.EtherLen > uint32(p.Len) || hops <= 1 {
			continue
		}
		if proto != packet.ProtoUDP && (proto != packet.ProtoTCP || total < 60 || h[packet.EtherLen+40+13]&tcpSYN != 0) {
			continue
		}
		const flags = packet.FlagPorts | packet.FlagDF
		ports := binary.BigEndian.Uint32(h[packet.EtherLen+40:])
		flow := &b.Flows[i]
		flow.Set6((*[32]byte)(ip[8:]), packet.RestOf(uint16(ports>>16), uint16(ports), flags, 6, proto))
		k := f.find6(f.place(flow), flow)
		if k == nil || k.generation != f.generation || !k.protects() {
			continue
		}
		if k.way != tunnel {
			sa, handle = w.group.sad.Current(k.way, k.of)
			k.of = handle
			if tunnel = k.way; !w.takesShortWay(sa) {
				tunnel = noTunnel
				continue
			}
			mtu = uint32(w.innerMTU(sa))
		}
		if total > mtu {
			continue
		}
		ip[7] = hops - 1
		p.L3, p.L4, p.End = packet.EtherLen, packet.EtherLen+40, packet.EtherLen+uint16(total)
		p.SrcPort, p.DstPort = uint16(ports>>16), uint16(ports)
		p.Version, p.Proto, p.TOS, p.TTL = 6, proto, ip[0]<<4|ip[1]>>4, hops-1
		p.Flags, p.Class = flags, packet.ClassOutbound
		p.SPI, p.Tunnel, p.Hop = handle, tunnel, sa.Hop
		w.outbound[i] = sa
		list = append(list, uint8(i))
	}
	w.lists.shortOut = w.join(w.lists.shortOut, list)
}

// takesShortWay says that packets for an association may go the short way: it is this worker's, was not asked to move, needs nothing special,
// and the way to its peer is known.
func (w *Worker) takesShortWay(sa *sad.Outbound) bool {
	fib := w.tables.FIB
	return sa != nil && sa.Owner() == w.ID && !sa.Asked() && sa.Flags&notPlain == 0 && sa.HopGeneration == fib.Generation && leads(fib.Hops[sa.Hop].Kind)
}

// leads says that packets to a next hop of some kind are for a neighbour.
func leads(k fib.Kind) bool { return k == fib.Forward || k == fib.Unresolved || k == fib.Failed }

// joinsMax is how often lists are joined in one batch at most: at each of the places that do so once.
const joinsMax = 8

// join returns one list of the packets that express took and of those that came the long way, in the order in which they arrived: a flow
// some of whose packets need something special stays in order.
func (w *Worker) join(short, long []uint8) []uint8 {
	switch {
	case len(long) == 0:
		return short
	case len(short) == 0:
		return long
	}
	joined := w.joined[w.nextJoined][:0]
	w.nextJoined++
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

// expressInbound does for ESP, in UDP or not, what express does for packets to be protected: it takes them to the point where
// they are to be opened. The association must be this worker's, not asked to move, and between exactly the addresses, and ports, that they have. esp reads
// the packets, runs for one association after the other as long as the next one's is found at a glance.
func (w *Worker) expressInbound() {
	b, t := &w.batch, w.tables
	w.esp.BeginESP()
	if w.watched || t.Endpoints == nil || len(w.lists.shortOut) == b.N {
		return
	}
	var (
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
		h := (*[foreseenLen]byte)(b.Mem[p.Addr:]) // a shorter frame has slack behind it
		at := packet.EtherLen + 20
		if h[packet.EtherLen-2] != packet.EtherIPv4>>8 || h[packet.EtherLen-1] != packet.EtherIPv4&0xff || h[packet.EtherLen+9] != packet.ProtoESP {
			if at = placeOfESP(h); at == 0 {
				i++
				continue
			}
		}
		if spi := binary.BigEndian.Uint32(h[at:]); sa == nil || spi != sa.SPI {
			if sa = table.LookupInboundAt(spi, w.find.SlotOf(spi)); sa == nil {
				i++
				continue
			}
			taken := sa.Owner() == w.ID && !sa.Asked() && sa.Flags&notPlain == 0 && w.esp.TakesESP(sa)
			if taken { // nobody but the owner may read the endpoints: it moves them
				flow := packet.Flow{Version: sa.Version}
				if flow.Dst.Lo = uint64(binary.BigEndian.Uint32(sa.Addresses[4:])); sa.Version == 6 {
					flow.Dst = packet.Addr{Hi: binary.BigEndian.Uint64(sa.Addresses[16:]), Lo: binary.BigEndian.Uint64(sa.Addresses[24:])}
				}
				taken = t.Endpoints.Has(&flow) && (sa.Flags&sad.FlagEncap == 0 || sa.LocalPort == portESP)
			}
			if !taken {
				sa = nil
				i++
				continue
			}
			if w.crowded {
				table.PrefetchSelectors(sa)
			}
		}
		var end int
		end, sa = w.esp.TakeESP(b, i, sa)
		if end == i {
			i++
			continue
		}
		for ; i < end; i++ {
			list = append(list, uint8(i))
		}
	}
	w.lists.shortIn = list
}

// placeOfESP is where in a frame ESP begins, if it is ESP right behind an IPv6 header, or in UDP behind one of either version; 0 if it is not. Nothing but
// that was looked at.
func placeOfESP(h *[foreseenLen]byte) int {
	at, proto := packet.EtherLen+20, h[packet.EtherLen+9]
	switch binary.BigEndian.Uint16(h[packet.EtherLen-2:]) {
	case packet.EtherIPv4:
	case packet.EtherIPv6:
		if at, proto = packet.EtherLen+40, h[packet.EtherLen+6]; proto == packet.ProtoESP {
			return at
		}
	default:
		return 0
	}
	if proto != packet.ProtoUDP || binary.BigEndian.Uint16(h[at+2:]) != portESP {
		return 0
	}
	return at + 8
}

// lengthenInbound sends what expressInbound took of an association the long way as well, if other packets for that take it. So nobody's odd packets
// make those of others slow.
func (w *Worker) lengthenInbound() {
	l := &w.lists
	if len(l.in) == 0 || len(l.shortIn) == 0 {
		return
	}
	var left []uint8
	if l.shortIn, left = w.esp.LeaveShared(&w.batch, l.shortIn, l.in, w.leftIn[:0]); len(left) > 0 {
		l.in = w.join(left, l.in)
	}
}

// openInbound takes inbound packets out of ESP and AH, those of the short way first: no association has packets on both.
func (w *Worker) openInbound() {
	b, l := &w.batch, &w.lists
	if len(l.shortIn) == 0 {
		l.in = w.esp.Decapsulate(b, l.in, w.inbound[:])
		return
	}
	short := w.esp.OpenESP(b, l.shortIn)
	if len(l.in) == 0 {
		l.in = short
		return
	}
	w.associate(short)
	l.in, l.shortIn = w.join(short, w.esp.Decapsulate(b, l.in, w.inbound[:])), nil
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
// Nothing special is: UDP or TCP but no SYN, without extension headers of IPv6; a flow that is remembered as going into no tunnel, with its next hop in the
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
	w.lists.shortForward = r.list[:r.took]
	if len(in) > 0 {
		in = w.expressDecapsulatedSix(in)
	}
	w.lists.in = in
	for _, i := range in {
		w.places[i] = f.place(&b.Flows[i])
	}
	if len(w.lists.shortIn) > 0 {
		w.associate(in)
	}
	w.Counters.Opened.Add(uint64(len(w.lists.shortForward)))
}

// expressDecapsulatedSix does for IPv6 what expressDecapsulated does for IPv4, and returns what is left of in.
func (w *Worker) expressDecapsulatedSix(in []uint8) (kept []uint8) {
	b, f, routes := &w.batch, w.flows, w.tables.FIB
	list := w.sixForward[:0]
	way, mtu := noHop, uint16(0)
	kept = in[:0]
	for _, i := range in {
		p, flow := &b.P[i&(packet.BatchMax-1)], &b.Flows[i&(packet.BatchMax-1)]
		kept = append(kept, i)
		if p.Version != 6 {
			continue
		}
		// What is remembered of a decapsulated flow was found to be no martian before.
		k := f.find6(f.place(flow), flow)
		if k == nil || k.generation != f.generation || k.match != spd.NoMatch || k.of != routes.Generation {
			continue
		}
		if k.way != way {
			hop := &routes.Hops[k.way]
			if way = k.way; hop.Kind != fib.Forward || w.exposes(p, hop) {
				way = noHop
				continue
			}
			mtu = hop.MTU
		}
		h := (*[expressLen6]byte)(b.Mem[p.Addr:])
		length := p.End - packet.EtherLen
		if length > mtu || p.TTL <= 1 || p.L4 != packet.EtherLen+40 ||
			p.Proto != packet.ProtoUDP && (p.Proto != packet.ProtoTCP || length < 60 || h[packet.EtherLen+40+13]&tcpSYN != 0) {
			continue
		}
		p.TTL--
		h[packet.EtherLen+7] = p.TTL
		p.Class, p.Hop = packet.ClassForward, way
		list = append(list, i)
		kept = kept[:len(kept)-1]
	}
	w.lists.shortForward = w.join(w.lists.shortForward, list)
	return kept
}
