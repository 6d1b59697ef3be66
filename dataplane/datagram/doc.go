// Package datagram carries IKE's UDP datagrams between their receiver and the two ways that lead to the network:
//
//	receiver ◀── Pump ◀── queue in memory ◀── worker ◀── AF_XDP
//	sender   ──▶ Append ─▶ queue in memory ──▶ worker ──▶ AF_XDP
//	receiver ◀── Sockets ◀── kernel            fragments, interfaces without XDP
//	sender   ──▶ Sockets ──▶ kernel            what the path has to cut up, routes that only the kernel can follow
//
// On port 4500 every message has the non-ESP marker in front (RFC 3948, 2.2; RFC 7296, 2.23), which is
// put there and taken off here. Received UDP checksums are not verified on the first way: a
// sender behind a veth pair leaves them unfinished, and IKE authenticates what it says.
package datagram

import "net/netip"

// Ports of IKE.
const (
	PortIKE  = 500
	PortNATT = 4500
)

// Handler receives one datagram without marker. It must not block, and not keep data. Several
// goroutines call it at once.
type Handler func(local, remote netip.AddrPort, data []byte)

// markerLen is the length of the non-ESP marker, four zero bytes.
const markerLen = 4

// unmark takes the marker off a datagram to port; ok is false if it has none where it must.
func unmark(port uint16, data []byte) (message []byte, ok bool) {
	if port != PortNATT {
		return data, true
	}
	if len(data) < markerLen || data[0]|data[1]|data[2]|data[3] != 0 {
		return nil, false
	}
	return data[markerLen:], true
}
