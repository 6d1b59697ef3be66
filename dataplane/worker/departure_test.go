package worker

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"sallyport/dataplane/forward"
	"sallyport/dataplane/packet"
)

// TestAssemblyStagesAsGoDoes: the assembly puts the packets in line that the code in Go does, and writes the same into their frames and records.
func TestAssemblyStagesAsGoDoes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	one := func(of ...int) int { return of[rnd.IntN(len(of))] }
	type side struct {
		batch  packet.Batch
		descs  [packet.BatchMax]packet.Desc
		sealed [packet.BatchMax]bool
	}
	const frames = 8
	staged, left := 0, 0
	for range 5000 {
		var a, b side
		a.batch.Mem = make([]byte, frames*packet.FrameSize)
		for i := range a.batch.Mem {
			a.batch.Mem[i] = byte(i)
		}
		var list []uint8
		for i := range rnd.IntN(frames + 1) {
			p := &a.batch.P[i]
			end := uint16(14 + rnd.IntN(1500))
			*p = packet.Packet{Addr: uint64(i)*packet.FrameSize + rnd.Uint64N(300), L3: packet.EtherLen, L4: 34, End: end, Len: end, Port: uint16(rnd.Uint32()),
				Version: uint8(one(4, 4, 6)), Flags: packet.Flags(rnd.Uint32()), Hop: 7, Tunnel: 3, Seq: rnd.Uint64()}
			switch rnd.IntN(20) {
			case 0:
				p.Hop++
			case 1:
				p.L3 += 4
			case 2:
				p.Len++
			}
			list = append(list, uint8(i))
		}
		rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		for i := range a.descs {
			a.descs[i], a.sealed[i] = packet.Desc{Addr: rnd.Uint64(), Len: rnd.Uint32(), Options: rnd.Uint32()}, rnd.IntN(2) == 0
		}
		b = a
		b.batch.Mem = bytes.Clone(a.batch.Mem)
		run := departure{list: list, link: forward.LinkOf(&[6]byte{1, 2, 3, 4, 5, 6}, &[6]byte{7, 8, 9, 10, 11, 12}), hop: 7, port: uint16(rnd.Uint32()),
			flags: packet.Flags(one(0, int(packet.FlagSealed)))}
		free := one(64, 64, 3, 1)
		of := func(s *side) *departure {
			r := run
			r.b, r.descs, r.sealed = &s.batch, s.descs[len(s.descs)-free:], s.sealed[len(s.sealed)-free:]
			return &r
		}
		want := of(&a).stageGeneric()
		if got := of(&b).stage(); got != want {
			t.Fatalf("%d packets are staged, not %d", got, want)
		}
		if a.batch.P != b.batch.P || !bytes.Equal(a.batch.Mem, b.batch.Mem) || a.descs != b.descs || a.sealed != b.sealed {
			t.Fatal("what is staged differs")
		}
		staged, left = staged+want, left+len(list)-want
	}
	if staged < 5000 || left < 2000 {
		t.Errorf("%d packets staged, %d left: too few of a kind", staged, left)
	}
}
