package dataplane

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"reflect"
	"testing"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/transform"
)

// TestBundlesCross carries packets with AH and ESP through whole gateways, with one worker and with two that take the association from each
// other: hosts' by a tunnel, the gateways' own in transport mode. What came cannot come again; every packet is accounted for.
func TestBundlesCross(t *testing.T) {
	for _, bundle := range []transform.Suite{transform.NullSHA256, transform.AES256GMAC} {
		for _, o := range []options{
			{suite: transform.AES128GCM16}, {outer6: true, esn: true}, {suite: transform.AES256CBCSHA256}, {workers: 2, queues: 2, esn: true},
			{workers: 3, queues: 3, outer6: true},
		} {
			o.bundle, o.ring = bundle, 512
			t.Run(fmt.Sprintf("%s/%s/v6=%v/workers=%d", bundle, o.withDefaults().suite, o.outer6, max(1, o.workers)), func(t *testing.T) {
				a, b := newRig(t, o)
				var sent, all [][]byte
				for round := range 4 {
					sent = sent[:0]
					for size := 28; size < 1300; size += 97 {
						sent = append(sent, udp4("198.51.100.5", "198.51.100.200", size, 64), udp6("2001:db8:a::5", "2001:db8:b::5", size+20, 64))
					}
					a.inject(inside, sent...)
					both := cross(t, a, b)
					compare(t, sent, b.drain(inside))
					at := 14 + 9
					if o.outer6 {
						at = 14 + 6
					}
					for _, f := range both {
						if f[at] != packet.ProtoAH {
							t.Fatalf("protocol %d left", f[at])
						}
					}
					all = append(all, both...)
					if o.workers > 1 {
						for _, g := range []*gateway{a, b} {
							g.Associations(func(x *sad.Info) bool { g.sad.RequestMove(x.Handle, round%o.workers); return true })
						}
					}
				}
				b.inject(outside, all...)
				if want := map[string]uint64{"replayed": uint64(len(all))}; !reflect.DeepEqual(b.dropped(), want) || len(a.dropped()) != 0 {
					t.Errorf("dropped %v, %v", a.dropped(), b.dropped())
				}
				for _, g := range []*gateway{a, b} {
					owners := map[bool]int{}
					g.Associations(func(x *sad.Info) bool {
						if x.Params.SPI&0xffff == 0x1001 {
							owners[x.Params.AH] = x.Owner
							if x.Packets != uint64(len(all)) || x.Sequence != uint64(len(all)) || x.Bundled == 0 {
								t.Errorf("%+v", x)
							}
						}
						return true
					})
					if len(owners) != 2 || owners[false] != owners[true] {
						t.Errorf("owners %v", owners)
					}
				}
				if s := a.Stats().Total; s.SentESP != uint64(len(all)) || s.Sealed != uint64(len(all)) || b.Stats().Total.Opened != uint64(len(all)) {
					t.Errorf("%d sent, %d sealed, %d opened of %d", s.SentESP, s.Sealed, b.Stats().Total.Opened, len(all))
				}
				a.settled()
				b.settled()
			})
		}
		for _, outer6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/own/v6=%v", bundle, outer6), func(t *testing.T) {
				a, b := hosts(t, options{bundle: bundle, outer6: outer6}, 0)
				var sent [][]byte
				for size := 28; size < 1300; size += 131 {
					sent = append(sent, own(outer6, size))
				}
				a.inject(inside, sent...)
				cross(t, a, b)
				got := b.drain(inside)
				if len(got) != len(sent) {
					t.Fatalf("%d of %d arrived: %v %v", len(got), len(sent), a.dropped(), b.dropped())
				}
				for i := range got {
					if !bytes.Equal(got[i][14:], sent[i][14:]) {
						t.Errorf("packet %d arrived as %x, was %x", i, got[i][14:], sent[i][14:])
					}
				}
				a.settled()
				b.settled()
			})
		}
	}
}

// stripped takes AH out of a frame over IPv4 without options, as who is on the way can.
func stripped(f []byte) []byte {
	f = bytes.Clone(f)
	f[14+9] = f[34]
	f = append(f[:34], f[34+8+4*int(f[35]):]...)
	binary.BigEndian.PutUint16(f[14+2:], uint16(len(f)-14))
	f[14+10], f[14+11] = 0, 0
	binary.BigEndian.PutUint16(f[14+10:], packet.Checksum(f[14:34], 0))
	return f
}

// TestHalfABundleIsRefused sends ESP whose AH was taken away, and AH without ESP, to a gateway that wants both; and one that has half of it to
// send. Each ends under its name, with one worker or two, and nothing else is disturbed.
func TestHalfABundleIsRefused(t *testing.T) {
	for _, workers := range []int{1, 2} {
		o := options{bundle: transform.NullSHA256, workers: workers, queues: workers, esn: true}
		a, b := newRig(t, o)
		plain, _ := newRig(t, options{esn: true}) // the same keys, no AH
		frame := func(size int) []byte { return udp4("198.51.100.5", "198.51.100.200", size, 64) }
		a.inject(inside, frame(100), frame(101), frame(102))
		both := a.drain(outside)
		// Alone, before anything claimed the association and afterwards; on all queues.
		for range 2 {
			b.inject(outside, stripped(both[0]), stripped(both[1]))
		}
		if n := len(b.drain(inside)); n != 0 {
			t.Fatalf("%d packets passed without AH", n)
		}
		b.Associations(func(x *sad.Info) bool {
			if x.Owner >= 0 {
				t.Error("a packet that anybody can send has claimed an association")
			}
			return true
		})
		b.inject(outside, both[0])
		b.inject(outside, stripped(both[2]))
		plain.inject(inside, frame(300))
		b.inject(outside, plain.drain(outside)...)
		// AH around UDP: signed by who has the key of AH alone.
		forger, _ := hosts(t, options{suite: transform.NullSHA256, params: func(p *sad.Params) { p.AH, p.ESN = true, false }}, 0)
		p := sad.Params{
			Name: "forger", SPI: 0x1001 + bundledSPI, Suite: o.bundle, Keymat: keymat(o.bundle, 0x1001+bundledSPI), Local: sideA.outer4, Remote: sideB.outer4,
			AH: true, Transport: true, Sequence: 50,
		}
		h, err := forger.Install(p)
		if err == nil {
			err = forger.Bind(0, h)
		}
		if err != nil {
			t.Fatal(err)
		}
		forger.inject(inside, own(false, 100))
		alone := forger.drain(outside)
		if len(alone) != 1 || alone[0][14+9] != packet.ProtoAH {
			t.Fatalf("%x: %v", alone, forger.dropped())
		}
		b.inject(outside, alone...)
		if n := len(b.drain(inside)); n != 1 {
			t.Errorf("%d packets passed", n)
		}
		b.inject(outside, both[1:]...)
		if n := len(b.drain(inside)); n != 2 {
			t.Errorf("%d packets passed afterwards", n)
		}
		if want := map[string]uint64{"bundle-mismatch": 7}; !reflect.DeepEqual(b.dropped(), want) {
			t.Errorf("dropped %v, want %v", b.dropped(), want)
		}
		// What the owner saw is in the association's books and its recorder.
		var counted uint64
		b.Associations(func(x *sad.Info) bool { counted += x.OtherDrops; return true })
		if counted == 0 || workers == 1 && counted != 3 {
			t.Errorf("%d counted at associations", counted)
		}
		if f := b.flightOf(0x1001); workers == 1 && (f.Dropped != 2 || f.Records[len(f.Records)-1].Reason != packet.DropBundleMismatch || !f.Records[len(f.Records)-1].Outer) {
			t.Errorf("%+v", f)
		}
		a.settled()
		b.settled()
	}
}

// TestBundleFitsThePath: AH's bytes count where the MTU is told, where packets are cut up before and after encryption, and where ICMP tells a
// smaller one, about the SPI of AH; too little of a packet is no such error.
func TestBundleFitsThePath(t *testing.T) {
	for _, o := range []options{{}, {outer6: true}, {suite: transform.AES256CBCSHA256}} {
		o.bundle, o.esn = transform.NullSHA512, true
		t.Run(fmt.Sprintf("%s/v6=%v", o.withDefaults().suite, o.outer6), func(t *testing.T) {
			a, b := newRig(t, o)
			header := map[bool]int{false: 20, true: 40}[o.outer6]
			mtu := a.outbound().InnerMTU(1500)
			a.inject(inside, udp4("198.51.100.5", "198.51.100.200", mtu, 64), udp4("198.51.100.5", "198.51.100.200", mtu+1, 64))
			left := cross(t, a, b)
			if len(left) != 1 || len(left[0]) > 14+1500 || len(left[0]) <= 14+1500-16 {
				t.Fatalf("%d packets left, one of %d", len(left), len(left[0]))
			}
			answers := a.drain(inside)
			if len(answers) != 1 || int(binary.BigEndian.Uint16(answers[0][14+26:])) != mtu {
				t.Errorf("answers %x", answers)
			}
			if n := len(b.drain(inside)); n != 1 {
				t.Errorf("%d arrived", n)
			}
			a.inject(outside, tooBigFor(left[0], 1300, header+8)) // without a sequence number
			a.inject(outside, tooBigFor(stripped6(left[0], o.outer6), 1300, header+12))
			a.inject(outside, tooBigFor(left[0], 1300, header+12))
			a.judged()
			if s := a.Stats().Paths; s.Learned != 1 || s.Implausible != 1 || a.outbound().PathMTU() != 1300 {
				t.Errorf("%+v, path MTU %d", s, a.outbound().PathMTU())
			}
			if fits := a.outbound().InnerMTU(1500); mtu-fits < 190 || mtu-fits > 210 {
				t.Errorf("inner MTU %d, then %d", mtu, fits)
			}
			if want := map[string]uint64{"too-big": 1, "icmp-unverified": 1, "icmp-heeded": 2}; !reflect.DeepEqual(a.dropped(), want) {
				t.Errorf("dropped %v", a.dropped())
			}
			a.settled()
			b.settled()

			for _, after := range []bool{false, true} {
				o := o
				o.mtu = 3700
				o.params = func(p *sad.Params) { p.MTU, p.Fragment, p.CopyDF = 1400, after, false }
				a, b := newRig(t, o)
				big := udp4("198.51.100.5", "198.51.100.200", 3000, 64)
				big[14+6] = 0
				sum := packet.Checksum(append(append([]byte{}, big[14:24]...), append([]byte{0, 0}, big[26:34]...)...), 0)
				binary.BigEndian.PutUint16(big[14+10:], sum)
				a.inject(inside, big)
				left := cross(t, a, b)
				for _, f := range left {
					if len(f) > 14+1400 {
						t.Errorf("after %v: a piece of %d bytes", after, len(f)-14)
					}
				}
				got := b.drain(inside)
				if len(left) != 3 || after != (len(got) == 1) || !after && len(got) != 3 {
					t.Errorf("after %v: %d left, %d arrived: %v %v", after, len(left), len(got), a.dropped(), b.dropped())
				}
				if s := a.Stats().Total; after != (s.FragmentedESP == 1) || b.Stats().Total.Reassembled != s.FragmentedESP {
					t.Errorf("after %v: %d cut up after, %d put together", after, s.FragmentedESP, b.Stats().Total.Reassembled)
				}
				a.settled()
				b.settled()
			}
		})
	}
}

// stripped6 names ESP where a frame has AH: the packet that an error quotes was never sent.
func stripped6(f []byte, outer6 bool) []byte {
	f = bytes.Clone(f)
	if outer6 {
		f[14+6] = packet.ProtoESP
	} else {
		f[14+9] = packet.ProtoESP
	}
	return f
}

// TestTraceAndRecorderShowBothHalves of a bundle, outbound and inbound, and which of them refuses.
func TestTraceAndRecorderShowBothHalves(t *testing.T) {
	o := options{bundle: transform.NullSHA256}
	a, _ := newRig(t, o)
	var fresh [][]byte
	for range 3000 {
		a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
		fresh = append(fresh, a.drain(outside)...)
	}
	for _, c := range []struct {
		spi   uint32
		outer bool
		src   netip.Addr
	}{{0x1001, false, netip.MustParseAddr("198.51.100.5")}, {0x1001 + bundledSPI, true, sideA.outer4}} {
		f := a.flightOf(c.spi)
		if r := f.Records[len(f.Records)-1]; f.Passed == 0 || r.Outer != c.outer || r.Src.Netip(4) != c.src || r.Sequence == 0 {
			t.Errorf("%#x: %+v", c.spi, f)
		}
	}
	b := newWatchedBy(t, options{workers: 1, queues: 1, bundle: o.bundle})
	ways, traces := b.trace(inside, 1, [][]byte{udp4("198.51.100.200", "198.51.100.5", 100, 64)}, nil)
	if ways[0] != "take, classify, admit, seal, sign, send" {
		t.Errorf("an outbound packet goes %s", ways[0])
	}
	if s := traces[0].Steps; s[3].Packet.SPI != 0x2001 || s[4].Packet.SPI != 0x2001+bundledSPI || s[4].Packet.Seq == 0 || s[4].Association != "rig" {
		t.Errorf("%+v, %+v", s[3].Moment, s[4].Moment)
	}
	fromA := func(w *Watch) { w.Filter.Src = netip.MustParsePrefix("192.0.2.1/32") }
	ways, traces = b.trace(outside, 1, fresh, fromA)
	if ways[0] != "take, classify, verify, open, route, forward, send" {
		t.Errorf("an inbound packet goes %s", ways[0])
	}
	if s := traces[0].Steps; s[2].Packet.SPI != 0x1001+bundledSPI || s[3].Packet.SPI != 0x1001 || s[2].Flow.Proto != packet.ProtoESP || s[3].Association != "rig" || s[2].Association != "rig" {
		t.Errorf("%+v, %+v", s[2].Moment, s[3].Moment)
	}
	ways, traces = b.trace(outside, 5, fresh[:1], fromA)
	if s := traces[4].Steps[2]; ways[4] != "take, classify, verify replayed" || s.Window == 0 || s.Highest == 0 {
		t.Errorf("replayed: %v, %+v", ways, s.Moment)
	}
	for _, spi := range []uint32{0x1001, 0x1001 + bundledSPI} {
		f := b.flightOf(spi)
		if f.Passed == 0 || (f.Dropped > 0) != (spi != 0x1001) || f.Records[0].Outer != (spi != 0x1001) {
			t.Errorf("%#x: %+v", spi, f)
		}
	}
	b.Stop()
	b.settled()
}

// TestBundleObeysItsTerms: filters and lifetimes are those of the inner packets, whichever half sees them; and nothing on the path allocates.
func TestBundleObeysItsTerms(t *testing.T) {
	o := options{bundle: transform.NullSHA256, params: func(p *sad.Params) { p.Lifetime.HardPackets = 5 }}
	a, b := newRig(t, o)
	for range 7 {
		a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
		cross(t, a, b)
	}
	if n := len(b.drain(inside)); n != 5 || a.dropped()["lifetime-ended"] != 2 || len(b.dropped()) != 0 {
		t.Errorf("%d arrived: %v, %v", n, a.dropped(), b.dropped())
	}
	a.settled()
	b.settled()

	o.params = nil
	a, b = newRig(t, o)
	for _, g := range []*gateway{a, b} { // a second bundle that ends by a filter inbound
		var p sad.Params
		g.Associations(func(x *sad.Info) bool {
			if x.Params.Inbound && !x.Params.AH {
				p = x.Params
			}
			return true
		})
		p.Filter = filter(t, true)
		p.SPI += 1
		p.Keymat = keymat(p.Suite, 77)
		p.Bundle = &sad.Bundle{SPI: p.Bundle.SPI + 1, Suite: p.Bundle.Suite, Keymat: keymat(p.Bundle.Suite, 78)}
		if _, err := g.Install(p); err != nil {
			t.Fatal(err)
		}
	}
	p := sad.Params{Name: "second", SPI: 0x1002, Suite: transform.AES128GCM16, Keymat: keymat(transform.AES128GCM16, 77), Local: sideA.outer4, Remote: sideB.outer4}
	p.Bundle = &sad.Bundle{SPI: 0x1002 + bundledSPI, Suite: o.bundle, Keymat: keymat(o.bundle, 78)}
	h, err := a.Install(p)
	if err != nil {
		t.Fatal(err)
	}
	old := a.sad.Bound(0)
	a.Bind(0, h)
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
	cross(t, a, b)
	if want := map[string]uint64{"filtered": 1}; !reflect.DeepEqual(b.dropped(), want) {
		t.Errorf("dropped %v, %v", a.dropped(), b.dropped())
	}
	a.Bind(0, sad.Handle(old))
	var frames [][]byte
	for i := range 40 {
		frames = append(frames, udp4("198.51.100.5", "198.51.100.200", 60+i*17, 64))
	}
	zero(t, "seal, sign, verify and open", rounds(a, b, frames))
	a.settled()
	b.settled()
}
