package esp

import (
	"bytes"
	"fmt"
	"testing"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/replay"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/transform"
)

// load is a full batch that can be carried through a direction again and again.
type load struct {
	g        *rig
	tu       tunnel
	frames   []byte // as they lie before the call
	packets  [packet.BatchMax]packet.Packet
	out      []*sad.Outbound
	in       []*sad.Inbound
	live     []uint8
	window   replay.Window // as it was before the call
	expected int
}

func newLoad(t testing.TB, suite transform.Suite, length int) *load {
	g := newRig(t)
	l := &load{g: g, tu: g.tunnel(suite, 4, false, true), live: make([]uint8, packet.BatchMax), expected: packet.BatchMax}
	for i := range packet.BatchMax {
		l.out, l.in = append(l.out, l.tu.out), append(l.in, l.tu.in)
		g.put(i, g.datagram(4, length))
		g.parse(i)
	}
	return l
}

// keep remembers batch and window as the state that every run starts from.
func (l *load) keep() {
	l.frames, l.packets, l.window = bytes.Clone(l.g.batch.Mem), l.g.batch.P, l.tu.in.Window
}

// restore brings the packets back: only the bytes that a call changes.
func (l *load) restore() {
	l.g.batch.P = l.packets
	for i := range l.live {
		p := &l.packets[i]
		l.live[i] = uint8(i)
		copy(l.g.batch.Mem[p.Addr:p.Addr+uint64(p.Len)], l.frames[p.Addr:])
	}
}

func (l *load) encapsulate() int {
	l.restore()
	return len(l.g.scratch.Encapsulate(l.g.batch, l.live, l.out))
}

func (l *load) decapsulate() int {
	l.restore()
	l.tu.in.Window = l.window
	clear(l.g.table.Bits(l.tu.in))
	return len(l.g.scratch.Decapsulate(l.g.batch, l.live, l.in))
}

// sealed turns a load that was kept into one of ESP packets.
func (l *load) sealed(t testing.TB) {
	l.encapsulate()
	for i := range l.live {
		if reason := packet.ParseIP(l.g.batch, i); reason != packet.DropNone {
			t.Fatal(reason)
		}
	}
	l.keep()
}

func TestNoAllocation(t *testing.T) {
	for _, suite := range transform.List() {
		l := newLoad(t, suite, 500)
		l.keep()
		if n := testing.AllocsPerRun(10, func() {
			if l.encapsulate() != l.expected {
				t.Fatal("packets were dropped")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations a batch encapsulated", suite, n)
		}
		l.sealed(t)
		if n := testing.AllocsPerRun(10, func() {
			if l.decapsulate() != l.expected {
				t.Fatalf("packets were dropped: %v", l.g.batch.P[0].Reason)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations a batch decapsulated", suite, n)
		}
		for i := range l.live {
			l.frames[int(l.packets[i].Addr)+int(l.packets[i].Len)-1] ^= 1
		}
		if n := testing.AllocsPerRun(10, func() {
			if l.decapsulate() != 0 {
				t.Fatal("damaged packets were accepted")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations a batch refused", suite, n)
		}
	}
}

// The time includes bringing the packets back before each run: a copy of their bytes.
func BenchmarkESP(b *testing.B) {
	for _, suite := range []transform.Suite{transform.AES128GCM16, transform.AES256GCM16, transform.ChaCha20Poly1305, transform.AES256CBCSHA256} {
		for _, length := range []int{64, 512, 1420} {
			l := newLoad(b, suite, length)
			l.keep()
			run := func(name string, call func() int) {
				b.Run(fmt.Sprintf("%s/%s/%d", name, suite, length), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if call() != l.expected {
							b.Fatalf("packets were dropped: %v", l.g.batch.P[0].Reason)
						}
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*packet.BatchMax), "ns/packet")
				})
			}
			run("encapsulate", l.encapsulate)
			l.sealed(b)
			run("decapsulate", l.decapsulate)
		}
	}
}
