package worker

import (
	"encoding/binary"
	"math/bits"

	"sallyport/dataplane/fib"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
)

// expressLen is the part of a frame that express reads: Ethernet header, IPv4 header without options, and of TCP the flags.
const expressLen = packet.EtherLen + 20 + 14

// express takes the packets that need nothing special from reception to the point where they are to be encapsulated: what classify,
// claimOutbound and admitOutbound come to for them, in one pass that calls nothing. It leaves every other packet as it
// was, for those stages, and so need not know what is wrong with one.
//
// Nothing special is: from a protected port; untagged IPv4 without options, whole, UDP or TCP but no SYN; a flow that is remembered
// as protected by the policies in force; an outbound association that is this worker's and was not asked to move; a way to the
// peer known in the routes in force; not larger than the tunnel's MTU; TTL left.
func (w *Worker) express() {
	b, t, f := &w.batch, w.tables, w.flows
	if w.watched || w.crowded || f.many {
		return // who watches wants to see every stage; large tables want to be asked for what is read before it is read
	}
	var protected uint64 // ports
	for i := range t.Ports[:min(len(t.Ports), 64)] {
		if n := uint16(i); t.Ports[i].Role&Protected != 0 && n != t.TUN && n != t.IKE {
			protected |= 1 << i
		}
	}
	var (
		of     uint32 // handle of sa
		sa     *sad.Outbound
		hop    uint32
		mtu    int
		table  = w.group.sad
		places = f.places
		list   = w.lists.express
	)
	for i := range b.N {
		p := &b.P[i]
		if p.Class != packet.ClassNone || p.Port >= 64 || protected>>p.Port&1 == 0 || p.Len < expressLen || p.Reason != packet.DropNone {
			continue
		}
		h := (*[expressLen]byte)(b.Mem[p.Addr:])
		// Words as in packet.Parse, which says what they hold.
		x, y, z := binary.LittleEndian.Uint64(h[12:]), binary.LittleEndian.Uint64(h[20:]), binary.LittleEndian.Uint64(h[28:])
		total := int(h[16])<<8 | int(h[17])
		proto, ttl := uint8(y>>24), uint8(y>>16)
		if x&0xffffff != 0x450008 || y&0xffbf != 0 || total < 28 || total+packet.EtherLen > int(p.Len) || ttl <= 1 {
			continue
		}
		if proto != packet.ProtoUDP && (proto != packet.ProtoTCP || total < 40 || h[packet.EtherLen+20+13]&tcpSYN != 0) {
			continue
		}
		sum, carry := bits.Add64(x>>16, y, 0)
		sum, carry = bits.Add64(sum, z&0xffff_ffff_ffff, carry)
		sum += carry
		sum = sum>>32 + sum&0xffff_ffff
		sum = sum>>16 + sum&0xffff
		if sum = sum>>16 + sum&0xffff; uint16(sum>>16+sum) != 0xffff {
			continue
		}

		flags := packet.FlagPorts
		if y&0x40 != 0 {
			flags |= packet.FlagDF
		}
		src, dst := uint64(binary.BigEndian.Uint32(h[26:])), uint64(binary.BigEndian.Uint32(h[30:]))
		ports := binary.BigEndian.Uint32(h[34:])
		rest := packet.RestOf(uint16(ports>>16), uint16(ports), flags, 4, proto)
		hi, lo := bits.Mul64((src<<32|dst)^f.seed[0], rest^f.seed[1])
		place := &places[uint32((hi^lo)>>f.shift)]
		e := &place[0]
		if e.flow.Src.Lo != src || e.flow.Dst.Lo != dst || e.flow.Rest() != rest {
			if e = &place[1]; e.flow.Src.Lo != src || e.flow.Dst.Lo != dst || e.flow.Rest() != rest {
				continue
			}
		}
		if e.generation != f.generation || e.match != spd.Matched || e.action != spd.Protect {
			continue
		}

		handle := table.Bound(e.tunnel)
		if sa == nil || handle != of {
			sa = table.LookupOutbound(handle)
			if sa == nil || sa.Owner() != w.ID || sa.Asked() || sa.HopGeneration != t.FIB.Generation {
				sa = nil
				continue
			}
			if k := t.FIB.Hops[sa.Hop].Kind; k != fib.Forward && k != fib.Unresolved && k != fib.Failed {
				sa = nil
				continue
			}
			of, hop = handle, sa.Hop
			mtu = sa.InnerMTU(int(t.FIB.Hops[hop].MTU))
		}
		if total > mtu {
			continue
		}

		// One hop more: see forward.DecrementTTL.
		check := uint32(h[24])<<8 | uint32(h[25]) + 0x100
		if check >= 0xffff {
			check++
		}
		h[22], h[24], h[25] = ttl-1, uint8(check>>8), uint8(check)

		p.L3, p.L4, p.End = packet.EtherLen, packet.EtherLen+20, packet.EtherLen+uint16(total)
		p.SrcPort, p.DstPort = uint16(ports>>16), uint16(ports)
		p.Version, p.Proto, p.TOS, p.TTL = 4, proto, uint8(x>>24), ttl-1
		p.Flags, p.Class = flags, packet.ClassOutbound
		p.SPI, p.Tunnel, p.Hop = handle, e.tunnel, hop
		w.outbound[i] = sa
		list = append(list, uint8(i))
	}
	w.lists.express = list
	w.Counters.Sealed.Add(uint64(len(list)))
}

// join lets the packets that express took and those that were admitted the long way go on in the order in which they came, so that
// a flow some of whose packets need something special stays in order.
func (w *Worker) join() {
	short, long := w.lists.express, w.lists.out
	if len(long) == 0 {
		w.lists.out = short
		return
	}
	if len(short) == 0 {
		return
	}
	joined := w.lists.joined[:0]
	for len(short) > 0 && len(long) > 0 {
		if short[0] < long[0] {
			joined, short = append(joined, short[0]), short[1:]
		} else {
			joined, long = append(joined, long[0]), long[1:]
		}
	}
	w.lists.out = append(append(joined, short...), long...)
}

// tcpSYN is the SYN flag in the fourteenth octet of a TCP header (RFC 9293, 3.1).
const tcpSYN = 0x02
