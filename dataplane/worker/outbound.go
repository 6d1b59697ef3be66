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
			mtu = w.innerMTU(sa)
			if sa.Flags&sad.FlagPadded != 0 {
				sa.Pad(mtu)
			}
		}
		if hop.Kind == fib.Local || hop.Kind == fib.NoRoute {
			w.unreachable(i, packet.DropNoRoute, forward.NetUnreachable)
			continue
		}
		if hop.Kind == fib.Tunnel {
			w.drop(i, packet.DropTunnelLoop)
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
		if size := int(p.End - p.L3); size > mtu && cutAfter(sa, p, size) {
			w.cutting = true
		} else if size > mtu {
			refused := forward.FitOf(b, int(i), mtu) == forward.Refused
			switch cut := w.tooBig(i, mtu, packet.ClassOutbound); {
			case cut:
				sa.CutBefore.Add(1)
			case refused:
				sa.TooBig.Add(1)
			default:
				sa.OtherDrops.Add(1)
			}
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

// minimumMTU6 is what an IPv6 packet may always have (RFC 8200, 5).
const minimumMTU6 = 1280

// cutAfter says whether an inner packet with record p, too large for the path, is cut up after it is encrypted: where that
// was chosen, and where its sender cannot send less (RFC 2473, 7.1). Where the outer header is to have Don't Fragment it is not.
func cutAfter(sa *sad.Outbound, p *packet.Packet, size int) bool {
	return (sa.Flags&sad.FlagFragmentOuter != 0 || p.Version == 6 && size <= minimumMTU6) && !sa.DontFragment(p)
}

// cutSealed cuts up those sealed packets that are too large for their path. The first piece of each stays in its place, the others
// leave with the next step.
func (w *Worker) cutSealed() {
	w.cutting = false
	b, kept := &w.batch, w.lists.out[:0]
	for _, i := range w.lists.out {
		p := &b.P[i]
		mtu, sa := int(w.tables.FIB.Hops[p.Hop].MTU), w.group.sad.OutboundHead(w.outbound[i])
		if known := sa.PathMTU(); known != 0 {
			mtu = min(mtu, int(known))
		}
		if int(p.End-p.L3) <= mtu {
			kept = append(kept, i)
			continue
		}
		p.Flags |= packet.FlagSealed
		if n, ok := w.cut(i, mtu); ok {
			w.Counters.FragmentedESP.Add(1)
			sa.CutAfter.Add(1)
			w.keepPieces(n, packet.ClassForward)
			kept = append(kept, i)
		}
	}
	w.lists.out = kept
}

// route looks up the way to the association's peer, once for each routing snapshot.
func (w *Worker) route(sa *sad.Outbound) {
	f := w.tables.FIB
	if sa.HopGeneration != f.Generation {
		sa.Hop = f.Lookup(sa.RemoteAddr())
		sa.HopGeneration = f.Generation
	}
}
