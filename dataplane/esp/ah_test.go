package esp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"testing"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/transform"
)

var signers = []transform.Suite{transform.NullSHA256, transform.NullSHA384, transform.NullSHA512, transform.AES128GMAC, transform.AES192GMAC, transform.AES256GMAC}

// signed describes an association of AH from A to B.
func (g *rig) signed(suite transform.Suite, outer int, transport, esn bool) sad.Params {
	p := g.params(suite, outer, false, esn)
	if transport {
		p = g.transport(suite, outer, false, esn)
	}
	p.AH = true
	return p
}

// Options that routers may change.
var (
	changing6 = []byte{0, 1, 0x3e, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12} // in a hop-by-hop header
	record4   = []byte{7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 1}                   // record route, and NOP
)

// again6 is own6 with a hop-by-hop header whose option may change.
func (g *rig) again6(length int) []byte {
	d := g.own6(length, hopByHop)
	d = slices.Insert(d, 48, changing6...)
	d = slices.Delete(d, 40, 48)
	d[40] = packet.ProtoUDP
	binary.BigEndian.PutUint16(d[4:], uint16(len(d)-40))
	return d
}

// travel changes what routers may change in a datagram.
func (g *rig) travel(d []byte) []byte {
	d = bytes.Clone(d)
	if d[0]>>4 == 4 {
		d[1], d[8] = byte(g.r.Uint32()), d[8]-3
		d[6] ^= 0x40
		header := int(d[0]&15) * 4
		if i := bytes.Index(d[20:header], record4[:3]); i >= 0 {
			copy(d[20+i+2:], []byte{8, 192, 0, 2, 77})
		}
		if i := bytes.Index(d[20:header], timestamp4[:2]); i >= 0 {
			copy(d[20+i+2:], []byte{9, 0x10, 1, 2, 3, 4})
		}
		d[10], d[11] = 0, 0
		binary.BigEndian.PutUint16(d[10:], packet.Checksum(d[:header], 0))
		return d
	}
	d[0], d[1], d[2], d[3], d[7] = 0x60|byte(g.r.Uint32()&15), byte(g.r.Uint32()), byte(g.r.Uint32()), byte(g.r.Uint32()), d[7]-3
	if i := bytes.Index(d, changing6[2:]); i > 0 {
		g.r.Uint32()
		d[i+5] ^= 0xff
	}
	return d
}

// TestAHCarries: datagrams of every kind, in both modes, by routers that change what they may; what arrives is what was sent but for that.
func TestAHCarries(t *testing.T) {
	for _, suite := range signers {
		for _, esn := range []bool{false, true} {
			for length := range 12 {
				g := newRig(t)
				for _, transport := range []bool{false, true} {
					own := [][]byte{
						g.own4(length), g.own4(length, alert4, timestamp4), g.own4(length, record4), g.own6(length), g.own6(length, hopByHop),
						g.again6(length), g.own6(length, hopByHop, destination, routing), g.own6(length, routing, destination),
					}
					if !transport {
						own = [][]byte{g.datagram(4, 28+length), g.datagram(6, 48+length)}
					}
					for _, d := range own {
						for outer := 4; outer <= 6; outer += 2 {
							if transport && outer != int(d[0]>>4) {
								continue
							}
							p := g.signed(suite, outer, transport, esn)
							p.ECN, p.Sequence = false, uint64(map[bool]int{true: 1<<32 - 2}[esn])
							tu := g.install(p)
							tu.in.Window.Advance(g.table.Bits(tu.in), p.Sequence)
							for range 4 {
								sealed := g.seal1(d, tu.out)
								if len(sealed) > 1500-(tu.out.InnerMTU(1500)-len(d)) {
									t.Fatalf("%d bytes became %d", len(d), len(sealed))
								}
								arrived := g.travel(sealed)
								want := d
								if transport {
									want = g.unsigned(arrived)
								}
								if reason := g.open1(arrived, tu.in); reason != packet.DropNone {
									t.Fatalf("%s, v%d, transport %v, ESN %v: %v\n%x", suite, outer, transport, esn, reason, arrived)
								}
								if got := g.batch.IP(0); !bytes.Equal(got, want) {
									t.Fatalf("%s, v%d, transport %v: %x, want %x", suite, outer, transport, got, want)
								}
							}
							if n := tu.in.Packets.Load(); n != 4 || tu.in.BadICV.Load() != 0 {
								t.Fatalf("counted %d", n)
							}
						}
					}
				}
			}
		}
	}
}

// unsigned takes AH out of a datagram in transport mode, naively.
func (g *rig) unsigned(d []byte) []byte {
	d = bytes.Clone(d)
	at, next := int(d[0]&15)*4, 9
	if d[0]>>4 == 6 {
		at, next = 40, 6
		for d[next] != packet.ProtoAH {
			next = at
			at += 8 + 8*int(d[at+1])
		}
	}
	d[next] = d[at]
	d = slices.Delete(d, at, at+8+4*int(d[at+1]))
	if d[0]>>4 == 4 {
		binary.BigEndian.PutUint16(d[2:], uint16(len(d)))
		d[10], d[11] = 0, 0
		binary.BigEndian.PutUint16(d[10:], packet.Checksum(d[:at], 0))
	} else {
		binary.BigEndian.PutUint16(d[4:], uint16(len(d)-40))
	}
	return d
}

// TestEveryDamagedByteOfAHIsRefused flips every byte: what routers may change is accepted, nothing else.
func TestEveryDamagedByteOfAHIsRefused(t *testing.T) {
	for _, suite := range signers {
		for _, d := range [][]byte{newRig(t).own4(40, alert4), newRig(t).own6(40, hopByHop)} {
			g := newRig(t)
			tu := g.install(g.signed(suite, int(d[0]>>4), true, true))
			good := g.seal1(d, tu.out)
			mutable := map[int]byte{1: 0xff, 6: 0xff, 7: 0xff, 8: 0xff}
			if d[0]>>4 == 6 {
				mutable = map[int]byte{0: 0x0f, 1: 0xff, 2: 0xff, 3: 0xff, 7: 0xff}
			}
			for at := range good {
				for bit := range 8 {
					bad := bytes.Clone(good)
					bad[at] ^= 1 << bit
					if d[0]>>4 == 4 && at < 24 {
						if at == 10 || at == 11 {
							continue
						}
						bad[10], bad[11] = 0, 0
						binary.BigEndian.PutUint16(bad[10:], packet.Checksum(bad[:24], 0))
					}
					g.put(0, bad)
					if packet.Parse(g.batch, 0) != packet.DropNone {
						continue
					}
					live := g.scratch.Decapsulate(g.batch, []uint8{0}, []*sad.Inbound{tu.in})
					accepted := len(live) == 1
					if accepted != (mutable[at]&(1<<bit) != 0 && g.batch.P[0].Reason == packet.DropNone) {
						t.Fatalf("%s, v%d: bit %d of byte %d: accepted %v, %v", suite, d[0]>>4, bit, at, accepted, g.batch.P[0].Reason)
					}
					if accepted { // accepted once
						tu = g.install(g.signed(suite, int(d[0]>>4), true, true))
						good = g.seal1(d, tu.out)
					}
				}
			}
		}
	}
}

// TestAHRefuses names every way in which AH can be wrong.
func TestAHRefuses(t *testing.T) {
	for _, suite := range signers {
		g := newRig(t)
		tu, tu6 := g.install(g.signed(suite, 4, true, true)), g.install(g.signed(suite, 6, true, true))
		tunnel4 := g.install(g.signed(suite, 4, false, true))
		plain := g.tunnel(suite, 4, false, true)
		fix := func(d []byte) []byte { sum4(d); return d }
		// sign signs a header and a payload as they are.
		sign := func(tu tunnel, seq uint64, header []byte, proto byte, payload []byte) []byte {
			size := 12 + int(tu.in.ICVLen)
			if header[0]>>4 == 6 {
				size = (size + 7) &^ 7
			}
			d := append(bytes.Clone(header), make([]byte, size)...)
			ah := d[len(header):]
			ah[0], ah[1] = proto, byte(size/4-2)
			binary.BigEndian.PutUint32(ah[4:], tu.in.SPI)
			binary.BigEndian.PutUint32(ah[8:], uint32(seq))
			d = append(d, payload...)
			ah = d[len(header):]
			next := nextIPv4
			if header[0]>>4 == 6 {
				next = nextOf(d, len(header))
			}
			d[next] = packet.ProtoAH
			finishLengths(d, len(header), d[0]>>4)
			covered := append(bytes.Clone(d), 0, 0, 0, 0)
			if muteable(covered[:len(header)], d[0]>>4) {
				mute(covered[:len(header)], d[0]>>4)
			}
			new(transform.Batch).Sign(g.table.OutboundKey(tu.out.Slot), covered, seq, ah[12:12+tu.in.ICVLen])
			return d
		}
		seq := uint64(0)
		try := func(name string, tu tunnel, d []byte, want packet.Drop) {
			t.Helper()
			if reason := g.open1(d, tu.in); reason != want {
				t.Errorf("%s: %s: %v, want %v", suite, name, reason, want)
			}
		}
		good4, good6 := g.own4(24), g.own6(24)
		next := func() uint64 { seq++; return seq }
		try("good", tu, sign(tu, next(), good4[:20], 17, good4[20:]), packet.DropNone)
		try("good v6", tu6, sign(tu6, next(), good6[:40], 17, good6[40:]), packet.DropNone)
		// IPv4 with padding to 8 bytes, as some peers have it; and the wrong one in IPv6.
		wide := sign(tu, next(), good4[:20], 17, good4[20:])
		if size := 12 + int(tu.in.ICVLen); size%8 != 0 {
			wide = slices.Insert(wide, 20+size, 9, 9, 9, 9) // covered, whatever it is
			wide[21] += 1
			finishLengths(wide, 20, 4)
			covered := append(bytes.Clone(wide), 0, 0, 0, 0)
			mute(covered[:20], 4)
			clear(covered[32 : 32+tu.in.ICVLen])
			new(transform.Batch).Sign(g.table.OutboundKey(tu.out.Slot), covered, seq, wide[32:32+tu.in.ICVLen])
			try("padding to 8", tu, wide, packet.DropNone)
			narrow := sign(tu6, next(), good6[:40], 17, good6[40:])
			narrow = slices.Delete(narrow, 40+size, 40+size+4)
			narrow[41]--
			finishLengths(narrow, 40, 6)
			try("padding to 4 in IPv6", tu6, narrow, packet.DropBadAH)
		}
		for name, length := range map[string]int{"ICV too short": -1, "ICV too long": +1, "no ICV": -int(tu.in.ICVLen) / 4, "longer than the packet": 100} {
			bad := sign(tu, next(), good4[:20], 17, good4[20:])
			bad[21] += byte(length)
			if length == 1 && tu.in.ICVLen%8 == 0 {
				bad[21]++ // one more would be the padding to 8 bytes
			}
			try(name, tu, bad, packet.DropBadAH)
		}
		short := sign(tu, next(), good4[:20], 17, nil)[:28]
		finishLengths(short, 20, 4)
		try("cut", tu, short, packet.DropBadAH)
		try("next header 59", tu, sign(tu, next(), good4[:20], 59, good4[20:]), packet.DropDummy)
		try("next header 59 in a tunnel", tunnel4, sign(tunnel4, next(), good4[:20], 59, good4[20:]), packet.DropDummy)
		try("no tunnel", tunnel4, sign(tunnel4, next(), good4[:20], 17, good4[20:]), packet.DropBadNextHeader)
		try("broken inner", tunnel4, sign(tunnel4, next(), good4[:20], 4, good4[:19]), packet.DropBadInner)
		try("wrong inner version", tunnel4, sign(tunnel4, next(), good4[:20], 41, g.datagram(4, 60)), packet.DropBadInner)
		try("outside of the selectors", tunnel4, sign(tunnel4, next(), good4[:20], 4, good4), packet.DropSelectorMismatch)
		try("broken upper layer", tu6, sign(tu6, next(), good6[:40], packet.ProtoHopByHop, []byte{17, 9}), packet.DropBadInner)
		options := g.own4(24, []byte{7, 60, 4, 0})
		try("an option longer than the header", tu, sign(tu, next(), options[:24], 17, good4[20:]), packet.DropBadAH)
		options = g.own4(24, []byte{7, 1, 4, 0})
		try("an option shorter than its length", tu, sign(tu, next(), options[:24], 17, good4[20:]), packet.DropBadAH)
		left := g.own6(24, routing)
		left[43] = 1
		try("segments left", tu6, sign(tu6, next(), left[:64], 17, good6[40:]), packet.DropBadAH)
		try("a fragment header", tu6, sign(tu6, next(), g.own6(0, atomic)[:48], 17, good6[40:]), packet.DropBadAH)
		unparsed := g.own6(24, destination)
		unparsed[43] = 9
		try("destination options that do not parse", tu6, sign(tu6, next(), unparsed[:48], 17, good6[40:]), packet.DropBadAH)
		fragment := sign(tu, next(), good4[:20], 17, good4[20:])
		fragment[6] = 0x20
		try("a fragment", tu, fix(fragment), packet.DropOuterFragment)
		elsewhere := sign(tu, next(), good4[:20], 17, good4[20:])
		elsewhere[15]++
		try("from elsewhere", tu, fix(elsewhere), packet.DropWrongEndpoint)
		try("ESP for AH", tu, g.seal1(g.datagram(4, 80), plain.out), packet.DropWrongEndpoint)
		try("AH for ESP", plain, sign(tu, next(), good4[:20], 17, good4[20:]), packet.DropWrongEndpoint)
		try("another SPI", tu, sign(tunnel4, next(), good4[:20], 17, good4[20:]), packet.DropNoAssociation)
		twice := sign(tu, next(), good4[:20], 17, good4[20:])
		if got := g.open([][]byte{twice, twice}, []*sad.Inbound{tu.in, tu.in}); got[0] != packet.DropNone || got[1] != packet.DropReplayed {
			t.Errorf("%s: twice in a batch: %v", suite, got)
		}
		try("again", tu, twice, packet.DropReplayed)

		// What cannot be sent.
		routed := g.own4(24, []byte{131, 7, 4, 192, 0, 2, 9, 1})
		unread := g.own4(24, []byte{68, 90, 5, 0})
		first := g.own4(24)
		first[6] = 0x20
		foreign := g.own4(24)
		foreign[15]++
		for _, c := range []struct {
			d    []byte
			o    *sad.Outbound
			want packet.Drop
		}{
			{routed, tu.out, packet.DropBadAH}, {unread, tu.out, packet.DropBadAH}, {left, tu6.out, packet.DropBadAH}, {g.own6(24, atomic), tu6.out, packet.DropBadAH},
			{fix(first), tu.out, packet.DropTransportFragment}, {fix(foreign), tu.out, packet.DropTransportAddresses},
			{g.datagram(4, 4096-256-14-64), tunnel4.out, packet.DropNoRoom},
		} {
			spent := c.o.Seq.Load()
			g.put(0, c.d)
			g.parse(0)
			if live := g.scratch.Encapsulate(g.batch, []uint8{0}, []*sad.Outbound{c.o}); len(live) != 0 || g.batch.P[0].Reason != c.want || c.o.Seq.Load() != spent {
				t.Errorf("%s: %x: %v, want %v", suite, c.d[:min(40, len(c.d))], g.batch.P[0].Reason, c.want)
			}
		}
	}
	for _, p := range []sad.Params{
		newRig(t).signed(transform.AES128GCM16, 4, false, true), newRig(t).signed(transform.AES128CBCSHA256, 4, false, true),
		func() sad.Params {
			p := newRig(t).signed(transform.NullSHA256, 4, false, true)
			p.Encap = true
			return p
		}(),
	} {
		if _, err := newRig(t).table.Install(p); err == nil {
			t.Errorf("AH with %s, in UDP %v, was installed", p.Suite, p.Encap)
		}
	}
}

// TestAHOfScapy takes packets of the independent implementation, and gives it ours.
func TestAHOfScapy(t *testing.T) {
	theirs := vectorsOf(t, "testdata/scapy_ah.json")
	if len(theirs) != 26*len(signers) {
		t.Fatalf("%d vectors", len(theirs))
	}
	for i, v := range theirs {
		g := newRig(t)
		suite, err := transform.Parse(v.Suite)
		if err != nil {
			t.Fatal(err)
		}
		p := g.signed(suite, v.Outer, v.Transport, v.ESN)
		p.SPI, p.Keymat, p.ECN = v.SPI, unhex(t, v.Keymat), false
		tu := g.install(p)
		if v.Hi != 0 {
			tu.in.Window.Advance(g.table.Bits(tu.in), uint64(v.Hi)<<32|uint64(v.Seq)-1)
		}
		if reason := g.open1(g.travel(unhex(t, v.Packet)), tu.in); reason != packet.DropNone {
			t.Errorf("packet %d, %s, v%d, transport %v, ESN %v: %v: %s", i, v.Suite, v.Outer, v.Transport, v.ESN, reason, v.Packet)
		} else if got := hex.EncodeToString(g.batch.IP(0)); !v.Transport && got != v.Inner {
			t.Errorf("packet %d, %s: %s, want %s", i, v.Suite, got, v.Inner)
		}
	}
	var ours []vector
	for _, suite := range signers {
		for _, transport := range []bool{false, true} {
			for _, esn := range []bool{false, true} {
				for length := 0; length < 60; length += 13 {
					g := newRig(t)
					all := [][]byte{g.own4(length), g.own4(length, alert4, record4), g.own6(length), g.own6(length, hopByHop), g.again6(length), g.own6(length, hopByHop, routing)}
					if !transport {
						all = [][]byte{g.datagram(4, 40+length), g.datagram(6, 60+length)}
					}
					for _, d := range all {
						p := g.signed(suite, int(d[0]>>4), transport, esn)
						v := vector{Suite: suite.String(), SPI: p.SPI, Keymat: hex.EncodeToString(p.Keymat), ESN: esn, Transport: transport, AH: true, Inner: hex.EncodeToString(d)}
						if esn {
							v.Hi, p.Sequence = 3, 3<<32+17
						}
						v.Packet = hex.EncodeToString(g.seal1(d, g.install(p).out))
						ours = append(ours, v)
					}
				}
			}
		}
	}
	scapyOpens(t, ours)
}

// TestAHAllocatesNothing holds both ways.
func TestAHAllocatesNothing(t *testing.T) {
	for _, suite := range []transform.Suite{transform.NullSHA256, transform.AES128GMAC} {
		g := newRig(t)
		tu := g.install(g.signed(suite, 4, true, true))
		if n := g.allocations(tu, g.own4(200, record4)); n != 0 {
			t.Errorf("%s: %v allocations", suite, n)
		}
	}
}

// FuzzAH gives frames of any content to associations of AH: no panic, nothing accepted, the packet is left as it came, and nothing
// but the four bytes that are authenticated behind it is written outside of it.
func FuzzAH(f *testing.F) {
	g := newRig(f)
	var tunnels []tunnel
	for _, suite := range signers {
		for outer := 4; outer <= 6; outer += 2 {
			for _, transport := range []bool{false, true} {
				tu := g.install(g.signed(suite, outer, transport, true))
				d := g.own4(30, alert4, record4)
				if outer == 6 {
					d = g.again6(30)
				}
				if !transport {
					d = g.datagram(outer, 80)
				}
				bad := g.seal1(d, tu.out)
				for k := range 16 { // more than a mutation puts right again
					bad[len(bad)-1-k] ^= byte(0x5a + k)
				}
				f.Add(uint8(len(tunnels)), bad)
				tunnels = append(tunnels, tu)
			}
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
		live := g.scratch.Decapsulate(g.batch, []uint8{0}, []*sad.Inbound{tu.in})
		if len(live) != 0 || g.batch.P[0].Reason == packet.DropNone || tu.in.Window.Top() != 0 {
			t.Fatalf("a forged packet passed: %+v", g.batch.P[0])
		}
		start := packet.Headroom + packet.EtherLen
		total := int(g.batch.P[0].End - g.batch.P[0].L3)
		if !untouched(g.batch.Mem[:packet.Headroom]) || !untouched(g.batch.Mem[start+len(d)+4:2*packet.FrameSize]) {
			t.Fatal("a byte outside the packet was written")
		}
		if !bytes.Equal(g.batch.Mem[start:start+total], d[:total]) {
			t.Fatal("the packet did not become what it was")
		}
	})
}
