package forward

import (
	"encoding/binary"

	"sallyport/dataplane/packet"
)

// Fit says what becomes of a packet on a way with a given MTU.
type Fit uint8

const (
	Fits    Fit = iota // it is small enough
	Split              // IPv4 without Don't Fragment: Fragment can split it
	Refused            // too big, and its sender must be told: TooBig
)

// FitOf compares packet i's datagram with mtu, in bytes. An IPv6 packet of at most 1280
// bytes can be Refused too; its sender will not send less (RFC 8200, 5).
func FitOf(b *packet.Batch, i, mtu int) Fit {
	p := &b.P[i]
	switch {
	case int(p.End-p.L3) <= mtu:
		return Fits
	case p.Flags&packet.FlagDF == 0:
		return Split
	}
	return Refused
}

const (
	fragmentMore = 0x2000
	fragmentMask = 0x1fff // offset, in units of 8 bytes

	// optionCopied marks an IPv4 option that every fragment carries (RFC 791, 3.1).
	optionCopied = 0x80
)

// Fragment splits the IPv4 packet i, which lacks Don't Fragment, into datagrams of at
// most mtu bytes (RFC 791, 3.2). Packet i becomes the first. Each further one is built,
// Headroom bytes into its chunk, in a frame that alloc hands out, and its
// record written to out; L3 is 14 and the 14 bytes in front are WriteEthernet's to
// fill. Records of further fragments repeat what look-ups found. Each frame got from alloc
// belongs to the caller again through its record.
//
// The result is the number of records in out and DropNone. Otherwise packet i is as
// it was, the n records in out name (by Addr) frames that alloc gave and that hold nothing, and
// the reason is DropTooBig (IPv6, Don't Fragment, or an MTU without room for 8 bytes) or
// DropNoRoom (out too short, or alloc refused).
func Fragment(b *packet.Batch, i, mtu int, out []packet.Packet, alloc func() (addr uint64, ok bool)) (n int, reason packet.Drop) {
	p := &b.P[i]
	if p.Version != 4 || p.Flags&packet.FlagDF != 0 {
		return 0, packet.DropTooBig
	}
	datagram := b.IP(i)
	headerFirst := int(p.L4 - p.L3)
	var header [60]byte // of the further fragments
	headerRest := fragmentHeader(&header, datagram[:headerFirst])
	data := datagram[headerFirst:]
	if len(datagram) <= mtu {
		return 0, packet.DropNone
	}
	mtu = min(mtu, packet.LenMax-packet.EtherLen) // what a frame holds behind its headroom
	stepFirst, stepRest := (mtu-headerFirst)&^7, (mtu-headerRest)&^7
	if mtu < headerFirst+8 {
		return 0, packet.DropTooBig
	}
	rest := len(data) - stepFirst
	count := (rest + stepRest - 1) / stepRest
	// The last one may be longer than stepRest where mtu - headerRest is no multiple of 8.
	if count > 1 && rest-(count-2)*stepRest <= mtu-headerRest {
		count--
	}
	if n, reason = chunks(out, count, alloc); reason != packet.DropNone {
		return n, reason
	}

	word := binary.BigEndian.Uint16(datagram[6:])
	offset, more := int(word&fragmentMask), word&fragmentMore
	done := stepFirst
	for k := range out[:count] {
		step, flag := stepRest, uint16(fragmentMore)
		if k == count-1 {
			step, flag = len(data)-done, more
		}
		q := *p
		q.Addr = out[k].Addr
		q.L3, q.L4 = packet.EtherLen, uint16(packet.EtherLen+headerRest)
		q.End = q.L4 + uint16(step)
		q.Len = q.End
		q.SrcPort, q.DstPort = 0, 0
		q.Flags &^= packet.FlagPorts | packet.FlagVLAN | packet.FlagOptions
		q.Flags |= packet.FlagFragment | packet.FlagLaterFragment
		if headerRest > 20 {
			q.Flags |= packet.FlagOptions
		}
		out[k] = q
		at := q.Addr + packet.EtherLen
		h := b.Mem[at : at+uint64(headerRest+step)]
		copy(h, header[:headerRest])
		copy(h[headerRest:], data[done:done+step])
		sealFragment(h, headerRest, flag|uint16(offset+done/8))
		done += step
	}

	p.End = p.L4 + uint16(stepFirst)
	p.Len = p.End
	p.Flags |= packet.FlagFragment
	sealFragment(datagram[:headerFirst+stepFirst], headerFirst, fragmentMore|word&fragmentMask)
	return count, packet.DropNone
}

// FragmentSource is Fragment for an IPv6 packet of this gateway's own, without extension headers: only a packet's source makes
// fragments of it (RFC 8200, 4.5). id names the packet among those between its addresses. Each piece has a Fragment header, for which the first
// one's headers move down by 8 bytes.
func FragmentSource(b *packet.Batch, i, mtu int, id uint32, out []packet.Packet, alloc func() (addr uint64, ok bool)) (n int, reason packet.Drop) {
	p := &b.P[i]
	datagram := b.IP(i)
	const header, front = 40, 40 + 8
	if p.Version != 6 || p.L4-p.L3 != header {
		return 0, packet.DropTooBig
	}
	if len(datagram) <= mtu {
		return 0, packet.DropNone
	}
	data := datagram[header:]
	step := (min(mtu, packet.LenMax-packet.EtherLen) - front) &^ 7
	if step < 8 {
		return 0, packet.DropTooBig
	}
	count := (len(data)+step-1)/step - 1
	if p.Addr < packet.Chunk(p.Addr)+8 {
		return 0, packet.DropNoRoom
	}
	if n, reason = chunks(out, count, alloc); reason != packet.DropNone {
		return n, reason
	}
	next := datagram[6]
	seal := func(h []byte, offset int, more bool) {
		binary.BigEndian.PutUint16(h[4:], uint16(len(h)-header))
		h[6], h[header], h[header+1] = packet.ProtoFragment, next, 0
		word := uint16(offset)
		if more {
			word |= 1
		}
		binary.BigEndian.PutUint16(h[header+2:], word)
		binary.BigEndian.PutUint32(h[header+4:], id)
	}
	for k := range out[:count] {
		from := (k + 1) * step
		to := min(from+step, len(data))
		q := *p
		q.Addr = out[k].Addr
		q.L3, q.L4 = packet.EtherLen, packet.EtherLen+front
		q.End = q.L4 + uint16(to-from)
		q.Len = q.End
		q.SrcPort, q.DstPort = 0, 0
		q.Flags &^= packet.FlagPorts | packet.FlagVLAN
		q.Flags |= packet.FlagFragment | packet.FlagLaterFragment | packet.FlagOptions
		out[k] = q
		at := q.Addr + packet.EtherLen
		h := b.Mem[at : at+uint64(front+to-from)]
		copy(h, datagram[:header])
		copy(h[front:], data[from:to])
		seal(h, from, to < len(data))
	}
	start := p.Addr + uint64(p.L3) - 8
	copy(b.Mem[start:start+header], datagram[:header])
	p.Addr -= 8
	p.L4 += 8
	p.End = p.L4 + uint16(step)
	p.Len = p.End
	p.Flags |= packet.FlagFragment | packet.FlagOptions
	seal(b.Mem[start:start+uint64(front+step)], 0, true)
	return count, packet.DropNone
}

// fragmentHeader writes to h the header of a further fragment: that of the whole,
// with the options whose copied bit is set, filled up with End of Options; it returns its
// length. Options that make no sense end the copying.
func fragmentHeader(h *[60]byte, whole []byte) int {
	length := copy(h[:], whole[:20])
	for options := whole[20:]; len(options) > 0 && options[0] != optionEnd; {
		size := 1
		if options[0] != optionNop {
			if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
				break
			}
			size = int(options[1])
		}
		if options[0]&optionCopied != 0 {
			length += copy(h[length:], options[:size])
		}
		options = options[size:]
	}
	for length%4 != 0 {
		h[length] = optionEnd
		length++
	}
	h[0] = 0x40 | byte(length/4)
	return length
}

// sealFragment writes length, fragment word and checksum of the IPv4 datagram h.
func sealFragment(h []byte, header int, word uint16) {
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)))
	binary.BigEndian.PutUint16(h[6:], word)
	h[10], h[11] = 0, 0
	binary.BigEndian.PutUint16(h[10:], packet.Checksum(h[:header], 0))
}

// chunks takes count chunks for fragments, and returns how many it took before they, or room in out, ran short.
func chunks(out []packet.Packet, count int, alloc func() (addr uint64, ok bool)) (n int, reason packet.Drop) {
	if count > len(out) {
		return 0, packet.DropNoRoom
	}
	for n < count {
		addr, ok := alloc()
		if !ok {
			return n, packet.DropNoRoom
		}
		out[n] = packet.Packet{Addr: packet.Chunk(addr) + packet.Headroom}
		n++
	}
	return n, packet.DropNone
}
