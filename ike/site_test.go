package ike

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"sallyport/ike/ikesa"
)

// names is a resolver whose answers a test changes.
type hosts struct {
	mu    sync.Mutex
	addrs map[string][]netip.Addr
	asked int
}

func (h *hosts) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked++
	if len(h.addrs[host]) == 0 {
		return nil, errors.New("no such host")
	}
	return slices.Clone(h.addrs[host]), nil
}

func (h *hosts) set(host string, addrs ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addrs[host] = nil
	for _, a := range addrs {
		h.addrs[host] = append(h.addrs[host], netip.MustParseAddr(a))
	}
}

// TestPeerIsFoundByItsName: also when the name comes to mean something else, or something only later, and when the
// first of its addresses does not answer.
func TestPeerIsFoundByItsName(t *testing.T) {
	names := &hosts{addrs: map[string][]netip.Addr{}}
	simulate(t, 1, Options{Resolver: names}, func(t *testing.T, p *pair) {
		p.configure(t, 1, func(side string, c *ikesa.Connection) {
			if side == "a" {
				c.RemoteAddrs = addresses("b.example.net")
				c.Children[0].DPDAction = ikesa.ActionStart
			}
		})
		time.Sleep(time.Minute)
		if n := paired(t, p.a, p.b); n != 0 {
			t.Fatal(n)
		}
		names.set("b.example.net", "192.0.2.77", "192.0.2.2") // nobody is at the first
		time.Sleep(3 * time.Minute)
		if n := paired(t, p.a, p.b); n != 1 {
			t.Fatalf("%d children", n)
		}
		p.b.move("192.0.2.2", "192.0.2.9") // as after a change of provider: without a word
		names.set("b.example.net", "192.0.2.9")
		time.Sleep(5 * time.Minute)
		if n := paired(t, p.a, p.b); n != 1 {
			t.Errorf("%d children at the new address", n)
		}
	})
}

// TestSecondConnectionStandsInAndSteppedBack: two connections to one site, the second used while the first is dead.
func TestSecondConnectionStandsInAndStepsBack(t *testing.T) {
	for _, action := range []ikesa.ChildAction{ikesa.ActionStart, ikesa.ActionTrap} {
		t.Run(map[ikesa.ChildAction]string{ikesa.ActionStart: "start", ikesa.ActionTrap: "trap"}[action], func(t *testing.T) {
			simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
				// B has two addresses, that is, two providers; each connection of A leads to one of them.
				second := netip.MustParseAddr("192.0.2.3")
				p.net.attach(second, p.b)
				var as, bs Config
				as.Store, bs.Store = testStore(), testStore()
				for i, remote := range []string{"192.0.2.2", "192.0.2.3"} {
					ca, cb := connection(0, "a", "b", true, remote), connection(0, "b", "a", false, "192.0.2.1")
					ca.Name, cb.Name = []string{"first", "second"}[i], []string{"first", "second"}[i]
					ca.Priority, cb.Priority = i, i
					ca.MOBIKE, cb.MOBIKE = false, false
					ca.Children[0].StartAction = action
					cb.LocalAddrs = addresses(remote)
					as.Connections = append([]*ikesa.Connection{ca}, as.Connections...) // the order does not matter
					bs.Connections = append(bs.Connections, cb)
				}
				a := p.a.server.Load()
				if err := errors.Join(p.b.server.Load().Apply(&bs), a.Apply(&as)); err != nil {
					t.Fatal(err)
				}
				acquire := func() {
					if action == ikesa.ActionTrap { // traffic asks by the first tunnel's policy, again and again
						a.Acquire("first", "net")
					}
				}
				up := func() (all []string) {
					a.List(func(i *Info) bool {
						for range i.Children {
							all = append(all, i.Connection.Name)
						}
						return true
					})
					slices.Sort(all)
					return all
				}
				acquire()
				time.Sleep(time.Second)
				if got := up(); !slices.Equal(got, []string{"first"}) {
					t.Fatalf("at first: %v", got)
				}
				p.net.lose(func(d ikesa.Datagram) bool {
					b := netip.MustParseAddr("192.0.2.2")
					return d.Remote.Addr() != b && d.Local.Addr() != b
				})
				for range 12 {
					time.Sleep(10 * time.Second)
					acquire()
				}
				time.Sleep(time.Second)
				if got := up(); !slices.Equal(got, []string{"second"}) {
					t.Fatalf("with the first dead: %v", got)
				}
				p.net.lose(nil)
				for range 12 {
					time.Sleep(10 * time.Second)
				}
				if got := up(); !slices.Equal(got, []string{"first"}) {
					t.Fatalf("with the first back: %v", got)
				}
				paired(t, p.a, p.b)
			})
		})
	}
}

func (n *network) lose(filter func(ikesa.Datagram) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.filter = filter
}

// TestReloadAdaptsWhatIsUp: other times, one child more, one less and one of another window leave the IKE SA and the other children alone; the
// changed child is rekeyed, and what carries something else is made anew.
func TestReloadAdaptsWhatIsUp(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		children := func(side string, edit func(name string, c *ikesa.Child), names ...string) *ikesa.Connection {
			own, peer, remote := "a", "b", "192.0.2.2"
			if side == "b" {
				own, peer, remote = "b", "a", "192.0.2.1"
			}
			c := connection(0, own, peer, side == "a", remote)
			model := c.Children[0]
			c.Children = nil
			for _, name := range names {
				child := *model
				child.Name = name
				low, high := fmt.Sprintf("198.18.9.%d/32", name[0]), fmt.Sprintf("198.18.8.%d/32", name[0])
				if side == "b" {
					low, high = high, low
				}
				child.LocalTS, child.RemoteTS = prefixes(low), prefixes(high)
				if edit != nil {
					edit(name, &child)
				}
				c.Children = append(c.Children, &child)
			}
			return c
		}
		apply := func(nd *node, c *ikesa.Connection) {
			t.Helper()
			if err := nd.server.Load().Apply(&Config{Store: testStore(), Connections: []*ikesa.Connection{c}}); err != nil {
				t.Fatal(err)
			}
		}
		state := func() (ikeSPI uint64, spis map[string]uint32) {
			spis = map[string]uint32{}
			p.a.server.Load().List(func(i *Info) bool {
				ikeSPI = uint64(i.SPIi)
				for _, c := range i.Children {
					if c.State == "installed" {
						spis[c.Child.Name] = c.SPIIn
					}
				}
				return true
			})
			return ikeSPI, spis
		}
		apply(p.b, children("b", nil, "kept", "window", "moved", "added", "removed"))
		apply(p.a, children("a", nil, "kept", "window", "moved", "removed"))
		time.Sleep(2 * time.Second)
		spi, before := state()
		if len(before) != 4 {
			t.Fatal(before)
		}
		next := children("a", func(name string, c *ikesa.Child) {
			switch name {
			case "window":
				c.Data = "another window"
			case "moved":
				c.LocalTS = prefixes("198.18.9.200/32")
			}
		}, "kept", "added", "window", "moved")
		next.DPDDelay, next.RekeyTime = 7*time.Second, 2*time.Hour
		there := children("b", func(name string, c *ikesa.Child) {
			if name == "moved" {
				c.RemoteTS = prefixes("198.18.9.200/32")
			}
		}, "kept", "window", "moved", "added", "removed")
		apply(p.b, there)
		time.Sleep(time.Second)
		apply(p.a, next)
		time.Sleep(5 * time.Second)
		same, after := state()
		if same != spi {
			t.Error("the IKE SA was made anew")
		}
		if len(after) != 4 || after["kept"] != before["kept"] || after["added"] == 0 || after["removed"] != 0 ||
			after["window"] == before["window"] || after["window"] == 0 || after["moved"] == before["moved"] || after["moved"] == 0 {
			t.Errorf("%v, then %v", before, after)
		}
		p.a.server.Load().List(func(i *Info) bool {
			if i.Connection != next || time.Until(i.RekeyAt) > 2*time.Hour {
				t.Errorf("rekeyed in %v", time.Until(i.RekeyAt))
			}
			return true
		})
		if n := paired(t, p.a, p.b); n != 4 {
			t.Errorf("%d children", n)
		}
	})
}

// TestReloadTouchesOnlyWhatChanged: an equal connection and one with new credentials go on, a changed one and one that
// is gone are deleted, a new one comes up.
func TestReloadTouchesOnlyWhatChanged(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		p.configure(t, 4, nil)
		time.Sleep(time.Second)
		spis := func() map[string]uint64 {
			all := map[string]uint64{}
			p.a.server.Load().List(func(i *Info) bool { all[i.Connection.Name] = uint64(i.SPIi); return true })
			return all
		}
		before := spis()
		if len(before) != 4 {
			t.Fatal(before)
		}
		next := Config{Store: testStore()}
		for i := range 5 {
			c := connection(i, "a", "b", true, "192.0.2.2")
			switch i {
			case 1:
				continue // gone
			case 2:
				c.FragmentSize, c.MOBIKE = 1000, false
			case 4:
				c.Children[0].StartAction = ikesa.ActionNone
			}
			next.Connections = append(next.Connections, c)
		}
		if err := p.a.server.Load().Apply(&next); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		after := spis()
		if after["a-b-0"] != before["a-b-0"] || after["a-b-3"] != before["a-b-3"] {
			t.Error("an equal connection was touched")
		}
		if after["a-b-1"] != 0 || after["a-b-2"] == before["a-b-2"] || after["a-b-2"] == 0 || len(after) != 3 {
			t.Errorf("%v, then %v", before, after)
		}
		if n := paired(t, p.a, p.b); n != 3 {
			t.Errorf("%d children", n)
		}
		// Broken configurations change nothing.
		for name, bad := range map[string]*Config{
			"no store": {}, "names": {Store: testStore(), Connections: []*ikesa.Connection{next.Connections[0], next.Connections[0]}},
			"pool":  {Store: testStore(), Connections: []*ikesa.Connection{{Name: "x", Pools: []string{"none"}}}},
			"pools": {Store: testStore(), Pools: []Pool{{Name: "p"}, {Name: "p"}}},
		} {
			if err := p.a.server.Load().Apply(bad); err == nil {
				t.Errorf("%s: no error", name)
			}
		}
		if got := spis(); len(got) != 3 {
			t.Error("a refused configuration was applied")
		}
	})
}

// TestAddressChangeMovesTunnels: MOBIKE; the children are the same before and after.
func TestAddressChangeMovesTunnels(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		p.configure(t, 3, func(side string, c *ikesa.Connection) {
			if side == "b" {
				c.RemoteAddrs = nil
			}
		})
		time.Sleep(time.Second)
		p.a.move("192.0.2.1", "192.0.2.100")
		p.a.server.Load().AddressesChanged()
		time.Sleep(5 * time.Second)
		if n := paired(t, p.a, p.b); n != 3 {
			t.Errorf("%d children", n)
		}
		want := netip.MustParseAddr("192.0.2.100")
		for _, side := range []struct {
			nd  *node
			end func(*association) netip.Addr
		}{{p.a, func(a *association) netip.Addr { return a.Local.Addr() }}, {p.b, func(a *association) netip.Addr { return a.Remote.Addr() }}} {
			for spi, a := range side.nd.out {
				if got := side.end(a); got != want {
					t.Errorf("%s: %08x leads to %v", side.nd.name, spi, got)
				}
			}
		}
		if s := p.a.server.Load().Stats(); s.Established != 3 || s.ChildrenUp != 3 {
			t.Errorf("made anew instead of moved: %+v", s)
		}
	})
}

// TestVirtualAddressesComeFromThePool and go back to it.
func TestVirtualAddressesComeFromThePool(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		var as, bs Config
		as.Store, bs.Store = testStore(), testStore()
		bs.Pools = []Pool{{Name: "p", Prefixes: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/30")}}}
		for i := range 3 {
			ca, cb := connection(i, "a", "b", true, "192.0.2.2"), connection(i, "b", "a", false)
			ca.VIPs = []netip.Addr{netip.IPv4Unspecified()}
			ca.Children[0].LocalTS = prefixes("dynamic")
			cb.Pools = []string{"p"}
			cb.Children[0].RemoteTS = prefixes("dynamic")
			ca.Children[0].RemoteTS = cb.Children[0].LocalTS
			as.Connections, bs.Connections = append(as.Connections, ca), append(bs.Connections, cb)
		}
		a, b := p.a.server.Load(), p.b.server.Load()
		if err := errors.Join(b.Apply(&bs), a.Apply(&as)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if n := paired(t, p.a, p.b); n != 2 { // as many as the pool has
			t.Fatalf("%d children", n)
		}
		given := slices.Clone(p.a.given)
		slices.SortFunc(given, netip.Addr.Compare)
		if want := []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")}; !slices.Equal(given, want) {
			t.Errorf("given %v", given)
		}
		for _, c := range as.Connections {
			if err := a.Down(t.Context(), c.Name, ""); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		if len(p.a.given) != 0 {
			t.Errorf("still %v", p.a.given)
		}
		if err := a.Up(t.Context(), "a-b-2", ""); err != nil {
			t.Error("no address was given back:", err)
		}
	})
}

// TestConnectionWithoutAWayWaitsForOne: no route at first, then one; a peer from anywhere is never begun.
func TestConnectionWithoutAWayWaitsForOne(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		p.a.mu.Lock()
		p.a.source = map[bool]netip.Addr{}
		p.a.mu.Unlock()
		p.configure(t, 2, func(side string, c *ikesa.Connection) {
			if c.Name == "a-b-1" {
				c.RemoteAddrs = addresses("0.0.0.0/0")
			}
		})
		time.Sleep(10 * time.Minute)
		if p.net.count() != 0 {
			t.Error("something was sent without a way")
		}
		p.a.move("192.0.2.1", "192.0.2.1")
		p.a.server.Load().AddressesChanged() // nobody has to wait for the back-off
		time.Sleep(time.Second)
		if n := paired(t, p.a, p.b); n != 1 {
			t.Errorf("%d children", n)
		}
		if err := p.a.server.Load().Up(t.Context(), "a-b-1", ""); !errors.Is(err, errNoAddress) {
			t.Error(err)
		}
	})
}
