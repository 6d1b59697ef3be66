package dataplane

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/transform"
	"sallyport/tools/craft"
	"sallyport/tools/testbed"
)

// TestCutAfterEncryption sends packets larger than the path through tunnels that cut up ESP packets: all pieces fit the path, the
// peer puts them together, and what comes out is what went in, Don't Fragment and all.
func TestCutAfterEncryption(t *testing.T) {
	for _, o := range []options{{}, {encap: true}, {outer6: true}, {outer6: true, encap: true}, {workers: 2, queues: 2}} {
		t.Run(fmt.Sprintf("v6=%v/udp=%v/workers=%d", o.outer6, o.encap, max(o.workers, 1)), func(t *testing.T) {
			const path = 1400
			o.mtu, o.ring = 3700, 512
			o.params = func(p *sad.Params) { p.MTU, p.Fragment, p.CopyDF = path, true, false }
			a, b := newRig(t, o)
			var sent [][]byte
			for size := 1200; size <= 3600; size += 61 {
				sent = append(sent, udp4("198.51.100.5", "198.51.100.200", size, 64), udp6("2001:db8:a::5", "2001:db8:b::5", size, 64))
			}
			cut := 0
			for _, f := range sent {
				a.inject(inside, f)
				left := a.drain(outside)
				if len(left) == 1 && len(f)-14 > path || len(left) > 4 {
					t.Fatalf("%d bytes left in %d pieces", len(f)-14, len(left))
				}
				if len(left) > 1 {
					cut++
				}
				for _, p := range left {
					if len(p)-14 > path {
						t.Fatalf("a piece of %d bytes", len(p)-14)
					}
				}
				b.inject(outside, left...)
			}
			compare(t, sent, b.drain(inside))
			if s, from := b.Stats().Total, a.Stats().Total; int(s.Reassembled) != cut || int(from.FragmentedESP) != cut || cut < 2*30 {
				t.Errorf("%d put together of %d that were cut; %d counted", s.Reassembled, cut, from.FragmentedESP)
			}
			if i := a.info(); int(i.CutAfter) != cut || i.CutBefore+i.TooBig != 0 {
				t.Errorf("the association counts %d cut up after, %d before, %d too big", i.CutAfter, i.CutBefore, i.TooBig)
			}
			if d := a.dropped(); len(d) != 0 {
				t.Errorf("dropped %v", d)
			}
			a.settled()
			b.settled()
		})
	}
}

// TestDontFragmentIsKept sends packets with Don't Fragment into tunnels that copy or set it: they are refused as before, whatever else
// is chosen. Those without it are cut up after encryption if that is chosen, before if not.
func TestDontFragmentIsKept(t *testing.T) {
	big := func(df bool) []byte {
		f := udp4("198.51.100.5", "198.51.100.200", 1500, 64)
		if !df {
			f[14+6] = 0
			craft.FixIPv4(f[14:])
		}
		return f
	}
	for _, c := range []struct {
		copyDF, setDF, after, df bool
		want                     string
	}{
		{true, false, true, true, "refused"}, {true, false, true, false, "after"},
		{false, true, true, true, "refused"}, {false, true, true, false, "before"},
		{false, false, true, true, "after"}, {false, false, true, false, "after"},
		{true, false, false, true, "refused"}, {true, false, false, false, "before"},
		{false, false, false, true, "refused"}, {false, false, false, false, "before"},
	} {
		a, b := newRig(t, options{mtu: 1500, params: func(p *sad.Params) { p.CopyDF, p.SetDF, p.Fragment = c.copyDF, c.setDF, c.after }})
		a.inject(inside, big(c.df))
		left := a.drain(outside)
		got := "refused"
		if len(left) == 2 {
			got = "before"
			if word := binary.BigEndian.Uint16(left[0][14+6:]); word&0x3fff != 0 {
				got = "after"
				if word&0x4000 != 0 {
					t.Errorf("%+v: a fragment that must not be one", c)
				}
			}
		}
		if got != c.want || len(a.dropped()) != map[string]int{"refused": 1}[got] {
			t.Errorf("%+v: %s; dropped %v", c, got, a.dropped())
		}
		i := a.info()
		if n := map[string]uint64{"refused": i.TooBig, "before": i.CutBefore, "after": i.CutAfter}[got]; n != 1 || i.TooBig+i.CutBefore+i.CutAfter != 1 {
			t.Errorf("%+v: %s, and the association counts %d refused, %d cut up before, %d after", c, got, i.TooBig, i.CutBefore, i.CutAfter)
		}
		b.inject(outside, left...)
		if n := len(b.drain(inside)); n != map[string]int{"before": 2, "after": 1}[got] {
			t.Errorf("%+v: %d packets arrived; dropped %v", c, n, b.dropped())
		}
		a.settled()
		b.settled()
	}
}

// TestSmallestIPv6PacketAlwaysPasses sends inner IPv6 packets of 1280 bytes, less than which nobody has to send, over a path that has no
// room for them with ESP around (RFC 2473, 7.1).
func TestSmallestIPv6PacketAlwaysPasses(t *testing.T) {
	for _, o := range []options{{}, {outer6: true}, {outer6: true, encap: true}} {
		o.params = func(p *sad.Params) { p.MTU = 1280 }
		a, b := newRig(t, o)
		f := udp6("2001:db8:a::5", "2001:db8:b::5", 1280, 64)
		a.inject(inside, f, udp6("2001:db8:a::5", "2001:db8:b::5", 1281, 64))
		if esp := cross(t, a, b); len(esp) != 2 {
			t.Fatalf("%+v: %d packets left", o, len(esp))
		}
		compare(t, [][]byte{f}, b.drain(inside))
		if want := map[string]uint64{"too-big": 1}; !reflect.DeepEqual(a.dropped(), want) {
			t.Errorf("dropped %v", a.dropped())
		}
		a.settled()
		b.settled()
	}
}

// TestPaddingHidesLengths sends packets of every length through tunnels with traffic flow confidentiality padding: all that fit leave
// with one length, the padding is zero, and what comes out is what went in (RFC 4303, 2.7). A learned path MTU moves the length.
func TestPaddingHidesLengths(t *testing.T) {
	for _, c := range []struct {
		tfc  uint16
		o    options
		want int // inner bytes of what is shorter
	}{{0xffff, options{}, 0}, {600, options{}, 600}, {0xffff, options{outer6: true, encap: true}, 0}, {0xffff, options{suite: transform.AES256CBCSHA256}, 0}} {
		c.o.params = func(p *sad.Params) { p.TFC = c.tfc }
		a, b := newRig(t, c.o)
		if c.want == 0 {
			c.want = a.outbound().InnerMTU(1500)
		}
		var sent [][]byte
		lengths := map[int]int{}
		for size := 28; size <= c.want; size += 13 {
			f := udp4("198.51.100.5", "198.51.100.200", size, 64)
			if size >= 48 {
				f = udp6("2001:db8:a::5", "2001:db8:b::5", size, 64)
			}
			sent = append(sent, f)
			a.inject(inside, f)
		}
		esp := a.drain(outside)
		for _, f := range esp {
			lengths[len(f)]++
		}
		if len(lengths) != 1 || len(esp) != len(sent) {
			t.Errorf("%+v: lengths %v of %d packets, for %d", c, lengths, len(esp), len(sent))
		}
		b.inject(outside, esp...)
		compare(t, sent, b.drain(inside))
		if u := a.outbound().Bytes.Load(); u > uint64(len(sent)*c.want)/2+uint64(len(sent)*40) {
			t.Errorf("padding counts as traffic: %d bytes", u)
		}
		if c.o.suite == 0 && !c.o.encap {
			codec, err := craft.NewESP(0x1001, keymat(transform.AES128GCM16, 0x1001), false)
			if err != nil {
				t.Fatal(err)
			}
			text, _, err := codec.Open(esp[0][34:], 0)
			if err != nil || len(text) != c.want || !bytes.Equal(text[28:], make([]byte, c.want-28)) {
				t.Errorf("%+v: %d bytes of text, %v: %x", c, len(text), err, text)
			}
			if c.tfc == 0xffff {
				a.inject(outside, tooBigFor(esp[0], 1300, 100))
				a.judged()
				a.inject(inside, sent[0])
				if left := a.drain(outside); len(left) != 1 || len(left[0])-14 > 1300 || len(left[0])-14 < 1297 {
					t.Errorf("with a path MTU of 1300: %d packets of %d bytes", len(left), len(left[0])-14)
				}
			}
		}
		a.settled()
		b.settled()
	}
}

// TestFixedDSCP sends packets of all classes through tunnels that copy the DSCP, set it, or clear it. ECN crosses all the same.
func TestFixedDSCP(t *testing.T) {
	for _, outer6 := range []bool{false, true} {
		for _, suite := range []transform.Suite{transform.AES128GCM16, transform.ChaCha20Poly1305} {
			for _, c := range []struct {
				copies bool
				dscp   uint8
			}{{true, 0}, {false, 0}, {false, 46}, {false, 63}} {
				a, b := newRig(t, options{outer6: outer6, suite: suite, params: func(p *sad.Params) { p.CopyDSCP, p.DSCP = c.copies, c.dscp }})
				for _, tos := range []byte{0, 0xb8, 0x2a, 0xff, 1} {
					f := udp4("198.51.100.5", "198.51.100.200", 100, 64)
					setTOS(f[14:], tos)
					a.inject(inside, f)
					esp := cross(t, a, b)
					if len(esp) != 1 {
						t.Fatalf("%d packets; dropped %v", len(esp), a.dropped())
					}
					got := tosOf(esp[0][14:])
					want := c.dscp<<2 | tos&3
					if c.copies {
						want = tos
					}
					if inner := b.drain(inside); got != want || len(inner) != 1 || inner[0][15] != tos {
						t.Errorf("v6 %v, %v, %+v, TOS %#x: outer %#x, want %#x; dropped %v", outer6, suite, c, tos, got, want, b.dropped())
					}
				}
				a.settled()
				b.settled()
			}
		}
	}
}

// TestKernelPutsCutPacketsTogether sends the pieces of ESP packets to a kernel, raw and in UDP, over IPv4 and IPv6: what it puts together
// opens to what went in.
//
//	[gateway in memory] ─ pieces ─► [src] x ══ y [dst] 192.0.2.2, 2001:db8::2: raw socket for ESP, UDP socket
func TestKernelPutsCutPacketsTogether(t *testing.T) {
	testbed.Need(t, testbed.Root...)
	bed := testbed.ForTest(t, "cut")
	src, err := bed.Namespace("src")
	testbed.Must(t, err)
	dst, err := bed.Namespace("dst")
	testbed.Must(t, err)
	testbed.Must(t, bed.Veth(src, "x", dst, "y", 1))
	testbed.Must(t, dst.SetMAC("y", net.HardwareAddr{2, 0, 0, 0, 1, outside}))
	testbed.Must(t, dst.Address("y", "192.0.2.2/24", "2001:db8::2/64"))
	testbed.Must(t, src.Up("lo", "x"))
	testbed.Must(t, dst.Up("lo", "y"))
	for _, o := range []options{{}, {encap: true}, {outer6: true}, {outer6: true, encap: true}} {
		t.Run(fmt.Sprintf("v6=%v/udp=%v", o.outer6, o.encap), func(t *testing.T) {
			network, address := "ip4:esp", sideB.outer4
			if o.outer6 {
				network, address = "ip6:esp", sideB.outer6
			}
			var conn net.PacketConn
			testbed.Must(t, dst.Do(func() (err error) {
				if conn, err = net.ListenPacket(network, address.String()); o.encap && err == nil {
					conn.Close()
					conn, err = net.ListenPacket("udp", netip.AddrPortFrom(address, 4500).String())
				}
				return err
			}))
			defer conn.Close()
			o.mtu, o.ring = 3700, 512
			o.params = func(p *sad.Params) { p.MTU, p.Fragment, p.CopyDF, p.UDPChecksum = 1300, true, false, true }
			a, _ := newRig(t, o)
			codec, err := craft.NewESP(0x1001, keymat(transform.AES128GCM16, 0x1001), false)
			testbed.Must(t, err)
			buf := make([]byte, 8192)
			for size := 1210; size <= 3600; size += 97 {
				inner := udp4("198.51.100.5", "198.51.100.200", size, 64)
				a.inject(inside, inner)
				pieces := a.drain(outside)
				if len(pieces) < 2 && size > 1300 {
					t.Fatalf("%d bytes left in %d pieces", size, len(pieces))
				}
				testbed.Must(t, src.Do(func() error { return sendFrames("x", pieces) }))
				conn.SetReadDeadline(time.Now().Add(5 * time.Second))
				n, _, err := conn.ReadFrom(buf)
				if err != nil {
					t.Fatalf("%d bytes in %d pieces: %v", size, len(pieces), err)
				}
				text, next, err := codec.Open(buf[:n], 0)
				inner[14+8]-- // one hop less
				if craft.FixIPv4(inner[14:]); err != nil || next != craft.NextIPv4 || !bytes.Equal(text, inner[14:]) {
					t.Fatalf("%d bytes in %d pieces came as %d bytes, next header %d: %v", size, len(pieces), n, next, err)
				}
			}
			a.settled()
		})
	}
}

// sendFrames sends frames by an interface of this namespace.
func sendFrames(name string, frames [][]byte) error {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, f := range frames {
		if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: link.Index, Halen: 6}); err != nil {
			return err
		}
	}
	return nil
}

// TestAuthenticationHeaderIsCutToo cuts up packets of AH, which authenticates what is in front of it but for the fragment's fields.
func TestAuthenticationHeaderIsCutToo(t *testing.T) {
	for _, outer6 := range []bool{false, true} {
		a, b := newRig(t, options{ah: true, outer6: outer6, suite: transform.NullSHA256, mtu: 3700, params: func(p *sad.Params) { p.MTU, p.Fragment, p.CopyDF = 1400, true, false }})
		f := udp4("198.51.100.5", "198.51.100.200", 3000, 64)
		a.inject(inside, f)
		left := a.drain(outside)
		if len(left) != 3 {
			t.Fatalf("%d pieces; dropped %v", len(left), a.dropped())
		}
		b.inject(outside, left...)
		compare(t, [][]byte{f}, b.drain(inside))
		a.settled()
		b.settled()
	}
}

// TestTransportModeIsCutAfterEncryption sends datagrams of the gateways' own, larger than the path, which must go in one piece before they are encrypted.
// What has Don't Fragment is refused, whatever is chosen.
func TestTransportModeIsCutAfterEncryption(t *testing.T) {
	for _, o := range []options{{}, {encap: true}, {outer6: true}, {outer6: true, encap: true}} {
		for _, after := range []bool{false, true} {
			o.mtu = 3700
			o.params = func(p *sad.Params) { p.MTU, p.Fragment = 1400, after }
			a, b := hosts(t, o, 0)
			f := own(o.outer6, 3000)
			if !o.outer6 {
				a.inject(inside, own(false, 3000)) // with Don't Fragment
				f[14+6] = 0
				craft.FixIPv4(f[14:])
			}
			a.inject(inside, f)
			left := a.drain(outside)
			b.inject(outside, left...)
			got := b.drain(inside)
			if after && (len(left) != 3 || len(got) != 1 || !bytes.Equal(got[0][14+50:], f[14+50:])) || !after && len(got) != 0 {
				t.Errorf("v6 %v, UDP %v, after %v: %d pieces, %d arrived; dropped %v and %v", o.outer6, o.encap, after, len(left), len(got), a.dropped(), b.dropped())
			}
			a.settled()
			b.settled()
		}
	}
}

// TestOuterTTL sends packets through tunnels with the usual TTL, another, and that of the inner packet, which the gateway has taken one off.
func TestOuterTTL(t *testing.T) {
	for _, outer6 := range []bool{false, true} {
		for _, suite := range []transform.Suite{transform.AES128GCM16, transform.NullSHA256} {
			for _, c := range []struct {
				ttl    uint8
				copies bool
				want   byte
			}{{0, false, 64}, {7, false, 7}, {255, false, 255}, {9, true, 32}} {
				for _, ah := range []bool{false, suite == transform.NullSHA256} {
					a, b := newRig(t, options{outer6: outer6, suite: suite, ah: ah, params: func(p *sad.Params) { p.TTL, p.CopyTTL = c.ttl, c.copies }})
					sent := [][]byte{udp4("198.51.100.5", "198.51.100.200", 100, 33), udp6("2001:db8:a::5", "2001:db8:b::5", 100, 33)}
					a.inject(inside, sent...)
					esp := cross(t, a, b)
					for _, f := range esp {
						got := f[14+8]
						if outer6 {
							got = f[14+7]
						}
						if got != c.want {
							t.Errorf("v6 %v, %v, %+v: TTL %d", outer6, suite, c, got)
						}
					}
					compare(t, sent, b.drain(inside))
					a.settled()
					b.settled()
				}
			}
		}
	}
}

// TestAdoptedDSCP changes the DSCP of packets on their way. An association that adopts it gives it to the inner packet; others do not.
// What ECN says is not touched.
func TestAdoptedDSCP(t *testing.T) {
	for _, adopt := range []bool{false, true} {
		for _, o := range []options{{}, {encap: true}, {outer6: true}} {
			o.params = func(p *sad.Params) { p.AdoptDSCP = adopt }
			a, b := newRig(t, o)
			for _, f := range [][]byte{udp4("198.51.100.5", "198.51.100.200", 100, 64), udp6("2001:db8:a::5", "2001:db8:b::5", 100, 64)} {
				setTOS(f[14:], 0xb8|2) // EF, ECT(0)
				a.inject(inside, f)
				esp := a.drain(outside)
				if len(esp) != 1 {
					t.Fatalf("%d packets; dropped %v", len(esp), a.dropped())
				}
				setTOS(esp[0][14:], 0x28|3) // AF11, CE
				b.inject(outside, esp...)
				want := byte(0xb8 | 3)
				if adopt {
					want = 0x28 | 3
				}
				if out := b.drain(inside); len(out) != 1 || tosOf(out[0][14:]) != want || out[0][14]>>4 == 4 && packet.Checksum(out[0][14:34], 0) != 0 {
					t.Errorf("%+v: %d packets, want TOS %#x; dropped %v", o, len(out), want, b.dropped())
				}
			}
			a.settled()
			b.settled()
		}
	}
}

func tosOf(ip []byte) byte {
	if ip[0]>>4 == 4 {
		return ip[1]
	}
	return ip[0]<<4 | ip[1]>>4
}

func setTOS(ip []byte, tos byte) {
	if ip[0]>>4 == 6 {
		ip[0], ip[1] = 6<<4|tos>>4, tos<<4|ip[1]&15
		return
	}
	ip[1] = tos
	craft.FixIPv4(ip)
}
