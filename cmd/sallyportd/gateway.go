package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sallyport/cmd/internal/config"
	"sallyport/cmd/internal/control"
	"sallyport/cmd/internal/version"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/spd"
)

// gateway holds the running configuration and carries changes of it to the
// engine. It answers the control socket.
type gateway struct {
	log     zerolog.Logger
	engine  engine
	keys    exchanger
	fences  fencer
	load    func() (*config.Config, error)
	started time.Time

	change sync.Mutex // one start or reload at a time; taken before mu
	used   config.Keys

	mu       sync.RWMutex // guards what the control socket reads
	config   *config.Config
	handles  map[string]uint32 // association ID → engine handle
	tunnels  map[string]uint32 // child → tunnel number, from 1 on
	reloaded time.Time
}

func newGateway(log zerolog.Logger, e engine, x exchanger, f fencer, load func() (*config.Config, error)) *gateway {
	return &gateway{
		log: log, engine: e, keys: x, fences: f, load: load, started: time.Now(), used: config.Keys{},
		config: &config.Config{}, handles: map[string]uint32{}, tunnels: map[string]uint32{},
	}
}

// start brings up a configuration: fences first, so that nothing leaks before
// the first packet is steered, policies before associations.
func (g *gateway) start(c *config.Config) error {
	g.change.Lock()
	defer g.change.Unlock()
	if err := g.fences.Fence(c.Fences); err != nil {
		return fmt.Errorf("fence routes: %w", err)
	}
	diff := &config.Change{Policies: true, Endpoints: true, Interfaces: true}
	for i := range c.Associations {
		diff.Install = append(diff.Install, &c.Associations[i])
	}
	if err := g.apply(c, diff); err != nil {
		return err
	}
	if err := g.engine.Start(); err != nil {
		return fmt.Errorf("starting the packet engine: %w", err)
	}
	if err := g.keys.Apply(c, g.tunnels); err != nil {
		return fmt.Errorf("starting the key exchange: %w", err)
	}
	return nil
}

// Reload reads the configuration again and touches what changed. On an error
// before the switch of policies everything is as it was.
func (g *gateway) Reload() (control.Reload, error) {
	g.change.Lock()
	defer g.change.Unlock()
	fresh, err := g.load()
	if err != nil {
		return control.Reload{}, fmt.Errorf("nothing was changed:\n%w", err)
	}
	// Of two configurations the one that is not kept loses its keys.
	old, unused := g.config, fresh
	defer func() { unused.ZeroKeys() }()
	diff, err := config.Diff(old, fresh, g.used)
	if err != nil {
		return control.Reload{}, fmt.Errorf("nothing was changed:\n%w", err)
	}
	// New fences stand before new policies; old ones fall after them.
	if len(diff.AddFences) > 0 {
		if err := g.fences.Fence(slices.Concat(g.config.Fences, diff.AddFences)); err != nil {
			return control.Reload{}, errors.Join(fmt.Errorf("nothing was changed: fence routes: %w", err), g.fences.Fence(g.config.Fences))
		}
	}
	if err := g.apply(fresh, diff); err != nil {
		return control.Reload{}, errors.Join(err, g.fences.Fence(g.config.Fences))
	}
	unused = old
	if err := g.keys.Apply(fresh, g.tunnels); err != nil {
		g.log.Error().Err(err).Msg("the key exchange keeps its former configuration")
	}
	if len(diff.RemoveFences) > 0 {
		if err := g.fences.Fence(fresh.Fences); err != nil {
			g.log.Warn().Err(err).Msg("fence routes of prefixes that are no longer protected are still there")
		}
	}
	if diff.LogLevel {
		zerolog.SetGlobalLevel(level(fresh))
	}
	g.mu.Lock()
	g.reloaded = time.Now()
	g.mu.Unlock()
	r := control.Reload{
		Installed: len(diff.Install), Removed: len(diff.Remove), Unchanged: len(fresh.Associations) - len(diff.Install),
		PoliciesChanged: diff.Policies, EndpointsChanged: diff.Endpoints, PortsChanged: diff.Interfaces, LogLevelChanged: diff.LogLevel, Warnings: texts(fresh.Warnings),
		Connections: len(fresh.Connections),
	}
	g.log.Info().Int("installed", r.Installed).Int("removed", r.Removed).Int("unchanged", r.Unchanged).
		Bool("policies", r.PoliciesChanged).Bool("endpoints", r.EndpointsChanged).Bool("ports", r.PortsChanged).Bool("log_level", r.LogLevelChanged).Msg("configuration reloaded")
	return r, nil
}

// apply carries a difference out, in this order:
//
//  1. install inbound associations, then outbound ones, beside the old;
//  2. switch policies, endpoints and ports;
//  3. bind tunnels to the new outbound associations;
//  4. remove the old associations.
//
// An error in 1 or 2 takes back what was installed. One thing cannot be taken
// back: an inbound association that is replaced under the same SPI.
func (g *gateway) apply(c *config.Config, diff *config.Change) error {
	tunnels := g.number(c)
	removed := map[string]bool{}
	fresh := map[string]uint32{}
	order := slices.Clone(diff.Install)
	slices.SortStableFunc(order, func(a, b *config.Association) int {
		return cmp.Compare(direction(a), direction(b))
	})
	undo := func() error {
		var failed []error
		for _, a := range order {
			if h, ok := fresh[a.ID()]; ok {
				failed = append(failed, g.engine.Remove(a.Inbound, h))
			}
		}
		return errors.Join(failed...)
	}
	for _, a := range order {
		for _, old := range diff.Remove {
			shared := func(spi uint32) bool { return slices.Contains(a.SPIs(), spi) }
			if a.Inbound && old.Inbound && slices.ContainsFunc(old.SPIs(), shared) && !removed[old.ID()] {
				if err := g.remove(old); err != nil {
					return errors.Join(err, undo())
				}
				removed[old.ID()] = true
			}
		}
		h, err := g.engine.Install(a)
		if err != nil {
			return errors.Join(fmt.Errorf("installing %s: %w", a.ID(), err), undo())
		}
		g.used.Use(a)
		fresh[a.ID()] = h
	}
	if diff.Policies || diff.Endpoints || diff.Interfaces {
		if err := g.engine.Apply(c, tunnels); err != nil {
			return errors.Join(fmt.Errorf("applying policies, endpoints and interfaces: %w", err), undo())
		}
	}
	var failed []error
	bound := map[string]bool{}
	for _, a := range order {
		if !a.Inbound {
			failed = append(failed, g.engine.Bind(tunnels[a.Name], fresh[a.ID()]))
			bound[a.Name] = true
		}
	}
	for _, old := range diff.Remove {
		if !old.Inbound && !bound[old.Name] {
			failed = append(failed, g.engine.Bind(g.tunnels[old.Name], 0))
		}
		if !removed[old.ID()] {
			// The old outbound and its replacement may share an ID (same SPI, fresh key): remove by the old handle.
			failed = append(failed, g.remove(old))
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, h := range fresh {
		g.handles[id] = h
	}
	g.config, g.tunnels = c, tunnels
	if err := errors.Join(failed...); err != nil {
		g.log.Error().Err(err).Msg("the change is not carried out wholly")
	}
	return nil
}

// remove takes an association of the running configuration out of the engine.
func (g *gateway) remove(a *config.Association) error {
	g.mu.Lock()
	h, ok := g.handles[a.ID()]
	delete(g.handles, a.ID())
	g.mu.Unlock()
	if !ok {
		return nil
	}
	if err := g.engine.Remove(a.Inbound, h); err != nil {
		return fmt.Errorf("removing %s: %w", a.ID(), err)
	}
	return nil
}

func direction(a *config.Association) int {
	if a.Inbound {
		return 0
	}
	return 1
}

// number gives every protected child a tunnel number, the one it has already or
// the smallest free one.
func (g *gateway) number(c *config.Config) map[string]uint32 {
	out, taken := map[string]uint32{}, map[uint32]bool{}
	for _, n := range g.tunnels {
		taken[n] = true // numbers of vanishing children too: the old policies still use them
	}
	next := uint32(1)
	for _, p := range c.Policies {
		if p.Action != spd.Protect {
			continue
		}
		if n, ok := g.tunnels[p.Tunnel]; ok {
			out[p.Tunnel] = n
			continue
		}
		if _, ok := out[p.Tunnel]; ok {
			continue
		}
		for taken[next] {
			next++
		}
		out[p.Tunnel], taken[next] = next, true
	}
	return out
}

func texts(issues []config.Issue) []string {
	out := []string{}
	for _, i := range issues {
		out = append(out, i.Error())
	}
	return out
}

// Status answers the verb status.
func (g *gateway) Status() control.Status {
	s := g.engine.Snapshot()
	g.mu.RLock()
	defer g.mu.RUnlock()
	warnings := texts(g.config.Warnings)
	if s.Pending != "" {
		warnings = append(warnings, s.Pending+"; it is tried again every second")
	}
	return control.Status{
		Version: version.String(), Instance: g.config.File.Instance, PID: os.Getpid(), ConfigPath: g.config.Path,
		StartedAt: g.started, UptimeSeconds: time.Since(g.started).Seconds(), ReloadedAt: g.reloaded, PinDir: g.config.File.Dataplane.PinDir,
		Connections: len(g.config.Connections), IKE: figures(g.keys.Stats()),
		Associations: g.engine.Associations(), ManualKeys: len(g.config.Associations), Policies: len(g.config.Policies), Warnings: warnings,
		Workers: s.Workers, Ports: s.Ports, Totals: s.Totals,
	}
}

// SAs answers the verb sas: associations sorted by name, direction and SPI, IKE SAs by name and number.
func (g *gateway) SAs(q control.SAQuery) control.SAs {
	all := g.engine.SAs()
	out := control.SAs{IKESAs: g.ikeSAs(q.Name, all)}
	out.TotalIKE = len(out.IKESAs)
	if q.Name != "" {
		all = slices.DeleteFunc(all, func(s control.SA) bool { return !named(s.Name, q.Name) })
	}
	slices.SortFunc(all, func(a, b control.SA) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.SPI, b.SPI))
	})
	if all == nil {
		all = []control.SA{}
	}
	out.Total = len(all)
	out.SAs, out.IKESAs = all[:min(len(all), q.Limit)], out.IKESAs[:min(len(out.IKESAs), q.Limit)]
	return out
}

// Trace answers the verb trace.
func (g *gateway) Trace(ctx context.Context, w control.Watch, f func(*control.Traced) error) error {
	return g.engine.Trace(ctx, w, f)
}

// Capture answers the verb capture.
func (g *gateway) Capture(ctx context.Context, w control.Watch, ready func() error, out io.Writer) error {
	return g.engine.Capture(ctx, w, ready, out)
}

// Policies answers the verb policies.
func (g *gateway) Policies() control.Policies {
	g.mu.RLock()
	defer g.mu.RUnlock()
	out := control.Policies{Unmatched: g.config.File.Dataplane.Unmatched, Policies: []control.Policy{}}
	names := map[uint32]string{} // of configured tunnels; a negotiated policy has its child's name
	for name, tunnel := range g.tunnels {
		names[tunnel] = name
	}
	for i, p := range g.engine.Policies() {
		local, remote := sides(p.Selectors)
		row := control.Policy{Index: i, Name: p.Name, Action: p.Action.String(), LocalTS: local, RemoteTS: remote, Interface: p.Interface, Negotiated: p.Negotiated}
		if p.Action == spd.Protect {
			row.Tunnel, row.Ready = names[p.Tunnel], g.engine.Ready(p.Tunnel)
			if p.Negotiated {
				row.Tunnel = p.Name
			}
		}
		out.Policies = append(out.Policies, row)
	}
	return out
}

// sides writes selectors as the configuration does.
func sides(selectors []spd.Selector) (local, remote []string) {
	local, remote = []string{}, []string{}
	for i := range selectors {
		l, r := config.Sides(&selectors[i])
		for _, s := range l {
			if !slices.Contains(local, s) {
				local = append(local, s)
			}
		}
		for _, s := range r {
			if !slices.Contains(remote, s) {
				remote = append(remote, s)
			}
		}
	}
	return local, remote
}

// Counters answers the verb counters.
func (g *gateway) Counters() control.Counters {
	s := g.engine.Snapshot()
	keys := g.keys.Stats()
	out := control.Counters{Totals: s.Totals, Paths: s.Paths, SteeringFailed: s.Failed, XDP: s.XDP, Ports: s.Ports, Drops: []control.Drop{}, IKE: figures(keys), Reasons: reasons(keys)}
	for d := packet.DropNone + 1; d < packet.DropCount; d++ {
		info := packet.Drops[d]
		out.Drops = append(out.Drops, control.Drop{Name: info.Name, Severity: info.Severity.String(), Packets: s.Drops[d], Sentence: info.Sentence, Source: info.Source})
	}
	return out
}
