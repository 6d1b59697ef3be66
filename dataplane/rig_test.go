package dataplane

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sallyport/dataplane/fib"
	"sallyport/dataplane/memio"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
	"sallyport/dataplane/worker"
)

// The rig is two gateways in memory, with the hosts' networks behind them:
//
//	198.51.100.0/25    [A] 192.0.2.1 ═══ 192.0.2.2 [B]    198.51.100.128/25
//	2001:db8:a::/48        2001:db8::1   2001:db8::2      2001:db8:b::/48
//
// Tests step the workers themselves, so every run is the same.

// Port numbers of a gateway.
const (
	inside  = 0
	outside = 1
)

type gateway struct {
	*Engine
	t       testing.TB
	workers []*worker.Worker
	now     int64
	// queues[port][q]
	queues [2][]*memio.Queue
	mail   mailbox // what came to the IKE side
}

// side describes one end of the rig.
type side struct {
	outer4, outer6  netip.Addr
	inner4, inner6  netip.Prefix
	insideAddresses [2]netip.Addr
}

var (
	sideA = side{
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"),
		netip.MustParsePrefix("198.51.100.0/25"), netip.MustParsePrefix("2001:db8:a::/48"),
		[2]netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:a::1")},
	}
	sideB = side{
		netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2"),
		netip.MustParsePrefix("198.51.100.128/25"), netip.MustParsePrefix("2001:db8:b::/48"),
		[2]netip.Addr{netip.MustParseAddr("198.51.100.129"), netip.MustParseAddr("2001:db8:b::1")},
	}
)

// options vary the rig.
type options struct {
	workers, queues int
	suite           transform.Suite
	outer6, encap   bool
	esn             bool
	window          uint32
	mtu             uint16
	ring            int
	frames          int          // 0: enough for every ring
	policies        []spd.Policy // before the tunnel's
	routes          []fib.Entry
	noBind          bool
	ah              bool
	bundle          transform.Suite // of AH around ESP, 0 for none
	cores           []int
	ike             bool
	service         bool // the tunnel is for UDP port 5000 behind B only
	params          func(*sad.Params)
	live            bool // the engine runs its workers itself, after Start
}

func (o options) withDefaults() options {
	if o.workers == 0 {
		o.workers = 1
	}
	if o.queues == 0 {
		o.queues = 1
	}
	if o.suite == 0 {
		o.suite = transform.AES128GCM16
	}
	if o.mtu == 0 {
		o.mtu = 1500
	}
	if o.ring == 0 {
		o.ring = 256
	}
	return o
}

func newGateway(t testing.TB, me, peer side, o options) *gateway {
	t.Helper()
	o = o.withDefaults()
	g := &gateway{t: t}
	hop := func(port uint16) fib.Hop {
		return fib.Hop{Kind: fib.Forward, Port: port, MTU: o.mtu, SrcMAC: [6]byte{2, 0, 0, 0, 0, byte(port)}, DstMAC: [6]byte{2, 0, 0, 0, 1, byte(port)}}
	}
	entries := []fib.Entry{
		{Prefix: me.inner4, Hop: hop(inside)}, {Prefix: me.inner6, Hop: hop(inside)},
		{Prefix: netip.PrefixFrom(peer.outer4, 32), Hop: hop(outside)}, {Prefix: netip.PrefixFrom(peer.outer6, 128), Hop: hop(outside)},
		{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Hop: hop(outside)},
	}
	cfg := Config{
		Workers: o.workers, RingSize: o.ring, Frames: o.frames, Cores: o.cores, Associations: 1024, ClampMSS: true,
		FIB:   fib.Build(1, append(entries, o.routes...)),
		IKE:   o.ike,
		Ports: []PortConfig{{Name: "in", Role: worker.Protected}, {Name: "out", Role: worker.Outside}},
	}
	// Queues need the UMEM, which the engine makes; so they are filled in behind New.
	for i := range cfg.Ports {
		cfg.Ports[i].Queues = make([]worker.Queue, o.queues)
	}
	e, err := New(cfg, nil, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	g.Engine = e
	for i := range cfg.Ports {
		for q := range o.queues {
			queue, err := memio.NewQueue(e.umem.Mem(), o.ring)
			if err != nil {
				t.Fatal(err)
			}
			g.queues[i] = append(g.queues[i], queue)
			e.ports[i].config.Queues[q] = queue
		}
	}
	if o.ike {
		e.IKE().Handle(g.mail.handle)
	}
	e.SetOwn([]netip.Addr{me.insideAddresses[0], me.insideAddresses[1], me.outer4, me.outer6})
	e.tables.Ports[inside].Source4, e.tables.Ports[inside].Source6 = me.insideAddresses[0], me.insideAddresses[1]
	e.tables.Ports[outside].Source4, e.tables.Ports[outside].Source6 = me.outer4, me.outer6
	if !o.live {
		if g.workers, err = e.Manual(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		e.Stop()
		e.closePorts()
		e.Close()
	})
	return g
}

// selector is what one gateway protects towards the other.
func selector(me, peer side) spd.Selector {
	return spd.Selector{
		Local:      []spd.Range{spd.RangeOf(me.inner4), spd.RangeOf(me.inner6)},
		Remote:     []spd.Range{spd.RangeOf(peer.inner4), spd.RangeOf(peer.inner6)},
		LocalPorts: spd.PortRange{Last: 65535}, RemotePorts: spd.PortRange{Last: 65535},
	}
}

func (o options) selector(me, peer side) spd.Selector {
	s := selector(me, peer)
	if o.service {
		s.Proto = 17
		if ports := (spd.PortRange{First: 5000, Last: 5000}); me == sideB {
			s.LocalPorts = ports
		} else {
			s.RemotePorts = ports
		}
	}
	return s
}

func keymat(s transform.Suite, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	k := make([]byte, s.Info().KeyLen)
	for i := range k {
		k[i] = byte(r.Uint32())
	}
	return k
}

// tunnel installs both directions of one tunnel in g. out and in are the SPIs.
func (g *gateway) tunnel(me, peer side, o options, out, in uint32) {
	g.t.Helper()
	o = o.withDefaults()
	base := sad.Params{
		Name: "rig", Suite: o.suite, Local: me.outer4, Remote: peer.outer4, Encap: o.encap, AH: o.ah, ESN: o.esn, Window: o.window,
		Selectors: []spd.Selector{o.selector(me, peer)}, Outer: sad.Outer{CopyDSCP: true, CopyDF: true, ECN: true},
	}
	if o.outer6 {
		base.Local, base.Remote = me.outer6, peer.outer6
	}
	if o.params != nil {
		o.params(&base)
	}
	inbound, outbound := base, base
	inbound.Inbound, inbound.SPI, inbound.Keymat = true, in, keymat(o.suite, uint64(in))
	outbound.SPI, outbound.Keymat = out, keymat(o.suite, uint64(out))
	o.around(&inbound)
	o.around(&outbound)
	if _, err := g.Install(inbound); err != nil {
		g.t.Fatal(err)
	}
	h, err := g.Install(outbound)
	if err != nil {
		g.t.Fatal(err)
	}
	if !o.noBind {
		if err := g.Bind(0, h); err != nil {
			g.t.Fatal(err)
		}
	}
	policies := append([]spd.Policy{}, o.policies...)
	policies = append(policies, spd.Policy{Name: "rig", Action: spd.Protect, Selectors: base.Selectors})
	if err := g.Apply(Policies{SPD: policies, Endpoints: []netip.Addr{me.outer4, me.outer6}}); err != nil {
		g.t.Fatal(err)
	}
}

// around puts AH around what p describes, with an SPI that is bundledSPI more, if that is asked for.
func (o options) around(p *sad.Params) {
	if o.bundle != 0 {
		p.Bundle = &sad.Bundle{SPI: p.SPI + bundledSPI, Suite: o.bundle, Keymat: keymat(o.bundle, uint64(p.SPI+bundledSPI)), ESN: !p.ESN, Window: p.Window}
	}
}

const bundledSPI = 0x10000

// newRig returns both gateways with one tunnel between them.
func newRig(t testing.TB, o options) (a, b *gateway) {
	a, b = newGateway(t, sideA, sideB, o), newGateway(t, sideB, sideA, o)
	a.tunnel(sideA, sideB, o, 0x1001, 0x2001)
	b.tunnel(sideB, sideA, o, 0x2001, 0x1001)
	return a, b
}

// info is what is told of the gateway's only outbound association.
func (g *gateway) info() (info sad.Info) {
	g.Associations(func(i *sad.Info) bool {
		if !i.Params.Inbound {
			info = *i
		}
		return true
	})
	return info
}

// run steps the workers until none has anything left to do.
func (g *gateway) run() {
	for idle := 0; idle < 3; idle++ {
		for _, w := range g.workers {
			g.now += int64(time.Microsecond)
			if w.Step(g.now) > 0 {
				idle = 0
			}
		}
	}
}

// inject lets frames arrive at a port and runs the gateway.
func (g *gateway) inject(port int, frames ...[]byte) {
	g.t.Helper()
	for i, f := range frames {
		g.run()
		if !g.queues[port][i%len(g.queues[port])].Inject(f) {
			g.t.Fatal("the queue took no frame")
		}
	}
	g.run()
}

// drain returns what left through a port.
func (g *gateway) drain(port int) (frames [][]byte) {
	for _, q := range g.queues[port] {
		q.Drain(func(f []byte) { frames = append(frames, append([]byte{}, f...)) })
	}
	g.run()
	return frames
}

// dropped returns the drop counters that are not zero.
func (g *gateway) dropped() map[string]uint64 {
	out := map[string]uint64{}
	for r, n := range g.Stats().Drops {
		if n > 0 {
			out[packet.Drop(r).String()] = n
		}
	}
	return out
}

// settled ends the test's traffic: every packet that came is accounted for, and every frame
// comes home.
func (g *gateway) settled() {
	g.t.Helper()
	s := g.Stats().Total
	if in, out := s.Received+s.Originated, s.Sent+s.Punted+s.Delivered+s.Merged+s.Dropped; in != out {
		g.t.Errorf("%d packets received and %d made, but %d sent, %d punted, %d dropped: %v",
			s.Received, s.Originated, s.Sent, s.Punted, s.Dropped, g.dropped())
	}
	if s.HandedOut != s.HandedIn {
		g.t.Errorf("%d packets handed out, %d taken in", s.HandedOut, s.HandedIn)
	}
	g.frames()
}

// frames closes the gateway's ports and checks that every frame came home, once.
func (g *gateway) frames() {
	g.t.Helper()
	g.group.Drain()
	g.closePorts()
	if idle, all := g.Frames(); idle != all {
		g.t.Errorf("%d frames idle after the end, of %d", idle, all)
	}
}

// udp4 returns an Ethernet frame with a UDP packet of size bytes (IP header included).
func udp4(src, dst string, size int, ttl byte) []byte {
	f := make([]byte, 14+size)
	copy(f, []byte{2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 8, 0})
	h := f[14:]
	h[0], h[8], h[9] = 0x45, ttl, 17
	binary.BigEndian.PutUint16(h[2:], uint16(size))
	h[6] = 0x40
	s, d := netip.MustParseAddr(src).As4(), netip.MustParseAddr(dst).As4()
	copy(h[12:], s[:])
	copy(h[16:], d[:])
	binary.BigEndian.PutUint16(h[10:], packet.Checksum(h[:20], 0))
	udp := h[20:]
	binary.BigEndian.PutUint16(udp, 4000)
	binary.BigEndian.PutUint16(udp[2:], 5000)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	for i := 8; i < len(udp); i++ {
		udp[i] = byte(i * 7)
	}
	return f
}

func udp6(src, dst string, size int, hops byte) []byte {
	f := make([]byte, 14+size)
	copy(f, []byte{2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0x86, 0xdd})
	h := f[14:]
	h[0], h[6], h[7] = 0x60, 17, hops
	binary.BigEndian.PutUint16(h[4:], uint16(size-40))
	s, d := netip.MustParseAddr(src).As16(), netip.MustParseAddr(dst).As16()
	copy(h[8:], s[:])
	copy(h[24:], d[:])
	udp := h[40:]
	binary.BigEndian.PutUint16(udp, 4000)
	binary.BigEndian.PutUint16(udp[2:], 5000)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	for i := 8; i < len(udp); i++ {
		udp[i] = byte(i * 5)
	}
	return f
}
