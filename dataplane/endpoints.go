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
	known := e.endpoints.Load()
	if !h.Inbound() || known != nil && slices.Contains(*known, local) {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if slices.Contains(e.learned, local) {
		return nil
	}
	e.learned = append(e.learned, local)
	e.follow()
	e.publishTables()
	return e.steer()
}

// follow brings the tables' endpoints in line with what policy names and what was learned. The caller holds e.mu.
func (e *Engine) follow() {
	all := slices.Clone(e.policies.Endpoints)
	for _, a := range e.learned {
		if !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	e.tables.Endpoints = worker.NewAddrSet(all)
	e.endpoints.Store(&all)
}

// forgetEndpoints drops learned endpoints that are no longer addresses of ours. The caller holds e.mu.
func (e *Engine) forgetEndpoints() {
	before := len(e.learned)
	e.learned = slices.DeleteFunc(e.learned, func(a netip.Addr) bool { return !slices.Contains(e.tables.Own, a) })
	if len(e.learned) != before {
		e.follow()
	}
}
