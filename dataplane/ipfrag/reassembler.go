package ipfrag

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"

	"sallyport/dataplane/packet"
)

// Limits of a [Reassembler].
const (
	// DatagramsMax is how many datagrams it works on at once.
	DatagramsMax = 128
	// PiecesMax is how many fragments one datagram may have. Those that fit a frame have 7 over links of 576 bytes, and twice as
	// many where fragments were cut again on their way.
	PiecesMax = 32
	// Timeout is how long after its first fragment a datagram is given up, in nanoseconds. It is less than the 60 s of RFC 8200, 4.5:
	// identifications of IPv4 return within a second at the speed of a tunnel (RFC 4963), and no replay window waits so long.
	Timeout = int64(2e9)

	sourcesMax = 64 // classes of sources that share their room fairly
	bucketsMax = 256
)

// Kind says what is known of the datagram that a fragment belongs to.
type Kind uint8

const (
	// Unknown: a later fragment, and only the first one tells whose the datagram is.
	Unknown Kind = iota
	// Ours: it is to be put together here.
	Ours
	// Known: it is ours, and its first fragment, which this is, names an association that exists. Others give way to it.
	Known
	// Foreign: somebody else puts it together.
	Foreign

	refused // it is given up, and what still comes of it is dropped
)

// Fate is what became of a fragment.
type Fate uint8

const (
	// Held: the Reassembler keeps it, frame and all.
	Held Fate = iota
	// Whole: with it the datagram is complete, and its record now describes that one.
	Whole
	// Passed: it belongs to a Foreign datagram.
	Passed
	// Dropped: for the reason beside it.
	Dropped
	// Merged: its data is in a datagram that is Whole now.
	Merged
)

// Other is the fate of a fragment that was held until now: Passed, Dropped or Merged. Its frame is the caller's again.
type Other struct {
	Packet packet.Packet
	Fate   Fate
	Reason packet.Drop
}

// Reassembler puts datagrams together from fragments that it holds, each in its own frame. No two fragments of a datagram
// may overlap (RFC 5722; for IPv4 too), but for exact copies, which are dropped.
//
// When there is no room for a newcomer, a datagram ends: first one whose first fragment has not been seen to name an
// association, and of these the oldest of that class of sources which takes most room.
type Reassembler struct {
	mem []byte

	// Others are the fates of fragments that were held, of the last call of Add, Refuse, Expire or Drain.
	Others []Other

	datagrams [DatagramsMax]datagram
	buckets   [bucketsMax]int16 // first datagram of each chain, -1 if none
	oldest    int16             // by arrival of the first fragment; -1 if none
	newest    int16
	unused    int16 // first of the free datagrams, linked by chain

	pieces     []piece
	freePieces int16
	held       int

	load [sourcesMax]int // datagrams and pieces of each class of sources
	seed uint64
}

type datagram struct {
	key      key
	deadline int64
	kind     Kind
	reason   packet.Drop // of refused
	source   uint8       // class
	ecn      uint8       // a bit for each code point seen
	bucket   uint8
	count    uint8 // pieces
	// total is the length of the data of the whole, 0 while the last fragment is missing; sum that of the pieces.
	total, sum int
	first      int16 // piece, in the order of offsets; -1 if none
	chain      int16 // next in the bucket, or next free one
	older      int16
	newer      int16
}

// key names a datagram (RFC 791, 3.2; RFC 8200, 4.5, which leaves the protocol out).
type key struct {
	src, dst       packet.Addr
	id             uint32
	version, proto uint8
}

// piece is a fragment that is held.
type piece struct {
	packet       packet.Packet
	begin, end   int // of its data in the datagram
	header, skip uint16
	next         uint16 // see fragment
	proto        uint8
	after        int16 // piece with the next offset, or next free one; -1 if none
}

// NewReassembler returns one that holds at most frames fragments, at least PiecesMax, of frames in mem.
func NewReassembler(mem []byte, frames int) *Reassembler {
	r := &Reassembler{
		mem: mem, pieces: make([]piece, max(frames, PiecesMax)), seed: rand.Uint64(),
		Others: make([]Other, 0, 4*PiecesMax), oldest: -1, newest: -1,
	}
	for i := range r.buckets {
		r.buckets[i] = -1
	}
	for i := range r.datagrams {
		r.datagrams[i].chain = int16(i + 1)
	}
	r.datagrams[DatagramsMax-1].chain = -1
	for i := range r.pieces {
		r.pieces[i].after = int16(i + 1)
	}
	r.pieces[len(r.pieces)-1].after = -1
	return r
}

// Waiting says whether anything is held or remembered, so that Expire has something to do.
func (r *Reassembler) Waiting() bool { return r.oldest >= 0 }

// Held is the number of fragments that are held.
func (r *Reassembler) Held() int { return r.held }

// Add takes the fragment of record p and flow f, of which the caller knows kind, at the time now in nanoseconds. Held, its
// frame is kept. Whole, *p is a record with Addr, Len, Port and Handovers only, to be parsed anew, of the frame that holds the datagram.
// Dropped, the reason stands beside it. Others tells of fragments that were held before.
func (r *Reassembler) Add(p *packet.Packet, f *packet.Flow, kind Kind, now int64) (Fate, packet.Drop) {
	r.Others = r.Others[:0]
	h := r.mem[p.Addr+uint64(p.L3) : p.Addr+uint64(p.End)]
	g, ok := fragmentOf(p, h)
	if !ok || g.length <= 0 || g.more && g.length%8 != 0 || g.offset+g.length+g.header > 0xffff {
		return Dropped, packet.DropBadFragment
	}
	k := keyOf(f, &g)
	bucket := uint8(k.hash(r.seed))
	at := r.find(&k, bucket)
	if at >= 0 && now >= r.datagrams[at].deadline {
		r.end(at, Dropped, packet.DropFragmentTimeout)
		at = -1
	}
	if at < 0 {
		at = r.begin(&k, bucket, now)
	}
	d := &r.datagrams[at]
	if d.kind == refused {
		return Dropped, d.reason
	}
	switch {
	case d.kind == Unknown && kind == Foreign:
		d.kind = Foreign
		r.give(d, Passed, packet.DropNone)
	case d.kind == Unknown, d.kind == Ours && kind == Known:
		d.kind = kind
	}
	if d.kind == Foreign {
		return Passed, packet.DropNone
	}
	if reason := r.insert(at, p, &g, h); reason != packet.DropNone {
		if reason != packet.DropDuplicateFragment {
			r.refuse(d, reason)
		}
		return Dropped, reason
	}
	if d.kind == Unknown || d.total == 0 || d.sum != d.total {
		return Held, packet.DropNone
	}
	if reason := r.merge(d, p); reason != packet.DropNone {
		// The newcomer is among the pieces that end; its record is the caller's to end.
		r.give(d, Dropped, reason)
		r.forgetOther(p)
		r.remove(at)
		return Dropped, reason
	}
	r.remove(at)
	return Whole, packet.DropNone
}

// Refuse gives up the datagram, if any of it is held, whose first fragment, of record p and flow f, the caller drops for a reason.
func (r *Reassembler) Refuse(p *packet.Packet, f *packet.Flow, reason packet.Drop) {
	r.Others = r.Others[:0]
	g, ok := fragmentOf(p, r.mem[p.Addr+uint64(p.L3):p.Addr+uint64(p.End)])
	if !ok {
		return
	}
	k := keyOf(f, &g)
	if at := r.find(&k, uint8(k.hash(r.seed))); at >= 0 && r.datagrams[at].kind != refused {
		r.refuse(&r.datagrams[at], reason)
	}
}

// Expire ends at most one datagram whose time is over, and says whether there was one.
func (r *Reassembler) Expire(now int64) bool {
	r.Others = r.Others[:0]
	if r.oldest < 0 || now < r.datagrams[r.oldest].deadline {
		return false
	}
	r.end(r.oldest, Dropped, packet.DropFragmentTimeout)
	return true
}

// Drain ends one datagram because the gateway stops, and says whether there was one.
func (r *Reassembler) Drain() bool {
	r.Others = r.Others[:0]
	if r.oldest < 0 {
		return false
	}
	r.end(r.oldest, Dropped, packet.DropStopped)
	return true
}

func keyOf(f *packet.Flow, g *fragment) key {
	k := key{src: f.Src, dst: f.Dst, id: g.id, version: f.Version}
	if f.Version == 4 {
		k.proto = g.proto
	}
	return k
}

func (k *key) hash(seed uint64) uint64 {
	h := mix(k.src.Lo^seed, k.dst.Lo)
	h = mix(h^k.src.Hi, k.dst.Hi^seed)
	return mix(h^uint64(k.id), uint64(k.version)<<8|uint64(k.proto)) >> 32
}

// find returns the datagram of a key, -1 if there is none.
func (r *Reassembler) find(k *key, bucket uint8) int16 {
	for at := r.buckets[bucket]; at >= 0; at = r.datagrams[at].chain {
		if r.datagrams[at].key == *k {
			return at
		}
	}
	return -1
}

// begin makes a new datagram, for which another one ends if there is no room.
func (r *Reassembler) begin(k *key, bucket uint8, now int64) int16 {
	if r.unused < 0 {
		r.evict(-1, 0)
	}
	at := r.unused
	d := &r.datagrams[at]
	r.unused = d.chain
	*d = datagram{
		key: *k, deadline: now + Timeout, bucket: bucket, source: r.class(k), first: -1,
		chain: r.buckets[bucket], older: r.newest, newer: -1,
	}
	r.buckets[bucket] = at
	if r.newest >= 0 {
		r.datagrams[r.newest].newer = at
	} else {
		r.oldest = at
	}
	r.newest = at
	r.load[d.source]++
	return at
}

// class returns the class of a datagram's source: an IPv4 address, or an IPv6 network of 64 bits.
func (r *Reassembler) class(k *key) uint8 {
	source := k.src.Hi
	if k.version == 4 {
		source = k.src.Lo
	}
	return uint8(mix(source, r.seed)>>32) % sourcesMax
}

// evict ends the datagram that has to give way, of those other than keep with at least so many pieces, and says whether there was one.
func (r *Reassembler) evict(keep int16, pieces uint8) bool {
	victim, most, known := int16(-1), -1, true
	for at := r.oldest; at >= 0; at = r.datagrams[at].newer {
		d := &r.datagrams[at]
		if at == keep || d.count < pieces {
			continue
		}
		if k := d.kind == Known; known && !k || known == k && r.load[d.source] > most {
			victim, most, known = at, r.load[d.source], k
		}
	}
	if victim < 0 {
		return false
	}
	r.end(victim, Dropped, packet.DropFragmentLimit)
	return true
}

// insert adds a fragment to the pieces of datagram at, in the order of their offsets, or says why that cannot be.
func (r *Reassembler) insert(at int16, p *packet.Packet, g *fragment, h []byte) packet.Drop {
	d := &r.datagrams[at]
	begin, end := g.offset, g.offset+g.length
	if d.total != 0 && (end > d.total || !g.more && end != d.total) {
		return packet.DropBadFragment
	}
	if d.kind != Unknown && g.header+end > packet.LenMax-packet.EtherLen {
		return packet.DropFragmentTooLarge
	}
	before, after := int16(-1), d.first
	for after >= 0 && r.pieces[after].begin < begin {
		before, after = after, r.pieces[after].after
	}
	if after >= 0 && !g.more && r.pieces[after].begin > begin {
		return packet.DropBadFragment // something lies behind the last one
	}
	if after >= 0 && r.pieces[after].begin == begin && r.pieces[after].end == end {
		q := &r.pieces[after]
		if bytes.Equal(r.data(q), h[g.header+g.skip:]) && (d.total == end) == !g.more {
			return packet.DropDuplicateFragment
		}
	}
	if before >= 0 && r.pieces[before].end > begin || after >= 0 && r.pieces[after].begin < end {
		return packet.DropFragmentOverlap
	}
	if d.count == PiecesMax {
		return packet.DropFragmentLimit
	}
	if r.freePieces < 0 && !r.evict(at, 1) {
		return packet.DropFragmentLimit
	}
	n := r.freePieces
	q := &r.pieces[n]
	r.freePieces = q.after
	*q = piece{packet: *p, begin: begin, end: end, header: uint16(g.header), skip: uint16(g.skip), next: uint16(g.next), proto: g.proto, after: after}
	if before < 0 {
		d.first = n
	} else {
		r.pieces[before].after = n
	}
	if !g.more {
		d.total = end
	}
	d.sum += g.length
	d.count++
	d.ecn |= 1 << (p.TOS & 3)
	r.held++
	r.load[d.source]++
	return packet.DropNone
}

// data returns the bytes of a piece's part of the datagram.
func (r *Reassembler) data(q *piece) []byte {
	at := q.packet.Addr + uint64(q.packet.L3) + uint64(q.header) + uint64(q.skip)
	return r.mem[at : at+uint64(q.end-q.begin)]
}

// merge writes the datagram of d, whose pieces are all there, into the frame of the first one, and makes *p its record. The
// frames of the others are Merged.
func (r *Reassembler) merge(d *datagram, p *packet.Packet) packet.Drop {
	q := &r.pieces[d.first]
	first := q.packet
	header := uint64(q.header)
	start := first.Addr + uint64(first.L3)
	length := header + uint64(d.total)
	if start+length+packet.TailSlack > packet.Chunk(first.Addr)+packet.FrameSize {
		return packet.DropFragmentTooLarge
	}
	// RFC 3168, 5.3: congestion met by one fragment was met by the datagram, unless its sender knows no ECN.
	tos := first.TOS
	if d.ecn&(1<<packet.ECNCE) != 0 {
		if d.ecn&(1<<packet.ECNNotECT) != 0 {
			return packet.DropBadFragment
		}
		tos |= packet.ECNCE
	}
	if q.skip != 0 {
		copy(r.mem[start+header:], r.data(q))
	}
	h := r.mem[start : start+length]
	for n := q.after; n >= 0; n = r.pieces[n].after {
		o := &r.pieces[n]
		copy(h[int(header)+o.begin:], r.data(o))
	}
	if first.Version == 4 {
		h[1] = tos
		binary.BigEndian.PutUint16(h[2:], uint16(length))
		binary.BigEndian.PutUint16(h[6:], 0)
		h[10], h[11] = 0, 0
		binary.BigEndian.PutUint16(h[10:], packet.Checksum(h[:header], 0))
	} else {
		h[0], h[1] = 6<<4|tos>>4, tos<<4|h[1]&15
		binary.BigEndian.PutUint16(h[4:], uint16(length-40))
		h[q.next] = q.proto
	}
	r.give(d, Merged, packet.DropNone)
	*p = packet.Packet{Addr: first.Addr, Len: first.L3 + uint16(length), Port: first.Port, Handovers: first.Handovers}
	r.forgetOther(p)
	return packet.DropNone
}

// forgetOther takes the packet with p's frame out of Others: it is the caller's already.
func (r *Reassembler) forgetOther(p *packet.Packet) {
	for i := range r.Others {
		if r.Others[i].Packet.Addr == p.Addr {
			r.Others[i] = r.Others[len(r.Others)-1]
			r.Others = r.Others[:len(r.Others)-1]
			return
		}
	}
}

// give hands the pieces of a datagram to the caller.
func (r *Reassembler) give(d *datagram, fate Fate, reason packet.Drop) {
	for n := d.first; n >= 0; {
		q := &r.pieces[n]
		r.Others = append(r.Others, Other{q.packet, fate, reason})
		next := q.after
		q.after = r.freePieces
		r.freePieces = n
		n = next
	}
	r.held -= int(d.count)
	r.load[d.source] -= int(d.count)
	d.first, d.count, d.sum = -1, 0, 0
}

// refuse gives a datagram up and remembers why, for what still comes of it (RFC 5722, 3).
func (r *Reassembler) refuse(d *datagram, reason packet.Drop) {
	r.give(d, Dropped, reason)
	d.kind, d.reason = refused, reason
}

// end ends a datagram.
func (r *Reassembler) end(at int16, fate Fate, reason packet.Drop) {
	r.give(&r.datagrams[at], fate, reason)
	r.remove(at)
}

// remove forgets a datagram without pieces.
func (r *Reassembler) remove(at int16) {
	d := &r.datagrams[at]
	link := &r.buckets[d.bucket]
	for *link != at {
		link = &r.datagrams[*link].chain
	}
	*link = d.chain
	if d.older >= 0 {
		r.datagrams[d.older].newer = d.newer
	} else {
		r.oldest = d.newer
	}
	if d.newer >= 0 {
		r.datagrams[d.newer].older = d.older
	} else {
		r.newest = d.older
	}
	r.load[d.source]--
	d.chain, r.unused = r.unused, at
}
