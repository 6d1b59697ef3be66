package dataplane

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sallyport/bpf"
	"sallyport/dataplane/ethtool"
	"sallyport/dataplane/fib"
	"sallyport/dataplane/worker"
	"sallyport/dataplane/xsk"
)

// port is one port of the engine. Its fields are guarded by Engine.mu.
type port struct {
	config PortConfig
	number uint16

	ifindex int // 0 while the interface is not there
	mtu     int
	queues  int // RX queues
	mode    xsk.Mode
	reason  string // why that mode
	generic bool   // the program runs behind the driver
	up      bool
	steered bool // the program runs on it
	sockets []socket
	ike     []socket // the sockets of IKE, each beside the one of its queue in sockets

	counters []*worker.QueueCounters // by queue
}

// socket is one queue with the worker that serves it.
type socket struct {
	queue    worker.Queue
	number   int
	worker   int
	counters *worker.QueueCounters
}

// closer is what a queue that came from the kernel, or the engine, can do besides.
type closer interface {
	Close() error
	Reclaim() []uint64
}

// statistician is a queue with the kernel's statistics.
type statistician interface {
	Stats() (xsk.Stats, error)
}

func newPort(number uint16, config PortConfig) (*port, error) {
	p := &port{config: config, number: number}
	if config.Queues != nil {
		p.reason = "queues in memory"
		return p, nil
	}
	if err := p.find(); err != nil {
		return nil, err
	}
	return p, nil
}

// find looks the interface up and refuses what cannot be served.
func (p *port) find() error {
	link, err := net.InterfaceByName(p.config.Name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", p.config.Name, err)
	}
	if l, err := netlink.LinkByIndex(link.Index); err == nil {
		if err := servable(l); err != nil {
			return err
		}
	}
	queues, err := ethtool.Queues(p.config.Name)
	if err != nil {
		return fmt.Errorf("interface %s: counting its queues: %w", p.config.Name, err)
	}
	if queues > bpf.QueuesMax {
		return fmt.Errorf("interface %s has %d RX queues, %d can be served: ethtool -L %s combined %d",
			p.config.Name, queues, bpf.QueuesMax, p.config.Name, bpf.QueuesMax)
	}
	if limit, why := xsk.MTUMax(xsk.Copy); link.MTU > limit {
		return fmt.Errorf("interface %s has an MTU of %d: %s", p.config.Name, link.MTU, why)
	}
	p.ifindex, p.mtu, p.queues, p.up = link.Index, link.MTU, queues, link.Flags&net.FlagUp != 0
	return nil
}

// servable refuses what the packet path would serve wrongly. The program of a VLAN's parent sees its frames first, with their tags,
// and drops those under a policy.
func servable(l netlink.Link) error {
	if l.Type() == "vlan" {
		return fmt.Errorf("interface %s is a VLAN of another one, which is not served: have the switch leave the tag off, on an interface of its own", l.Attrs().Name)
	}
	return nil
}

// probe finds out how every interface can be bound, and chooses one mode for the one UMEM that all
// share: zero-copy only if every interface has it.
func (e *Engine) probe() error {
	mode := xsk.ZeroCopy
	for _, p := range e.ports {
		if p.ifindex == 0 {
			continue
		}
		found, reason, err := xsk.Probe(p.ifindex, 0, e.keeper.SocketXDP)
		if err != nil {
			return fmt.Errorf("interface %s: %w", p.config.Name, err)
		}
		p.mode, p.reason = found, reason
		if p.config.Mode == "copy" || p.config.Mode == "generic" {
			p.mode, p.reason = xsk.Copy, "asked for by the configuration"
		}
		if p.config.Mode == "zero-copy" && found != xsk.ZeroCopy {
			return fmt.Errorf("interface %s: zero-copy is asked for and not possible: %s", p.config.Name, reason)
		}
		if p.mode == xsk.Copy {
			mode = xsk.Copy
		}
	}
	for _, p := range e.ports {
		if mode == xsk.Copy && p.mode == xsk.ZeroCopy {
			p.mode, p.reason = xsk.Copy, "another interface of this gateway can only copy, and all share one UMEM"
		}
	}
	e.domain = xsk.NewDomain(e.umem, mode, true, e.keeper.SocketXDP)
	return nil
}

// open binds a socket to every RX queue of the port and gives each to its worker: queue q
// belongs to worker q mod W. Workers without a queue there hand packets for
// the port to a worker that has one. The caller holds e.mu.
func (e *Engine) open(p *port) error {
	queues := p.config.Queues
	if queues == nil {
		// As many frames go round as the RX rings hold, see xsk. In a fill ring of no more entries the worker would write into the very
		// cache line that the kernel reads next, on another core: it has twice as many.
		fill := 2 * e.cfg.RingSize
		if e.ike != nil {
			fill *= 2 // both sockets of a queue can be full, and the fill ring they share still has frames for either
		}
		for q := range p.queues {
			s, err := e.domain.Open(xsk.Config{
				Ifindex: p.ifindex, Ifname: p.config.Name, Queue: q,
				RxSize: uint32(e.cfg.RingSize), TxSize: uint32(e.cfg.RingSize),
				FillSize: uint32(fill), CompSize: uint32(e.cfg.RingSize),
			})
			if err != nil {
				for _, opened := range queues {
					opened.(closer).Close()
				}
				return err
			}
			queues = append(queues, s)
		}
	}
	for q, queue := range queues {
		p.sockets = append(p.sockets, socket{queue: queue, number: q, worker: q % e.cfg.Workers, counters: p.countersOf(q)})
	}
	if err := e.openIKE(p); err != nil {
		return err
	}
	e.connect(p)
	return nil
}

// countersOf returns the counters of queue q, which go on when the interface is created again.
func (p *port) countersOf(q int) *worker.QueueCounters {
	for len(p.counters) <= q {
		p.counters = append(p.counters, new(worker.QueueCounters))
	}
	return p.counters[q]
}

// connect gives the port's sockets to their workers.
func (e *Engine) connect(p *port) {
	for _, w := range e.group.Workers {
		e.on(w, func() {
			w.SetTransmitter(p.number, p.sockets[w.ID%len(p.sockets)].worker)
			for _, s := range p.sockets {
				switch {
				case s.worker != w.ID:
				case p.number == e.tables.IKE:
					w.AddFirst(p.number, s.queue, s.counters)
				default:
					w.AddQueue(p.number, s.queue, s.counters)
				}
			}
			for _, s := range p.ike {
				if s.worker == w.ID {
					w.AddSibling(p.number, s.queue, s.counters)
				}
			}
		})
	}
	t := &e.tables.Ports[p.number]
	t.Workers = nil
	for _, s := range p.sockets {
		if !slices.Contains(t.Workers, s.worker) {
			t.Workers = append(t.Workers, s.worker)
		}
	}
	e.publishTables()
}

// close takes the port's sockets away from the workers, closes them, and brings every frame
// that was in their rings home. The caller holds e.mu.
func (e *Engine) close(p *port) {
	for _, w := range e.group.Workers {
		e.on(w, func() {
			w.SetTransmitter(p.number, -1)
			for _, s := range slices.Concat(p.ike, p.sockets) {
				if s.worker == w.ID {
					w.RemoveQueue(s.queue)
				}
			}
		})
	}
	for _, s := range slices.Concat(p.ike, p.sockets) {
		if e.steering != nil && p.config.Queues == nil && p.ifindex != 0 {
			e.steering.ClearSocket(p.number, uint32(s.number), bpf.Data)
			e.steering.ClearSocket(p.number, uint32(s.number), bpf.IKE)
		}
		c, ok := s.queue.(closer)
		if !ok {
			continue
		}
		if err := c.Close(); err != nil {
			e.log.Warn().Err(err).Str("interface", p.config.Name).Int("queue", s.number).Msg("closing a socket")
		}
		frames := c.Reclaim()
		w := e.group.Workers[s.worker]
		e.on(w, func() { w.Return(frames) })
	}
	p.sockets, p.ike = nil, nil
}

// on runs f on the worker's thread, or here while the workers do not run. The caller holds e.mu.
func (e *Engine) on(w *worker.Worker, f func()) {
	if e.running {
		w.Call(f)
		return
	}
	f()
}

// attach lets the steering program send the port's packets to its sockets: first the
// sockets are in the map, then the program runs. The caller holds e.mu.
func (e *Engine) attach(p *port) error {
	if p.config.Queues != nil {
		return nil // in memory: nothing to steer
	}
	if err := e.steering.SetPort(p.ifindex, p.number, bpf.Role(p.config.Role)); err != nil {
		return err
	}
	for _, s := range p.sockets {
		if err := e.steering.SetSocket(p.number, uint32(s.number), bpf.Data, s.queue.FD()); err != nil {
			return fmt.Errorf("interface %s queue %d: %w", p.config.Name, s.number, err)
		}
	}
	for _, s := range p.ike {
		if err := e.steering.SetSocket(p.number, uint32(s.number), bpf.IKE, s.queue.FD()); err != nil {
			return fmt.Errorf("interface %s queue %d: %w", p.config.Name, s.number, err)
		}
	}
	if p.steered {
		return nil
	}
	mode := bpf.Native
	if p.config.Mode == "generic" {
		mode = bpf.Generic
	}
	link, err := e.keeper.AttachXDP(e.steering, p.config.Name, p.ifindex, mode, e.cfg.PinDir)
	if errors.Is(err, unix.EOPNOTSUPP) && (p.config.Mode == "auto" || p.config.Mode == "") {
		p.reason = "the driver has no native XDP"
		link, err = e.keeper.AttachXDP(e.steering, p.config.Name, p.ifindex, bpf.Generic, e.cfg.PinDir)
	}
	if err != nil {
		return err
	}
	p.generic, p.steered = link.Mode() == bpf.Generic, true
	e.log.Info().Str("interface", p.config.Name).Stringer("xdp", link.Mode()).Bool("taken_over", link.TakenOver()).
		Stringer("mode", p.mode).Str("reason", p.reason).Int("queues", len(p.sockets)).Msg("the interface is served")
	return link.Close() // the pin holds it
}

// applyRoles changes the roles of ports that are there. The caller holds e.mu.
func (e *Engine) applyRoles(roles map[string]worker.Role) error {
	if roles == nil {
		return nil
	}
	configured := 0
	for _, p := range e.ports {
		if p.number == e.tables.TUN || p.number == e.tables.IKE {
			continue
		}
		configured++
		if _, ok := roles[p.config.Name]; !ok {
			return fmt.Errorf("interface %s cannot be removed from a running gateway: restart it", p.config.Name)
		}
	}
	if len(roles) != configured {
		return errors.New("an interface cannot be added to a running gateway: restart it")
	}
	for i, p := range e.ports {
		role, ok := roles[p.config.Name]
		if !ok || role == p.config.Role {
			continue
		}
		p.config.Role, e.tables.Ports[i].Role = role, role
		if e.steering != nil && p.ifindex != 0 {
			if err := e.steering.SetPort(p.ifindex, p.number, bpf.Role(role)); err != nil {
				return err
			}
		}
	}
	return nil
}

// linkChanged follows an interface that comes, goes or changes. The caller holds e.mu.
func (e *Engine) linkChanged(ev fib.LinkEvent) {
	p := e.ports[ev.Port]
	log := e.log.With().Str("interface", ev.Name).Int("ifindex", ev.Ifindex).Logger()
	switch ev.Change {
	case fib.LinkGone:
		if p.ifindex != ev.Ifindex {
			return
		}
		log.Warn().Msg("the interface is gone; its sockets are closed")
		e.close(p)
		e.steering.RemovePort(ev.Ifindex)
		p.ifindex, p.up, p.steered = 0, false, false
	case fib.LinkAppeared:
		if p.ifindex == ev.Ifindex && len(p.sockets) > 0 {
			return // the one we started with
		}
		if len(p.sockets) > 0 {
			e.close(p)
			e.steering.RemovePort(p.ifindex)
		}
		p.steered = false
		e.serve(p)
	case fib.LinkChanged:
		p.mtu = ev.MTU
		if limit, why := xsk.MTUMax(p.mode); ev.MTU > limit {
			log.Error().Int("mtu", ev.MTU).Msg("larger packets than a frame holds will be lost: " + why)
		}
	case fib.LinkUp, fib.LinkDown:
		p.up = ev.Up
		for _, s := range p.sockets {
			w := e.group.Workers[s.worker]
			e.on(w, func() { w.Revive(s.queue) })
		}
		log.Info().Msg("the interface is " + ev.Change.String())
		if ev.Up && len(p.sockets) == 0 {
			e.serve(p)
		}
	}
}

// serve attaches an interface that has come back and binds its sockets. One that is down takes no
// sockets, but the program drops what policy protects from the first moment on. What fails is tried again by
// tend. The caller holds e.mu.
func (e *Engine) serve(p *port) {
	log := e.log.With().Str("interface", p.config.Name).Logger()
	err := p.find()
	if err == nil {
		err = e.open(p)
		if err != nil {
			e.close(p)
		}
		err = errors.Join(err, e.attach(p))
	}
	switch {
	case errors.Is(err, xsk.ErrDown) && !p.up:
		log.Info().Msg("the interface is back, and down")
	case err != nil:
		log.Error().Err(err).Msg("the interface is back, but cannot be served")
	default:
		log.Info().Int("ifindex", p.ifindex).Msg("the interface is back and is served again")
	}
}

// sources finds the addresses that ICMP errors of each port carry. The caller holds e.mu.
func (e *Engine) sources() {
	for i, p := range e.ports {
		t := &e.tables.Ports[i]
		if p.config.Queues != nil {
			continue
		}
		t.Source4, t.Source6 = sourcesOf(p.ifindex)
	}
}
