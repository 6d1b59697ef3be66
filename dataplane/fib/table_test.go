package fib_test

import (
	"net/netip"
	"testing"

	"sallyport/dataplane/fib"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestLookupFindsLongestPrefixWithoutAllocating(t *testing.T) {
	a := fib.Hop{Kind: fib.Forward, Port: 1, Gateway: addr("192.0.2.1")}
	b := fib.Hop{Kind: fib.Unresolved, Port: 2}
	table := fib.Build(1, []fib.Entry{
		{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Hop: a}, {Prefix: netip.MustParsePrefix("198.51.100.128/25"), Hop: b},
		{Prefix: netip.MustParsePrefix("2001:db8::/32"), Hop: a},
	})
	if len(table.Hops) != 3 || table.Hops[0].Kind != fib.NoRoute {
		t.Fatalf("hops are not stored once each: %v", table.Hops)
	}
	for dst, port := range map[string]uint16{"198.51.100.1": 1, "198.51.100.200": 2, "2001:db8::9": 1, "203.0.113.1": 0, "2001:db9::": 0} {
		if got := table.Hops[table.Lookup(addr(dst))].Port; got != port {
			t.Errorf("%s: port %d, want %d", dst, got, port)
		}
	}
	dst := addr("2001:db8::9")
	if n := testing.AllocsPerRun(100, func() { table.Hops[table.Lookup(dst)].Touch() }); n != 0 {
		t.Errorf("%v allocations a look-up", n)
	}
}
