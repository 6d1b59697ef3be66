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

// FuzzTransportAuthenticated gives headers and texts of any content under a good ICV in transport mode: no panic, and what is accepted
// is the header, but for its length, checksum and next header, in front of the text. What of a peer's datagram
// was accepted goes out again, if it may, as whoever made it could have sent it.
func FuzzTransportAuthenticated(f *testing.F) {
	g := newRig(f)
	var tunnels []tunnel
	for _, suite := range shapes {
		for outer := 4; outer <= 6; outer += 2 {
			p := g.transport(suite, outer, false, true)
			k := uint8(len(tunnels))
			tunnels = append(tunnels, g.install(p))
			if outer == 4 {
				d := g.own4(30, alert4)
				f.Add(k, uint8(24), append(d[:24:24], withTrailer(d[24:], suite.Info().Align, 17)...))
				continue
			}
			d := g.own6(30, hopByHop, routing, destination)
			f.Add(k, uint8(72), append(d[:72:72], withTrailer(d[72:], suite.Info().Align, 60)...))
			f.Add(k, uint8(40), append(d[:40:40], withTrailer(nil, suite.Info().Align, 59)...))
		}
	}
	f.Fuzz(func(t *testing.T, which, header uint8, d []byte) {
		g.t = t
		tu := tunnels[int(which)%len(tunnels)]
		least := ipv6Len
		if tu.in.Version == 4 {
			least = ipv4Len
		}
		if len(d) > 1500 || int(header) > len(d) || int(header) < least || d[0]>>4 != tu.in.Version {
			return
		}
		text := d[header:]
		if n := tu.in.Align; len(text) < 2 || len(text)%int(n) != 0 {
			return
		}
		// The outer header has to be one: as far as it goes, with ESP behind it.
		front := bytes.Clone(d[:header])
		if tu.in.Version == 4 {
			front[0] = 0x40 | header/4
			copy(front[12:], gatewayA4.AsSlice())
			copy(front[16:], gatewayB4.AsSlice())
			if header%4 != 0 || header > 60 {
				return
			}
		} else {
			copy(front[8:], gatewayA6.AsSlice())
			copy(front[24:], gatewayB6.AsSlice())
			at := 40
			for next := 6; ; {
				if at == int(header) {
					break
				}
				if at+8 > int(header) || (front[next] != packet.ProtoHopByHop && front[next] != packet.ProtoRouting && front[next] != packet.ProtoDestination) {
					return
				}
				next = at
				at += 8 + int(front[at+1])*8
				if at > int(header) {
					return
				}
			}
		}
		g.wipeFrames(2)
		seq := tu.in.Window.Top() + 1
		esp := g.forgeTransport(tu, seq, front, text)
		g.put(0, esp)
		if packet.Parse(g.batch, 0) != packet.DropNone {
			return
		}
		live := g.scratch.Decapsulate(g.batch, []uint8{0}, []*sad.Inbound{tu.in})
		reason := g.batch.P[0].Reason
		if (len(live) == 1) != (reason == packet.DropNone) {
			t.Fatalf("live %v, reason %v", live, reason)
		}
		end := packet.Headroom + packet.EtherLen + len(esp)
		if !untouched(g.batch.Mem[:packet.Headroom]) || !untouched(g.batch.Mem[end:2*packet.FrameSize]) {
			t.Fatal("a byte outside the packet was written")
		}
		if len(live) == 0 {
			return
		}
		got := bytes.Clone(g.batch.IP(0))
		if len(got) < int(header) || !bytes.HasPrefix(text, got[header:]) {
			t.Fatalf("%x came out of %x behind %d", got, text, header)
		}
		tu.out.Seq.Set(tu.in.Window.Top())
		sealed := g.seal1(got, tu.out)
		reason = g.open1(sealed, tu.in)
		if reason == packet.DropDummy && replaced(got, sealed) == packet.ProtoNone {
			return // nothing was behind the headers that stay in front
		}
		if reason != packet.DropNone || !bytes.Equal(g.batch.IP(0), got) {
			t.Fatalf("%x came back as %x: %v", got, g.batch.IP(0), reason)
		}
	})
}

// replaced is the protocol that ESP took the place of in the headers of a datagram: behind its length, nothing else differs in front.
func replaced(d, sealed []byte) uint8 {
	k := 6
	for k < min(len(d), len(sealed))-1 && d[k] == sealed[k] {
		k++
	}
	return d[k]
}
