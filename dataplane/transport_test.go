package dataplane

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"testing"

	"sallyport/dataplane/fib"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
)

// hosts are two gateways whose own traffic goes in transport mode. What is the port inside in other tests is the way to each one's kernel here.
func hosts(t testing.TB, o options, proto uint8) (a, b *gateway) {
	return protected(t, o, proto, false)
}

// protected is hosts, with AH in place of ESP if that is asked for.
func protected(t testing.TB, o options, proto uint8, ah bool) (a, b *gateway) {
	o = o.withDefaults()
	make1 := func(me, peer side, out, in uint32) *gateway {
		o := o
		for _, own := range []netip.Addr{me.outer4, me.outer6} {
			o.routes = append(o.routes, fib.Entry{Prefix: netip.PrefixFrom(own, own.BitLen()), Hop: fib.Hop{Kind: fib.Local}})
		}
		g := newGateway(t, me, peer, o)
		g.tables.TUN = inside
		base := sad.Params{Name: "host", Suite: o.suite, Local: me.outer4, Remote: peer.outer4, Encap: o.encap, ESN: true, Transport: true, AH: ah, UDPChecksum: true}
		if o.outer6 {
			base.Local, base.Remote = me.outer6, peer.outer6
		}
		if o.params != nil {
			o.params(&base)
		}
		one := func(a netip.Addr) []spd.Range { return []spd.Range{{First: a, Last: a}} }
		base.Selectors = []spd.Selector{{Local: one(base.Local), Remote: one(base.Remote), Proto: proto, LocalPorts: spd.AnyPorts, RemotePorts: spd.AnyPorts}}
		inbound, outbound := base, base
		inbound.Inbound, inbound.SPI, inbound.Keymat = true, in, keymat(o.suite, uint64(in))
		outbound.SPI, outbound.Keymat = out, keymat(o.suite, uint64(out))
		o.around(&inbound)
		o.around(&outbound)
		if _, err := g.Install(inbound); err != nil {
			t.Fatal(err)
		}
		h, err := g.Install(outbound)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Bind(0, h); err != nil {
			t.Fatal(err)
		}
		policy := spd.Policy{Name: "host", Action: spd.Protect, Selectors: base.Selectors, Transport: true}
		if err := g.Apply(Policies{SPD: []spd.Policy{policy}, Endpoints: []netip.Addr{me.outer4, me.outer6}}); err != nil {
			t.Fatal(err)
		}
		return g
	}
	return make1(sideA, sideB, 0x1001, 0x2001), make1(sideB, sideA, 0x2001, 0x1001)
}

// own is a datagram from A to B of their own; back is one the other way.
func own(outer6 bool, size int) []byte {
	if outer6 {
		return udp6("2001:db8::1", "2001:db8::2", size+20, 64)
	}
	return udp4("192.0.2.1", "192.0.2.2", size, 64)
}

func back(outer6 bool, size int) []byte {
	if outer6 {
		return udp6("2001:db8::2", "2001:db8::1", size+20, 64)
	}
	return udp4("192.0.2.2", "192.0.2.1", size, 64)
}

// TestOwnTrafficInTransportMode carries the gateways' own datagrams from kernel to kernel, unchanged.
func TestOwnTrafficInTransportMode(t *testing.T) {
	for _, suite := range []transform.Suite{transform.AES128GCM16, transform.AES256CBCSHA256, transform.NullSHA512} {
		for _, o := range []options{{suite: suite}, {suite: suite, outer6: true}, {suite: suite, encap: true}, {suite: suite, outer6: true, encap: true}} {
			t.Run(fmt.Sprintf("%s/v6=%v/udp=%v", suite, o.outer6, o.encap), func(t *testing.T) {
				a, b := hosts(t, o, 0)
				var sent [][]byte
				for size := 28; size < 1400; size += 131 {
					sent = append(sent, own(o.outer6, size))
				}
				a.inject(inside, sent...)
				esp := cross(t, a, b)
				if len(esp) != len(sent) {
					t.Fatalf("%d packets left for %d; %v", len(esp), len(sent), a.dropped())
				}
				got := b.drain(inside)
				if len(got) != len(sent) {
					t.Fatalf("%d of %d packets reached the kernel; %v", len(got), len(sent), b.dropped())
				}
				for i := range got {
					want := bytes.Clone(sent[i][14:])
					if o.encap { // there may be a NAT, so checksums are computed; these were none
						at := 26
						if o.outer6 {
							at = 46
						}
						copy(want[at:], got[i][14+at:14+at+2])
					}
					if !bytes.Equal(got[i][14:], want) {
						t.Errorf("packet %d arrived as %x, was %x", i, got[i][14:], sent[i][14:])
					}
					if suite.Info().Encrypts() && bytes.Contains(esp[i], sent[i][len(sent[i])-8:]) && len(sent[i]) > 100 {
						t.Error("what left outside is readable")
					}
				}
				if s := b.Stats().Total; s.Punted != uint64(len(sent)) || a.Stats().Total.SentESP != uint64(len(sent)) {
					t.Errorf("punted %d, sealed %d", s.Punted, a.Stats().Total.SentESP)
				}
				a.settled()
				b.settled()
			})
		}
	}
}

// ports gives a UDP frame other ports.
func ports(f []byte, header int, src, dst uint16) []byte {
	f[14+header], f[15+header], f[16+header], f[17+header] = byte(src>>8), byte(src), byte(dst>>8), byte(dst)
	return f
}

// TestTransportModeAndCleartext: what policy wants protected is refused in the clear, both ways; IKE and what policy does
// not speak of passes.
func TestTransportModeAndCleartext(t *testing.T) {
	for _, outer6 := range []bool{false, true} {
		header := 20
		if outer6 {
			header = 40
		}
		for _, c := range []struct {
			name    string
			proto   uint8
			from    int // the port
			frame   []byte
			clear   bool // leaves outside as it is
			punted  bool
			dropped string
		}{
			{"from the peer", 0, outside, back(outer6, 100), false, false, "cleartext"},
			{"from the peer, of a protocol that policy does not name", packet.ProtoTCP, outside, back(outer6, 100), false, true, ""},
			{"from the peer, of the one it names", packet.ProtoUDP, outside, back(outer6, 100), false, false, "cleartext"},
			{"to the peer, of a protocol that policy does not name", packet.ProtoTCP, inside, own(outer6, 100), true, false, ""},
			{"IKE of the kernel's sockets", 0, inside, ports(own(outer6, 100), header, 500, 500), true, false, ""},
			{"IKE of the kernel's sockets on 4500", packet.ProtoUDP, inside, ports(own(outer6, 100), header, 4500, 31234), true, false, ""},
			{"no IKE, to the same port", 0, inside, ports(own(outer6, 100), header, 501, 500), false, false, ""},
		} {
			t.Run(fmt.Sprintf("v6=%v/%s", outer6, c.name), func(t *testing.T) {
				a, _ := hosts(t, options{outer6: outer6}, c.proto)
				a.inject(c.from, c.frame)
				left, punted := a.drain(outside), a.drain(inside)
				as := len(left) == 1 && bytes.Equal(left[0][14:], c.frame[14:])
				if as != c.clear || (len(punted) == 1 && bytes.Equal(punted[0][14:], c.frame[14:])) != c.punted {
					t.Errorf("left outside %x, to the kernel %x", left, punted)
				}
				want := map[string]uint64{}
				if c.dropped != "" {
					want[c.dropped] = 1
				}
				if got := a.dropped(); !reflect.DeepEqual(got, want) {
					t.Errorf("drops %v, want %v", got, want)
				}
				if total := a.Stats().Total; total.SentESP != total.Sent-map[bool]uint64{true: 1}[c.clear] {
					t.Errorf("%d sent, %d of them ESP", total.Sent, total.SentESP)
				}
				a.settled()
			})
		}
	}
}

// TestTransportModeRefusesByName: fragments of the kernel, packets of hosts behind the gateway, packets too large.
func TestTransportModeRefusesByName(t *testing.T) {
	a, b := hosts(t, options{mtu: 1400}, 0)
	fragment := own(false, 100)
	fragment[14+6] = 0x20
	fragment[14+10], fragment[14+11] = 0, 0
	sum := packet.Checksum(fragment[14:34], 0)
	fragment[14+10], fragment[14+11] = byte(sum>>8), byte(sum)
	mtu := a.sad.LookupOutbound(a.sad.Bound(0)).InnerMTU(1400)
	a.inject(inside, fragment, own(false, mtu), own(false, mtu+1))
	esp := cross(t, a, b)
	if len(esp) != 1 || len(esp[0]) > 14+1400 || len(b.drain(inside)) != 1 {
		t.Errorf("%d packets crossed", len(esp))
	}
	if want := map[string]uint64{"transport-fragment": 1, "too-big": 1}; !reflect.DeepEqual(a.dropped(), want) {
		t.Errorf("dropped %v, want %v", a.dropped(), want)
	}
	if answers := a.drain(inside); len(answers) != 1 || answers[0][14+20] != 3 || [4]byte(answers[0][14+12:]) != sideB.outer4.As4() {
		t.Errorf("the kernel was told %x", answers)
	}
	a.settled()
	b.settled()

	// A policy that leads other traffic into transport mode does not make it leave.
	a, _ = hosts(t, options{}, 0)
	wide := spd.Policy{Name: "wide", Action: spd.Protect, Selectors: []spd.Selector{selector(sideA, sideB)}, Transport: true}
	if err := a.Apply(Policies{SPD: []spd.Policy{wide}, Endpoints: []netip.Addr{sideA.outer4, sideA.outer6}}); err != nil {
		t.Fatal(err)
	}
	a.tables.TUN = 0xffff
	a.mu.Lock()
	a.publishTables()
	a.mu.Unlock()
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
	if n := len(a.drain(outside)); n != 0 {
		t.Errorf("%d packets left", n)
	}
	if want := map[string]uint64{"transport-addresses": 1}; !reflect.DeepEqual(a.dropped(), want) {
		t.Errorf("dropped %v, want %v", a.dropped(), want)
	}
	a.settled()
}

// TestAHCrosses carries packets by AH: the gateways' own in transport mode, and those of hosts, in one network with ESP, in a tunnel.
func TestAHCrosses(t *testing.T) {
	for _, suite := range []transform.Suite{transform.NullSHA256, transform.NullSHA512, transform.AES256GMAC} {
		for _, o := range []options{{suite: suite}, {suite: suite, outer6: true}} {
			t.Run(fmt.Sprintf("%s/v6=%v", suite, o.outer6), func(t *testing.T) {
				a, b := protected(t, o, 0, true)
				var sent [][]byte
				for size := 28; size < 1400; size += 131 {
					sent = append(sent, own(o.outer6, size))
				}
				a.inject(inside, sent...)
				ah := cross(t, a, b)
				got := b.drain(inside)
				if len(ah) != len(sent) || len(got) != len(sent) {
					t.Fatalf("%d of %d packets left, %d arrived: %v %v", len(ah), len(sent), len(got), a.dropped(), b.dropped())
				}
				for i := range got {
					if !bytes.Equal(got[i][14:], sent[i][14:]) {
						t.Errorf("packet %d arrived as %x, was %x", i, got[i][14:], sent[i][14:])
					}
				}
				// Forged, again, cut, for nobody.
				bad, cut, nobody := bytes.Clone(ah[3]), bytes.Clone(ah[3]), bytes.Clone(ah[3])
				bad[len(bad)-1] ^= 1
				at := 14 + 20
				if o.outer6 {
					at = 14 + 40
				}
				cut[at+1] += 2
				nobody[at+4] ^= 0x7f
				b.inject(outside, bad, ah[3], cut, nobody)
				want := map[string]uint64{"replayed": 2, "bad-ah": 1, "no-association": 1} // the forged one has a number that is known
				if d := b.dropped(); !reflect.DeepEqual(d, want) {
					t.Errorf("drops %v, want %v", d, want)
				}
				a.settled()
				b.settled()
			})
		}
		t.Run(suite.String()+"/tunnel", func(t *testing.T) {
			a, b := newRig(t, options{suite: suite, ah: true})
			var sent [][]byte
			for size := 28; size < 1400; size += 131 {
				sent = append(sent, udp4("198.51.100.5", "198.51.100.200", size, 64), udp6("2001:db8:a::5", "2001:db8:b::5", size+20, 64))
			}
			a.inject(inside, sent...)
			ah := cross(t, a, b)
			compare(t, sent, b.drain(inside))
			for _, f := range ah {
				if f[14+9] != packet.ProtoAH {
					t.Errorf("protocol %d left", f[14+9])
				}
			}
			// The MTU is exact.
			mtu := a.sad.LookupOutbound(a.sad.Bound(0)).InnerMTU(1500)
			a.inject(inside, udp4("198.51.100.5", "198.51.100.200", mtu, 64), udp4("198.51.100.5", "198.51.100.200", mtu+1, 64))
			if left := cross(t, a, b); len(left) != 1 || len(left[0]) != 14+1500 {
				t.Errorf("%d packets left", len(left))
			}
			b.drain(inside)
			a.drain(inside)
			if want := map[string]uint64{"too-big": 1}; !reflect.DeepEqual(a.dropped(), want) {
				t.Errorf("dropped %v", a.dropped())
			}
			a.settled()
			b.settled()
		})
	}
}
