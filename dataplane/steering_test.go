package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"sallyport/bpf"
	"sallyport/dataplane/fib"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
)

// brokenMaps are maps that refuse what a test says.
type brokenMaps struct {
	refused            map[string]error // by what is changed, or "room"
	endpoints, own     []netip.Addr
	into, past, remote []netip.Prefix
	calls              int
}

func (m *brokenMaps) set(method string, f func()) error {
	m.calls++
	if err := m.refused[method]; err != nil {
		return err
	}
	f()
	return nil
}

func (m *brokenMaps) SetEndpoints(a []netip.Addr) error {
	return m.set("endpoints", func() { m.endpoints = slices.Clone(a) })
}

func (m *brokenMaps) SetOwn(a []netip.Addr) error {
	return m.set("own", func() { m.own = slices.Clone(a) })
}

func (m *brokenMaps) SetRouted(into, past []netip.Prefix) error {
	return m.set("routed", func() { m.into, m.past = into, past })
}

func (m *brokenMaps) SetPrefixes(local, remote, peers []netip.Prefix) error {
	return m.set("prefixes", func() { m.remote = remote })
}

func (m *brokenMaps) CheckEndpoints([]netip.Addr) error          { return m.refused["room"] }
func (m *brokenMaps) CheckPrefixes(_, _, _ []netip.Prefix) error { return m.refused["room"] }

// TestSteeringThatFailsIsTriedAgain has each of the program's maps refuse a change in turn: the others are changed all the same, the failure is
// counted and shown, and once the map takes it again nothing is missing.
func TestSteeringThatFailsIsTriedAgain(t *testing.T) {
	policy := func(remote string) []spd.Policy {
		return []spd.Policy{{Name: "p", Action: spd.Protect, Tunnel: 7, Selectors: []spd.Selector{{
			Local: []spd.Range{spd.RangeOf(netip.MustParsePrefix("198.51.100.0/25"))}, Remote: []spd.Range{spd.RangeOf(netip.MustParsePrefix(remote))},
			LocalPorts: spd.PortRange{Last: 65535}, RemotePorts: spd.PortRange{Last: 65535},
		}}}}
	}
	for at, method := range []string{"own", "endpoints", "prefixes", "routed"} {
		m := &brokenMaps{refused: map[string]error{}}
		a := newGateway(t, sideA, sideB, options{})
		e := a.Engine
		e.steered.load(m)
		e.running = true
		defer func() { e.running = false }()
		check := func(when string, want []string, failed uint64, pending bool) {
			t.Helper()
			got := []string{fmt.Sprint(m.own), fmt.Sprint(m.endpoints), fmt.Sprint(m.remote), fmt.Sprint(m.into)}
			if !slices.Equal(got, want) {
				t.Errorf("%s, %s: the program knows %v, want %v", method, when, got, want)
			}
			if s := e.Stats().Steering; s.Failed != failed || (s.Pending != "") != pending {
				t.Errorf("%s, %s: %+v", method, when, s)
			}
		}
		change := func(i int) {
			t.Helper()
			table := *e.tables.FIB
			table.Tunnels = []fib.Routed{{Prefix: netip.MustParsePrefix(fmt.Sprintf("198.18.%d.0/24", i)), Tunnel: true}}
			if err := e.Apply(Policies{SPD: policy(fmt.Sprintf("203.0.113.%d/32", i)), Endpoints: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i))}}); err != nil {
				t.Fatal(err)
			}
			e.kernelChanged(fib.Update{Table: &table, OwnChanged: true, Own: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("198.51.100.%d", i))}})
		}
		one := []string{"[198.51.100.1]", "[192.0.2.1]", "[203.0.113.1/32]", "[198.18.1.0/24]"}
		two := []string{"[198.51.100.2]", "[192.0.2.2]", "[203.0.113.2/32]", "[198.18.2.0/24]"}
		change(1)
		check("at first", one, 0, false)
		m.refused[method] = errors.New("by this test")
		change(2)
		failed := e.Stats().Steering.Failed
		if failed == 0 {
			t.Fatalf("%s: no failure is counted", method)
		}
		mixed := slices.Clone(two)
		mixed[at] = one[at]
		check("refused", mixed, failed, true)
		e.steerAgain()
		check("refused again", mixed, failed+1, true)
		delete(m.refused, method)
		e.steerAgain()
		check("taken", two, failed+1, false)
		calls := m.calls
		e.steerAgain()
		e.kernelChanged(fib.Update{Table: e.tables.FIB})
		if m.calls != calls {
			t.Errorf("%s: %d calls for nothing", method, m.calls-calls)
		}
		m = &brokenMaps{}
		e.steered.load(m) // another start
		e.steer()
		check("other maps", two, failed+1, false)
	}
}

// TestWhatTheSteeringProgramHasNoRoomForIsRefused: policies, and the address of an association, which leave nothing behind.
func TestWhatTheSteeringProgramHasNoRoomForIsRefused(t *testing.T) {
	full := fmt.Errorf("by this test: %w", bpf.ErrNoRoom)
	a := newGateway(t, sideA, sideB, options{})
	e := a.Engine
	m := &brokenMaps{refused: map[string]error{}}
	e.steered.load(m)
	p := Policies{Endpoints: []netip.Addr{sideA.outer4}}
	if err := e.Apply(p); err != nil {
		t.Fatal(err)
	}
	before := e.policies
	m.refused["room"] = full
	p.Endpoints = append(p.Endpoints, sideA.outer6)
	if err := e.Apply(p); !errors.Is(err, bpf.ErrNoRoom) || !reflect.DeepEqual(e.policies, before) || len(m.endpoints) != 1 {
		t.Errorf("%v; policies %v, endpoints %v", err, e.policies, m.endpoints)
	}
	delete(m.refused, "room")
	m.refused["endpoints"] = full
	in := sad.Params{
		SPI: 0x1234, Inbound: true, Suite: transform.AES128GCM16, Keymat: make([]byte, transform.AES128GCM16.Info().KeyLen),
		Local: netip.MustParseAddr("192.0.2.77"), Remote: sideB.outer4, Window: 64, Selectors: anything(),
	}
	for range 2 { // the second is no more taken than the first
		if _, err := e.Install(in); !errors.Is(err, bpf.ErrNoRoom) || e.sad.LookupInbound(in.SPI) != nil || e.endpoints.Load().has(in.Local) {
			t.Errorf("%v; endpoints %v", err, e.endpoints.Load().list)
		}
	}
	delete(m.refused, "endpoints")
	if _, err := e.Install(in); err != nil || !slices.Contains(m.endpoints, in.Local) {
		t.Errorf("%v; endpoints %v", err, m.endpoints)
	}
}
