package dataplane

import (
	"net/netip"
	"slices"

	"sallyport/dataplane/sad"
	"sallyport/dataplane/worker"
)

// UpdateEndpoints moves an association to other outer addresses, or into or out of UDP (RFC 7296, 2.23; RFC
// 4555). Sequence number and replay window go on, and no packet is lost. encap decides whether the ports mean anything. It takes
// effect with the next batch.
func (e *Engine) UpdateEndpoints(h sad.Handle, local, remote netip.AddrPort, encap bool) error {
	if err := e.learn(h, local.Addr()); err != nil {
		return err
	}
	return e.sad.Move(h, sad.Endpoints{
		Local: local.Addr(), Remote: remote.Addr(), Encap: encap, LocalPort: local.Port(), RemotePort: remote.Port(),
	})
}

// learn makes our outer address of an inbound association an endpoint, if policy does not name it as one: what comes
// to it is steered to the workers before a peer can know of it.
func (e *Engine) learn(h sad.Handle, local netip.Addr) error {
	if !h.Inbound() || e.endpoints.Load().has(local) {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.endpoints.Load().has(local) {
		return nil
	}
	before := e.learned
	e.learned = append(slices.Clip(before), local)
	e.follow()
	if err := e.steer(); err != nil && !slices.Contains(e.steered.endpoints, local) {
		e.learned = before
		e.follow()
		e.steer()
		return err
	}
	e.publishTables()
	return nil
}

// follow brings the tables' endpoints in line with what policy names and what was learned. The caller holds e.mu.
func (e *Engine) follow() {
	all := &endpoints{set: map[netip.Addr]struct{}{}}
	for _, list := range [][]netip.Addr{e.policies.Endpoints, e.learned} {
		for _, a := range list {
			if !all.has(a) {
				all.set[a] = struct{}{}
				all.list = append(all.list, a)
			}
		}
	}
	e.tables.Endpoints = worker.NewAddrSet(all.list)
	e.endpoints.Store(all)
}

// endpoints are our outer addresses, each once.
type endpoints struct {
	list []netip.Addr
	set  map[netip.Addr]struct{}
}

func (e *endpoints) has(a netip.Addr) bool {
	_, ok := e.set[a]
	return ok
}

// forgetEndpoints drops learned endpoints that are no longer addresses of ours. The caller holds e.mu.
func (e *Engine) forgetEndpoints() {
	own := make(map[netip.Addr]struct{}, len(e.tables.Own))
	for _, a := range e.tables.Own {
		own[a] = struct{}{}
	}
	before := len(e.learned)
	e.learned = slices.DeleteFunc(slices.Clone(e.learned), func(a netip.Addr) bool {
		_, ok := own[a]
		return !ok
	})
	if len(e.learned) != before {
		e.follow()
	}
}
