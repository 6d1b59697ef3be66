package dataplane

import (
	"bytes"
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"

	"sallyport/dataplane/fib"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
	"sallyport/dataplane/worker"
	"sallyport/tools/craft"
)

// shortcuts is a random source of traffic for a gateway of sideB, most of it such that a worker's short ways take it.
type shortcuts struct {
	*rand.Rand
	esp *craft.ESP
	seq uint64
	o   options
	six int // of 8 packets so many are IPv6
	// other is the association of another peer, and seq2 its last number.
	other *craft.ESP
	seq2  uint64
}

// inner returns a frame from one host to another, with one thing or none out of the ordinary.
func (r *shortcuts) inner(src, dst string, last byte) []byte {
	if r.IntN(8) < r.six {
		return r.inner6("2001:db8:"+[]string{"b", "a"}[last]+"::5", "2001:db8:"+[]string{"a", "b"}[last]+"::5")
	}
	at := func(net string) string { return netip.MustParseAddr(net).Next().String() }
	if r.IntN(3) == 0 {
		src, dst = at(src), at(dst)
	}
	f := udp4(src, dst, 40+r.IntN(200), byte(2+r.IntN(60)))
	ip := f[14:]
	if r.IntN(2) == 0 {
		ip[9] = packet.ProtoTCP
		ip[20+13] = 0x10
	}
	switch r.IntN(24) {
	case 0:
		ip[8] = byte(r.IntN(2)) // TTL
	case 1:
		ip[9], ip[20+12], ip[20+13] = packet.ProtoTCP, 0x60, 2 // SYN with an MSS
		copy(ip[40:], []byte{2, 4, 5, 180})
	case 2:
		ip[6] = 0 // may be fragmented
	case 3:
		ip[7] = 3 // a later fragment
	case 4:
		ip[6] |= 0x20 // a first fragment
	case 5:
		f = udp4(src, dst, 1380+r.IntN(121), 64)
		ip = f[14:]
		ip[6] = byte(r.IntN(2)) << 6
	case 6:
		ip[9] = []byte{packet.ProtoICMP, packet.ProtoGRE, packet.ProtoESP, 0}[r.IntN(4)]
	case 7:
		binary.BigEndian.PutUint16(ip[2:], uint16(r.IntN(400))) // total length
	case 8:
		ip[0] = 0x44 + byte(r.IntN(3)) // header length
	case 9:
		ip[1] = byte(r.IntN(256)) // TOS
	case 10:
		copy(ip[12+4*r.IntN(2):], []byte{[]byte{0, 127, 224, 240}[r.IntN(4)], 0, 0, 1}) // martian
	case 11:
		copy(ip[16:], []byte{203, 0, 113, 9}) // no policy
	case 12:
		return f[:14+r.IntN(len(ip))]
	case 13:
		ip[22], ip[23] = 0, byte(r.IntN(3)) // ports
	case 14:
		binary.BigEndian.PutUint16(ip[20:], uint16(r.IntN(3)))
	case 15:
		f = udp6("2001:db8:b::5", "2001:db8:a::5", 100, 64)
		if last == 1 {
			f = udp6("2001:db8:a::5", "2001:db8:b::5", 100, 64)
		}
		return f
	}
	craft.FixIPv4(ip)
	if r.IntN(30) == 0 {
		ip[10]++ // checksum
	}
	if r.IntN(30) == 0 {
		return craft.Tag(f, 7)
	}
	return f
}

// inner6 is inner for IPv6.
func (r *shortcuts) inner6(src, dst string) []byte {
	if r.IntN(3) == 0 {
		src += "5"
	}
	f := udp6(src, dst, 60+r.IntN(200), byte(2+r.IntN(60)))
	ip := f[14:]
	ip[1], ip[2], ip[3] = byte(r.IntN(16)), byte(r.IntN(2)), 7 // flow label
	if r.IntN(2) == 0 {
		ip[6], ip[40+13] = packet.ProtoTCP, 0x10
	}
	extend := func(next byte, header ...byte) {
		f = slices.Insert(f, 14+40, append([]byte{ip[6]}, header...)...)
		ip = f[14:]
		ip[6] = next
		binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-40))
	}
	switch r.IntN(24) {
	case 0:
		ip[7] = byte(r.IntN(2)) // hop limit
	case 1:
		ip[6], ip[40+12], ip[40+13] = packet.ProtoTCP, 0x60, 2 // SYN with an MSS
		copy(ip[60:], []byte{2, 4, 5, 180})
	case 2:
		extend(packet.ProtoHopByHop, 0, 1, 4, 0, 0, 0, 0)
	case 3:
		extend(packet.ProtoDestination, 0, 1, 4, 0, 0, 0, 0)
	case 4:
		extend(packet.ProtoFragment, 0, 0, byte(r.IntN(2)), 0, 0, 0, 9)
	case 5:
		f = udp6(src, dst, 1360+r.IntN(141), 64)
	case 6:
		ip[6] = []byte{packet.ProtoICMPv6, packet.ProtoGRE, packet.ProtoESP, packet.ProtoNone}[r.IntN(4)]
	case 7:
		binary.BigEndian.PutUint16(ip[4:], uint16(r.IntN(400)))
	case 8:
		ip[0] = byte(r.IntN(256)) // version, traffic class
	case 9:
		ip[0], ip[1] = 0x60|byte(r.IntN(16)), byte(r.IntN(256))
	case 10:
		copy(ip[8+16*r.IntN(2):], [][]byte{{0xff, 2}, {0xfe, 0x80}, make([]byte, 15)}[r.IntN(3)]) // martian
	case 11:
		copy(ip[24:], []byte{0x20, 1, 0xd, 0xb8, 0, 9}) // no policy
	case 12:
		return f[:14+r.IntN(len(ip))]
	case 13:
		binary.BigEndian.PutUint16(ip[42:], uint16(r.IntN(3)))
	case 14:
		f = f[:14+40+r.IntN(20)] // less than UDP or TCP has
		binary.BigEndian.PutUint16(f[18:], uint16(len(f)-14-40))
	}
	if r.IntN(30) == 0 {
		return craft.Tag(f, 7)
	}
	return f
}

// outer puts an ESP packet into what stands in front of it, with one thing or none out of the ordinary.
func (r *shortcuts) outer(sealed []byte) []byte {
	src, dst, proto := sideA.outer4, sideB.outer4, byte(craft.ESPv)
	if r.o.outer6 {
		src, dst = sideA.outer6, sideB.outer6
	}
	if r.IntN(24) == 0 {
		src = src.Next().Next()
	}
	if r.o.encap != (r.IntN(24) == 0) {
		from := uint16(4500)
		if r.IntN(24) == 0 {
			from = 4501 // of a NAT
		}
		proto, sealed = packet.ProtoUDP, craft.UDP(src, dst, from, 4500, sealed)
		switch r.IntN(30) {
		case 0:
			binary.BigEndian.PutUint16(sealed[2:], uint16([]int{500, 4501}[r.IntN(2)]))
		case 1:
			binary.BigEndian.PutUint16(sealed[4:], uint16(len(sealed)-r.IntN(10)))
		case 2:
			sealed = append(sealed, 1, 2, 3) // more than UDP says
		case 3:
			sealed = sealed[:min(len(sealed), 8+r.IntN(3))]
			binary.BigEndian.PutUint16(sealed[4:], uint16(len(sealed)))
		}
	}
	ip := craft.IP(src, dst, proto, sealed)
	switch odd := r.IntN(40); {
	case r.o.outer6 && odd == 0:
		ip[1] = byte(r.IntN(256)) // ECN, flow label
	case r.o.outer6 && odd == 1:
		ip = craft.IP(src, dst, packet.ProtoDestination, append([]byte{proto, 0, 1, 4, 0, 0, 0, 0}, sealed...))
	case odd < 2:
		ip[6] ^= 0x20 << r.IntN(2)
		ip[1] = byte(r.IntN(4)) // ECN
		craft.FixIPv4(ip)
	}
	return ip
}

// arrival returns a frame and the port that it comes to.
func (r *shortcuts) arrival() (port int, frame []byte) {
	switch r.IntN(16) {
	case 0: // from the wrong side
		return outside, r.inner("198.51.100.200", "198.51.100.5", 0)
	case 1:
		return outside, r.inner("198.51.100.5", "198.51.100.200", 1)
	case 2, 3, 4, 5, 6, 7, 8:
		return inside, r.inner("198.51.100.200", "198.51.100.5", 0)
	case 9, 10: // another peer, some of whose packets are odd
		r.seq2 += uint64(r.IntN(3))
		ip := craft.IP(otherPeer, sideB.outer4, craft.ESPv, r.other.Carry(r.seq2, udp4("198.51.100.6", "198.51.100.200", 60, 9)[14:]))
		if r.IntN(30) == 0 {
			ip = craft.IPv4(otherPeer, sideB.outer4, craft.ESPv, ip[20:], []byte{1, 1, 1, 0})
		}
		return outside, craft.Ethernet([6]byte{2}, [6]byte{2, 0, 0, 0, 1}, ip)
	}
	inner := r.inner("198.51.100.5", "198.51.100.200", 1)
	if len(inner) < 34 || inner[12] == 0x81 {
		inner = udp4("198.51.100.5", "198.51.100.200", 60, 9)
	}
	if r.IntN(8) > 0 {
		r.seq += uint64(r.IntN(3)) // 0: a replay
	}
	sealed := r.esp.Carry(r.seq, inner[14:])
	switch r.IntN(20) {
	case 0:
		sealed[r.IntN(len(sealed))]++ // SPI, number, text or ICV
	case 1:
		sealed = sealed[:r.IntN(len(sealed))]
	case 2:
		sealed = r.esp.Seal(r.seq, craft.Trailer(inner[14:], r.IntN(9), craft.NextIPv4)) // TFC padding
	case 3:
		sealed = r.esp.Seal(r.seq, craft.Trailer(nil, 0, craft.NextNone))
	case 4: // the other version
		sealed = r.esp.Seal(r.seq, craft.Trailer(inner[14:], 0, []byte{craft.NextIPv4, packet.ProtoIPv6}[r.IntN(2)]))
	}
	return outside, craft.Ethernet([6]byte{2}, [6]byte{2, 0, 0, 0, 1}, r.outer(sealed))
}

// otherPeer has an association of its own.
var otherPeer = netip.MustParseAddr("192.0.2.9")

// TestShortWaysComeToTheSame gives the same traffic to two gateways, one of which takes no short way because it is watched.
// In between policies, routes, neighbours, the tunnel's binding and its endpoints change. Packets that leave, drops and the
// associations' counters must be the same; so nothing that a short way remembers is ever out of date.
func TestShortWaysComeToTheSame(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	roaming := func(p *sad.Params) { p.Roaming = true }
	routed := func(p *sad.Params) { p.Interface = "ipsec0" }
	into := fib.Hop{Kind: fib.Tunnel, Port: 1, MTU: 1400}
	routes := []fib.Entry{{Prefix: sideA.inner4, Hop: into}, {Prefix: sideA.inner6, Hop: into}}
	for _, o := range []options{
		{esn: true}, {window: 32, outer6: true}, {encap: true}, {suite: transform.ChaCha20Poly1305}, {esn: true, suite: transform.AES256GCM16},
		{esn: true, encap: true, params: roaming}, {outer6: true, encap: true}, {esn: true, routes: routes, params: routed}, {outer6: true, routes: routes, params: routed},
	} {
		for _, six := range []int{0, 5} {
			compareWays(t, seed, o, six)
		}
	}
}

func compareWays(t *testing.T, seed uint64, o options, six int) {
	var both [2]*gateway
	rules := Policies{Endpoints: []netip.Addr{sideB.outer4, sideB.outer6}}
	if len(o.routes) > 0 {
		rules.Interfaces = []Interface{{Name: "ipsec0"}}
	}
	second := sad.Params{
		Name: "second", Suite: transform.AES128GCM16, Local: sideB.outer4, Remote: otherPeer, Inbound: true, SPI: 0x1003, Keymat: keymat(transform.AES128GCM16, 0x1003),
		Selectors: []spd.Selector{selector(sideB, sideA)},
	}
	for k := range both {
		g := newGateway(t, sideB, sideA, o)
		both[k] = g
		check(t, g.Apply(rules))
		g.tunnel(sideB, sideA, o, 0x2001, 0x1001)
		_, err := g.Install(second)
		check(t, err)
	}
	rules.SPD = both[0].policies.SPD
	if len(o.routes) > 0 {
		for i := range rules.SPD {
			rules.SPD[i].Interface = "ipsec0"
		}
	}
	for _, g := range both {
		check(t, g.Apply(rules))
	}
	both[1].workers[0].Trace(worker.NewTracer(&worker.Filter{}, new(atomic.Int64)))
	esp, err := craft.NewESP(0x1001, keymat(transform.AES128GCM16, 0x1001), o.esn)
	check(t, err)
	other, err := craft.NewESP(0x1003, second.Keymat, false)
	check(t, err)
	r := &shortcuts{Rand: rand.New(rand.NewPCG(seed, uint64(six))), esp: esp, seq: 1, o: o, six: six, other: other, seq2: 1}
	if o.suite == transform.AES256GCM16 {
		r.seq = 1<<32 - 200 // what follows is replayed or new on both sides of it, or does not match
	}
	bound, known := both[0].sad.Bound(0), both[0].tables.FIB
	generation := uint32(1)
	for round := range 400 {
		switch change := r.IntN(40); change {
		case 0: // another first policy
			first := spd.Policy{Name: "first", Action: spd.Action(r.IntN(3)), Tunnel: uint32(r.IntN(2)), Selectors: []spd.Selector{{
				Local: []spd.Range{spd.RangeOf(sideB.inner4)}, Remote: []spd.Range{spd.RangeOf(sideA.inner4)},
				LocalPorts: spd.AnyPorts, RemotePorts: spd.PortRange{First: uint16(r.IntN(2)) * 5000, Last: 5000 + uint16(r.IntN(2))}, Proto: []uint8{0, 6, 17}[r.IntN(3)],
			}}}
			changed := rules
			if r.IntN(2) == 0 {
				changed.SPD = append([]spd.Policy{first}, rules.SPD...)
			}
			for _, g := range both {
				check(t, g.Apply(changed))
			}
		case 1: // other routes
			generation++
			kind := []fib.Kind{fib.Forward, fib.Unresolved, fib.Failed, fib.Unreachable, fib.NoRoute}[r.IntN(5)]
			hop := fib.Hop{Kind: kind, Port: uint16(r.IntN(2)), MTU: 1280 + uint16(r.IntN(300)), SrcMAC: [6]byte{2, 9}, DstMAC: [6]byte{2, byte(round)}}
			other := fib.Hop{Kind: fib.Forward, Port: inside, MTU: 1400} // takes the number that another hop has in the first routes
			entries := []fib.Entry{
				{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Hop: other}, {Prefix: sideB.inner4, Hop: hop}, {Prefix: netip.PrefixFrom(sideA.outer4, 32), Hop: hop},
			}
			if r.IntN(2) == 0 {
				entries = append(entries, fib.Entry{Prefix: sideB.inner6, Hop: hop}, fib.Entry{Prefix: netip.PrefixFrom(sideA.outer6, 128), Hop: hop})
				entries = append(entries, o.routes...)
			}
			table := fib.Build(generation, entries)
			for _, g := range both {
				g.tables.FIB = table
				g.publishTables()
			}
		case 2, 3, 4: // the first ones again; a table of the same content is a new one
			generation++
			again := *known
			again.Generation = generation
			for _, g := range both {
				g.tables.FIB = &again
				g.publishTables()
			}
		case 5, 6:
			for _, g := range both {
				g.sad.Bind(0, bound*uint32(change-5))
			}
		case 7, 8:
			local, remote, port := sideB.outer4, sideA.outer4, 4500+uint16(r.IntN(2))
			if o.outer6 {
				local, remote = sideB.outer6, sideA.outer6
			}
			if change == 8 {
				remote = remote.Next().Next()
			}
			for _, g := range both {
				check(t, g.UpdateEndpoints(sad.InboundHandle(0x1001), netip.AddrPortFrom(local, 4500), netip.AddrPortFrom(remote, port), o.encap))
			}
		}
		for range 1 + r.IntN(90) {
			port, frame := r.arrival()
			for _, g := range both {
				g.queues[port][0].Inject(frame)
			}
		}
		for _, g := range both {
			g.now = int64(round) * 1e8
			g.run()
		}
		for port := range 2 {
			if short, long := leaving(both[0], port), leaving(both[1], port); !slices.EqualFunc(short, long, bytes.Equal) {
				for i := range min(len(short), len(long)) {
					if !bytes.Equal(short[i], long[i]) {
						t.Errorf("the first that differs:\n%x\n%x", short[i], long[i])
						break
					}
				}
				t.Fatalf("seed %d, %+v, round %d, port %d: %d packets by the short way, %d by the long one", seed, o, round, port, len(short), len(long))
			}
		}
		if short, long := refused(both[0]), refused(both[1]); !maps.Equal(short, long) {
			t.Fatalf("seed %d, %+v, round %d: drops %v by the short way, %v by the long one", seed, o, round, short, long)
		}
	}
	var infos [2][]sad.Info
	for k, g := range both {
		g.Associations(func(i *sad.Info) bool {
			i.Params = sad.Params{}
			infos[k] = append(infos[k], *i)
			return true
		})
		s := g.Stats().Total
		if s.Sealed == 0 || s.Opened == 0 && (o.suite == 0 || o.suite == transform.AES128GCM16) {
			t.Errorf("seed %d, %+v: %d packets sealed, %d opened", seed, o, s.Sealed, s.Opened)
		}
		for range 4 { // parked packets end, and the ICMP errors about them
			g.now += 3e9
			g.run()
			g.drain(inside)
			g.drain(outside)
		}
		g.settled()
	}
	if !slices.EqualFunc(infos[0], infos[1], func(a, b sad.Info) bool {
		return a.Packets == b.Packets && a.Bytes == b.Bytes && a.Sequence == b.Sequence && a.Replayed+a.TooOld+a.BadICV == b.Replayed+b.TooOld+b.BadICV && a.OtherDrops == b.OtherDrops
	}) {
		t.Errorf("seed %d, %+v: associations differ:\n%+v\n%+v", seed, o, infos[0], infos[1])
	}
}

// refused are the drops by reason. Of a packet that is both forged and a replay it says either: the number is looked at before the ICV, and which other
// packets were opened by then is for each way to choose.
func refused(g *gateway) map[string]uint64 {
	drops := g.dropped()
	for _, reason := range []packet.Drop{packet.DropReplayed, packet.DropTooOld} {
		drops[packet.DropBadICV.String()] += drops[reason.String()]
		delete(drops, reason.String())
	}
	return drops
}

// leaving returns what left through a port, in an order of its own: the ways need not keep packets of different kinds in order. The
// identification of datagrams that may be fragmented counts from a random number.
func leaving(g *gateway, port int) [][]byte {
	frames := g.drain(port)
	for _, f := range frames {
		if len(f) >= 34 && f[12] == 8 && f[13] == 0 && [4]byte(f[14+12:]) == sideB.outer4.As4() {
			f[14+4], f[14+5], f[14+10], f[14+11] = 0, 0, 0, 0
		}
		if len(f) >= 14+40+8 && f[12] == 0x86 && f[14+6] == packet.ProtoFragment && [16]byte(f[14+8:]) == sideB.outer6.As16() {
			clear(f[14+40+4 : 14+40+8])
		}
	}
	slices.SortFunc(frames, bytes.Compare)
	return frames
}
