package main

import (
	"net/netip"
	"slices"
	"testing"

	"sallyport/cmd/internal/config"
	"sallyport/dataplane/keeper"
	"sallyport/ike/message"
)

// TestVirtualAddressesLeadIntoTUN: what a virtual address of ours reaches is routed into TUN from it, and fenced; if that is
// everything, its own packets alone are, so that the rest of the machine keeps its default route. Nothing is
// routed from an address that is not ours (yet), or when the child is gone.
func TestVirtualAddressesLeadIntoTUN(t *testing.T) {
	selectors := func(p string) message.TrafficSelector { return message.SelectorOf(netip.MustParsePrefix(p)) }
	vip, six := netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("2001:db8:18::1")
	r := &routes{tun: "sp-test", own: []netip.Addr{netip.MustParseAddr("192.0.2.1"), vip, six}}
	r.reach(1, config.Negotiated([]message.TrafficSelector{selectors("198.18.0.1/32")}, []message.TrafficSelector{selectors("198.51.100.128/25"), selectors("203.0.113.0/24")}))
	r.reach(2, config.Negotiated([]message.TrafficSelector{selectors("198.18.0.1/32")}, []message.TrafficSelector{selectors("198.51.100.128/25")})) // its successor
	r.reach(3, config.Negotiated([]message.TrafficSelector{selectors("2001:db8:18::1/128")}, []message.TrafficSelector{selectors("::/0")}))
	r.reach(4, config.Negotiated([]message.TrafficSelector{selectors("198.18.0.9/32")}, []message.TrafficSelector{selectors("192.0.2.128/25")})) // not ours

	a, b := netip.MustParsePrefix("198.51.100.128/25"), netip.MustParsePrefix("203.0.113.0/24")
	want := []keeper.Route{keeper.Fence(a), keeper.Through(a, "sp-test", vip), keeper.Fence(b), keeper.Through(b, "sp-test", vip)}
	routes, from := r.virtual(nil, nil)
	if !slices.Equal(routes, want) {
		t.Errorf("routes\n%v\nwant\n%v", routes, want)
	}
	if !slices.Equal(from, []netip.Prefix{netip.MustParsePrefix("2001:db8:18::1/128")}) {
		t.Errorf("everything is reached from %v", from)
	}
	for spi := range uint32(5) {
		r.reach(spi, nil)
	}
	if routes, from := r.virtual(nil, nil); len(routes)+len(from) != 0 {
		t.Errorf("left over: %v %v", routes, from)
	}
}
