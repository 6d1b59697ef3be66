package esp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/transform"
)

// Every suite, inner and outer family, encapsulation and kind of sequence number, every
// inner length from the smallest to 1480 with a stride that meets every remainder.
func TestRoundTrip(t *testing.T) {
	for _, suite := range transform.List() {
		for _, outer := range []int{4, 6} {
			for _, inner := range []int{4, 6} {
				for _, encap := range []bool{false, true} {
					for _, esn := range []bool{false, true} {
						t.Run(fmt.Sprintf("%s/v%d in v%d/encap=%v/esn=%v", suite, inner, outer, encap, esn), func(t *testing.T) {
							roundTrip(t, suite, inner, outer, encap, esn)
						})
					}
				}
			}
		}
	}
}

func roundTrip(t *testing.T, suite transform.Suite, inner, outer int, encap, esn bool) {
	g := newRig(t)
	p := g.params(suite, outer, encap, esn)
	p.UDPChecksum = encap
	tu := g.install(p)
	first := 20
	if inner == 6 {
		first = 40
	}
	packets, octets := uint64(0), uint64(0)
	for length := first; length <= 1480; length += 3 {
		g.wipeFrames(2)
		d := g.datagram(inner, length)
		sealed := g.seal1(d, tu.out)
		packets, octets = packets+1, octets+uint64(length)
		checkOuter(t, g, sealed, p, d)
		checkCanaries(t, g, sealed, len(d))
		if q := &g.batch.P[0]; q.Seq != packets || q.SPI != p.SPI {
			t.Fatalf("record says SPI %#x, sequence number %d", q.SPI, q.Seq)
		}
		g.wipeFrames(2)
		if reason := g.open1(sealed, tu.in); reason != packet.DropNone {
			t.Fatalf("%d bytes: %v", length, reason)
		}
		q := &g.batch.P[0]
		if !bytes.Equal(g.batch.IP(0), d) {
			t.Fatalf("%d bytes: inner packet differs", length)
		}
		if q.L3 != 14 || q.Len != q.End || int(q.End) != 14+length || q.Flags&packet.FlagDecapsulated == 0 || q.Version != uint8(inner) || q.Seq != packets {
			t.Fatalf("%d bytes: record %+v", length, *q)
		}
		checkCanaries(t, g, sealed, len(sealed))
	}
	if tu.out.Packets.Load() != packets || tu.in.Packets.Load() != packets || tu.out.Bytes.Load() != octets || tu.in.Bytes.Load() != octets {
		t.Fatalf("counters: out %d/%d, in %d/%d, want %d/%d", tu.out.Packets.Load(), tu.out.Bytes.Load(), tu.in.Packets.Load(), tu.in.Bytes.Load(), packets, octets)
	}
}

// checkOuter checks every field of the outer headers of an ESP datagram, by its own
// parser's eyes.
func checkOuter(t *testing.T, g *rig, d []byte, p sad.Params, inner []byte) {
	t.Helper()
	q := g.batch.P[0]
	again := q
	if reason := packet.ParseIP(g.batch, 0); reason != packet.DropNone {
		t.Fatalf("the outer packet does not parse: %v", reason)
	}
	if got := g.batch.P[0]; got != again {
		t.Fatalf("the record\n%+v\nis not what parsing the outer packet gives\n%+v", again, got)
	}
	info := p.Suite.Info()
	l4, proto := 20, d[9]
	if p.Local.Is4() {
		df := inner[0]>>4 == 4 && inner[6]&0x40 != 0
		if d[0] != 0x45 || d[8] != 64 || int(binary.BigEndian.Uint16(d[2:])) != len(d) || packet.Checksum(d[:20], 0) != 0 || (d[6]&0x40 != 0) != df {
			t.Fatalf("outer IPv4 header %x", d[:20])
		}
		if !bytes.Equal(d[12:20], append(p.Local.AsSlice(), p.Remote.AsSlice()...)) {
			t.Fatalf("outer addresses %x", d[12:20])
		}
	} else {
		l4, proto = 40, d[6]
		if d[7] != 64 || int(binary.BigEndian.Uint16(d[4:])) != len(d)-40 || !bytes.Equal(d[8:40], append(p.Local.AsSlice(), p.Remote.AsSlice()...)) {
			t.Fatalf("outer IPv6 header %x", d[:40])
		}
	}
	want := l4 + 8 + info.IVLen + (len(inner)+2+info.Align-1)/info.Align*info.Align + info.ICVLen
	if p.Encap {
		want += 8
		u := d[l4:]
		if proto != 17 || binary.BigEndian.Uint16(u) != p.LocalPort || binary.BigEndian.Uint16(u[2:]) != p.RemotePort || int(binary.BigEndian.Uint16(u[4:])) != len(u) {
			t.Fatalf("UDP header %x", u[:8])
		}
		check := binary.BigEndian.Uint16(u[6:])
		if p.Local.Is4() && check != 0 {
			t.Fatalf("UDP checksum %#x over IPv4, want 0 (RFC 3948, 2.1)", check)
		}
		if !p.Local.Is4() && (check == 0 || packet.Checksum(u, packet.PseudoSum(d[8:24], d[24:40], 17, uint32(len(u)))) != 0) {
			t.Fatalf("UDP checksum %#x over IPv6 is wrong", check)
		}
		l4 += 8
	} else if proto != 50 {
		t.Fatalf("protocol %d", proto)
	}
	if len(d) != want {
		t.Fatalf("ESP datagram of %d bytes, want %d", len(d), want)
	}
	if binary.BigEndian.Uint32(d[l4:]) != p.SPI || binary.BigEndian.Uint32(d[l4+4:]) == 0 {
		t.Fatalf("ESP header %x", d[l4:l4+8])
	}
}

// checkCanaries checks that nothing outside the packet, the Ethernet header it was
// received with and the room for headers in front was written, nor any other frame.
func checkCanaries(t *testing.T, g *rig, sealed []byte, received int) {
	t.Helper()
	p := &g.batch.P[0]
	low := min(int(p.Addr), packet.Headroom)
	high := max(packet.Headroom+packet.EtherLen+received, int(p.Addr)+packet.EtherLen+len(sealed))
	if !untouched(g.batch.Mem[:low]) || !untouched(g.batch.Mem[high:2*packet.FrameSize]) {
		t.Fatalf("a byte outside the packet, which has %d to %d, was written", low, high)
	}
}

// 67 packets over many associations, one call a batch of at most 64, with copies inside
// one batch: the second copy ends as Replayed, after it was authenticated.
func TestMixtureWithDuplicatesInOneBatch(t *testing.T) {
	g := newRig(t)
	var tunnels []tunnel
	for k, suite := range transform.List() {
		tunnels = append(tunnels, g.tunnel(suite, 4+2*(k%2), k%3 == 0, k%2 == 0))
	}
	var sealed [][]byte
	var in []*sad.Inbound
	var inner [][]byte
	for len(sealed) < 67 {
		n := min(64, 67-len(sealed))
		ds, sa := make([][]byte, n), make([]*sad.Outbound, n)
		for i := range ds {
			tu := tunnels[g.r.IntN(len(tunnels))]
			ds[i], sa[i] = g.datagram(4+2*g.r.IntN(2), 40+g.r.IntN(1300)), tu.out
			in = append(in, tu.in)
		}
		sealed = append(sealed, g.seal(ds, sa)...)
		inner = append(inner, ds...)
	}
	// Each packet twice, mixed; neighbours often share an association.
	order := append(g.r.Perm(67), g.r.Perm(67)...)
	seen := map[int]bool{}
	for len(order) > 0 {
		n := min(64, len(order))
		ds, sa := make([][]byte, n), make([]*sad.Inbound, n)
		for k, i := range order[:n] {
			ds[k], sa[k] = sealed[i], in[i]
		}
		for k, reason := range g.open(ds, sa) {
			i := order[k]
			want := packet.DropNone
			if seen[i] {
				want = packet.DropReplayed
			}
			seen[i] = true
			if reason != want {
				t.Fatalf("packet %d: %v, want %v", i, reason, want)
			}
			if reason == packet.DropNone && !bytes.Equal(g.batch.IP(k), inner[i]) {
				t.Fatalf("packet %d: inner packet differs", i)
			}
		}
		order = order[n:]
	}
	var accepted, replayed uint64
	for _, tu := range tunnels {
		accepted, replayed = accepted+tu.in.Packets.Load(), replayed+tu.in.Replayed.Load()
	}
	if accepted != 67 || replayed != 67 {
		t.Fatalf("%d accepted, %d replayed", accepted, replayed)
	}
}

func TestDuplicatesSideBySideInOneBatch(t *testing.T) {
	for _, suite := range transform.List() {
		g := newRig(t)
		tu := g.tunnel(suite, 4, false, true)
		d := g.seal1(g.datagram(4, 100), tu.out)
		bad := bytes.Clone(d)
		bad[len(bad)-1] ^= 1
		// The damaged copy first: it must not move the window.
		reasons := g.open([][]byte{bad, d, d, bad}, []*sad.Inbound{tu.in, tu.in, tu.in, tu.in})
		want := []packet.Drop{packet.DropBadICV, packet.DropNone, packet.DropReplayed, packet.DropBadICV}
		for i := range want {
			if reasons[i] != want[i] {
				t.Errorf("%s: copy %d: %v, want %v", suite, i, reasons[i], want[i])
			}
		}
		if tu.in.Replayed.Load() != 1 || tu.in.BadICV.Load() != 2 || tu.in.Packets.Load() != 1 {
			t.Errorf("%s: counters %d, %d, %d", suite, tu.in.Replayed.Load(), tu.in.BadICV.Load(), tu.in.Packets.Load())
		}
	}
}

// The extended sequence number crosses 2^32 (RFC 4303, appendix A2.2).
func TestExtendedSequenceNumberCrosses32Bits(t *testing.T) {
	for _, suite := range transform.List() {
		g := newRig(t)
		p := g.params(suite, 4, false, true)
		p.Sequence = 1<<32 - 40
		tu := g.install(p)
		// The receiver's window comes near the edge by an authenticated packet.
		if reason := g.open1(g.forge(tu, 1<<32-2000, withTrailer(g.datagram(4, 60), 16, 4)), tu.in); reason != packet.DropNone {
			t.Fatalf("%s: %v", suite, reason)
		}
		for n := range 80 {
			d := g.datagram(4, 60)
			if reason := g.open1(g.seal1(d, tu.out), tu.in); reason != packet.DropNone || !bytes.Equal(g.batch.IP(0), d) {
				t.Fatalf("%s: packet %d: %v", suite, n, reason)
			}
		}
		if top := tu.in.Window.Top(); top != 1<<32+40 {
			t.Errorf("%s: the window's top is %d", suite, top)
		}
	}
}

func TestSequenceNumbersNeverCycle(t *testing.T) {
	for _, esn := range []bool{false, true} {
		g := newRig(t)
		p := g.params(transform.AES128GCM16, 4, false, esn)
		p.Sequence = 1<<32 - 3
		if esn {
			p.Sequence = 1<<64 - 3
		}
		tu := g.install(p)
		var reasons []packet.Drop
		for range 5 {
			g.put(0, g.datagram(4, 60))
			g.parse(0)
			g.scratch.Encapsulate(g.batch, []uint8{0}, []*sad.Outbound{tu.out})
			reasons = append(reasons, g.batch.P[0].Reason)
		}
		for k, reason := range reasons {
			if (reason == packet.DropSequenceExhausted) != (k >= 2) || k < 2 && reason != packet.DropNone {
				t.Fatalf("ESN %v: packet %d: %v", esn, k, reason)
			}
		}
		if tu.out.Exhausted.Load() != 3 || tu.out.Packets.Load() != 2 {
			t.Fatalf("ESN %v: %d exhausted, %d sent", esn, tu.out.Exhausted.Load(), tu.out.Packets.Load())
		}
	}
}

// untouched says whether every byte is the canary.
func untouched(b []byte) bool {
	return len(b) == 0 || b[0] == canary && bytes.Equal(b[1:], b[:len(b)-1])
}
