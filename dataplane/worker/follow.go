package worker

import (
	"sallyport/dataplane/ipfrag"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/spd"
)

// follow gives the flow of packet i, a later fragment that policies judge by ports, those of the first one, and remembers the ports of
// first ones (RFC 4301, 7). Fragments that no port matters for are left alone. spi is that of the inbound association which the packet
// came out of; 0 if it came in the clear, and then one worker has all fragments between two addresses: follow reports that
// the packet must go there.
func (w *Worker) follow(i int, spi uint32) (elsewhere bool) {
	b := &w.batch
	p, flow := &b.P[i], &b.Flows[i]
	later := flow.Later()
	if _, match := w.tables.SPD.Outbound(&later); match != spd.NeedsPorts {
		if _, match = w.tables.SPD.Inbound(&later); match != spd.NeedsPorts && !w.tables.needPorts(&later) {
			return false
		}
	}
	if spi == 0 && w.fragmentOwner(flow) != w.ID {
		return true
	}
	if flow.Flags&packet.FlagLaterFragment == 0 {
		w.ports.Remember(p, flow, b.IP(i), spi, w.now)
	} else if w.ports.Inherit(p, flow, b.IP(i), spi, w.now) {
		w.places[i] = w.flows.place(flow)
	}
	return false
}

// fragmentOwner is the worker that has the fragments of a flow's addresses.
func (w *Worker) fragmentOwner(f *packet.Flow) int {
	return int(ipfrag.Spread(f, w.group.fragmentSeed) % uint32(len(w.group.Workers)))
}
