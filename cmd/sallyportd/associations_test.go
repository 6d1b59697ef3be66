package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/cmd/internal/config"
	"sallyport/dataplane"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
	"sallyport/ike/ikesa"
	"sallyport/ike/message"
	"sallyport/ike/suite"
)

// table is a data plane that writes down what it is told.
type table struct {
	calls []string
	next  uint32
	bound map[uint32]sad.Handle
	fail  string
	panic bool // where fail says
}

func (t *table) note(format string, args ...any) error {
	s := fmt.Sprintf(format, args...)
	t.calls = append(t.calls, s)
	if t.fail != "" && strings.HasPrefix(s, t.fail) {
		if t.panic {
			panic("the test's")
		}
		return errors.New("refused by the test")
	}
	return nil
}

func (t *table) NewSPI() (uint32, error) { t.next++; return 0x1000 + t.next, nil }
func (t *table) ReleaseSPI(spi uint32)   { t.note("release %x", spi) }
func (t *table) Install(p sad.Params) (sad.Handle, error) {
	if p.Inbound {
		return sad.InboundHandle(p.SPI), t.note("in %x %s roaming=%v", p.SPI, p.Name, p.Roaming)
	}
	t.next++
	return sad.Handle(t.next), t.note("out %x %s", p.SPI, p.Name)
}
func (t *table) Retire(h sad.Handle, grace time.Duration) error {
	return t.note("retire inbound=%v %v", h.Inbound(), grace)
}
func (t *table) Bind(tunnel uint32, h sad.Handle) error { t.bound[tunnel] = h; return nil }
func (t *table) UpdateEndpoints(h sad.Handle, local, remote netip.AddrPort, encap bool) error {
	return t.note("move inbound=%v %v %v", h.Inbound(), remote, encap)
}
func (t *table) Usage(h sad.Handle) (dataplane.Usage, bool) {
	return dataplane.Usage{Packets: 7, Bytes: uint64(h.Value())}, true
}
func (t *table) AddPolicy(i dataplane.Instance) (uint32, error) {
	t.next++
	return dataplane.InstanceTunnelMin + t.next, t.note("policy %s of %q priority %d", i.Name, i.Of, i.Priority)
}
func (t *table) RemovePolicy(tunnel uint32) { t.note("no policy") }
func (t *table) SetPathMTU(h sad.Handle, mtu int, until time.Time) error {
	return t.note("path inbound=%v %d", h.Inbound(), mtu)
}
func (t *table) LinkMTU(netip.Addr) int { return 1500 }
func (t *table) RouteSource(netip.Addr) (netip.Addr, error) {
	return netip.MustParseAddr("192.0.2.1"), nil
}

const twoWays = `interfaces: {eth1: {role: protected}, eth2: {role: outside}}
connections:
  main:
    local_addrs: 192.0.2.1
    remote_addrs: 192.0.2.2
    children: {net: {local_ts: 198.51.100.0/25, remote_ts: 198.51.100.128/25}}
  backup:
    local_addrs: 192.0.2.1
    remote_addrs: 192.0.2.3
    priority: 1
    children: {net: {local_ts: 198.51.100.0/25, remote_ts: 198.51.100.128/25}}
secrets: {ike: {secret: "kI3vZ7b0m8dY5q2xT1nW9rLhCwGfQ4sE6uJpAoVzXyM="}}
`

// kernelOf returns the adapter with the two connections of twoWays, whose policy is tunnel 1.
func kernelOf(t *testing.T) (*associations, *table, *config.Config) {
	t.Helper()
	c := loaded(t, twoWays)
	p := &table{bound: map[uint32]sad.Handle{}}
	a := newAssociations(p)
	a.configure(c, map[string]uint32{"main/net": 1})
	return a, p, c
}

// up installs a child of a connection, with selectors narrowed to remote if that is not empty.
func up(t *testing.T, a *associations, c *ikesa.Connection, remote string) (spiIn uint32, out sad.Handle) {
	t.Helper()
	return upBy(t, a, c, remote, true)
}

// upBy is up of a child that we or the peer began.
func upBy(t *testing.T, a *associations, c *ikesa.Connection, remote string, initiator bool) (spiIn uint32, out sad.Handle) {
	t.Helper()
	spi, err := a.NewChildSPI()
	if err != nil {
		t.Fatal(err)
	}
	child := &ikesa.ChildSA{
		Initiator: initiator, Connection: c, Child: c.Children[0], SPIIn: spi, SPIOut: spi + 0x10000,
		Choice: suite.Choice{Encr: message.EncrAESGCM16, KeyLen: 256, ESN: true}, KeyIn: make([]byte, 36), KeyOut: make([]byte, 36),
		Local: netip.MustParseAddrPort("192.0.2.1:4500"), Remote: netip.MustParseAddrPort("192.0.2.2:4500"),
		LocalTS: []message.TrafficSelector{c.Children[0].LocalTS[0].TS}, RemoteTS: []message.TrafficSelector{c.Children[0].RemoteTS[0].TS},
	}
	if remote != "" {
		child.RemoteTS = []message.TrafficSelector{message.SelectorOf(netip.MustParsePrefix(remote))}
	}
	if err := errors.Join(a.InstallInbound(child), a.InstallOutbound(child)); err != nil {
		t.Fatal(err)
	}
	return spi, a.children[spi].out
}

// What IKE can agree on for ESP is exactly what the data plane has, under the same name and with the same keys.
func TestNegotiatedSuitesAreThoseOfTheDataPlane(t *testing.T) {
	a, _, c := kernelOf(t)
	keys, err := suite.DeriveIKE(suite.Choice{Encr: message.EncrAESGCM16, KeyLen: 256, PRF: message.PRFHMACSHA2384, KE: message.KECurve25519},
		make([]byte, 32), make([]byte, 32), make([]byte, 32), 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	agreed := map[transform.Suite]bool{}
	for _, s := range transform.List() {
		p, err := suite.ParseESP(s.String())
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		own := []suite.Proposal{p}
		choice, answer, err := suite.Select(suite.Offer(own, []byte{1, 2, 3, 4}), own, suite.Options{})
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		if accepted, err := suite.Accept(answer, own); err != nil || accepted != choice {
			t.Errorf("%s: the initiator takes %v, %v", s, accepted, err)
		}
		in, out, err := keys.ChildKeymat(choice, nil, make([]byte, 32), make([]byte, 32), true)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		spi, _ := a.NewChildSPI()
		conn := c.Connections[0]
		child := &ikesa.ChildSA{
			Connection: conn, Child: conn.Children[0], SPIIn: spi, SPIOut: spi, Choice: choice, KeyIn: in, KeyOut: out,
			Local: netip.MustParseAddrPort("192.0.2.1:4500"), Remote: netip.MustParseAddrPort("192.0.2.2:4500"),
			LocalTS: []message.TrafficSelector{conn.Children[0].LocalTS[0].TS}, RemoteTS: []message.TrafficSelector{conn.Children[0].RemoteTS[0].TS},
		}
		for _, inbound := range []bool{false, true} {
			params, _, err := params(child, inbound)
			if err != nil || params.Suite != s || len(params.Keymat) != s.Info().KeyLen {
				t.Errorf("%s, inbound %v: %s with %d bytes of keying material, %v", s, inbound, params.Suite, len(params.Keymat), err)
			}
		}
		agreed[s] = true
	}
	// And what is offered without being asked.
	for _, p := range suite.DefaultESP() {
		for _, name := range p.Ciphers() {
			if s, err := transform.Parse(name); err != nil || !agreed[s] || !s.Info().Encrypts() || s.Info().ICVLen < 16 {
				t.Errorf("%s is offered by default: %v", name, err)
			}
		}
	}
}

func TestTheNewestOfAChildSendsAndItsPredecessorIfItGoes(t *testing.T) {
	a, p, c := kernelOf(t)
	first, firstOut := up(t, a, c.Connections[0], "")
	second, secondOut := up(t, a, c.Connections[0], "")
	if p.bound[1] != secondOut {
		t.Errorf("%v sends, not the successor %v", p.bound[1], secondOut)
	}
	a.RemoveChild(second, 0, "redundant")
	if p.bound[1] != firstOut {
		t.Errorf("%v sends after the successor went, not %v", p.bound[1], firstOut)
	}
	a.RemoveChild(first, 0, "deleted")
	if p.bound[1] != 0 {
		t.Errorf("%v sends, but nothing is left", p.bound[1])
	}
	if len(a.children)+len(a.outbound)+len(a.paths) != 0 {
		t.Errorf("left behind: %v %v %v", a.children, a.outbound, a.paths)
	}
	if n := len(slices.DeleteFunc(slices.Clone(p.calls), func(s string) bool { return !strings.HasPrefix(s, "retire") })); n != 4 {
		t.Errorf("%d associations retired: %v", n, p.calls)
	}
	a.RemoveChild(first, 0, "twice")
}

// A peer that reauthenticates may not be able to receive by the new child when our answer has only just left: the old one sends
// until it goes, or for a second.
func TestWhatThePeerBeginsBesideAnotherWaitsForItsTurn(t *testing.T) {
	for _, deleted := range []bool{true, false} {
		a, p, c := kernelOf(t)
		var due []func()
		a.after = func(_ time.Duration, f func()) { due = append(due, f) }
		old, oldOut := upBy(t, a, c.Connections[0], "", false)
		if p.bound[1] != oldOut || len(due) != 0 {
			t.Fatalf("%v sends, not the only one %v; %d wait", p.bound[1], oldOut, len(due))
		}
		next, nextOut := upBy(t, a, c.Connections[0], "", false)
		if p.bound[1] != oldOut {
			t.Errorf("%v sends at once, before the peer can receive by it", p.bound[1])
		}
		if deleted {
			a.RemoveChild(old, 0, "deleted-by-peer")
		} else {
			due[0]()
		}
		if p.bound[1] != nextOut {
			t.Errorf("old one deleted %v: %v sends, not the new one %v", deleted, p.bound[1], nextOut)
		}
		a.RemoveChild(next, 0, "deleted")
		for _, f := range due {
			f() // of a child that has gone: nothing
		}
		if deleted && p.bound[1] != 0 {
			t.Errorf("%v sends, but nothing is left", p.bound[1])
		}
		upBy(t, a, c.Connections[0], "", false)
		upBy(t, a, c.Connections[0], "", false)
		a.stop()
		last := p.bound[1]
		if due[len(due)-1](); p.bound[1] != last {
			t.Error("the data plane was called after it had stopped")
		}
	}
}

func TestTheConnectionThatGoesFirstSends(t *testing.T) {
	a, p, c := kernelOf(t)
	_, backup := up(t, a, c.Connections[1], "")
	if p.bound[1] != backup {
		t.Errorf("the stand-in does not send")
	}
	main, mainOut := up(t, a, c.Connections[0], "")
	up(t, a, c.Connections[1], "") // rekeyed later than the main one came back
	if p.bound[1] != mainOut {
		t.Errorf("%v sends, not the main connection's %v", p.bound[1], mainOut)
	}
	a.RemoveChild(main, 0, "peer-dead")
	if p.bound[1] == mainOut || p.bound[1] == 0 {
		t.Errorf("%v sends after the main connection died", p.bound[1])
	}
	if m, ok := a.wanted(1); !ok || m.String() != "main/net" {
		t.Errorf("a packet for the tunnel asks for %v", m)
	}
}

func TestNarrowedSelectorsGetAPolicyOfTheirOwn(t *testing.T) {
	a, p, c := kernelOf(t)
	one, oneOut := up(t, a, c.Connections[0], "198.51.100.192/26")
	_, tunnel := a.place(one)
	if tunnel < dataplane.InstanceTunnelMin || p.bound[tunnel] != oneOut || p.bound[1] != 0 {
		t.Errorf("tunnel %d, bound %v", tunnel, p.bound)
	}
	if !slices.Contains(p.calls, `policy main/net of "main/net" priority 0`) {
		t.Errorf("%v", p.calls)
	}
	two, twoOut := up(t, a, c.Connections[0], "198.51.100.192/26") // its successor takes the same policy
	if _, same := a.place(two); same != tunnel || p.bound[tunnel] != twoOut {
		t.Errorf("the successor got tunnel %d", same)
	}
	a.RemoveChild(one, 0, "rekeyed")
	if slices.Contains(p.calls, "no policy") {
		t.Error("the policy went with the predecessor")
	}
	a.RemoveChild(two, 0, "deleted")
	if !slices.Contains(p.calls, "no policy") {
		t.Error("the policy outlives its last child")
	}
}

func TestAnSPIThatIsNotInstalledIsGivenBack(t *testing.T) {
	a, p, c := kernelOf(t)
	p.fail = "in "
	conn := c.Connections[0]
	err := a.InstallInbound(&ikesa.ChildSA{
		Connection: conn, Child: conn.Children[0], SPIIn: 0x1234, Choice: suite.Choice{Encr: message.EncrAESGCM16, KeyLen: 256},
		LocalTS: []message.TrafficSelector{conn.Children[0].LocalTS[0].TS}, RemoteTS: []message.TrafficSelector{conn.Children[0].RemoteTS[0].TS},
	})
	if err == nil || !slices.Contains(p.calls, "release 1234") || len(a.children) != 0 {
		t.Errorf("%v %v", err, p.calls)
	}
	p.panic = true
	func() {
		defer func() { recover() }()
		a.InstallInbound(&ikesa.ChildSA{
			Connection: conn, Child: conn.Children[0], SPIIn: 0x1236, Choice: suite.Choice{Encr: message.EncrAESGCM16, KeyLen: 256},
			LocalTS: []message.TrafficSelector{conn.Children[0].LocalTS[0].TS}, RemoteTS: []message.TrafficSelector{conn.Children[0].RemoteTS[0].TS},
		})
		t.Error("nothing panicked")
	}()
	if !slices.Contains(p.calls, "release 1236") || len(a.children) != 0 {
		t.Errorf("after a panic: %v", p.calls)
	}
	p.panic = false
	opaque := []message.TrafficSelector{{StartPort: 65535, EndPort: 0, Start: netip.MustParseAddr("192.0.2.1"), End: netip.MustParseAddr("192.0.2.1")}}
	if err := a.InstallInbound(&ikesa.ChildSA{Connection: conn, Child: conn.Children[0], SPIIn: 0x1235, Choice: suite.Choice{Encr: message.EncrAESGCM16, KeyLen: 256}, LocalTS: opaque, RemoteTS: opaque}); err == nil {
		t.Error("selectors that match nothing were installed")
	}
}

func TestBothDirectionsBelongToTheirChild(t *testing.T) {
	a, p, c := kernelOf(t)
	spi, out := up(t, a, c.Connections[0], "")
	for _, h := range []sad.Handle{out, sad.InboundHandle(spi)} {
		if got, ok := a.child(h); !ok || got != spi {
			t.Errorf("%v belongs to %x", h, got)
		}
	}
	if u, ok := a.Usage(spi, 0); !ok || u.PacketsIn != 7 || u.BytesIn != uint64(spi) || u.BytesOut != uint64(out.Value()) {
		t.Errorf("usage %+v", u)
	}
	if err := a.UpdateChild(&ikesa.ChildSA{SPIIn: spi, Remote: netip.MustParseAddrPort("192.0.2.9:4501"), Encap: true}); err != nil {
		t.Error(err)
	}
	if !slices.Contains(p.calls, "move inbound=true 192.0.2.9:4501 true") || !slices.Contains(p.calls, "move inbound=false 192.0.2.9:4501 true") {
		t.Errorf("%v", p.calls)
	}
	if a.UpdateChild(&ikesa.ChildSA{SPIIn: 1}) == nil {
		t.Error("an unknown child moved")
	}
}

// What two peers agreed on and what is configured must give the same policy, or every tunnel would get two.
func TestUnchangedSelectorsNeedNoPolicy(t *testing.T) {
	a, p, c := kernelOf(t)
	up(t, a, c.Connections[0], "")
	if slices.ContainsFunc(p.calls, func(s string) bool { return strings.HasPrefix(s, "policy") }) {
		t.Errorf("%v", p.calls)
	}
	if c.Policies[0].Action != spd.Protect {
		t.Error("no policy protects")
	}
}

// TestPaddingIsForPeersThatTakeIt holds that a child is padded as configured, unless the peer said that it takes no padding.
func TestPaddingIsForPeersThatTakeIt(t *testing.T) {
	a, _, c := kernelOf(t)
	conn := c.Connections[0]
	data := *conn.Children[0].Data.(*config.DataPath)
	data.Outer.TFC = 700
	conf := *conn.Children[0]
	conf.Data = &data
	for _, unpadded := range []bool{false, true} {
		spi, _ := a.NewChildSPI()
		choice, _, err := suite.Select(suite.Offer(suite.DefaultESP(), []byte{1, 2, 3, 4}), suite.DefaultESP(), suite.Options{})
		if err != nil {
			t.Fatal(err)
		}
		p, _, err := params(&ikesa.ChildSA{
			Connection: conn, Child: &conf, SPIIn: spi, SPIOut: spi, Choice: choice, Unpadded: unpadded,
			Local: netip.MustParseAddrPort("192.0.2.1:4500"), Remote: netip.MustParseAddrPort("192.0.2.2:4500"),
			LocalTS: []message.TrafficSelector{conf.LocalTS[0].TS}, RemoteTS: []message.TrafficSelector{conf.RemoteTS[0].TS},
		}, false)
		if want := map[bool]uint16{false: 700}[unpadded]; err != nil || p.TFC != want {
			t.Errorf("peer refuses padding %v: padded to %d, %v", unpadded, p.TFC, err)
		}
	}
}
