package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"sallyport/dataplane/datagram"
	"sallyport/dataplane/fib"
	"sallyport/dataplane/memio"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/worker"
	"sallyport/dataplane/xsk"
)

// Ports of IKE. On the second every message carries the non-ESP marker (RFC 3948, 2.2), which
// an [IKEPort] puts in front and takes off.
const (
	PortIKE     = datagram.PortIKE
	PortIKENATT = datagram.PortNATT
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

// ikeRing is the size of the rings between a worker and the IKE side, and of those of an IKE socket.
const ikeRing = 256

// IKEPort is the way of IKE datagrams in and out of the gateway. They arrive on the packet path (every RX
// queue has an AF_XDP socket for IKE, which workers read first) or by UDP sockets of the
// kernel, whichever way the network offers, and leave likewise.
type IKEPort struct {
	engine *Engine
	handle datagram.Handler
	queues []*memio.Queue // by worker
	id     atomic.Uint32  // IPv4 identification

	mu      sync.Mutex // guards what start and stop change
	pump    *datagram.Pump
	sockets atomic.Pointer[datagram.Sockets] // nil where there are none

	sent, full atomic.Uint64
}

// IKEStats are the figures of an [IKEPort], in datagrams.
type IKEStats struct {
	Received, Sent             uint64 // on the packet path
	KernelReceived, KernelSent uint64 // by kernel sockets
	Malformed                  uint64 // no UDP, or no marker where one must be
	Full                       uint64 // not sent: the queue to the worker was full
}

// IKE returns the engine's way for IKE datagrams; nil unless [Config.IKE] asks for one.
func (e *Engine) IKE() *IKEPort { return e.ike }

// Handle names the receiver of datagrams. It is called by several goroutines at once and must not block; data,
// without the non-ESP marker, is good until it returns. The local port is 500 or 4500. UDP checksums
// are not verified: behind a veth pair they are unfinished, and IKE authenticates itself. Before Start.
func (p *IKEPort) Handle(f func(local, remote netip.AddrPort, data []byte)) { p.handle = f }

// buildIKE makes the queues between workers and the IKE side and the port behind the others that they are.
func (e *Engine) buildIKE() error {
	p := &port{
		config: PortConfig{Name: "ike", Role: worker.Outside},
		number: uint16(len(e.ports)), reason: "the way to the IKE side",
	}
	for range e.cfg.Workers {
		q, err := memio.NewQueue(e.umem.Mem(), ikeRing)
		if err != nil {
			return err
		}
		e.ike.queues = append(e.ike.queues, q)
		p.config.Queues = append(p.config.Queues, q)
	}
	e.ports = append(e.ports, p)
	e.tables.Ports = append(e.tables.Ports, worker.Port{Name: p.config.Name, Role: p.config.Role})
	e.tables.IKE = p.number
	return nil
}

// openIKE binds a second socket to every RX queue of an interface that is outside. The caller holds e.mu.
func (e *Engine) openIKE(p *port) error {
	if e.ike == nil || p.config.Queues != nil {
		return nil
	}
	for _, s := range p.sockets {
		q, err := e.domain.Open(xsk.Config{
			Ifindex: p.ifindex, Ifname: p.config.Name, Queue: s.number, RxSize: ikeRing, TxSize: ikeRing,
		})
		if err != nil {
			return fmt.Errorf("a socket for IKE: %w", err)
		}
		p.ike = append(p.ike, socket{queue: q, number: s.number, worker: s.worker, counters: s.counters})
	}
	return nil
}

// start begins to receive. The caller holds e.mu.
func (p *IKEPort) start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.handle == nil {
		p.handle = func(netip.AddrPort, netip.AddrPort, []byte) {}
	}
	var ends []datagram.Queue
	for _, q := range p.queues {
		ends = append(ends, q)
	}
	p.pump = datagram.Start(ends, p.handle)
	if p.engine.keeper == nil {
		return
	}
	s, err := datagram.Listen(p.engine.keeper.SocketUDP, p.handle)
	if err != nil {
		p.engine.log.Warn().Err(err).Msg("IKE has no kernel socket for some of its ports: fragments of messages will be lost")
	}
	p.sockets.Store(s)
}

// stop ends what start began. The queues stay the engine's.
func (p *IKEPort) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pump != nil {
		p.pump.Close()
		p.pump = nil
	}
	if s := p.sockets.Swap(nil); s != nil {
		s.Close()
	}
}

// Send sends a datagram of data (copied) from local to remote, with the non-ESP marker if local's port is 4500. It
// never waits for the network. The errors are [ErrIKENoRoute], [ErrIKEFull], [ErrIKETooLong]
// or those of the kernel's socket.
func (p *IKEPort) Send(local, remote netip.AddrPort, data []byte) error {
	return p.send(local, remote, local.Port() == PortIKENATT, false, data)
}

// SendWhole is Send for a datagram that must not be cut up, here or on its way. It leaves by a worker or not at all: [Engine.LinkMTU] says
// whether it can.
func (p *IKEPort) SendWhole(local, remote netip.AddrPort, data []byte) error {
	return p.send(local, remote, local.Port() == PortIKENATT, true, data)
}

// Keepalive sends a NAT keepalive, one byte 0xff (RFC 3948, 2.3), from local to remote.
func (p *IKEPort) Keepalive(local, remote netip.AddrPort) error {
	return p.send(local, remote, false, false, []byte{0xff})
}

// LinkMTU is the largest packet that the way to an address may have where a worker sends it; 0 if the kernel does, or nobody can.
func (e *Engine) LinkMTU(remote netip.Addr) int {
	t := e.group.Tables()
	hop := &t.FIB.Hops[t.FIB.Lookup(remote)]
	switch {
	case hop.Kind != fib.Forward && hop.Kind != fib.Unresolved && hop.Kind != fib.Failed:
		return 0
	case int(hop.Port) >= len(t.Ports) || len(t.Ports[hop.Port].Workers) == 0:
		return 0
	}
	return min(int(hop.MTU), packet.LenMax-packet.EtherLen)
}

// send chooses the way: through a worker that has a queue of the right interface, or by the kernel, which may cut up what it sends.
func (p *IKEPort) send(local, remote netip.AddrPort, marked, whole bool, data []byte) error {
	t := p.engine.group.Tables()
	hop := &t.FIB.Hops[t.FIB.Lookup(remote.Addr())]
	switch hop.Kind {
	case fib.Forward, fib.Unresolved, fib.Failed:
	case fib.Local:
		return p.sendKernel(local, remote, marked, data, ErrIKENoRoute)
	default:
		return ErrIKENoRoute
	}
	size := datagram.Len(local.Addr(), marked, len(data))
	if whole && size > p.engine.LinkMTU(remote.Addr()) {
		return ErrIKETooLong
	}
	if size > packet.LenMax-packet.EtherLen {
		return p.sendKernel(local, remote, marked, data, ErrIKETooLong)
	}
	if size > int(hop.MTU) && (p.sockets.Load() != nil || local.Addr().Is6()) {
		return p.sendKernel(local, remote, marked, data, ErrIKETooLong) // a worker could cut up IPv4 only
	}
	var workers []int
	if int(hop.Port) < len(t.Ports) {
		workers = t.Ports[hop.Port].Workers
	}
	if len(workers) == 0 {
		return p.sendKernel(local, remote, marked, data, ErrIKENoRoute)
	}
	b := frames.Get().(*[]byte)
	defer frames.Put(b)
	frame, err := datagram.Append((*b)[:0], local, remote, uint16(p.id.Add(1)), marked, data)
	if err != nil {
		return err
	}
	if *b = frame; whole {
		datagram.Whole(frame)
	}
	// One peer's datagrams stay on one worker, and so in order.
	peer := remote.Addr().As16()
	if !p.queues[workers[int(peer[15])%len(workers)]].Inject(frame) {
		p.full.Add(1)
		return ErrIKEFull
	}
	p.sent.Add(1)
	return nil
}

// frames are buffers for frames on their way into a queue.
var frames = sync.Pool{New: func() any {
	b := make([]byte, 0, packet.LenMax)
	return &b
}}

// sendKernel sends by a kernel socket; without one the error is otherwise.
func (p *IKEPort) sendKernel(local, remote netip.AddrPort, marked bool, data []byte, otherwise error) error {
	s := p.sockets.Load()
	if s == nil {
		return otherwise
	}
	return s.Send(local, remote, marked, data)
}

// stats returns the figures.
func (p *IKEPort) stats() (s IKEStats) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pump != nil {
		s.Received, s.Malformed = p.pump.Counters()
	}
	if k := p.sockets.Load(); k != nil {
		var malformed uint64
		s.KernelReceived, malformed, s.KernelSent = k.Counters()
		s.Malformed += malformed
	}
	s.Sent, s.Full = p.sent.Load(), p.full.Load()
	return s
}
