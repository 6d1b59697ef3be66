package forward

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"sallyport/dataplane/packet"
	"sallyport/tools/craft"
)

// checkError fails unless packet 0 is the ICMP error that must answer the datagram
// original: gopacket's reading of it, its checksums, its quote.
func checkError(t testing.TB, b *packet.Batch, original []byte, src netip.Addr, kind, code uint8, word uint32) {
	t.Helper()
	p := b.P[0]
	if p.Flags&packet.FlagLocal == 0 || p.L3 != 14 || p.End != p.Len || p.Port != 3 {
		t.Fatalf("record %+v", p)
	}
	WriteEthernet(b, 0, &macA, &macB)
	checkRecord(t, b, 0)
	got := gopacket.NewPacket(b.Frame(0), layers.LayerTypeEthernet, gopacket.DecodeOptions{SkipDecodeRecovery: true})
	flow := packet.FlowOf(b, 0)
	h := b.IP(0)
	var quote []byte
	var most int
	if src.Is4() {
		ip, icmp := got.Layer(layers.LayerTypeIPv4).(*layers.IPv4), got.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
		if icmp.TypeCode != layers.CreateICMPv4TypeCode(kind, code) || ip.TTL != 64 || binary.BigEndian.Uint32(h[24:]) != word {
			t.Fatalf("%v, TTL %d, word %d", icmp.TypeCode, ip.TTL, binary.BigEndian.Uint32(h[24:]))
		}
		if craft.Sum(h[:20]) != 0xffff || craft.Sum(h[20:]) != 0xffff {
			t.Fatalf("checksums: %x", h)
		}
		if flow.DstAddr() != netip.AddrFrom4([4]byte(original[12:16])) {
			t.Fatalf("to %v", flow.DstAddr())
		}
		quote, most = icmp.Payload, 576-28
	} else {
		icmp := got.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
		if icmp.TypeCode != layers.CreateICMPv6TypeCode(kind, code) || binary.BigEndian.Uint32(h[44:]) != word {
			t.Fatalf("%v, word %d", icmp.TypeCode, binary.BigEndian.Uint32(h[44:]))
		}
		pseudo := append(bytes.Clone(h[8:40]), 0, 0, byte((len(h)-40)>>8), byte(len(h)-40), 0, 0, 0, 58)
		if craft.Sum(append(pseudo, h[40:]...)) != 0xffff {
			t.Fatalf("checksum: %x", h)
		}
		if flow.DstAddr() != netip.AddrFrom16([16]byte(original[8:24])) {
			t.Fatalf("to %v", flow.DstAddr())
		}
		quote, most = h[48:], 1280-48
	}
	if flow.SrcAddr() != src || flow.SrcPort != uint16(kind)<<8|uint16(code) {
		t.Fatalf("flow %+v", flow)
	}
	if want := original[:min(len(original), most)]; !bytes.Equal(quote, want) {
		t.Fatalf("quote of %d bytes\n got %x\nwant %x", len(want), quote, want)
	}
}

func TestErrorsQuoteAndAddress(t *testing.T) {
	kinds := []struct {
		name           string
		build          func(b *packet.Batch, src netip.Addr) bool
		t4, c4, t6, c6 uint8
		w4, w6         uint32
	}{
		{"too big", func(b *packet.Batch, src netip.Addr) bool { return TooBig(b, 0, 1400, src) }, 3, 4, 2, 0, 1400, 1400},
		{"too big, small", func(b *packet.Batch, src netip.Addr) bool { return TooBig(b, 0, 60, src) }, 3, 4, 2, 0, 68, 1280},
		{"too big, huge", func(b *packet.Batch, src netip.Addr) bool { return TooBig(b, 0, 70000, src) }, 3, 4, 2, 0, 65535, 70000},
		{"time exceeded", func(b *packet.Batch, src netip.Addr) bool { return TimeExceeded(b, 0, src) }, 11, 0, 3, 0, 0, 0},
		{"net", func(b *packet.Batch, src netip.Addr) bool { return Unreachable(b, 0, NetUnreachable, src) }, 3, 0, 1, 0, 0, 0},
		{"host", func(b *packet.Batch, src netip.Addr) bool { return Unreachable(b, 0, HostUnreachable, src) }, 3, 1, 1, 3, 0, 0},
		{"prohibited", func(b *packet.Batch, src netip.Addr) bool { return Unreachable(b, 0, AdminProhibited, src) }, 3, 13, 1, 1, 0, 0},
	}
	for _, version := range []int{4, 6} {
		// Payloads around both quote limits, odd and even; starts without headroom and deep in the chunk.
		for _, n := range []int{0, 1, 100, 519, 520, 521, 1183, 1184, 1185, 1472, 3600} {
			for _, at := range []uint64{0, 30, 47, 62, 256, 400} {
				for _, k := range kinds {
					var b packet.Batch
					load(t, &b, at, udp(t, version, n))
					original := bytes.Clone(b.IP(0))
					var ok bool
					if version == 4 {
						if ok = k.build(&b, gateway4); ok {
							checkError(t, &b, original, gateway4, k.t4, k.c4, k.w4)
						}
					} else if ok = k.build(&b, gateway6); ok {
						checkError(t, &b, original, gateway6, k.t6, k.c6, k.w6)
					}
					if !ok {
						t.Fatalf("v%d %s: not built", version, k.name)
					}
					checkChunks(t, &b, 1)
				}
			}
		}
	}
}

func TestErrorsAreNotSentAbout(t *testing.T) {
	icmp4 := func(kind uint8) []byte {
		return serialize(t, ethernet(4), ip4(1), gopacket.Payload([]byte{kind, 0, 0, 0, 0, 0, 0, 0}))
	}
	icmp6 := func(kind uint8) []byte {
		return serialize(t, ethernet(6), ip6(58), gopacket.Payload([]byte{kind, 0, 0, 0, 0, 0, 0, 0}))
	}
	from4 := func(src, dst string) []byte {
		ip := ip4(17)
		ip.SrcIP, ip.DstIP = netip.MustParseAddr(src).AsSlice(), netip.MustParseAddr(dst).AsSlice()
		return serialize(t, ethernet(4), ip, gopacket.Payload("12345678"))
	}
	from6 := func(src, dst string) []byte {
		ip := ip6(17)
		f := serialize(t, ethernet(6), ip, gopacket.Payload("12345678"))
		copy(f[14+8:], netip.MustParseAddr(src).AsSlice())
		copy(f[14+24:], netip.MustParseAddr(dst).AsSlice())
		return f
	}
	link := func(f []byte) []byte { f[0] |= 1; return f }
	fragment4 := func(offset uint16) []byte {
		ip := ip4(17)
		ip.FragOffset, ip.Flags = offset, layers.IPv4MoreFragments
		return serialize(t, ethernet(4), ip, gopacket.Payload("12345678"))
	}
	fragment6 := func(offset byte) []byte {
		return serialize(t, ethernet(6), ip6(44), gopacket.Payload([]byte{17, 0, 0, offset | 1, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8}))
	}
	cases := []struct {
		name          string
		frame         []byte
		others, toBig bool // may be answered with other errors; with TooBig
	}{
		{"v4 echo", icmp4(8), true, true},
		{"v4 echo reply", icmp4(0), true, true},
		{"v4 timestamp", icmp4(13), true, true},
		{"v4 unreachable", icmp4(3), false, false},
		{"v4 quench", icmp4(4), false, false},
		{"v4 redirect", icmp4(5), false, false},
		{"v4 time exceeded", icmp4(11), false, false},
		{"v4 parameter problem", icmp4(12), false, false},
		{"v4 unknown ICMP", icmp4(200), false, false},
		{"v4 ICMP cut short", serialize(t, ethernet(4), ip4(1), gopacket.Payload([]byte{8, 0})), false, false},
		{"v4 first fragment", fragment4(0), true, true},
		{"v4 later fragment", fragment4(8), false, false},
		{"v4 source 0", from4("0.0.0.0", "192.0.2.1"), false, false},
		{"v4 source net 0", from4("0.1.2.3", "192.0.2.1"), false, false},
		{"v4 source loopback", from4("127.0.0.1", "192.0.2.1"), false, false},
		{"v4 source multicast", from4("224.0.1.1", "192.0.2.1"), false, false},
		{"v4 source class E", from4("240.0.0.1", "192.0.2.1"), false, false},
		{"v4 source broadcast", from4("255.255.255.255", "192.0.2.1"), false, false},
		{"v4 to multicast", from4("192.0.2.1", "233.252.0.1"), false, false},
		{"v4 to broadcast", from4("192.0.2.1", "255.255.255.255"), false, false},
		{"v4 link multicast", link(udp(t, 4, 9)), false, false},
		{"v6 echo", icmp6(128), true, true},
		{"v6 echo reply", icmp6(129), true, true},
		{"v6 unreachable", icmp6(1), false, false},
		{"v6 too big", icmp6(2), false, false},
		{"v6 private error", icmp6(127), false, false},
		{"v6 redirect", icmp6(137), false, false},
		{"v6 ICMP without type", serialize(t, ethernet(6), ip6(58)), false, false},
		{"v6 first fragment", fragment6(0), true, true},
		{"v6 later fragment", fragment6(8), false, false},
		{"v6 source unspecified", from6("::", "2001:db8::1"), false, false},
		{"v6 source loopback", from6("::1", "2001:db8::1"), false, false},
		{"v6 source mapped", from6("::ffff:192.0.2.1", "2001:db8::1"), false, false},
		{"v6 source multicast", from6("ff0e::1", "2001:db8::1"), false, false},
		{"v6 to multicast", from6("2001:db8::1", "ff0e::1"), false, true},
		{"v6 link multicast", link(udp(t, 6, 9)), false, true},
	}
	for _, c := range cases {
		builders := []struct {
			want  bool
			build func(b *packet.Batch, src netip.Addr) bool
		}{
			{c.toBig, func(b *packet.Batch, src netip.Addr) bool { return TooBig(b, 0, 1400, src) }},
			{c.others, func(b *packet.Batch, src netip.Addr) bool { return TimeExceeded(b, 0, src) }},
			{c.others, func(b *packet.Batch, src netip.Addr) bool { return Unreachable(b, 0, HostUnreachable, src) }},
		}
		for k, x := range builders {
			var b packet.Batch
			load(t, &b, 256, c.frame)
			src, foreign := gateway4, gateway6
			if b.P[0].Version == 6 {
				src, foreign = gateway6, gateway4
			}
			was, mem := b.P[0], bytes.Clone(b.Mem)
			for _, bad := range []netip.Addr{foreign, {}, netip.MustParseAddr("::ffff:192.0.2.1")} {
				if x.build(&b, bad) {
					t.Errorf("%s, builder %d: spoke as %v", c.name, k, bad)
				}
			}
			got := x.build(&b, src)
			if got != x.want {
				t.Errorf("%s, builder %d: built %v", c.name, k, got)
			}
			if !got && (b.P[0] != was || !bytes.Equal(mem, b.Mem)) {
				t.Errorf("%s, builder %d: refused, but changed the packet", c.name, k)
			}
			if got && x.build(&b, src) {
				t.Errorf("%s, builder %d: an error about the error", c.name, k)
			}
		}
	}
}

func TestLinkHeaderOfDecapsulatedPacketIsNotRead(t *testing.T) {
	var b packet.Batch
	load(t, &b, 256, udp(t, 4, 9))
	b.Frame(0)[0] = 0xff // a byte of the ESP header or IV
	b.P[0].Flags |= packet.FlagDecapsulated
	if !TimeExceeded(&b, 0, gateway4) {
		t.Fatal("not built")
	}
	if b.P[0].Flags&packet.FlagDecapsulated != 0 {
		t.Fatal("the gateway's own error came out of no association")
	}
}

// FuzzErrors: for any frame that parses, wherever it lies, what is built is well formed and
// correctly summed, in its chunk, and never answered by another error.
func FuzzErrors(f *testing.F) {
	r := rand.New(rand.NewPCG(9, 9))
	for n := range 8 {
		f.Add(udp(f, 4+n%2*2, r.IntN(1500)), uint16(r.IntN(300)), uint8(n), 1400)
	}
	f.Add(syn(f, 4, 2, []byte{2, 4, 5, 180}), uint16(0), uint8(0), 68)
	f.Fuzz(func(t *testing.T, frame []byte, at uint16, which uint8, mtu int) {
		if len(frame) == 0 || len(frame)+int(at) > packet.FrameSize-packet.TailSlack {
			return
		}
		var b packet.Batch
		b.Mem = make([]byte, frames*packet.FrameSize)
		copy(b.Mem[packet.FrameSize+int(at):], frame)
		b.P[0] = packet.Packet{Addr: packet.FrameSize + uint64(at), Len: uint16(len(frame)), Port: 3}
		if packet.Parse(&b, 0) != packet.DropNone {
			return
		}
		original := bytes.Clone(b.IP(0))
		src := gateway4
		if b.P[0].Version == 6 {
			src = gateway6
		}
		var built bool
		switch which % 3 {
		case 0:
			built = TooBig(&b, 0, mtu, src)
		case 1:
			built = TimeExceeded(&b, 0, src)
		case 2:
			built = Unreachable(&b, 0, Reason(which/3)%reasonCount, src)
		}
		checkChunks(t, &b, 1)
		if !built {
			return
		}
		icmp := b.Frame(0)[b.P[0].L4:]
		checkError(t, &b, original, src, icmp[0], icmp[1], binary.BigEndian.Uint32(icmp[4:]))
		if TooBig(&b, 0, 1280, src) {
			t.Fatal("an error about an error")
		}
	})
}
