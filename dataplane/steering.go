package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"sallyport/bpf"
	"sallyport/dataplane/fib"
	"sallyport/dataplane/spd"
)

// steeringMaps is what the steering program is told of addresses and prefixes; *bpf.Steering is one.
type steeringMaps interface {
	SetEndpoints(endpoints []netip.Addr) error
	SetOwn(own []netip.Addr) error
	SetRouted(into, past []netip.Prefix) error
	SetPrefixes(local, remote, peers []netip.Prefix) error
	CheckEndpoints(endpoints []netip.Addr) error
	CheckPrefixes(local, remote, peers []netip.Prefix) error
}

// steered is the steering program as far as it was told something.
type steered struct {
	maps   steeringMaps  // nil before the program is loaded
	told                 // these maps
	err    error         // of the last time: some of it may not be so; tried again every second
	failed atomic.Uint64 // times that it did not succeed
}

// told is what maps were told.
type told struct {
	endpoints, own       []netip.Addr
	routed               []fib.Routed
	local, remote, peers []netip.Prefix
}

// load begins with maps that know nothing yet; nil says that there are none.
func (s *steered) load(maps steeringMaps) { s.maps, s.told, s.err = maps, told{}, nil }

// SteeringStats say how telling the steering program went.
type SteeringStats struct {
	Failed  uint64 // times that its maps could not be changed
	Pending string // what is still wrong; empty if nothing is
}

// steer brings the program's maps in line with policies, routes and addresses. What fails does not keep the rest from being changed, and is tried
// again every second. The caller holds e.mu.
func (e *Engine) steer() error {
	s := &e.steered
	if s.maps == nil {
		return nil
	}
	before := s.err
	s.err = errors.Join(e.steerAddresses(), e.steerRoutes(), e.steerPrefixes())
	switch {
	case s.err != nil:
		s.failed.Add(1)
		if before == nil || before.Error() != s.err.Error() {
			e.log.Error().Err(s.err).Msg("the steering program does not know all that it should; it is told again every second")
		}
	case before != nil:
		e.log.Info().Msg("the steering program knows all that it should again")
	}
	return s.err
}

// steerAddresses tells the program our addresses. The caller holds e.mu.
func (e *Engine) steerAddresses() error {
	s := &e.steered
	tell := func(what string, wanted []netip.Addr, known *[]netip.Addr, set func([]netip.Addr) error) error {
		if s.err == nil && slices.Equal(wanted, *known) {
			return nil
		}
		if err := set(wanted); err != nil {
			return fmt.Errorf("telling the steering program our %s: %w", what, err)
		}
		*known = slices.Clone(wanted)
		return nil
	}
	return errors.Join(
		tell("endpoints", e.endpoints.Load().list, &s.endpoints, s.maps.SetEndpoints),
		tell("addresses", e.tables.Own, &s.own, s.maps.SetOwn),
	)
}

// steerRoutes tells the program which destinations routes lead into virtual interfaces. The caller holds e.mu.
func (e *Engine) steerRoutes() error {
	s := &e.steered
	if s.err == nil && slices.Equal(e.tables.FIB.Tunnels, s.routed) {
		return nil
	}
	var into, past []netip.Prefix
	for _, r := range e.tables.FIB.Tunnels {
		if r.Tunnel {
			into = append(into, r.Prefix)
		} else {
			past = append(past, r.Prefix)
		}
	}
	if err := s.maps.SetRouted(into, past); err != nil {
		return fmt.Errorf("telling the steering program the routes into interfaces, whose traffic takes the way by the kernel: %w", err)
	}
	s.routed = e.tables.FIB.Tunnels
	return nil
}

// steerPrefixes tells the program what policies protect. The caller holds e.mu.
func (e *Engine) steerPrefixes() error {
	s := &e.steered
	local, remote := e.tables.SPD.Prefixes()
	peers := e.tables.SPD.Peers()
	if s.err == nil && slices.Equal(local, s.local) && slices.Equal(remote, s.remote) && slices.Equal(peers, s.peers) {
		return nil // negotiated policies mostly lie inside configured ones
	}
	if err := s.maps.SetPrefixes(local, remote, peers); err != nil {
		return fmt.Errorf("telling the steering program the protected prefixes: %w", err)
	}
	s.local, s.remote, s.peers = local, remote, peers
	return nil
}

// steerable says whether the program has room for what policies protect, and for endpoints: they do not come into force otherwise. The caller
// holds e.mu.
func (e *Engine) steerable(table *spd.Table, endpoints []netip.Addr) error {
	if e.steered.maps == nil {
		return nil
	}
	local, remote := table.Prefixes()
	return errors.Join(e.steered.maps.CheckEndpoints(endpoints), e.steered.maps.CheckPrefixes(local, remote, table.Peers()))
}

// steerAgain tries again what failed.
func (e *Engine) steerAgain() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.stopping && e.steered.err != nil {
		e.steer()
	}
}

// stats returns the figures. The caller holds e.mu.
func (s *steered) stats() SteeringStats {
	out := SteeringStats{Failed: s.failed.Load()}
	if s.err != nil {
		out.Pending = s.err.Error()
	}
	return out
}

var _ steeringMaps = (*bpf.Steering)(nil)
