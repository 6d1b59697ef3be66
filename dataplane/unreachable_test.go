package dataplane

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"sallyport/dataplane/fib"
)

// TestSenderLearnsThatThereIsNoWay: no route and dead neighbours are answered, in both families, towards a host
// in the clear and towards one behind a tunnel through that tunnel; what is sealed is answered to nobody.
func TestSenderLearnsThatThereIsNoWay(t *testing.T) {
	dead := func(prefix string, kind fib.Kind) fib.Entry {
		return fib.Entry{Prefix: netip.MustParsePrefix(prefix), Hop: fib.Hop{Kind: kind, Port: outside, MTU: 1500}}
	}
	routes := []fib.Entry{dead("198.18.1.0/24", fib.Failed), dead("2001:db8:f1::/48", fib.Failed), dead("198.18.2.0/24", fib.Unresolved), dead("198.18.3.0/24", fib.Unreachable)}
	for _, c := range []struct {
		name       string
		frame      []byte
		kind, code byte
		reason     string
	}{
		{"no route, IPv4", udp4("198.51.100.5", "198.18.9.9", 100, 64), 3, 0, "no-route"},
		{"no route, IPv6", udp6("2001:db8:a::5", "2001:db8:f9::9", 100, 64), 1, 0, "no-route"},
		{"dead neighbour, IPv4", udp4("198.51.100.5", "198.18.1.9", 100, 64), 3, 1, "neighbour-failed"},
		{"dead neighbour, IPv6", udp6("2001:db8:a::5", "2001:db8:f1::9", 100, 64), 1, 3, "neighbour-failed"},
		{"silent neighbour", udp4("198.51.100.5", "198.18.2.9", 100, 64), 3, 1, "neighbour-unresolved"},
		{"forbidden", udp4("198.51.100.5", "198.18.3.9", 100, 64), 0, 0, "unreachable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, _ := newRig(t, options{routes: routes})
			a.inject(inside, c.frame)
			a.now += int64(2 * time.Second) // what waited for its neighbour has waited enough
			a.run()
			if n := a.dropped()[c.reason]; n != 1 {
				t.Errorf("%v", a.dropped())
			}
			frames := a.drain(inside)
			if c.kind == 0 {
				if len(frames) != 0 {
					t.Errorf("%d answers", len(frames))
				}
			} else if len(frames) != 1 {
				t.Errorf("%d answers", len(frames))
			} else {
				at := 34
				if c.frame[12] == 0x86 {
					at = 54
				}
				if got := frames[0][at : at+2]; got[0] != c.kind || got[1] != c.code {
					t.Errorf("type %d code %d, not %d and %d", got[0], got[1], c.kind, c.code)
				}
			}
			a.settled()
		})
	}
	t.Run("through the tunnel", func(t *testing.T) {
		a, b := newRig(t, options{})
		// What comes out at B is for a host whose neighbour entry has failed.
		tables := b.tables
		tables.FIB = fib.Build(2, []fib.Entry{
			{Prefix: sideB.inner4, Hop: fib.Hop{Kind: fib.Failed, Port: inside, MTU: 1500}},
			{Prefix: netip.PrefixFrom(sideA.outer4, 32), Hop: fib.Hop{Kind: fib.Forward, Port: outside, MTU: 1500}},
		})
		b.group.SetTables(&tables)
		a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
		b.inject(outside, a.drain(outside)...)
		a.inject(outside, b.drain(outside)...)
		frames := a.drain(inside)
		if len(frames) != 1 || frames[0][34] != 3 || frames[0][35] != 1 {
			t.Errorf("%d answers came back: %v %v", len(frames), a.dropped(), b.dropped())
		}
		b.settled()
		a.settled()
	})
	t.Run("sealed", func(t *testing.T) {
		a, _ := newRig(t, options{})
		tables := a.tables
		tables.FIB = fib.Build(2, []fib.Entry{
			{Prefix: netip.PrefixFrom(sideB.outer4, 32), Hop: fib.Hop{Kind: fib.Failed, Port: outside, MTU: 1500}},
			{Prefix: sideA.inner4, Hop: fib.Hop{Kind: fib.Forward, Port: inside, MTU: 1500}},
		})
		a.group.SetTables(&tables)
		a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
		if n := len(a.drain(inside)) + len(a.drain(outside)); n != 0 {
			t.Errorf("%d packets", n)
		}
		if fmt.Sprint(a.dropped()) != "map[neighbour-failed:1]" {
			t.Errorf("%v", a.dropped())
		}
		a.settled()
	})
	t.Run("peer without route", func(t *testing.T) {
		a, _ := newRig(t, options{})
		tables := a.tables
		tables.FIB = fib.Build(2, []fib.Entry{{Prefix: sideA.inner4, Hop: fib.Hop{Kind: fib.Forward, Port: inside, MTU: 1500}}})
		a.group.SetTables(&tables)
		a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 64))
		frames := a.drain(inside)
		if len(frames) != 1 || frames[0][34] != 3 || frames[0][35] != 0 {
			t.Errorf("%d answers: %v", len(frames), a.dropped())
		}
		a.settled()
	})
}
