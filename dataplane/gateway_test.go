package dataplane

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"sallyport/dataplane/fib"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
)

// cross carries what a gateway sent outside to the other one.
func cross(t *testing.T, from, to *gateway) (esp [][]byte) {
	t.Helper()
	esp = from.drain(outside)
	to.inject(outside, esp...)
	return esp
}

// TestPacketsCrossTheTunnel carries packets of every kind of tunnel both ways and compares every
// byte: only TTL and header checksum may differ, by one hop in each gateway.
func TestPacketsCrossTheTunnel(t *testing.T) {
	kinds := map[transform.Kind]bool{}
	for _, suite := range transform.List() {
		shapes := []options{{esn: true}, {}, {outer6: true, esn: true}, {encap: true}, {outer6: true, encap: true}, {workers: 2, queues: 2, esn: true}}
		if kind := suite.Info().Kind; kinds[kind] {
			shapes = shapes[:1] // its lengths are those of the first of its kind, or multiples
		} else {
			kinds[kind] = true
		}
		for _, o := range shapes {
			o.suite = suite
			t.Run(fmt.Sprintf("%s/v6=%v/udp=%v/esn=%v/workers=%d", suite, o.outer6, o.encap, o.esn, max(o.workers, 1)), func(t *testing.T) {
				a, b := newRig(t, o)
				var sent [][]byte
				for size := 28; size <= 1380; size += 97 {
					sent = append(sent, udp4("198.51.100.5", "198.51.100.200", size, 64))
					sent = append(sent, udp6("2001:db8:a::5", "2001:db8:b::5", size+20, 64))
				}
				a.inject(inside, sent...)
				esp := cross(t, a, b)
				readable := slices.ContainsFunc(esp, func(f []byte) bool { return bytes.Contains(f, sent[len(sent)-1][14+60:14+100]) })
				if readable == suite.Info().Encrypts() {
					t.Fatalf("what left outside is readable: %v", readable)
				}
				got := b.drain(inside)
				compare(t, sent, got)
				if len(esp) != len(sent) || a.Stats().Total.SentESP != uint64(len(sent)) {
					t.Errorf("%d ESP packets for %d packets; counted %d", len(esp), len(sent), a.Stats().Total.SentESP)
				}
				if d := b.dropped(); len(d) != 0 {
					t.Errorf("drops: %v", d)
				}
				// And back.
				b.inject(inside, udp4("198.51.100.200", "198.51.100.5", 500, 64))
				cross(t, b, a)
				compare(t, [][]byte{udp4("198.51.100.200", "198.51.100.5", 500, 64)}, a.drain(inside))
				a.settled()
				b.settled()
			})
		}
	}
}

// compare checks that got are the packets of want two hops later, in any order between queues.
func compare(t *testing.T, want, got [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d packets arrived, want %d", len(got), len(want))
	}
	index := map[string]bool{}
	for _, f := range want {
		ip := append([]byte{}, f[14:]...)
		if ip[0]>>4 == 4 {
			ip[8] -= 2
			ip[10], ip[11] = 0, 0
			sum := packet.Checksum(ip[:20], 0)
			ip[10], ip[11] = byte(sum>>8), byte(sum)
		} else {
			ip[7] -= 2
		}
		index[string(ip)] = true
	}
	for _, f := range got {
		if !index[string(f[14:])] {
			t.Fatalf("a packet arrived that was not sent: %x", f)
		}
	}
}

// TestBadPacketsEndByName sends what a correct peer does not, between good packets, and expects
// one counter for each and the good ones untouched.
func TestBadPacketsEndByName(t *testing.T) {
	o := options{esn: true}
	fresh := func(t *testing.T) (a, b *gateway, esp []byte) {
		a, b = newRig(t, o)
		a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
		return a, b, a.drain(outside)[0]
	}
	for _, c := range []struct {
		name string
		want string
		bad  func(esp []byte) (port int, frame []byte)
	}{
		{"runt", "runt", func([]byte) (int, []byte) { return outside, []byte{1, 2, 3} }},
		{"not ip", "not-ip", func(e []byte) (int, []byte) { e[12], e[13] = 8, 6; return outside, e }},
		{"truncated", "bad-ip-header", func(e []byte) (int, []byte) { return outside, e[:60] }},
		{"checksum", "bad-ip-checksum", func(e []byte) (int, []byte) { e[24]++; return outside, e }},
		{"icv", "bad-icv", func(e []byte) (int, []byte) { e[len(e)-1]++; return outside, e }},
		{"ciphertext", "bad-icv", func(e []byte) (int, []byte) { e[60]++; return outside, e }},
		{"spi", "no-association", func(e []byte) (int, []byte) { e[36]++; return outside, e }},
		{"reserved spi", "reserved-spi", func(e []byte) (int, []byte) { e[34], e[35], e[36], e[37] = 0, 0, 0, 7; return outside, e }},
		{"cleartext", "cleartext", func([]byte) (int, []byte) {
			return outside, udp4("198.51.100.5", "198.51.100.200", 100, 64)
		}},
		{"spoofed", "spoofed", func([]byte) (int, []byte) {
			return outside, udp4("198.51.100.200", "198.51.100.5", 100, 64)
		}},
		{"spoofed inside", "spoofed", func([]byte) (int, []byte) {
			return inside, udp4("198.51.100.5", "198.51.100.200", 100, 64)
		}},
		{"ttl", "ttl-expired", func([]byte) (int, []byte) {
			return inside, udp4("198.51.100.200", "198.51.100.5", 100, 1)
		}},
		{"no route", "no-route", func([]byte) (int, []byte) {
			return inside, udp4("198.51.100.200", "192.0.2.99", 100, 64)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, b, esp := fresh(t)
			good := append([]byte{}, esp...)
			port, bad := c.bad(esp)
			b.inject(port, bad)
			b.inject(outside, good)
			if got := len(b.drain(inside)); got-int(b.Stats().Total.Originated) != 1 {
				t.Errorf("the good packet did not arrive (%d)", got)
			}
			if want := map[string]uint64{c.want: 1}; !reflect.DeepEqual(b.dropped(), want) {
				t.Errorf("dropped %v, want %v", b.dropped(), want)
			}
			b.settled()
		})
	}
	t.Run("replay", func(t *testing.T) {
		_, b, esp := fresh(t)
		b.inject(outside, esp, esp, esp)
		if got := len(b.drain(inside)); got != 1 {
			t.Errorf("%d arrived", got)
		}
		if want := map[string]uint64{"replayed": 2}; !reflect.DeepEqual(b.dropped(), want) {
			t.Errorf("dropped %v, want %v", b.dropped(), want)
		}
		b.settled()
	})
	t.Run("keepalive and IKE", func(t *testing.T) {
		_, b, _ := fresh(t)
		keepalive := udp4("192.0.2.1", "192.0.2.2", 29, 64)
		keepalive[36], keepalive[37] = 4500>>8, 4500&255
		keepalive[42] = 0xff
		b.inject(outside, keepalive)
		if want := map[string]uint64{"keepalive": 1}; !reflect.DeepEqual(b.dropped(), want) {
			t.Errorf("dropped %v, want %v", b.dropped(), want)
		}
		b.settled()
	})
}

// TestTooBigIsAnswered sends a packet that the tunnel cannot carry and expects the ICMP error with
// the exact size that fits.
func TestTooBigIsAnswered(t *testing.T) {
	a, _ := newRig(t, options{mtu: 1400, esn: true})
	mtu := a.sad.LookupOutbound(a.sad.Bound(0)).InnerMTU(1400)
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", mtu, 64))
	if n := len(a.drain(outside)); n != 1 {
		t.Fatalf("a packet of exactly %d bytes did not pass", mtu)
	}
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", mtu+1, 64), udp6("2001:db8:a::5", "2001:db8:b::5", mtu+1, 64))
	if n := len(a.drain(outside)); n != 0 {
		t.Fatalf("%d packets larger than %d left", n, mtu)
	}
	answers := a.drain(inside)
	if len(answers) != 2 {
		t.Fatalf("%d answers", len(answers))
	}
	for _, f := range answers {
		p := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default)
		if icmp, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok {
			if icmp.TypeCode != layers.CreateICMPv4TypeCode(3, 4) || int(icmp.Seq) != mtu {
				t.Errorf("ICMP %v with MTU %d, want %d", icmp.TypeCode, icmp.Seq, mtu)
			}
		} else if icmp, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); !ok || icmp.TypeCode.Type() != layers.ICMPv6TypePacketTooBig {
			t.Errorf("answer %v", p)
		}
	}
	if want := map[string]uint64{"too-big": 2}; !reflect.DeepEqual(a.dropped(), want) {
		t.Errorf("dropped %v", a.dropped())
	}
	a.settled()
}

// TestFragmentsCrossTheTunnel sends an IPv4 packet without Don't Fragment that is too big: it is cut
// before encapsulation and every piece arrives.
func TestFragmentsCrossTheTunnel(t *testing.T) {
	a, b := newRig(t, options{mtu: 1000})
	f := udp4("198.51.100.5", "198.51.100.200", 1400, 64)
	f[14+6] = 0
	f[14+10], f[14+11] = 0, 0
	sum := packet.Checksum(f[14:34], 0)
	f[14+10], f[14+11] = byte(sum>>8), byte(sum)
	a.inject(inside, f)
	cross(t, a, b)
	pieces := b.drain(inside)
	if len(pieces) != 2 {
		t.Fatalf("%d pieces: %v %v", len(pieces), a.dropped(), b.dropped())
	}
	data := append(append([]byte{}, pieces[0][34:]...), pieces[1][34:]...)
	if !bytes.Equal(data, f[34:]) {
		t.Error("the pieces do not make up the packet")
	}
	if pieces[0][14+8] != 62 || pieces[1][14+8] != 62 {
		t.Error("TTL did not go down by one in each gateway, in each piece")
	}
	a.settled()
	b.settled()
}

// TestNoAssociationFailsClosed checks that a protect policy without an association drops.
func TestNoAssociationFailsClosed(t *testing.T) {
	a := newGateway(t, sideA, sideB, options{})
	a.tunnel(sideA, sideB, options{noBind: true}, 0x1001, 0x2001)
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
	if n := len(a.drain(outside)); n != 0 {
		t.Fatal("a packet left without an association")
	}
	if want := map[string]uint64{"no-outbound": 1}; !reflect.DeepEqual(a.dropped(), want) {
		t.Errorf("dropped %v", a.dropped())
	}
	a.settled()
}

// TestPoliciesAreOrdered puts a bypass and a discard before the tunnel.
func TestPoliciesAreOrdered(t *testing.T) {
	any := spd.PortRange{Last: 65535}
	remote := []spd.Range{spd.RangeOf(sideB.inner4)}
	local := []spd.Range{spd.RangeOf(sideA.inner4)}
	o := options{
		policies: []spd.Policy{
			{Name: "web", Action: spd.Bypass, Selectors: []spd.Selector{{Local: local, Remote: remote, Proto: 17, LocalPorts: any, RemotePorts: spd.PortRange{First: 5000, Last: 5000}}}},
			{Name: "no", Action: spd.Discard, Selectors: []spd.Selector{{Local: local, Remote: remote, Proto: 17, LocalPorts: any, RemotePorts: spd.PortRange{First: 5001, Last: 5001}}}},
		},
		routes: []fib.Entry{{Prefix: sideB.inner4, Hop: fib.Hop{Kind: fib.Forward, Port: outside, MTU: 1500}}},
	}
	a, _ := newRig(t, o)
	f := func(port byte) []byte {
		p := udp4("198.51.100.5", "198.51.100.200", 100, 64)
		p[14+20+3] = port
		return p
	}
	a.inject(inside, f(0x88), f(0x89), f(0x8a))
	out := a.drain(outside)
	if len(out) != 2 || out[0][23] != 17 && out[1][23] != 17 {
		t.Fatalf("%d packets left", len(out))
	}
	if want := map[string]uint64{"policy-discard": 1}; !reflect.DeepEqual(a.dropped(), want) {
		t.Errorf("dropped %v", a.dropped())
	}
	a.settled()
}

// TestOwnersMove hands an association from worker to worker under traffic; no packet is lost or
// taken twice.
func TestOwnersMove(t *testing.T) {
	a, b := newRig(t, options{workers: 3, queues: 3, esn: true})
	const rounds = 50
	for i := range rounds {
		for k := range 7 {
			a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100+k, 64))
		}
		cross(t, a, b)
		a.Associations(func(x *sad.Info) bool {
			a.sad.RequestMove(x.Handle, i%3)
			return true
		})
		b.Associations(func(x *sad.Info) bool {
			b.sad.RequestMove(x.Handle, (i+1)%3)
			return true
		})
	}
	if n := len(b.drain(inside)); n != rounds*7 {
		t.Errorf("%d of %d arrived; %v %v", n, rounds*7, a.dropped(), b.dropped())
	}
	if b.Stats().Total.HandedIn == 0 {
		t.Error("no packet was handed over: the test shows nothing")
	}
	a.settled()
	b.settled()
}

// TestTimeExceededReachesTheSender lets the hop count run out behind the tunnel: the error comes back
// through it, from an address that its selectors cover.
func TestTimeExceededReachesTheSender(t *testing.T) {
	a, b := newRig(t, options{esn: true})
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 2))
	cross(t, a, b) // TTL is 1 when it comes out at B
	cross(t, b, a) // the error goes back through the tunnel
	got := a.drain(inside)
	if len(got) != 1 {
		t.Fatalf("%d answers; A %v B %v", len(got), a.dropped(), b.dropped())
	}
	p := gopacket.NewPacket(got[0], layers.LayerTypeEthernet, gopacket.Default)
	icmp, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
	if !ok || icmp.TypeCode.Type() != layers.ICMPv4TypeTimeExceeded {
		t.Fatalf("the answer is %v", p)
	}
	if ip := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); ip.SrcIP.String() != "198.51.100.129" {
		t.Errorf("the error comes from %s", ip.SrcIP)
	}
	a.settled()
	b.settled()
}

// TestParkedPacketsWaitForTheNeighbour lets packets arrive before the neighbour is known.
func TestParkedPacketsWaitForTheNeighbour(t *testing.T) {
	a, _ := newRig(t, options{})
	known := a.tables.FIB
	unknown := fib.Build(2, []fib.Entry{{Prefix: netip.PrefixFrom(sideB.outer4, 32), Hop: fib.Hop{Kind: fib.Unresolved, Port: outside, MTU: 1500, Ifindex: 7}}})
	set := func(f *fib.Table) { a.tables.FIB = f; a.publishTables() }
	set(unknown)
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64), udp4("198.51.100.5", "198.51.100.200", 200, 64))
	if n := len(a.drain(outside)); n != 0 {
		t.Fatalf("%d packets left without a link address", n)
	}
	set(known)
	a.run()
	left := a.drain(outside)
	if len(left) != 2 {
		t.Fatalf("%d of 2 parked packets left: %v", len(left), a.dropped())
	}
	for _, f := range left {
		if !bytes.Equal(f[:14], []byte{2, 0, 0, 0, 1, outside, 2, 0, 0, 0, 0, outside, 8, 0}) {
			t.Errorf("the link header is %x", f[:14])
		}
	}
	if n := a.Stats().Total.SentESP; n != 2 {
		t.Errorf("%d ESP packets counted", n)
	}
	// And a neighbour that never comes.
	set(fib.Build(3, []fib.Entry{{Prefix: netip.PrefixFrom(sideB.outer4, 32), Hop: fib.Hop{Kind: fib.Unresolved, Port: outside, MTU: 1500, Ifindex: 7}}}))
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
	a.now += 2e9
	a.run()
	if want := map[string]uint64{"neighbour-unresolved": 1}; !reflect.DeepEqual(a.dropped(), want) {
		t.Errorf("dropped %v", a.dropped())
	}
	a.settled()
}

// TestDecapsulatedNeverLeavesOutside takes the protected network's route away, so that the best route left
// leads outside: at once, and while a packet waits for its neighbour.
func TestDecapsulatedNeverLeavesOutside(t *testing.T) {
	a, b := newRig(t, options{})
	all := netip.MustParsePrefix("0.0.0.0/0")
	set := func(generation uint32, entries ...fib.Entry) {
		b.tables.FIB = fib.Build(generation, entries)
		b.publishTables()
	}
	out := fib.Entry{Prefix: all, Hop: fib.Hop{Kind: fib.Forward, Port: outside, MTU: 1500}}
	send := func() {
		a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
		cross(t, a, b)
		if left := b.drain(outside); len(left) != 0 {
			t.Fatalf("left in the clear: %x", left[0])
		}
	}
	set(2, out)
	send()
	set(3, fib.Entry{Prefix: sideB.inner4, Hop: fib.Hop{Kind: fib.Unresolved, Port: inside, MTU: 1500, Ifindex: 7}})
	send()
	set(4, out)
	b.run()
	if left := b.drain(outside); len(left) != 0 {
		t.Fatalf("a parked packet left in the clear: %x", left[0])
	}
	if want := map[string]uint64{"exposed": 2}; !reflect.DeepEqual(b.dropped(), want) {
		t.Errorf("dropped %v", b.dropped())
	}
	b.settled()
}

// syn4 returns a TCP SYN that announces mss.
func syn4(src, dst string, mss uint16) []byte {
	f := udp4(src, dst, 20+24, 64)
	f[14+9] = 6
	h, tcp := f[14:34], f[34:58]
	h[10], h[11] = 0, 0
	sum := packet.Checksum(h, 0)
	h[10], h[11] = byte(sum>>8), byte(sum)
	clear(tcp)
	tcp[12], tcp[13] = 6<<4, 2
	tcp[20], tcp[21], tcp[22], tcp[23] = 2, 4, byte(mss>>8), byte(mss)
	sum = packet.Checksum(tcp, packet.PseudoSum(h[12:16], h[16:20], 6, uint32(len(tcp))))
	tcp[16], tcp[17] = byte(sum>>8), byte(sum)
	return f
}

// TestSYNsAreFittedToTheTunnel sends a SYN through one gateway that clamps and one that does not, both
// ways: whichever end ours is, the segments that the SYN invites fit.
func TestSYNsAreFittedToTheTunnel(t *testing.T) {
	for _, clamper := range []string{"A", "B"} {
		t.Run(clamper, func(t *testing.T) {
			a, b := newRig(t, options{esn: true})
			other := map[string]*gateway{"A": b, "B": a}[clamper]
			other.tables.ClampMSS = false
			other.publishTables()
			a.inject(inside, syn4("198.51.100.5", "198.51.100.200", 1460))
			cross(t, a, b)
			got := b.drain(inside)
			if len(got) != 1 {
				t.Fatalf("%d packets arrived: %v %v", len(got), a.dropped(), b.dropped())
			}
			mtu := a.sad.LookupOutbound(a.sad.Bound(0)).InnerMTU(1500)
			tcp := got[0][34:58]
			if mss := int(tcp[22])<<8 | int(tcp[23]); mss != mtu-40 {
				t.Errorf("MSS %d, want %d", mss, mtu-40)
			}
			if packet.Checksum(tcp, packet.PseudoSum(got[0][26:30], got[0][30:34], 6, uint32(len(tcp)))) != 0 {
				t.Error("the TCP checksum is wrong")
			}
			a.settled()
			b.settled()
		})
	}
}
