package dataplane

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
)

// Many tunnels between the two gateways, for tests of owners and of change under traffic: tunnel i
// carries 2001:db8:a:i::/64 to 2001:db8:b:i::/64. Each carries serial numbers, so that a
// packet which arrives twice, or never, is known.

// many is one direction of n tunnels, from A to B.
type many struct {
	a, b *gateway
	o    options
	out  []sad.Handle // at A, by tunnel
	in   []sad.Handle // at B
	next uint32       // SPI of the next association
}

// newMany installs n tunnels from a to b.
func newMany(a, b *gateway, o options, n int) *many {
	m := &many{a: a, b: b, o: o.withDefaults(), next: 0x10000, out: make([]sad.Handle, n), in: make([]sad.Handle, n)}
	var at, bt []spd.Policy
	for i := range n {
		la, lb := m.nets(i)
		any := spd.PortRange{Last: 65535}
		at = append(at, spd.Policy{Name: fmt.Sprint("t", i), Action: spd.Protect, Tunnel: uint32(i), Selectors: []spd.Selector{
			{Local: []spd.Range{spd.RangeOf(la)}, Remote: []spd.Range{spd.RangeOf(lb)}, LocalPorts: any, RemotePorts: any}}})
		bt = append(bt, spd.Policy{Name: fmt.Sprint("t", i), Action: spd.Protect, Tunnel: uint32(i), Selectors: []spd.Selector{
			{Local: []spd.Range{spd.RangeOf(lb)}, Remote: []spd.Range{spd.RangeOf(la)}, LocalPorts: any, RemotePorts: any}}})
		m.out[i], m.in[i] = m.install(i)
		a.Bind(uint32(i), m.out[i])
	}
	for _, x := range []struct {
		g    *gateway
		me   side
		list []spd.Policy
	}{{a, sideA, at}, {b, sideB, bt}} {
		if err := x.g.Apply(Policies{SPD: x.list, Endpoints: []netip.Addr{x.me.outer4, x.me.outer6}}); err != nil {
			a.t.Fatal(err)
		}
	}
	return m
}

func (m *many) nets(i int) (a, b netip.Prefix) {
	return netip.MustParsePrefix(fmt.Sprintf("2001:db8:a:%x::/64", i)), netip.MustParsePrefix(fmt.Sprintf("2001:db8:b:%x::/64", i))
}

// install makes a fresh association for tunnel i, the inbound end first.
func (m *many) install(i int) (out, in sad.Handle) {
	m.next++
	la, lb := m.nets(i)
	any := spd.PortRange{Last: 65535}
	p := sad.Params{
		Name: fmt.Sprint("t", i), Suite: m.o.suite, ESN: true, SPI: m.next, Keymat: keymat(m.o.suite, uint64(m.next)),
		Outer: sad.Outer{CopyDSCP: true, CopyDF: true, ECN: true},
	}
	if i%2 == 0 { // B's table says which, so that its slot follows from it
		var err error
		if p.SPI, err = m.b.NewSPI(); err != nil {
			m.b.t.Error(err)
		}
	}
	inbound := p
	inbound.Inbound, inbound.Local, inbound.Remote = true, sideB.outer4, sideA.outer4
	inbound.Keymat = keymat(m.o.suite, uint64(m.next))
	inbound.Selectors = []spd.Selector{{Local: []spd.Range{spd.RangeOf(lb)}, Remote: []spd.Range{spd.RangeOf(la)}, LocalPorts: any, RemotePorts: any}}
	p.Local, p.Remote = sideA.outer4, sideB.outer4
	in, err := m.b.Install(inbound)
	if err == nil {
		out, err = m.a.Install(p)
	}
	if err != nil {
		m.a.t.Error(err)
	}
	return out, in
}

// frame returns a packet of tunnel i that carries serial.
func (m *many) frame(i int, serial uint64) []byte {
	f := udp6(fmt.Sprintf("2001:db8:a:%x::5", i), fmt.Sprintf("2001:db8:b:%x::5", i), 120, 64)
	binary.BigEndian.PutUint64(f[14+48:], serial)
	return f
}

// carry is the wire: it takes what A sends outside and lets it arrive at B, until stop is closed
// and nothing is left, and returns how many it brought. Packets that B has no room for are counted by B's queues.
func (m *many) carry(stop chan struct{}) (arrived uint64) {
	for {
		moved := 0
		for _, q := range m.a.queues[outside] {
			moved += q.Drain(func(f []byte) {
				spi := binary.BigEndian.Uint32(f[34:])
				if m.b.queues[outside][int(spi)%len(m.b.queues[outside])].Inject(f) {
					arrived++
				}
			})
		}
		if moved > 0 {
			continue
		}
		select {
		case <-stop:
			return arrived
		default:
			time.Sleep(50 * time.Microsecond)
		}
	}
}

// sink takes what arrives behind B, until stop is closed and nothing is left. arrived has a place for
// every serial number.
func (m *many) sink(t *testing.T, stop chan struct{}, arrived []uint32) {
	for {
		moved := 0
		for _, q := range m.b.queues[inside] {
			moved += q.Drain(func(f []byte) {
				serial := binary.BigEndian.Uint64(f[14+48:])
				if serial >= uint64(len(arrived)) {
					t.Errorf("serial number %#x arrived", serial)
					return
				}
				if arrived[serial]++; arrived[serial] > 1 {
					t.Errorf("packet %d arrived %d times", serial, arrived[serial])
				}
			})
		}
		if moved > 0 {
			continue
		}
		select {
		case <-stop:
			return
		default:
			time.Sleep(50 * time.Microsecond)
		}
	}
}

// quiet waits until a gateway has received all that arrived and has nothing in hand.
func (g *gateway) quiet(t *testing.T, arrived uint64) {
	t.Helper()
	for range 4000 {
		s := g.Stats().Total
		if s.Received+s.Originated == s.Sent+s.Punted+s.Dropped && s.HandedIn == s.HandedOut && s.Received == arrived {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	s := g.Stats().Total
	t.Fatalf("the gateway does not come to rest: %d arrived, received %d, made %d, sent %d, punted %d, dropped %d, handed %d/%d",
		arrived, s.Received, s.Originated, s.Sent, s.Punted, s.Dropped, s.HandedOut, s.HandedIn)
}

// refused is what the gateway's queues had no room for.
func (g *gateway) refused(port int) (n uint64) {
	for _, q := range g.queues[port] {
		s, _ := q.Stats()
		n += s.RxRingFull + s.FillEmpty + s.RxDropped
	}
	return n
}

func sum(m map[string]uint64) (n uint64) {
	for _, v := range m {
		n += v
	}
	return n
}
