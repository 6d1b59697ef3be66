package worker

import (
	"sallyport/dataplane/packet"
	"sallyport/dataplane/prefetch"
)

// Step carries one batch through the whole packet path and returns how many packets it
// took, 0 if there was nothing to do. now is the monotonic clock in nanoseconds.
// Reading this function is reading the path.
func (w *Worker) Step(now int64) int {
	if w.calls.Load() {
		w.runCalls()
	}
	w.now, w.esp.Now = now, now
	w.tables = w.group.tables.Load()
	w.esp.Records = packet.BatchMax
	if w.crowded = w.group.sad.Crowded(); w.crowded {
		w.esp.Records = recordsCrowded
	}
	w.flows.follow(w.tables)

	w.restock()
	w.take()
	n := w.batch.N
	if n > 0 {
		w.observe(StageTake)
		w.foresee()
		w.express()
		w.expressInbound()
		w.classify()
		if len(w.lists.fragment) > 0 {
			w.gather()
		}
		w.observe(StageClassify)

		w.lengthenInbound()
		w.claimInbound()
		w.observe(StageClaim)
		if w.verifies {
			w.verify()
		}
		w.openInbound()
		w.observe(StageOpen)
		w.guardDecapsulated()
		w.expressDecapsulated()
		w.routeDecapsulated()
		w.observe(StageRoute)

		w.claimOutbound()
		w.admitOutbound()
		w.lists.out = w.join(w.lists.shortOut, w.lists.out)
		w.observe(StageAdmit)
		w.lists.out = w.esp.Encapsulate(&w.batch, w.lists.out, w.outbound[:])
		sealed := StageSeal
		if w.signs {
			w.observe(StageSeal)
			w.sign()
			sealed = StageSign
		}
		if w.cutting {
			w.cutSealed()
		}
		w.observe(sealed)

		w.routeForward()
		w.lists.forward = w.join(w.lists.shortForward, w.lists.forward)
		w.observe(StageForward)
		w.send()
		w.observe(StageSend)
		if len(w.esp.Reports) > 0 {
			w.report()
		}
		w.settle()
		w.Counters.Batches.Add(1)
	}
	w.publish()
	w.group.sad.Pass(w.ID)
	return n
}

// restock brings frames home and keeps the fill rings as full as they may be: "as many as were
// received" would starve them under load.
func (w *Worker) restock() {
	w.collect()
	for _, p := range w.rings {
		w.complete(p)
		w.fill(p)
	}
}

// fill fills one queue's fill ring.
func (w *Worker) fill(p *port) {
	room := min(p.queue.FillRoom(), len(w.free))
	if room > 0 {
		top := len(w.free) - room
		took := p.queue.Fill(w.free[top:])
		copy(w.free[top:], w.free[top+took:])
		w.free = w.free[:len(w.free)-took]
		p.dirty = true
	}
}

// collect takes in the frames that other workers sent home.
func (w *Worker) collect() {
	for from := range w.group.Workers {
		if from == w.ID {
			continue
		}
		r := w.group.homeward[from][w.ID]
		for n := r.take(w.addrs[:]); n > 0; n = r.take(w.addrs[:]) {
			w.free = append(w.free, w.addrs[:n]...)
		}
	}
}

// complete takes back the frames that were sent.
func (w *Worker) complete(p *port) {
	for {
		n := p.queue.Complete(w.addrs[:])
		w.releaseAll(w.addrs[:n])
		if n < len(w.addrs) {
			return
		}
	}
}

// headerLines is how many cache lines of a packet are asked for as soon as it is received: its headers.
const headerLines = 2

// take fills the batch: first a few IKE datagrams, which no flood of anything else may hold up, then what this worker made itself, then what other workers hand over, then what the
// queues received, each step starting at another queue. What it made comes first because it makes
// more of what comes later, never of itself: so it cannot pile up.
func (w *Worker) take() {
	b := &w.batch
	b.N, w.fresh, w.came, w.staged = 0, 0, 0, 0
	w.lists.reset()
	w.nextJoined = 0
	if len(w.first) > 0 {
		w.takeFirst()
	}
	for w.injected.len() > 0 && b.N < w.burst {
		b.P[b.N] = w.injected.get()
		w.resume(b.N)
		b.N++
	}
	for from := range w.group.Workers {
		if from == w.ID || b.N >= w.burst {
			continue
		}
		n := w.group.handover[from][w.ID].take(b.P[b.N:w.burst])
		w.Counters.HandedIn.Add(uint64(n))
		for range n {
			w.resume(b.N)
			b.N++
		}
	}
	if len(w.parked) > 0 {
		w.unpark()
	}
	if len(w.waiting.list) > 0 {
		w.resumeWaiting()
	}
	if w.fragments.Waiting() {
		w.expireFragments()
	}
	for k := range w.rx {
		if b.N >= w.burst {
			break
		}
		w.receive(w.rx[(w.next+k)%len(w.rx)], w.burst-b.N)
	}
	if w.next++; w.next >= len(w.rx) {
		w.next = 0
	}
}

// firstShare is the part of a batch that IKE datagrams may take.
const firstShare = 8

// takeFirst receives from the queues of IKE, in both directions: a flood of one of them leaves the
// others their turn, and seven eighths of the batch to the packets.
func (w *Worker) takeFirst() {
	budget := max(1, w.burst/firstShare)
	for k := range w.first {
		if budget == 0 {
			break
		}
		budget -= w.receive(w.first[(w.nextFirst+k)%len(w.first)], budget)
	}
	if w.nextFirst++; w.nextFirst >= len(w.first) {
		w.nextFirst = 0
	}
}

// receive adds up to max packets of a queue to the batch, and returns how many.
func (w *Worker) receive(p *port, max int) int {
	b, bytes := &w.batch, uint64(0)
	n := p.queue.Receive(w.descs[:max])
	descs := w.descs[:n]
	prefetch.Each(b.Mem, descs, headerLines)
	records, number := b.P[b.N:], p.number
	for k := range min(len(descs), len(records)) {
		d, r := &descs[k], &records[k]
		*r = packet.Packet{}
		r.Addr, r.Len, r.Port = d.Addr, uint16(d.Len), number
		bytes += uint64(d.Len)
	}
	b.N += n
	w.fresh += n
	if n > 0 {
		w.came |= 1 << (number & 63)
	}
	p.counters.Received.Add(uint64(n))
	w.Counters.Received.Add(uint64(n))
	w.Counters.ReceivedBytes.Add(bytes)
	return n
}

// resume takes up packet i, which was classified in another batch.
func (w *Worker) resume(i int) {
	w.batch.Flows[i] = packet.FlowOf(&w.batch, i)
	w.enlist(i)
}

// enlist puts packet i, whose class is known, on the list for its class.
func (w *Worker) enlist(i int) {
	l := &w.lists
	switch w.batch.P[i].Class {
	case packet.ClassInbound:
		l.in = append(l.in, uint8(i))
	case packet.ClassOutbound:
		l.out = append(l.out, uint8(i))
	case packet.ClassForward:
		l.forward = append(l.forward, uint8(i))
	case packet.ClassPunt:
		l.punt = append(l.punt, uint8(i))
	case packet.ClassTransmit:
		l.transmit = append(l.transmit, uint8(i))
	case packet.ClassIKE:
		l.ike = append(l.ike, uint8(i))
	case packet.ClassFragment:
		l.fragment = append(l.fragment, uint8(i))
	}
}

// drop ends packet i for reason. Its frame goes home when the batch is settled.
func (w *Worker) drop(i uint8, reason packet.Drop) { w.batch.P[i].Reason = reason }

// settle counts the packets that ended and gives their frames back.
func (w *Worker) settle() {
	b := &w.batch
	if w.staged == b.N {
		return
	}
	for i := range b.N {
		if r := b.P[i].Reason; r != packet.DropNone {
			w.Counters.Drops[r].Add(1)
			w.recordDrop(i, r)
			w.release(b.P[i].Addr)
		}
	}
}

// releaseAll sends frames home, as many as a batch has at most.
func (w *Worker) releaseAll(addrs []uint64) {
	n, size := len(w.free), w.group.homeSize
	first := uint64(w.ID) * size
	free := w.free[:n+len(addrs)]
	for _, a := range addrs {
		if chunk := packet.Chunk(a); chunk-first < size {
			free[n] = chunk
			n++
		} else {
			w.group.homeward[w.ID][w.group.home(chunk)].push(chunk)
		}
	}
	w.free = free[:n]
}

// release sends a frame home.
func (w *Worker) release(addr uint64) {
	chunk := packet.Chunk(addr)
	home := w.group.home(chunk)
	if home == w.ID {
		w.free = append(w.free, chunk)
		return
	}
	w.group.homeward[w.ID][home].push(chunk)
}

// publish makes everything visible that this step staged: frames to send, frames on their
// way home, packets handed over.
func (w *Worker) publish() {
	for _, p := range w.rings {
		w.flush(p)
	}
	for to, other := range w.group.Workers {
		if to == w.ID {
			continue
		}
		given := w.group.handover[w.ID][to].publish()
		returned := w.group.homeward[w.ID][to].publish()
		if given || returned {
			other.wake()
		}
	}
	if w.events.publish() {
		w.group.listener.wake()
	}
	w.finishMoves()
	w.Counters.FreeFrames.Add(uint64(len(w.free) - w.freeSeen))
	w.freeSeen = len(w.free)
}
