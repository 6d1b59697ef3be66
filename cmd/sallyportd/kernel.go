package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"sallyport/cmd/internal/config"
	"sallyport/cmd/internal/control"
	"sallyport/dataplane"
	"sallyport/dataplane/keeper"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/worker"
)

// kernel is the platform of the real daemon.
var kernel = newKernel()

func newKernel() platform {
	r := new(routes)
	return platform{
		fences: func() (fencer, error) { return r, r.open() },
		engine: func(c *config.Config, log zerolog.Logger) (engine, exchanger, error) {
			p, err := newPackets(c, r, log)
			if err != nil || !c.Negotiates() {
				return p, silent{}, err
			}
			x, err := newExchange(c, p.Engine, log)
			if err != nil {
				return nil, nil, errors.Join(err, p.Stop())
			}
			p.exchange.Store(x)
			x.associations.virtual = func(add, remove []netip.Addr) { p.virtual(add, remove, log) }
			x.associations.follow = func(policies []config.Policy) {
				if err := r.follow(func(r *routes) { r.negotiated = policies }); err != nil {
					log.Error().Err(err).Msg("routes from virtual addresses")
				}
			}
			return p, x, nil
		},
	}
}

// routes keeps the daemon's own routes in the kernel: a fence for every protected prefix, and above
// it, while the engine runs, the way into TUN for the gateway's own traffic.
type routes struct {
	keeper keeper.Keeper

	mu       sync.Mutex
	fences   []config.Fence
	policies []config.Policy
	// negotiated are the policies of children for virtual addresses of ours, or for peers in transport mode.
	negotiated []config.Policy
	endpoints  []netip.Addr
	own        []netip.Addr
	tun        string // "" while there is none
}

func (r *routes) open() error {
	if r.keeper != nil {
		return nil
	}
	local, err := keeper.NewLocal()
	if err != nil {
		return err
	}
	r.keeper = local
	return nil
}

// Fence makes the fences exactly these.
func (r *routes) Fence(fences []config.Fence) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fences = slices.Clone(fences)
	return r.reconcile()
}

// Reserve makes the virtual interfaces of a configuration, with their addresses.
func (r *routes) Reserve(c *config.Config) error {
	for _, i := range interfaces(c) {
		device, err := r.keeper.OpenInterface(i.Name, c.File.Instance, i.MTU)
		if err != nil {
			return err
		}
		device.File.Close()
		for _, a := range i.Addresses {
			if err := r.keeper.AddAddress(i.Name, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// interfaces are the virtual interfaces of a configuration.
func interfaces(c *config.Config) (list []dataplane.Interface) {
	for _, i := range c.File.Interfaces {
		if !i.Virtual() {
			continue
		}
		v := dataplane.Interface{Name: i.Name, MTU: int(i.MTU)}
		for _, a := range i.Addrs {
			v.Addresses = append(v.Addresses, a.Prefix)
		}
		list = append(list, v)
	}
	return list
}

// follow adapts the ways into TUN to new policies, own addresses, or a device that came.
func (r *routes) follow(change func(*routes)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
	return r.reconcile()
}

// addresses returns the host's addresses as they are now.
func (r *routes) addresses() []netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.own)
}

// reconcile brings the kernel's table in line. A way into TUN exists for a fenced prefix only if the
// gateway has an address that the policy lets use the tunnel; its own packets get it as
// their source. Without one the fence answers them. The caller holds r.mu.
func (r *routes) reconcile() error {
	var want []keeper.Route
	var from []netip.Prefix
	protecting := r.protecting()
	protect := func(p netip.Prefix) {
		want = append(want, keeper.Fence(p))
		if r.tun == "" {
			return
		}
		if source, ok := r.source(protecting[p]); ok {
			want = append(want, keeper.Through(p, r.tun, source))
		}
	}
	for _, f := range r.fences {
		if f.From {
			from = append(from, f.Prefix)
			continue
		}
		protect(f.Prefix)
	}
	for _, p := range r.peers() {
		protect(p)
	}
	for _, policy := range r.negotiated {
		for _, s := range policy.Selectors {
			if !slices.ContainsFunc(s.Remote, func(x spd.Range) bool { return x.First.IsUnspecified() }) {
				continue
			}
			for _, l := range s.Local {
				for _, p := range l.Prefixes() {
					if !slices.Contains(from, p) && p.Bits() > 0 {
						from = append(from, p)
					}
				}
			}
		}
	}
	return errors.Join(r.keeper.ReconcileRoutes(want), r.keeper.ReconcileSources(from, r.tun))
}

// peers returns the addresses of peers in transport mode that no fence names.
func (r *routes) peers() (list []netip.Prefix) {
	for _, policy := range r.negotiated {
		if !policy.Transport {
			continue
		}
		for _, s := range policy.Selectors {
			for _, remote := range s.Remote {
				for _, p := range remote.Prefixes() {
					if !slices.Contains(list, p) && !slices.ContainsFunc(r.fences, func(f config.Fence) bool { return f.Prefix == p }) {
						list = append(list, p)
					}
				}
			}
		}
	}
	return list
}

// protecting returns the selectors of the policies that protect a remote prefix, in the order of the policies.
func (r *routes) protecting() map[netip.Prefix][]spd.Selector {
	all := make(map[netip.Prefix][]spd.Selector)
	for _, list := range [][]config.Policy{r.negotiated, r.policies} {
		for _, policy := range list {
			if policy.Action != spd.Protect || policy.Interface != "" {
				continue // what goes by a virtual interface has routes of others
			}
			for _, s := range policy.Selectors {
				for _, remote := range s.Remote {
					for _, p := range remote.Prefixes() {
						all[p] = append(all[p], s)
					}
				}
			}
		}
	}
	return all
}

// source finds an own address inside the local side of a policy that protects a prefix: one that a peer can
// answer, and an outer address only if there is no other.
func (r *routes) source(policies []spd.Selector) (netip.Addr, bool) {
	var outer netip.Addr
	for _, s := range policies {
		for _, own := range r.own {
			if !own.IsGlobalUnicast() || !slices.ContainsFunc(s.Local, func(x spd.Range) bool { return x.Contains(own) }) {
				continue
			}
			if !slices.Contains(r.endpoints, own) {
				return own, true
			}
			if !outer.IsValid() {
				outer = own
			}
		}
	}
	return outer, outer.IsValid()
}

// packets is the packet engine behind the daemon's interface.
type packets struct {
	*dataplane.Engine
	routes *routes
	tun    string

	exchange atomic.Pointer[exchange] // nil without negotiation
	mu       sync.Mutex
	policies dataplane.Policies // as applied last
	any      bool               // every own address is an endpoint
	own      []netip.Addr
}

func newPackets(c *config.Config, r *routes, log zerolog.Logger) (*packets, error) {
	f := &c.File
	count, cores, err := place(f.Workers)
	if err != nil {
		return nil, err
	}
	p := &packets{routes: r, tun: f.Dataplane.TUN}
	cfg := dataplane.Config{
		Workers: count, Cores: cores, Batch: f.Workers.Batch, Spin: f.Workers.Spin.Duration,
		Frames: int(f.Dataplane.Frames), Associations: f.Dataplane.Associations, RingSize: f.Dataplane.RingSize,
		PinDir: f.Dataplane.PinDir, Instance: f.Instance, TUN: f.Dataplane.TUN,
		ClampMSS: f.Dataplane.MSSClamp, DiscardUnmatched: f.Dataplane.Unmatched == "discard",
		IKE: c.Negotiates(),
		OwnChanged: func(own []netip.Addr) {
			if err := r.follow(func(r *routes) { r.own = own }); err != nil {
				log.Error().Err(err).Msg("routes for the gateway's own traffic")
			}
			go func() { // the engine must not be called from here
				if err := p.ownChanged(); err != nil {
					log.Error().Err(err).Msg("endpoints do not follow the gateway's own addresses")
				}
			}()
		},
	}
	for _, i := range f.Interfaces {
		if i.Virtual() {
			continue
		}
		cfg.Ports = append(cfg.Ports, dataplane.PortConfig{Name: i.Name, Role: roleOf(i.Role), Mode: i.XDPMode})
	}
	p.Engine, err = dataplane.New(cfg, r.keeper, log)
	return p, err
}

func roleOf(s string) worker.Role {
	return map[string]worker.Role{"protected": worker.Protected, "outside": worker.Outside, "both": worker.Protected | worker.Outside}[s]
}

// Start starts the engine and then leads the gateway's own traffic into it.
func (p *packets) Start() error {
	if err := p.Engine.Start(); err != nil {
		return err
	}
	if err := p.routes.follow(func(r *routes) { r.tun = p.tun }); err != nil {
		return fmt.Errorf("routes for the gateway's own traffic: %w", err)
	}
	return nil
}

// Stop stops the engine; the routes into TUN go with the device.
func (p *packets) Stop() error {
	err := p.Engine.Stop()
	p.Engine.Close()
	return err
}

// Apply makes the engine follow c's policies, endpoints and roles.
func (p *packets) Apply(c *config.Config, tunnels map[string]uint32) error {
	set := dataplane.Policies{Endpoints: c.Endpoints, Interfaces: interfaces(c), Roles: map[string]worker.Role{}}
	for _, i := range c.File.Interfaces {
		if !i.Virtual() {
			set.Roles[i.Name] = roleOf(i.Role)
		}
	}
	for _, policy := range c.Policies {
		set.SPD = append(set.SPD, spd.Policy{
			Name: policy.Name, Action: policy.Action, Selectors: policy.Selectors, Tunnel: tunnels[policy.Tunnel], Transport: policy.Transport, Interface: policy.Interface,
		})
	}
	p.mu.Lock()
	p.policies, p.any = set, c.AnyEndpoint
	err := p.Engine.Apply(p.complete())
	p.mu.Unlock()
	if err != nil {
		return err
	}
	return p.routes.follow(func(r *routes) { r.policies, r.endpoints = c.Policies, c.Endpoints })
}

// complete returns the policies with every endpoint there is. The caller holds p.mu.
func (p *packets) complete() dataplane.Policies {
	set := p.policies
	if !p.any {
		return set
	}
	set.Endpoints = slices.Clone(set.Endpoints)
	for _, own := range p.own {
		if own.IsGlobalUnicast() && !slices.Contains(set.Endpoints, own) {
			set.Endpoints = append(set.Endpoints, own)
		}
	}
	return set
}

// ownChanged follows the host's addresses, where any of them may be an endpoint. Late calls change nothing.
func (p *packets) ownChanged() error {
	p.mu.Lock()
	p.own = p.routes.addresses()
	var err error
	if p.any {
		err = p.Engine.Apply(p.complete())
	}
	p.mu.Unlock()
	if x := p.exchange.Load(); x != nil {
		x.AddressesChanged()
	}
	return err
}

// virtual gives TUN the virtual addresses that peers gave us, and takes back what they took.
func (p *packets) virtual(add, remove []netip.Addr, log zerolog.Logger) {
	for _, a := range add {
		if err := p.routes.keeper.AddAddress(p.tun, netip.PrefixFrom(a, a.BitLen())); err != nil {
			log.Error().Err(err).Stringer("address", a).Msg("a virtual address was not set")
			continue
		}
		log.Info().Stringer("address", a).Str("interface", p.tun).Msg("virtual address")
	}
	for _, a := range remove {
		if err := p.routes.keeper.DeleteAddress(p.tun, netip.PrefixFrom(a, a.BitLen())); err != nil {
			log.Warn().Err(err).Stringer("address", a).Msg("a virtual address was not removed")
		}
	}
}

// Install installs an association; the table copies the key.
func (p *packets) Install(a *config.Association) (uint32, error) {
	params := sad.Params{
		Name: a.Name, SPI: a.SPI, Inbound: a.Inbound, Suite: a.Proposal.Suite, Keymat: a.Key.Bytes(),
		Local: a.Local, Remote: a.Remote, Encap: a.Encap, Transport: a.Transport, AH: a.AH, LocalPort: a.LocalPort, RemotePort: a.RemotePort,
		UDPChecksum: a.UDPChecksum, ESN: a.Proposal.ESN, Window: a.Window, Selectors: a.Selectors,
		Outer: a.Outer, Interface: a.Interface, Carrier: a.Carrier, Manual: true, Filter: a.Filter, Limit: a.Limit, Created: time.Now(),
	}
	if ah := a.Around; ah != nil {
		params.Bundle = &sad.Bundle{SPI: ah.SPI, Suite: ah.Proposal.Suite, Keymat: ah.Key.Bytes(), ESN: ah.Proposal.ESN, Window: a.Window}
	}
	h, err := p.Engine.Install(params)
	return h.Value(), err
}

// Remove ends an association: an outbound one when the packets that are on their way through it have left.
func (p *packets) Remove(inbound bool, handle uint32) error {
	if inbound {
		return p.Engine.Remove(sad.InboundHandle(handle))
	}
	return p.Engine.Retire(sad.Handle(handle), dataplane.GraceOutbound)
}

// Bind gives a tunnel its outbound association.
func (p *packets) Bind(tunnel, outbound uint32) error {
	return p.Engine.Bind(tunnel, sad.Handle(outbound))
}

// Ready says whether a tunnel has an outbound association to send by.
func (p *packets) Ready(tunnel uint32) bool { return p.Engine.Bound(tunnel) }

// Snapshot translates the engine's counters into the control socket's terms.
func (p *packets) Snapshot() snapshot {
	s := p.Engine.Stats()
	out := snapshot{Drops: s.Drops, XDP: []control.Named{}, Workers: []control.Worker{}, Ports: []control.Port{}}
	t := &s.Total
	out.Totals = control.Totals{
		Received: t.Received, Originated: t.Originated, Sent: t.Sent, Punted: t.Punted, Delivered: t.Delivered, Merged: t.Merged, Dropped: t.Dropped,
		BytesIn: t.ReceivedBytes, BytesOut: t.SentBytes, SentESP: t.SentESP,
		Fragments: control.Fragments{Fragmented: t.Fragmented, FragmentedESP: t.FragmentedESP, Reassembled: t.Reassembled},
	}
	out.Paths, out.Failed, out.Pending = control.Paths(s.Paths), s.Steering.Failed, s.Steering.Pending
	for i := range s.Workers {
		w := &s.Workers[i]
		out.Workers = append(out.Workers, control.Worker{
			Worker: w.Worker, Core: w.Core, Busy: w.Busy, PacketsIn: w.Received, BytesIn: w.ReceivedBytes,
			PacketsOut: w.Sent, BytesOut: w.SentBytes, Sealed: w.Sealed, Opened: w.Opened,
			Drops: w.Dropped, Sleeps: w.Sleeps, Handovers: w.HandedOut, FramesFree: w.FreeFrames,
		})
	}
	for _, q := range s.Ports {
		out.Ports = append(out.Ports, port(&q))
	}
	for _, v := range s.XDP {
		out.XDP = append(out.XDP, control.Named{Name: v.Name, Value: v.Packets, Sentence: v.Sentence})
	}
	return out
}

func port(p *dataplane.PortStats) control.Port {
	out := control.Port{Name: p.Name, Role: roleName(p.Role), Mode: p.Mode, Reason: p.Reason, Up: p.Up, MTU: p.MTU, Queues: []control.Queue{}}
	if p.TUN {
		out.Role = "kernel"
	}
	for _, q := range p.Queues {
		out.Queues = append(out.Queues, control.Queue{
			Queue: q.Queue, Worker: q.Worker, Received: q.Received, Sent: q.Sent,
			RxDropped: q.Stats.RxDropped, RxInvalid: q.Stats.RxInvalid, TxInvalid: q.Stats.TxInvalid,
			RxRingFull: q.Stats.RxRingFull, FillEmpty: q.Stats.FillEmpty, TxEmpty: q.Stats.TxRingEmpty,
		})
	}
	return out
}

func roleName(r worker.Role) string {
	switch r {
	case worker.Protected:
		return "protected"
	case worker.Outside:
		return "outside"
	}
	return "both"
}

// SAs lists the live associations.
func (p *packets) SAs() []control.SA {
	var out []control.SA
	p.Engine.Associations(func(i *sad.Info) bool {
		if i.Retiring {
			return true
		}
		a := association(i)
		a.InnerMTU = p.Engine.InnerMTU(i.Handle)
		out = append(out, a)
		return true
	})
	return out
}

// Associations counts the live associations.
func (p *packets) Associations() (n int) {
	p.Engine.Associations(func(*sad.Info) bool { n++; return true })
	return n
}

// terms says in words what holds for an association's inner packets.
func terms(p *sad.Params) (list []string) {
	if f := p.Filter; f != nil {
		list = append(list, f.String())
	}
	for _, l := range []struct {
		rate uint64
		unit string
	}{{p.Limit.Packets, "packets/s"}, {p.Limit.Bytes, "bytes/s"}} {
		if l.rate > 0 {
			list = append(list, fmt.Sprintf("limit %d %s, burst %v", l.rate, l.unit, p.Limit.Burst))
		}
	}
	return list
}

// choices says in words what of an association's outer packets is not as usual, and in its direction's power.
func choices(p *sad.Params) (list []string) {
	add := func(say bool, format string, args ...any) {
		if say {
			list = append(list, fmt.Sprintf(format, args...))
		}
	}
	if p.Inbound {
		add(p.AdoptDSCP && !p.Transport, "DSCP of the outer header")
		return list
	}
	add(p.TFC == sad.TFCPath, "padded to the path MTU")
	add(p.TFC != 0 && p.TFC != sad.TFCPath, "padded to %d bytes", p.TFC)
	add(p.Fragment, "fragments after encryption")
	if !p.Transport {
		add(!p.CopyDSCP, "DSCP %d", p.DSCP)
		add(p.CopyTTL, "TTL copied")
		add(p.TTL != 0 && !p.CopyTTL, "TTL %d", p.TTL)
		add(!p.CopyDF && p.SetDF, "DF set")
		add(!p.CopyDF && !p.SetDF, "DF clear")
		add(!p.ECN, "no ECN")
	}
	return list
}

func association(i *sad.Info) control.SA {
	a := control.SA{
		Name: i.Params.Name, Direction: "out", SPI: fmt.Sprintf("0x%08x", i.Params.SPI), Suite: i.Params.Suite.String(), ESN: i.Params.ESN,
		Local: i.Params.Local.String(), Remote: i.Params.Remote.String(), Protocol: "ESP", Mode: "tunnel", Encap: "none", Sequence: i.Sequence,
		Packets: i.Packets, Bytes: i.Bytes, Worker: i.Owner, Manual: i.Params.Manual, InstalledAt: i.Params.Created, Drops: []control.Drop{},
	}
	a.Interface, a.Encapsulation = i.Params.Interface, i.Params.Carrier.String()
	if a.Encapsulation != "" {
		a.Mode = "transport"
	}
	a.LocalTS, a.RemoteTS = sides(i.Params.Selectors)
	if i.Params.Encap {
		a.Encap = "udp"
	}
	a.Terms = append(terms(&i.Params), choices(&i.Params)...)
	life := i.Params.Lifetime
	a.Volume = control.Volume{
		RekeyBytes: life.SoftBytes, LifeBytes: life.HardBytes, RekeyPackets: life.SoftPackets, LifePackets: life.HardPackets, SequenceLeft: i.SequenceLeft,
	}
	a.Path = control.Path{
		PathMTU: i.PathMTU, PathMTUAt: i.PathAt, PathMTUUntil: i.PathUntil, PathMTUProbed: i.PathProbed,
		Fragmented: i.CutBefore, FragmentedESP: i.CutAfter,
	}
	if !i.Params.Inbound {
		a.Path.MTU = int(i.Params.MTU)
	}
	if i.Params.Transport {
		a.Mode = "transport"
	}
	if i.Params.AH {
		a.Protocol = "AH"
	}
	if i.Bundled != 0 {
		a.Bundled = fmt.Sprintf("0x%08x", i.Bundled)
	}
	if i.Params.Inbound {
		a.Direction, a.Window = "in", i.Params.Window
	}
	for _, d := range []struct {
		name  string
		count uint64
	}{
		{"replayed", i.Replayed}, {"too-old", i.TooOld}, {"bad-icv", i.BadICV},
		{"too-big", i.TooBig}, {"sequence-exhausted", i.Exhausted},
		{"filtered", i.Filtered}, {"rate-limited", i.Limited}, {"lifetime-ended", i.Ended}, {"other", i.OtherDrops},
	} {
		if d.count > 0 {
			a.Drops = append(a.Drops, control.Drop{Name: d.name, Packets: d.count})
		}
	}
	return a
}
