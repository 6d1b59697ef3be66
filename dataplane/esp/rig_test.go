package esp

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
)

// The addresses of the tests: gateways A and B, hosts behind each.
var (
	gatewayA4, gatewayB4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	gatewayA6, gatewayB6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	hostA4, hostB4       = netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("203.0.113.1")
	hostA6, hostB6       = netip.MustParseAddr("2001:db8:a::1"), netip.MustParseAddr("2001:db8:b::1")
	netsA                = []spd.Range{spd.RangeOf(netip.MustParsePrefix("198.51.100.0/24")), spd.RangeOf(netip.MustParsePrefix("2001:db8:a::/64"))}
	netsB                = []spd.Range{spd.RangeOf(netip.MustParsePrefix("203.0.113.0/24")), spd.RangeOf(netip.MustParsePrefix("2001:db8:b::/64"))}
	anyPort              = spd.PortRange{First: 0, Last: 65535}
)

// tunnel is one direction from A to B: what both ends install.
type tunnel struct {
	out *sad.Outbound // at A
	in  *sad.Inbound  // at B
}

// rig is both gateways in one process: one table, one scratch, one area of frames.
type rig struct {
	t       testing.TB
	table   *sad.Table
	scratch *Scratch
	batch   *packet.Batch
	r       *rand.Rand
	spi     uint32
	keymat  []byte // of the tunnel made last
}

const frames = packet.BatchMax

// newRig returns a rig whose frames are filled with a canary.
func newRig(t testing.TB) *rig {
	t.Helper()
	table, err := sad.New(sad.Config{Capacity: 1024, Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	g := &rig{t: t, table: table, scratch: NewScratch(table, table.Finder(0)), batch: &packet.Batch{}, r: rand.New(rand.NewPCG(43, 3)), spi: 0x1000}
	g.batch.Mem = make([]byte, frames*packet.FrameSize)
	g.wipe()
	return g
}

const canary = 0xA5

func (g *rig) wipe() { g.wipeFrames(frames) }

// wipeFrames fills the first n frames with the canary.
func (g *rig) wipeFrames(n int) {
	m := g.batch.Mem[:n*packet.FrameSize]
	m[0] = canary
	for done := 1; done < len(m); done *= 2 {
		copy(m[done:], m[:done])
	}
}

// params describes the tunnel from A to B as A's outbound end sees it.
func (g *rig) params(suite transform.Suite, outer int, encap, esn bool) sad.Params {
	g.spi++
	p := sad.Params{
		Name: "a-b", SPI: g.spi, Suite: suite, Keymat: make([]byte, suite.Info().KeyLen), Local: gatewayA4, Remote: gatewayB4,
		Encap: encap, ESN: esn, Outer: sad.Outer{CopyDSCP: true, CopyDF: true, ECN: true},
		Selectors: []spd.Selector{{Local: netsA, Remote: netsB, LocalPorts: anyPort, RemotePorts: anyPort}},
	}
	if encap {
		p.LocalPort, p.RemotePort = 4500, 4501
	}
	if outer == 6 {
		p.Local, p.Remote = gatewayA6, gatewayB6
	}
	for i := range p.Keymat {
		p.Keymat[i] = byte(g.r.Uint32())
	}
	return p
}

// install installs the outbound end at A and the inbound end at B.
func (g *rig) install(p sad.Params) tunnel {
	g.t.Helper()
	g.keymat = bytes.Clone(p.Keymat)
	q := p
	q.Keymat = bytes.Clone(p.Keymat)
	q.Inbound = true
	q.Sequence = 0
	q.Local, q.Remote = p.Remote, p.Local
	q.LocalPort, q.RemotePort = p.RemotePort, p.LocalPort
	q.Selectors = nil
	for _, s := range p.Selectors {
		s.Local, s.Remote = s.Remote, s.Local
		s.LocalPorts, s.RemotePorts = s.RemotePorts, s.LocalPorts
		q.Selectors = append(q.Selectors, s)
	}
	h, err := g.table.Install(p)
	if err != nil {
		g.t.Fatal(err)
	}
	if _, err := g.table.Install(q); err != nil {
		g.t.Fatal(err)
	}
	tu := tunnel{g.table.LookupOutbound(uint32(h)), g.table.LookupInbound(p.SPI)}
	if tu.out == nil || tu.in == nil {
		g.t.Fatal("an installed association is not found")
	}
	return tu
}

func (g *rig) tunnel(suite transform.Suite, outer int, encap, esn bool) tunnel {
	g.t.Helper()
	return g.install(g.params(suite, outer, encap, esn))
}

// datagram returns an IP datagram of the given total length from host A to host B
// with UDP or, if there is no room for that, without an upper layer.
func (g *rig) datagram(version, length int) []byte {
	d := make([]byte, length)
	for i := range d {
		d[i] = byte(g.r.Uint32())
	}
	header, proto := 20, byte(packet.ProtoUDP)
	if version == 6 {
		header = 40
	}
	if length < header+8 {
		proto = 253 // RFC 3692: for experiments
	} else {
		binary.BigEndian.PutUint16(d[header+4:], uint16(length-header))
	}
	if version == 4 {
		clear(d[:20])
		d[0], d[8], d[9] = 0x45, 61, proto
		binary.BigEndian.PutUint16(d[2:], uint16(length))
		copy(d[12:], hostA4.AsSlice())
		copy(d[16:], hostB4.AsSlice())
		sum4(d)
		return d
	}
	clear(d[:8])
	d[0], d[6], d[7] = 0x60, proto, 61
	binary.BigEndian.PutUint16(d[4:], uint16(length-40))
	copy(d[8:], hostA6.AsSlice())
	copy(d[24:], hostB6.AsSlice())
	return d
}

// sum4 computes the checksum of an IPv4 header without options.
func sum4(d []byte) {
	d[10], d[11] = 0, 0
	binary.BigEndian.PutUint16(d[10:], packet.Checksum(d[:20], 0))
}

// put makes datagram d packet i of the batch, as if it had been received in frame i.
func (g *rig) put(i int, d []byte) {
	g.t.Helper()
	b := g.batch
	p := &b.P[i]
	*p = packet.Packet{Addr: uint64(i*packet.FrameSize + packet.Headroom), Len: uint16(packet.EtherLen + len(d))}
	f := b.Mem[p.Addr:]
	clear(f[:12])
	binary.BigEndian.PutUint16(f[12:], packet.EtherIPv4)
	if len(d) > 0 && d[0]>>4 == 6 {
		binary.BigEndian.PutUint16(f[12:], packet.EtherIPv6)
	}
	copy(f[packet.EtherLen:], d)
	b.N = max(b.N, i+1)
}

// parse parses packet i as the worker does.
func (g *rig) parse(i int) {
	g.t.Helper()
	if reason := packet.Parse(g.batch, i); reason != packet.DropNone {
		g.t.Fatalf("packet %d does not parse: %v", i, reason)
	}
}

// seal sends datagrams through associations, and returns the ESP datagrams; all must live.
func (g *rig) seal(ds [][]byte, sa []*sad.Outbound) [][]byte {
	g.t.Helper()
	live := make([]uint8, len(ds))
	for i, d := range ds {
		g.put(i, d)
		g.parse(i)
		live[i] = uint8(i)
	}
	if live = g.scratch.Encapsulate(g.batch, live, sa); len(live) != len(ds) {
		g.t.Fatalf("%d of %d packets live; first reason %v", len(live), len(ds), g.batch.P[0].Reason)
	}
	out := make([][]byte, len(ds))
	for i := range ds {
		out[i] = bytes.Clone(g.batch.IP(i))
	}
	return out
}

// seal1 is seal for one packet.
func (g *rig) seal1(d []byte, o *sad.Outbound) []byte {
	g.t.Helper()
	return g.seal([][]byte{d}, []*sad.Outbound{o})[0]
}

// open receives datagrams for associations and returns what happened to each; the
// inner datagrams stay in the batch.
func (g *rig) open(ds [][]byte, sa []*sad.Inbound) []packet.Drop {
	g.t.Helper()
	live := make([]uint8, len(ds))
	for i, d := range ds {
		g.put(i, d)
		g.parse(i)
		live[i] = uint8(i)
	}
	live = g.scratch.Decapsulate(g.batch, live, sa)
	reasons := make([]packet.Drop, len(ds))
	alive := make([]bool, len(ds))
	last := -1
	for _, i := range live {
		if int(i) <= last {
			g.t.Fatal("live packets are out of order")
		}
		last = int(i)
		alive[i] = true
	}
	for i := range ds {
		reasons[i] = g.batch.P[i].Reason
		if alive[i] != (reasons[i] == packet.DropNone) {
			g.t.Fatalf("packet %d: live = %v, reason %v", i, alive[i], reasons[i])
		}
	}
	return reasons
}

func (g *rig) open1(d []byte, in *sad.Inbound) packet.Drop {
	g.t.Helper()
	return g.open([][]byte{d}, []*sad.Inbound{in})[0]
}

// forge seals a plaintext, trailer included, that no correct peer sends. It returns the
// datagram with the outer header of a good packet.
func (g *rig) forge(tu tunnel, seq uint64, text []byte) []byte {
	g.t.Helper()
	o := tu.out
	info := o.Suite.Info()
	d := make([]byte, int(o.HeaderLen)+info.IVLen+len(text)+info.ICVLen)
	copy(d, o.Header[:o.HeaderLen])
	copy(d[int(o.HeaderLen)+info.IVLen:], text)
	binary.BigEndian.PutUint32(d[o.ESP+4:], uint32(seq))
	if o.Version == 4 {
		binary.BigEndian.PutUint16(d[2:], uint16(len(d)))
		sum4(d)
	} else {
		binary.BigEndian.PutUint16(d[4:], uint16(len(d)-40))
	}
	if o.UDP != 0 {
		binary.BigEndian.PutUint16(d[o.UDP+4:], uint16(len(d)-int(o.UDP)))
	}
	ops := []transform.Op{{Key: g.table.OutboundKey(o.Slot), Packet: d[o.ESP:], Counter: seq, SeqHi: uint32(seq >> 32), ESN: o.Flags&sad.FlagESN != 0}}
	new(transform.Batch).Seal(ops)
	if !ops[0].OK {
		g.t.Fatal("the forged packet cannot be sealed")
	}
	return d
}

// withTrailer returns an inner datagram with a correct trailer of the given next header.
func withTrailer(d []byte, align int, next byte) []byte {
	text := bytes.Clone(d)
	n := 0
	for ; (len(text)+2)%align != 0; n++ {
		text = append(text, byte(n+1))
	}
	return append(text, byte(n), next)
}
