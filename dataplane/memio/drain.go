package memio

// Drain shows every transmitted packet to f, which must not keep the slice,
// completes it and returns how many there were. It stops when the completion
// ring is full.
func (q *Queue) Drain(f func(frame []byte)) int {
	q.drain.Lock()
	defer q.drain.Unlock()
	if q.closed {
		return 0
	}
	n, _ := q.complete(len(q.tx.entries), f)
	return n
}

// Discard completes up to max transmitted packets unseen and returns how many
// there were and their bytes: a sink that costs a benchmark next to nothing.
func (q *Queue) Discard(max int) (packets int, bytes uint64) {
	q.drain.Lock()
	defer q.drain.Unlock()
	if q.closed {
		return 0, 0
	}
	return q.complete(max, nil)
}

// complete completes up to max transmitted packets and returns how many there were and their bytes. It shows each to f if there is one.
// The caller holds drain.
func (q *Queue) complete(max int, f func(frame []byte)) (n int, bytes uint64) {
	n = min(max, q.tx.ready(max), q.done.room(max))
	for i := 0; i < n; {
		from := q.tx.waiting(i, n-i)
		to := q.done.space(i, len(from))
		for k := range to {
			d := &from[k]
			if f != nil {
				f(q.mem[d.Addr : d.Addr+uint64(d.Len) : d.Addr+uint64(d.Len)])
			}
			bytes += uint64(d.Len)
			to[k] = d.Addr
		}
		i += len(to)
	}
	q.done.publish(n)
	q.tx.free(n)
	return n, bytes
}
