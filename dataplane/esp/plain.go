package esp

import (
	"encoding/binary"
	"math/bits"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/replay"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
)

// Lengths of the usual form: what most prepared headers hold, IPv4, SPI and sequence number; and what AES-GCM adds (RFC 4106).
const (
	plainHeaderLen = ipv4Len + headerLen
	plainIVLen     = 8
	plainICVLen    = 16
)

// plainFront is what stands in front of the inner datagram in the usual form, plainBack what stands behind its padding and trailer.
const (
	plainFront = plainHeaderLen + plainIVLen
	plainBack  = plainICVLen
)

// trailers holds padding 1, 2, 3, its length and next header as a little-endian word, by half the inner version, odd for 6, and length of padding.
// The assembly reads it too.
var trailers = func() (t [2][4]uint64) {
	for v, next := range [2]uint64{packet.ProtoIPv4, packet.ProtoIPv6} {
		for pad := range uint64(4) {
			t[v][pad] = 0x03_02_01&(1<<(8*pad)-1) | (pad|next<<8)<<(8*pad)
		}
	}
	return t
}()

// run is what encapsulatePlain put into packets of one association, one after the other.
type run struct {
	sa             *sad.Outbound
	packets, bytes uint64
}

// encapsulatePlain puts the first of the live packets, as many as have the form that most have, into ESP packets: see plainOutbound. It
// appends those that live to kept, which may lie in front of live in the same array, and returns what is left of live.
func (s *Scratch) encapsulatePlain(b *packet.Batch, kept, live []uint8, sa []*sad.Outbound) (_, rest []uint8) {
	n, r := 0, &s.plainOut
	r.keys, r.now, r.runs, r.done = s.table.OutboundKeys(), uint64(s.Now), &s.runs, 0
	for n < len(live) && n < packet.BatchMax {
		o := sa[live[n]]
		if !plain(o, r.keys) {
			break
		}
		due := s.due(&o.Last)
		if due {
			s.draft = sad.RecordOf(b, int(live[n]), s.Now)
		}
		r.due = s.dueBits()
		s.begin(r, b, live[n:min(len(live), packet.BatchMax)], sa, o, n)
		packets := r.prepare()
		if packets == 0 {
			break
		}
		s.id = uint16(r.id)
		if due {
			s.keep(o, b.P[live[n]].Seq)
		}
		n += packets
	}
	runs := s.runs[:r.done]
	done, rest := live[:n], live[n:]
	if n == 0 {
		return kept, rest
	}
	if s.crypto.SealGCM(n) < n {
		return s.finishFailed(b, kept, done, sa, runs), rest
	}
	for k := range runs {
		s.countSent(runs[k].sa, runs[k].packets, runs[k].bytes)
	}
	return append(kept, done...), rest
}

// finishFailed ends those of the packets that were not sealed and counts the others. Its list is that of encapsulatePlain.
func (s *Scratch) finishFailed(b *packet.Batch, kept, done []uint8, sa []*sad.Outbound, runs []run) []uint8 {
	k := 0
	for _, r := range runs {
		for range r.packets {
			i := done[k]
			if s.crypto.DoneGCM(k) {
				kept = append(kept, i)
			} else {
				s.failOutbound(b, i, sa[i])
				r.packets--
				r.bytes -= uint64(s.bytes[k])
			}
			k++
		}
		if r.packets > 0 {
			s.countSent(r.sa, r.packets, r.bytes)
		}
	}
	return kept
}

// notPlain are the flags of associations whose packets have a form that plainOutbound is not for.
const notPlain = sad.FlagsUnusual | sad.FlagTransport | sad.FlagAH | sad.FlagUDPChecksum

// plain says that packets for an association, or none, have a form that plainOutbound is for; keys are those of associations, by slot.
func plain(o *sad.Outbound, keys []transform.Key) bool {
	return o != nil && o.Flags&notPlain == 0 && keys[o.Slot].GCM()
}

// TakesESP says that packets for an association, or none, have a form that TakeESP is for.
func (s *Scratch) TakesESP(in *sad.Inbound) bool {
	return in != nil && in.Flags&(sad.FlagTransport|sad.FlagAH|sad.FlagCopyDSCP|sad.FlagGRE|sad.FlagBundled) == 0 && s.table.InboundKey(in.Slot).GCM()
}

// opensPlain says that packets for an association, or none, have the form that prepareOpen is for.
func (s *Scratch) opensPlain(in *sad.Inbound) bool {
	return s.TakesESP(in) && in.Version == 4 && in.Flags&(sad.FlagEncap|sad.FlagRoaming) == 0
}

// decapsulatePlain does for inbound packets what encapsulatePlain does for outbound ones: see prepareOpen.
func (s *Scratch) decapsulatePlain(b *packet.Batch, kept, live []uint8, sa []*sad.Inbound) (_, rest []uint8) {
	n := 0
	for n < len(live) && n < packet.BatchMax {
		in := sa[live[n]]
		if !s.opensPlain(in) {
			break
		}
		packets := s.prepareOpen(b, live[n:min(len(live), packet.BatchMax)], sa, in, n)
		if packets == 0 {
			break
		}
		n += packets
	}
	if n == 0 {
		return kept, live
	}
	s.crypto.OpenGCM(n)
	for k := range s.rec[:n] {
		s.rec[k].ok = s.crypto.DoneGCM(k)
	}
	return s.finishInbound(b, kept, sa, n), live[n:]
}

// prepareOpen is prepareInbound for ESP right behind an outer IPv4 header without options, and AES-GCM. It takes the first of the live
// packets as ops from n on, all of them for in, and returns how many. It stops, and has done
// nothing, at a packet for another association or where anything is out of the ordinary or wrong; prepareInbound then says what.
func (s *Scratch) prepareOpen(b *packet.Batch, live []uint8, sa []*sad.Inbound, in *sad.Inbound, n int) (packets int) {
	mem := b.Mem
	// What the association's packets have in common.
	addresses := binary.LittleEndian.Uint64(in.Addresses[:])
	spi := bits.ReverseBytes32(in.SPI)
	open := transform.RunOf(s.table.InboundKey(in.Slot), spi, in.Flags&sad.FlagESN != 0)
	window, words := &in.Window, s.table.Bits(in)
	for _, i := range live {
		if sa[i] != in {
			break
		}
		p := &b.P[i]
		outer := p.Addr + uint64(p.L3)
		end := p.Addr + uint64(p.End)
		if p.L4-p.L3 != ipv4Len || p.Version != 4 || p.Proto != packet.ProtoESP || p.Flags&packet.FlagFragment != 0 ||
			end < outer+plainFront+trailerLen+plainBack || (end-outer-plainFront-plainBack)&3 != 0 {
			break
		}
		h := (*[plainFront]byte)(mem[outer:])
		if binary.LittleEndian.Uint64(h[12:]) != addresses || binary.LittleEndian.Uint32(h[20:]) != spi {
			break
		}
		seq := window.Infer(binary.BigEndian.Uint32(h[24:]))
		if window.Check(words, seq) != replay.OK {
			break
		}
		p.SPI, p.Slot, p.Seq = in.SPI, in.Slot, seq
		r := &s.rec[(n+packets)&(packet.BatchMax-1)]
		r.index, r.tos, r.other, r.esp, r.length = i, p.TOS, false, outer+ipv4Len, uint16(end-outer-ipv4Len)
		open.Put(s.crypto.GCM(n+packets), mem[outer+plainFront:end:packet.Chunk(p.Addr)+packet.FrameSize], binary.LittleEndian.Uint64(h[28:]), seq)
		packets++
	}
	return packets
}

// acceptPlain is accept for the inner packets that most are: IPv4 without options, whole, with UDP or TCP in it, a trailer as
// short as AES-GCM needs, in an outer header that says nothing of congestion. text is the decrypted one, which starts at start. Where anything
// is out of the ordinary or wrong it returns false, and has changed nothing; accept then says what.
func acceptPlain(b *packet.Batch, i uint8, start uint64, tos uint8, text []byte, selectors *spd.Plain) bool {
	p, f := &b.P[i&(packet.BatchMax-1)], &b.Flows[i&(packet.BatchMax-1)]
	n := len(text)
	if n < 24+trailerLen || tos&0b11 != packet.ECNNotECT {
		return false
	}
	trailer := binary.LittleEndian.Uint64(text[n-8:])
	next, pad := trailer>>56, trailer>>48&0xff
	if next != packet.ProtoIPv4 || pad > 3 || trailer>>(48-8*pad) != trailers[0][pad] {
		return false
	}
	// Version to fragment; TTL, protocol, checksum and source; destination and ports.
	x, y, z := binary.LittleEndian.Uint64(text[0:]), binary.LittleEndian.Uint64(text[8:]), binary.LittleEndian.Uint64(text[16:])
	total := bits.ReverseBytes16(uint16(x >> 16))
	proto := uint8(y >> 8)
	if x&plainMask != plainWord || total < 24 || int(total)+int(pad) > n-trailerLen || !packet.AllOnes(x, y, z<<32) ||
		proto != packet.ProtoUDP && proto != packet.ProtoTCP {
		return false
	}
	src, dst := bits.ReverseBytes32(uint32(y>>32)), bits.ReverseBytes32(uint32(z))
	if !selectors.Matches(src, dst, proto) {
		return false
	}
	srcPort, dstPort := bits.ReverseBytes16(uint16(z>>32)), bits.ReverseBytes16(uint16(z>>48))
	flags := packet.FlagDecapsulated | packet.FlagPorts
	if x&plainDF != 0 {
		flags |= packet.FlagDF
	}
	p.Addr = start - packet.EtherLen
	p.Len, p.L3, p.L4, p.End = packet.EtherLen+total, packet.EtherLen, packet.EtherLen+ipv4Len, packet.EtherLen+total
	p.SrcPort, p.DstPort = srcPort, dstPort
	p.Version, p.Proto, p.TOS, p.TTL = 4, proto, uint8(x>>8), uint8(y)
	p.Flags = flags
	f.Set4(src, dst, packet.RestOf(srcPort, dstPort, flags, 4, proto))
	return true
}

// acceptPlain6 is acceptPlain for packets of r and inner packets of IPv6 without extension headers, in an outer header that says nothing of congestion either.
func (r *plainInbound) acceptPlain6(i uint8, start uint64, text []byte) bool {
	b := r.b
	p, f := &b.P[i&(packet.BatchMax-1)], &b.Flows[i&(packet.BatchMax-1)]
	n := len(text)
	if n < ipv6Len+4+trailerLen {
		return false
	}
	trailer := binary.LittleEndian.Uint64(text[n-8:])
	next, pad := trailer>>56, trailer>>48&0xff
	if next != packet.ProtoIPv6 || pad > 3 || trailer>>(48-8*pad) != trailers[1][pad] {
		return false
	}
	h := (*[ipv6Len + 4]byte)(text)
	total := ipv6Len + uint64(binary.BigEndian.Uint16(h[4:]))
	proto := h[6]
	if h[0]>>4 != 6 || total < ipv6Len+4 || total+pad > uint64(n-trailerLen) || proto != packet.ProtoUDP && proto != packet.ProtoTCP {
		return false
	}
	ports := binary.BigEndian.Uint32(h[ipv6Len:])
	srcPort, dstPort := uint16(ports>>16), uint16(ports)
	const flags = packet.FlagDecapsulated | packet.FlagPorts | packet.FlagDF
	f.Set6((*[32]byte)(h[8:]), packet.RestOf(srcPort, dstPort, flags, 6, proto))
	if !r.in.Plain.Matches6(f, r.table.Plain6(r.in.Slot)) && r.table.Selectors(r.in.Slot).MatchInbound(f) != spd.Matched {
		return false // accept fills in the flow again
	}
	p.Addr = start - packet.EtherLen
	end := packet.EtherLen + uint16(total)
	p.Len, p.L3, p.L4, p.End = end, packet.EtherLen, packet.EtherLen+ipv6Len, end
	p.SrcPort, p.DstPort = srcPort, dstPort
	p.Version, p.Proto, p.TOS, p.TTL = 6, proto, h[0]<<4|h[1]>>4, h[7]
	p.Flags = flags
	return true
}

// The first eight bytes of an IPv4 header without options of a datagram that is whole, as a little-endian word: what stands in it where neither TOS, length,
// identification nor DF do.
const (
	plainMask = 0xffbf_0000_0000_00ff
	plainWord = 0x45
	plainDF   = 0x0040_0000_0000_0000
)
