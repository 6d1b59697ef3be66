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
	n := q.place(frames[:min(len(frames), room, chunks)])
	switch {
	case n == len(frames):
	case n == room:
		q.rxFull.Add(1)
	case n == chunks:
		q.fillEmpty.Add(1)
	default:
		q.invalid.Add(1)
	}
	if n > 0 {
		q.fill.free(n)
		q.rx.announce(n)
		q.near.ring()
	}
	return n
}

// place copies frames, for which there is room, into those of the fill ring up to the first one of an impossible length, and returns how many.
func (q *Queue) place(frames [][]byte) (n int) {
	for n < len(frames) {
		chunks := q.fill.waiting(n, len(frames)-n)
		descs := q.rx.space(n, len(chunks))
		for k := range descs {
			f, addr := frames[n+k], packet.Chunk(chunks[k])+packet.Headroom
			if len(f) == 0 || len(f) > packet.LenMax {
				return n + k
			}
			copy(q.mem[addr:addr+packet.LenMax], f)
			descs[k] = packet.Desc{Addr: addr, Len: uint32(len(f))}
		}
		n += len(descs)
	}
	return n
}
