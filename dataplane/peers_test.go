package dataplane

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"

	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
	"sallyport/dataplane/worker"
	"sallyport/tools/craft"
)

// manyPeers are two gateways, one of which takes no short way, with the associations of some peers.
type manyPeers struct {
	*rand.Rand
	t     *testing.T
	both  [2]*gateway
	peers [6]struct {
		remote, next netip.Addr // where its packets come from, and where from they do when the gateway has been told
		handles      [2]sad.Handle
		codecs       [2]*craft.ESP
		seq          uint64
	}
	installed int
}

// install gives peer k another association on both, under the SPIs that they choose.
func (m *manyPeers) install(k int) {
	p := &m.peers[k]
	m.installed++
	params := sad.Params{
		Name: fmt.Sprint(m.installed), Inbound: true, Suite: transform.AES128GCM16, Local: sideB.outer4, Remote: p.remote, ESN: m.IntN(2) == 0,
		Window: []uint32{32, 64, 4096}[m.IntN(3)], Selectors: []spd.Selector{selector(sideB, sideA)},
	}
	switch m.IntN(6) {
	case 0:
		params.Lifetime.HardPackets = 1 + m.Uint64N(300)
	case 1:
		params.Lifetime.SoftPackets = 1 + m.Uint64N(300)
	case 2:
		params.Lifetime.HardBytes = 1 + m.Uint64N(20_000)
	case 3: // fewer hosts, or none of IPv4
		params.Selectors[0].Remote = params.Selectors[0].Remote[m.IntN(2):]
	case 4: // what there is no short form for
		params.Selectors[0].LocalPorts = spd.PortRange{First: 5000, Last: 5000}
	}
	p.seq = 0
	for i, g := range m.both {
		if p.handles[i] != 0 {
			check(m.t, g.Remove(p.handles[i]))
		}
		spi, err := g.NewSPI()
		check(m.t, err)
		q := params
		q.SPI, q.Keymat = spi, keymat(q.Suite, uint64(m.installed))
		p.handles[i], err = g.Install(q)
		check(m.t, err)
		p.codecs[i], err = craft.NewESP(spi, keymat(q.Suite, uint64(m.installed)), q.ESN)
		check(m.t, err)
	}
}

// arrive lets a packet for peer k arrive at both.
func (m *manyPeers) arrive(k int, inner []byte) {
	p := &m.peers[k]
	p.seq++
	seq := p.seq
	switch m.IntN(12) {
	case 0: // some were lost
		p.seq += m.Uint64N(70)
		seq = p.seq
	case 1: // late, or a replay
		seq -= m.Uint64N(min(seq, 80))
	case 2:
		if m.IntN(8) == 0 {
			p.seq += 5000
		}
	}
	remote, odd, at := p.remote, m.IntN(60), m.Int()
	if odd == 0 {
		remote = m.peers[m.IntN(len(m.peers))].remote
	}
	for i, g := range m.both {
		sealed := p.codecs[i].Carry(seq, inner[14:])
		switch odd {
		case 1, 2:
			sealed[8+at%(len(sealed)-8)]++
		case 3:
			sealed[4+at%4]++
		case 4:
			copy(sealed[:4], []byte{0, 0, byte(at) & 1, byte(at) & 1}) // no SPI, or nobody's
		case 5:
			sealed = sealed[:at%len(sealed)]
		}
		ip := craft.IP(remote, sideB.outer4, craft.ESPv, sealed)
		switch odd {
		case 6:
			ip[1] = byte(at) & 3 // ECN
			craft.FixIPv4(ip)
		case 7:
			ip = craft.IPv4(remote, sideB.outer4, craft.ESPv, sealed, []byte{1, 1, 1, 0})
		case 8:
			ip[10]++
		}
		g.queues[outside][0].Inject(craft.Ethernet([6]byte{2}, [6]byte{2, 0, 0, 0, 1}, ip))
	}
}

// TestManyPeersComeToTheSame gives packets of several peers in turn to two gateways, one of which takes no short way because it is watched: forged, replayed, late and lost
// ones among them. In between associations are replaced, move to other endpoints and end. Packets that leave, drops and what every association has counted must be the same.
func TestManyPeersComeToTheSame(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	m := &manyPeers{Rand: rand.New(rand.NewPCG(seed, 1)), t: t}
	o := options{esn: true}
	for i := range m.both {
		m.both[i] = newGateway(t, sideB, sideA, o)
		m.both[i].tunnel(sideB, sideA, o, 0x2001, 0x1001)
	}
	m.both[1].workers[0].Trace(worker.NewTracer(&worker.Filter{}, new(atomic.Int64)))
	for k := range m.peers {
		m.peers[k].remote = netip.AddrFrom4([4]byte{192, 0, 2, byte(50 + k)})
		m.install(k)
	}
	odd := &shortcuts{Rand: m.Rand, o: o}
	var opened uint64
	for round := range 500 {
		for k := range m.peers {
			switch m.IntN(30) {
			case 0:
				m.install(k)
			case 1:
				p := &m.peers[k]
				p.remote = netip.AddrFrom4([4]byte{192, 0, 2, byte(50 + k + 10*m.IntN(3))})
				for i, g := range m.both {
					check(t, g.UpdateEndpoints(p.handles[i], netip.AddrPortFrom(sideB.outer4, 4500), netip.AddrPortFrom(p.remote, 4500), false))
				}
			}
		}
		k, often := 0, 1+m.IntN(5) // packets of one peer in a row
		for range 1 + m.IntN(90) {
			if m.IntN(often) == 0 {
				k = m.IntN(len(m.peers))
			}
			inner := udp4("198.51.100.5", "198.51.100.200", 60+m.IntN(100), 9)
			switch m.IntN(12) {
			case 0:
				inner = udp6("2001:db8:a::5", "2001:db8:b::5", 100, 64)
			case 1:
				if inner = odd.inner("198.51.100.5", "198.51.100.200", 1); len(inner) < 34 || inner[12] == 0x81 {
					continue
				}
			}
			m.arrive(k, inner)
		}
		for _, g := range m.both {
			g.now = int64(1e9) + int64(round)*2_000_000
			g.run()
		}
		for port := range 2 {
			if short, long := leaving(m.both[0], port), leaving(m.both[1], port); !slices.EqualFunc(short, long, bytes.Equal) {
				t.Fatalf("seed %d, round %d, port %d: %d packets by the short way, %d by the long one", seed, round, port, len(short), len(long))
			}
		}
		if short, long := refused(m.both[0]), refused(m.both[1]); !maps.Equal(short, long) {
			t.Fatalf("seed %d, round %d: drops %v by the short way, %v by the long one", seed, round, short, long)
		}
		var infos [2]map[string]sad.Info
		for i, g := range m.both {
			infos[i] = map[string]sad.Info{}
			g.Associations(func(a *sad.Info) bool {
				name := a.Params.Name
				if a.Params.Inbound {
					name += " in"
				}
				infos[i][name] = *a
				return true
			})
		}
		for name, a := range infos[0] {
			b, ok := infos[1][name]
			if !ok || a.Packets != b.Packets || a.Bytes != b.Bytes || a.Sequence != b.Sequence || a.Replayed+a.TooOld+a.BadICV != b.Replayed+b.TooOld+b.BadICV || a.OtherDrops != b.OtherDrops || a.Ended != b.Ended {
				t.Fatalf("seed %d, round %d: association %s\n%+v by the short way\n%+v by the long one", seed, round, name, a, b)
			}
		}
	}
	for _, g := range m.both {
		opened = g.Stats().Total.Opened
		g.settled()
	}
	if opened < 8000 {
		t.Errorf("seed %d: %d packets opened: too few", seed, opened)
	}
}
