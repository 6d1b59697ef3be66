package esp

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
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
	return loadOf(g, g.params(suite, 4, false, true), length)
}

// loadOf is a load of datagrams of so many bytes, for an association in tunnel or transport mode.
func loadOf(g *rig, p sad.Params, length int) *load {
	l := &load{g: g, tu: g.install(p), live: make([]uint8, packet.BatchMax), expected: packet.BatchMax}
	for i := range packet.BatchMax {
		l.out, l.in = append(l.out, l.tu.out), append(l.in, l.tu.in)
		d := g.datagram(4, length)
		if p.Transport {
			d = g.own4(length - 28)
		}
		g.put(i, d)
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

// measure times both directions. The time includes bringing the packets back before each run: a copy of their bytes.
func (l *load) measure(b *testing.B, what string) {
	run := func(name string, call func() int) {
		b.Run(name+"/"+what, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if call() != l.expected {
					b.Fatalf("packets were dropped: %v", l.g.batch.P[0].Reason)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*packet.BatchMax), "ns/packet")
		})
	}
	l.keep()
	run("encapsulate", l.encapsulate)
	l.sealed(b)
	run("decapsulate", l.decapsulate)
}

func BenchmarkESP(b *testing.B) {
	for _, suite := range []transform.Suite{transform.AES128GCM16, transform.AES256GCM16, transform.ChaCha20Poly1305, transform.AES256CBCSHA256} {
		for _, length := range []int{64, 512, 1420} {
			newLoad(b, suite, length).measure(b, fmt.Sprintf("%s/%d", suite, length))
		}
	}
}

// BenchmarkModes sets transport mode and AH beside the tunnel of ESP with the same algorithm.
func BenchmarkModes(b *testing.B) {
	for _, suite := range []transform.Suite{transform.AES128GCM16, transform.NullSHA256, transform.AES128GMAC} {
		for _, length := range []int{64, 1400} {
			g := newRig(b)
			forms := map[string]sad.Params{"esp-tunnel": g.params(suite, 4, false, true), "esp-transport": g.transport(suite, 4, false, true)}
			if suite.Info().Whole() {
				forms["ah-tunnel"], forms["ah-transport"] = g.signed(suite, 4, false, true), g.signed(suite, 4, true, true)
			}
			for _, form := range slices.Sorted(maps.Keys(forms)) {
				loadOf(newRig(b), forms[form], length).measure(b, fmt.Sprintf("%s/%s/%d", suite, form, length))
			}
		}
	}
}
