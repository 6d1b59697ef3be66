package esp

import (
	"bytes"
	"slices"
	"testing"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/transform"
)

// TestOddPacketsLeaveTheirOwnAssociationAlone: of a batch in which one association has a packet that TakeESP is not for, that association's packets are left,
// those of the others stay as they were taken, and all are opened: in outer headers of every kind.
func TestOddPacketsLeaveTheirOwnAssociationAlone(t *testing.T) {
	for odd := range 4 {
		g := newRig(t)
		var tunnels [4]tunnel
		for k := range tunnels {
			tunnels[k] = g.tunnel(transform.AES128GCM16, 4+k&2, k&1 != 0, true)
		}
		var out []*sad.Outbound
		var in []*sad.Inbound
		var inner [][]byte
		for i := range 30 {
			k := i / 3 % 4
			out, in = append(out, tunnels[k].out), append(in, tunnels[k].in)
			inner = append(inner, g.datagram(4+2*(i&1), 60+i))
		}
		sealed := g.seal(inner, out)
		g.scratch.BeginESP()
		for i, d := range sealed {
			g.put(i, d)
		}
		b := g.batch
		b.N = len(sealed)
		first := slices.Index(in, tunnels[odd].in)
		var taken, others []uint8
		for i := 0; i < b.N; {
			if i == first { // as if it had something out of the ordinary
				g.parse(i)
				b.P[i].SPI = in[i].SPI
				others = append(others, uint8(i))
				i++
				continue
			}
			next, _ := g.scratch.TakeESP(b, i, in[i])
			if next == i {
				t.Fatalf("packet %d is not taken", i)
			}
			for ; i < next; i++ {
				taken = append(taken, uint8(i))
			}
		}
		stay, left := g.scratch.LeaveShared(b, taken, others, nil)
		for _, i := range left {
			if in[i] != tunnels[odd].in || b.P[i].SPI != in[i].SPI || b.P[i].L3 != packet.EtherLen {
				t.Errorf("packet %d is left: %+v", i, b.P[i])
			}
		}
		for _, i := range stay {
			if in[i] == tunnels[odd].in {
				t.Errorf("packet %d stays", i)
			}
		}
		if len(stay)+len(left)+len(others) != b.N || len(stay) < 20 {
			t.Fatalf("%d packets stay, %d are left", len(stay), len(left))
		}
		alive := slices.Clone(g.scratch.OpenESP(b, stay))
		others = append(others, left...)
		slices.Sort(others)
		alive = append(alive, g.scratch.Decapsulate(b, others, in)...)
		if len(alive) != b.N {
			t.Errorf("%d of %d packets are opened", len(alive), b.N)
		}
		for _, i := range alive {
			if !bytes.Equal(b.IP(int(i)), inner[i]) {
				t.Errorf("packet %d came out as %x, not %x", i, b.IP(int(i)), inner[i])
			}
		}
	}
}

// TestForgedPacketsAreMissedByNobody: of a batch for several associations in turn, in which some packets were forged, replayed or lost, OpenESP returns all others, in order, and every
// association has counted its own, whether TakeESP turns from one to the next by itself or not.
func TestForgedPacketsAreMissedByNobody(t *testing.T) {
	turns := 0
	for round := range 120 {
		g := newRig(t)
		g.scratch.Now, g.scratch.Records = 1<<40, round%3
		var tunnels [4]tunnel
		for k := range tunnels {
			p := g.params(transform.AES128GCM16, 4, false, k&1 != 0)
			if round%2 == 0 {
				p = g.params(transform.AES128GCM16, 4+k&2, k&1 != 0, true)
			}
			spi, err := g.table.Reserve()
			if err != nil {
				t.Fatal(err)
			}
			p.SPI = spi
			tunnels[k] = g.install(p)
			tunnels[k].in.Claim(0)
			tunnels[k].in.Last.Set(1 << 40)
			g.scratch.take.find.SlotOf(spi)
		}
		var out []*sad.Outbound
		var in []*sad.Inbound
		var inner [][]byte
		for len(in) < 50 {
			k, run := g.r.IntN(len(tunnels)), 1+g.r.IntN(4)
			for range run {
				out, in = append(out, tunnels[k].out), append(in, tunnels[k].in)
				inner = append(inner, g.datagram([]int{4, 4, 4, 6}[g.r.IntN(4)], 60+len(in)))
			}
		}
		sealed := g.seal(inner, out)
		b := g.batch
		b.N = 0
		var want []uint8
		var of []int // which of them a packet was
		var seen [packet.BatchMax]bool
		passed, forged, replayed, bytesOf := map[*sad.Inbound]uint64{}, map[*sad.Inbound]uint64{}, map[*sad.Inbound]uint64{}, map[*sad.Inbound]uint64{}
		often := 1 + g.r.IntN(20) // one in so many
		put := func(i int, d []byte) {
			a, place := in[i], len(of)
			switch {
			case g.r.IntN(often) == 0 && place > 0:
				d = bytes.Clone(d)
				d[len(d)-1] ^= 1
				forged[a]++
			case seen[i]:
				replayed[a]++
			default:
				seen[i] = true
				want = append(want, uint8(place))
				passed[a]++
				bytesOf[a] += uint64(len(inner[i]))
			}
			g.put(place, d)
			of = append(of, i)
		}
		for i := range sealed {
			if g.r.IntN(3*often) == 0 && i > 0 {
				continue // lost
			}
			put(i, sealed[i])
			if again := g.r.IntN(i + 1); g.r.IntN(2*often) == 0 && len(of) < packet.BatchMax-len(sealed) {
				put(again, sealed[again]) // a replay, or one that comes late
			}
		}
		var taken []uint8
		g.scratch.BeginESP()
		for i := 0; i < b.N; {
			next, last := g.scratch.TakeESP(b, i, in[of[i]])
			if next == i {
				t.Fatalf("packet %d is not taken", i)
			}
			if last != in[of[i]] {
				turns++
			}
			for ; i < next; i++ {
				taken = append(taken, uint8(i))
			}
		}
		alive := g.scratch.OpenESP(b, taken)
		if !slices.Equal(alive, want) {
			t.Fatalf("alive are %d, not %d", alive, want)
		}
		for _, i := range alive {
			if !bytes.Equal(b.IP(int(i)), inner[of[i]]) || b.P[i].SPI != in[of[i]].SPI {
				t.Errorf("packet %d came out as %x, not %x", i, b.IP(int(i)), inner[of[i]])
			}
		}
		for _, tu := range tunnels {
			a := tu.in
			if a.Packets.Load() != passed[a] || a.Bytes.Load() != bytesOf[a] || a.BadICV.Load() != forged[a] || a.Replayed.Load() != replayed[a] || a.TooOld.Load()+a.OtherDrops.Load() != 0 {
				t.Errorf("%d packets of %d bytes passed, %d were forged and %d replayed, not %d, %d, %d and %d", a.Packets.Load(), a.Bytes.Load(), a.BadICV.Load(), a.Replayed.Load(), passed[a], bytesOf[a], forged[a], replayed[a])
			}
		}
	}
	if turns < 60 {
		t.Errorf("%d times others were turned to: too few", turns)
	}
}
