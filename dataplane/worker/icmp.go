package worker

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"sallyport/dataplane/forward"
	"sallyport/dataplane/packet"
)

// timeExceeded ends packet i, whose TTL ran out, and tells its sender.
func (w *Worker) timeExceeded(i uint8) {
	w.answer(i, packet.DropTTLExpired, func(src netip.Addr) bool {
		return forward.TimeExceeded(&w.batch, int(i), src)
	})
}

// tooBig ends packet i, which is larger than mtu, and tells its sender; or it cuts the packet up
// if it is IPv4 and its sender allows that, and says so. class is where the pieces go on.
func (w *Worker) tooBig(i uint8, mtu int, class packet.Class) (cut bool) {
	b := &w.batch
	if forward.FitOf(b, int(i), mtu) == forward.Split {
		return w.fragment(i, mtu, class)
	}
	w.answer(i, packet.DropTooBig, func(src netip.Addr) bool {
		return forward.TooBig(b, int(i), mtu, src)
	})
	return false
}

// unreachable ends packet i, for which there is no way, and tells its sender why. What is sealed is ours: there is
// nobody to tell.
func (w *Worker) unreachable(i uint8, reason packet.Drop, why forward.Reason) {
	if w.batch.P[i].Flags&packet.FlagSealed != 0 {
		w.drop(i, reason)
		return
	}
	w.answer(i, reason, func(src netip.Addr) bool {
		return forward.Unreachable(&w.batch, int(i), why, src)
	})
}

// answer turns packet i into an ICMP error that build makes of it and sends it back; the
// packet itself is counted under reason.
func (w *Worker) answer(i uint8, reason packet.Drop, build func(src netip.Addr) bool) {
	b := &w.batch
	p := &b.P[i]
	flow := packet.FlowOf(b, int(i))
	src, handle := w.answerSource(p, &flow)
	f := w.flownOf(int(i), reason) // as it is before build
	if !src.IsValid() || w.injected.len() >= injectedMax || !w.limiter.Allow(w.now) || !build(src) {
		w.Counters.ICMPSuppressed.Add(1)
		w.drop(i, reason)
		return
	}
	w.enter(&f)
	w.Counters.Drops[reason].Add(1)
	w.Counters.Originated.Add(1)
	if w.watched {
		w.answered[i] = reason
	}
	p.Class, p.Handovers = packet.ClassForward, 0
	if p.Port == w.tables.TUN {
		p.Port = NoPort // the error goes back to the kernel, what it is about came from there
	}
	if handle != 0 {
		p.Class, p.SPI = packet.ClassOutbound, handle
	}
	w.injected.put(*p)
}

// answerSource chooses the source address of an ICMP error about p. An error to a host behind a
// tunnel must go back through it (RFC 4301, 6): then the source is an own address that a
// protect policy covers, or any if there is none, as the error goes with the traffic that it is about; handle is the
// association to use. Without either there is no error.
func (w *Worker) answerSource(p *packet.Packet, flow *packet.Flow) (src netip.Addr, handle uint32) {
	t := w.tables
	if p.Flags&packet.FlagDecapsulated != 0 {
		if src, handle = w.interfaceSource(p, flow); handle != 0 {
			return src, handle
		}
		for k := range len(t.Ports) + len(t.Own) {
			own := t.speaker(k, flow.Version)
			if !own.IsValid() {
				continue
			}
			back := packet.FlowBetween(own, flow.SrcAddr(), unix.IPPROTO_ICMP)
			back.Flags = packet.FlagPorts
			if flow.Version == 6 {
				back.Proto = unix.IPPROTO_ICMPV6
			}
			if tunnel, ok := w.back(p, &back); ok {
				if handle = w.group.sad.Bound(tunnel); handle == 0 {
					return netip.Addr{}, 0 // it quotes plaintext: not in the clear
				}
				return own, handle
			}
		}
		back := flow.Back()
		tunnel, ok := w.back(p, &back)
		if !ok {
			return netip.Addr{}, 0
		}
		if handle = w.group.sad.Bound(tunnel); handle == 0 {
			return netip.Addr{}, 0
		}
		for k := range t.Ports {
			if src = t.speaker(k, flow.Version); src.IsValid() {
				return src, handle
			}
		}
		return netip.Addr{}, 0
	}
	if p.Port == t.TUN {
		return flow.DstAddr(), 0 // the kernel takes nothing from an address of its own
	}
	if int(p.Port) >= len(t.Ports) {
		return netip.Addr{}, 0
	}
	return t.Ports[p.Port].source(flow.Version), 0
}

// speaker returns the kth address from which the gateway may answer a host behind a tunnel: first those of its protected ports, as a router's
// hosts know it, then all others but those of lo and of one link. It is not valid where there is none of that version.
func (t *Tables) speaker(k int, version uint8) netip.Addr {
	if k < len(t.Ports) {
		if t.Ports[k].Role&Protected == 0 {
			return netip.Addr{}
		}
		return t.Ports[k].source(version)
	}
	own := t.Own[k-len(t.Ports)]
	if own.Is4() != (version == 4) || !own.IsGlobalUnicast() {
		return netip.Addr{}
	}
	return own
}
