package xsk

import "slices"

// queue is what sockets on one (interface, queue) share: its fill and
// completion ring and the ledger over both. It belongs to the worker that owns
// those sockets.
type queue struct {
	// hot
	fill       fillRing
	completion completionRing
	ledger     ledger
	// receiving is how many frames wait in the fill ring or in members' RX rings, and rxSize how many
	// the RX rings hold together. More frames than that would be filled for nothing: the
	// kernel copies a packet into one, finds the RX ring full and drops it. So
	// under overload a packet dies before it is copied, and fewer frames go round, in fewer cache lines.
	receiving, rxSize uint32

	// cold
	fillSize, completionSize uint32
	members                  []*Socket // the first one's mappings are in use
	taken                    uint32    // packets that the kernel took off the TX rings of members that left
}

// join adds a member; the first one brings the rings.
func (q *queue) join(s *Socket) {
	q.members = append(q.members, s)
	q.rxSize += s.rxMap.size
	if len(q.members) == 1 {
		q.use(s)
	}
}

// leave takes a member out, moves the rings over to the mappings of another,
// and reports whether s was the last.
func (q *queue) leave(s *Socket) (last bool) {
	i := slices.Index(q.members, s)
	q.taken += s.tx.published - s.tx.pending()
	q.members = slices.Delete(q.members, i, i+1)
	q.rxSize -= s.rxMap.size
	if len(q.members) == 0 {
		q.fill, q.completion = fillRing{}, completionRing{}
		return true
	}
	if i == 0 {
		q.use(q.members[0])
	}
	return false
}

// use points the rings at s's mappings; our own indices stay as they are.
func (q *queue) use(s *Socket) {
	q.fill.indices, q.fill.entries = s.fillMap.indices, s.fillMap.addresses()
	q.completion.indices, q.completion.entries = s.completionMap.indices, s.completionMap.addresses()
}

// inFlight returns how many packets the kernel has taken off the TX rings and
// not completed. The completion count is the ring's running index; the kernel
// adds one for every packet it takes, but for invalid ones.
func (q *queue) inFlight() uint32 {
	var taken uint32
	for _, s := range q.members {
		taken += s.tx.published - s.tx.pending()
	}
	return q.taken + taken - q.completion.next
}
