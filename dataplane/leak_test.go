package dataplane

import (
	"reflect"
	"testing"

	"sallyport/dataplane/fib"
)

// TestErrorsAboutTunnelledPacketsNeverLeaveInTheClear lets the hop count of a packet out of a tunnel run out
// while the way back has no association: the error quotes plaintext, so it may not leave.
func TestErrorsAboutTunnelledPacketsNeverLeaveInTheClear(t *testing.T) {
	// The route that a real gateway has: everything beyond goes to the peer's side.
	routes := []fib.Entry{{Prefix: sideA.inner4, Hop: fib.Hop{Kind: fib.Forward, Port: outside, MTU: 1500}}}
	a, _ := newRig(t, options{})
	b := newGateway(t, sideB, sideA, options{routes: routes})
	b.tunnel(sideB, sideA, options{noBind: true}, 0x2001, 0x1001)
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 2))
	cross(t, a, b)
	if left := b.drain(outside); len(left) != 0 {
		t.Errorf("%d frames left: %x", len(left), left[0])
	}
	if want := map[string]uint64{"ttl-expired": 1}; !reflect.DeepEqual(b.dropped(), want) {
		t.Errorf("dropped %v, want %v", b.dropped(), want)
	}
	b.settled()
	a.settled()
}
