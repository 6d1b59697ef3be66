package worker

import (
	"sallyport/dataplane/fib"
	"sallyport/dataplane/forward"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
)

// admitOutbound readies packets for encapsulation: the way to the peer, TTL, size,
// MSS. What does not fit is answered with ICMP, or cut up if its sender allows.
func (w *Worker) admitOutbound() {
	b, kept := &w.batch, w.lists.out[:0]
	var last *sad.Outbound
	var hop *fib.Hop
	var mtu int
	for _, i := range w.lists.out {
		p, sa := &b.P[i], w.outbound[i]
		if sa != last {
			w.route(sa)
			last, hop = sa, &w.tables.FIB.Hops[sa.Hop]
			mtu = sa.InnerMTU(int(hop.MTU))
		}
		if hop.Kind == fib.Local || hop.Kind == fib.NoRoute {
			w.unreachable(i, packet.DropNoRoute, forward.NetUnreachable)
			continue
		}
		if hop.Kind == fib.Unreachable {
			w.drop(i, packet.DropUnreachable)
			continue
		}
		if p.Flags&(packet.FlagLocal|packet.FlagRouted) == 0 && p.TTL <= 1 {
			w.timeExceeded(i)
			continue
		}
		if size := int(p.End - p.L3); size > mtu {
			w.tooBig(i, mtu, packet.ClassOutbound)
			continue
		}
		if p.Flags&packet.FlagRouted == 0 {
			if p.Flags&packet.FlagLocal == 0 {
				forward.DecrementTTL(b, int(i))
			}
			if p.Proto == packet.ProtoTCP && w.tables.ClampMSS {
				forward.ClampMSS(b, int(i), mtu)
			}
		}
		p.Hop = sa.Hop
		kept = append(kept, i)
	}
	w.lists.out = kept
	w.Counters.Sealed.Add(uint64(len(kept)))
}

// route looks up the way to the association's peer, once for each routing snapshot.
func (w *Worker) route(sa *sad.Outbound) {
	f := w.tables.FIB
	if sa.HopGeneration != f.Generation {
		sa.Hop = f.Lookup(sa.RemoteAddr())
		sa.HopGeneration = f.Generation
	}
}
