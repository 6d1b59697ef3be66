package esp

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"sallyport/dataplane/aesgcm"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/transform"
)

// sealing is all that preparation for encryption reads and writes.
type sealing struct {
	batch   packet.Batch
	run     plainOutbound
	ops     [packet.BatchMax]aesgcm.Op
	lengths [packet.BatchMax]uint16
}

// begin starts a run over a copy of memory.
func (s *sealing) begin(mem []byte, r plainOutbound) {
	s.batch.Mem, s.run = bytes.Clone(mem), r
	s.run.b, s.run.ops, s.run.lengths = &s.batch, s.ops[:], s.lengths[:]
}

// TestAssemblyPreparesAsGoDoes: what the assembly makes of runs of packets, most of them with something out of the ordinary, is what the
// code in Go makes of them, byte by byte.
func TestAssemblyPreparesAsGoDoes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	one := func(of ...uint64) uint64 { return of[rnd.IntN(len(of))] }
	key := new(transform.Key)
	whole, stopped := 0, 0
	for range 6_000 {
		var o, other sad.Outbound
		o.SPI, o.Slot, o.HeaderSum, o.SeqMax = rnd.Uint32(), rnd.Uint32(), uint16(one(0, 0xffff, rnd.Uint64())), one(1<<32-1, ^uint64(0))
		for i := range o.Header {
			o.Header[i] = byte(rnd.Uint32())
		}
		o.Header[10], o.Header[11] = 0, 0
		df := [2]uint32{uint32(one(0, uint64(packet.FlagDF))), uint32(one(0, uint64(packet.FlagDF)))}
		r := plainOutbound{
			o: &o, gcm: new(transform.Batch).Run(key, rnd.Uint32(), rnd.IntN(2) == 0),
			tosMask: uint32(one(0, 3, 0xfc, 0xff)), copyDF: [2]uint32{uint32(one(0, uint64(packet.FlagDF)))}, setDF: df,
			id: uint32(one(0, 0xfffe, 0xffff, 7)), seq: one(0, 5, 1<<32-3, o.SeqMax-3, o.SeqMax), bytes: one(0, 1000),
		}
		const chunks = 8
		mem := make([]byte, chunks*packet.FrameSize-int(one(0, 0, 0, 100, 3000)))
		for i := 0; i < len(mem); i += 7 {
			mem[i] = byte(rnd.Uint32())
		}
		var a, b sealing
		for i := range chunks {
			p := &a.batch.P[i]
			*p = packet.Packet{
				Addr: uint64(i)*packet.FrameSize + packet.Headroom + one(0, 0, 0, rnd.Uint64N(64)), Port: uint16(rnd.Uint32()), L3: uint16(one(14, 14, 14, 18, 22)),
				L4: uint16(rnd.Uint32()), SrcPort: 1, DstPort: 2, Version: uint8(one(4, 4, 6)), Proto: 17, TOS: uint8(rnd.Uint32()), TTL: uint8(rnd.Uint32()),
				Flags: packet.Flags(rnd.Uint32()), Class: packet.ClassOutbound, SPI: 5, Slot: 6, Seq: 7, Hop: 8, Tunnel: 9, Handovers: 1, Interface: 3,
			}
			p.End = p.L3 + uint16(one(20, 28, 46, 50, 64, 1400, 1480, rnd.Uint64N(1600)))
			switch rnd.IntN(40) {
			case 0: // no room in front
				p.Addr = uint64(i)*packet.FrameSize + 20 + rnd.Uint64N(30)
			case 1: // nor behind
				p.End = uint16(packet.FrameSize - packet.Headroom - rnd.IntN(250))
			case 2:
				p.End = p.L3 - uint16(rnd.IntN(9))
			}
			p.Len = p.End
			r.sa = append(r.sa, &o)
		}
		if rnd.IntN(4) == 0 {
			r.sa[rnd.IntN(len(r.sa))] = &other
		}
		for i := range uint8(chunks) {
			r.live = append(r.live, i)
		}
		rnd.Shuffle(chunks, func(i, j int) { r.live[i], r.live[j] = r.live[j], r.live[i] })
		r.live = r.live[:rnd.IntN(chunks+1)]
		b.batch = a.batch
		a.begin(mem, r)
		b.begin(mem, r)
		want := a.run.prepareGeneric()
		if got := b.run.prepare(); got != want {
			t.Fatalf("%d packets are prepared, not %d", got, want)
		}
		if want == len(r.live) {
			whole++
		} else {
			stopped++
		}
		if a.batch.P != b.batch.P || !bytes.Equal(a.batch.Mem, b.batch.Mem) || a.lengths != b.lengths {
			t.Fatal("packets differ")
		}
		if a.run.id != b.run.id || a.run.seq != b.run.seq || a.run.bytes != b.run.bytes {
			t.Fatalf("the runs end with %d, %d, %d and %d, %d, %d", a.run.id, a.run.seq, a.run.bytes, b.run.id, b.run.seq, b.run.bytes)
		}
		for k := range a.ops {
			x, y := &a.ops[k], &b.ops[k]
			if x.Key != y.Key || x.Nonce != y.Nonce || x.AAD != y.AAD || x.AADLen != y.AADLen {
				t.Fatalf("op %d differs", k)
			}
			if (k < want) != (x.Key != nil) || len(x.Buf) != len(y.Buf) || cap(x.Buf) != cap(y.Buf) {
				t.Fatalf("op %d has a buffer of %d of %d, not %d of %d", k, len(y.Buf), cap(y.Buf), len(x.Buf), cap(x.Buf))
			}
			if k < want {
				p := &b.batch.P[b.run.live[k]]
				if &y.Buf[0] != &b.batch.Mem[p.Addr+packet.EtherLen+plainFront] || &x.Buf[0] != &a.batch.Mem[p.Addr+packet.EtherLen+plainFront] {
					t.Fatalf("op %d has another place", k)
				}
			}
		}
	}
	if whole < 1000 || stopped < 1000 {
		t.Errorf("%d runs went through, %d stopped: too few of a kind", whole, stopped)
	}
}
