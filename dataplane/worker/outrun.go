package worker

import (
	"encoding/binary"

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
}

// noTunnel is none that a flow goes into.
const noTunnel = ^uint32(0)

// start makes r the way of the worker's batch.
func (r *outRun) start(w *Worker, protected uint64) {
	r.b, r.f, r.protected, r.outbound, r.list = &w.batch, w.flows, protected, &w.outbound, &w.lists.store[shortOut]
	r.valid = (uint64(w.flows.generation) | uint64(spd.Matched)<<32 | uint64(spd.Protect)<<40) << 16
	r.tunnel, r.took, r.next = noTunnel, 0, 0
}

// passGeneric takes the packets that need nothing special as long as their flows go into the tunnel of r, and leaves those that do. It
// ends with what is known of the flow of packet next if that goes into another tunnel; to go on, the caller makes that the tunnel of
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
		if k.way != r.tunnel {
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
