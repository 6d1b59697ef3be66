package dataplane

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/transform"
	"sallyport/tools/craft"
)

// icmpAbout returns the frame of a router's ICMP error about a frame that left outside, of which it quotes n bytes of IP; rest is the
// second word of the ICMP header.
func icmpAbout(frame []byte, kind, code byte, rest uint32, n int) []byte {
	ip := frame[14:]
	router, to, proto := netip.MustParseAddr("203.0.113.9"), netip.Addr{}, byte(craft.ICMP)
	if ip[0]>>4 == 6 {
		router, proto = netip.MustParseAddr("2001:db8:f::9"), craft.ICMPv6
		to = netip.AddrFrom16([16]byte(ip[8:24]))
	} else {
		to = netip.AddrFrom4([4]byte(ip[12:16]))
	}
	icmp := binary.BigEndian.AppendUint32([]byte{kind, code, 0, 0}, rest)
	icmp = append(icmp, ip[:min(n, len(ip))]...)
	var pseudo uint32
	if proto == craft.ICMPv6 {
		pseudo = packet.PseudoSum(router.AsSlice(), to.AsSlice(), proto, uint32(len(icmp)))
	}
	binary.BigEndian.PutUint16(icmp[2:], packet.Checksum(icmp, pseudo))
	return craft.Ethernet([6]byte{2}, [6]byte{2, 0, 0, 0, 1}, craft.IP(router, to, proto, icmp))
}

// judged lets the gateway's workers and the judge of complaints work.
func (g *gateway) judged() {
	g.run()
	g.group.Events(g.hear)
}

// tooBigFor returns the ICMP error about a frame and MTU in its family.
func tooBigFor(frame []byte, mtu, n int) []byte {
	if frame[14]>>4 == 6 {
		return icmpAbout(frame, 2, 0, uint32(mtu), n)
	}
	return icmpAbout(frame, 3, 4, uint32(mtu), n)
}

func (g *gateway) outbound() *sad.Outbound { return g.sad.LookupOutbound(g.sad.Bound(0)) }

// TestPathMTUIsLearned has a router on the way say that an ESP packet was too big: from then on senders of larger inner packets
// are told the size that fits, to the byte, and one that fits passes. After ten minutes larger ones are tried again.
func TestPathMTUIsLearned(t *testing.T) {
	for _, o := range []options{{}, {encap: true}, {outer6: true}, {outer6: true, encap: true}} {
		o.esn = true
		t.Run(fmt.Sprintf("v6=%v/udp=%v", o.outer6, o.encap), func(t *testing.T) {
			a, _ := newRig(t, o)
			big := udp4("198.51.100.5", "198.51.100.200", 1400, 64)
			a.inject(inside, big)
			esp := a.drain(outside)[0]
			enough := 20 + 8 // RFC 792: 8 bytes behind the IP header
			if o.outer6 {
				enough = 40 + 8
			}
			if o.encap {
				enough += 8
			}
			a.inject(outside, tooBigFor(esp, 1300, enough))
			a.judged()
			if s := a.Stats().Paths; s != (PathStats{Learned: 1}) {
				t.Fatalf("%+v", s)
			}
			fits := a.outbound().InnerMTU(1500)
			if want := a.outbound().InnerMTU(1300); fits != want || fits >= 1300 {
				t.Fatalf("inner MTU %d, want %d", fits, want)
			}
			a.inject(inside, udp4("198.51.100.5", "198.51.100.200", fits, 64), udp4("198.51.100.5", "198.51.100.200", fits+1, 64))
			if n := len(a.drain(outside)); n != 1 {
				t.Errorf("%d packets left", n)
			}
			answers := a.drain(inside)
			if len(answers) != 1 || answers[0][14+20] != 3 || int(binary.BigEndian.Uint16(answers[0][14+26:])) != fits {
				t.Errorf("answers %x", answers)
			}
			var shown sad.Info
			a.Associations(func(i *sad.Info) bool { shown = *i; return false })
			if shown.PathMTU != 1300 || time.Until(shown.PathUntil) > sad.PathMTUAge {
				t.Errorf("shown as %d until %v", shown.PathMTU, shown.PathUntil)
			}
			// A successor begins with what is known; it was learned for ten minutes from now.
			p := sad.Params{Name: "rig", Suite: transform.AES128GCM16, SPI: 0x7777, Keymat: keymat(transform.AES128GCM16, 9), Local: shown.Params.Local, Remote: shown.Params.Remote, Encap: o.encap}
			h, err := a.Install(p)
			if err != nil {
				t.Fatal(err)
			}
			if got := a.sad.LookupOutbound(h.Value()).PathMTU(); got != 1300 {
				t.Errorf("the successor begins with %d", got)
			}
			if n := a.sad.AgePaths(time.Now().Add(sad.PathMTUAge - time.Second)); n != 0 || a.outbound().PathMTU() != 1300 {
				t.Errorf("%d forgotten too early", n)
			}
			if n := a.sad.AgePaths(time.Now().Add(sad.PathMTUAge + time.Second)); n != 1 || a.outbound().PathMTU() != 0 || a.sad.LookupOutbound(h.Value()).PathMTU() != 0 {
				t.Errorf("%d forgotten, %d left", n, a.outbound().PathMTU())
			}
			a.inject(inside, big)
			if n := len(a.drain(outside)); n != 1 {
				t.Errorf("%d packets left afterwards", n)
			}
			if want := map[string]uint64{"icmp-heeded": 1, "too-big": 1}; !reflect.DeepEqual(a.dropped(), want) {
				t.Errorf("dropped %v", a.dropped())
			}
			a.settled()
		})
	}
}

// TestLiesAboutThePathAreNotBelieved sends ICMP errors as who does not see our packets would, and as who does but says what cannot be.
func TestLiesAboutThePathAreNotBelieved(t *testing.T) {
	for _, o := range []options{{}, {outer6: true}} {
		header := 20
		if o.outer6 {
			header = 40
		}
		alter := func(f []byte, at int, x byte) []byte { f = append([]byte{}, f...); f[14+at] ^= x; return f }
		for _, c := range []struct {
			name string
			make func(esp []byte) []byte
			drop string
			want PathStats
			mtu  uint16
		}{
			{"unknown SPI", func(e []byte) []byte { return tooBigFor(alter(e, header+2, 1), 1300, 100) }, "icmp-heeded", PathStats{Implausible: 1}, 0},
			{"never sent", func(e []byte) []byte { return tooBigFor(alter(e, header+7, 64), 1300, 100) }, "icmp-heeded", PathStats{Implausible: 1}, 0},
			{"long ago", func(e []byte) []byte { return tooBigFor(alter(e, header+4, 0x80), 1300, 100) }, "icmp-heeded", PathStats{Implausible: 1}, 0},
			{"sequence number 0", func(e []byte) []byte { return tooBigFor(alter(e, header+7, 5), 1300, 100) }, "icmp-heeded", PathStats{Implausible: 1}, 0},
			{"to another peer", func(e []byte) []byte { return tooBigFor(alter(e, header-1, 1), 1300, 100) }, "icmp-heeded", PathStats{Implausible: 1}, 0},
			{"not larger", func(e []byte) []byte { return tooBigFor(e, 1500, 100) }, "icmp-heeded", PathStats{Implausible: 1}, 0},
			{"exactly as large", func(e []byte) []byte { return tooBigFor(e, len(e)-14, 100) }, "icmp-heeded", PathStats{Implausible: 1}, 0},
			{"damaged", func(e []byte) []byte { return alter(tooBigFor(e, 1300, 100), header+7, 1) }, "icmp-unverified", PathStats{}, 0},
			{"a later fragment", func(e []byte) []byte {
				l := split(e, 800, 3)
				return tooBigFor(l[1], 600, 100)
			}, "icmp-unverified", PathStats{}, 0},
			{"tiny", func(e []byte) []byte { return tooBigFor(e, 300, 100) }, "icmp-heeded", map[bool]PathStats{false: {Learned: 1}, true: {Implausible: 1}}[o.outer6], map[bool]uint16{false: 576}[o.outer6]},
			{"none told", func(e []byte) []byte { return tooBigFor(e, 0, 100) }, "icmp-heeded", map[bool]PathStats{false: {Learned: 1}, true: {Implausible: 1}}[o.outer6], map[bool]uint16{false: 1006}[o.outer6]},
		} {
			a, _ := newRig(t, o)
			for range 5 {
				a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 1400, 64))
			}
			esp := a.drain(outside)
			a.inject(outside, c.make(esp[4]))
			a.judged()
			if got := a.Stats().Paths; got != c.want || a.outbound().PathMTU() != c.mtu {
				t.Errorf("v6 %v, %s: %+v, path MTU %d", o.outer6, c.name, got, a.outbound().PathMTU())
			}
			if want := map[string]uint64{c.drop: 1}; !reflect.DeepEqual(a.dropped(), want) {
				t.Errorf("v6 %v, %s: dropped %v", o.outer6, c.name, a.dropped())
			}
			a.settled()
		}
	}
}

// TestPathMTUOnlyFalls sends errors in the wrong order.
func TestPathMTUOnlyFalls(t *testing.T) {
	a, _ := newRig(t, options{})
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 1400, 64))
	esp := a.drain(outside)[0]
	for _, mtu := range []int{1300, 1400, 1300, 1200} {
		a.inject(outside, tooBigFor(esp, mtu, 100))
		a.judged()
	}
	if got := a.Stats().Paths; got != (PathStats{Learned: 3, Stale: 1}) || a.outbound().PathMTU() != 1200 {
		t.Errorf("%+v, path MTU %d", got, a.outbound().PathMTU())
	}
	a.settled()
}

// TestUnreachablePeersAreReported has a router say that ESP packets do not arrive: the sender of the next inner packet hears that its
// destination is unreachable, about its own packet, and the traffic goes on. A second error within a second changes nothing.
func TestUnreachablePeersAreReported(t *testing.T) {
	for _, c := range []struct {
		o            options
		kind, code   byte
		want4, want6 [2]byte
		inner6       bool
	}{
		{o: options{}, kind: 3, code: 1, want4: [2]byte{3, 1}},
		{o: options{}, kind: 3, code: 13, want4: [2]byte{3, 13}},
		{o: options{workers: 2, queues: 2}, kind: 11, code: 0, want4: [2]byte{3, 1}},
		{o: options{outer6: true}, kind: 1, code: 0, want4: [2]byte{3, 1}},
		{o: options{outer6: true}, kind: 1, code: 1, want6: [2]byte{1, 1}, inner6: true},
		{o: options{encap: true}, kind: 3, code: 3, want6: [2]byte{1, 3}, inner6: true},
	} {
		a, _ := newRig(t, c.o)
		send := func() (sealed, answers [][]byte) {
			f := udp4("198.51.100.5", "198.51.100.200", 400, 64)
			if c.inner6 {
				f = udp6("2001:db8:a::5", "2001:db8:b::5", 400, 64)
			}
			a.inject(inside, f)
			return a.drain(outside), a.drain(inside)
		}
		sealed, _ := send()
		for range 2 {
			a.inject(outside, icmpAbout(sealed[0], c.kind, c.code, 0, 100))
			a.judged()
		}
		left, answers := send()
		if len(left) != 0 || len(answers) != 1 {
			t.Fatalf("%+v: %d left, %d answers; dropped %v", c, len(left), len(answers), a.dropped())
		}
		ip := answers[0][14:]
		at, want := 20, c.want4
		if c.inner6 {
			at, want = 40, c.want6
		}
		if [2]byte(ip[at:]) != want || ip[at+8]>>4 != ip[0]>>4 {
			t.Errorf("%+v: answer %x", c, ip)
		}
		a.inject(outside, icmpAbout(sealed[0], c.kind, c.code, 0, 100))
		a.judged()
		for range 3 {
			if left, answers := send(); len(left) != 1 || len(answers) != 0 {
				t.Errorf("%+v: afterwards: %d left, %d answers", c, len(left), len(answers))
			}
		}
		if want := map[string]uint64{"icmp-heeded": 3, "peer-unreachable": 1}; !reflect.DeepEqual(a.dropped(), want) {
			t.Errorf("%+v: dropped %v", c, a.dropped())
		}
		a.settled()
	}
}

// TestErrorsAboutESPAreLimited sends more than is looked at.
func TestErrorsAboutESPAreLimited(t *testing.T) {
	a, _ := newRig(t, options{})
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 1400, 64))
	f := tooBigFor(a.drain(outside)[0], 1300, 100)
	for range 500 {
		a.inject(outside, f)
	}
	d := a.dropped()
	if d["icmp-heeded"] < 32 || d["icmp-heeded"] > 40 || d["icmp-heeded"]+d["icmp-excess"] != 500 {
		t.Errorf("dropped %v", d)
	}
	a.settled()
}
