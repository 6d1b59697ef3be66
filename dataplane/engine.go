// Package dataplane runs the packet path: workers, their ports, and the tables that they
// look up. It is what the daemon and the benchmarks hold in their hands.
//
// An [Engine] has two kinds of ports: interfaces, attached to the steering program and served
// by AF_XDP sockets, and queues in memory ([PortConfig.Queues]), with which a whole gateway
// runs in one process without privileges.
//
// The engine speaks no IKE and reads no configuration file. Associations and policies are
// given to it; what it needs done with privileges it asks of a [keeper.Keeper].
package dataplane

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"sallyport/bpf"
	"sallyport/dataplane/fib"
	"sallyport/dataplane/keeper"
	"sallyport/dataplane/memio"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/tun"
	"sallyport/dataplane/worker"
	"sallyport/dataplane/xsk"
)

// Config describes an engine. The zero value of a field means its default.
type Config struct {
	// Workers is the number of workers; default 1.
	Workers int
	// Cores pins worker i to CPU Cores[i]; empty leaves the threads free.
	Cores []int
	// Batch is the number of packets a worker carries at once; default and largest 64.
	Batch int
	// Spin is how long an idle worker looks at its rings before it sleeps; default 50 µs.
	Spin time.Duration
	// Frames is the number of frames of 4096 bytes in the UMEM; default enough for all rings.
	Frames int
	// Associations is the capacity of the association table, in each direction; default 65,536.
	Associations int
	// RingSize is the size of each of a socket's four rings, a power of two; default 2048.
	RingSize int
	// Ports are the interfaces.
	Ports []PortConfig
	// PinDir is the bpffs directory of this instance; it must not be shared.
	PinDir string
	// Instance marks the virtual interfaces as this engine's.
	Instance string
	// TUN names the device through which packets reach the kernel; "" for none.
	TUN string
	// ClampMSS fits TCP's maximum segment size to the tunnels.
	ClampMSS bool
	// DiscardUnmatched drops cleartext that no policy matches, if it reaches a worker.
	DiscardUnmatched bool
	// OwnChanged is told the gateway's addresses, at first and whenever they change. It must
	// not call the engine.
	OwnChanged func([]netip.Addr)
	// FIB replaces the kernel's routes, for engines in memory.
	FIB *fib.Table
	// IKE asks for a way for IKE datagrams, see [Engine.IKE]. Without it the kernel gets them.
	IKE bool
}

// PortConfig describes one port.
type PortConfig struct {
	// Name is the interface's name.
	Name string
	Role worker.Role
	// Mode asks for a way to attach, one of [Modes]; "" is "auto".
	Mode string
	// Queues replaces the interface by queues in memory, one for each RX queue.
	Queues []worker.Queue
}

// Modes are the ways to attach that can be asked for:
//
//	auto       XDP in the driver, or behind it if the driver has none; zero-copy if every interface has it
//	native     XDP in the driver or not at all
//	generic    XDP behind the driver, with copies
//	copy       XDP in the driver, with copies
//	zero-copy  XDP in the driver and zero-copy, or not at all
var Modes = []string{"auto", "native", "generic", "copy", "zero-copy"}

// Policies is what Apply makes the engine follow.
type Policies struct {
	// SPD are the policies in order.
	SPD []spd.Policy
	// Endpoints are our outer addresses, those of the tunnels.
	Endpoints []netip.Addr
	// Roles are the ports' roles by name; nil leaves them as they are. Ports cannot come or
	// go this way.
	Roles map[string]worker.Role
	// Interfaces are the virtual interfaces, which may come and go.
	Interfaces []Interface
}

// defaults of Config.
const (
	spinDefault         = 50 * time.Microsecond
	associationsDefault = 1 << 16
	ringDefault         = 2048
)

func (c Config) withDefaults() Config {
	if c.Workers == 0 {
		c.Workers = 1
	}
	if c.Batch == 0 {
		c.Batch = packet.BatchMax
	}
	if c.Spin == 0 {
		c.Spin = spinDefault
	}
	if c.Associations == 0 {
		c.Associations = associationsDefault
	}
	if c.RingSize == 0 {
		c.RingSize = ringDefault
	}
	return c
}

func (c *Config) check() error {
	switch {
	case c.Workers < 1 || c.Workers > 64:
		return fmt.Errorf("workers: %d is not between 1 and 64", c.Workers)
	case len(c.Cores) != 0 && len(c.Cores) != c.Workers:
		return fmt.Errorf("cores: %d named for %d workers", len(c.Cores), c.Workers)
	case c.Batch < 1 || c.Batch > packet.BatchMax:
		return fmt.Errorf("batch: %d is not between 1 and %d", c.Batch, packet.BatchMax)
	case c.RingSize < 64 || c.RingSize&(c.RingSize-1) != 0:
		return fmt.Errorf("ring size: %d is not a power of two from 64", c.RingSize)
	case len(c.Ports) > bpf.PortsMax:
		return fmt.Errorf("%d interfaces; %d are possible", len(c.Ports), bpf.PortsMax)
	}
	for _, p := range c.Ports {
		if p.Mode != "" && !slices.Contains(Modes, p.Mode) {
			return fmt.Errorf("interface %s: mode %q is none of %v", p.Name, p.Mode, Modes)
		}
	}
	return nil
}

// Engine is a running packet path. Its methods may be called from any goroutine; none
// of them is on the packet path.
type Engine struct {
	cfg    Config
	keeper keeper.Keeper
	log    zerolog.Logger

	ike    *IKEPort    // nil without Config.IKE
	events func(Event) // nil if nobody wants to know

	umem  *xsk.UMEM
	sad   *sad.Table
	group *worker.Group

	policing  sync.Mutex // held while policies are compiled; taken before mu
	instances *instances

	mu       sync.Mutex // guards what follows
	running  bool       // the workers run
	stopping bool
	tables   worker.Tables
	policies Policies
	tablesOf map[string]*spd.Table // of the policies of each interface
	nothing  *spd.Table            // of an interface without any
	virtual  map[string]*virtual   // every interface there ever was
	learned  []netip.Addr          // endpoints besides those of policies
	ports    []*port
	steering *bpf.Steering
	steered  steered
	domain   *xsk.Domain
	watcher  *fib.Watcher
	device   *keeper.TUN
	tunQueue *memio.Queue
	tunMTU   int
	pump     *tun.Pump

	workers sync.WaitGroup
	done    chan struct{} // closed by Stop
	others  sync.WaitGroup
	balance balancer
	retired retired
	watches watches
	flights flights
	// endpoints are all of them, for readers without mu.
	endpoints atomic.Pointer[endpoints]
	paths     pathCounters
	busy      atomic.Pointer[[]float64] // each worker's share of the last second; nil in the first
}

// New returns an engine with its memory and tables, attached to nothing yet.
func New(cfg Config, k keeper.Keeper, log zerolog.Logger) (*Engine, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg, keeper: k, log: log, done: make(chan struct{}), instances: newInstances(), virtual: map[string]*virtual{}}
	if cfg.IKE {
		e.ike = &IKEPort{engine: e}
	}
	for i, pc := range cfg.Ports {
		p, err := newPort(uint16(i), pc)
		if err != nil {
			return nil, err
		}
		e.ports = append(e.ports, p)
	}
	if e.cfg.Frames == 0 {
		e.cfg.Frames = e.framesWanted()
	}
	if err := e.build(); err != nil {
		e.release()
		return nil, err
	}
	return e, nil
}

// framesWanted is enough to fill every ring of every queue and still have a batch in each
// worker's hands, and fragments that wait for others.
func (e *Engine) framesWanted() int {
	queues := 1 // TUN
	for _, p := range e.ports {
		queues += max(len(p.config.Queues), p.queues)
	}
	ike := 0
	if e.ike != nil {
		ike = (queues + e.cfg.Workers) * 2 * ikeRing
	}
	return queues*2*e.cfg.RingSize + ike + e.cfg.Workers*(16*packet.BatchMax+worker.FragmentFrames)
}

func (e *Engine) build() (err error) {
	if e.keeper != nil {
		if err := e.keeper.RaiseMemlock(); err != nil {
			e.log.Warn().Err(err).Msg("the memlock limit stays as it is; registering frames may fail")
		}
	}
	if e.umem, err = xsk.NewUMEM(e.cfg.Frames); err != nil {
		return err
	}
	if e.sad, err = sad.New(sad.Config{Capacity: e.cfg.Associations, Workers: e.cfg.Workers}); err != nil {
		return err
	}
	e.group, err = worker.NewGroup(worker.Config{
		Workers: e.cfg.Workers, Mem: e.umem.Mem(), Frames: e.cfg.Frames,
		SAD: e.sad, Batch: e.cfg.Batch, Resolve: e.resolve,
	})
	if err != nil {
		return err
	}
	empty, err := spd.Build(nil)
	if err != nil {
		return err
	}
	e.nothing = empty
	e.tables = worker.Tables{
		SPD: empty, FIB: e.cfg.FIB, TUN: worker.NoPort, IKE: worker.NoPort,
		ClampMSS: e.cfg.ClampMSS, DiscardUnmatched: e.cfg.DiscardUnmatched,
	}
	if e.tables.FIB == nil {
		e.tables.FIB = fib.Build(math.MaxUint32, nil) // no later snapshot has this generation
	}
	for _, p := range e.ports {
		e.tables.Ports = append(e.tables.Ports, worker.Port{Name: p.config.Name, Role: p.config.Role})
	}
	if e.ike != nil {
		if err := e.buildIKE(); err != nil {
			return err
		}
	}
	e.follow()
	e.publishTables()
	return nil
}

// publishTables gives the workers a copy of e.tables. The caller holds e.mu, or nobody else knows e.
func (e *Engine) publishTables() {
	t := e.tables
	t.Ports = slices.Clone(t.Ports)
	e.group.SetTables(&t)
}

// resolve asks for a neighbour; called by workers, it never blocks.
func (e *Engine) resolve(ifindex int, addr netip.Addr) {
	if e.watcher != nil {
		e.watcher.Resolve(ifindex, addr)
	}
}

// Apply makes the engine follow a new set of policies. If the steering program has no room for them (bpf.ErrNoRoom), they are refused. Steering follows in the order that never leaves
// a moment with less protection than both the old and the new set give.
//
// Negotiated policies stay, before those that they are of by name.
func (e *Engine) Apply(p Policies) error {
	e.policing.Lock()
	defer e.policing.Unlock()
	all, ended := e.instances.among(p.SPD)
	main, of, err := separate(all)
	if err != nil {
		e.instances.again(ended)
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.steerable(main, slices.Concat(p.Endpoints, e.learned)); err != nil {
		e.instances.again(ended)
		return err
	}
	gone, err := e.applyInterfaces(p.Interfaces)
	if err == nil {
		err = e.applyRoles(p.Roles)
	}
	if err != nil {
		e.instances.again(ended)
		return err
	}
	for _, v := range gone {
		v.gone = true
	}
	e.obeyTables(main, of)
	e.instances.rest(ended, time.Now())
	e.policies = p
	e.follow()
	e.publishTables()
	if e.watcher != nil {
		e.watcher.SetVirtual(e.watched())
	}
	for _, v := range gone {
		e.closeInterface(v)
	}
	e.steer() // what fails is tried again, see Stats
	return nil
}

// Install adds an association. Our outer address of an inbound one becomes an endpoint.
func (e *Engine) Install(p sad.Params) (sad.Handle, error) {
	if p.Interface != "" {
		var err error
		if p.InterfaceNumber, err = e.numberOf(p.Interface); err != nil {
			return 0, err
		}
	}
	h, err := e.sad.Install(p)
	if err != nil {
		return 0, err
	}
	if err := e.learn(h, p.Local); err != nil {
		e.sad.Remove(h)
		return 0, err
	}
	return h, nil
}

// Remove ends an association. Its key is zeroed as soon as no worker can still hold it.
func (e *Engine) Remove(h sad.Handle) error {
	e.retired.forget(h)
	return e.sad.Remove(h)
}

// Bind makes the protect policies of this tunnel use the outbound association h; 0 leaves them
// without one, and their packets are dropped.
func (e *Engine) Bind(tunnel uint32, h sad.Handle) error { return e.sad.Bind(tunnel, h.Value()) }

// Bound says whether an installed outbound association is bound to this tunnel.
func (e *Engine) Bound(tunnel uint32) bool {
	return e.sad.LookupOutbound(e.sad.Bound(tunnel)) != nil
}
