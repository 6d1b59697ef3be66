package ipfrag

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"sallyport/dataplane/packet"
)

// bench is a reassembler with frames and a batch to parse in.
type bench struct {
	t     testing.TB
	r     *Reassembler
	b     packet.Batch
	free  []uint64
	all   int
	now   int64
	fates map[Fate]int // of fragments that were held
	why   map[packet.Drop]int
}

const frames = 400

func newBench(t testing.TB, held int) *bench {
	x := &bench{t: t, all: frames, fates: map[Fate]int{}, why: map[packet.Drop]int{}}
	x.b.Mem = make([]byte, frames*packet.FrameSize)
	x.b.N = 1
	x.r = NewReassembler(x.b.Mem, held)
	for i := range frames {
		x.free = append(x.free, uint64(i)*packet.FrameSize)
	}
	return x
}

// add gives an IP packet to the reassembler, and returns its fate and, if it is whole, the datagram.
func (x *bench) add(ip []byte, kind Kind) (Fate, packet.Drop, []byte) {
	x.t.Helper()
	frame := x.free[len(x.free)-1]
	x.free = x.free[:len(x.free)-1]
	p := &x.b.P[0]
	*p = packet.Packet{Addr: frame + packet.Headroom, Len: uint16(14 + len(ip))}
	f := x.b.Frame(0)
	for i := range f[:12] {
		f[i] = 0
	}
	f[12], f[13] = 0x08, 0
	if ip[0]>>4 == 6 {
		f[12], f[13] = 0x86, 0xdd
	}
	copy(f[14:], ip)
	if reason := packet.Parse(&x.b, 0); reason != packet.DropNone {
		x.free = append(x.free, frame)
		return Dropped, reason, nil
	}
	fate, reason := x.r.Add(p, &x.b.Flows[0], kind, x.now)
	x.others()
	var whole []byte
	switch fate {
	case Held:
		return fate, reason, nil
	case Whole:
		if again := packet.Parse(&x.b, 0); again != packet.DropNone {
			x.t.Fatalf("what was put together does not parse: %v", again)
		}
		whole = bytes.Clone(x.b.IP(0))
	}
	x.free = append(x.free, packet.Chunk(p.Addr))
	return fate, reason, whole
}

// others takes back the frames of fragments that are no longer held.
func (x *bench) others() {
	for _, o := range x.r.Others {
		x.fates[o.Fate]++
		x.why[o.Reason]++
		x.free = append(x.free, packet.Chunk(o.Packet.Addr))
	}
}

// settled checks that every frame is held or free, once.
func (x *bench) settled() {
	x.t.Helper()
	seen := map[uint64]bool{}
	for _, a := range x.free {
		if seen[a] {
			x.t.Fatalf("frame %d is free twice", a)
		}
		seen[a] = true
	}
	if len(x.free)+x.r.Held() != x.all {
		x.t.Fatalf("%d frames free and %d held, of %d", len(x.free), x.r.Held(), x.all)
	}
}

// cut is one fragment to make: bytes from begin to end of the data.
type cut struct {
	begin, end int
	more       bool
}

// datagram4 and datagram6 return a fragment of a datagram whose data is given.
func datagram4(src, id int, proto, tos byte, data []byte, c cut) []byte {
	h := make([]byte, 20)
	h[0], h[1], h[8], h[9] = 0x45, tos, 64, proto
	binary.BigEndian.PutUint16(h[4:], uint16(id))
	word := uint16(c.begin / 8)
	if c.more {
		word |= 0x2000
	}
	binary.BigEndian.PutUint16(h[6:], word)
	binary.BigEndian.PutUint32(h[12:], 0xc0000200+uint32(src))
	binary.BigEndian.PutUint32(h[16:], 0xcb007101)
	ip := append(h, data[c.begin:c.end]...)
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[10:], packet.Checksum(ip[:20], 0))
	return ip
}

func datagram6(src, id int, proto, tos byte, data []byte, c cut) []byte {
	h := make([]byte, 56)
	h[0], h[1], h[6], h[7] = 6<<4|tos>>4, tos<<4, packet.ProtoDestination, 64
	copy(h[8:], []byte{0x20, 1, 0xd, 0xb8, 0, 0, byte(src >> 8), byte(src)})
	copy(h[24:], []byte{0x20, 1, 0xd, 0xb8, 1})
	h[40], h[41], h[42], h[43] = packet.ProtoFragment, 0, 1, 4 // destination options: PadN
	f := h[48:]
	f[0] = proto
	word := uint16(c.begin)
	if c.more {
		word |= 1
	}
	binary.BigEndian.PutUint16(f[2:], word)
	binary.BigEndian.PutUint32(f[4:], uint32(id))
	ip := append(h, data[c.begin:c.end]...)
	binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-40))
	return ip
}

func random(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 3))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// pieces cuts n bytes into fragments of at most size.
func pieces(n, size int) (list []cut) {
	for at := 0; at < n; at += size {
		list = append(list, cut{at, min(at+size, n), at+size < n})
	}
	return list
}

var families = map[string]func(src, id int, proto, tos byte, data []byte, c cut) []byte{"v4": datagram4, "v6": datagram6}

// wantWhole is what a datagram of the given data is as a whole.
func wantWhole(version string, src int, proto, tos byte, data []byte) []byte {
	if version == "v4" {
		ip := datagram4(src, 0, proto, tos, data, cut{0, len(data), false})
		return ip
	}
	ip := datagram6(src, 0, proto, tos, data, cut{0, len(data), false})
	ip = append(ip[:48:48], ip[56:]...)
	ip[40] = proto
	binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-40))
	return ip
}

// equal compares datagrams, but for the identification of IPv4, which stays.
func equal(got, want []byte) bool {
	got, want = bytes.Clone(got), bytes.Clone(want)
	for _, h := range [][]byte{got, want} {
		if len(h) > 20 && h[0]>>4 == 4 {
			h[4], h[5], h[10], h[11] = 0, 0, 0, 0
		}
	}
	return bytes.Equal(got, want)
}

// TestEveryOrderIsPutTogether sends the fragments of datagrams in every order.
func TestEveryOrderIsPutTogether(t *testing.T) {
	for version, make := range families {
		for _, n := range []int{9, 1480, 1481, 3600} {
			data := random(n, uint64(n))
			list := pieces(n, max((n/3+7)&^7, 8))
			permute(len(list), func(order []int) {
				x := newBench(t, 64)
				for k, i := range order {
					kind := Ours
					if i == 0 {
						kind = Known
					}
					fate, reason, whole := x.add(make(7, 99, packet.ProtoESP, 0, data, list[i]), kind)
					if k < len(order)-1 {
						if fate != Held {
							t.Fatalf("%s, %d bytes, order %v: fragment %d: fate %d, %v", version, n, order, i, fate, reason)
						}
						continue
					}
					if fate != Whole || !equal(whole, wantWhole(version, 7, packet.ProtoESP, 0, data)) {
						t.Fatalf("%s, %d bytes, order %v: fate %d, %v\n%x", version, n, order, fate, reason, whole)
					}
				}
				if x.fates[Merged] != len(list)-1 || x.r.Waiting() {
					t.Errorf("%d fragments merged of %d", x.fates[Merged], len(list))
				}
				x.settled()
			})
		}
	}
}

func permute(n int, f func([]int)) {
	order := make([]int, n)
	var place func(k int, used int)
	place = func(k, used int) {
		if k == n {
			f(order)
			return
		}
		for i := range n {
			if used>>i&1 == 0 {
				order[k] = i
				place(k+1, used|1<<i)
			}
		}
	}
	place(0, 0)
}

// TestOverlapsEndTheDatagram tries fragments that overlap by a little or much, before and behind (RFC 5722, 3).
func TestOverlapsEndTheDatagram(t *testing.T) {
	data := random(2048, 1)
	for version, make := range families {
		for _, c := range []struct {
			name string
			cuts []cut
			why  packet.Drop
		}{
			{"reaches into the next", []cut{{512, 1024, true}, {0, 520, true}}, packet.DropFragmentOverlap},
			{"begins within", []cut{{0, 512, true}, {504, 1024, true}}, packet.DropFragmentOverlap},
			{"inside", []cut{{0, 1024, true}, {256, 512, true}}, packet.DropFragmentOverlap},
			{"around", []cut{{256, 512, true}, {0, 1024, true}}, packet.DropFragmentOverlap},
			{"same begin", []cut{{256, 512, true}, {256, 1024, true}}, packet.DropFragmentOverlap},
			{"same place, the last one", []cut{{256, 512, true}, {256, 512, false}}, packet.DropFragmentOverlap},
			{"behind the end", []cut{{256, 512, false}, {512, 1024, true}}, packet.DropBadFragment},
			{"two ends", []cut{{256, 512, false}, {512, 1000, false}}, packet.DropBadFragment},
			{"an end before what is there", []cut{{512, 1024, true}, {8, 128, false}}, packet.DropBadFragment},
		} {
			x := newBench(t, 64)
			for i, k := range c.cuts {
				fate, reason, _ := x.add(make(1, 5, packet.ProtoESP, 0, data, k), Ours)
				if i == 0 && fate != Held || i == 1 && (fate != Dropped || reason != c.why) {
					t.Errorf("%s, %s: fragment %d: fate %d, %v", version, c.name, i, fate, reason)
				}
			}
			if x.why[c.why] != 1 {
				t.Errorf("%s, %s: what was there ended as %v", version, c.name, x.why)
			}
			// What comes later of it ends the same way, and the next datagram is none the worse.
			for _, k := range pieces(2048, 512) {
				if fate, reason, _ := x.add(make(1, 5, packet.ProtoESP, 0, data, k), Known); fate != Dropped || reason != c.why {
					t.Errorf("%s, %s: later: fate %d, %v", version, c.name, fate, reason)
				}
			}
			for i, k := range pieces(2048, 512) {
				if fate, _, _ := x.add(make(1, 6, packet.ProtoESP, 0, data, k), Known); (fate == Whole) != (i == 3) {
					t.Errorf("%s, %s: the next datagram: fragment %d: fate %d", version, c.name, i, fate)
				}
			}
			x.settled()
		}
	}
}

// TestCopiesAreDroppedAlone sends every fragment twice, and one with other bytes.
func TestCopiesAreDroppedAlone(t *testing.T) {
	for version, make := range families {
		data := random(2048, 1)
		x := newBench(t, 64)
		for i, k := range pieces(2048, 512) {
			f := make(1, 5, packet.ProtoESP, 0, data, k)
			fate, _, _ := x.add(f, Known)
			if i == 3 {
				if fate != Whole {
					t.Errorf("%s: not whole", version)
				}
				break
			}
			if _, reason, _ := x.add(f, Known); reason != packet.DropDuplicateFragment {
				t.Errorf("%s: a copy of fragment %d: %v", version, i, reason)
			}
		}
		k := cut{512, 1024, true}
		x.add(make(1, 6, packet.ProtoESP, 0, data, k), Ours)
		if _, reason, _ := x.add(make(1, 6, packet.ProtoESP, 0, random(2048, 2), k), Ours); reason != packet.DropFragmentOverlap {
			t.Errorf("%s: the same place with other bytes: %v", version, reason)
		}
		x.settled()
	}
}

// TestWhoseItIsComesWithTheFirst sends later fragments of UDP before the first one, which says that they are the kernel's.
func TestWhoseItIsComesWithTheFirst(t *testing.T) {
	data := random(3000, 1)
	list := pieces(3000, 1000)
	for version, make := range families {
		x := newBench(t, 64)
		for _, i := range []int{2, 1} {
			if fate, _, _ := x.add(make(1, 5, packet.ProtoUDP, 0, data, list[i]), Unknown); fate != Held {
				t.Errorf("%s: fate %d", version, fate)
			}
		}
		if fate, _, _ := x.add(make(1, 5, packet.ProtoUDP, 0, data, list[0]), Foreign); fate != Passed || x.fates[Passed] != 2 {
			t.Errorf("%s: fate %d, and of those before %v", version, fate, x.fates)
		}
		for range 3 { // copies are the kernel's too
			if fate, _, _ := x.add(make(1, 5, packet.ProtoUDP, 0, data, list[2]), Unknown); fate != Passed {
				t.Errorf("%s: later: fate %d", version, fate)
			}
		}
		x.settled()
	}
}

// TestTimeEndsWhatIsNotWhole lets datagrams wait.
func TestTimeEndsWhatIsNotWhole(t *testing.T) {
	x := newBench(t, 64)
	data := random(2048, 1)
	for id := range 3 {
		x.now = int64(id) * Timeout / 4
		x.add(datagram4(1, id, packet.ProtoESP, 0, data, cut{0, 512, true}), Known)
		x.add(datagram4(1, id, packet.ProtoESP, 0, data, cut{512, 1024, true}), Ours)
	}
	for i, at := range []int64{Timeout, Timeout + Timeout/4, Timeout + Timeout/2} {
		if x.r.Expire(at - 1) {
			t.Fatalf("datagram %d ended too early", i)
		}
		if !x.r.Expire(at) {
			t.Fatalf("datagram %d did not end", i)
		}
		x.others()
	}
	if x.why[packet.DropFragmentTimeout] != 6 || x.r.Waiting() {
		t.Errorf("ended: %v", x.why)
	}
	// A datagram that is over is no part of a later one with its number.
	x.now = 10 * Timeout
	x.add(datagram4(1, 1, packet.ProtoESP, 0, data, cut{0, 512, true}), Known)
	x.now += Timeout
	if fate, _, _ := x.add(datagram4(1, 1, packet.ProtoESP, 0, data, cut{512, 1024, false}), Ours); fate != Held || x.r.Held() != 1 {
		t.Errorf("fate %d, %d held", fate, x.r.Held())
	}
	x.settled()
}

// TestFloodsLeaveOthersTheirShare has one source send datagrams that never end, while others, one after the other, get theirs.
func TestFloodsLeaveOthersTheirShare(t *testing.T) {
	for version, make := range families {
		data := random(1400, 1)
		x := newBench(t, 200)
		class := func(src int) uint8 {
			ip := make(src, 0, packet.ProtoESP, 0, data, cut{0, 1000, true})
			var f packet.Flow
			if ip[0]>>4 == 4 {
				f = packet.Flow{Src: packet.Addr{Lo: uint64(binary.BigEndian.Uint32(ip[12:]))}, Version: 4}
			} else {
				f = packet.Flow{Src: packet.Addr{Hi: binary.BigEndian.Uint64(ip[8:])}, Version: 6}
			}
			return x.r.class(&key{src: f.Src, version: f.Version})
		}
		flooder := 1
		honest := 2
		for class(honest) == class(flooder) {
			honest++
		}
		id := 0
		flood := func(n int, kind Kind) {
			for range n {
				id++
				x.add(make(flooder, id, packet.ProtoESP, 0, data, cut{504, 1000, true}), kind)
			}
		}
		flood(1000, Ours)
		for k := range 50 {
			if fate, reason, _ := x.add(make(honest, k, packet.ProtoESP, 0, data, cut{0, 1000, true}), Ours); fate != Held {
				t.Fatalf("%s: %v", version, reason)
			}
			flood(300, Ours)
			if fate, reason, _ := x.add(make(honest, k, packet.ProtoESP, 0, data, cut{1000, 1400, false}), Ours); fate != Whole {
				t.Fatalf("%s: an honest source lost its datagram: fate %d, %v", version, fate, reason)
			}
		}
		// Even from the flooder's own address what names an association stays.
		if fate, _, _ := x.add(make(flooder, 1<<15, packet.ProtoESP, 0, data, cut{0, 504, true}), Known); fate != Held {
			t.Fatalf("%s: fate %d", version, fate)
		}
		flood(3000, Ours)
		if fate, reason, _ := x.add(make(flooder, 1<<15, packet.ProtoESP, 0, data, cut{504, 1400, false}), Ours); fate != Whole {
			t.Errorf("%s: a datagram that names an association was lost: fate %d, %v", version, fate, reason)
		}
		if x.r.Held() > 200 {
			t.Errorf("%s: %d fragments held", version, x.r.Held())
		}
		x.settled()
	}
}

// TestCongestionOfOneFragmentIsThatOfAll holds RFC 3168, 5.3.
func TestCongestionOfOneFragmentIsThatOfAll(t *testing.T) {
	data := random(1024, 1)
	for version, make := range families {
		for first := range byte(4) {
			for second := range byte(4) {
				x := newBench(t, 64)
				x.add(make(1, 5, packet.ProtoESP, 0xb8|first, data, cut{0, 512, true}), Known)
				fate, reason, whole := x.add(make(1, 5, packet.ProtoESP, second, data, cut{512, 1024, false}), Ours)
				want := first
				if first == packet.ECNCE || second == packet.ECNCE {
					want = packet.ECNCE
				}
				if (first == packet.ECNCE || second == packet.ECNCE) && (first == 0 || second == 0) {
					if fate != Dropped || reason != packet.DropBadFragment {
						t.Errorf("%s, %d and %d: fate %d, %v", version, first, second, fate, reason)
					}
				} else if fate != Whole || !equal(whole, wantWhole(version, 1, packet.ProtoESP, 0xb8|want, data)) {
					t.Errorf("%s, %d and %d: fate %d, %v: %x", version, first, second, fate, reason, whole[:20])
				}
				x.settled()
			}
		}
	}
}

// TestLargeAndManyAreRefused sends datagrams that no frame holds, and more fragments than one may have.
func TestLargeAndManyAreRefused(t *testing.T) {
	data := random(8000, 1)
	x := newBench(t, 64)
	var last packet.Drop
	for _, k := range pieces(3800, 1480) {
		_, last, _ = x.add(datagram4(1, 5, packet.ProtoESP, 0, data, k), Ours)
	}
	if last != packet.DropFragmentTooLarge {
		t.Errorf("3800 bytes: %v", last)
	}
	for k := range PiecesMax + 1 {
		_, last, _ = x.add(datagram4(1, 6, packet.ProtoESP, 0, data, cut{8 * k, 8*k + 8, true}), Ours)
	}
	if last != packet.DropFragmentLimit {
		t.Errorf("%d fragments: %v", PiecesMax+1, last)
	}
	// A foreign datagram may be of any size.
	for i, k := range pieces(8000, 1480) {
		kind := Unknown
		if i == 0 {
			kind = Foreign
		}
		if fate, _, _ := x.add(datagram4(1, 7, packet.ProtoUDP, 0, data, k), kind); fate != Passed {
			t.Errorf("fragment %d of a foreign datagram: fate %d", i, fate)
		}
	}
	x.settled()
}

// naive is the reassembler as one would write it without a thought for memory or time: what is known of one datagram.
type naive struct {
	data    map[int]byte
	cuts    []cut
	total   int
	dead    bool
	foreign bool
	first   bool
}

var fuzzData = sync.OnceValue(func() [2][]byte { return [2][]byte{random(256*8+255*8+8, 1), random(256*8+255*8+8, 2)} })

// FuzzReassembler sends fragments of few datagrams as the input says, and holds the result against naive.
func FuzzReassembler(f *testing.F) {
	f.Add([]byte{0, 0, 8, 1, 0, 8, 4, 0})
	f.Add([]byte{1, 8, 4, 0, 1, 0, 8, 1, 2, 0, 8, 3})
	f.Add([]byte{0, 0, 8, 1, 0, 4, 8, 1, 0, 12, 1, 0})
	f.Add([]byte{4, 0, 9, 1, 4, 9, 9, 1, 4, 18, 9, 0, 4, 0, 9, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 4*60 {
			return // so few that nothing has to give way
		}
		x := newBench(t, 256)
		data := fuzzData()
		known := map[int]*naive{}
		for ; len(in) >= 4; in = in[4:] {
			which := int(in[0]) % 8
			begin, length, flags := int(in[1])*8, int(in[2])*8, in[3]
			more, kind := flags&1 != 0, Ours
			if !more {
				length += int(flags>>5) - 7
			}
			if length <= 0 {
				continue
			}
			source := data[flags>>1&1]
			make, proto := datagram4, byte(packet.ProtoESP)
			if which&1 != 0 {
				make = datagram6
			}
			if which&2 != 0 {
				if proto, kind = packet.ProtoUDP, Unknown; begin == 0 {
					if kind = Known; flags&4 != 0 {
						kind = Foreign
					}
				}
			}
			if begin == 0 && !more {
				continue // no fragment
			}
			c := cut{begin, begin + length, more}
			if header := 20 + 28*(which&1); header+length > packet.LenMax-packet.EtherLen-8 {
				continue
			}
			n := known[which]
			if n == nil {
				n = &naive{data: map[int]byte{}}
				known[which] = n
			}
			fate, reason, whole := x.add(make(which, 5, proto, 0, source, c), kind)
			want := n.add(c, source, kind, 20+28*(which&1))
			if fate != want {
				t.Fatalf("datagram %d, %+v: fate %d (%v), want %d", which, c, fate, reason, want)
			}
			if fate == Whole {
				all := []byte{}
				for i := range n.total {
					all = append(all, n.data[i])
				}
				version := "v4"
				if which&1 != 0 {
					version = "v6"
				}
				if !equal(whole, wantWhole(version, which, proto, 0, all)) {
					t.Fatalf("datagram %d: %x", which, whole)
				}
				delete(known, which)
			}
			x.settled()
		}
		held := 0
		for _, n := range known {
			held += len(n.cuts)
		}
		if x.r.Held() != held {
			t.Fatalf("%d held, want %d", x.r.Held(), held)
		}
		for x.r.Drain() {
			x.others()
		}
		x.settled()
	})
}

func (n *naive) add(c cut, source []byte, kind Kind, header int) Fate {
	if n.dead {
		return Dropped
	}
	if !n.first && kind == Foreign {
		n.first, n.foreign = true, true
		n.cuts = nil
	}
	if n.foreign {
		return Passed
	}
	n.first = n.first || kind != Unknown
	refuse := func() Fate { n.dead, n.cuts = true, nil; return Dropped }
	same := func(o cut) bool {
		for i := o.begin; i < o.end; i++ {
			if n.data[i] != source[i] {
				return false
			}
		}
		return true
	}
	if n.total != 0 && (c.end > n.total || !c.more && c.end != n.total) {
		return refuse()
	}
	if n.first && header+c.end > packet.LenMax-packet.EtherLen {
		return refuse()
	}
	for _, o := range n.cuts {
		if !c.more && o.end > c.end {
			return refuse()
		}
	}
	for _, o := range n.cuts {
		if o == c && same(o) {
			return Dropped
		}
		if o.begin < c.end && c.begin < o.end {
			return refuse()
		}
	}
	if len(n.cuts) == PiecesMax {
		return refuse()
	}
	n.cuts = append(n.cuts, c)
	sum := 0
	for i := c.begin; i < c.end; i++ {
		n.data[i] = source[i]
	}
	if !c.more {
		n.total = c.end
	}
	for _, o := range n.cuts {
		sum += o.end - o.begin
	}
	switch {
	case n.total == 0 || sum < n.total || !n.first:
		return Held
	case header+n.total > packet.LenMax-packet.EtherLen:
		return Dropped
	}
	return Whole
}

// TestNothingIsAllocated holds that fragments cost no garbage, whatever becomes of them.
func TestNothingIsAllocated(t *testing.T) {
	x := newBench(t, 64)
	data := random(3000, 1)
	var frames [][]byte
	for id := range 40 {
		for _, k := range pieces(3000, 1000) {
			frames = append(frames, datagram4(id, 5, packet.ProtoESP, 0, data, k), datagram4(id, 6, packet.ProtoESP, 0, data, cut{8, 64, true}))
		}
	}
	if n := testing.AllocsPerRun(10, func() {
		for i, f := range frames {
			frame := x.free[len(x.free)-1]
			x.free = x.free[:len(x.free)-1]
			p := &x.b.P[0]
			*p = packet.Packet{Addr: frame + packet.Headroom, Len: uint16(14 + len(f))}
			copy(x.b.Frame(0)[14:], f)
			x.b.Frame(0)[12], x.b.Frame(0)[13] = 8, 0
			packet.Parse(&x.b, 0)
			fate, _ := x.r.Add(p, &x.b.Flows[0], Ours, int64(i))
			for _, o := range x.r.Others {
				x.free = append(x.free, packet.Chunk(o.Packet.Addr))
			}
			if fate != Held {
				x.free = append(x.free, packet.Chunk(p.Addr))
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func ExampleSpread() {
	f := packet.Flow{Src: packet.Addr{Lo: 1}, Dst: packet.Addr{Lo: 2}, Version: 4}
	first := Spread(&f, 7)
	f.SrcPort, f.DstPort, f.Flags = 4500, 4500, packet.FlagPorts
	fmt.Println(Spread(&f, 7) == first)
	// Output: true
}
