package worker

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"sallyport/dataplane/fib"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
	"sallyport/tools/craft"
)

// passing is all that the short way of packets to be protected reads and writes, but for the flows, which it only reads.
type passing struct {
	batch    packet.Batch
	run      outRun
	outbound [packet.BatchMax]*sad.Outbound
	list     [packet.BatchMax]uint8
}

// pass carries a copy of a batch through a worker, with the tunnels that associations are given for, and returns how often it was asked for one.
func (s *passing) pass(batch *packet.Batch, w *Worker, associations map[uint32]*sad.Outbound, mtu uint64, slots int, pass func(*outRun) *known) (changes int) {
	s.batch = *batch
	s.batch.Mem = bytes.Clone(batch.Mem)
	s.run.start(w, 1<<0|1<<3|1<<63)
	s.run.slots = s.run.slots[:slots]
	s.run.b, s.run.outbound, s.run.list = &s.batch, &s.outbound, &s.list
	for k := pass(&s.run); k != nil; k = pass(&s.run) {
		changes++
		sa := associations[k.way]
		if sa == nil {
			s.run.tunnel = noTunnel
			s.run.next++
			continue
		}
		s.run.sa, s.run.handle, s.run.tunnel, s.run.hop, s.run.mtu = sa, k.of, k.way, k.way+100, mtu+uint64(k.way)
	}
	return changes
}

// TestAssemblyPassesAsGoDoes: the assembly takes the packets of random batches, most of them with something out of the ordinary, that the code
// in Go takes, and leaves the same behind.
func TestAssemblyPassesAsGoDoes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	one := func(of ...int) int { return of[rnd.IntN(len(of))] }
	f, err := newFlows(1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	f.generation = 5
	f.shift = 64 - 4 // sixteen places, so that many are full
	associations := map[uint32]*sad.Outbound{1: new(sad.Outbound), 2: new(sad.Outbound)}

	// Tunnels from 4 on have associations that the run finds itself, as long as nothing of them is unusual. A third worker stays in its first batch: so
	// of associations that were removed all is still there but their names.
	table, err := sad.New(sad.Config{Capacity: 3100, Workers: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	hops := []fib.Hop{{Kind: fib.Forward, MTU: 1400}, {Kind: fib.Unresolved, MTU: 1500}, {Kind: fib.Failed, MTU: 1300}, {Kind: fib.Local, MTU: 1500}, {Kind: fib.NoRoute}, {Kind: fib.Forward, MTU: 40},
		{Kind: fib.Tunnel, MTU: 1500}, {Kind: fib.Forward}, {Kind: fib.Multicast, MTU: 1500}, {Kind: fib.Forward, MTU: 53}, {Kind: fib.Forward, MTU: 56}, {Kind: fib.Forward, MTU: 1500}}
	hops = hops[:len(hops)-1] // beyond them lies what looks like one
	w := &Worker{flows: f, ID: 1, group: &Group{sad: table}, tables: &Tables{FIB: &fib.Table{Hops: hops, Generation: 6}}}
	const tunnels = 6
	var handles, removed [tunnels]uint32
	table.Pass(2)
	install := func(k int) {
		if handles[k] != 0 {
			if err := table.Remove(sad.Handle(handles[k])); err != nil {
				t.Fatal(err)
			}
			removed[k] = handles[k]
		}
		p := sad.Params{Name: fmt.Sprint("turn", k), Suite: []transform.Suite{transform.AES128GCM16, transform.AES128CBCSHA256}[rnd.IntN(2)], SPI: 0x1000 + rnd.Uint32N(1000),
			Local: netip.MustParseAddr("192.0.2.1"), Remote: netip.MustParseAddr("192.0.2.2"), Outer: sad.Outer{MTU: uint16(one(0, 0, 1280, 1450))}, Transport: rnd.IntN(8) == 0}
		p.Keymat = make([]byte, p.Suite.Info().KeyLen)
		h, err := table.Install(p)
		if err != nil {
			t.Fatal(err)
		}
		handles[k] = h.Value()
		if rnd.IntN(20) > 0 {
			if err := table.Bind(uint32(4+k), h.Value()); err != nil {
				t.Fatal(err)
			}
		}
		o := table.LookupOutbound(h.Value())
		o.Claim(min(1, rnd.IntN(12)))
		o.HopGeneration, o.Hop = 6, uint32(rnd.IntN(3))
		switch rnd.IntN(20) {
		case 0:
			o.Flags |= []sad.Flags{sad.FlagGuarded, sad.FlagEnded, sad.FlagInterface, sad.FlagPadded, sad.FlagGRE}[rnd.IntN(5)]
		case 1:
			if err := table.RequestMove(h, 0); err != nil {
				t.Fatal(err)
			}
		case 2:
			o.HopGeneration--
		case 3, 4:
			o.Hop = uint32(one(3, 4, 5, 6, 7, 8, 9, 10, 11, 1<<31))
		}
		if rnd.IntN(4) == 0 {
			if _, err := table.Probed(h, one(53, 1200, 1300, 1350, 1400, 1450, 1450, 1480), time.Now(), time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// What was in the first slot looks like what handle 0 names.
	first, err := table.Install(sad.Params{Name: "first", Suite: transform.AES128GCM16, SPI: 0x999, Keymat: make([]byte, transform.AES128GCM16.Info().KeyLen),
		Local: netip.MustParseAddr("192.0.2.1"), Remote: netip.MustParseAddr("192.0.2.2")})
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Bind(4, first.Value()); err != nil {
		t.Fatal(err)
	}
	o := table.LookupOutbound(first.Value())
	o.Claim(1)
	o.HopGeneration = 6
	if err := table.Remove(first); err != nil || o.Slot != 0 || o.Handle() != 0 {
		t.Fatal(err, o.Slot, o.Handle())
	}
	for k := range handles {
		install(k)
	}

	const frames = 40
	taken, left, changes, turned := 0, 0, 0, 0
	for range 3000 {
		b := packet.Batch{Mem: make([]byte, frames*packet.FrameSize), N: rnd.IntN(frames + 1)}
		clear(f.places)
		for i := range frames {
			p := &b.P[i]
			*p = packet.Packet{Addr: uint64(i)*packet.FrameSize + packet.Headroom, Port: uint16(one(0, 0, 3, 63, 2, 64, 67)), Slot: rnd.Uint32(), Seq: rnd.Uint64(), Interface: 9}
			if rnd.IntN(8) > 0 {
				p.Port = 0
			}
			length := one(28, 40, 46, 46, 200, 1400, 1402, rnd.IntN(1500))
			p.Len = uint16(length + packet.EtherLen + one(0, 0, 0, 6, -1))
			h := b.Mem[p.Addr : p.Addr+2000]
			for k := range h[:80] {
				h[k] = byte(rnd.Uint32())
			}
			h[12], h[13], h[14] = 8, 0, 0x45
			ip := h[14:]
			binary.BigEndian.PutUint16(ip[2:], uint16(length))
			binary.BigEndian.PutUint16(ip[6:], uint16(one(0, 0x4000)))
			ip[8], ip[9] = byte(one(2, 64, 255, 64, rnd.IntN(256))), byte(one(17, 17, 17, 6))
			copy(ip[12:20], []byte{198, 51, 100, byte(rnd.IntN(3)), 203, 0, 113, byte(rnd.IntN(3))})
			copy(ip[20:24], []byte{0, byte(rnd.IntN(2)), 1, byte(rnd.IntN(2))})
			ip[33] = byte(one(0x10, 0x18, 0x02, 0x12, 0x11))
			switch rnd.IntN(30) {
			case 0:
				p.Class = packet.Class(1 + rnd.IntN(8))
			case 1:
				p.Reason = packet.Drop(1 + rnd.IntN(20))
			case 2:
				h[12+rnd.IntN(3)]++
			case 3:
				ip[6+rnd.IntN(2)] ^= 1 << rnd.IntN(8)
			case 4:
				ip[8] = byte(rnd.IntN(3))
			case 5:
				ip[9] = byte(rnd.IntN(256))
			case 6:
				p.Len = uint16(rnd.IntN(60))
			case 7:
				binary.BigEndian.PutUint16(ip[2:], uint16(rnd.IntN(1600)))
			}
			craft.FixIPv4(ip)
			switch rnd.IntN(20) {
			case 0:
				ip[10+rnd.IntN(2)] ^= 1 << rnd.IntN(8)
			case 1: // both forms of zero, and checksums that carry when the TTL goes down
				binary.BigEndian.PutUint16(ip[10:], uint16(one(0, 0xfefe, 0xfeff, 0xff00, 0xffff)))
				binary.BigEndian.PutUint16(ip[4:], packet.Complement(packet.Sum(ip[:4], packet.Sum(ip[6:20], 0))))
			}
			if rnd.IntN(8) == 0 {
				continue // unknown
			}
			flow := packet.Flow{Version: 4, Proto: ip[9], Flags: packet.FlagPorts}
			if ip[6]&0x40 != 0 {
				flow.Flags |= packet.FlagDF
			}
			flow.Src.Lo, flow.Dst.Lo = uint64(binary.BigEndian.Uint32(ip[12:])), uint64(binary.BigEndian.Uint32(ip[16:]))
			flow.SrcPort, flow.DstPort = binary.BigEndian.Uint16(ip[20:]), binary.BigEndian.Uint16(ip[22:])
			place := f.place(&flow)
			if k := f.find(place, &flow); k == nil {
				k = f.enter(place, &flow)
				*k = known{generation: uint32(one(5, 5, 5, 5, 5, 5, 4)), match: spd.Matched, action: spd.Protect, way: uint32(one(1, 1, 1, 2, 3)), of: rnd.Uint32()}
				if rnd.IntN(2) == 0 {
					tunnel := rnd.IntN(tunnels)
					k.way, k.of = uint32(4+tunnel), handles[rnd.IntN(tunnels)]
					switch rnd.IntN(40) {
					case 0:
					case 1:
						k.of = removed[tunnel] // 0 at first
					case 2:
						k.way, k.of = 4, 0
					default:
						k.of = handles[tunnel]
					}
				}
				switch rnd.IntN(12) {
				case 0:
					k.match = spd.NoMatch
				case 1:
					k.action = spd.Bypass
				}
			}
		}
		mtu := uint64(one(1399, 1400, 1500))
		var a, c passing
		slots, _ := table.OutboundArena() // or beyond its end lies what looks like one
		last := len(slots)
		if rnd.IntN(6) == 0 {
			last = int(table.LookupOutbound(handles[rnd.IntN(tunnels)]).Slot)
		}
		want := a.pass(&b, w, associations, mtu, last, (*outRun).passGeneric)
		if got := c.pass(&b, w, associations, mtu, last, (*outRun).pass); got != want {
			t.Fatalf("the tunnel was asked for %d times, not %d", got, want)
		}
		if x, y := &a.run, &c.run; x.sa != y.sa || x.mtu != y.mtu || x.handle != y.handle || x.hop != y.hop || x.tunnel != y.tunnel {
			t.Fatal("the runs end with different tunnels")
		}
		for _, i := range a.list[:a.run.took] {
			if p := &a.batch.P[i]; p.Tunnel >= 4 {
				turned++
				if p.SPI != handles[p.Tunnel-4] || a.outbound[i] != table.LookupOutbound(p.SPI) {
					t.Fatalf("a packet for tunnel %d goes into another association", p.Tunnel)
				}
			}
		}
		install(rnd.IntN(tunnels))
		if a.batch.P != c.batch.P || !bytes.Equal(a.batch.Mem, c.batch.Mem) || a.outbound != c.outbound || a.list != c.list || a.run.took != c.run.took || a.run.next != c.run.next {
			t.Fatalf("the batches differ: %d and %d taken", a.run.took, c.run.took)
		}
		taken, left, changes = taken+int(a.run.took), left+b.N-int(a.run.took), changes+want
	}
	if taken < 8000 || left < 10_000 || changes < 3000 || turned < 2500 {
		t.Errorf("%d packets taken, %d left, a tunnel asked for %d times, %d packets for those that were not: too few of a kind", taken, left, changes, turned)
	}
}

// TestAssemblyPassesOnAsGoDoes: of what came out of associations the assembly takes the packets that the code in Go takes, and leaves the same behind.
func TestAssemblyPassesOnAsGoDoes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	one := func(of ...int) int { return of[rnd.IntN(len(of))] }
	f, err := newFlows(1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	f.generation = 5
	f.shift = 64 - 4 // sixteen places, so that many are full
	type side struct {
		batch packet.Batch
		run   inRun
		in    []uint8
		list  [packet.BatchMax]uint8
	}
	const frames = 40
	taken, left, changes := 0, 0, 0
	for range 3000 {
		b := packet.Batch{Mem: make([]byte, frames*packet.FrameSize), N: frames}
		clear(f.places)
		var in []uint8
		for i := range frames {
			p, flow := &b.P[i], &b.Flows[i]
			end := uint16(packet.EtherLen + one(46, 46, 200, 1400, 1401, 1500, rnd.IntN(60)))
			*p = packet.Packet{Addr: uint64(i)*packet.FrameSize + packet.Headroom + rnd.Uint64N(40), L3: packet.EtherLen, L4: 34, End: end, Len: end,
				Version: uint8(one(4, 4, 4, 4, 4, 4, 6)), Proto: uint8(one(17, 17, 17, 6, 6, 1)), TTL: uint8(one(64, 255, 2, 2, 1, 0)), Flags: packet.FlagDecapsulated, Class: packet.ClassInbound, Hop: 77, Seq: rnd.Uint64()}
			h := b.Mem[p.Addr : p.Addr+80]
			for k := range h {
				h[k] = byte(rnd.Uint32())
			}
			h[14] = byte(one(0x45, 0x45, 0x45, 0x46))
			h[22] = p.TTL
			h[47] = byte(one(0x10, 0x18, 0x02, 0x12))
			binary.BigEndian.PutUint16(h[24:], uint16(one(0, 0xfefe, 0xfeff, 0xff00, 0xffff, rnd.IntN(1<<16))))
			*flow = packet.Flow{Version: p.Version, Proto: p.Proto, SrcPort: uint16(rnd.IntN(2)), DstPort: 9, Flags: packet.FlagPorts}
			flow.Src.Lo, flow.Dst.Lo = uint64(one(1, 2)), uint64(0xffffff00+one(1, 2, 3))
			if rnd.IntN(5) > 0 {
				in = append(in, uint8(i))
			}
			if p.Version != 4 || rnd.IntN(8) == 0 {
				continue
			}
			if place := f.place(flow); f.find(place, flow) == nil {
				k := f.enter(place, flow)
				*k = known{generation: uint32(one(5, 5, 5, 5, 5, 5, 4)), match: spd.Match(one(0, 0, 0, 0, 0, 0, 0, 1, 2)), action: spd.Action(rnd.IntN(3)), way: uint32(one(1, 1, 1, 2, 3)), of: uint32(one(9, 9, 9, 9, 9, 8))}
			}
		}
		carry := func(s *side, pass func(*inRun) *known) (changes int) {
			s.batch, s.in = b, bytes.Clone(in)
			s.batch.Mem = bytes.Clone(b.Mem)
			s.run = inRun{b: &s.batch, f: f, in: s.in, list: &s.list, valid: (5 | uint64(spd.NoMatch)<<32) << 24, routes: 9, way: noHop}
			for k := pass(&s.run); k != nil; k = pass(&s.run) {
				changes++
				if k.way == 3 {
					s.run.keep()
					continue
				}
				s.run.way, s.run.mtu = k.way, 1399+k.way
			}
			return changes
		}
		var x, y side
		want := carry(&x, (*inRun).passGeneric)
		if got := carry(&y, (*inRun).pass); got != want {
			t.Fatalf("the next hop changed %d times, not %d", got, want)
		}
		if x.batch.P != y.batch.P || !bytes.Equal(x.batch.Mem, y.batch.Mem) || x.list != y.list || x.run.took != y.run.took || x.run.kept != y.run.kept ||
			x.run.next != y.run.next || !bytes.Equal(x.in[:x.run.kept], y.in[:y.run.kept]) {
			t.Fatalf("the batches differ: %d and %d taken", x.run.took, y.run.took)
		}
		if int(x.run.took+x.run.kept) != len(in) {
			t.Fatalf("%d packets taken and %d kept of %d", x.run.took, x.run.kept, len(in))
		}
		taken, left, changes = taken+int(x.run.took), left+int(x.run.kept), changes+want
	}
	if taken < 8000 || left < 10_000 || changes < 3000 {
		t.Errorf("%d packets taken, %d left, %d changes of next hop: too few of a kind", taken, left, changes)
	}
}
