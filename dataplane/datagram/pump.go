package datagram

import (
	"net/netip"
	"sync"
	"time"

	"sallyport/dataplane/packet"
)

// Queue is the far end of an in-memory queue: see dataplane/memio.
type Queue interface {
	Drain(f func(frame []byte)) int
	Wait(d time.Duration)
	Interrupt()
}

// waitMax bounds a pump's sleep, which Close ends; it is long so that Go has little to look after. idlePause keeps it from spinning on a queue that says "ready" and
// gives nothing, while the worker leaves no room for completions.
const (
	waitMax   = 2 * time.Second
	idlePause = 200 * time.Microsecond
)

// Pump gives a handler what workers put on queues in memory, from one goroutine for each.
type Pump struct {
	queues  []Queue
	handler Handler
	done    chan struct{}
	wait    sync.WaitGroup
	once    sync.Once

	// Received counts datagrams handed on, Malformed frames that carried none.
	counts []counts
}

type counts struct {
	received, malformed packet.Counter // written by the queue's goroutine
}

// Start begins to hand on.
func Start(queues []Queue, h Handler) *Pump {
	p := &Pump{queues: queues, handler: h, done: make(chan struct{}), counts: make([]counts, len(queues))}
	for i := range queues {
		p.wait.Add(1)
		go p.carry(queues[i], &p.counts[i])
	}
	return p
}

// Close returns when the goroutines have ended.
func (p *Pump) Close() {
	p.once.Do(func() {
		close(p.done)
		for _, q := range p.queues {
			q.Interrupt()
		}
		p.wait.Wait()
	})
}

// Counters returns how many datagrams were handed on, and how many frames were malformed.
func (p *Pump) Counters() (received, malformed uint64) {
	for i := range p.counts {
		received += p.counts[i].received.Load()
		malformed += p.counts[i].malformed.Load()
	}
	return received, malformed
}

func (p *Pump) stopped() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *Pump) carry(q Queue, c *counts) {
	defer p.wait.Done()
	parse := new(parser)
	hand := func(frame []byte) {
		local, remote, data, ok := parse.parse(frame)
		if !ok {
			c.malformed.Add(1)
			return
		}
		c.received.Add(1)
		p.handler(local, remote, data)
	}
	for idle := 0; !p.stopped(); {
		if q.Drain(hand) > 0 {
			idle = 0
			continue
		}
		if idle++; idle > 2 {
			time.Sleep(idlePause)
		}
		began := time.Now()
		q.Wait(waitMax)
		if time.Since(began) > idlePause {
			idle = 0
		}
	}
	q.Drain(hand)
}

// Address makes netip.AddrPort of what sockets give: IPv4 addresses never as mapped ones.
func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
