package ike

import "sync"

// mailbox is an order book without an end that blocks: goroutines of the server may give orders to each other in
// circles. What fills it is bounded elsewhere: by the IKE SAs there are, by connections, by operators. Offer is for
// everyone else, and is refused when mailboxOffers wait.
type mailbox struct {
	mu     sync.Mutex
	orders []func()
	offers int
	closed bool
	ring   chan struct{} // has an element while orders are not empty
}

const mailboxOffers = 4096

func newMailbox() *mailbox { return &mailbox{ring: make(chan struct{}, 1)} }

// post adds an order; false says that the mailbox is closed.
func (m *mailbox) post(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.add(f)
}

// offer adds an order unless too many wait.
func (m *mailbox) offer(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.offers >= mailboxOffers {
		return false
	}
	m.offers++
	return m.add(func() {
		m.mu.Lock()
		m.offers--
		m.mu.Unlock()
		f()
	})
}

func (m *mailbox) add(f func()) bool {
	if m.closed {
		return false
	}
	m.orders = append(m.orders, f)
	if len(m.orders) == 1 {
		select {
		case m.ring <- struct{}{}:
		default:
		}
	}
	return true
}

// work runs the orders that wait, each within guard. It says whether the mailbox is closed and none is left. Its reader
// must not wait for the ring then: one ring may have told of the last order and of the end.
func (m *mailbox) work(guard func(func())) (over bool) {
	m.mu.Lock()
	orders := m.orders
	m.orders = nil
	m.mu.Unlock()
	for _, f := range orders {
		guard(f)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed && len(m.orders) == 0
}

// close refuses further orders.
func (m *mailbox) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	select {
	case m.ring <- struct{}{}:
	default:
	}
}
