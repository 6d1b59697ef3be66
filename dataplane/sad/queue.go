package sad

// queue is a first-in first-out ring that grows as needed.
type queue[T any] struct {
	ring  []T // a power of two long
	head  int
	count int
}

func (q *queue[T]) len() int { return q.count }

func (q *queue[T]) push(v T) {
	if q.count == len(q.ring) {
		ring := make([]T, max(16, 2*len(q.ring)))
		n := copy(ring, q.ring[q.head:])
		copy(ring[n:], q.ring[:q.head])
		q.ring, q.head = ring, 0
	}
	q.ring[(q.head+q.count)&(len(q.ring)-1)] = v
	q.count++
}

func (q *queue[T]) peek() (v T, ok bool) {
	if q.count == 0 {
		return v, false
	}
	return q.ring[q.head], true
}

func (q *queue[T]) pop() (v T, ok bool) {
	if v, ok = q.peek(); ok {
		q.head = (q.head + 1) & (len(q.ring) - 1)
		q.count--
	}
	return v, ok
}
