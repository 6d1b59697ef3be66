package worker

import "sallyport/dataplane/packet"

// Limits of what one worker keeps for tunnels without an outbound association. A packet is kept in its frame.
const (
	waitingMax     = 256              // packets of all tunnels; and at most a sixteenth of the worker's frames
	waitingEach    = 16               // packets of one tunnel, or of several whose numbers fall together
	waitingTimeout = int64(10 * 1e9)  // nanoseconds: long enough for a key exchange that loses a message or two
	waitingPoll    = pollTimeout / 10 // milliseconds that a worker sleeps at most while packets wait
	waitingTunnels = 1 << waitingBits // counters of packets by tunnel
	waitingBits    = 8
)

// waiting are the packets that found no outbound association for their tunnel: the first ones of a connection that starts
// on traffic, and those between a peer that was lost and its return. They leave when there is one, in the order in which they
// came. They are judged again then, as the negotiation may have led to another policy than the one that asked for it.
type waiting struct {
	list []waitingPacket // oldest first
	each [waitingTunnels]uint8
	max  int
	// What was in force when they were tried last.
	bindings uint64
	tables   *Tables
}

type waitingPacket struct {
	packet   packet.Packet
	deadline int64
	tunnel   uint8 // index into each
}

func newWaiting(frames int) waiting {
	most := min(waitingMax, frames/16)
	return waiting{list: make([]waitingPacket, 0, most), max: most}
}

// await keeps packet i, which was to end as DropNoOutbound, if there is room and somebody who negotiates. What the
// gateway made of other packets is not worth it.
func (w *Worker) await(i int) {
	p, l := &w.batch.P[i], &w.waiting
	made := p.Flags&packet.FlagRouted != 0 || p.Flags&packet.FlagLocal != 0 && p.Port != w.tables.TUN
	tunnel := uint8(p.Tunnel * 0x9e3779b1 >> (32 - waitingBits))
	if w.tables.IKE == NoPort || made || len(l.list) >= l.max || l.each[tunnel] >= waitingEach {
		return
	}
	if len(l.list) == 0 {
		l.bindings, l.tables = w.group.sad.Bindings(), w.tables
	}
	p.Class, p.Reason = packet.ClassWaiting, packet.DropNone
	l.list = append(l.list, waitingPacket{*p, w.now + waitingTimeout, tunnel})
	l.each[tunnel]++
	w.Counters.Waited.Add(1)
}

// resumeWaiting takes packets up again whose tunnel has an association now, or which the policies in force judge otherwise, and
// ends those that have waited too long.
func (w *Worker) resumeWaiting() {
	l, bindings := &w.waiting, w.group.sad.Bindings()
	if bindings == l.bindings && w.tables == l.tables && w.now < l.list[0].deadline {
		return
	}
	b, kept := &w.batch, l.list[:0]
	for k := range l.list {
		if b.N >= w.burst {
			l.list = append(kept, l.list[k:]...) // the rest has its turn in the next step
			return
		}
		q, i := l.list[k], b.N
		p := &b.P[i]
		*p = q.packet
		b.Flows[i] = packet.FlowOf(b, i)
		w.places[i] = w.flows.place(&b.Flows[i])
		class, reason := packet.ClassNone, packet.DropNone
		if p.Flags&packet.FlagDecapsulated != 0 {
			class, reason = w.judgeDecapsulated(i)
		} else {
			class, reason = w.judge(i)
		}
		if reason == packet.DropNoOutbound && w.now < q.deadline {
			kept = append(kept, q)
			continue
		}
		l.each[q.tunnel]--
		if b.N++; reason != packet.DropNone {
			p.Reason = reason
			continue
		}
		p.Class = class
		w.enlist(i)
	}
	l.list, l.bindings, l.tables = kept, bindings, w.tables
}
