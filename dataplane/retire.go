package dataplane

import (
	"sync"
	"time"

	"sallyport/dataplane/sad"
)

// Graces of associations that are replaced or deleted. A peer may send on the old one until our delete reaches
// it (RFC 7296, 2.8); a packet of our own spends far less than a second in the gateway.
const (
	GraceInbound  = 5 * time.Second
	GraceOutbound = time.Second
)

// retired are the associations that end by themselves.
type retired struct {
	mu    sync.Mutex
	until map[sad.Handle]time.Time
}

// Retire ends an association after grace: an inbound one receives, an outbound one sends what is on its way inside
// the gateway, until then (to a second or so). Its tunnel should be bound to another before. Removing
// it meanwhile ends it at once.
func (e *Engine) Retire(h sad.Handle, grace time.Duration) error {
	if !e.sad.Has(h) {
		return sad.ErrNotFound
	}
	e.retired.mu.Lock()
	defer e.retired.mu.Unlock()
	if e.retired.until == nil {
		e.retired.until = map[sad.Handle]time.Time{}
	}
	e.retired.until[h] = time.Now().Add(grace)
	return nil
}

// retires says whether h is on its way out.
func (r *retired) retires(h sad.Handle) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.until[h]
	return ok
}

// forget takes h off the list.
func (r *retired) forget(h sad.Handle) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.until, h)
}

// due returns the associations whose time is over.
func (r *retired) due(now time.Time) (list []sad.Handle) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for h, until := range r.until {
		if !now.Before(until) {
			list = append(list, h)
		}
	}
	return list
}
