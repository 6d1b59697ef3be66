package esp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"testing"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/transform"
)

// bundle adds AH to an association of ESP from A to B.
func (g *rig) bundle(p sad.Params, signer transform.Suite, esn bool) sad.Params {
	g.spi++
	p.Bundle = &sad.Bundle{SPI: g.spi, Suite: signer, Keymat: make([]byte, signer.Info().KeyLen), ESN: esn}
	for i := range p.Bundle.Keymat {
		p.Bundle.Keymat[i] = byte(g.r.Uint32())
	}
	return p
}

// ah returns the half of AH of a bundle.
func (g *rig) ah(tu tunnel) tunnel {
	return tunnel{g.table.OutboundPartner(tu.out), g.table.InboundPartner(tu.in)}
}

// signESP seals a datagram and signs it.
func (g *rig) signESP(d []byte, tu tunnel) []byte {
	g.t.Helper()
	return g.seal1(g.seal1(d, tu.out), g.ah(tu).out)
}

// openBoth is the way of a packet that arrives for the half of AH.
func (g *rig) openBoth(d []byte, tu tunnel) packet.Drop {
	g.t.Helper()
	if reason := g.open1(d, g.ah(tu).in); reason != packet.DropNone {
		return reason
	}
	live := g.scratch.Decapsulate(g.batch, []uint8{0}, []*sad.Inbound{tu.in})
	if reason := g.batch.P[0].Reason; len(live) == 0 || reason != packet.DropNone {
		return reason
	}
	return packet.DropNone
}

// forms are associations of ESP that may have AH around.
func (g *rig) forms(suite transform.Suite, esn bool) (list []sad.Params) {
	for outer := 4; outer <= 6; outer += 2 {
		list = append(list, g.params(suite, outer, false, esn), g.transport(suite, outer, false, esn))
	}
	keyed := g.params(suite, 4, false, esn)
	keyed.Carrier = sad.Carrier{Encapsulation: sad.GRE, Key: 7, Keyed: true}
	return append(list, keyed)
}

// TestBundleCarries: datagrams of every kind cross with AH and ESP, in both modes of ESP, by routers that change what they may.
func TestBundleCarries(t *testing.T) {
	for _, suite := range shapes {
		for k, signer := range signers {
			esn := k%2 == 0
			t.Run(fmt.Sprintf("%s/%s", suite, signer), func(t *testing.T) {
				for length := range 7 {
					g := newRig(t)
					for _, p := range g.forms(suite, !esn) {
						all := [][]byte{g.datagram(4, 28+length), g.datagram(6, 48+length)}
						if p.Transport && p.Local.Is4() {
							all = [][]byte{g.own4(length), g.own4(length, alert4, timestamp4), g.own4(length, record4)}
						} else if p.Transport {
							all = [][]byte{g.own6(length), g.own6(length, hopByHop), g.again6(length), g.own6(length, hopByHop, destination, routing), g.own6(length, routing, destination)}
						}
						for _, d := range all {
							p := g.bundle(p, signer, esn)
							g.spi++
							p.SPI, p.ECN = g.spi, false
							if esn { // of AH; the other way of ESP
								p.Bundle.Sequence = 1<<32 - 2
							} else {
								p.Sequence = 1<<32 - 2
							}
							tu := g.install(p)
							ah := g.ah(tu)
							ah.in.Window.Advance(g.table.Bits(ah.in), p.Bundle.Sequence)
							tu.in.Window.Advance(g.table.Bits(tu.in), p.Sequence)
							for n := range uint64(4) {
								signed := g.signESP(d, tu)
								fits := tu.out.InnerMTU(len(signed))
								if got := tu.in.InnerMTU(len(signed), 0); got != fits {
									t.Fatalf("%d bytes fit one way, %d the other", fits, got)
								}
								// Exact in tunnel mode; in transport mode padding cannot be foreseen.
								if !p.Transport && (fits < len(d) || tu.out.InnerMTU(len(signed)-1) >= len(d)) {
									t.Fatalf("%d bytes became %d, where %d fit", len(d), len(signed), fits)
								}
								arrived := g.travel(signed)
								want := d
								if p.Transport {
									want = bytes.Clone(d)
									header := g.header(arrived) // which routers changed
									copy(want[:header], arrived)
									want[g.next(want)] = d[g.next(d)]
									finishLengths(want, header, d[0]>>4)
								}
								if reason := g.openBoth(arrived, tu); reason != packet.DropNone {
									t.Fatalf("transport %v, %s: %v\n%x", p.Transport, p.Local, reason, arrived)
								}
								if got := g.batch.IP(0); !bytes.Equal(got, want) {
									t.Fatalf("transport %v, %s:\n%x, want\n%x", p.Transport, p.Local, got, want)
								}
								if q := &g.batch.P[0]; q.Seq != p.Sequence+n+1 || q.SPI != p.SPI || q.Flags&(packet.FlagVerified|packet.FlagDecapsulated) != packet.FlagDecapsulated {
									t.Fatalf("%+v", q)
								}
							}
							if ah.in.Packets.Load() != 4 || tu.in.Packets.Load() != 4 || tu.in.Bytes.Load() != 4*uint64(len(d)) ||
								ah.in.Window.Top() != p.Bundle.Sequence+4 || tu.in.Window.Top() != p.Sequence+4 {
								t.Fatalf("counted %d and %d packets", ah.in.Packets.Load(), tu.in.Packets.Load())
							}
						}
					}
				}
			})
		}
	}
}

// header is the length of what stands in front of AH, and next where it is named.
func (g *rig) header(d []byte) int {
	if d[0]>>4 == 4 {
		return int(d[0]&15) * 4
	}
	kept, _ := unprotected(d)
	return kept
}

func (g *rig) next(d []byte) int {
	if d[0]>>4 == 4 {
		return nextIPv4
	}
	_, next := unprotected(d)
	return next
}

// TestEveryDamagedByteOfABundleIsRefused flips every bit: what routers may change is accepted, nothing else; and every bit of the ESP under
// a right AH, which its ICV refuses.
func TestEveryDamagedByteOfABundleIsRefused(t *testing.T) {
	for _, outer := range []int{4, 6} {
		g := newRig(t)
		make1 := func() (tunnel, []byte) {
			tu := g.install(g.bundle(g.params(transform.AES128GCM16, outer, false, true), transform.NullSHA256, true))
			return tu, g.signESP(g.datagram(4, 60), tu)
		}
		tu, good := make1()
		mutable := map[int]byte{1: 0xff, 6: 0xff, 7: 0xff, 8: 0xff}
		if outer == 6 {
			mutable = map[int]byte{0: 0x0f, 1: 0xff, 2: 0xff, 3: 0xff, 7: 0xff}
		}
		for at := range good {
			for bit := range 8 {
				bad := bytes.Clone(good)
				bad[at] ^= 1 << bit
				if outer == 4 && at < 20 {
					if at == 10 || at == 11 {
						continue
					}
					sum4(bad)
				}
				g.put(0, bad)
				if packet.Parse(g.batch, 0) != packet.DropNone {
					continue
				}
				reason := packet.DropBadIPHeader
				if g.batch.P[0].Proto == packet.ProtoAH {
					reason = g.openBoth(bad, tu)
				}
				if accepted := reason == packet.DropNone; accepted != (mutable[at]&(1<<bit) != 0 && g.batch.P[0].Flags&packet.FlagFragment == 0 && reason == packet.DropNone) {
					t.Fatalf("v%d: bit %d of byte %d: %v", outer, bit, at, reason)
				} else if accepted { // once
					tu, good = make1()
				}
			}
		}
		// ESP damaged before it was signed.
		sealed := g.seal1(g.datagram(4, 60), tu.out)
		for at := int(tu.out.HeaderLen) - 4; at < len(sealed); at++ {
			bad := bytes.Clone(sealed)
			bad[at] ^= 0x10
			if reason := g.openBoth(g.seal1(bad, g.ah(tu).out), tu); reason != packet.DropBadICV && reason != packet.DropTooOld {
				t.Fatalf("v%d: byte %d of ESP: %v", outer, at, reason)
			}
		}
		if tu.in.Packets.Load() != 0 || g.ah(tu).in.Packets.Load() == 0 {
			t.Error("a damaged ESP packet was counted")
		}
		if reason := g.openBoth(g.seal1(sealed, g.ah(tu).out), tu); reason != packet.DropNone {
			t.Fatalf("the good one: %v", reason)
		}
	}
}

// TestBundleRefuses names every way in which the two halves may not fit each other.
func TestBundleRefuses(t *testing.T) {
	for _, outer := range []int{4, 6} {
		g := newRig(t)
		tunnelOf := func() sad.Params { return g.params(transform.AES128GCM16, outer, false, true) }
		tu := g.install(g.bundle(tunnelOf(), transform.NullSHA256, true))
		other := g.install(g.bundle(tunnelOf(), transform.AES128GMAC, false))
		alone := g.install(tunnelOf())
		host := g.install(g.bundle(g.transport(transform.AES256CBCSHA256, outer, false, true), transform.NullSHA512, true))
		ah := g.ah(tu)
		inner := g.datagram(4, 100)
		own := g.own4(20)
		if outer == 6 {
			own = g.own6(20)
		}
		try := func(name string, got, want packet.Drop) {
			t.Helper()
			if got != want {
				t.Errorf("v%d: %s: %v, want %v", outer, name, got, want)
			}
		}
		try("good", g.openBoth(g.signESP(inner, tu), tu), packet.DropNone)
		try("ESP alone", g.open1(g.seal1(inner, tu.out), tu.in), packet.DropBundleMismatch)
		try("AH alone", g.openBoth(g.seal1(own, ah.out), tu), packet.DropBundleMismatch)
		try("AH around ESP of nobody's", g.openBoth(g.seal1(g.forgeSPI(g.seal1(inner, alone.out), 0x7777), ah.out), tu), packet.DropBundleMismatch)
		try("AH around ESP that goes alone", g.openBoth(g.seal1(g.seal1(inner, alone.out), ah.out), tu), packet.DropBundleMismatch)
		try("AH around ESP of another bundle", g.openBoth(g.seal1(g.seal1(inner, other.out), ah.out), tu), packet.DropBundleMismatch)
		try("ESP in another AH", g.openBoth(g.seal1(g.seal1(inner, tu.out), g.ah(other).out), other), packet.DropBundleMismatch)
		try("AH in AH", g.openBoth(g.seal1(g.seal1(g.seal1(inner, tu.out), ah.out), ah.out), tu), packet.DropBundleMismatch)
		// The other way round, AH inside: whatever the keys, it is ESP alone.
		try("ESP around AH", g.open1(g.seal1(g.seal1(own, g.ah(host).out), host.out), host.in), packet.DropBundleMismatch)
		// AH around the header of ESP and no more; and of nothing.
		for _, n := range []int{0, 4, 8, 20} {
			cut := bytes.Clone(g.seal1(inner, tu.out)[:int(tu.out.ESP)+n])
			finishLengths(cut, 20, cut[0]>>4)
			want := packet.DropShortESP
			if n < 8 {
				want = packet.DropBundleMismatch
			}
			g.put(0, cut)
			if packet.Parse(g.batch, 0) == packet.DropNone {
				try(fmt.Sprintf("%d bytes of ESP", n), g.openBoth(g.seal1(cut, ah.out), tu), want)
			}
		}

		// Replays at either layer.
		sealed := g.seal1(inner, tu.out)
		first := g.seal1(sealed, ah.out)
		try("first", g.openBoth(first, tu), packet.DropNone)
		try("again", g.openBoth(first, tu), packet.DropReplayed)
		top := tu.in.Window.Top()
		try("old ESP in new AH", g.openBoth(g.seal1(sealed, ah.out), tu), packet.DropReplayed)
		if tu.in.Window.Top() != top || tu.in.Replayed.Load() != 1 || ah.in.Replayed.Load() != 1 {
			t.Errorf("v%d: replays are counted %d and %d", outer, tu.in.Replayed.Load(), ah.in.Replayed.Load())
		}
		good := g.signESP(inner, tu)
		bad := bytes.Clone(good)
		bad[len(bad)-1] ^= 1
		tops := [2]uint64{ah.in.Window.Top(), tu.in.Window.Top()}
		try("forged", g.openBoth(bad, tu), packet.DropBadICV)
		if tops != [2]uint64{ah.in.Window.Top(), tu.in.Window.Top()} {
			t.Error("a forged packet moved a window")
		}
		try("which stood for", g.openBoth(good, tu), packet.DropNone)
		if n := ah.in.OtherDrops.Load(); n != 7 {
			t.Errorf("v%d: %d mismatches counted", outer, n)
		}

		// What has no AH any more to go with does not leave half protected: the numbers of either end.
		last := g.bundle(tunnelOf(), transform.NullSHA256, false)
		last.Bundle.Sequence = 1<<32 - 2
		ends := g.install(last)
		g.signESP(inner, ends)
		g.put(0, g.seal1(inner, ends.out))
		g.parse(0)
		if live := g.scratch.Encapsulate(g.batch, []uint8{0}, []*sad.Outbound{g.ah(ends).out}); len(live) != 0 || g.batch.P[0].Reason != packet.DropSequenceExhausted {
			t.Errorf("after the last number of AH: %v", g.batch.P[0].Reason)
		}
	}
	// What is no bundle.
	g := newRig(t)
	nat, twice, secret := g.bundle(g.params(transform.AES128GCM16, 4, true, true), transform.NullSHA256, true), g.bundle(g.signed(transform.NullSHA256, 4, false, true), transform.NullSHA256, true),
		g.bundle(g.params(transform.AES128GCM16, 4, false, true), transform.AES128GCM16, true)
	same := g.bundle(g.params(transform.AES128GCM16, 4, false, true), transform.NullSHA256, true)
	same.Inbound, same.Bundle.SPI = true, same.SPI
	for _, p := range []sad.Params{nat, twice, secret, same} {
		if _, err := g.table.Install(p); err == nil {
			t.Errorf("%+v was installed", p)
		}
	}
	if in, out := g.table.Len(); in+out != 0 {
		t.Errorf("%d and %d associations are left", in, out)
	}
}

// forgeSPI gives an ESP datagram without options another SPI.
func (g *rig) forgeSPI(d []byte, spi uint32) []byte {
	at := 20
	if d[0]>>4 == 6 {
		at = 40
	}
	binary.BigEndian.PutUint32(d[at:], spi)
	return d
}

// TestBundleOfScapy takes packets to which the independent implementation gave both headers, and gives it ours.
func TestBundleOfScapy(t *testing.T) {
	theirs := vectorsOf(t, "testdata/scapy_bundle.json")
	if len(theirs) < 60 {
		t.Fatalf("%d vectors", len(theirs))
	}
	for i, v := range theirs {
		g := newRig(t)
		suite, err := transform.Parse(v.Suite)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := transform.Parse(v.Bundle.Suite)
		if err != nil {
			t.Fatal(err)
		}
		p := g.params(suite, v.Outer, false, v.ESN)
		if v.Transport {
			p = g.transport(suite, v.Outer, false, v.ESN)
		}
		p.SPI, p.Keymat, p.ECN = v.SPI, unhex(t, v.Keymat), false
		p.Bundle = &sad.Bundle{SPI: v.Bundle.SPI, Suite: signer, Keymat: unhex(t, v.Bundle.Keymat), ESN: v.Bundle.ESN}
		tu := g.install(p)
		for _, w := range []struct {
			in      *sad.Inbound
			hi, seq uint32
		}{{tu.in, v.Hi, v.Seq}, {g.ah(tu).in, v.Bundle.Hi, v.Bundle.Seq}} {
			if w.hi != 0 {
				w.in.Window.Advance(g.table.Bits(w.in), uint64(w.hi)<<32|uint64(w.seq)-1)
			}
		}
		if reason := g.openBoth(unhex(t, v.Packet), tu); reason != packet.DropNone {
			t.Errorf("packet %d, %s in %s, v%d, transport %v: %v: %s", i, v.Suite, v.Bundle.Suite, v.Outer, v.Transport, reason, v.Packet)
		} else if got := hex.EncodeToString(g.batch.IP(0)); got != v.Inner {
			t.Errorf("packet %d, %s in %s: %s, want %s", i, v.Suite, v.Bundle.Suite, got, v.Inner)
		}
	}
	var ours []vector
	for _, suite := range shapes {
		for k, signer := range signers {
			for length := 0; length < 60; length += 29 {
				g := newRig(t)
				for _, p := range g.forms(suite, false)[:4] {
					p := g.bundle(p, signer, k%2 == 0)
					d := g.datagram(4, 40+length)
					if p.Transport && p.Local.Is4() {
						d = g.own4(length, alert4)
					} else if p.Transport {
						d = g.own6(length, hopByHop)
					}
					v := vector{
						Suite: suite.String(), SPI: p.SPI, Keymat: hex.EncodeToString(p.Keymat), Transport: p.Transport, Inner: hex.EncodeToString(d),
						Bundle: &half{Suite: signer.String(), SPI: p.Bundle.SPI, Keymat: hex.EncodeToString(p.Bundle.Keymat), ESN: p.Bundle.ESN},
					}
					if p.Bundle.ESN {
						v.Bundle.Hi, p.Bundle.Sequence = 3, 3<<32+17
					}
					v.Packet = hex.EncodeToString(g.signESP(d, g.install(p)))
					ours = append(ours, v)
				}
			}
		}
	}
	scapyOpens(t, ours)
}

// TestBundleAllocatesNothing holds both ways.
func TestBundleAllocatesNothing(t *testing.T) {
	g := newRig(t)
	tu := g.install(g.bundle(g.params(transform.AES128GCM16, 4, false, true), transform.NullSHA256, true))
	ah := g.ah(tu)
	live, d := make([]uint8, 1), g.datagram(4, 200)
	pass := func(n int) {
		if n != 1 {
			panic(g.batch.P[0].Reason.String())
		}
		live[0] = 0
	}
	outs, ins := []*sad.Outbound{tu.out, ah.out}, []*sad.Inbound{ah.in, tu.in}
	if n := testing.AllocsPerRun(100, func() {
		g.put(0, d)
		packet.Parse(g.batch, 0)
		for k := range outs {
			pass(len(g.scratch.Encapsulate(g.batch, live, outs[k:])))
		}
		packet.ParseIP(g.batch, 0)
		for k := range ins {
			pass(len(g.scratch.Decapsulate(g.batch, live, ins[k:])))
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestBundleIsOneThing: halves come and go together, and nothing else takes one away.
func TestBundleIsOneThing(t *testing.T) {
	g := newRig(t)
	p := g.bundle(g.params(transform.AES128GCM16, 4, false, true), transform.NullSHA256, true)
	g.install(p)
	var handles []sad.Handle
	g.table.Range(func(i *sad.Info) bool {
		if i.Params.AH {
			if g.table.Remove(i.Handle) == nil {
				t.Error("one half was removed")
			}
			if !i.Params.Inbound && g.table.Bind(3, i.Handle.Value()) == nil {
				t.Error("AH without ESP was bound")
			}
			again := i.Params
			again.SPI, again.Keymat = 0x8888, p.Bundle.Keymat
			if _, err := g.table.Install(again); err == nil {
				t.Error("one half was installed")
			}
			if i.Bundled != p.SPI || i.Params.SPI != p.Bundle.SPI || !i.Params.Transport || i.Follows == i.Params.Inbound || i.Params.Keymat != nil {
				t.Errorf("%+v", i)
			}
			return true
		}
		if i.Bundled != p.Bundle.SPI || i.Params.Bundle.Keymat != nil || i.Follows != i.Params.Inbound {
			t.Errorf("%+v", i)
		}
		if g.table.Move(i.Handle, sad.Endpoints{Local: hostA4, Remote: hostB4}) == nil {
			t.Error("it moved")
		}
		handles = append(handles, i.Handle)
		return true
	})
	if len(handles) != 2 {
		t.Fatalf("%d handles", len(handles))
	}
	for _, h := range handles {
		if err := g.table.Remove(h); err != nil {
			t.Error(err)
		}
	}
	if in, out := g.table.Len(); in+out != 0 || g.table.Reclaim() != 0 {
		t.Errorf("%d and %d are left", in, out)
	}
	if g.table.LookupInbound(p.SPI) != nil || g.table.LookupInbound(p.Bundle.SPI) != nil {
		t.Error("they are still found")
	}
	g.install(p) // the SPIs are free again
}

// FuzzBundle puts AH around packets of any content: no panic, and nothing but genuine ESP is accepted.
func FuzzBundle(f *testing.F) {
	g := newRig(f)
	var tunnels []tunnel
	for outer := 4; outer <= 6; outer += 2 {
		for _, p := range []sad.Params{g.params(transform.AES128GCM16, outer, false, true), g.transport(transform.AES128CBCSHA256, outer, false, true)} {
			tu := g.install(g.bundle(p, transform.NullSHA256, true))
			d := g.own4(30, alert4)
			if outer == 6 {
				d = g.again6(30)
			}
			if !p.Transport {
				d = g.datagram(4, 80)
			}
			sealed := g.seal1(d, tu.out)
			for k := range 16 { // more than a mutation puts right again
				sealed[len(sealed)-1-k] ^= byte(0x5a + k)
			}
			f.Add(uint8(len(tunnels)), sealed)
			f.Add(uint8(len(tunnels)), g.seal1(sealed, g.ah(tu).out))
			tunnels = append(tunnels, tu)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, d []byte) {
		if len(d) > 1500 {
			return
		}
		g.t = t
		tu := tunnels[int(which)%len(tunnels)]
		ah := g.ah(tu)
		g.wipeFrames(2)
		g.put(0, d)
		if packet.Parse(g.batch, 0) != packet.DropNone {
			return
		}
		live := g.scratch.Encapsulate(g.batch, []uint8{0}, []*sad.Outbound{ah.out})
		if len(live) == 0 {
			return
		}
		signed := bytes.Clone(g.batch.IP(0))
		g.wipeFrames(2)
		g.put(0, signed)
		if packet.Parse(g.batch, 0) != packet.DropNone {
			return
		}
		live = g.scratch.Decapsulate(g.batch, []uint8{0}, []*sad.Inbound{ah.in})
		if len(live) != 0 {
			if got := g.batch.IP(0); !bytes.Equal(got, g.unsigned(signed)) {
				t.Fatalf("%x came out of %x", got, signed)
			}
			live = g.scratch.Decapsulate(g.batch, live, []*sad.Inbound{tu.in})
		}
		if len(live) != 0 || g.batch.P[0].Reason == packet.DropNone || tu.in.Window.Top() != 0 {
			t.Fatalf("a forged packet passed: %+v", g.batch.P[0])
		}
		start := packet.Headroom + packet.EtherLen
		if !untouched(g.batch.Mem[:packet.Headroom]) || !untouched(g.batch.Mem[start+len(signed)+4:2*packet.FrameSize]) {
			t.Fatal("a byte outside the packet was written")
		}
	})
}
