package esp

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"sallyport/dataplane/aesgcm"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
)

// Every byte of an outer datagram, damaged: nothing is accepted but what the outer
// header may change on the way (RFC 4303 authenticates none of it), and the plaintext
// never stays behind a refused ICV.
func TestEveryDamagedByteIsRefused(t *testing.T) {
	for _, suite := range transform.List() {
		for _, outer := range []int{4, 6} {
			for _, encap := range []bool{false, true} {
				g := newRig(t)
				tu := g.tunnel(suite, outer, encap, true)
				inner := g.datagram(4, 120)
				good := g.seal1(inner, tu.out)
				for at := range good {
					for _, flip := range []byte{0x01, 0x80, 0xff} {
						d := bytes.Clone(good)
						d[at] ^= flip
						if outer == 4 && at < 20 {
							sum4(d)
						}
						g.put(0, d)
						if packet.Parse(g.batch, 0) != packet.DropNone {
							continue
						}
						live := g.scratch.Decapsulate(g.batch, []uint8{0}, []*sad.Inbound{tu.in})
						reason := g.batch.P[0].Reason
						if (len(live) == 1) != (reason == packet.DropNone) {
							t.Fatalf("live %v, reason %v", live, reason)
						}
						if at >= int(tu.out.ESP) && reason == packet.DropNone {
							t.Fatalf("%s, v%d, encap %v: byte %d ^ %#x was accepted", suite, outer, encap, at, flip)
						}
						if reason == packet.DropBadICV && bytes.Contains(g.batch.Mem[:packet.FrameSize], inner[28:60]) {
							t.Fatalf("%s: plaintext stayed in the frame after a wrong ICV", suite)
						}
						if reason == packet.DropNone {
							if !bytes.Equal(g.batch.IP(0)[2:10], inner[2:10]) {
								t.Fatalf("byte %d of the outer header changed the inner packet", at)
							}
							// TOS, identification, TTL, flow label or UDP checksum: accepted once.
							tu = g.tunnel(suite, outer, encap, true)
							good = g.seal1(inner, tu.out)
						}
					}
				}
			}
		}
	}
}

// Every strict prefix of an ESP packet is refused.
func TestEveryPrefixIsRefused(t *testing.T) {
	for _, suite := range transform.List() {
		for _, encap := range []bool{false, true} {
			g := newRig(t)
			tu := g.tunnel(suite, 4, encap, true)
			good := g.seal1(g.datagram(4, 120), tu.out)
			for n := 20; n < len(good); n++ {
				d := bytes.Clone(good[:n])
				binary.BigEndian.PutUint16(d[2:], uint16(n))
				if encap && n >= 28 {
					binary.BigEndian.PutUint16(d[24:], uint16(n-20))
				}
				sum4(d)
				g.put(0, d)
				if packet.Parse(g.batch, 0) != packet.DropNone {
					continue
				}
				if live := g.scratch.Decapsulate(g.batch, []uint8{0}, []*sad.Inbound{tu.in}); len(live) != 0 {
					t.Fatalf("%s: %d of %d bytes were accepted", suite, n, len(good))
				}
				if r := g.batch.P[0].Reason; r != packet.DropShortESP && r != packet.DropBadICV && r != packet.DropWrongEndpoint {
					t.Fatalf("%s: %d of %d bytes: %v", suite, n, len(good), r)
				}
			}
		}
	}
}

// What an authenticated peer may send that it should not, each with its reason.
func TestAuthenticatedButMalformed(t *testing.T) {
	for _, suite := range transform.List() {
		align := suite.Info().Align
		g := newRig(t)
		tu := g.tunnel(suite, 4, false, true)
		inner4, inner6 := g.datagram(4, 60), g.datagram(6, 80)
		change := func(d []byte, f func([]byte)) []byte { d = bytes.Clone(d); f(d); return d }
		padded := withTrailer(g.datagram(4, 61), align, 4) // has padding for every suite
		for _, c := range []struct {
			name string
			text []byte
			want packet.Drop
		}{
			{"good v4", withTrailer(inner4, align, 4), packet.DropNone},
			{"good v6", withTrailer(inner6, align, 41), packet.DropNone},
			{"TFC padding behind v4", withTrailer(append(bytes.Clone(inner4), make([]byte, 333)...), align, 4), packet.DropNone},
			{"TFC padding behind v6", withTrailer(append(bytes.Clone(inner6), bytes.Repeat([]byte{7}, 333)...), align, 41), packet.DropNone},
			{"longest padding", append(append(bytes.Clone(inner4), padding[:(254-60)/align*align+align-(60+2)%align]...), byte((254-60)/align*align+align-(60+2)%align), 4), packet.DropNone},
			{"pad length beyond the packet", change(padded, func(d []byte) { d[len(d)-2] = 255 }), packet.DropBadTrailer},
			{"pad length reaches one byte too far", change(padded, func(d []byte) { d[len(d)-2]++ }), packet.DropBadTrailer},
			{"padding is not 1, 2, 3", change(padded, func(d []byte) { d[len(d)-3] ^= 1 }), packet.DropBadTrailer},
			{"padding starts with 0", change(padded, func(d []byte) { d[61] = 0 }), packet.DropBadTrailer},
			{"dummy", withTrailer(inner4, align, 59), packet.DropDummy},
			{"dummy of nothing", withTrailer(nil, align, 59), packet.DropDummy},
			{"dummy with odd padding", change(padded, func(d []byte) { d[len(d)-1], d[len(d)-3] = 59, 99 }), packet.DropDummy},
			{"transport mode", withTrailer(inner4[20:], align, 17), packet.DropBadNextHeader},
			{"next header 0", withTrailer(inner4, align, 0), packet.DropBadNextHeader},
			{"nothing inside", withTrailer(nil, align, 4), packet.DropBadInner},
			{"one byte inside", withTrailer([]byte{0x45}, align, 4), packet.DropBadInner},
			{"v4 said to be v6", withTrailer(inner4, align, 41), packet.DropBadInner},
			{"v6 said to be v4", withTrailer(inner6, align, 4), packet.DropBadInner},
			{"version 5", withTrailer(change(inner4, func(d []byte) { d[0] = 0x55 }), align, 4), packet.DropBadInner},
			{"wrong inner checksum", withTrailer(change(inner4, func(d []byte) { d[10]++ }), align, 4), packet.DropBadInner},
			{"inner longer than the payload", withTrailer(change(inner4, func(d []byte) { d[3]++; sum4(d) }), align, 4), packet.DropBadInner},
			{"inner v6 longer than the payload", withTrailer(change(inner6, func(d []byte) { d[5]++ }), align, 41), packet.DropBadInner},
			{"inner v6 with cut extension headers", withTrailer(change(inner6, func(d []byte) { d[6], d[40], d[41] = 0, 0, 200 }), align, 41), packet.DropBadInner},
			{"source outside the selectors", withTrailer(change(inner4, func(d []byte) { d[12]++; sum4(d) }), align, 4), packet.DropSelectorMismatch},
			{"destination outside the selectors", withTrailer(change(inner6, func(d []byte) { d[25]++ }), align, 41), packet.DropSelectorMismatch},
		} {
			if len(c.text)%align != 0 {
				t.Fatalf("%s: the test's plaintext of %d bytes is not aligned", c.name, len(c.text))
			}
			before := tu.in.OtherDrops.Load()
			seq := tu.in.Window.Top() + 1
			if reason := g.open1(g.forge(tu, seq, c.text), tu.in); reason != c.want {
				t.Errorf("%s: %s: %v, want %v", suite, c.name, reason, c.want)
				continue
			}
			// All of them were authenticated, so the window moved.
			if tu.in.Window.Top() != seq {
				t.Errorf("%s: %s: the window did not move", suite, c.name)
			}
			if (c.want != packet.DropNone) != (tu.in.OtherDrops.Load() == before+1) {
				t.Errorf("%s: %s: drop is not counted at the association", suite, c.name)
			}
			if c.want == packet.DropNone {
				want := inner4
				if c.text[len(c.text)-1] == 41 {
					want = inner6
				}
				if !bytes.Equal(g.batch.IP(0), want) || int(g.batch.P[0].Len) != 14+len(want) {
					t.Errorf("%s: %s: inner packet differs", suite, c.name)
				}
			}
		}
	}
}

func TestWrongEndpointOrEncapsulation(t *testing.T) {
	for _, outer := range []int{4, 6} {
		g := newRig(t)
		raw := g.tunnel(transform.AES128GCM16, outer, false, true)
		udp := g.tunnel(transform.AES128GCM16, outer, true, true)
		other := g.tunnel(transform.AES128GCM16, 10-outer, false, true)
		d, e := g.seal1(g.datagram(4, 100), raw.out), g.seal1(g.datagram(4, 100), udp.out)
		cases := []struct {
			name string
			d    []byte
			in   *sad.Inbound
			want packet.Drop
		}{
			{"raw for an association in UDP", d, udp.in, packet.DropWrongEndpoint},
			{"UDP for a raw association", e, raw.in, packet.DropWrongEndpoint},
			{"other family", d, other.in, packet.DropWrongEndpoint},
			{"no association", d, nil, packet.DropNoAssociation},
		}
		addresses := []int{15, 19}
		if outer == 6 {
			addresses = []int{8, 23, 24, 39}
		}
		for _, at := range addresses {
			moved := bytes.Clone(d)
			moved[at] ^= 4
			if outer == 4 {
				sum4(moved)
			}
			cases = append(cases, struct {
				name string
				d    []byte
				in   *sad.Inbound
				want packet.Drop
			}{"other address", moved, raw.in, packet.DropWrongEndpoint})
		}
		for _, at := range []int{1, 3} {
			moved := bytes.Clone(e)
			moved[int(udp.out.UDP)+at] ^= 1
			cases = append(cases, struct {
				name string
				d    []byte
				in   *sad.Inbound
				want packet.Drop
			}{"other port", moved, udp.in, packet.DropWrongEndpoint})
		}
		for _, c := range cases {
			if reason := g.open1(c.d, c.in); reason != c.want {
				t.Errorf("v%d: %s: %v, want %v", outer, c.name, reason, c.want)
			}
		}
		// None of it did harm: the genuine packets still pass.
		if r := g.open([][]byte{d, e}, []*sad.Inbound{raw.in, udp.in}); r[0] != packet.DropNone || r[1] != packet.DropNone {
			t.Errorf("v%d: genuine packets: %v", outer, r)
		}
	}
}

func TestOuterFragmentIsRefused(t *testing.T) {
	g := newRig(t)
	tu := g.tunnel(transform.AES128GCM16, 4, false, true)
	d := g.seal1(g.datagram(4, 100), tu.out)
	for _, field := range []uint16{0x2000, 0x0001, 0x2003} {
		f := bytes.Clone(d)
		binary.BigEndian.PutUint16(f[6:], field)
		sum4(f)
		if reason := g.open1(f, tu.in); reason != packet.DropOuterFragment {
			t.Errorf("fragment field %#x: %v", field, reason)
		}
	}
}

// The bytes behind a UDP datagram inside its IP datagram, and Ethernet padding, are no
// part of the ESP packet.
func TestTrailingBytesAreIgnored(t *testing.T) {
	g := newRig(t)
	tu := g.tunnel(transform.AES128GCM16, 4, true, true)
	inner := g.datagram(4, 20)
	d := append(g.seal1(inner, tu.out), 1, 2, 3, 4)
	binary.BigEndian.PutUint16(d[2:], uint16(len(d)))
	sum4(d)
	d = append(d, 0, 0, 0) // Ethernet padding
	if reason := g.open1(d, tu.in); reason != packet.DropNone || !bytes.Equal(g.batch.IP(0), inner) {
		t.Errorf("%v", reason)
	}
}

func TestTooOldIsRefusedBeforeAndAfterTheBatch(t *testing.T) {
	g := newRig(t)
	p := g.params(transform.AES256GCM16, 4, false, false)
	p.Window = 64
	tu := g.install(p)
	text := func() []byte { return withTrailer(g.datagram(4, 60), 4, 4) }
	ds := [][]byte{g.forge(tu, 500, text()), g.forge(tu, 400, text()), g.forge(tu, 437, text()), g.forge(tu, 436, text()), g.forge(tu, 0, text())}
	sa := []*sad.Inbound{tu.in, tu.in, tu.in, tu.in, tu.in}
	want := []packet.Drop{packet.DropNone, packet.DropTooOld, packet.DropNone, packet.DropTooOld}
	reasons := g.open(ds, sa)
	for i := range want {
		if reasons[i] != want[i] {
			t.Errorf("in one batch: packet %d: %v, want %v", i, reasons[i], want[i])
		}
	}
	if reasons[4] == packet.DropNone {
		t.Error("sequence number 0 was accepted")
	}
	if reason := g.open1(g.forge(tu, 1, text()), tu.in); reason != packet.DropTooOld {
		t.Errorf("afterwards: %v", reason)
	}
}

func TestLaterFragmentNeedsPorts(t *testing.T) {
	g := newRig(t)
	p := g.params(transform.AES128GCM16, 4, false, true)
	p.Selectors = []spd.Selector{{Local: netsA, Remote: netsB, Proto: packet.ProtoUDP, LocalPorts: anyPort, RemotePorts: spd.PortRange{First: 53, Last: 53}}}
	tu := g.install(p)
	to := func(port uint16, fragment uint16) []byte {
		d := g.datagram(4, 60)
		binary.BigEndian.PutUint16(d[22:], port)
		binary.BigEndian.PutUint16(d[6:], fragment)
		sum4(d)
		return g.forge(tu, tu.in.Window.Top()+1, withTrailer(d, 4, 4))
	}
	for _, c := range []struct {
		port, fragment uint16
		want           packet.Drop
	}{{53, 0, packet.DropNone}, {54, 0, packet.DropSelectorMismatch}, {0, 7, packet.DropFragmentNoPorts},
		{53, 0x2000, packet.DropNone}, {0, 7, packet.DropNone}, {0, 2, packet.DropFragmentNoPorts}} {
		if reason := g.open1(to(c.port, c.fragment), tu.in); reason != c.want {
			t.Errorf("port %d, fragment field %#x: %v, want %v", c.port, c.fragment, reason, c.want)
		}
	}
}

// A frame without room in front or behind ends as NoRoom, spends no sequence number, and
// is not written.
func TestNoRoom(t *testing.T) {
	for _, suite := range transform.List() {
		for _, outer := range []int{4, 6} {
			g := newRig(t)
			tu := g.tunnel(suite, outer, true, true)
			info := suite.Info()
			front := int(tu.out.HeaderLen) + info.IVLen
			d := g.datagram(4, 100)
			behind := (100+2+info.Align-1)/info.Align*info.Align - 100 + info.ICVLen
			at := func(offset int) packet.Drop {
				g.wipeFrames(3)
				p := &g.batch.P[0]
				*p = packet.Packet{Addr: uint64(packet.FrameSize + offset - packet.EtherLen), Len: uint16(packet.EtherLen + len(d)), L3: packet.EtherLen}
				copy(g.batch.Mem[packet.FrameSize+offset:], d)
				if reason := packet.ParseIP(g.batch, 0); reason != packet.DropNone {
					t.Fatal(reason)
				}
				g.scratch.Encapsulate(g.batch, []uint8{0}, []*sad.Outbound{tu.out})
				if !untouched(g.batch.Mem[:packet.FrameSize]) || !untouched(g.batch.Mem[2*packet.FrameSize:3*packet.FrameSize]) {
					t.Fatalf("a neighbouring frame was written for offset %d", offset)
				}
				return p.Reason
			}
			low := packet.EtherLen + front
			high := packet.FrameSize - packet.TailSlack - behind - 100
			for offset, want := range map[int]packet.Drop{low: packet.DropNone, low - 1: packet.DropNoRoom, high: packet.DropNone, high + 1: packet.DropNoRoom, packet.EtherLen: packet.DropNoRoom} {
				seq := tu.out.Seq.Load()
				if reason := at(offset); reason != want {
					t.Errorf("%s, v%d: IP header at %d (bounds %d, %d): %v, want %v", suite, outer, offset, low, high, reason, want)
				}
				if spent := tu.out.Seq.Load() - seq; (spent == 1) != (want == packet.DropNone) {
					t.Errorf("%s: %d sequence numbers spent", suite, spent)
				}
			}
		}
	}
}

// TOS, ECN and DF of both headers for every association option and code point.
func TestTOSAndDF(t *testing.T) {
	for _, outer := range []int{4, 6} {
		for _, inner := range []int{4, 6} {
			for options := range 16 {
				g := newRig(t)
				p := g.params(transform.AES128GCM16, outer, false, true)
				p.CopyDSCP, p.ECN, p.CopyDF, p.SetDF = options&1 != 0, options&2 != 0, options&4 != 0, options&8 != 0
				tu := g.install(p)
				for innerTOS := range uint8(4) {
					for outerTOS := range uint8(4) {
						for _, df := range []bool{false, true} {
							checkTOS(t, g, tu, p, inner, innerTOS|0xb8, outerTOS, df)
						}
					}
				}
			}
		}
	}
}

func checkTOS(t *testing.T, g *rig, tu tunnel, p sad.Params, inner int, tos, mark uint8, df bool) {
	t.Helper()
	d := g.datagram(inner, 80)
	setTOS(d, uint8(inner), tos)
	if inner == 4 {
		sum4(d)
		if df {
			d[6] |= 0x40
			sum4(d)
		}
	}
	e := g.seal1(d, tu.out)
	version := e[0] >> 4
	outer := e[1]
	if version == 6 {
		outer = e[0]<<4 | e[1]>>4
	} else {
		want := p.SetDF
		if inner == 4 && p.CopyDF {
			want = df
		}
		if got := e[6]&0x40 != 0; got != want {
			t.Fatalf("outer DF %v, inner v%d DF %v, options %+v", got, inner, df, p)
		}
	}
	if want := packet.EncapsulateTOS(tos, p.CopyDSCP, p.ECN); outer != want {
		t.Fatalf("outer TOS %#x, want %#x", outer, want)
	}
	// The network changes the DSCP and marks.
	setTOS(e, version, 0x28|mark)
	if version == 4 && packet.Checksum(e[:20], 0) != 0 {
		t.Fatal("setTOS left a wrong checksum")
	}
	reason := g.open1(e, tu.in)
	want, verdict := tos, packet.ECNForward
	if p.ECN {
		want, verdict = packet.DecapsulateTOS(tos, mark)
	}
	if verdict == packet.ECNDrop {
		if reason != packet.DropNotECNCapable {
			t.Fatalf("CE on a packet that is not ECN-capable: %v", reason)
		}
		return
	}
	if reason != packet.DropNone {
		t.Fatalf("%v", reason)
	}
	setTOS(d, uint8(inner), want)
	if inner == 4 {
		sum4(d)
	}
	if !bytes.Equal(g.batch.IP(0), d) || g.batch.P[0].TOS != want {
		t.Fatalf("inner TOS %#x, outer mark %d: got %x, want %x", tos, mark, g.batch.IP(0)[:4], d[:4])
	}
}

func TestECNAlarmsAreCounted(t *testing.T) {
	g := newRig(t)
	tu := g.tunnel(transform.AES128GCM16, 4, false, true)
	d := g.datagram(4, 60)
	setTOS(d, 4, packet.ECNCE)
	e := g.seal1(d, tu.out)
	setTOS(e, 4, packet.ECNECT1)
	if reason := g.open1(e, tu.in); reason != packet.DropNone || g.scratch.ECNAlarms.Load() != 1 {
		t.Fatalf("%v, %d alarms", reason, g.scratch.ECNAlarms.Load())
	}
}

func TestIdentificationOfFragmentableDatagramsDiffers(t *testing.T) {
	g := newRig(t)
	p := g.params(transform.AES128GCM16, 4, false, true)
	a, b := g.install(p), g.tunnel(transform.AES128GCM16, 4, false, true)
	seen := map[uint16]bool{}
	for n := range 200 {
		o := a.out
		if n%2 == 1 {
			o = b.out
		}
		id := binary.BigEndian.Uint16(g.seal1(g.datagram(4, 60), o)[4:])
		if seen[id] {
			t.Fatalf("identification %d twice between the same addresses", id)
		}
		seen[id] = true
	}
}

// A packet that came out of one tunnel goes into another: headroom must have grown.
func TestHubAndSpoke(t *testing.T) {
	g := newRig(t)
	first, second := g.tunnel(transform.AES256CBCSHA256, 6, true, true), g.tunnel(transform.ChaCha20Poly1305, 6, true, true)
	d := g.datagram(6, 1000)
	if reason := g.open1(g.seal1(d, first.out), first.in); reason != packet.DropNone {
		t.Fatal(reason)
	}
	if live := g.scratch.Encapsulate(g.batch, []uint8{0}, []*sad.Outbound{second.out}); len(live) != 1 {
		t.Fatal(g.batch.P[0].Reason)
	}
	if g.batch.P[0].Flags&packet.FlagDecapsulated != 0 {
		t.Error("the outer packet is said to be decapsulated")
	}
	if reason := g.open1(bytes.Clone(g.batch.IP(0)), second.in); reason != packet.DropNone || !bytes.Equal(g.batch.IP(0), d) {
		t.Fatal(reason)
	}
}

func TestRemovedKeySendsNothing(t *testing.T) {
	g := newRig(t)
	tu := g.tunnel(transform.AES128GCM16, 4, false, true)
	good := g.seal1(g.datagram(4, 60), tu.out)
	g.table.OutboundKey(tu.out.Slot).Zero()
	g.table.InboundKey(tu.in.Slot).Zero()
	g.put(0, g.datagram(4, 60))
	g.parse(0)
	if live := g.scratch.Encapsulate(g.batch, []uint8{0}, []*sad.Outbound{tu.out}); len(live) != 0 || g.batch.P[0].Reason != packet.DropNoOutbound {
		t.Errorf("%v", g.batch.P[0].Reason)
	}
	if reason := g.open1(good, tu.in); reason != packet.DropBadICV {
		t.Errorf("%v", reason)
	}
}

func TestNoOutboundAssociation(t *testing.T) {
	g := newRig(t)
	g.put(0, g.datagram(4, 60))
	g.parse(0)
	if live := g.scratch.Encapsulate(g.batch, []uint8{0}, []*sad.Outbound{nil}); len(live) != 0 || g.batch.P[0].Reason != packet.DropNoOutbound {
		t.Errorf("%v", g.batch.P[0].Reason)
	}
}

// TestPacketsThatAreNotSealedAreCountedApart takes the round keys of one association of several away while its packets are sealed: they end and are wiped, those of
// the others leave, and each association has counted its own.
func TestPacketsThatAreNotSealedAreCountedApart(t *testing.T) {
	if aesgcm.Implementation() == "generic" {
		t.Skip("its keys lie elsewhere")
	}
	for broken := range 3 {
		g := newRig(t)
		var tunnels [3]tunnel
		for k := range tunnels {
			tunnels[k] = g.tunnel(transform.AES128GCM16, 4+k&2, k&1 != 0, true)
		}
		breakKey(g.table.OutboundKey(tunnels[broken].out.Slot))
		b, sa := g.batch, make([]*sad.Outbound, packet.BatchMax)
		var live, want []uint8
		var packets, octets [3]uint64
		b.N = 0
		for i := range 40 {
			k, length := g.r.IntN(3), 60+g.r.IntN(300)
			g.put(i, g.datagram(4, length))
			g.parse(i)
			sa[i], live = tunnels[k].out, append(live, uint8(i))
			if k != broken {
				want, packets[k], octets[k] = append(want, uint8(i)), packets[k]+1, octets[k]+uint64(length)
			}
		}
		alive := g.scratch.Encapsulate(b, slices.Clone(live), sa)
		if !slices.Equal(alive, want) {
			t.Fatalf("packets %v leave, not %v", alive, want)
		}
		for _, i := range live {
			p, lives := &b.P[i], slices.Contains(want, i)
			if (p.Reason == packet.DropNoOutbound) == lives {
				t.Errorf("packet %d ends as %v", i, p.Reason)
			}
			text := b.IP(int(i))
			text = text[int(p.L4-p.L3)+headerLen+plainIVLen:]
			if p.Proto == packet.ProtoUDP {
				text = text[udpLen:]
			}
			if zero := !slices.ContainsFunc(text, func(c byte) bool { return c != 0 }); zero == lives {
				t.Errorf("packet %d is %x", i, text)
			}
		}
		for k := range tunnels {
			if o := tunnels[k].out; o.Packets.Load() != packets[k] || o.Bytes.Load() != octets[k] || k != broken && o.OtherDrops.Load() != 0 || k == broken && o.OtherDrops.Load() != uint64(len(live)-len(want)) {
				t.Errorf("association %d has counted %d packets of %d bytes and %d drops", k, o.Packets.Load(), o.Bytes.Load(), o.OtherDrops.Load())
			}
		}
	}
}
