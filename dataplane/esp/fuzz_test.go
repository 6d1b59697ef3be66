package esp

import (
	"bytes"
	"testing"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/transform"
)

// FuzzDecapsulateRaw gives the decapsulator frames of any content, for associations of
// every suite, raw and in UDP: no panic, nothing accepted, nothing written outside
// the frame's packet.
func FuzzDecapsulateRaw(f *testing.F) {
	g := newRig(f)
	var tunnels []tunnel
	for _, suite := range transform.List() {
		for shape := range 4 {
			tu := g.tunnel(suite, 4+shape&2, shape&1 == 1, true)
			tunnels = append(tunnels, tu)
			f.Add(uint8(len(tunnels)-1), g.seal1(g.datagram(4, 100), tu.out)[:60])
			f.Add(uint8(len(tunnels)-1), g.forge(tu, 9, nil)[:40])
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, d []byte) {
		if len(d) > 1500 {
			return
		}
		g.t = t
		tu := tunnels[int(which)%len(tunnels)]
		g.wipeFrames(2)
		g.put(0, d)
		if packet.Parse(g.batch, 0) != packet.DropNone {
			return
		}
		top := tu.in.Window.Top()
		live := g.scratch.Decapsulate(g.batch, []uint8{0}, []*sad.Inbound{tu.in})
		if len(live) != 0 || g.batch.P[0].Reason == packet.DropNone || tu.in.Window.Top() != top {
			t.Fatalf("a forged packet passed: %+v", g.batch.P[0])
		}
		end := packet.Headroom + packet.EtherLen + len(d)
		if !untouched(g.batch.Mem[:packet.Headroom]) || !untouched(g.batch.Mem[end:2*packet.FrameSize]) {
			t.Fatal("a byte outside the packet was written")
		}
	})
}

// FuzzDecapsulateAuthenticated gives plaintexts of any content under a good ICV: no panic,
// and what is accepted is an inner datagram that stood at the plaintext's start.
func FuzzDecapsulateAuthenticated(f *testing.F) {
	g := newRig(f)
	var tunnels []tunnel
	for k, suite := range transform.List() {
		tu := g.tunnel(suite, 4, k%2 == 0, true)
		tunnels = append(tunnels, tu)
		f.Add(uint8(k), withTrailer(g.datagram(4, 60), suite.Info().Align, 4))
		f.Add(uint8(k), withTrailer(g.datagram(6, 61), suite.Info().Align, 41))
		f.Add(uint8(k), withTrailer(nil, suite.Info().Align, 59))
	}
	f.Fuzz(func(t *testing.T, which uint8, text []byte) {
		g.t = t
		tu := tunnels[int(which)%len(tunnels)]
		align := int(tu.in.Align)
		if len(text) > 1500 || len(text) == 0 {
			return
		}
		text = append(bytes.Clone(text), make([]byte, -len(text)&(align-1))...)
		seq := tu.in.Window.Top() + 1
		d := g.forge(tu, seq, text)
		g.wipeFrames(2)
		g.put(0, d)
		if reason := packet.Parse(g.batch, 0); reason != packet.DropNone {
			t.Fatal(reason)
		}
		live := g.scratch.Decapsulate(g.batch, []uint8{0}, []*sad.Inbound{tu.in})
		p := &g.batch.P[0]
		if (len(live) == 1) != (p.Reason == packet.DropNone) || tu.in.Window.Top() != seq {
			t.Fatalf("live %v, reason %v, window at %d", live, p.Reason, tu.in.Window.Top())
		}
		if len(live) == 1 {
			inner := g.batch.IP(0)
			// The outer header of forge is Not-ECT, so the inner one stays as it is.
			if len(inner) > len(text)-trailerLen || !bytes.Equal(inner, text[:len(inner)]) {
				t.Fatalf("accepted %x from %x", inner, text)
			}
		}
		end := packet.Headroom + packet.EtherLen + len(d)
		if !untouched(g.batch.Mem[:packet.Headroom]) || !untouched(g.batch.Mem[end:2*packet.FrameSize]) {
			t.Fatal("a byte outside the packet was written")
		}
	})
}
