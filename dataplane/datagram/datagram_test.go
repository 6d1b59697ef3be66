package datagram

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"sallyport/dataplane/memio"
	"sallyport/dataplane/packet"
	"sallyport/tools/testbed"
)

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// ends are pairs of addresses of both families and on both ports.
var ends = [][2]netip.AddrPort{
	{at("192.0.2.1:500"), at("192.0.2.2:500")},
	{at("192.0.2.1:4500"), at("203.0.113.7:61234")},
	{at("[2001:db8::1]:500"), at("[2001:db8::2]:500")},
	{at("[2001:db8::1]:4500"), at("[2001:db8::2]:4500")},
}

// TestFramesAreWhatAnIndependentDecoderReads decodes frames of every length around the checksum's edges.
func TestFramesAreWhatAnIndependentDecoderReads(t *testing.T) {
	for _, e := range ends {
		for _, size := range []int{0, 1, 2, 3, 28, 29, 1231, 3000} {
			data := bytes.Repeat([]byte{0xa5, 0x3c, 0xff}, size)[:size]
			marked := e[0].Port() == PortNATT
			frame, err := Append(nil, e[0], e[1], 7, marked, data)
			if err != nil {
				t.Fatal(err)
			}
			if got := len(frame) - packet.EtherLen; got != Len(e[0].Addr(), marked, size) {
				t.Errorf("%v: %d bytes, Len says %d", e, got, Len(e[0].Addr(), marked, size))
			}
			p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
			if p.ErrorLayer() != nil {
				t.Fatalf("%v: %v", e, p.ErrorLayer().Error())
			}
			udp := p.TransportLayer().(*layers.UDP)
			udp.SetNetworkLayerForChecksum(p.NetworkLayer())
			if err, mismatches := p.VerifyChecksums(); err != nil || len(mismatches) > 0 {
				t.Errorf("%v, %d bytes: checksums: %v %v", e, size, err, mismatches)
			}
			src, _ := netip.AddrFromSlice(p.NetworkLayer().NetworkFlow().Src().Raw())
			dst, _ := netip.AddrFromSlice(p.NetworkLayer().NetworkFlow().Dst().Raw())
			if src != e[0].Addr() || dst != e[1].Addr() || uint16(udp.SrcPort) != e[0].Port() || uint16(udp.DstPort) != e[1].Port() {
				t.Errorf("%v: %v:%d → %v:%d", e, src, udp.SrcPort, dst, udp.DstPort)
			}
			want := data
			if marked {
				want = append([]byte{0, 0, 0, 0}, data...)
			}
			if !bytes.Equal(udp.Payload, want) {
				t.Errorf("%v: payload %x", e, udp.Payload)
			}
		}
	}
}

// TestParseReadsWhatAppendWrote turns addresses around: the sender's remote is the receiver's local.
func TestParseReadsWhatAppendWrote(t *testing.T) {
	var p parser
	for _, e := range ends {
		to := netip.AddrPortFrom(e[1].Addr(), e[0].Port())
		frame, err := Append(nil, e[0], to, 7, to.Port() == PortNATT, []byte("message"))
		if err != nil {
			t.Fatal(err)
		}
		local, remote, data, ok := p.parse(append(frame, "padding"...))
		if !ok || local != to || remote != e[0] || string(data) != "message" {
			t.Errorf("%v: local %v remote %v %q %v", e, local, remote, data, ok)
		}
		for n := range frame {
			if _, _, _, ok := p.parse(frame[:n]); ok {
				t.Errorf("%v: the first %d bytes of %d are taken for a datagram", e, n, len(frame))
			}
		}
	}
}

func TestDatagramsTo4500NeedTheMarker(t *testing.T) {
	var p parser
	for _, data := range []string{"", "\xff", "\x00\x00\x00", "\x00\x00\x01\x00esp"} {
		frame, err := Append(nil, at("192.0.2.2:4500"), at("192.0.2.1:4500"), 1, false, []byte(data))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, _, ok := p.parse(frame); ok {
			t.Errorf("%q on port 4500 is taken for IKE", data)
		}
	}
}

func TestAppendRefusesAddressesThatDoNotFit(t *testing.T) {
	for _, e := range [][2]netip.AddrPort{
		{at("192.0.2.1:500"), at("[2001:db8::2]:500")}, {{}, at("192.0.2.1:500")}, {at("192.0.2.1:500"), {}},
		{at("[::ffff:192.0.2.1]:500"), at("[::ffff:192.0.2.2]:500")},
	} {
		if _, err := Append(nil, e[0], e[1], 1, false, nil); err == nil {
			t.Errorf("%v is no error", e)
		}
	}
	if _, err := Append(nil, ends[0][0], ends[0][1], 1, false, make([]byte, packet.LenMax)); err == nil {
		t.Error("a datagram longer than a frame is no error")
	}
}

// FuzzParse holds that no frame makes the parser panic or read what is not there.
func FuzzParse(f *testing.F) {
	for _, e := range ends {
		frame, _ := Append(nil, e[0], e[1], 1, true, []byte("message"))
		f.Add(frame)
	}
	var p parser
	f.Fuzz(func(t *testing.T, frame []byte) {
		_, _, data, ok := p.parse(frame)
		if ok && len(data) > len(frame)-packet.EtherLen-ipv4Len-udpLen {
			t.Errorf("%d bytes of data in a frame of %d", len(data), len(frame))
		}
	})
}

// TestPumpHandsOnAndEnds carries datagrams from queues, and returns from Close with all of them delivered.
func TestPumpHandsOnAndEnds(t *testing.T) {
	mem := make([]byte, 64*packet.FrameSize)
	q, err := memio.NewQueue(mem, 32)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	got := make(chan string, 32)
	p := Start([]Queue{q}, func(_, _ netip.AddrPort, data []byte) { got <- string(data) })
	for i, data := range []string{"one", "two", "three"} {
		frame, err := Append(nil, ends[0][1], ends[0][0], 1, false, []byte(data))
		if err != nil {
			t.Fatal(err)
		}
		addr := uint64(i)*packet.FrameSize + packet.Headroom
		copy(mem[addr:], frame)
		if q.Transmit([]packet.Desc{{Addr: addr, Len: uint32(len(frame))}}) != 1 {
			t.Fatal("not taken")
		}
	}
	copy(mem[10*packet.FrameSize:], "no frame at all")
	q.Transmit([]packet.Desc{{Addr: 10 * packet.FrameSize, Len: 15}})
	q.Flush()
	for _, want := range []string{"one", "two", "three"} {
		select {
		case data := <-got:
			if data != want {
				t.Errorf("%q instead of %q", data, want)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%q did not come", want)
		}
	}
	p.Close()
	if received, malformed := p.Counters(); received != 3 || malformed != 1 {
		t.Errorf("%d received, %d malformed", received, malformed)
	}
}

// TestSocketsCarryBothWays runs two ends on one host's addresses.
func TestSocketsCarryBothWays(t *testing.T) {
	testbed.Need(t, testbed.Root...)
	bed := testbed.ForTest(t, "datagram")
	ns, err := bed.Namespace("one")
	if err != nil {
		t.Fatal(err)
	}
	testbed.Must(t, ns.Up("lo"))
	testbed.Must(t, ns.Address("lo", "192.0.2.1/32", "192.0.2.2/32", "2001:db8::1/128", "2001:db8::2/128"))
	type arrival struct {
		local, remote netip.AddrPort
		data          string
	}
	const size = 6000
	got := make(chan arrival, 16)
	testbed.Must(t, ns.Do(func() error {
		s, err := Listen(Open, func(local, remote netip.AddrPort, data []byte) { got <- arrival{local, remote, string(data)} })
		if err != nil {
			return err
		}
		defer s.Close()
		if _, err := Listen(Open, nil); err == nil {
			t.Error("the ports can be bound twice")
		}
		for _, e := range [][2]netip.AddrPort{
			{at("192.0.2.1:500"), at("192.0.2.2:500")}, {at("192.0.2.2:4500"), at("192.0.2.1:4500")},
			{at("[2001:db8::1]:500"), at("[2001:db8::2]:500")}, {at("[2001:db8::2]:4500"), at("[2001:db8::1]:4500")},
		} {
			if err := s.Send(e[0], e[1], e[0].Port() == PortNATT, bytes.Repeat([]byte("x"), size)); err != nil {
				return err
			}
			select {
			case a := <-got:
				if a.local != e[1] || a.remote != e[0] || len(a.data) != size {
					t.Errorf("%v: local %v remote %v, %d bytes", e, a.local, a.remote, len(a.data))
				}
			case <-time.After(5 * time.Second):
				t.Fatalf("%v: nothing arrived", e)
			}
		}
		if err := s.Send(at("192.0.2.1:4500"), at("192.0.2.2:4500"), false, []byte{0xff}); err != nil {
			return err
		}
		testbed.Eventually(t, "a keepalive is no message", func() bool { _, malformed, _ := s.Counters(); return malformed == 1 })
		source, err := Route(netip.MustParseAddr("192.0.2.2"))
		if err == nil && source != netip.MustParseAddr("192.0.2.2") {
			t.Errorf("source %v", source)
		}
		return err
	}))
	select {
	case a := <-got:
		t.Errorf("%v", a)
	default:
	}
}
