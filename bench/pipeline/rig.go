package pipeline

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/rs/zerolog"

	"sallyport/dataplane"
	"sallyport/dataplane/fib"
	"sallyport/dataplane/memio"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/worker"
)

// Ports of the rig.
const (
	inside = iota
	outside
)

// The rig's addresses: the gateway, its peer, and the networks behind them. In IPv6 others stand for them, see addrOf.
var (
	ours      = netip.MustParseAddr("192.0.2.1")
	theirs    = netip.MustParseAddr("192.0.2.2")
	ourNet    = netip.MustParsePrefix("198.51.100.0/24")
	theirNet  = netip.MustParsePrefix("198.18.0.0/15")
	firstESN  = uint64(1<<32 - 100) // outbound numbers begin here, so that both halves are in use
	etherHead = []byte{2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 8, 0}
)

// Rig is a gateway with the sources and sinks of its workers.
type Rig struct {
	// Lanes are the workers with their sources. Each may be used by a goroutine of its own.
	Lanes []*Lane
	// Witness, if set, watches the cores during Measure.
	Witness *Witness

	o      Options
	parts  []*Rig // of NewSeparate
	engine *dataplane.Engine
	queues []*memio.Queue
	far    []farEnd
	begun  time.Time
}

// New makes a rig. Close gives its memory back.
func New(o Options) (*Rig, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	r := &Rig{o: o, begun: time.Now()}
	if err := r.open(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// NewSeparate makes a rig of as many gateways as it has workers, each with one of them and its share of the associations: what so many workers carry
// that share nothing but the machine.
func NewSeparate(o Options) (*Rig, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	all := &Rig{o: o}
	for i := range o.Workers {
		one := o
		one.Workers, one.Flows, one.Associations = 1, max(o.Flows/o.Workers, 1), (o.Associations-i+o.Workers-1)/o.Workers
		r, err := New(one)
		if err != nil {
			all.Close()
			return nil, err
		}
		all.parts, all.Lanes = append(all.parts, r), append(all.Lanes, r.Lanes...)
	}
	return all, nil
}

func (r *Rig) open() (err error) {
	hop := func(port uint16) fib.Hop {
		return fib.Hop{Kind: fib.Forward, Port: port, MTU: 1500, SrcMAC: [6]byte{2, 0, 0, 0, 2, byte(port)}, DstMAC: [6]byte{2, 0, 0, 0, 3, byte(port)}}
	}
	queues := func() []worker.Queue { return make([]worker.Queue, r.o.Workers) }
	r.engine, err = dataplane.New(dataplane.Config{
		Workers: r.o.Workers, RingSize: r.o.Ring, Associations: r.o.Associations + r.o.Spare, ClampMSS: true,
		FIB: fib.Build(1, r.routes(hop(inside), hop(outside))),
		Ports: []dataplane.PortConfig{
			{Name: "inside", Role: worker.Protected, Queues: queues()},
			{Name: "outside", Role: worker.Outside, Queues: queues()},
		},
	}, nil, zerolog.Nop())
	if err != nil {
		return err
	}
	ports := [2][]worker.Queue{queues(), queues()}
	for _, p := range ports {
		for i := range p {
			q, err := memio.NewQueue(r.engine.Mem(), r.o.Ring)
			if err != nil {
				return err
			}
			r.queues, p[i] = append(r.queues, q), q
		}
	}
	r.engine.SetQueues(inside, ports[inside])
	r.engine.SetQueues(outside, ports[outside])
	r.engine.SetOwn([]netip.Addr{r.endpoint()})
	workers, err := r.engine.Manual()
	if err != nil {
		return err
	}
	if err := r.install(); err != nil {
		return err
	}
	in, out := r.queues[:r.o.Workers], r.queues[r.o.Workers:]
	if r.o.Decrypt {
		in, out = out, in
	}
	for i, w := range workers {
		r.Lanes = append(r.Lanes, newLane(r, i, w, in[i], out[i]))
	}
	return nil
}

// routes lead to the network inside and to the peer, and if so asked into the virtual interface.
func (r *Rig) routes(inside, outside fib.Hop) []fib.Entry {
	k := r.o.Kind
	peer := addrOf(k.outer(), number4(theirs))
	list := []fib.Entry{{Prefix: prefixOf(k.inner(), ourNet), Hop: inside}, {Prefix: netip.PrefixFrom(peer, peer.BitLen()), Hop: outside}}
	if k == Route {
		list = append(list, fib.Entry{Prefix: theirNet, Hop: fib.Hop{Kind: fib.Tunnel, Port: 1, MTU: 1500}})
	}
	return list
}

// endpoint is the gateway's outer address.
func (r *Rig) endpoint() netip.Addr { return addrOf(r.o.Kind.outer(), number4(ours)) }

// virtualName is the name of the virtual interface, the engine's first.
const virtualName = "ipsec0"

// install makes the associations, both directions of each, and their policies.
func (r *Rig) install() error {
	policies := make([]spd.Policy, r.o.Associations)
	rules := dataplane.Policies{Endpoints: []netip.Addr{r.endpoint()}}
	if r.o.Kind == Route {
		rules.Interfaces = []dataplane.Interface{{Name: virtualName}}
		if err := r.engine.Apply(rules); err != nil {
			return err
		}
	}
	r.far = make([]farEnd, r.o.Associations)
	random := rand.NewChaCha8([32]byte{})
	for k := range policies {
		local, remote := r.o.networks(k)
		name := fmt.Sprint("tunnel ", k)
		p := r.params(name, local, remote, random)
		policies[k] = spd.Policy{Name: name, Action: spd.Protect, Selectors: p.Selectors, Tunnel: uint32(k), Interface: p.Interface}
		if err := r.far[k].init(p.Suite, p.Keymat); err != nil {
			return err
		}
		p.Inbound = true
		in, err := r.engine.Install(p)
		if err != nil {
			return err
		}
		p.Inbound, p.SPI, p.Sequence = false, 0x10000+uint32(k), firstESN
		out, err := r.engine.Install(p)
		if err != nil {
			return err
		}
		if err := r.engine.Bind(uint32(k), out); err != nil {
			return err
		}
		r.far[k].spi, r.far[k].seq = p.SPI, p.Sequence
		if r.o.Decrypt {
			r.far[k].spi, r.far[k].seq = in.Value(), 0
		}
	}
	rules.SPD = policies
	return r.engine.Apply(rules)
}

// params describe an association with a key of its own.
func (r *Rig) params(name string, local, remote netip.Prefix, random *rand.ChaCha8) sad.Params {
	k := r.o.Kind
	p := sad.Params{
		Name: name, Suite: r.o.Suite, Keymat: make([]byte, r.o.Suite.Info().KeyLen), Local: r.endpoint(), Remote: addrOf(k.outer(), number4(theirs)),
		ESN: true, Window: 4096, Outer: sad.Outer{CopyDSCP: true, CopyDF: true, ECN: true},
		Selectors: []spd.Selector{{
			Local: []spd.Range{spd.RangeOf(prefixOf(k.inner(), local))}, Remote: []spd.Range{spd.RangeOf(prefixOf(k.inner(), remote))},
			LocalPorts: spd.AnyPorts, RemotePorts: spd.AnyPorts,
		}},
	}
	switch k {
	case NATT:
		p.Encap, p.LocalPort, p.RemotePort = true, ourPort, theirPort
	case Route:
		p.Interface = virtualName
	}
	random.Read(p.Keymat)
	return p
}

// Round is the number of packets after which every lane has used all of its source.
func (r *Rig) Round() int {
	n := 0
	for _, l := range r.Lanes {
		n = max(n, len(l.source))
	}
	return n
}

// drops returns the drop counters that are not zero.
func (r *Rig) drops() map[string]uint64 {
	out := map[string]uint64{}
	for reason, n := range r.engine.Stats().Drops {
		if n > 0 {
			out[packet.Drop(reason).String()] = n
		}
	}
	return out
}

// Close gives the rig's memory back. No lane may be in use.
func (r *Rig) Close() {
	for _, p := range r.parts {
		p.Close()
	}
	for _, q := range r.queues {
		q.Close()
	}
	if r.engine != nil {
		r.engine.Close()
	}
}
