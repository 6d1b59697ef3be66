package dataplane

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"reflect"
	"testing"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/transform"
	"sallyport/tools/craft"
)

// toPort changes the destination port of a UDP frame. Nobody looks at its checksum.
func toPort(f []byte, port int) []byte {
	header := 20
	if f[14]>>4 == 6 {
		header = 40
	}
	binary.BigEndian.PutUint16(f[14+header+2:], uint16(port))
	return f
}

// TestLaterFragmentsFollowTheFirst sends fragments through a tunnel that is for one port. One worker or several, the later ones go where the
// first one did, in both gateways (RFC 4301, 7).
func TestLaterFragmentsFollowTheFirst(t *testing.T) {
	for _, workers := range []int{1, 3} {
		o := options{service: true, workers: workers, queues: workers}
		a, b := newRig(t, o)
		var sent [][]byte
		for id := range 20 {
			sent = append(sent, split(udp4("198.51.100.5", "198.51.100.200", 2800, 64), 1000, id)...)
			sent = append(sent, split(udp6("2001:db8:a::5", "2001:db8:b::5", 2800, 64), 1000, id)...)
		}
		for i, f := range sent { // each on its own queue, in order
			if !a.queues[inside][i%workers].Inject(f) {
				t.Fatal("the queue took no frame")
			}
			a.run()
		}
		esp := cross(t, a, b)
		if len(esp) != len(sent) {
			t.Fatalf("%d workers: %d ESP packets for %d fragments; dropped %v", workers, len(esp), len(sent), a.dropped())
		}
		compare(t, sent, b.drain(inside))
		a.settled()
		b.settled()
	}
}

// TestFragmentsForOtherPortsStayOutside sends fragments for a port that the tunnel is not for, those whose first one never came, those that
// reach into the first one, and those that come too late.
func TestFragmentsForOtherPortsStayOutside(t *testing.T) {
	whole := func() []byte { return udp4("198.51.100.5", "198.51.100.200", 2800, 64) }
	word := func(f []byte, w uint16) []byte {
		binary.BigEndian.PutUint16(f[20:], w)
		f[24], f[25] = 0, 0
		binary.BigEndian.PutUint16(f[24:], packet.Checksum(f[14:34], 0))
		return f
	}
	for _, c := range []struct {
		name   string
		sealed int
		want   map[string]uint64
		send   func(a *gateway)
	}{
		{"another port", 0, map[string]uint64{"no-route": 3}, func(a *gateway) { a.inject(inside, split(toPort(whole(), 5001), 1000, 1)...) }},
		{"no first one", 0, map[string]uint64{"fragment-no-ports": 2}, func(a *gateway) { a.inject(inside, split(whole(), 1000, 1)[1:]...) }},
		{"another datagram's", 1, map[string]uint64{"fragment-no-ports": 2}, func(a *gateway) {
			a.inject(inside, split(whole(), 1000, 1)[0])
			a.inject(inside, split(whole(), 1000, 2)[1:]...)
		}},
		{"into the first one", 2, map[string]uint64{"fragment-no-ports": 1}, func(a *gateway) {
			l := split(whole(), 1000, 1)
			a.inject(inside, l[0], word(l[1], 0x2000|124), l[2])
		}},
		{"too late", 2, map[string]uint64{"fragment-no-ports": 1}, func(a *gateway) {
			l := split(whole(), 1000, 1)
			a.inject(inside, l[0], l[1])
			a.now += 3e9
			a.inject(inside, l[2])
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, _ := newRig(t, options{service: true})
			c.send(a)
			if n := len(a.drain(outside)); n != c.sealed {
				t.Errorf("%d packets left, want %d", n, c.sealed)
			}
			if !reflect.DeepEqual(a.dropped(), c.want) {
				t.Errorf("dropped %v, want %v", a.dropped(), c.want)
			}
			a.drain(inside)
			a.settled()
		})
	}
}

// TestPeerCannotSmuggleByFragments has the peer send, authentic, later fragments without a first one, after one of another port, and after one
// that came through no association.
func TestPeerCannotSmuggleByFragments(t *testing.T) {
	_, b := newRig(t, options{service: true})
	whole := udp4("198.51.100.5", "198.51.100.200", 1800, 64)
	good, other := split(whole, 1000, 1), split(toPort(bytes.Clone(whole), 5001), 1000, 2)
	esp, err := craft.NewESP(0x1001, keymat(transform.AES128GCM16, 0x1001), false)
	if err != nil {
		t.Fatal(err)
	}
	seq := uint64(0)
	send := func(f []byte) {
		seq++
		b.inject(outside, craft.Ethernet([6]byte{2}, [6]byte{2, 0, 0, 0, 1}, craft.IP(sideA.outer4, sideB.outer4, craft.ESPv, esp.Carry(seq, f[14:]))))
	}
	send(good[1])
	send(other[0])
	send(other[1])
	if n := len(b.drain(inside)); n != 0 {
		t.Errorf("%d fragments came in", n)
	}
	if want := map[string]uint64{"fragment-no-ports": 2, "selector-mismatch": 1}; !reflect.DeepEqual(b.dropped(), want) {
		t.Errorf("dropped %v, want %v", b.dropped(), want)
	}
	send(good[0])
	send(good[1])
	compare(t, [][]byte{good[0], good[1]}, undoOneHop(b.drain(inside)))
	b.settled()
}

// undoOneHop makes packets that saw one gateway look as if they had seen two.
func undoOneHop(frames [][]byte) [][]byte {
	for _, f := range frames {
		f[14+8]--
		f[14+10], f[14+11] = 0, 0
		binary.BigEndian.PutUint16(f[24:], packet.Checksum(f[14:34], 0))
	}
	return frames
}

// report returns the frame of an ICMP error from a router about a packet.
func report(router, to netip.Addr, kind, code byte, about []byte) []byte {
	about = about[:min(len(about), 548)]
	icmp := append([]byte{kind, code, 0, 0, 0, 0, 0, 0}, about...)
	proto := byte(craft.ICMP)
	if router.Is6() {
		proto = craft.ICMPv6
	}
	return craft.Ethernet([6]byte{2}, [6]byte{2, 0, 0, 0, 1}, craft.IP(router, to, proto, icmp))
}

// TestRoutersErrorsCrossTheTunnel has a router behind B, with an address outside of all selectors, report what became of a packet of
// a host behind A: the error goes through the tunnel of that traffic, and A lets it in (RFC 4301, 6). One about a packet that was
// never for the tunnel does not.
func TestRoutersErrorsCrossTheTunnel(t *testing.T) {
	for _, o := range []options{{}, {service: true}} {
		a, b := newRig(t, o)
		for _, c := range []struct {
			name   string
			frame  []byte
			passes bool
		}{
			{"unreachable", report(netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("198.51.100.5"), 3, 1, udp4("198.51.100.5", "198.51.100.200", 100, 64)[14:]), true},
			{"time exceeded", report(netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("198.51.100.5"), 11, 0, udp4("198.51.100.5", "198.51.100.200", 1000, 1)[14:]), true},
			{"v6 too big", report(netip.MustParseAddr("2001:db8:f::9"), netip.MustParseAddr("2001:db8:a::5"), 2, 0, udp6("2001:db8:a::5", "2001:db8:b::5", 1300, 64)[14:]), true},
			{"to another host", report(netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("198.51.100.6"), 3, 1, udp4("198.51.100.5", "198.51.100.200", 100, 64)[14:]), false},
			{"about other traffic", report(netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("198.51.100.5"), 3, 1, udp4("198.51.100.5", "203.0.113.77", 100, 64)[14:]), false},
			{"no error", report(netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("198.51.100.5"), 8, 0, udp4("198.51.100.5", "198.51.100.200", 100, 64)[14:]), false},
			{"quotes too little", report(netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("198.51.100.5"), 3, 1, udp4("198.51.100.5", "198.51.100.200", 100, 64)[14:14+27]), false},
		} {
			b.inject(inside, c.frame)
			esp := b.drain(outside)
			b.drain(inside)
			sealed := len(esp) == 1 && esp[0][14+9] == craft.ESPv
			if sealed != c.passes {
				t.Errorf("%s: sealed %v; dropped %v", c.name, sealed, b.dropped())
				continue
			}
			if sealed {
				a.inject(outside, esp...)
				if got := a.drain(inside); len(got) != 1 || !bytes.Equal(got[0][14+40:], c.frame[14+40:]) {
					t.Errorf("%s: %d packets came out; dropped %v", c.name, len(got), a.dropped())
				}
			}
			// What B refuses to send, a peer that is not B may send all the same.
			if !c.passes {
				forge, err := craft.NewESP(0x2001, keymat(transform.AES128GCM16, 0x2001), false)
				if err != nil {
					t.Fatal(err)
				}
				before := a.dropped()["selector-mismatch"]
				last := a.Stats().Total.Opened + 1000 + before
				a.inject(outside, craft.Ethernet([6]byte{2}, [6]byte{2, 0, 0, 0, 1}, craft.IP(sideB.outer4, sideA.outer4, craft.ESPv, forge.Carry(last, c.frame[14:]))))
				if got := a.drain(inside); len(got) != 0 || a.dropped()["selector-mismatch"] != before+1 {
					t.Errorf("%s: A let it in; dropped %v", c.name, a.dropped())
				}
			}
		}
		a.settled()
		b.settled()
	}
}

// TestGatewayReportsFromAnyAddress has B report that the hop count of a packet out of the tunnel ended, while none of its addresses is
// in the tunnel's selectors: the error goes back with the traffic that it is about.
func TestGatewayReportsFromAnyAddress(t *testing.T) {
	a, b := newRig(t, options{service: true})
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 2))
	cross(t, a, b)
	if esp := cross(t, b, a); len(esp) != 1 {
		t.Fatalf("%d packets left; dropped %v", len(esp), b.dropped())
	}
	got := a.drain(inside)
	if len(got) != 1 || got[0][14+9] != craft.ICMP || got[0][14+20] != 11 || !bytes.Equal(got[0][14+12:14+16], sideB.insideAddresses[0].AsSlice()) {
		t.Fatalf("%x; dropped %v", got, a.dropped())
	}
	a.settled()
	b.settled()
}
