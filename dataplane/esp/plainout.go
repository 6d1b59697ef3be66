package esp

import (
	"encoding/binary"
	"math/bits"

	"sallyport/dataplane/aesgcm"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/transform"
)

// plainOutbound is the work on packets of outbound associations with AES-GCM: in the form that most tunnels have, ESP right behind an
// outer IPv4 header, or with another outer header. The assembly, which is for the first, knows its layout.
type plainOutbound struct {
	b *packet.Batch
	// live are the packets, the first of them for o, which then becomes that of those that follow; sa is the association of each packet of the batch.
	live []uint8
	sa   []*sad.Outbound
	o    *sad.Outbound
	// ops and lengths are those of the packets of live, not fewer: what is to be encrypted, and bytes of the inner datagrams.
	ops     []aesgcm.Op
	lengths []uint16

	gcm transform.GCMRun
	// tosMask says what of the inner TOS goes into the outer one. Of the inner packet's flags copyDF goes into the outer header, and setDF besides, each by
	// half the inner version, odd for 6.
	tosMask       uint32
	copyDF, setDF [2]uint32
	// id is the last identification given to a header that may be fragmented.
	id uint32
	// seq is the last sequence number used.
	seq uint64
	// bytes of the inner datagrams that were prepared for o, and from the place in live of the first of them.
	bytes, from uint64

	// keys are those of outbound associations by slot. now and due are the time of the batch and what of it says that a packet is to be recorded, as in plainInbound.
	keys     []transform.Key
	now, due uint64
	// runs takes what was prepared for each association, done is how many these are.
	runs *[packet.BatchMax]run
	done uint64
}

// begin makes r the work on the live packets, the first of which becomes op n and is for o.
func (s *Scratch) begin(r *plainOutbound, b *packet.Batch, live []uint8, sa []*sad.Outbound, o *sad.Outbound, n int) {
	r.b, r.live, r.sa, r.from = b, live, sa, 0
	r.ops, r.lengths = s.crypto.GCMOps(n), s.bytes[n&(packet.BatchMax-1):]
	r.id = uint32(s.id)
	r.open(o)
}

// open begins with the packets for an association.
func (r *plainOutbound) open(o *sad.Outbound) {
	r.o = o
	r.gcm = transform.RunOf(&r.keys[o.Slot], bits.ReverseBytes32(o.SPI), o.Flags&sad.FlagESN != 0)
	r.tosMask, r.copyDF, r.setDF = 0, [2]uint32{}, [2]uint32{}
	if o.Flags&sad.FlagCopyDSCP != 0 {
		r.tosMask = 0xfc
	}
	if o.Flags&sad.FlagECN != 0 {
		r.tosMask |= 0x03
	}
	if o.Flags&sad.FlagSetDF != 0 {
		r.setDF = [2]uint32{uint32(packet.FlagDF), uint32(packet.FlagDF)}
	}
	if o.Flags&sad.FlagCopyDF != 0 {
		r.copyDF[0], r.setDF[0] = uint32(packet.FlagDF), 0
	}
	r.seq, r.bytes = o.Seq.Load(), 0
}

// close ends with the packets for an association, in front of that at place to in live.
func (r *plainOutbound) close(to uint64) {
	r.o.Seq.Set(r.seq)
	if to > r.from {
		r.runs[r.done&(packet.BatchMax-1)] = run{r.o, to - r.from, r.bytes}
		r.done++
	}
	r.from = to
}

// turn goes on with the packets for another association, from the place to in live on, and says whether it could: if they have the form that plain says, and an outer header as
// long, and none of them is to be recorded.
func (r *plainOutbound) turn(o *sad.Outbound, to uint64) bool {
	if !plain(o, r.keys) || o.HeaderLen != r.o.HeaderLen || (r.now^o.Last.Load())&r.due != 0 {
		return false
	}
	r.close(to)
	r.open(o)
	return true
}

// beginIPv4 returns the first eight bytes of the outer header of a datagram, and its checksum. It uses an identification up where the datagram may be fragmented.
func (r *plainOutbound) beginIPv4(tos uint8, total uint64, df packet.Flags) (first uint64, check uint16) {
	const start = 0x4500 << 48 // version and header length
	fragment := uint64(ipv4DF) // identification and flags
	if df == 0 {
		r.id++
		fragment = uint64(uint16(r.id)) << 16
	}
	sum := uint64(r.o.HeaderSum) + uint64(tos) + total + fragment>>16 + fragment&0xffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return start | uint64(tos)<<48 | total<<32 | fragment, ^uint16(sum>>16 + sum)
}

// prepareGeneric does for the packets of r what prepareOutbound does for any, writes whole words, and returns how many they are.
// It stops, and has done nothing, at a packet for an association that turn is not for, or where anything is
// out of the ordinary; prepareOutbound then says what. The outer header is IPv4 or IPv6, and UDP behind either or not; without it, over IPv4:
//
//	outer                8               16              24          28
//	| 45 tos len id frag | ttl 50 sum src | src dst  SPI | sequence | IV ...
func (r *plainOutbound) prepareGeneric() (packets int) {
	for {
		packets += r.prepareRun(packets)
		if packets == len(r.live) || r.sa[r.live[packets]] == r.o || !r.turn(r.sa[r.live[packets]], uint64(packets)) {
			r.close(uint64(packets))
			return packets
		}
	}
}

// prepareRun does so for the packets from the place first in live on that are for one association.
func (r *plainOutbound) prepareRun(first int) (packets int) {
	b, o := r.b, r.o
	mem := b.Mem
	// What the association's packets have in common: of IPv4 what stands behind the fragment, of IPv6 next header and hop limit, and the addresses.
	header, front := &o.Header, uint64(o.HeaderLen)+plainIVLen
	four, ip, ttl, proto := o.Version == 4, uint64(ipv4Len), header[8], uint8(packet.ProtoESP)
	middle, dst := binary.BigEndian.Uint64(header[8:]), binary.LittleEndian.Uint32(header[16:])
	var addresses [32]byte // they reach into the next cache line of the association
	if !four {
		ip, ttl, addresses = ipv6Len, header[7], [32]byte(header[8:])
	}
	begin := 6<<60 | uint64(header[6])<<8 | uint64(ttl)
	var known packet.Flags // of the outer packet, whatever the inner one is
	var ports uint32
	if o.UDP != 0 {
		proto, known, ports = packet.ProtoUDP, packet.FlagPorts, binary.BigEndian.Uint32(header[o.UDP:])
	}
	for k := first; k < len(r.live); k++ {
		i := r.live[k]
		if r.sa[i] != o {
			break
		}
		p := &b.P[i]
		inner := p.Addr + uint64(p.L3)
		length := uint64(p.End - p.L3)
		pad := -(length + trailerLen) & 3
		text := inner + length + pad + trailerLen
		outer, end, chunk := inner-front, text+plainBack, packet.Chunk(p.Addr)
		if inner < chunk+packet.EtherLen+front || end+packet.TailSlack > chunk+packet.FrameSize || r.seq >= o.SeqMax || end > uint64(len(mem)) {
			break
		}
		r.seq++

		// In one store, which may reach into the ICV's place.
		version := p.Version >> 1 & 1
		binary.LittleEndian.PutUint64(mem[inner+length:], trailers[version][pad])

		tos, total, df := p.TOS&uint8(r.tosMask), end-outer, packet.FlagDF
		if four {
			df = p.Flags&packet.Flags(r.copyDF[version]) | packet.Flags(r.setDF[version])
			first, check := r.beginIPv4(tos, total, df)
			h := (*[ipv4Len]byte)(mem[outer:])
			binary.BigEndian.PutUint64(h[0:], first)
			binary.BigEndian.PutUint64(h[8:], middle|uint64(check)<<32)
			binary.LittleEndian.PutUint32(h[16:], dst)
		} else {
			h := (*[ipv6Len]byte)(mem[outer:])
			binary.BigEndian.PutUint64(h[0:], begin|uint64(tos)<<52|(total-ipv6Len)<<16)
			*(*[32]byte)(h[8:]) = addresses
		}
		h := (*[udpLen + headerLen + plainIVLen]byte)(mem[inner-udpLen-headerLen-plainIVLen:])
		if ports != 0 {
			binary.BigEndian.PutUint64(h[0:], uint64(ports)<<32|(total-ip)<<16)
		}
		binary.BigEndian.PutUint64(h[8:], uint64(o.SPI)<<32|uint64(uint32(r.seq)))
		binary.BigEndian.PutUint64(h[16:], r.seq)
		r.gcm.Put(&r.ops[k], mem[inner:end:chunk+packet.FrameSize], bits.ReverseBytes64(r.seq), r.seq)

		p.Addr = outer - packet.EtherLen
		p.L3, p.L4 = packet.EtherLen, packet.EtherLen+uint16(ip)
		p.End = packet.EtherLen + uint16(total)
		p.Len = p.End
		p.SrcPort, p.DstPort = uint16(ports>>16), uint16(ports)
		p.Version, p.Proto, p.TOS, p.TTL = o.Version, proto, tos, ttl
		p.Flags = p.Flags&(packet.FlagLocal|packet.FlagRouted) | df | known
		p.SPI, p.Slot, p.Seq = o.SPI, o.Slot, r.seq
		r.lengths[k] = uint16(length)
		r.bytes += length
		packets++
	}
	return packets
}
