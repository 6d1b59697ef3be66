package esp

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/transform"
)

// reports says that an outbound association is reported.
func (s *Scratch) reports(o *sad.Outbound) bool {
	return slices.ContainsFunc(s.Reports, func(r Report) bool { return r.Outbound == o })
}

// TestPlainOutboundComesToTheSame: what encapsulatePlain makes of packets of several associations in turn, in outer headers of every kind, and of random properties and records, is
// what prepareOutbound makes of them, byte by byte.
func TestPlainOutboundComesToTheSame(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 10))
	one := func(of ...int) int { return of[rnd.IntN(len(of))] }
	dropped, sealed := 0, 0
	for range 400 {
		var all [3]sad.Params
		for k := range all {
			p := sad.Params{
				Name: "plain", Suite: transform.AES128GCM16, Keymat: make([]byte, 20), SPI: uint32(k+1)<<16 + rnd.Uint32N(1000), ESN: rnd.IntN(2) == 0, Encap: rnd.IntN(2) == 0,
				LocalPort: 4500, RemotePort: uint16(one(4500, 1, 65535)), Local: netip.MustParseAddr("192.0.2.1"), Remote: netip.MustParseAddr("192.0.2.2"),
				Outer:    sad.Outer{CopyDSCP: rnd.IntN(2) == 0, ECN: rnd.IntN(2) == 0, CopyDF: rnd.IntN(2) == 0, SetDF: rnd.IntN(2) == 0, TTL: uint8(one(0, 7))},
				Sequence: uint64(one(0, 5, 1<<32-40, 1<<32-4)), Lifetime: sad.Lifetime{HardPackets: uint64(one(0, 0, 4)), HardBytes: uint64(one(0, 0, 400))},
			}
			if rnd.IntN(2) == 0 {
				p.Local, p.Remote = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
			}
			if k > 0 && rnd.IntN(2) == 0 { // as the first one
				p.Local, p.Remote, p.Encap = all[0].Local, all[0].Remote, all[0].Encap
			}
			p.Keymat[3] = byte(k)
			all[k] = p
		}
		type side struct {
			*Scratch
			b  packet.Batch
			o  [len(all)]*sad.Outbound
			sa [packet.BatchMax]*sad.Outbound
		}
		var sides [2]side
		for k := range sides {
			table, err := sad.New(sad.Config{Capacity: 4, Workers: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer table.Close()
			s := &sides[k]
			s.Scratch = NewScratch(table, table.Finder(0))
			for j, p := range all {
				p.Keymat = bytes.Clone(p.Keymat)
				h, err := table.Install(p)
				if err != nil {
					t.Fatal(err)
				}
				s.o[j] = table.LookupOutbound(h.Value())
			}
			s.id, s.Now, s.Records = 0xfff0, 1<<40, 64
		}
		const frames = 24
		a, c := &sides[0], &sides[1]
		a.b.Mem, a.b.N = make([]byte, frames*packet.FrameSize), frames
		var live []uint8
		for i := range frames {
			for j := range 400 {
				a.b.Mem[i*packet.FrameSize+packet.Headroom+j] = byte(rnd.Uint32())
			}
			q := &a.b.P[i]
			*q = packet.Packet{
				Addr: uint64(i*packet.FrameSize + packet.Headroom), Port: 3, L3: uint16(one(14, 14, 18)), L4: 77, SrcPort: 1, DstPort: 2, Version: uint8(one(4, 6)), Proto: 17,
				TOS: uint8(rnd.Uint32()), TTL: uint8(rnd.Uint32()), Flags: packet.Flags(rnd.Uint32()), Class: packet.ClassOutbound, Hop: 8, Tunnel: 9, Handovers: 1, Interface: 3,
			}
			q.End = q.L3 + uint16(one(20, 21, 22, 23, 64, 300, rnd.IntN(400)))
			q.Len = q.End
			if rnd.IntN(30) == 0 {
				q.Addr = uint64(i*packet.FrameSize) + 30 + rnd.Uint64N(50) // too little room
			}
			live = append(live, uint8(i))
		}
		c.b = a.b
		c.b.Mem = bytes.Clone(a.b.Mem)
		which := 0
		for i := range frames {
			if rnd.IntN(3) == 0 {
				which = rnd.IntN(len(all))
			}
			a.sa[i], c.sa[i] = a.o[which], c.o[which]
		}
		kept := a.Encapsulate(&a.b, bytes.Clone(live), a.sa[:])
		var want []uint8
		for i := range live {
			want, _ = c.encapsulateOther(&c.b, want, live[i:i+1], c.sa[:])
		}
		if !bytes.Equal(kept, want) || a.b.P != c.b.P || !bytes.Equal(a.b.Mem, c.b.Mem) {
			t.Fatalf("%+v: packets %v and %v, or what is in them, differ", all, kept, want)
		}
		for k, p := range all {
			x, y := a.o[k], c.o[k]
			if !plain(x, a.table.OutboundKeys()) {
				t.Fatalf("%+v is not plain", p)
			}
			if x.Seq.Load() != y.Seq.Load() || x.Packets.Load() != y.Packets.Load() || x.Bytes.Load() != y.Bytes.Load() || x.Last.Load() != y.Last.Load() ||
				x.Exhausted.Load() != y.Exhausted.Load() || x.OtherDrops.Load() != y.OtherDrops.Load() || x.Flags != y.Flags {
				t.Fatalf("%+v: the associations differ", p)
			}
			if *a.table.OutboundFlight(x.Slot) != *c.table.OutboundFlight(y.Slot) || a.reports(x) != c.reports(y) {
				t.Fatalf("%+v: what is recorded or reported of the associations differs", p)
			}
		}
		if a.id != c.id || a.Records != c.Records {
			t.Fatalf("%+v: identifications or records differ", all)
		}
		sealed += len(kept)
		dropped += frames - len(kept)
	}
	if sealed < 5000 || dropped < 100 {
		t.Errorf("%d packets sealed, %d dropped: too few of a kind", sealed, dropped)
	}
}
