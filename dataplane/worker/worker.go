// Package worker runs one core of the packet path. [Worker.Step] in loop.go is
// that path in order: take packets from RX rings and from other workers,
// classify, find the association, open, route, seal, send, give frames back.
//
// A worker looks up and decides. It never touches packet bytes: that is for esp
// (encapsulation), forward (TTL, MSS, MACs, ICMP) and ipfrag (fragments). It does not speak IKE.
//
// # Ownership
//
// Every frame has a home worker, by its address. A worker may hold, seal in
// place and transmit any frame; when the frame is free again it goes home, over
// a ring if the home is another worker. Every association has at most one owner,
// the only worker that touches its sequence number or window; packets that
// arrive elsewhere are handed to it by SPI.
package worker

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sallyport/dataplane/esp"
	"sallyport/dataplane/forward"
	"sallyport/dataplane/ipfrag"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
)

// Queue is the worker's end of one RX/TX queue pair: an AF_XDP socket or a
// queue in memory. It is called once a batch, by one worker.
type Queue interface {
	// Receive moves up to len(d) received packets out; their frames become the caller's.
	Receive(d []packet.Desc) int
	// Transmit stages a prefix of d for sending and returns its length.
	Transmit(d []packet.Desc) int
	// Fill gives frames to the receiver and returns how many it took.
	Fill(addr []uint64) int
	// Complete moves up to len(addr) sent frames out; they become the caller's.
	Complete(addr []uint64) int
	// FillRoom is how many frames Fill would take.
	FillRoom() int
	// Flush publishes what was staged and starts the transmitter.
	Flush() error
	// Unsent says that the last Flush left something behind, for another.
	Unsent() bool
	// FD becomes readable when there is something to receive.
	FD() int
	// Doze says that the worker is about to wait for FD, and reports whether it may: false if
	// something has come meanwhile. Wake says that it no longer waits.
	Doze() bool
	Wake()
}

// Limits of the slow paths inside a worker.
const (
	handoverSlots = 1024 // packets between two workers
	injectedMax   = 256  // packets made by this worker that wait for the next step
	parkedMax     = 256  // packets that wait for a neighbour
	handoversMax  = 4    // hand-overs one packet may see before it is dropped

	parkedTimeout = int64(1e9) // nanoseconds a packet waits for its neighbour
)

// Group is the set of workers of one gateway and what they share.
type Group struct {
	Workers []*Worker

	mem      []byte
	sad      *sad.Table
	tables   atomic.Pointer[Tables]
	resolve  func(ifindex int, addr netip.Addr)
	homeSize uint64 // bytes of UMEM that are home to one worker
	// fragmentSeed decides which worker has the fragments between two addresses.
	fragmentSeed uint64

	handover [][]*ring[packet.Packet] // [from][to]
	homeward [][]*ring[uint64]        // [from][to]: frames on their way home

	listener listener
	heard    [64]Event // the listener's
}

// Config describes a group of workers.
type Config struct {
	Workers int
	// Mem is the UMEM. Its first Frames chunks are shared out among the workers.
	Mem    []byte
	Frames int
	SAD    *sad.Table
	// Batch is the largest number of packets a worker carries at once, 1 to packet.BatchMax.
	Batch int
	// Resolve asks for the link address of a neighbour. It must not block.
	Resolve func(ifindex int, addr netip.Addr)
}

// NewGroup returns workers that own all frames and no queue. Their tables must be set
// before the first step.
func NewGroup(c Config) (*Group, error) {
	per := c.Frames / c.Workers
	g := &Group{
		mem:      c.Mem,
		sad:      c.SAD,
		resolve:  c.Resolve,
		homeSize: uint64(per) * packet.FrameSize, fragmentSeed: rand.Uint64(),
		handover: make([][]*ring[packet.Packet], c.Workers),
		homeward: make([][]*ring[uint64], c.Workers),
	}
	for i := range c.Workers {
		g.handover[i] = make([]*ring[packet.Packet], c.Workers)
		g.homeward[i] = make([]*ring[uint64], c.Workers)
		for j := range c.Workers {
			if i != j {
				g.handover[i][j] = newRing[packet.Packet](handoverSlots)
				// Every frame of j could be on this ring: it cannot overflow.
				g.homeward[i][j] = newRing[uint64](per)
			}
		}
	}
	var err error
	if g.listener.eventfd, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return nil, err
	}
	for i := range c.Workers {
		fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
		if err != nil {
			g.Close()
			return nil, err
		}
		flows, err := newFlows(c.SAD.Capacity())
		if err != nil {
			unix.Close(fd)
			g.Close()
			return nil, err
		}
		find := g.sad.Finder(i)
		w := &Worker{
			ID:         i,
			group:      g,
			eventfd:    fd,
			flows:      flows,
			burst:      c.Batch,
			find:       find,
			esp:        esp.NewScratch(g.sad, find),
			free:       make([]uint64, 0, per+packet.BatchMax), // room for foreign frames, until releaseAll knows them
			events:     newRing[Event](eventSlots),
			limiter:    forward.NewLimiter(icmpRate, icmpBurst),
			complaints: forward.NewLimiter(complaintRate, complaintBurst),
			ports:      ipfrag.NewPorts(),
			fragmentID: rand.Uint32(),
			waiting:    newWaiting(per),
			// At most an eighth of the frames: what waits must not keep the others from moving.
			fragments: ipfrag.NewReassembler(c.Mem, min(FragmentFrames, per/8)),
		}
		w.borrow = w.takeFree
		w.esp.Ports = w.ports
		w.batch.Mem = c.Mem
		for k := range per {
			w.free = append(w.free, uint64(i)*g.homeSize+uint64(k)*packet.FrameSize)
		}
		g.Workers = append(g.Workers, w)
	}
	return g, nil
}

// Close releases what the group holds of the kernel. The workers must have stopped.
func (g *Group) Close() {
	for _, w := range g.Workers {
		unix.Close(w.eventfd)
		w.flows.close()
	}
	unix.Close(g.listener.eventfd)
}

// SetTables publishes a new snapshot; every worker uses it from its next step on.
func (g *Group) SetTables(t *Tables) { g.tables.Store(t) }

// Tables returns the published snapshot.
func (g *Group) Tables() *Tables { return g.tables.Load() }

// home returns the worker that the frame at addr belongs to.
func (g *Group) home(addr uint64) int { return int(addr / g.homeSize) }

// Rate and burst of the ICMP errors that one worker sends.
const (
	icmpRate  = 1000 // a second
	icmpBurst = 64
)

// port is the worker's view of one queue of a port.
type port struct {
	queue    Queue
	number   uint16
	counters *QueueCounters
	pending  [packet.BatchMax]packet.Desc // staged by this step
	esp      [packet.BatchMax]bool        // which of them this gateway sealed
	n        int
	dirty    bool // the queue has something to flush
	failed   error
	_        [2 * packet.Apart]byte // behind pending, which is written in order, it is asked for further ahead
}

// Worker is one core's packet path. All fields belong to the goroutine that calls
// Step, but for the group's rings, the counters (readable by all) and what is
// marked shared.
type Worker struct {
	ID    int
	group *Group

	// hot
	batch     packet.Batch
	burst     int
	fresh     int    // packets of the batch that queues received, and that are to be classified
	came      uint64 // ports, those below 64, that they came by, and perhaps others
	staged    int    // packets of the batch that sendHops put in line for their next hops
	tables    *Tables
	guarded   bool  // the batch may have inbound packets of associations with terms for each packet
	verifies  bool  // the batch has packets of bundles, whose AH is to be verified
	signs     bool  // or made
	crowded   bool  // there are more associations than the caches hold
	now       int64 // nanoseconds on the monotonic clock, at the start of the step
	inbound   [packet.BatchMax]*sad.Inbound
	outbound  [packet.BatchMax]*sad.Outbound
	esp       *esp.Scratch
	flows     *flows
	ahead     foresight
	outRun    outRun
	departure departure
	inRun     inRun
	places    [packet.BatchMax]uint32 // of the packets' flows in flows; any value for packets not classified in this step
	rx        []*port                 // the queues this worker receives from, in turn
	next      int                     // index into rx where the next step starts
	first     []*port                 // those of IKE, which it receives from before
	rings     []*port                 // those of both with fill, completion and TX rings of their own
	tx        []*port                 // by port number: where this worker sends, nil if another worker does
	txOwner   []int                   // by port number: who sends if this worker has no queue there; -1 if nobody
	freeSeen  int                     // length of free when FreeFrames was last brought up to date
	free      []uint64                // frames of this worker's home that nobody holds
	lists     lists
	moves     moves

	// cold
	nextFirst int  // index into first where the next step starts
	watched   bool // by one of the next two
	tracer    *Tracer
	capturer  *Capturer
	answered  [packet.BatchMax]packet.Drop // why packets of a watched batch ended that became ICMP errors
	limiter   forward.Limiter
	// complaints bounds the ICMP errors about ESP that are passed on.
	complaints forward.Limiter
	events     *ring[Event]
	told       recent
	pieces     [fragmentsMax]packet.Packet
	cutting    bool                  // some of the packets to be sealed in this step will be too large for their path
	fragmentID uint32                // of the last IPv6 packet that was cut up
	borrow     func() (uint64, bool) // takeFree, bound once
	injected   queueOf[packet.Packet]
	fragments  *ipfrag.Reassembler // of outer datagrams
	ports      *ipfrag.Ports       // of first fragments
	parked     []parkedPacket
	parkedAt   uint32 // FIB generation at which parked packets were tried last
	waiting    waiting
	// Packets of IPv6 on their way to lists.shortOut and lists.shortForward, and those that leave lists.shortIn; lists that were joined. Not in
	// lists: as large as that would be, it cost every packet a nanosecond.
	sixOut, sixForward, leftIn [packet.BatchMax]uint8
	joined                     [joinsMax][packet.BatchMax]uint8
	nextJoined                 int
	find                       *sad.Finder

	descs [packet.BatchMax]packet.Desc
	addrs [packet.BatchMax]uint64
	poll  []unix.PollFd

	// Counters is written by the worker, read by all.
	Counters Counters

	// shared with other goroutines
	eventfd  int
	sleeping atomic.Bool
	stopped  atomic.Bool
	calls    atomic.Bool // there is something in called
	mu       sync.Mutex
	called   []func()
}

// lists are the live indices into the batch, by what is to be done with them.
type lists struct {
	in, out, forward, punt, transmit, ike, fragment, bundled []uint8
	// what took the short way to the same point, until the two join
	shortIn, shortOut, shortForward []uint8
	store                           [11][packet.BatchMax]uint8
}

// shortOut is the place in store of the list of that name.
const shortOut = 7

func (l *lists) reset() {
	l.in = l.store[0][:0]
	l.out = l.store[1][:0]
	l.forward = l.store[2][:0]
	l.punt = l.store[3][:0]
	l.transmit = l.store[4][:0]
	l.ike = l.store[5][:0]
	l.shortIn = l.store[6][:0]
	l.shortOut = l.store[shortOut][:0]
	l.shortForward = l.store[8][:0]
	l.fragment = l.store[9][:0]
	l.bundled = l.store[10][:0]
}

// queueOf is a small first-in, first-out queue of one goroutine.
type queueOf[T any] struct {
	items []T
	first int
}

func (q *queueOf[T]) len() int { return len(q.items) - q.first }
func (q *queueOf[T]) put(v T)  { q.items = append(q.items, v) }
func (q *queueOf[T]) get() T {
	v := q.items[q.first]
	q.first++
	if q.first == len(q.items) {
		q.items, q.first = q.items[:0], 0
	}
	return v
}

// parkedPacket is a complete IP packet that waits for its neighbour.
type parkedPacket struct {
	packet   packet.Packet
	deadline int64
}

// AddQueue gives the worker a queue of port number; what passes is counted in c. Only before the
// first step or through Call.
func (w *Worker) AddQueue(number uint16, q Queue, c *QueueCounters) {
	p := &port{queue: q, number: number, counters: c}
	w.rx = append(w.rx, p)
	w.add(p)
}

func (w *Worker) add(p *port) {
	w.rings = append(w.rings, p)
	w.sizePorts(p.number)
	if w.tx[p.number] == nil {
		w.tx[p.number] = p
	}
	w.txOwner[p.number] = w.ID
	w.fill(p) // so that not even the first packet is lost
}

// AddFirst is AddQueue for a queue that the worker receives from before all others, within a budget.
func (w *Worker) AddFirst(number uint16, q Queue, c *QueueCounters) {
	p := &port{queue: q, number: number, counters: c}
	w.first = append(w.first, p)
	w.add(p)
}

// AddSibling gives the worker a second socket on a queue of port number that it has: it shares fill and
// completion rings with the first, and sends nothing. The worker receives from it as with AddFirst.
func (w *Worker) AddSibling(number uint16, q Queue, c *QueueCounters) {
	w.first = append(w.first, &port{queue: q, number: number, counters: c})
}

// SetTransmitter says which worker sends on port number when this worker has no queue
// there; -1 for nobody. Only before the first step or through Call.
func (w *Worker) SetTransmitter(number uint16, worker int) {
	w.sizePorts(number)
	w.txOwner[number] = worker
}

func (w *Worker) sizePorts(number uint16) {
	for len(w.tx) <= int(number) {
		w.tx = append(w.tx, nil)
		w.txOwner = append(w.txOwner, -1)
	}
}

// RemoveQueue takes a queue away. The frames inside it are the caller's to give back
// with Return. Only before the first step or through Call.
func (w *Worker) RemoveQueue(q Queue) {
	other := func(p *port) bool { return p.queue != q }
	for _, p := range w.rings {
		if other(p) || w.tx[p.number] != p {
			continue
		}
		w.tx[p.number], w.txOwner[p.number] = nil, -1
		for _, next := range w.rings {
			if other(next) && next.number == p.number {
				w.tx[p.number], w.txOwner[p.number] = next, w.ID
				break
			}
		}
	}
	w.rx, w.first, w.rings = only(w.rx, other), only(w.first, other), only(w.rings, other)
	w.next, w.nextFirst = 0, 0
}

// only returns those ports that keep says yes to.
func only(ports []*port, keep func(*port) bool) (kept []*port) {
	for _, p := range ports {
		if keep(p) {
			kept = append(kept, p)
		}
	}
	return kept
}

// Return gives frames back that no queue and no batch holds. Only through Call.
func (w *Worker) Return(addrs []uint64) {
	for _, a := range addrs {
		w.release(a)
	}
	w.publish()
}

// FreeFrames returns how many frames of its home the worker holds idle. Only through Call.
func (w *Worker) FreeFrames() int { return len(w.free) }

// Call runs f on the worker's goroutine between two batches and returns when it has
// run. It must not be called from a worker.
func (w *Worker) Call(f func()) {
	done := make(chan struct{})
	w.mu.Lock()
	w.called = append(w.called, func() { f(); close(done) })
	w.calls.Store(true)
	w.mu.Unlock()
	w.wake()
	<-done
}

func (w *Worker) runCalls() {
	w.mu.Lock()
	called := w.called
	w.called = nil
	w.calls.Store(false)
	w.mu.Unlock()
	for _, f := range called {
		f()
	}
}

// Drain ends every packet that is left inside the workers, after they have stopped, and brings
// all frames home.
func (g *Group) Drain() {
	for _, w := range g.Workers {
		w.end()
		for _, p := range w.rings {
			w.complete(p)
		}
		w.publish()
	}
	for _, w := range g.Workers {
		w.collect()
	}
}

// end drops what waits in this worker or on its way to it.
func (w *Worker) end() {
	var left [packet.BatchMax]packet.Packet
	for from := range w.group.Workers {
		if from == w.ID {
			continue
		}
		r := w.group.handover[from][w.ID]
		for n := r.take(left[:]); n > 0; n = r.take(left[:]) {
			w.Counters.HandedIn.Add(uint64(n))
			for i := range left[:n] {
				w.discard(&left[i])
			}
		}
	}
	for w.injected.len() > 0 {
		p := w.injected.get()
		w.discard(&p)
	}
	for w.fragments.Drain() {
		w.endFragments()
	}
	for i := range w.parked {
		w.discard(&w.parked[i].packet)
	}
	w.parked = w.parked[:0]
	for i := range w.waiting.list {
		w.discard(&w.waiting.list[i].packet)
	}
	w.waiting.list = w.waiting.list[:0]
}

func (w *Worker) discard(p *packet.Packet) {
	w.Counters.Drops[packet.DropStopped].Add(1)
	w.release(p.Addr)
}

// Frames returns the number of frames that the workers share.
func (g *Group) Frames() int { return len(g.Workers) * int(g.homeSize/packet.FrameSize) }

// Revive tries a queue again whose device was down. Only through Call.
func (w *Worker) Revive(q Queue) {
	for _, p := range w.rings {
		if p.queue == q {
			p.failed = nil
		}
	}
}
