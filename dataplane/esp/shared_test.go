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
			next := g.scratch.TakeESP(b, i, in[i])
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

// TestForgedPacketsAreMissedByNobody: of a batch for several associations in turn, in which some packets were forged, OpenESP returns all others, in order, and every
// association has counted its own.
func TestForgedPacketsAreMissedByNobody(t *testing.T) {
	for range 40 {
		g := newRig(t)
		var tunnels [4]tunnel
		for k := range tunnels {
			tunnels[k] = g.tunnel(transform.AES128GCM16, 4+k&2, k&1 != 0, true)
		}
		var out []*sad.Outbound
		var in []*sad.Inbound
		var inner [][]byte
		for len(in) < 60 {
			k, run := g.r.IntN(len(tunnels)), 1+g.r.IntN(4)
			for range run {
				out, in = append(out, tunnels[k].out), append(in, tunnels[k].in)
				inner = append(inner, g.datagram(4+2*g.r.IntN(2), 60+len(in)))
			}
		}
		sealed := g.seal(inner, out)
		b := g.batch
		b.N = 0
		var want []uint8
		passed, forged := map[*sad.Inbound]uint64{}, map[*sad.Inbound]uint64{}
		often := 1 + g.r.IntN(12) // one in so many
		for i, d := range sealed {
			if g.r.IntN(often) == 0 && i > 0 {
				d[len(d)-1] ^= 1
				forged[in[i]]++
			} else {
				want = append(want, uint8(i))
				passed[in[i]]++
			}
			g.put(i, d)
		}
		var taken []uint8
		g.scratch.BeginESP()
		for i := 0; i < b.N; {
			next := g.scratch.TakeESP(b, i, in[i])
			if next == i {
				t.Fatalf("packet %d is not taken", i)
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
			if !bytes.Equal(b.IP(int(i)), inner[i]) || b.P[i].SPI != in[i].SPI {
				t.Errorf("packet %d came out as %x, not %x", i, b.IP(int(i)), inner[i])
			}
		}
		for _, tu := range tunnels {
			if a := tu.in; a.Packets.Load() != passed[a] || a.BadICV.Load() != forged[a] {
				t.Errorf("%d packets passed and %d were forged, not %d and %d", a.Packets.Load(), a.BadICV.Load(), passed[a], forged[a])
			}
		}
	}
}
