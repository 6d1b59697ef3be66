// Package wiretest attacks a running gateway from outside, on real interfaces:
//
//	host ── lan [gateway] wan ── peer
//	198.51.100.10     192.0.2.1     192.0.2.2      (nobody is at the host's and the peer's addresses:
//	2001:db8:a::10    2001:db8::1   2001:db8::2     every frame on the cables is one of the test's)
//
// Its tests write frames by hand (tools/craft) and hold the gateway to its counters: what was sent into the
// cables is, to the packet, what the steering program, the sockets and the drop table have counted.
package wiretest
