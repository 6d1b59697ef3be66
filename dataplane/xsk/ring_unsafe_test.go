package xsk

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"sallyport/dataplane/packet"
)

// heapIndices are the words of a ring that no kernel knows. They start just
// below the wrap of 32 bits.
func heapIndices(size uint32) (indices, uint32) {
	words := make([]uint32, 3)
	start := ^uint32(0) - size/2
	words[0], words[1] = start, start
	return indices{producer: &words[0], consumer: &words[1], flags: &words[2], mask: size - 1, size: size}, start
}

func TestLayoutsMatchTheKernel(t *testing.T) {
	if unsafe.Sizeof(packet.Desc{}) != 16 || unsafe.Offsetof(packet.Desc{}.Len) != 8 || unsafe.Offsetof(packet.Desc{}.Options) != 12 {
		t.Error("packet.Desc is not struct xdp_desc")
	}
	if 1<<frameShift != packet.FrameSize {
		t.Error("frameShift is not log2(FrameSize)")
	}
}

// TestRingsAgainstModel plays the kernel beside plain slices, in one thread,
// across the wrap of the indices, with batches beyond the ring's size.
func TestRingsAgainstModel(t *testing.T) {
	for _, size := range []uint32{1, 2, 8, 64} {
		rng := rand.New(rand.NewPCG(1, uint64(size)))
		fi, start := heapIndices(size)
		f := fillRing{indices: fi, entries: make([]uint64, size), next: start, seen: start}
		ti, _ := heapIndices(size)
		x := transmitRing{indices: ti, entries: make([]packet.Desc, size), next: start, published: start, seen: start}
		// The consumer ends read the rings that the producer ends write.
		c := completionRing{indices: fi, entries: f.entries, next: start, seen: start}
		r := receiveRing{indices: ti, entries: x.entries, next: start, seen: start}
		var addrs []uint64
		var descs, hidden []packet.Desc
		serial := uint64(0)
		for range 5000 {
			n := rng.IntN(int(size) + 3)
			switch rng.IntN(5) {
			case 0:
				if room := f.room(size); int(room) != int(size)-len(addrs) {
					t.Fatalf("fill room %d with %d in use of %d", room, len(addrs), size)
				}
				for range min(n, int(f.room(uint32(n)))) {
					serial++
					f.put(serial)
					addrs = append(addrs, serial)
				}
				f.publish()
			case 1:
				got := make([]uint64, n)
				k := c.pop(got)
				if k != min(n, len(addrs)) || !slices.Equal(got[:k], addrs[:k]) {
					t.Fatalf("popped %v of %v", got[:k], addrs)
				}
				addrs = slices.Clone(addrs[k:])
			case 2:
				for range min(n, int(x.room(uint32(n)))) {
					serial++
					d := packet.Desc{Addr: serial, Len: uint32(n)}
					x.put(d)
					hidden = append(hidden, d)
				}
				if int(x.room(size)) != int(size)-len(descs)-len(hidden) {
					t.Fatal("transmit room")
				}
			case 3:
				x.publish()
				descs, hidden = append(descs, hidden...), nil
				if int(x.pending()) != len(descs) {
					t.Fatal("pending")
				}
			case 4:
				got := make([]packet.Desc, n)
				k := r.pop(got)
				if k != min(n, len(descs)) || !slices.Equal(got[:k], descs[:k]) {
					t.Fatalf("popped %v of %v", got[:k], descs)
				}
				descs = slices.Clone(descs[k:])
				if r.empty() != (len(descs) == 0) {
					t.Fatal("empty")
				}
			}
		}
	}
}

// TestRingsAcrossThreads has the other end on another thread; the race
// detector judges the order of entries and indices.
func TestRingsAcrossThreads(t *testing.T) {
	const size, total = 16, 50000
	ix, start := heapIndices(size)
	x := transmitRing{indices: ix, entries: make([]packet.Desc, size), next: start, published: start, seen: start}
	r := receiveRing{indices: ix, entries: x.entries, next: start, seen: start}
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := uint64(0); i < total; {
			for n := x.room(7); n > 0 && i < total; n-- {
				x.put(packet.Desc{Addr: i})
				i++
			}
			x.publish()
		}
	})
	var d [5]packet.Desc
	for i := uint64(0); i < total; {
		for _, got := range d[:r.pop(d[:])] {
			if got.Addr != i {
				t.Fatalf("got %d, want %d", got.Addr, i)
			}
			i++
		}
	}
	wg.Wait()
}

func TestLedgerKeepsOneOwnerPerFrame(t *testing.T) {
	const frames = 67
	l := newLedger(frames)
	held := map[uint64]bool{}
	rng := rand.New(rand.NewPCG(2, 3))
	var faults uint64
	for range 20000 {
		f := uint64(rng.IntN(frames + 3))
		addr := f*packet.FrameSize + uint64(rng.IntN(packet.FrameSize))
		want := f < frames && !held[f]
		if rng.IntN(2) == 0 {
			if l.give(addr) != want {
				t.Fatalf("give %d", f)
			}
			if want {
				held[f] = true
			}
		} else {
			want = held[f]
			if l.take(addr) != want {
				t.Fatalf("take %d", f)
			}
			delete(held, f)
		}
		if !want {
			faults++
		}
		if l.held != len(held) || l.faults.Load() != faults {
			t.Fatal("counts differ")
		}
	}
	if l.take(^uint64(0)) || l.give(^uint64(0)) {
		t.Error("an address far outside was taken")
	}
	got := l.reclaim(nil)
	if len(got) != len(held) || l.held != 0 || len(l.reclaim(nil)) != 0 {
		t.Error("reclaim")
	}
	for _, a := range got {
		if !held[a/packet.FrameSize] {
			t.Errorf("reclaimed %#x", a)
		}
	}
}

func TestUMEMIsReadablePastItsEnd(t *testing.T) {
	if _, err := NewUMEM(0); err == nil {
		t.Error("an empty UMEM was made")
	}
	for _, frames := range []int{1, 3, 512, 513} {
		u, err := NewUMEM(frames)
		if err != nil {
			t.Fatal(err)
		}
		m := u.Mem()
		if len(m) != frames*packet.FrameSize || u.Frames() != frames {
			t.Errorf("%d frames: %d bytes", frames, len(m))
		}
		sum := byte(0)
		for _, b := range m[len(m)-1 : cap(m)] {
			sum |= b
		}
		if cap(m)-len(m) < packet.TailSlack || sum != 0 {
			t.Error("no spare behind the frames")
		}
		for range 2 {
			if err := u.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
	}
}

func TestMTUMaxKeepsSlackBehindThePacket(t *testing.T) {
	for _, m := range []Mode{Copy, ZeroCopy} {
		mtu, why := MTUMax(m)
		if mtu < 1500 || packet.Headroom+mtu+18+packet.TailSlack > packet.FrameSize || why == "" {
			t.Errorf("%v: %d, %q", m, mtu, why)
		}
	}
}

// memorySocket is a socket whose kernel is the test.
func memorySocket(size uint32, frames int) *Socket {
	fi, start := heapIndices(size)
	ci, _ := heapIndices(size)
	ri, _ := heapIndices(size)
	ti, _ := heapIndices(size)
	return &Socket{
		rx: receiveRing{indices: ri, entries: make([]packet.Desc, size), next: start, seen: start},
		tx: transmitRing{indices: ti, entries: make([]packet.Desc, size), next: start, published: start, seen: start},
		queue: &queue{
			fill:       fillRing{indices: fi, entries: make([]uint64, size), next: start, seen: start},
			completion: completionRing{indices: ci, entries: make([]uint64, size), next: start, seen: start},
			ledger:     newLedger(frames),
			rxSize:     size,
		},
		domain: &Domain{}, fd: -1,
	}
}

// kernel forwards: everything filled is received, everything transmitted completed.
func (s *Socket) kernel() {
	q := s.queue
	for i := atomic.LoadUint32(q.fill.consumer); i != atomic.LoadUint32(q.fill.producer); i++ {
		at := atomic.LoadUint32(s.rx.producer)
		s.rx.entries[at&s.rx.mask] = packet.Desc{Addr: q.fill.entries[i&q.fill.mask] + packet.Headroom, Len: 64}
		atomic.StoreUint32(s.rx.producer, at+1)
		atomic.StoreUint32(q.fill.consumer, i+1)
	}
	for i := atomic.LoadUint32(s.tx.consumer); i != atomic.LoadUint32(s.tx.producer); i++ {
		at := atomic.LoadUint32(q.completion.producer)
		q.completion.entries[at&q.completion.mask] = s.tx.entries[i&s.tx.mask].Addr
		atomic.StoreUint32(q.completion.producer, at+1)
		atomic.StoreUint32(s.tx.consumer, i+1)
	}
}

func (s *Socket) cycle(d []packet.Desc, a []uint64) {
	s.kernel()
	n := s.Receive(d)
	s.Transmit(d[:n])
	s.tx.publish()
	s.kernel()
	s.Fill(a[:s.Complete(a)])
}

func TestACorruptCompletionGivesNoFrameTwice(t *testing.T) {
	s := memorySocket(8, 4)
	s.Transmit([]packet.Desc{{Addr: 256, Len: 1}, {Addr: 300, Len: 1}}) // the second: same frame
	s.tx.publish()
	if s.tx.pending() != 1 {
		t.Error("a frame was sent twice")
	}
	s.kernel()
	for range 2 { // the kernel completes it again, and a frame outside
		at := *s.queue.completion.producer
		s.queue.completion.entries[at&7] = []uint64{256, 1 << 40}[at&1]
		*s.queue.completion.producer = at + 1
	}
	a := make([]uint64, 8)
	if n := s.Complete(a); n != 1 || a[0] != 256 || s.queue.ledger.faults.Load() != 3 || s.Held() != 0 {
		t.Errorf("%d completions, %d faults", n, s.queue.ledger.faults.Load())
	}
}

func TestNothingAllocates(t *testing.T) {
	s := memorySocket(64, 64)
	d, a := make([]packet.Desc, 64), make([]uint64, 64)
	for i := range a {
		a[i] = uint64(i) * packet.FrameSize
	}
	s.Fill(a)
	if n := testing.AllocsPerRun(100, func() { s.cycle(d, a) }); n != 0 || s.Held() != 64 {
		t.Errorf("%v allocations a batch, %d held", n, s.Held())
	}
}

// BenchmarkRings carries packets through all four rings with the ledger; the
// test plays the kernel, which is part of the figure.
func BenchmarkRings(b *testing.B) {
	s := memorySocket(2048, 4096)
	d, a := make([]packet.Desc, 64), make([]uint64, 64)
	for i := range a {
		a[i] = uint64(i*37) * packet.FrameSize
	}
	s.Fill(a)
	b.ReportAllocs()
	for i := 0; i < b.N; i += 64 {
		s.cycle(d, a)
	}
}

func TestReceivedPacketsStartBehindTheHeadroom(t *testing.T) {
	const frame = 5 * packet.FrameSize
	for name, addr := range map[string]uint64{"buffers anywhere": 256<<48 | frame, "a buffer a chunk": frame + 256} {
		if got := start(addr); got != frame+256 {
			t.Errorf("%s: %#x starts at %#x, want %#x", name, addr, got, frame+256)
		}
	}
}
