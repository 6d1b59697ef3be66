package memio

import "sallyport/dataplane/packet"

// Inject copies one frame, Ethernet header first, into a frame of the fill ring
// and lets the worker receive it. False means that it was dropped and counted: no
// frame to fill, the ring full, an impossible length (1 to packet.LenMax bytes
// are possible), or the queue closed.
func (q *Queue) Inject(frame []byte) bool {
	one := [1][]byte{frame}
	return q.InjectBatch(one[:]) == 1
}

// InjectBatch injects as many frames as there is room for, publishes them at
// once and returns how many: the first so many of frames. It stops at one that
// does not fit and counts that one only.
func (q *Queue) InjectBatch(frames [][]byte) int {
	q.inject.Lock()
	defer q.inject.Unlock()
	if q.closed {
		return 0
	}
	room, chunks := q.rx.room(len(frames)), q.fill.ready(len(frames))
	n := 0
	for _, f := range frames {
		if len(f) == 0 || len(f) > packet.LenMax {
			q.invalid.Add(1)
			break
		}
		if n == room {
			q.rxFull.Add(1)
			break
		}
		if n == chunks {
			q.fillEmpty.Add(1)
			break
		}
		addr := q.fill.at(n) + packet.Headroom
		copy(q.mem[addr:addr+packet.LenMax], f)
		q.rx.set(n, packet.Desc{Addr: addr, Len: uint32(len(f))})
		n++
	}
	q.fill.release(n)
	q.rx.publish(n)
	if n > 0 {
		q.near.ring()
	}
	return n
}
