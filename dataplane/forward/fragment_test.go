package forward

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"sallyport/dataplane/packet"
)

// reassemble puts the datagrams ds back together: the payload from its offset first on, and whether more must follow.
func reassemble(t testing.TB, ds []*layers.IPv4) (payload []byte, first int, more bool) {
	t.Helper()
	ds = slices.Clone(ds)
	slices.SortFunc(ds, func(x, y *layers.IPv4) int { return int(x.FragOffset) - int(y.FragOffset) })
	first = int(ds[0].FragOffset) * 8
	for k, d := range ds {
		if int(d.FragOffset)*8 != first+len(payload) {
			t.Fatalf("fragment %d starts at %d, not %d", k, int(d.FragOffset)*8, first+len(payload))
		}
		more = d.Flags&layers.IPv4MoreFragments != 0
		if k < len(ds)-1 && (!more || len(d.Payload)%8 != 0) {
			t.Fatalf("fragment %d of %d: more %v, %d bytes", k, len(ds), more, len(d.Payload))
		}
		payload = append(payload, d.Payload...)
	}
	return payload, first, more
}

func TestFragmentsReassembleToTheWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for n := range 3000 {
		ip := ip4(layers.IPProtocolUDP)
		ip.TOS = uint8(n)
		if r.IntN(2) == 0 {
			ip.Options = []layers.IPv4Option{{OptionType: 7, OptionLength: 7, OptionData: make([]byte, 5)}, {OptionType: 1},
				{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
		}
		payload := make([]byte, 100+r.IntN(3400))
		switch r.IntN(3) {
		case 0:
			ip.FragOffset = uint16(r.IntN(1000))
		case 1:
			ip.FragOffset, ip.Flags = uint16(r.IntN(1000)), layers.IPv4MoreFragments
			payload = payload[:len(payload)&^7]
		}
		for k := range payload {
			payload[k] = byte(r.Uint32())
		}
		var b packet.Batch
		load(t, &b, 256, serialize(t, ethernet(4), ip, gopacket.Payload(payload)))
		b.P[0].SPI, b.P[0].Tunnel, b.P[0].Hop = 7, 8, 9
		was := b.P[0]
		mtu := 320 + r.IntN(1300)
		if int(was.End-was.L3) <= mtu {
			if FitOf(&b, 0, mtu) != Fits {
				t.Fatal("a packet that fits does not")
			}
			continue
		}
		if FitOf(&b, 0, mtu) != Split {
			t.Fatal("a packet that may be split may not")
		}
		used := []uint64{1}
		var out [14]packet.Packet
		count, d := Fragment(&b, 0, mtu, out[:], func() (uint64, bool) {
			used = append(used, uint64(len(used)+1))
			return used[len(used)-1]*packet.FrameSize + 99, true
		})
		if d != packet.DropNone || count+1 != len(used) {
			t.Fatalf("%v, %d records, %d frames", d, count, len(used)-1)
		}
		var ds []*layers.IPv4
		for k := range count + 1 {
			if k > 0 {
				b.P[1] = out[k-1]
			}
			i := min(k, 1)
			if p := b.P[i]; p.SPI != 7 || p.Tunnel != 8 || p.Hop != 9 || p.Port != 3 {
				t.Fatalf("look-ups lost: %+v", p)
			}
			WriteEthernet(&b, i, &macA, &macB)
			checkRecord(t, &b, i)
			got := gopacket.NewPacket(b.Frame(i), layers.LayerTypeEthernet, gopacket.Default).Layer(layers.LayerTypeIPv4).(*layers.IPv4)
			if int(got.Length) > mtu || got.Id != ip.Id || got.TTL != ip.TTL || got.TOS != ip.TOS || got.Protocol != ip.Protocol || !got.SrcIP.Equal(ip.SrcIP) || !got.DstIP.Equal(ip.DstIP) {
				t.Fatalf("fragment %d: %+v", k, got)
			}
			// Record route (7) stays in the first, router alert (148) is copied.
			if wantOptions := len(ip.Options) > 0; wantOptions != (len(got.Options) > 0) || k > 0 && wantOptions && (got.Options[0].OptionType != 148 || got.IHL != 6) {
				t.Fatalf("fragment %d: options %v", k, got.Options)
			}
			ds = append(ds, got)
		}
		back, first, more := reassemble(t, ds)
		if !bytes.Equal(back, payload) || first != int(ip.FragOffset)*8 || more != (ip.Flags != 0) {
			t.Fatalf("reassembled %d bytes from %d, more %v", len(back), first, more)
		}
		checkChunks(t, &b, used...)
	}
}

func TestFragmentRefusesAndLeavesThePacket(t *testing.T) {
	ok := func() (uint64, bool) { return 2 * packet.FrameSize, true }
	given := 0
	onlyOne := func() (uint64, bool) { given++; return 5 * packet.FrameSize, given == 1 }
	df := ip4(17)
	df.Flags = layers.IPv4DontFragment
	cases := []struct {
		name   string
		frame  []byte
		mtu    int
		out    int
		alloc  func() (uint64, bool)
		n      int
		reason packet.Drop
	}{
		{"v6", udp(t, 6, 1000), 600, 8, ok, 0, packet.DropTooBig},
		{"don't fragment", serialize(t, ethernet(4), df, gopacket.Payload(make([]byte, 900))), 600, 8, ok, 0, packet.DropTooBig},
		{"fits", udp(t, 4, 1000), 1028, 8, ok, 0, packet.DropNone},
		{"no 8 bytes", udp(t, 4, 1000), 27, 8, ok, 0, packet.DropTooBig},
		{"negative", udp(t, 4, 1000), -100, 8, ok, 0, packet.DropTooBig},
		{"too many", udp(t, 4, 1000), 28, 8, ok, 0, packet.DropNoRoom},
		{"frames run out", udp(t, 4, 1000), 400, 8, onlyOne, 1, packet.DropNoRoom},
	}
	for _, c := range cases {
		var b packet.Batch
		load(t, &b, 256, c.frame)
		was, mem := b.P[0], bytes.Clone(b.Mem)
		out := make([]packet.Packet, c.out)
		n, reason := Fragment(&b, 0, c.mtu, out, c.alloc)
		if n != c.n || reason != c.reason || b.P[0] != was || !bytes.Equal(mem, b.Mem) {
			t.Errorf("%s: %d %v", c.name, n, reason)
		}
		for _, p := range out[:n] {
			if packet.Chunk(p.Addr) != 5*packet.FrameSize {
				t.Errorf("%s: frame lost, %+v", c.name, p)
			}
		}
	}
	var b packet.Batch
	load(t, &b, 256, udp(t, 6, 1400))
	if FitOf(&b, 0, 1300) != Refused {
		t.Error("IPv6 is not split on the way")
	}
}

// FuzzFragment: any IPv4 options and any MTU give well-formed fragments within it, which
// reassemble to the whole.
func FuzzFragment(f *testing.F) {
	f.Add([]byte{7, 7, 4, 1, 2, 3, 4, 1}, 700, 300)
	f.Add([]byte{148, 0, 0, 0}, 900, 100)
	f.Add([]byte{0x83, 3, 4, 0x89, 200, 1, 1, 1}, 100, 84)
	f.Fuzz(func(t *testing.T, options []byte, size, mtu int) {
		options = options[:min(len(options), 40)&^3]
		if size < 0 || size > 3500 {
			return
		}
		whole := make([]byte, 14+20+len(options)+size)
		copy(whole[12:], []byte{8, 0, 0x45 + byte(len(options)/4), 0, byte((len(whole) - 14) >> 8), byte(len(whole) - 14), 1, 2, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2})
		copy(whole[34:], options)
		for k := range size {
			whole[34+len(options)+k] = byte(k * 3)
		}
		sum := packet.Checksum(whole[14:34+len(options)], 0)
		whole[24], whole[25] = byte(sum>>8), byte(sum)
		var b packet.Batch
		load(t, &b, 256, whole)
		var out [14]packet.Packet
		chunk := uint64(1)
		n, reason := Fragment(&b, 0, mtu, out[:], func() (uint64, bool) { chunk++; return chunk * packet.FrameSize, true })
		if reason != packet.DropNone || n == 0 {
			return
		}
		var back []byte
		for k := range n + 1 {
			if k > 0 {
				b.P[0] = out[k-1]
			}
			WriteEthernet(&b, 0, &macA, &macB)
			checkRecord(t, &b, 0)
			if len(b.IP(0)) > mtu {
				t.Fatalf("%d bytes, MTU %d", len(b.IP(0)), mtu)
			}
			back = append(back, b.Frame(0)[b.P[0].L4:]...)
		}
		if !bytes.Equal(back, whole[34+len(options):]) {
			t.Fatal("reassembles to something else")
		}
	})
}

// FuzzFragmentSource: whatever the packet, the path and the frames there are, the pieces are datagrams with Fragment headers within the MTU, which put together are the
// packet, and nothing else is written to; or the packet is as it was, and no frame is lost.
func FuzzFragmentSource(f *testing.F) {
	f.Add(uint16(1452), 1280, uint32(7), uint16(256), uint8(14), true, uint8(0xb8))
	f.Add(uint16(3500), 576, uint32(1<<31), uint16(300), uint8(3), false, uint8(1))
	f.Add(uint16(100), 56, uint32(0), uint16(7), uint8(14), true, uint8(0))
	f.Add(uint16(8), 55, uint32(1), uint16(8), uint8(0), true, uint8(0xff))
	f.Fuzz(func(t *testing.T, size uint16, mtu int, id uint32, at uint16, frames uint8, udp bool, tos uint8) {
		if size = max(size%3600, 20); at > 400 {
			at %= 400
		}
		proto := layers.IPProtocolESP
		if udp {
			proto = layers.IPProtocolUDP
		}
		ip := ip6(proto)
		ip.TrafficClass, ip.FlowLabel, ip.HopLimit = tos, uint32(tos)<<8, tos|1
		payload := make([]byte, size)
		for k := range payload {
			payload[k] = byte(k*7 + k>>8)
		}
		if udp { // a length that fits, as Parse wants it
			payload[4], payload[5] = byte(size>>8), byte(size)
		}
		var b packet.Batch
		load(t, &b, uint64(at), serialize(t, ethernet(6), ip, gopacket.Payload(payload)))
		was, mem := b.P[0], bytes.Clone(b.Mem)
		whole := bytes.Clone(b.IP(0))
		var out [14]packet.Packet
		used := []uint64{1}
		n, reason := FragmentSource(&b, 0, mtu, id, out[:], func() (uint64, bool) {
			if len(used) > int(frames) {
				return 0, false
			}
			used = append(used, uint64(len(used)+1))
			return used[len(used)-1]*packet.FrameSize + 33, true
		})
		step := max(0, min(mtu, packet.LenMax-packet.EtherLen)-48) &^ 7
		if reason != packet.DropNone || len(whole) <= mtu {
			want, need := packet.DropNone, 0
			if step >= 8 {
				need = (int(size)+step-1)/step - 1
			}
			switch {
			case len(whole) <= mtu:
			case step < 8:
				want = packet.DropTooBig
			case at < 8 || need > len(out) || need > int(frames):
				want = packet.DropNoRoom
			default:
				t.Fatalf("refused for %v", reason)
			}
			if reason != want || n != len(used)-1 || b.P[0] != was || !bytes.Equal(mem, b.Mem) {
				t.Fatalf("%v, not %v; %d frames of %d told; changed: %v", reason, want, n, len(used)-1, b.P[0] != was)
			}
			return
		}
		if n != len(used)-1 || n == 0 {
			t.Fatalf("%d records for %d frames", n, len(used)-1)
		}
		var back []byte
		for k := range n + 1 {
			if k > 0 {
				b.P[0] = out[k-1]
			}
			WriteEthernet(&b, 0, &macA, &macB)
			checkRecord(t, &b, 0)
			p := gopacket.NewPacket(b.Frame(0), layers.LayerTypeEthernet, gopacket.Default)
			got, _ := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
			piece, _ := p.Layer(layers.LayerTypeIPv6Fragment).(*layers.IPv6Fragment)
			if got == nil || piece == nil || len(b.IP(0)) > mtu {
				t.Fatalf("piece %d of %d bytes, MTU %d: %v", k, len(b.IP(0)), mtu, p)
			}
			if int(got.Length) != len(b.IP(0))-40 || got.TrafficClass != tos || got.FlowLabel != ip.FlowLabel || got.HopLimit != tos|1 ||
				!got.SrcIP.Equal(ip.SrcIP) || !got.DstIP.Equal(ip.DstIP) {
				t.Fatalf("piece %d: %+v", k, got)
			}
			data := b.IP(0)[48:]
			if piece.NextHeader != proto || piece.Identification != id || piece.Reserved1 != 0 || piece.Reserved2 != 0 ||
				int(piece.FragmentOffset)*8 != len(back) || piece.MoreFragments != (k < n) || k < n && len(data)%8 != 0 {
				t.Fatalf("piece %d after %d bytes: %+v", k, len(back), piece)
			}
			back = append(back, data...)
		}
		if !bytes.Equal(back, payload) {
			t.Fatalf("%d bytes came to %d others", len(payload), len(back))
		}
		checkChunks(t, &b, used...)
	})
}
