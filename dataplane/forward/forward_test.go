package forward

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"sallyport/dataplane/packet"
)

var (
	gateway4 = netip.MustParseAddr("192.0.2.254")
	gateway6 = netip.MustParseAddr("2001:db8::254")
	host4    = net.IP{192, 0, 2, 1}
	peer4    = net.IP{198, 51, 100, 1}
	host6    = net.ParseIP("2001:db8::1")
	peer6    = net.ParseIP("2001:db8:1::1")
	macA     = [6]byte{2, 0, 0, 0, 0, 0xa}
	macB     = [6]byte{2, 0, 0, 0, 0, 0xb}
)

const frames = 16

// load parses frame as packet 0, placed at offset at of chunk 1 among untouched chunks.
func load(t testing.TB, b *packet.Batch, at uint64, frame []byte) {
	t.Helper()
	if b.Mem == nil {
		b.Mem = make([]byte, frames*packet.FrameSize)
	}
	addr := packet.FrameSize + at
	copy(b.Mem[addr:], frame)
	b.P[0] = packet.Packet{Addr: addr, Len: uint16(len(frame)), Port: 3}
	if d := packet.Parse(b, 0); d != packet.DropNone {
		t.Fatalf("%v\n%x", d, frame)
	}
}

func serialize(t testing.TB, ls ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ls...); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(buf.Bytes())
}

func ethernet(version int) *layers.Ethernet {
	e := &layers.Ethernet{SrcMAC: macA[:], DstMAC: macB[:], EthernetType: layers.EthernetTypeIPv4}
	if version == 6 {
		e.EthernetType = layers.EthernetTypeIPv6
	}
	return e
}

func ip4(proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Id: 0x1234, Protocol: proto, SrcIP: host4, DstIP: peer4}
}

func ip6(proto layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, SrcIP: host6, DstIP: peer6}
}

// udp is a UDP frame with n bytes of payload.
func udp(t testing.TB, version, n int) []byte {
	u := &layers.UDP{SrcPort: 1000, DstPort: 2000}
	payload := make([]byte, n)
	for k := range payload {
		payload[k] = byte(k * 7)
	}
	if version == 4 {
		ip := ip4(layers.IPProtocolUDP)
		u.SetNetworkLayerForChecksum(ip)
		return serialize(t, ethernet(4), ip, u, gopacket.Payload(payload))
	}
	ip := ip6(layers.IPProtocolUDP)
	u.SetNetworkLayerForChecksum(ip)
	return serialize(t, ethernet(6), ip, u, gopacket.Payload(payload))
}

// checkRecord fails unless parsing packet i again finds what the record says.
func checkRecord(t testing.TB, b *packet.Batch, i int) {
	t.Helper()
	was := b.P[i]
	if d := packet.Parse(b, i); d != packet.DropNone {
		t.Fatalf("built a bad packet: %v\n%x", d, b.Frame(i))
	}
	if b.P[i] != was {
		t.Fatalf("record\n %+v, parsed again\n %+v", was, b.P[i])
	}
	if end := was.Addr + uint64(was.Len); end+packet.TailSlack > packet.Chunk(was.Addr)+packet.FrameSize {
		t.Fatalf("no slack behind %d", end)
	}
}

// checkChunks fails if a chunk other than those of packets in use was written.
func checkChunks(t testing.TB, b *packet.Batch, used ...uint64) {
	t.Helper()
	for chunk := uint64(0); chunk < frames; chunk++ {
		if !slices.Contains(used, chunk) && !allZero(b.Mem[chunk*packet.FrameSize:][:packet.FrameSize]) {
			t.Fatalf("wrote to chunk %d", chunk)
		}
	}
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func TestDecrementTTLKeepsChecksumTrue(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var b packet.Batch
	for n := range 4000 {
		ip := ip4(layers.IPProtocolUDP)
		ip.TTL, ip.TOS, ip.Id, ip.Protocol = uint8(n), uint8(r.Uint32()), uint16(r.Uint32()), layers.IPProtocol(r.Uint32())
		ip.DstIP = net.IP{198, 51, uint8(r.Uint32()), uint8(r.Uint32())}
		load(t, &b, 256, serialize(t, ethernet(4), ip, gopacket.Payload("0123456789")))
		before := bytes.Clone(b.Frame(0))
		d := DecrementTTL(&b, 0)
		if ip.TTL <= 1 {
			if d != packet.DropTTLExpired || !bytes.Equal(before, b.Frame(0)) {
				t.Fatalf("TTL %d: %v", ip.TTL, d)
			}
			continue
		}
		ip.TTL--
		if want := serialize(t, ethernet(4), ip, gopacket.Payload("0123456789")); d != packet.DropNone || !bytes.Equal(want, b.Frame(0)) {
			t.Fatalf("TTL %d: %v\n got %x\nwant %x", n, d, b.Frame(0), want)
		}
		checkRecord(t, &b, 0)
	}
	for limit := range 256 {
		ip := ip6(layers.IPProtocolNoNextHeader)
		ip.HopLimit = uint8(limit)
		load(t, &b, 256, serialize(t, ethernet(6), ip))
		d := DecrementTTL(&b, 0)
		if (d == packet.DropTTLExpired) != (limit <= 1) {
			t.Fatalf("hop limit %d: %v", limit, d)
		}
		if d == packet.DropNone && int(b.IP(0)[7]) != limit-1 {
			t.Fatalf("hop limit %d became %d", limit, b.IP(0)[7])
		}
		checkRecord(t, &b, 0)
	}
}

func TestWriteEthernetStripsTagAndPadding(t *testing.T) {
	for _, version := range []int{4, 6} {
		plain := udp(t, version, 33) // too long to be padded
		tagged := slices.Concat(plain[:12], []byte{0x81, 0, 0xa0, 0}, plain[12:], make([]byte, 30))
		want := slices.Concat(macB[:], macA[:], plain[12:])
		for _, frame := range [][]byte{plain, tagged} {
			var b packet.Batch
			load(t, &b, 256, frame)
			WriteEthernet(&b, 0, &macA, &macB)
			if !bytes.Equal(b.Frame(0), want) {
				t.Fatalf("\n got %x\nwant %x", b.Frame(0), want)
			}
			checkRecord(t, &b, 0)
		}
		// From a TUN device: no link header yet.
		var b packet.Batch
		b.Mem = make([]byte, frames*packet.FrameSize)
		copy(b.Mem[packet.FrameSize+256:], plain[14:])
		b.P[0] = packet.Packet{Addr: packet.FrameSize + 256, Len: uint16(len(plain) - 14), Flags: packet.FlagLocal}
		if d := packet.ParseIP(&b, 0); d != packet.DropNone {
			t.Fatal(d)
		}
		WriteEthernet(&b, 0, &macA, &macB)
		if !bytes.Equal(b.Frame(0), want) || b.P[0].Addr != packet.FrameSize+256-14 {
			t.Fatalf("%x", b.Frame(0))
		}
		checkRecord(t, &b, 0)
	}
}

func TestLimiterKeepsRateAndBurst(t *testing.T) {
	for _, start := range []int64{-5, 0, 1 << 50} {
		l := NewLimiter(1000, 5)
		allowed := 0
		for range 100 {
			if l.Allow(start) {
				allowed++
			}
		}
		if allowed != 5 {
			t.Fatalf("burst of %d", allowed)
		}
		if l.Allow(start + 999_999) {
			t.Fatal("token before its time")
		}
		if !l.Allow(start+1_000_000) || l.Allow(start+1_000_000) {
			t.Fatal("not one token after one interval")
		}
		allowed = 0
		for now := start + 1e9; now < start+3e9; now += 1e5 {
			if l.Allow(now) {
				allowed++
			}
		}
		if allowed != 5+1999 && allowed != 5+2000 {
			t.Fatalf("%d in two seconds", allowed)
		}
	}
	for _, l := range []Limiter{{}, NewLimiter(0, 5), NewLimiter(5, 0), NewLimiter(-1, -1)} {
		if l.Allow(0) || l.Allow(1<<60) {
			t.Fatal("an empty limiter allowed something")
		}
	}
	if l := NewLimiter(1, 1<<60); !l.Allow(1) || !l.Allow(1<<40) {
		t.Fatal("a huge burst overflowed")
	}
	if l := NewLimiter(2e9, 1); !l.Allow(0) || l.Allow(0) || !l.Allow(1) {
		t.Fatal("a huge rate has no interval")
	}
}

// syn builds a TCP frame with the given flags octet and raw option bytes (a multiple of 4).
func syn(t testing.TB, version int, flags byte, options []byte) []byte {
	header := make([]byte, 20, 20+len(options))
	copy(header, []byte{0x12, 0x34, 0, 80, 1, 2, 3, 4})
	header[12], header[13], header[14] = byte(20+len(options))/4<<4, flags, 0x40
	segment := append(append(header, options...), "payload"...)
	src, dst := []byte(host4), []byte(peer4)
	if version == 6 {
		src, dst = host6, peer6
	}
	binary.BigEndian.PutUint16(segment[16:], packet.Checksum(segment, packet.PseudoSum(src, dst, 6, uint32(len(segment)))))
	if version == 4 {
		return serialize(t, ethernet(4), ip4(layers.IPProtocolTCP), gopacket.Payload(segment))
	}
	return serialize(t, ethernet(6), ip6(layers.IPProtocolTCP), gopacket.Payload(segment))
}

// tcpSum is 0 if the TCP checksum of packet i is right.
func tcpSum(b *packet.Batch, i int) uint16 {
	h, p := b.IP(i), b.P[i]
	src, dst := h[12:16], h[16:20]
	if p.Version == 6 {
		src, dst = h[8:24], h[24:40]
	}
	segment := h[p.L4-p.L3:]
	return packet.Checksum(segment, packet.PseudoSum(src, dst, 6, uint32(len(segment))))
}

func TestClampMSS(t *testing.T) {
	cases := []struct {
		name          string
		flags         byte
		options, want []byte // want for a limit of 1400; nil = unchanged
	}{
		{"lowered", 0x02, []byte{2, 4, 5, 180}, []byte{2, 4, 5, 120}},
		{"with ACK", 0x12, []byte{2, 4, 5, 180}, []byte{2, 4, 5, 120}},
		{"with ECN setup", 0xc2, []byte{2, 4, 0xff, 0xff}, []byte{2, 4, 5, 120}},
		{"no SYN", 0x10, []byte{2, 4, 5, 180}, nil},
		{"equal", 0x02, []byte{2, 4, 5, 120}, nil},
		{"never raised", 0x02, []byte{2, 4, 2, 24}, nil},
		{"none", 0x02, []byte{1, 1, 1, 0}, nil},
		{"no options", 0x02, nil, nil},
		{"behind others", 0x02, []byte{4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 5, 180, 1, 3, 3, 7}, []byte{4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 5, 120, 1, 3, 3, 7}},
		{"odd offset", 0x02, []byte{1, 2, 4, 5, 180, 1, 1, 0}, []byte{1, 2, 4, 5, 120, 1, 1, 0}},
		{"twice", 0x02, []byte{2, 4, 5, 180, 2, 4, 6, 0}, []byte{2, 4, 5, 120, 2, 4, 5, 120}},
		{"behind the end", 0x02, []byte{0, 2, 4, 5, 180, 0, 0, 0}, nil},
		{"wrong length 3", 0x02, []byte{2, 3, 5, 180}, nil},
		{"wrong length 6", 0x02, []byte{2, 6, 5, 180, 1, 1, 1, 0}, nil},
		{"length 0", 0x02, []byte{8, 0, 2, 4, 5, 180, 1, 1}, nil},
		{"length 1", 0x02, []byte{8, 1, 2, 4, 5, 180, 1, 1}, nil},
		{"too long", 0x02, []byte{1, 1, 2, 4}, nil},
		{"kind alone at the end", 0x02, []byte{1, 1, 1, 2}, nil},
	}
	for _, version := range []int{4, 6} {
		mtu := map[int]int{4: 1440, 6: 1460}[version]
		for _, c := range cases {
			var b packet.Batch
			load(t, &b, 256, syn(t, version, c.flags, c.options))
			want := c.want
			if want == nil {
				want = c.options
			}
			changed := ClampMSS(&b, 0, mtu)
			if changed != (c.want != nil) || !bytes.Equal(b.Frame(0), syn(t, version, c.flags, want)) {
				t.Errorf("v%d %s: changed %v\n%x", version, c.name, changed, b.Frame(0))
			}
		}
		// An MTU that leaves no room, or has no limit, changes nothing.
		for _, mtu := range []int{-1, 0, 40, 1 << 20} {
			var b packet.Batch
			load(t, &b, 256, syn(t, version, 2, []byte{2, 4, 5, 180}))
			if ClampMSS(&b, 0, mtu) {
				t.Errorf("v%d clamped to MTU %d", version, mtu)
			}
		}
	}
}

func TestClampMSSLeavesLaterFragmentsAlone(t *testing.T) {
	ip := ip4(layers.IPProtocolTCP)
	ip.FragOffset = 100
	segment := syn(t, 4, 2, []byte{2, 4, 5, 180})[34:]
	var b packet.Batch
	load(t, &b, 256, serialize(t, ethernet(4), ip, gopacket.Payload(segment)))
	if ClampMSS(&b, 0, 1000) {
		t.Fatal("data of a later fragment taken for a TCP header")
	}
}

// FuzzClampMSS: for any option bytes nothing but MSS values and the checksum changes, the
// checksum stays true, and a second call finds nothing left to lower.
func FuzzClampMSS(f *testing.F) {
	f.Add(false, byte(2), []byte{2, 4, 5, 180}, 1440)
	f.Add(true, byte(2), []byte{1, 2, 4, 5, 180, 1, 1, 0}, 1280)
	f.Add(true, byte(18), []byte{8, 0, 2, 4, 5, 180, 1, 1}, 99)
	f.Fuzz(func(t *testing.T, six bool, flags byte, options []byte, mtu int) {
		options = options[:min(len(options), 40)&^3]
		version := 4
		if six {
			version = 6
		}
		var b packet.Batch
		load(t, &b, 256, syn(t, version, flags, options))
		before := bytes.Clone(b.Frame(0))
		changed := ClampMSS(&b, 0, mtu)
		if changed == bytes.Equal(before, b.Frame(0)) {
			t.Fatalf("changed %v", changed)
		}
		if tcpSum(&b, 0) != 0 {
			t.Fatal("checksum broken")
		}
		l4 := int(b.P[0].L4)
		options = b.Frame(0)[l4+20 : l4+20+len(options)]
		copy(before[l4+16:], b.Frame(0)[l4+16:l4+18])
		copy(before[l4+20:], options)
		if !bytes.Equal(before, b.Frame(0)) {
			t.Fatal("changed more than options and checksum")
		}
		if ClampMSS(&b, 0, mtu) {
			t.Fatal("not idempotent")
		}
		// Garbage with any data offset must not panic either.
		b.Frame(0)[l4+12] = flags
		ClampMSS(&b, 0, mtu)
	})
}

func TestNothingAllocates(t *testing.T) {
	out := make([]packet.Packet, 8)
	next := uint64(2)
	alloc := func() (uint64, bool) { next++; return next * packet.FrameSize, true }
	l := NewLimiter(1, 1)
	for _, version := range []int{4, 6} {
		var b packet.Batch
		src := map[int]netip.Addr{4: gateway4, 6: gateway6}[version]
		frame, handshake := udp(t, version, 1400), syn(t, version, 2, []byte{2, 4, 5, 180})
		load(t, &b, 256, frame)
		was := b.P[0]
		run := func(name string, f func()) {
			if n := testing.AllocsPerRun(50, func() {
				b.P[0] = was
				copy(b.Frame(0), frame)
				next = 2
				f()
			}); n != 0 {
				t.Errorf("v%d %s: %v allocations", version, name, n)
			}
		}
		run("ttl", func() { DecrementTTL(&b, 0) })
		run("ethernet", func() { WriteEthernet(&b, 0, &macA, &macB) })
		run("fit", func() { FitOf(&b, 0, 1000) })
		run("too big", func() { TooBig(&b, 0, 1300, src) })
		run("time exceeded", func() { TimeExceeded(&b, 0, src) })
		run("unreachable", func() { Unreachable(&b, 0, AdminProhibited, src) })
		run("fragment", func() { Fragment(&b, 0, 600, out, alloc) })
		run("limiter", func() { l.Allow(5) })
		load(t, &b, 256, handshake)
		was, frame = b.P[0], handshake
		run("mss", func() { ClampMSS(&b, 0, 1300) })
	}
}

func BenchmarkForward(bm *testing.B) {
	for _, version := range []int{4, 6} {
		src := map[int]netip.Addr{4: gateway4, 6: gateway6}[version]
		run := func(name string, frame []byte, f func(b *packet.Batch)) {
			bm.Run(fmt.Sprintf("v%d/%s", version, name), func(bm *testing.B) {
				var b packet.Batch
				load(bm, &b, 256, frame)
				was := b.P[0]
				bm.ReportAllocs()
				for bm.Loop() {
					b.P[0] = was
					f(&b)
				}
			})
		}
		run("ttl", udp(bm, version, 64), func(b *packet.Batch) { b.P[0].TTL = 64; DecrementTTL(b, 0) })
		run("ethernet", udp(bm, version, 64), func(b *packet.Batch) { WriteEthernet(b, 0, &macA, &macB) })
		run("mss-not-tcp", udp(bm, version, 64), func(b *packet.Batch) { ClampMSS(b, 0, 1400) })
		run("mss-syn", syn(bm, version, 2, []byte{2, 4, 5, 180}), func(b *packet.Batch) { ClampMSS(b, 0, 1400) })
		run("toobig", udp(bm, version, 1400), func(b *packet.Batch) { TooBig(b, 0, 1300, src) })
	}
}
