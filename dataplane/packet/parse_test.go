package packet

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// load puts frame into chunk 0 of b as a freshly received packet 0.
func load(b *Batch, frame []byte) {
	if b.Mem == nil {
		b.Mem = make([]byte, FrameSize)
	}
	copy(b.Mem[Headroom:], frame)
	b.P[0] = Packet{Addr: Headroom, Len: uint16(len(frame))}
	b.N = 1
}

func serialize(t testing.TB, ls ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ls...); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(buf.Bytes())
}

func ethernet(kind layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: kind}
}

type built struct {
	frame []byte
	want  Packet
	flow  Flow
}

// random4 builds a valid IPv4 frame of random make-up and what Parse must find in it.
func random4(t testing.TB, r *rand.Rand) built {
	ip := &layers.IPv4{Version: 4, TOS: uint8(r.Uint32()), Id: uint16(r.Uint32()), TTL: uint8(r.Uint32()),
		SrcIP: net.IP{198, 51, 100, uint8(r.Uint32())}, DstIP: net.IP{203, 0, 113, uint8(r.Uint32())}}
	w := Packet{Addr: Headroom, Version: 4, TOS: ip.TOS, TTL: ip.TTL, L3: 14}
	ls := []gopacket.SerializableLayer{ethernet(layers.EthernetTypeIPv4)}
	if r.IntN(3) == 0 {
		ls[0] = ethernet(layers.EthernetTypeDot1Q)
		ls = append(ls, &layers.Dot1Q{Priority: uint8(r.IntN(8)), Type: layers.EthernetTypeIPv4})
		w.L3, w.Flags = 18, FlagVLAN
		if r.IntN(3) == 0 {
			ls = slices.Insert(ls, 1, gopacket.SerializableLayer(&layers.Dot1Q{Type: layers.EthernetTypeDot1Q}))
			w.L3 = 22
		}
	}
	header := 20
	if r.IntN(3) == 0 {
		n := 1 + r.IntN(10)
		for range n {
			ip.Options = append(ip.Options, layers.IPv4Option{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}})
		}
		header += 4 * n
		w.Flags |= FlagOptions
	}
	payload := make([]byte, r.IntN(600))
	switch r.IntN(4) {
	case 0:
		ip.Flags = layers.IPv4DontFragment
		w.Flags |= FlagDF
	case 1:
		ip.Flags = layers.IPv4MoreFragments
		w.Flags |= FlagFragment
		if r.IntN(2) == 0 {
			ip.FragOffset = uint16(1 + r.IntN(4000))
			w.Flags |= FlagLaterFragment
		}
	case 2:
		ip.FragOffset = uint16(1 + r.IntN(4000))
		w.Flags |= FlagFragment | FlagLaterFragment
	}
	protos := []uint8{ProtoTCP, ProtoUDP, ProtoICMP, ProtoESP, ProtoAH, ProtoSCTP, ProtoUDPLite, ProtoDCCP, ProtoGRE, 255}
	w.Proto = protos[r.IntN(len(protos))]
	ip.Protocol = layers.IPProtocol(w.Proto)
	fill(r, payload)
	frame := serialize(t, append(ls, ip, gopacket.Payload(payload))...)
	finish(&w, header, payload)
	return built{append(frame, make([]byte, r.IntN(20))...), w, FlowBetween(netip.AddrFrom4([4]byte(ip.SrcIP)), netip.AddrFrom4([4]byte(ip.DstIP)), 0)}
}

// random6 is random4 for IPv6, with chains of extension headers written by hand.
func random6(t testing.TB, r *rand.Rand) built {
	ip := &layers.IPv6{Version: 6, TrafficClass: uint8(r.Uint32()), FlowLabel: r.Uint32() & 0xfffff, HopLimit: uint8(r.Uint32()),
		SrcIP: net.ParseIP("2001:db8::1"), DstIP: net.ParseIP("2001:db8:1::2")}
	w := Packet{Addr: Headroom, Version: 6, TOS: ip.TrafficClass, TTL: ip.HopLimit, L3: 14, Flags: FlagDF}
	var kinds []uint8
	if r.IntN(2) == 0 {
		if r.IntN(2) == 0 {
			kinds = append(kinds, ProtoHopByHop)
		}
		for range r.IntN(4) {
			kinds = append(kinds, []uint8{ProtoDestination, ProtoRouting}[r.IntN(2)])
		}
		if r.IntN(2) == 0 {
			kinds = append(kinds, ProtoFragment)
		}
	}
	protos := []uint8{ProtoTCP, ProtoUDP, ProtoICMPv6, ProtoESP, ProtoAH, ProtoNone, ProtoSCTP, 135}
	w.Proto = protos[r.IntN(len(protos))]
	payload := make([]byte, r.IntN(75)*8)
	fill(r, payload)
	var chain []byte
	for k, kind := range kinds {
		next := w.Proto
		if k+1 < len(kinds) {
			next = kinds[k+1]
		}
		w.Flags |= FlagOptions
		h := make([]byte, 8)
		switch kind {
		case ProtoRouting:
			h[1], h[2] = 2, 4 // segment routing, one segment
			h = append(h, make([]byte, 16)...)
		case ProtoFragment:
			offset, more := uint16(r.IntN(3))*8, uint16(r.IntN(2))
			binary.BigEndian.PutUint16(h[2:], offset|more)
			if offset|more != 0 {
				w.Flags |= FlagFragment
			}
			if offset != 0 {
				w.Flags |= FlagLaterFragment
			}
		default:
			h[1], h[2], h[3] = 1, 1, 12 // PadN
			h = append(h, make([]byte, 8)...)
		}
		h[0] = next
		chain = append(chain, h...)
	}
	ip.NextHeader = layers.IPProtocol(w.Proto)
	if len(kinds) > 0 {
		ip.NextHeader = layers.IPProtocol(kinds[0])
	}
	frame := serialize(t, ethernet(layers.EthernetTypeIPv6), ip, gopacket.Payload(append(bytes.Clone(chain), payload...)))
	finish(&w, 40+len(chain), payload)
	return built{frame, w, FlowBetween(netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:1::2"), 0)}
}

func fill(r *rand.Rand, b []byte) {
	for k := range b {
		b[k] = byte(r.Uint32())
	}
}

func finish(w *Packet, header int, payload []byte) {
	w.L4 = w.L3 + uint16(header)
	w.End = w.L4 + uint16(len(payload))
	ported := map[uint8]bool{1: true, 6: true, 17: true, 33: true, 58: true, 132: true, 136: true}
	if ported[w.Proto] && w.Flags&FlagLaterFragment == 0 && len(payload) >= 4 {
		w.Flags |= FlagPorts
		w.SrcPort = binary.BigEndian.Uint16(payload)
		if w.Proto != 1 && w.Proto != 58 {
			w.DstPort = binary.BigEndian.Uint16(payload[2:])
		}
	}
}

func TestParseFindsWhatGopacketBuilt(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var b Batch
	for n := range 4000 {
		x := random4(t, r)
		if n%2 == 1 {
			x = random6(t, r)
		}
		load(&b, x.frame)
		x.want.Len = uint16(len(x.frame))
		if d := Parse(&b, 0); d != DropNone {
			t.Fatalf("packet %d: %v\n%x", n, d, x.frame)
		}
		if b.P[0] != x.want {
			t.Fatalf("packet %d:\n got %+v\nwant %+v\n%x", n, b.P[0], x.want, x.frame)
		}
		x.flow.Proto, x.flow.Flags, x.flow.SrcPort, x.flow.DstPort = x.want.Proto, x.want.Flags, x.want.SrcPort, x.want.DstPort
		if f := FlowOf(&b, 0); f != x.flow || b.Flows[0] != f {
			t.Fatalf("flow %+v, in the batch %+v, want %+v", f, b.Flows[0], x.flow)
		}
		// As an inner packet, behind any L3 and with the flags that are kept.
		b.P[0] = Packet{Addr: Headroom, Len: x.want.Len, L3: x.want.L3, Flags: FlagDecapsulated | FlagVLAN | FlagPorts}
		x.want.Flags = x.want.Flags&^FlagVLAN | FlagDecapsulated
		if d := ParseIP(&b, 0); d != DropNone || b.P[0] != x.want {
			t.Fatalf("ParseIP: %v\n got %+v\nwant %+v", d, b.P[0], x.want)
		}
	}
}

func TestParseRefusesEveryStrictPrefix(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var b Batch
	for n := range 60 {
		x := random4(t, r)
		if n%2 == 1 {
			x = random6(t, r)
		}
		for cut := range int(x.want.End) {
			load(&b, x.frame[:cut])
			if d := Parse(&b, 0); d == DropNone {
				t.Fatalf("prefix of %d of %d bytes was taken\n%x", cut, x.want.End, x.frame)
			}
		}
	}
}

func TestParseRefusesEveryFlippedBitOfIPv4Header(t *testing.T) {
	frame := serialize(t, ethernet(layers.EthernetTypeIPv4),
		&layers.IPv4{Version: 4, TTL: 9, Protocol: 17, SrcIP: net.IP{192, 0, 2, 1}, DstIP: net.IP{192, 0, 2, 2}}, gopacket.Payload("payload of the packet"))
	var b Batch
	for bit := 14 * 8; bit < 34*8; bit++ {
		frame[bit/8] ^= 1 << (bit % 8)
		load(&b, frame)
		if Parse(&b, 0) == DropNone {
			t.Errorf("flipped bit %d was not seen", bit)
		}
		frame[bit/8] ^= 1 << (bit % 8)
	}
}

// v6 is an IPv6 frame with the given first next header, whose payload is h.
func v6(next uint8, h ...byte) []byte {
	f := make([]byte, 14+40, 14+40+len(h))
	binary.BigEndian.PutUint16(f[12:], EtherIPv6)
	f[14] = 0x60
	binary.BigEndian.PutUint16(f[18:], uint16(len(h)))
	f[20] = next
	return append(f, h...)
}

func v4(edit func(h []byte)) []byte {
	f := make([]byte, 14+40)
	binary.BigEndian.PutUint16(f[12:], EtherIPv4)
	h := f[14:]
	h[0], h[3], h[9] = 0x45, 40, 17
	edit(h)
	n := min(max(int(h[0]&15)*4, 20), 40)
	binary.BigEndian.PutUint16(h[10:], 0)
	binary.BigEndian.PutUint16(h[10:], Checksum(h[:n], 0))
	return f
}

func TestParseNamesWhatIsWrong(t *testing.T) {
	options := func(n int, next uint8) []byte { // n destination option headers
		var h []byte
		for k := range n {
			e := []byte{ProtoDestination, 0, 1, 4, 0, 0, 0, 0}
			if k == n-1 {
				e[0] = next
			}
			h = append(h, e...)
		}
		return h
	}
	cases := []struct {
		name  string
		frame []byte
		want  Drop
	}{
		{"empty", nil, DropRunt},
		{"arp", append(make([]byte, 12), 8, 6, 0, 0), DropNotIP},
		{"VLAN", append(make([]byte, 12), 0x81, 0, 0x20, 1, 8, 0), DropVLAN},
		{"VLAN behind a priority tag", append(make([]byte, 12), 0x88, 0xa8, 0xe0, 0, 0x81, 0, 8, 0, 8, 0), DropVLAN},
		{"third tag", append(make([]byte, 12), 0x88, 0xa8, 0, 0, 0x81, 0, 0, 0, 0x81, 0, 0, 0, 8, 0), DropNotIP},
		{"tag cut short", append(make([]byte, 12), 0x81, 0, 0, 0, 8), DropRunt},
		{"plain", v4(func(h []byte) {}), DropNone},
		{"version 6 in an IPv4 frame", v4(func(h []byte) { h[0] = 0x65 }), DropBadIPHeader},
		{"header of 16 bytes", v4(func(h []byte) { h[0] = 0x44 }), DropBadIPHeader},
		{"header longer than the frame", v4(func(h []byte) { h[0] = 0x4f }), DropRunt},
		{"header longer than the datagram", v4(func(h []byte) { h[0], h[3] = 0x46, 20 }), DropBadIPHeader},
		{"datagram shorter than its header", v4(func(h []byte) { h[3] = 19 }), DropBadIPHeader},
		{"datagram longer than the frame", v4(func(h []byte) { h[3] = 41 }), DropBadIPHeader},
		{"ping of death", v4(func(h []byte) { h[6], h[7] = 0x1f, 0xff }), DropBadIPHeader},
		{"reserved flag", v4(func(h []byte) { h[6] = 0x80 }), DropNone},
		{"version 4 in an IPv6 frame", append(v6(59)[:14], append([]byte{0x45}, v6(59)[15:]...)...), DropBadIPHeader},
		{"no next header", v6(ProtoNone), DropNone},
		{"eight extension headers", v6(ProtoDestination, append(options(8, ProtoUDP), 0, 1, 0, 2)...), DropNone},
		{"nine extension headers", v6(ProtoDestination, options(9, ProtoUDP)...), DropBadExtensionHeader},
		{"hop-by-hop second", v6(ProtoDestination, append(options(1, ProtoHopByHop), 59, 0, 1, 4, 0, 0, 0, 0)...), DropBadExtensionHeader},
		{"jumbogram", v6(ProtoHopByHop, 59, 0, optionJumbo, 4, 0, 1, 0, 0), DropBadExtensionHeader},
		{"hop-by-hop beyond payload 0", v6(ProtoHopByHop), DropBadExtensionHeader},
		{"option too long", v6(ProtoHopByHop, 59, 0, 1, 5, 0, 0, 0, 0), DropBadExtensionHeader},
		{"option without length", v6(ProtoHopByHop, 59, 0, 1, 3, 0, 0, 0, 5), DropBadExtensionHeader},
		{"six Pad1", v6(ProtoHopByHop, 59, 0, 0, 0, 0, 0, 0, 0), DropNone},
		{"routing type 0", v6(ProtoRouting, 59, 0, 0, 0, 0, 0, 0, 0), DropBadExtensionHeader},
		{"routing type 2", v6(ProtoRouting, 59, 0, 2, 0, 0, 0, 0, 0), DropNone},
		{"chain cut short", v6(ProtoDestination, 59, 1, 1, 4, 0, 0, 0, 0), DropBadExtensionHeader},
		{"atomic fragment", v6(ProtoFragment, 17, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 2), DropNone},
		{"two fragment headers", v6(ProtoFragment, ProtoFragment, 0, 0, 0, 0, 0, 0, 1, 59, 0, 0, 0, 0, 0, 0, 1), DropBadExtensionHeader},
		{"odd fragment with more to come", v6(ProtoFragment, 17, 0, 0, 1, 0, 0, 0, 1, 0), DropBadExtensionHeader},
		{"fragment beyond 65535", v6(ProtoFragment, 17, 0, 0xff, 0xf8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0), DropBadExtensionHeader},
		{"later fragment of an extension header", v6(ProtoFragment, ProtoDestination, 0, 0, 8, 0, 0, 0, 1, 0xff, 0xff), DropNone},
	}
	var b Batch
	for _, c := range cases {
		load(&b, c.frame)
		if got := Parse(&b, 0); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestMartian(t *testing.T) {
	cases := []struct {
		src, dst string
		want     Drop
	}{
		{"192.0.2.1", "198.51.100.1", DropNone},
		{"192.0.2.1", "233.252.0.1", DropNone},
		{"192.0.2.1", "224.0.0.5", DropMartian},
		{"0.0.0.0", "192.0.2.1", DropMartian},
		{"127.0.0.1", "192.0.2.1", DropMartian},
		{"169.254.1.1", "192.0.2.1", DropMartian},
		{"224.0.1.1", "192.0.2.1", DropMartian},
		{"240.0.0.1", "192.0.2.1", DropMartian},
		{"255.255.255.255", "192.0.2.1", DropMartian},
		{"192.0.2.1", "127.0.0.1", DropMartian},
		{"192.0.2.1", "0.0.0.0", DropMartian},
		{"192.0.2.1", "240.0.0.1", DropMartian},
		{"192.0.2.1", "255.255.255.255", DropMartian},
		{"192.0.2.1", "169.254.0.1", DropMartian},
		{"2001:db8::1", "2001:db8::2", DropNone},
		{"2001:db8::1", "ff05::1", DropNone},
		{"2001:db8::1", "ff02::1", DropMartian},
		{"2001:db8::1", "ff31::1", DropMartian},
		{"::", "2001:db8::2", DropMartian},
		{"::1", "2001:db8::2", DropMartian},
		{"fe80::1", "2001:db8::2", DropMartian},
		{"febf::1", "2001:db8::2", DropMartian},
		{"ff0e::1", "2001:db8::2", DropMartian},
		{"::ffff:192.0.2.1", "2001:db8::2", DropMartian},
		{"2001:db8::1", "::1", DropMartian},
		{"2001:db8::1", "::", DropMartian},
		{"2001:db8::1", "fe80::1", DropMartian},
	}
	var b Batch
	for _, c := range cases {
		src, dst := netip.MustParseAddr(c.src), netip.MustParseAddr(c.dst)
		f := v4(func(h []byte) {
			if src.Is4() {
				copy(h[12:], src.AsSlice())
				copy(h[16:], dst.AsSlice())
			}
		})
		if !src.Is4() {
			f = v6(ProtoNone)
			copy(f[14+8:], src.AsSlice())
			copy(f[14+24:], dst.AsSlice())
		}
		load(&b, f)
		if d := Parse(&b, 0); d != DropNone {
			t.Fatal(d)
		}
		if got := Martian(&b, 0); got != c.want {
			t.Errorf("%s > %s: %v, want %v", c.src, c.dst, got, c.want)
		}
	}
}

// FuzzParse holds the parser to its promise about any bytes: no panic, and
// offsets in order and inside the frame for what it accepts.
func FuzzParse(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 30 {
		f.Add(random4(f, r).frame)
		f.Add(random6(f, r).frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) > LenMax {
			return
		}
		var b Batch
		load(&b, frame)
		b.Mem = b.Mem[:Headroom+len(frame)] // a byte too far panics
		if Parse(&b, 0) != DropNone {
			return
		}
		p := b.P[0]
		least := map[uint8]uint16{4: 20, 6: 40}[p.Version]
		if least == 0 || p.L4 < p.L3+least || p.End < p.L4 || p.End > p.Len {
			t.Fatalf("%+v", p)
		}
		if p.Flags&FlagLaterFragment != 0 && p.Flags&FlagPorts != 0 {
			t.Fatal("ports of a later fragment")
		}
		FlowOf(&b, 0)
		Martian(&b, 0)
		b.P[0].Flags &^= FlagVLAN
		p.Flags &^= FlagVLAN
		if d := ParseIP(&b, 0); d != DropNone || b.P[0] != p {
			t.Fatalf("ParseIP disagrees: %v %+v %+v", d, b.P[0], p)
		}
	})
}

func TestParseAllocatesNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	var b Batch
	for n := range 20 {
		x := random4(t, r)
		if n%2 == 1 {
			x = random6(t, r)
		}
		load(&b, x.frame)
		if n := testing.AllocsPerRun(100, func() {
			Parse(&b, 0)
			ParseIP(&b, 0)
			flowSink = FlowOf(&b, 0)
			Martian(&b, 0)
		}); n != 0 {
			t.Fatalf("%v allocations", n)
		}
	}
}

var (
	flowSink Flow
	sumSink  uint16
)

func BenchmarkParse(bm *testing.B) {
	var b Batch
	for _, c := range []struct {
		name  string
		frame []byte
	}{
		{"v4", v4(func(h []byte) {})},
		{"v6", v6(ProtoUDP, 0, 1, 0, 2, 0, 8, 0, 0)},
		{"v6ext", v6(ProtoHopByHop, 17, 0, 1, 4, 0, 0, 0, 0, 0, 1, 0, 2)},
	} {
		load(&b, c.frame)
		bm.Run(c.name, func(bm *testing.B) {
			bm.ReportAllocs()
			for bm.Loop() {
				Parse(&b, 0)
			}
		})
		bm.Run(c.name+"/flow", func(bm *testing.B) {
			for bm.Loop() {
				flowSink = FlowOf(&b, 0)
			}
		})
	}
}
