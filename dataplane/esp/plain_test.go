package esp

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"sallyport/dataplane/aesgcm"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/replay"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
)

// sealing is all that preparation for encryption reads and writes, but for the keys, which it only reads.
type sealing struct {
	batch   packet.Batch
	of      [4]sad.Outbound
	sa      []*sad.Outbound
	run     plainOutbound
	ops     [packet.BatchMax]aesgcm.Op
	lengths [packet.BatchMax]uint16
	runs    [packet.BatchMax]run
}

// begin starts a run over a copy of memory, of packets for associations by their numbers in of, the first for of[0], and -1 for none.
func (s *sealing) begin(mem []byte, r plainOutbound, of [4]sad.Outbound, sa []int) {
	s.batch.Mem, s.run, s.of = bytes.Clone(mem), r, of
	for _, k := range sa {
		if k < 0 {
			s.sa = append(s.sa, nil)
		} else {
			s.sa = append(s.sa, &s.of[k])
		}
	}
	s.run.o, s.run.sa = &s.of[0], s.sa
	s.run.b, s.run.ops, s.run.lengths, s.run.runs = &s.batch, s.ops[:], s.lengths[:], &s.runs
}

// TestAssemblyPreparesAsGoDoes: what the assembly makes of runs of packets, most of them with something out of the ordinary, is what the
// code in Go makes of them, byte by byte.
func TestAssemblyPreparesAsGoDoes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	one := func(of ...uint64) uint64 { return of[rnd.IntN(len(of))] }
	var keys [5]transform.Key
	for i := range keys {
		suite := transform.AES128GCM16
		if i == 4 {
			suite = transform.ChaCha20Poly1305
		}
		if err := keys[i].Set(suite, bytes.Repeat([]byte{byte(i + 1)}, suite.Info().KeyLen)); err != nil {
			t.Fatal(err)
		}
	}
	whole, stopped, turned := 0, 0, 0
	for range 6_000 {
		const now = 1 << 40
		var of [4]sad.Outbound
		for k := range of {
			o := &of[k]
			o.Version, o.HeaderLen = 4, plainHeaderLen
			o.SPI, o.Slot, o.HeaderSum, o.SeqMax = rnd.Uint32(), uint32(k), uint16(one(0, 0xffff, rnd.Uint64())), one(1<<32-1, ^uint64(0))
			for i := range o.Header {
				o.Header[i] = byte(rnd.Uint32())
			}
			o.Header[10], o.Header[11] = 0, 0
			binary.BigEndian.PutUint32(o.Header[20:], o.SPI)
			o.Flags = sad.Flags(rnd.Uint32()) &^ notPlain
			o.Seq.Set(one(0, 5, 1<<32-3, o.SeqMax-3, o.SeqMax))
			o.Last.Set(now + rnd.Uint64N(1000))
			switch rnd.IntN(40) {
			case 0:
				o.Flags |= sad.Flags(one(uint64(sad.FlagPadded), uint64(sad.FlagGRE), uint64(sad.FlagTransport), uint64(sad.FlagAH), uint64(sad.FlagUDPChecksum)))
			case 1:
				o.HeaderLen += udpLen
			case 2:
				o.Slot = 4
			case 3:
				o.Last.Set(one(0, now-1, now+1<<23, 1<<63))
			}
		}
		o := &of[0]
		o.HeaderLen = plainHeaderLen
		df := [2]uint32{uint32(one(0, uint64(packet.FlagDF))), uint32(one(0, uint64(packet.FlagDF)))}
		r := plainOutbound{
			keys: keys[:], now: now, due: one(sad.DueBits, sad.DueBits, 0), gcm: transform.RunOf(&keys[0], rnd.Uint32(), rnd.IntN(2) == 0),
			tosMask: uint32(one(0, 3, 0xfc, 0xff)), copyDF: [2]uint32{uint32(one(0, uint64(packet.FlagDF)))}, setDF: df,
			id: uint32(one(0, 0xfffe, 0xffff, 7)), seq: o.Seq.Load(), bytes: one(0, 1000),
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
		}
		if rnd.IntN(8) == 0 { // memory ends where the last packet will, or a byte before or behind that
			p := &a.batch.P[chunks-1]
			length := int(p.End - p.L3)
			mem = slices.Clip(append(mem, make([]byte, 3000)...)[:min(int(p.Addr)+int(p.L3)+(length+trailerLen+3)&^3+plainBack+rnd.IntN(3)-1, chunks*packet.FrameSize)])
		}
		for i := range uint8(chunks) {
			r.live = append(r.live, i)
		}
		rnd.Shuffle(chunks, func(i, j int) { r.live[i], r.live[j] = r.live[j], r.live[i] })
		r.live = r.live[:rnd.IntN(chunks+1)]
		sa, mixed := make([]int, chunks), rnd.IntN(3) > 0
		for i := range sa {
			if mixed && rnd.IntN(2) == 0 {
				sa[i] = rnd.IntN(len(of))
			}
			if rnd.IntN(50) == 0 {
				sa[i] = -1
			}
		}
		b.batch = a.batch
		a.begin(mem, r, of, sa)
		b.begin(mem, r, of, sa)
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
		if a.run.id != b.run.id || a.run.seq != b.run.seq || a.run.bytes != b.run.bytes || a.run.done != b.run.done {
			t.Fatalf("the runs end with %d, %d, %d, %d and %d, %d, %d, %d", a.run.id, a.run.seq, a.run.bytes, a.run.done, b.run.id, b.run.seq, b.run.bytes, b.run.done)
		}
		if a.of != b.of {
			t.Fatal("associations differ")
		}
		packets, at := uint64(0), 0
		for k := range a.run.done {
			x, y := &a.runs[k], &b.runs[k]
			if x.packets != y.packets || x.bytes != y.bytes || x.packets == 0 {
				t.Fatalf("run %d has %d packets of %d bytes, not %d of %d", k, y.packets, y.bytes, x.packets, x.bytes)
			}
			for ; at < int(packets+x.packets); at++ {
				if i := r.live[at]; x.sa != a.sa[i] || y.sa != b.sa[i] {
					t.Fatalf("packet %d is one of another run", at)
				}
			}
			packets += x.packets
		}
		if packets != uint64(want) {
			t.Fatalf("%d packets in runs, not %d", packets, want)
		}
		turned += max(0, int(a.run.done)-1)
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
	if whole < 1000 || stopped < 1000 || turned < 2000 {
		t.Errorf("%d runs went through, %d stopped, %d turns: too few of a kind", whole, stopped, turned)
	}
}

// accepting is all that accepting opened packets reads and writes, but for the ops, which it only reads.
type accepting struct {
	batch packet.Batch
	of    [3]sad.Inbound
	run   plainInbound
}

// begin starts a run of packets for associations by their numbers in of, the first of which is that of run number r.run.
func (s *accepting) begin(batch *packet.Batch, r plainInbound, of [3]sad.Inbound, runs, packets []int) {
	s.batch, s.run, s.of = *batch, r, of
	s.run.b = &s.batch
	for k := range runs {
		s.run.runs = append(s.run.runs, openRun{&s.of[runs[k]], packets[k]})
	}
	s.run.open(&s.of[runs[r.run]])
}

// TestAssemblyAcceptsAsGoDoes: what the assembly makes of runs of opened packets, most of them with something out of the ordinary, is what the code in Go makes
// of them, byte by byte.
func TestAssemblyAcceptsAsGoDoes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	one := func(of ...uint64) uint64 { return of[rnd.IntN(len(of))] }
	g := newRig(t)
	var installed []*sad.Inbound // of which only bounds are of interest
	for _, bounds := range []sad.Lifetime{{}, {}, {}, {SoftBytes: 3000, HardBytes: 4000}, {HardBytes: 3000}, {SoftPackets: 1000}, {HardPackets: 1001}} {
		p := g.params(transform.AES128GCM16, 4, false, true)
		p.Lifetime = bounds
		installed = append(installed, g.install(p).in)
	}
	accepted, stopped, turned, back := 0, 0, 0, 0
	for range 20_000 {
		const chunks, now = 8, 1 << 40
		mem := make([]byte, chunks*packet.FrameSize)
		var a, b packet.Batch
		var ops [chunks]aesgcm.Op
		r := plainInbound{
			ops: ops[:], now: now + rnd.Uint64N(1000), due: one(0, sad.DueBits),
			front: plainFront + one(0, 0, udpLen, ipv6Len-ipv4Len, ipv6Len-ipv4Len+udpLen), ecn: 0x03,
		}
		shift := one(0, 4)
		r.ecn <<= shift
		var of [3]sad.Inbound
		var next [3]uint64 // sequence number
		for k := range of {
			o := &of[k]
			*o = *installed[rnd.IntN(len(installed))]
			o.SPI = rnd.Uint32()
			o.Plain = spd.Plain{Remote: 0xc6336400, Remotes: 0xff, Local: 0xcb007100, Locals: uint32(one(0xff, 0xff, 0xff, 0xff, 0))}
			if rnd.IntN(6) == 0 {
				o.Plain.Proto, o.Plain.Matters = uint16(one(packet.ProtoUDP, packet.ProtoTCP, 1<<8)), 0xffff
			}
			next[k] = one(0, 1, 62, 63, 4095, 1<<32-2, 1<<32-1, 1<<32, 1<<63, 1<<64-4, rnd.Uint64())
			o.Window = replay.New(uint32(one(32, 64, 4096, 65536)), true)
			o.Window.Advance(make([]uint64, o.Window.Words()), next[k])
			o.Window.Follow(next[k])
			next[k]++
			o.Packets.Set(one(0, 0, 0, 990, 998, 999, 1000, 1<<40))
			o.Bytes.Set(one(0, 0, 0, 2800, 2999, 1<<40))
			o.Last.Set(one(now, now, now, now, now, now, now, 0, now-1, now+1<<23, 1<<63))
			switch rnd.IntN(30) {
			case 0:
				o.Version = 6
			case 1:
				o.Flags |= sad.FlagEncap
			case 2:
				o.Flags ^= sad.FlagESN | sad.FlagECN
			}
		}
		// The packets are in runs, behind those that were done with.
		var runs, packets, whose []int
		if rnd.IntN(2) == 0 {
			r.run, runs, packets = 1, append(runs, 0), append(packets, 3)
		}
		for total := rnd.IntN(chunks + 1); len(whose) < total || len(runs) == int(r.run); {
			k, n := rnd.IntN(len(of)), min(1+rnd.IntN(4), total-len(whose))
			runs, packets = append(runs, k), append(packets, n)
			for range n {
				whose = append(whose, k)
			}
		}
		r.end = uint64(packets[r.run])
		order := rnd.Perm(chunks)
		for k, i := range order {
			if k == len(whose) {
				break
			}
			p, op := &a.P[i], &ops[k]
			seq := next[whose[k]]
			next[whose[k]]++
			*p = packet.Packet{
				Addr: uint64(i)*packet.FrameSize + packet.Headroom + rnd.Uint64N(3), Port: 3, Class: packet.ClassInbound, Slot: rnd.Uint32(), Seq: seq,
				L3: 1, L4: 2, End: 3, SrcPort: 4, DstPort: 5, Version: 6, Proto: 7, TOS: 8, TTL: 9, Flags: packet.FlagVLAN, SPI: 10, Hop: 11, Interface: 12,
			}
			a.Flows[i] = packet.Flow{Src: packet.Addr{Hi: 1, Lo: 2}, Dst: packet.Addr{Hi: 3, Lo: 4}, SrcPort: 5}
			outer := mem[p.Addr+packet.EtherLen:]
			inner := outer[r.front:]
			outer[1] = ^r.ecn
			length, tfc := 24+rnd.IntN(80), int(one(0, 0, 0, 1, 2, 3, 50))
			for j := range length {
				inner[j] = byte(rnd.Uint32())
			}
			inner[0], inner[6], inner[7], inner[9] = 0x45, byte(one(0, 0x40)), 0, byte(one(packet.ProtoUDP, packet.ProtoTCP))
			binary.BigEndian.PutUint16(inner[2:], uint16(length))
			copy(inner[12:], []byte{198, 51, 100, byte(rnd.Uint32()), 203, 0, 113, byte(one(0, 0, rnd.Uint64()))})
			pad := -(length + tfc + trailerLen) & 3
			text := inner[:length+tfc+pad+trailerLen]
			copy(text[length+tfc:], []byte{1, 2, 3}[:pad])
			text[len(text)-2], text[len(text)-1] = byte(pad), packet.ProtoIPv4
			op.OK = true
			odd := rnd.IntN(120)
			switch odd {
			case 0:
				op.OK = false
			case 1:
				p.Seq += one(1, 1<<32, ^uint64(0))
			case 2:
				outer[1] = byte((1 + rnd.IntN(3)) << shift)
			case 3:
				text[len(text)-1] = byte(one(packet.ProtoIPv6, packet.ProtoNone, rnd.Uint64()))
			case 4:
				text[len(text)-2] = byte(one(4, 255, rnd.Uint64()))
			case 5:
				text[len(text)-3]++
			case 6:
				inner[rnd.IntN(24)]++
			case 7:
				binary.BigEndian.PutUint16(inner[2:], uint16(one(23, uint64(length)+uint64(tfc), uint64(length)+uint64(tfc)+1, rnd.Uint64())))
			case 8:
				inner[9] = byte(one(packet.ProtoESP, packet.ProtoICMP, rnd.Uint64()))
			case 9:
				inner[6+rnd.IntN(2)] ^= 1 << rnd.IntN(8)
			case 10:
				text = text[:len(text)-min(len(text), int(rnd.Uint64N(40)))]
			case 11:
				inner[12+rnd.IntN(8)]++
			}
			if odd != 6 {
				inner[10], inner[11] = 0, 0
				binary.BigEndian.PutUint16(inner[10:], packet.Checksum(inner[:20], 0))
			}
			op.Buf = inner[:len(text)+plainBack]
			r.live = append(r.live, uint8(i))
		}
		a.Mem = mem
		b = a
		var want, got accepting
		if rnd.IntN(8) == 0 { // what is left of a run
			runs, packets = runs[:r.run+1], packets[:r.run+1]
			r.live = r.live[:r.end]
		}
		want.begin(&a, r, of, runs, packets)
		got.begin(&b, r, of, runs, packets)
		n := want.run.acceptGeneric()
		if m := got.run.accept(); m != n {
			t.Fatalf("%d packets are accepted, not %d", m, n)
		}
		x, y := &want.run, &got.run
		if want.batch.P != got.batch.P || want.batch.Flows != got.batch.Flows || x.top != y.top || x.bytes != y.bytes || x.run != y.run || x.from != y.from || x.end != y.end {
			t.Fatal("records, flows or tops differ")
		}
		if want.of != got.of {
			t.Fatal("associations differ")
		}
		if last := runs[x.run]; x.in != &want.of[last] || y.in != &got.of[last] {
			t.Fatal("it ends with another association")
		}
		accepted += n
		if n < len(r.live) {
			stopped++
		}
		turned += int(x.run - r.run)
		if x.run > r.run && runs[x.run] == runs[x.run-1] {
			back++
		}
	}
	if accepted < 20_000 || stopped < 2000 || turned < 5000 || back < 500 {
		t.Errorf("%d packets accepted, %d runs stopped, %d turns, %d to the association itself: too few of a kind", accepted, stopped, turned, back)
	}
}

// TestAssemblyTakesAsGoDoes: what the assembly makes of runs of packets as they were received, most of them with something out of the ordinary, is what the code in Go
// makes of them, byte by byte.
func TestAssemblyTakesAsGoDoes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	one := func(of ...uint64) uint64 { return of[rnd.IntN(len(of))] }
	g := newRig(t)
	const tunnels = 6
	var of [tunnels]*sad.Inbound
	install := func(k int) {
		if of[k] != nil {
			if err := g.table.RemoveInbound(of[k].SPI); err != nil {
				t.Fatal(err)
			}
			g.table.Pass(0)
		}
		p := g.params([]transform.Suite{transform.AES128GCM16, transform.AES256GCM16, transform.ChaCha20Poly1305}[min(2, rnd.IntN(12)/5)], int(one(4, 4, 4, 4, 4, 4, 4, 6)), rnd.IntN(10) == 0, rnd.IntN(2) == 0)
		p.Inbound, p.Transport = true, rnd.IntN(20) == 0
		if rnd.IntN(12) == 0 {
			p.Local = gatewayB4
			if p.Remote.Is6() {
				p.Local = gatewayB6
			}
		}
		switch {
		case p.Remote.Is4():
			p.Remote = netip.AddrFrom4([4]byte{192, 0, 2, byte(one(2, 3, 4))})
		case rnd.IntN(2) == 0: // begins with what is our address over IPv4 at the place where that stands
			p.Remote = netip.MustParseAddr("2001:db8:c000:201::1")
		}
		p.Window = uint32(one(32, 64, 4096))
		if rnd.IntN(8) > 0 {
			p.SPI = 0 // the table says which
		} else {
			p.Manual = true
		}
		if rnd.IntN(20) == 0 { // what there is no short form for
			p.Selectors[0].LocalPorts = spd.PortRange{First: 7, Last: 8}
		}
		h, err := g.table.Install(p)
		if err != nil {
			t.Fatal(err)
		}
		in := g.table.LookupInbound(h.Value())
		if of[k] = in; rnd.IntN(30) > 0 {
			in.Claim(0)
		}
		if rnd.IntN(20) == 0 {
			in.Flags |= sad.Flags(one(uint64(sad.FlagGuarded), uint64(sad.FlagEnded), uint64(sad.FlagGRE), uint64(sad.FlagAH), uint64(sad.FlagCopyDSCP)))
		}
		if rnd.IntN(20) == 0 {
			if err := g.table.RequestMove(h, 0); err != nil {
				t.Fatal(err)
			}
			in.Ownership = [...]sad.Ownership{{}, in.Ownership}[rnd.IntN(2)]
		}
		if rnd.IntN(4) > 0 {
			top := one(5, 5, 1000, 5000, 1<<32-1, 1<<32+5, 1<<32+40, 1<<32+5000, 1<<32+6000, 1<<33-1)
			if in.Flags&sad.FlagESN == 0 {
				top &= 1<<32 - 1
			}
			in.Window.Follow(top)
		}
	}
	taken, stopped, late, turned := 0, 0, 0, 0
	for round := range 20_000 {
		const chunks = 8
		var a, b packet.Batch
		var ops [2][chunks]aesgcm.Op
		mem := make([]byte, chunks*packet.FrameSize)
		if round%16 == 0 {
			for k := range of {
				if of[k] == nil || rnd.IntN(3) == 0 {
					install(k)
				}
			}
		}
		find := g.table.Finder(0)
		for k := range of {
			if rnd.IntN(8) > 0 {
				find.SlotOf(of[k].SPI)
			}
		}
		// Where none of the associations may be the first one, another one is.
		var first *sad.Inbound
		for range 20 {
			if in := of[rnd.IntN(tunnels)]; g.scratch.TakesESP(in) && frontOf(in) == plainFront {
				first = in
				break
			}
		}
		if first == nil {
			continue
		}
		r := plainTaken{first: rnd.Uint64N(1 + rnd.Uint64N(chunks)), port: uint16(rnd.Uint32N(3)), find: find, late: rnd.IntN(2) == 0}
		r.from = r.first - rnd.Uint64N(r.first+1)
		r.open(first, g.table.InboundKey(first.Slot))
		if rnd.IntN(8) == 0 {
			r.hi, r.above = uint64(rnd.Uint32N(3))<<32, uint32(one(0, 7, 1<<31, 1<<32-1))
		}
		in, often := first, 1+rnd.IntN(4)
		for i := range chunks {
			if rnd.IntN(often) == 0 {
				if in = of[rnd.IntN(tunnels)]; rnd.IntN(3) == 0 {
					in = first
				}
			}
			_, above := in.Window.Ahead()
			if in == first {
				above = r.above
			}
			p := &a.P[i]
			*p = packet.Packet{Addr: uint64(i)*packet.FrameSize + packet.Headroom + rnd.Uint64N(3), Port: r.port, SPI: 1, Hop: 2, Flags: packet.FlagVLAN}
			length := plainFront + plainBack + 4*rnd.IntN(50)
			h := mem[p.Addr:]
			for j := range packet.EtherLen + length {
				h[j] = byte(rnd.Uint32())
			}
			p.Len = uint16(packet.EtherLen + length + int(one(0, 0, 1, 60)))
			h[12], h[13], h[14], h[20], h[21], h[23] = 8, 0, 0x45, byte(one(0, 0x40)), 0, packet.ProtoESP
			binary.BigEndian.PutUint16(h[16:], uint16(length))
			copy(h[26:], in.Addresses[:8])
			binary.BigEndian.PutUint32(h[34:], in.SPI)
			binary.BigEndian.PutUint32(h[38:], above+1+rnd.Uint32N(100))
			odd := rnd.IntN(100)
			switch odd {
			case 0:
				p.Port++
			case 1:
				p.Class = packet.Class(one(uint64(packet.ClassInbound), uint64(packet.ClassPunt)))
			case 2:
				p.Len = uint16(rnd.IntN(packet.EtherLen + length))
			case 3:
				h[12+rnd.IntN(30)]++
			case 4:
				h[20+rnd.IntN(2)] ^= 1 << rnd.IntN(8)
			case 5:
				binary.BigEndian.PutUint16(h[16:], uint16(one(0, 35, 50, uint64(length)-1, uint64(length)+4, rnd.Uint64())))
			case 6:
				binary.BigEndian.PutUint32(h[38:], above-rnd.Uint32N(2))
			case 7:
				h[26+rnd.IntN(12)]++
			case 8:
				h[15] = byte(rnd.Uint32())
			case 10: // none, or one that was never asked for
				binary.BigEndian.PutUint32(h[34:], uint32(one(0, 1, 255, rnd.Uint64())))
			case 9:
				p.Addr = uint64(len(mem)) - one(10, 50, uint64(p.Len)-1)
			case 11: // one that is whole at the end of memory, and said to be as long or a byte longer
				p.Len = uint16(max(packet.EtherLen+length, packet.EtherLen+frontMax))
				p.Addr = uint64(len(mem)) - uint64(p.Len)
				copy(mem[p.Addr:], h[:packet.EtherLen+length])
				p.Len += uint16(rnd.IntN(2))
				h = mem[p.Addr:]
			}
			if odd != 3 && p.Addr+34 < uint64(len(mem)) {
				h[24], h[25] = 0, 0
				binary.BigEndian.PutUint16(h[24:], packet.Checksum(h[14:34], 0))
			}
		}
		a.Mem, a.N = mem, min(rnd.IntN(3*chunks), chunks)
		b = a
		want, got := r, r
		var runs [2][packet.BatchMax]openRun
		want.b, want.ops, want.runs, got.b, got.ops, got.runs = &a, ops[0][:], &runs[0], &b, ops[1][:], &runs[1]
		n := want.takeGeneric()
		if m := got.take(); m != n || want.late != got.late {
			t.Fatalf("%d packets are taken, not %d; %v, %v", m, n, got.late, want.late)
		}
		if a.P != b.P {
			t.Fatal("records differ")
		}
		if want.in != got.in || want.from != got.from || want.done != got.done || runs[0] != runs[1] {
			t.Fatalf("the runs differ: %v, %v", runs[1][:got.done], runs[0][:want.done])
		}
		if want.addresses != got.addresses || want.gcm != got.gcm || want.hi != got.hi || want.above != got.above || want.slot != got.slot {
			t.Fatalf("it goes on with %+v, not %+v", got, want)
		}
		// By what is known of the batch, without what was found on the way: each packet is one of its run's association.
		want.close(want.first + uint64(n))
		for k, at := 0, int(r.from); k < int(want.done); k++ {
			for last := at + runs[0][k].packets; at < last; at++ {
				if at < int(r.first) {
					continue // not of this call
				}
				p, in := &a.P[at], runs[0][k].sa
				if h := mem[p.Addr:]; p.Slot != in.Slot || binary.BigEndian.Uint32(h[34:]) != in.SPI || [8]byte(h[26:34]) != [8]byte(in.Addresses[:]) || ops[0][at-int(r.first)].Key != key(g, in) {
					t.Fatalf("packet %d is taken for association %#x", at, in.SPI)
				}
				if in == first {
					continue
				}
				turned++
				if in.Owner() != 0 || in.Asked() || in.Flags&(sad.FlagGuarded|sad.FlagEnded) != 0 || g.table.LookupInbound(in.SPI) != in || !g.scratch.TakesESP(in) || in.LocalAddr() != first.LocalAddr() {
					t.Fatalf("a packet of association %#x is taken: %+v", in.SPI, in)
				}
				if in.Window.Infer(binary.BigEndian.Uint32(mem[p.Addr+38:])) != p.Seq || in.Window.Check(g.table.Bits(in), p.Seq) != replay.OK {
					t.Fatalf("packet %d has number %d, behind %d", at, p.Seq, in.Window.Top())
				}
			}
		}
		for k := range n {
			x, y := &ops[0][k], &ops[1][k]
			if x.Key != y.Key || x.Nonce != y.Nonce || x.AAD != y.AAD || x.AADLen != y.AADLen || len(x.Buf) != len(y.Buf) || cap(x.Buf) != cap(y.Buf) || &x.Buf[0] != &y.Buf[0] {
				t.Fatalf("op %d differs: %+v, %+v", k, x, y)
			}
		}
		taken += n
		if int(r.first)+n < a.N {
			stopped++
		}
		if want.late {
			late++
		}
	}
	if taken < 10_000 || stopped < 2000 || late < 100 || turned < 3000 {
		t.Errorf("%d packets taken, %d runs stopped, %d at one that is late, %d of others turned to: too few of a kind", taken, stopped, late, turned)
	}
}

// key is that of an association as an op has it.
func key(g *rig, in *sad.Inbound) *aesgcm.Key {
	var op aesgcm.Op
	r := transform.RunOf(g.table.InboundKey(in.Slot), 0, false)
	r.Put(&op, nil, 0, 0)
	return op.Key
}
