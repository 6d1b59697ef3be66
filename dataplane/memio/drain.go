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
	n := min(q.tx.ready(len(q.tx.entries)), q.done.room(len(q.done.entries)))
	for i := 0; i < n; i++ {
		d := q.tx.at(i)
		f(q.mem[d.Addr : d.Addr+uint64(d.Len) : d.Addr+uint64(d.Len)])
		q.done.set(i, d.Addr)
	}
	q.done.publish(n)
	q.tx.release(n)
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
	n := min(max, q.tx.ready(max), q.done.room(max))
	for i := 0; i < n; i++ {
		d := q.tx.at(i)
		bytes += uint64(d.Len)
		q.done.set(i, d.Addr)
	}
	q.done.publish(n)
	q.tx.release(n)
	return n, bytes
}
