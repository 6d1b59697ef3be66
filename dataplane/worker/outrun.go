package worker

import (
	"encoding/binary"

	"sallyport/dataplane/fib"
	"sallyport/dataplane/forward"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
)

// outRun is the way of a batch through express. The assembly knows its layout.
type outRun struct {
	b *packet.Batch
	f *flows
	// protected are the ports that packets to be protected come to.
	protected uint64
	// valid is how what is known of a protected flow begins while it is valid, see known, without its padding and shifted as much.
	valid uint64

	// What is known of the tunnel that the last packet went into: its association, that one's handle, the largest datagram that
	// fits, the way to the peer, and its number.
	sa     *sad.Outbound
	mtu    uint64
	handle uint32
	_      [4]byte
	hop    uint32
	tunnel uint32

	// outbound is the association of each packet that was taken; list are these packets, took their number.
	outbound *[packet.BatchMax]*sad.Outbound
	list     *[packet.BatchMax]uint8
	took     uint64
	// next is the packet to go on with.
	next uint64

	// slots are outbound associations, mask the bits of a handle that are the slot; owner is this worker, as associations name their owner.
	slots []sad.Outbound
	// hops are the next hops of the routes in force, and routes their generation.
	hops   []fib.Hop
	mask   uint32
	owner  uint32
	routes uint32
}

// noTunnel is none that a flow goes into.
const noTunnel = ^uint32(0)

// start makes r the way of the worker's batch.
func (r *outRun) start(w *Worker, protected uint64) {
	r.b, r.f, r.protected, r.outbound, r.list = &w.batch, w.flows, protected, &w.outbound, &w.lists.store[shortOut]
	r.valid = (uint64(w.flows.generation) | uint64(spd.Matched)<<32 | uint64(spd.Protect)<<40) << 16
	r.tunnel, r.took, r.next = noTunnel, 0, 0
	r.slots, r.mask = w.group.sad.OutboundArena()
	r.hops, r.routes, r.owner = w.tables.FIB.Hops, w.tables.FIB.Generation, uint32(w.ID)+1
}

// turn makes the tunnel of a flow that of r, and says whether it could: if nobody has to be asked which association it has now, and that
// takes the short way, see Worker.takesShortWay. Whether its packets leave by a virtual interface is not for it to look at.
func (r *outRun) turn(k *known) bool {
	slot := k.of & r.mask
	if uint64(slot) >= uint64(len(r.slots)) {
		return false
	}
	sa := &r.slots[slot]
	if !sa.Serves(k.way, k.of) || sa.Owner() != int(r.owner)-1 || sa.Asked() || sa.Flags&(notPlain|sad.FlagInterface) != 0 || sa.HopGeneration != r.routes ||
		uint64(sa.Hop) >= uint64(len(r.hops)) {
		return false
	}
	hop := &r.hops[sa.Hop]
	if !leads(hop.Kind) || hop.MTU == 0 {
		return false
	}
	mtu := sa.InnerMTU(int(hop.MTU))
	if mtu == 0 {
		return false
	}
	r.sa, r.handle, r.tunnel, r.hop, r.mtu = sa, k.of, k.way, sa.Hop, uint64(mtu)
	return true
}

// passGeneric takes the packets that need nothing special as long as their flows go into the tunnel of r, or one that turn makes that, and leaves those
// that do. It ends with what is known of the flow of packet next if that goes into yet another tunnel; to go on, the caller makes that the tunnel of
// r, or leaves the packet out. Otherwise it ends with nil, behind the last packet.
func (r *outRun) passGeneric() (other *known) {
	b, f := r.b, r.f
	for ; r.next < uint64(b.N); r.next++ {
		i := r.next & (packet.BatchMax - 1)
		p := &b.P[i]
		if p.Class != packet.ClassNone || p.Port >= 64 || r.protected>>p.Port&1 == 0 || p.Len < expressLen || p.Reason != packet.DropNone {
			continue
		}
		h := (*[expressLen]byte)(b.Mem[p.Addr:])
		// Words as in packet.Parse, which says what they hold.
		x, y, z := binary.LittleEndian.Uint64(h[12:]), binary.LittleEndian.Uint64(h[20:]), binary.LittleEndian.Uint64(h[28:])
		total := uint64(h[16])<<8 | uint64(h[17])
		proto, ttl := uint8(y>>24), uint8(y>>16)
		if x&0xffffff != 0x450008 || y&0xffbf != 0 || total < 28 || total+packet.EtherLen > uint64(p.Len) || ttl <= 1 {
			continue
		}
		if proto != packet.ProtoUDP && (proto != packet.ProtoTCP || total < 40 || h[packet.EtherLen+20+13]&tcpSYN != 0) {
			continue
		}
		if !packet.PlainSum(x, y, z) {
			continue
		}

		flags := packet.FlagPorts
		if y&0x40 != 0 {
			flags |= packet.FlagDF
		}
		src, dst := uint64(binary.BigEndian.Uint32(h[26:])), uint64(binary.BigEndian.Uint32(h[30:]))
		ports := binary.BigEndian.Uint32(h[34:])
		rest := packet.RestOf(uint16(ports>>16), uint16(ports), flags, 4, proto)
		k := f.find4(f.place4(src, dst, rest), src<<32|dst, rest)
		if k == nil || k.generation != f.generation || !k.protects() {
			continue
		}
		if k.way != r.tunnel && !r.turn(k) {
			return k
		}
		if total > r.mtu {
			continue
		}

		binary.BigEndian.PutUint32(h[22:], forward.OneHopLess(binary.BigEndian.Uint32(h[22:])))

		p.L3, p.L4, p.End = packet.EtherLen, packet.EtherLen+20, packet.EtherLen+uint16(total)
		p.SrcPort, p.DstPort = uint16(ports>>16), uint16(ports)
		p.Version, p.Proto, p.TOS, p.TTL = 4, proto, uint8(x>>24), ttl-1
		p.Flags, p.Class = flags, packet.ClassOutbound
		p.SPI, p.Tunnel, p.Hop = r.handle, r.tunnel, r.hop
		r.outbound[i] = r.sa
		r.list[r.took&(packet.BatchMax-1)] = uint8(i)
		r.took++
	}
	return nil
}
