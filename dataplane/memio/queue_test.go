package memio

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/dataplane/packet"
)

func newQueue(t testing.TB, frames, size int) (*Queue, []uint64) {
	q, err := NewQueue(make([]byte, frames*packet.FrameSize), size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	free := make([]uint64, frames)
	for i := range free {
		free[i] = uint64(i) * packet.FrameSize
	}
	return q, free
}

func TestBadSizesAreRefused(t *testing.T) {
	for _, size := range []int{-1, 0, 3, 1<<20 + 1, 1 << 21} {
		if _, err := NewQueue(nil, size); err == nil {
			t.Errorf("size %d accepted", size)
		}
	}
}

func TestInjectCountsWhatDoesNotFit(t *testing.T) {
	q, free := newQueue(t, 8, 4)
	if q.Inject([]byte{1}) {
		t.Error("injected without a frame to fill")
	}
	if n := q.Fill(free); n != 4 || q.FillRoom() != 0 {
		t.Errorf("fill took %d, room %d", n, q.FillRoom())
	}
	for _, l := range []int{0, packet.LenMax + 1} {
		if q.Inject(make([]byte, l)) {
			t.Errorf("injected %d bytes", l)
		}
	}
	for range 4 {
		if !q.Inject(make([]byte, packet.LenMax)) {
			t.Error("largest frame refused")
		}
	}
	q.Fill(free[4:])
	if q.Inject([]byte{1}) {
		t.Error("injected into a full ring")
	}
	if s, _ := q.Stats(); s.FillEmpty != 1 || s.RxDropped != 2 || s.RxRingFull != 1 {
		t.Errorf("counters %+v", s)
	}
}

// FuzzQueueAgainstModel runs random operations of both ends beside plain slices.
func FuzzQueueAgainstModel(f *testing.F) {
	f.Add([]byte{0, 9, 1, 3, 2, 9, 3, 5, 4, 1, 5, 9, 6, 9})
	seed := make([]byte, 600)
	for i := range seed {
		seed[i] = byte(i * i * 7)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, ops []byte) {
		const frames, size = 24, 8
		q, free := newQueue(t, frames, size)
		var fill, done []uint64
		var rx, placed, tx []packet.Desc
		var mine []packet.Desc // received, the worker's
		serial := uint32(0)
		for len(ops) >= 2 {
			op, n := ops[0]%7, int(ops[1]%12)
			ops = ops[2:]
			switch op {
			case 0: // Fill
				want := min(n, len(free), size-len(fill))
				if got := q.Fill(free[:min(n, len(free))]); got != want {
					t.Fatalf("Fill %d, want %d", got, want)
				}
				fill = append(fill, free[:want]...)
				free = slices.Clone(free[want:])
			case 1: // InjectBatch
				batch := make([][]byte, n)
				for i := range batch {
					batch[i] = binary.BigEndian.AppendUint32(nil, serial+uint32(i))
				}
				want := min(n, len(fill), size-len(rx))
				if got := q.InjectBatch(batch); got != want {
					t.Fatalf("InjectBatch %d, want %d", got, want)
				}
				for i := range want {
					rx = append(rx, packet.Desc{Addr: fill[i] + packet.Headroom, Len: 4, Options: serial})
					serial++
				}
				fill = slices.Clone(fill[want:])
			case 2: // Receive
				d := make([]packet.Desc, n)
				got, want := q.Receive(d), min(n, len(rx))
				if got != want {
					t.Fatalf("Receive %d, want %d", got, want)
				}
				for i, x := range d[:got] {
					if x.Addr != rx[i].Addr || binary.BigEndian.Uint32(q.mem[x.Addr:]) != rx[i].Options {
						t.Fatalf("received %v, want %v", x, rx[i])
					}
				}
				mine = append(mine, d[:got]...)
				rx = slices.Clone(rx[want:])
			case 3: // Transmit
				want := min(n, len(mine), size-len(tx)-len(placed))
				if got := q.Transmit(mine[:min(n, len(mine))]); got != want {
					t.Fatalf("Transmit %d, want %d", got, want)
				}
				placed = append(placed, mine[:want]...)
				mine = slices.Clone(mine[want:])
			case 4: // Flush
				q.Flush()
				tx, placed = append(tx, placed...), nil
			case 5: // Drain or Discard
				want := min(len(tx), size-len(done))
				i, got := 0, 0
				if n%2 == 0 {
					got = q.Drain(func(b []byte) {
						if !bytes.Equal(b, q.mem[tx[i].Addr:][:4]) {
							t.Fatal("drained other bytes")
						}
						i++
					})
				} else {
					want = min(want, n)
					got, _ = q.Discard(n)
				}
				if got != want {
					t.Fatalf("drained %d, want %d", got, want)
				}
				for _, d := range tx[:want] {
					done = append(done, d.Addr)
				}
				tx = slices.Clone(tx[want:])
			case 6: // Complete
				a := make([]uint64, n)
				got, want := q.Complete(a), min(n, len(done))
				if got != want || !slices.Equal(a[:got], done[:want]) {
					t.Fatalf("Complete %v, want %v", a[:got], done[:want])
				}
				for _, x := range a[:got] {
					free = append(free, packet.Chunk(x))
				}
				done = slices.Clone(done[want:])
			}
			if q.TransmitRoom() != size-len(tx)-len(placed) || q.FillRoom() != size-len(fill) {
				t.Fatal("rooms differ")
			}
		}
		q.Close()
		if len(q.reclaimed) != len(fill)+len(rx)+len(placed)+len(tx)+len(done) {
			t.Fatalf("reclaimed %d frames", len(q.reclaimed))
		}
		all := append(q.Reclaim(), free...)
		for _, d := range mine {
			all = append(all, packet.Chunk(d.Addr))
		}
		slices.Sort(all)
		if len(slices.Compact(all)) != frames || q.Reclaim() != nil {
			t.Fatal("frames lost or twice")
		}
	})
}

// TestSleepersWakeAcrossGoroutines echoes packets between three goroutines that
// sleep whenever they can; a lost wake-up hangs it.
func TestSleepersWakeAcrossGoroutines(t *testing.T) {
	q, free := newQueue(t, 16, 8)
	const total = 20000
	var wg sync.WaitGroup
	wg.Add(2)
	go func() { // source
		defer wg.Done()
		for i := uint32(0); i < total; {
			if q.Inject(binary.BigEndian.AppendUint32(nil, i)) {
				i++
			} else {
				time.Sleep(time.Microsecond)
			}
		}
	}()
	go func() { // sink
		defer wg.Done()
		next := uint32(0)
		for next < total {
			if q.Drain(func(b []byte) {
				if binary.BigEndian.Uint32(b) != next {
					t.Errorf("got %x, want %d", b, next)
				}
				next++
			}) == 0 {
				q.Wait(-1)
			}
		}
	}()
	d, a := make([]packet.Desc, 5), make([]uint64, 5)
	free = free[q.Fill(free):]
	for sent := 0; sent < total; {
		for n := q.Complete(a); n > 0; n = q.Complete(a) {
			free = append(free, a[:n]...)
		}
		free = free[q.Fill(free):]
		n := q.Receive(d[:min(len(d), q.TransmitRoom())])
		sent += q.Transmit(d[:n])
		q.Flush()
		if n == 0 && q.FillRoom() == 0 {
			if q.Doze() {
				unix.Poll([]unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}}, -1)
			}
			q.Wake()
		}
	}
	wg.Wait()
}

func TestInterruptEndsWait(t *testing.T) {
	q, _ := newQueue(t, 1, 1)
	q.Interrupt()
	done := make(chan struct{})
	go func() { q.Wait(-1); close(done) }()
	for {
		select {
		case <-done:
			q.Close()
			if q.Inject([]byte{1}) || q.Drain(func([]byte) {}) != 0 {
				t.Error("a closed queue works")
			}
			return
		case <-time.After(10 * time.Millisecond):
			q.Interrupt() // Wait had not begun
		}
	}
}

// loop carries n packets from source to sink.
func loop(q *Queue, frames [][]byte, d []packet.Desc, a []uint64) {
	q.InjectBatch(frames)
	n := q.Receive(d)
	q.Transmit(d[:n])
	q.Flush()
	q.Discard(len(d))
	q.Fill(a[:q.Complete(a)])
}

func TestNothingAllocates(t *testing.T) {
	q, free := newQueue(t, 64, 64)
	q.Fill(free)
	frames := slices.Repeat([][]byte{make([]byte, 64)}, 64)
	d, a := make([]packet.Desc, 64), make([]uint64, 64)
	if n := testing.AllocsPerRun(100, func() { loop(q, frames, d, a) }); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}

func BenchmarkSourceToSink(b *testing.B) {
	for name, size := range map[string]int{"64": 64, "1420": 1420} {
		b.Run(name, func(b *testing.B) {
			q, free := newQueue(b, 64, 64)
			q.Fill(free)
			frames := slices.Repeat([][]byte{make([]byte, size)}, 64)
			d, a := make([]packet.Desc, 64), make([]uint64, 64)
			b.ReportAllocs()
			for i := 0; i < b.N; i += 64 {
				loop(q, frames, d, a)
			}
		})
	}
}
