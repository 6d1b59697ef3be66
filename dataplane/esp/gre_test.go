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

// gre describes an association that carries inner packets in GRE, with a key unless that is nil.
func (g *rig) gre(suite transform.Suite, outer int, encap bool, key *uint32) sad.Params {
	p := g.params(suite, outer, encap, false)
	p.Carrier = sad.Carrier{Encapsulation: sad.GRE}
	if key != nil {
		p.Carrier.Key, p.Carrier.Keyed = *key, true
	}
	return p
}

// TestGREOverESP carries packets of both families in GRE, and the largest that InnerMTU allows fill the path.
func TestGREOverESP(t *testing.T) {
	key := uint32(0xfeedbeef)
	for _, suite := range shapes {
		for _, outer := range []int{4, 6} {
			for _, encap := range []bool{false, true} {
				for _, key := range []*uint32{nil, &key} {
					t.Run(fmt.Sprintf("%s/v%d/udp=%v/key=%v", suite, outer, encap, key != nil), func(t *testing.T) {
						g := newRig(t)
						tu := g.install(g.gre(suite, outer, encap, key))
						const link = 1500
						most := tu.out.InnerMTU(link)
						if back := tu.in.InnerMTU(link, 0); back != most {
							t.Errorf("inner MTU %d there, %d back", most, back)
						}
						for _, inner := range []int{4, 6} {
							for _, length := range []int{40, 41, 200, 1300, most} {
								d := g.datagram(inner, length)
								esp := g.seal1(d, tu.out)
								if len(esp) > link || length == most && len(esp)+int(tu.out.Align) <= link {
									t.Errorf("%d bytes of %d became %d", length, most, len(esp))
								}
								if reason := g.open1(esp, tu.in); reason != packet.DropNone || !bytes.Equal(g.batch.IP(0), d) {
									t.Fatalf("%d bytes of IPv%d: %v", length, inner, reason)
								}
							}
						}
					})
				}
			}
		}
	}
}

// TestGREOfScapy takes packets of the independent implementation, and gives it ours.
func TestGREOfScapy(t *testing.T) {
	theirs := vectorsOf(t, "testdata/scapy_gre.json")
	if want := 24 * len(shapes); len(theirs) != want {
		t.Fatalf("%d vectors, want %d", len(theirs), want)
	}
	for i, v := range theirs {
		g := newRig(t)
		suite, err := transform.Parse(v.Suite)
		if err != nil {
			t.Fatal(err)
		}
		p := g.gre(suite, v.Outer, false, v.Key)
		if !v.GRE {
			p.Carrier = sad.Carrier{Encapsulation: sad.IPIP}
		}
		g.takes(i, v, p)
	}
	zero, key := uint32(0), uint32(0xfeedbeef)
	var ours []vector
	for _, suite := range shapes {
		for _, outer := range []int{4, 6} {
			for _, key := range []*uint32{nil, &zero, &key} {
				for _, inner := range []int{4, 6} {
					g := newRig(t)
					d := g.datagram(inner, 61+inner)
					p := g.gre(suite, outer, false, key)
					v := vector{
						Suite: suite.String(), SPI: p.SPI, Keymat: hex.EncodeToString(p.Keymat), Outer: outer, Transport: true, GRE: true, Key: key,
						Inner: hex.EncodeToString(d),
					}
					v.Packet = hex.EncodeToString(g.seal1(d, g.install(p).out))
					ours = append(ours, v)
				}
			}
		}
	}
	scapyOpens(t, ours)
}

// greHeader is a GRE header of 16-bit words, in front of d.
func greHeader(d []byte, words ...uint16) []byte {
	var h []byte
	for _, w := range words {
		h = binary.BigEndian.AppendUint16(h, w)
	}
	return append(h, d...)
}

// TestGREHeadersThatAreRefused come from a peer with good keys: each ends as bad-gre, and moves the window.
func TestGREHeadersThatAreRefused(t *testing.T) {
	key := uint32(0x00010002)
	g := newRig(t)
	d := g.datagram(4, 60)
	good := withChecksum(greHeader(d, 0xb000, 0x0800, 0, 0, 1, 2, 0, 9))
	spoiled := bytes.Clone(good)
	spoiled[len(spoiled)-1]++
	for name, c := range map[string]struct {
		key  *uint32
		text []byte
		want packet.Drop
	}{
		"plain":                 {nil, greHeader(d, 0, 0x0800), packet.DropNone},
		"reserved bits":         {nil, greHeader(d, 0x03f8, 0x0800), packet.DropNone}, // RFC 2784, 2.3: ignored
		"everything":            {&key, good, packet.DropNone},
		"bad checksum":          {&key, spoiled, packet.DropBadGRE},
		"no key":                {&key, greHeader(d, 0, 0x0800), packet.DropBadGRE},
		"another key":           {&key, greHeader(d, 0x2000, 0x0800, 1, 3), packet.DropBadGRE},
		"a key":                 {nil, greHeader(d, 0x2000, 0x0800, 1, 2), packet.DropBadGRE},
		"routing":               {nil, greHeader(d, 0x4000, 0x0800, 0, 0), packet.DropBadGRE},
		"strict source route":   {nil, greHeader(d, 0x0800, 0x0800), packet.DropBadGRE},
		"recursion":             {nil, greHeader(d, 0x0400, 0x0800), packet.DropBadGRE},
		"version 1":             {nil, greHeader(d, 0x0001, 0x0800), packet.DropBadGRE},
		"a protocol of its own": {nil, greHeader(d, 0, 0), packet.DropBadGRE}, // keepalives
		"Ethernet":              {nil, greHeader(d, 0, 0x6558), packet.DropBadGRE},
		"short":                 {nil, []byte{0, 0}, packet.DropBadGRE},
		"cut behind its flags":  {&key, greHeader(nil, 0x2000, 0x0800), packet.DropBadGRE},
		"another IP version":    {nil, greHeader(d, 0, 0x86dd), packet.DropBadInner},
		"nothing behind it":     {nil, greHeader(nil, 0, 0x0800), packet.DropBadInner},
		"outside the selectors": {nil, greHeader(g.elsewhere(), 0, 0x0800), packet.DropSelectorMismatch},
	} {
		tu := g.install(g.gre(transform.AES128GCM16, 4, false, c.key))
		if reason := g.open1(g.forge(tu, 5, withTrailer(c.text, int(tu.out.Align), packet.ProtoGRE)), tu.in); reason != c.want {
			t.Errorf("%s: %v, want %v", name, reason, c.want)
		}
		if top := tu.in.Window.Top(); top != 5 {
			t.Errorf("%s: the window is at %d", name, top)
		}
	}
	// Neither without a GRE header what is to have one, nor the other way round.
	tu := g.install(g.gre(transform.AES128GCM16, 4, false, nil))
	if reason := g.open1(g.forge(tu, 1, withTrailer(d, 4, packet.ProtoIPv4)), tu.in); reason != packet.DropBadNextHeader {
		t.Errorf("IP in an association of GRE: %v", reason)
	}
	tu = g.tunnel(transform.AES128GCM16, 4, false, false)
	if reason := g.open1(g.forge(tu, 1, withTrailer(greHeader(d, 0, 0x0800), 4, packet.ProtoGRE)), tu.in); reason != packet.DropBadNextHeader {
		t.Errorf("GRE in tunnel mode: %v", reason)
	}
}

// withChecksum puts the checksum into a GRE packet.
func withChecksum(h []byte) []byte {
	binary.BigEndian.PutUint16(h[4:], packet.Checksum(h, 0))
	return h
}

// elsewhere is a datagram that the rig's selectors do not hold.
func (g *rig) elsewhere() []byte {
	d := g.datagram(4, 60)
	copy(d[12:], []byte{192, 0, 2, 99})
	sum4(d)
	return d
}

// FuzzGREAuthenticated gives GRE packets of any content under a good ICV: no panic, and what is accepted is an IP packet that stood behind a
// header as long as its flags say, of the protocol that this names, with the key; nothing outside the packet is written.
func FuzzGREAuthenticated(f *testing.F) {
	g := newRig(f)
	key := uint32(0x00010002)
	var tunnels []tunnel
	for k, key := range []*uint32{nil, &key} {
		tunnels = append(tunnels, g.install(g.gre(transform.AES128GCM16, 4, false, key)))
		f.Add(uint8(k), greHeader(g.datagram(4, 60), 0, 0x0800))
		f.Add(uint8(k), greHeader(g.datagram(6, 60), 0x2000, 0x86dd, 1, 2))
		f.Add(uint8(k), withChecksum(greHeader(g.datagram(4, 64), 0xb000, 0x0800, 0, 0, 1, 2, 0, 9)))
		f.Add(uint8(k), greHeader(nil, 0x7fff, 0xffff))
	}
	f.Fuzz(func(t *testing.T, which uint8, gre []byte) {
		if len(gre) > 1500 {
			return
		}
		g.t = t
		tu := tunnels[which%2]
		seq := tu.in.Window.Top() + 1
		d := g.forge(tu, seq, withTrailer(gre, int(tu.out.Align), packet.ProtoGRE))
		g.wipeFrames(2)
		g.put(0, d)
		if reason := packet.Parse(g.batch, 0); reason != packet.DropNone {
			t.Fatal(reason)
		}
		live := g.scratch.Decapsulate(g.batch, []uint8{0}, []*sad.Inbound{tu.in})
		if (len(live) == 1) != (g.batch.P[0].Reason == packet.DropNone) || tu.in.Window.Top() != seq {
			t.Fatalf("live %v, reason %v", live, g.batch.P[0].Reason)
		}
		end := packet.Headroom + packet.EtherLen + len(d)
		if !untouched(g.batch.Mem[:packet.Headroom]) || !untouched(g.batch.Mem[end:2*packet.FrameSize]) {
			t.Fatal("a byte outside the packet was written")
		}
		if len(live) == 0 {
			return
		}
		inner, header := g.batch.IP(0), 4
		for _, bit := range []byte{0x80, 0x20, 0x10} {
			if gre[0]&bit != 0 {
				header += 4
			}
		}
		protocol := map[byte]uint16{4: 0x0800, 6: 0x86dd}[inner[0]>>4]
		if gre[0]&0x4c != 0 || gre[1]&7 != 0 || gre[0]&0x20 != 0 != (which%2 == 1) || binary.BigEndian.Uint16(gre[2:]) != protocol ||
			!bytes.HasPrefix(gre[header:], inner) || gre[0]&0x80 != 0 && packet.Checksum(gre, 0) != 0 {
			t.Fatalf("accepted %x from %x", inner, gre)
		}
		if gre[0]&0x20 != 0 && !bytes.Equal(gre[header-4-int(gre[0]>>4&1)*4:][:4], []byte{0, 1, 0, 2}) {
			t.Fatalf("accepted the key of %x", gre)
		}
	})
}
