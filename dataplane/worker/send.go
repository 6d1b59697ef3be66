package worker

import (
	"sallyport/dataplane/fib"
	"sallyport/dataplane/forward"
	"sallyport/dataplane/packet"
)

// send stages everything that leaves this batch on the queue it leaves through.
func (w *Worker) send() {
	for _, i := range w.lists.ike {
		w.deliver(i, w.tables.IKE)
	}
	// What IKE sends stands here, in front: it finds room on a TX ring that encrypted packets fill.
	w.sendHops(w.lists.forward, 0)
	w.sendHops(w.lists.out, packet.FlagSealed)
	for _, i := range w.lists.punt {
		w.punt(i)
	}
	for _, i := range w.lists.transmit {
		w.sendPort(i)
	}
}

// sendHops gives the packets their flags and sends them to their next hops. Packets to one hop tend to follow each other, so one
// look serves a run of them; what a hop needs beside a link header and a place in this worker's queue is sendHop's.
func (w *Worker) sendHops(list []uint8, flags packet.Flags) {
	b, hops, r := &w.batch, w.tables.FIB.Hops, &w.departure
	for len(list) > 0 {
		p := &b.P[list[0]]
		hop := &hops[p.Hop]
		var queue *port
		if hop.Kind == fib.Forward && int(hop.Port) < len(w.tx) {
			queue = w.tx[hop.Port]
		}
		if queue == nil || queue.failed != nil {
			p.Flags |= flags
			w.sendHop(list[0])
			list = list[1:]
			continue
		}
		hop.Touch()
		r.b, r.link = b, forward.LinkOf(&hop.SrcMAC, &hop.DstMAC)
		r.hop, r.port, r.flags = p.Hop, hop.Port, flags
		for len(list) > 0 && b.P[list[0]].Hop == r.hop {
			if queue.n == len(queue.pending) {
				w.drain(queue)
			}
			forward.Seat(&b.P[list[0]])
			r.list, r.descs, r.sealed = list, queue.pending[queue.n:], queue.esp[queue.n:]
			n := r.stage()
			queue.n, list = queue.n+n, list[n:]
			w.staged += n
		}
	}
}

// sendHop writes the link header for the packet's next hop and stages it.
func (w *Worker) sendHop(i uint8) {
	p := &w.batch.P[i]
	hop := &w.tables.FIB.Hops[p.Hop]
	dst := hop.DstMAC
	switch hop.Kind {
	case fib.Forward:
	case fib.Multicast:
		dst = forward.GroupMAC(w.batch.IP(int(i)))
	case fib.Unresolved:
		w.park(i, hop)
		return
	case fib.Failed:
		w.ask(i, hop)
		w.unreachable(i, packet.DropNeighbourFailed, forward.HostUnreachable)
		return
	default:
		w.drop(i, packet.DropNoRoute)
		return
	}
	hop.Touch()
	forward.WriteEthernet(&w.batch, int(i), &hop.SrcMAC, &dst)
	p.Port = hop.Port
	w.sendPort(i)
}

// noMAC stands in the link header of packets to the kernel, whose TUN device has no addresses.
var noMAC [6]byte

// punt gives a packet to the kernel through TUN.
func (w *Worker) punt(i uint8) {
	p := &w.batch.P[i]
	if p.Port == w.tables.TUN || w.tables.TUN == NoPort {
		w.drop(i, packet.DropNoRoute) // from the kernel and back: a loop
		return
	}
	p.Class = packet.ClassPunt
	w.deliver(i, w.tables.TUN)
}

// deliver gives a packet to the reader of port number: the kernel or the IKE side.
func (w *Worker) deliver(i uint8, number uint16) {
	// What came out of a tunnel has no link header yet, and the reader goes by its type.
	to := packet.InterfaceMAC(w.batch.P[i].Interface)
	forward.WriteEthernet(&w.batch, int(i), &noMAC, &to)
	w.batch.P[i].Port = number
	w.sendPort(i)
}

// sendPort stages a complete packet on this worker's queue of its port, or hands it to the
// worker that sends there.
func (w *Worker) sendPort(i uint8) {
	p := &w.batch.P[i]
	if int(p.Port) >= len(w.tx) || (w.tx[p.Port] == nil && w.txOwner[p.Port] < 0) {
		w.drop(i, packet.DropPortDown)
		return
	}
	q := w.tx[p.Port]
	if q == nil {
		p.Class = packet.ClassTransmit
		w.handOver(i, w.txOwner[p.Port])
		return
	}
	if q.failed != nil {
		w.drop(i, packet.DropPortDown)
		return
	}
	w.stage(q, p)
}

// stage puts a complete packet in line for a queue of this worker.
func (w *Worker) stage(q *port, p *packet.Packet) {
	if q.n == len(q.pending) {
		w.drain(q)
	}
	n := q.n & (packet.BatchMax - 1)
	d := &q.pending[n]
	d.Addr, d.Len, d.Options = p.Addr, uint32(p.Len), 0
	q.esp[n] = p.Flags&packet.FlagSealed != 0
	q.n = n + 1
}

// drain puts staged packets on the TX ring. When the ring is full it starts the transmitter once
// and takes back what was sent; what still does not fit is dropped.
func (w *Worker) drain(p *port) {
	sent := p.queue.Transmit(p.pending[:p.n])
	if sent < p.n {
		w.start(p)
		w.complete(p)
		sent += p.queue.Transmit(p.pending[sent:p.n])
	}
	bytes, sealed := uint64(0), uint64(0)
	for k, d := range p.pending[:sent] {
		bytes += uint64(d.Len)
		if p.esp[k] {
			sealed++
		}
	}
	p.counters.Sent.Add(uint64(sent))
	switch p.number {
	case w.tables.TUN:
		w.Counters.Punted.Add(uint64(sent))
	case w.tables.IKE:
		w.Counters.Delivered.Add(uint64(sent))
	default:
		w.Counters.Sent.Add(uint64(sent))
		w.Counters.SentBytes.Add(bytes)
		w.Counters.SentESP.Add(sealed)
	}
	reason := packet.DropTxFull
	switch {
	case p.failed != nil:
		reason = packet.DropPortDown
	case p.number == w.tables.TUN:
		reason = packet.DropPuntFull
	case p.number == w.tables.IKE:
		reason = packet.DropIKEFull
	}
	for _, d := range p.pending[sent:p.n] {
		w.Counters.Drops[reason].Add(1)
		w.release(d.Addr)
	}
	p.n = 0
	p.dirty = true
}

// flush drains what is staged and lets the kernel or the reader know.
func (w *Worker) flush(p *port) {
	if p.n > 0 {
		w.drain(p)
	}
	if p.dirty {
		p.dirty = false
		w.start(p)
	}
}

// start publishes the queue's rings and starts its transmitter. A queue whose device is gone is
// left alone from then on, until the engine takes it away.
func (w *Worker) start(p *port) {
	if p.failed != nil {
		return
	}
	p.failed = p.queue.Flush()
	// What could not be sent is tried again in the next step, whatever else that one has to do.
	p.dirty = p.failed == nil && p.queue.Unsent()
}
