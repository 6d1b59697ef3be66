package fib

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ownProtocol is keeper.Protocol: routes of the gateway's own, which it must not follow.
const ownProtocol = 83

// Limits of a watcher.
const (
	receiveBuffer   = 8 << 20              // bytes of netlink events the kernel keeps for us
	coalesce        = 2 * time.Millisecond // how long the first change waits for others
	quietFactor     = 4                    // pause after a rebuild, in multiples of what it took
	pendingMax      = 16384                // neighbour events kept apart; more lead to a whole listing
	resolveQueue    = 1024                 // requests waiting
	resolveRate     = 512                  // requests a second passed on to the kernel
	resolveRemember = 8192                 // addresses whose last request is remembered
	resolveAgain    = time.Second          // least time between two requests for one address
	deadHopsMax     = 4096                 // entries of vanished neighbours before a rebuild
)

// Port is an interface that the gateway sends through.
type Port struct {
	Name   string
	Number uint16
}

// Config describes a watcher.
type Config struct {
	// Ports are the interfaces that workers send through, by name: they may come and go.
	Ports []Port
	// TUN is the name of the gateway's own TUN device, whose routes are not followed.
	TUN string
	// Virtual are the gateway's virtual interfaces by name.
	Virtual map[string]uint16
	// Resolve is the keeper's ResolveNeighbour.
	Resolve func(ifindex int, addr netip.Addr) error
	// Changed is called from the watcher's goroutine after Start: first with everything, then
	// with each change. It must not call Close.
	Changed func(Update)
	// KeepAlive is how often used neighbours are looked after; 0 means 3 s.
	KeepAlive time.Duration
}

// Counters are a watcher's own figures.
type Counters struct {
	Rebuilds, NeighbourUpdates, Resyncs                uint64
	Resolved, Refreshed, ResolveLimited, ResolveErrors uint64
}

// Watcher follows the kernel's routes, neighbours, links and addresses.
//
// One netlink socket receives the events of all groups. Neighbour events are applied to the
// snapshot one by one, sharing its prefix table. Every other event only says that something
// changed: the state is then listed anew, because the kernel does not report each route that it
// removes with a link, so a snapshot always equals one listing. Listings are spaced by a multiple
// of what one takes.
type Watcher struct {
	cfg    Config
	events *nl.NetlinkSocket
	handle *netlink.Handle
	table  atomic.Pointer[Table]

	wake chan struct{}
	ask  chan neighbourKey
	done chan struct{}
	wait sync.WaitGroup
	once sync.Once

	mu      sync.Mutex // guards what the receiving goroutine leaves for the other, ports and virtual
	pending []neighbourEvent
	relist  bool
	ports   map[string]uint16
	virtual map[string]uint16

	// owned by the run goroutine (before Start: by the caller)
	state   *kernelState
	hopsOf  map[neighbourKey][]uint32
	marks   map[neighbourKey]*atomic.Uint32
	portsUp map[string]link
	dead    int
	asked   map[neighbourKey]time.Time
	tokens  float64
	filled  time.Time

	rebuilds, neighbourUpdates, resyncs                atomic.Uint64
	resolved, refreshed, resolveLimited, resolveErrors atomic.Uint64
}

type neighbourEvent struct {
	key neighbourKey
	now neighbour
}

// NewWatcher subscribes, lists the kernel's state in the calling thread's network namespace, and
// returns with a first snapshot. Nothing runs before Start. It needs no privilege.
func NewWatcher(cfg Config) (*Watcher, error) {
	if cfg.KeepAlive == 0 {
		cfg.KeepAlive = 3 * time.Second
	}
	w := &Watcher{
		cfg: cfg, wake: make(chan struct{}, 1), ask: make(chan neighbourKey, resolveQueue), done: make(chan struct{}),
		marks: map[neighbourKey]*atomic.Uint32{}, asked: map[neighbourKey]time.Time{}, tokens: resolveRate, filled: time.Now(),
	}
	w.ports, w.virtual = portMap(cfg.Ports), cfg.Virtual
	var err error
	w.events, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("subscribing to netlink events: %w", err)
	}
	if w.events.SetReceiveBufferSize(receiveBuffer, true) != nil {
		_ = w.events.SetReceiveBufferSize(receiveBuffer, false) // as much as an unprivileged socket may have
	}
	if w.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		w.events.Close()
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	if err := w.rebuild(&Update{}); err != nil {
		w.events.Close()
		w.handle.Close()
		return nil, err
	}
	return w, nil
}

func portMap(list []Port) map[string]uint16 {
	m := make(map[string]uint16, len(list))
	for _, p := range list {
		m[p.Name] = p.Number
	}
	return m
}

// Start begins to follow changes. Changed is called first with the whole state, every present
// port as LinkAppeared.
func (w *Watcher) Start() {
	w.wait.Add(2)
	go w.receive()
	go w.run()
}

// Close stops the watcher and returns when its goroutines have ended.
func (w *Watcher) Close() {
	w.once.Do(func() {
		close(w.done)
		w.events.Close()
		w.wait.Wait()
		w.handle.Close()
	})
}

// Table returns the current snapshot. Anyone may call it.
func (w *Watcher) Table() *Table { return w.table.Load() }

// Own returns the gateway's addresses as [NewWatcher] found them, sorted. It is for before Start; later they come with updates.
func (w *Watcher) Own() []netip.Addr { return w.state.own }

// SetPorts replaces the set of ports; the next snapshot follows it.
func (w *Watcher) SetPorts(ports []Port) {
	w.mu.Lock()
	w.ports, w.relist = portMap(ports), true
	w.mu.Unlock()
	w.poke()
}

// SetVirtual replaces the set of virtual interfaces; the next snapshot follows it.
func (w *Watcher) SetVirtual(virtual map[string]uint16) {
	w.mu.Lock()
	w.virtual, w.relist = maps.Clone(virtual), true
	w.mu.Unlock()
	w.poke()
}

// Resolve asks for the link address of a neighbour. It never blocks or allocates: when the queue
// is full the request is lost (and counted), and the next packet asks again.
func (w *Watcher) Resolve(ifindex int, addr netip.Addr) {
	if !addr.IsValid() {
		return
	}
	select {
	case w.ask <- neighbourKey{ifindex, addr}:
	default:
		w.resolveLimited.Add(1)
	}
}

// Counters returns the watcher's figures. Anyone may call it.
func (w *Watcher) Counters() Counters {
	return Counters{
		w.rebuilds.Load(), w.neighbourUpdates.Load(), w.resyncs.Load(),
		w.resolved.Load(), w.refreshed.Load(), w.resolveLimited.Load(), w.resolveErrors.Load(),
	}
}

func (w *Watcher) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// receive notes what changed. When events were lost (ENOBUFS) everything is listed again.
func (w *Watcher) receive() {
	defer w.wait.Done()
	for {
		messages, from, err := w.events.Receive()
		if errors.Is(err, os.ErrClosed) || errors.Is(err, unix.EBADF) {
			return
		}
		if err == nil && from.Pid != nl.PidKernel {
			continue // not the kernel's word
		}
		w.mu.Lock()
		if err != nil {
			w.resyncs.Add(1)
			w.relist = true
		}
		for i := range messages {
			switch t := messages[i].Header.Type; t {
			case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
				w.noteNeighbour(t, messages[i].Data)
			default:
				w.relist = true
			}
		}
		w.mu.Unlock()
		w.poke()
		if err != nil {
			select {
			case <-w.done:
				return
			case <-time.After(coalesce): // an error that stays must not become a busy loop
			}
		}
	}
}

// noteNeighbour keeps a neighbour event. The caller holds mu.
func (w *Watcher) noteNeighbour(messageType uint16, data []byte) {
	n, err := netlink.NeighDeserialize(data)
	if err != nil || len(w.pending) >= pendingMax {
		w.relist = true
		return
	}
	k, e, ok := neighbourOf(n)
	if !ok {
		return
	}
	if messageType == unix.RTM_DELNEIGH {
		e = neighbour{}
	}
	w.pending = append(w.pending, neighbourEvent{k, e})
}

// run applies changes, passes requests on to the kernel and looks after used neighbours.
func (w *Watcher) run() {
	defer w.wait.Done()
	tick := time.NewTicker(w.cfg.KeepAlive)
	defer tick.Stop()
	first := Update{Table: w.Table(), Links: linkEvents(nil, w.portsUp, w.ports), Own: w.state.own, OwnChanged: true}
	w.report(first)
	var apply <-chan time.Time
	var notBefore time.Time
	for {
		select {
		case <-w.done:
			return
		case <-w.wake:
			if apply == nil {
				apply = time.After(max(coalesce, time.Until(notBefore)))
			}
		case <-apply:
			apply = nil
			began := time.Now()
			w.apply()
			took := time.Since(began)
			notBefore = began.Add(took + quietFactor*took)
		case k := <-w.ask:
			w.resolve(k, time.Now())
		case now := <-tick.C:
			w.keepAlive(now)
		}
	}
}

func (w *Watcher) report(u Update) {
	if w.cfg.Changed != nil {
		w.cfg.Changed(u)
	}
}

// apply brings the snapshot up to date and reports what changed.
func (w *Watcher) apply() {
	w.mu.Lock()
	pending, relist := w.pending, w.relist
	w.pending, w.relist = nil, false
	w.mu.Unlock()
	before := w.Table()
	u := Update{}
	if !relist && w.dead < deadHopsMax {
		relist = !w.applyNeighbours(pending)
	} else {
		relist = true
	}
	if relist {
		if err := w.rebuild(&u); err != nil {
			// Listing fails when the kernel's state changes all the time or memory is short: try again.
			w.resyncs.Add(1)
			w.mu.Lock()
			w.relist = true
			w.mu.Unlock()
			w.poke()
			return
		}
	}
	u.Table, u.Own = w.Table(), w.state.own
	if u.Table != before || len(u.Links) > 0 || u.OwnChanged {
		w.report(u)
	}
}

// rebuild lists the kernel's state, compiles a table and publishes it if it differs.
func (w *Watcher) rebuild(u *Update) error {
	state, err := list(w.handle)
	if err != nil && (state == nil || !errors.Is(err, netlink.ErrDumpInterrupted)) {
		return err
	}
	if err != nil { // usable, but torn by a change that an event will follow
		w.mu.Lock()
		w.relist = true
		w.mu.Unlock()
		w.poke()
	}
	w.rebuilds.Add(1)
	w.mu.Lock()
	ports, virtual := w.ports, w.virtual
	w.mu.Unlock()
	portsUp, ignored := map[string]link{}, map[int]bool{}
	for _, l := range state.links {
		if _, ok := ports[l.name]; ok {
			portsUp[l.name] = l
		}
		if w.cfg.TUN != "" && l.name == w.cfg.TUN {
			ignored[l.index] = true
		}
	}
	marks := make(map[neighbourKey]*atomic.Uint32)
	c := compiler{state: state, ports: ports, ignored: ignored, virtual: virtual, used: func(k neighbourKey) *atomic.Uint32 {
		m := w.marks[k]
		if m == nil {
			if m = marks[k]; m == nil {
				m = new(atomic.Uint32)
			}
		}
		marks[k] = m
		return m
	}}
	t, hopsOf := c.compile()
	u.Links = linkEvents(w.portsUp, portsUp, ports)
	u.OwnChanged = w.state == nil || !slices.Equal(w.state.own, state.own)
	w.state, w.marks, w.portsUp, w.dead = state, marks, portsUp, 0
	w.hopsOf = hopsOf
	old := w.table.Load()
	if old == nil || !old.equal(t) {
		w.publish(old, t)
	}
	return nil
}

func (w *Watcher) publish(old, t *Table) {
	t.Generation = 1
	if old != nil {
		if t.Generation = old.Generation + 1; t.Generation == 0 {
			t.Generation = 1
		}
	}
	w.table.Store(t)
}

// applyNeighbours makes a snapshot that differs from the current one by neighbour events only:
// hops are copied, the prefix table is shared, or extended by a path copy for a new neighbour. It
// returns false if a whole rebuild is needed.
func (w *Watcher) applyNeighbours(events []neighbourEvent) bool {
	old := w.Table()
	t := &Table{prefixes: old.prefixes, groups: old.groups, Hops: old.Hops, Tunnels: old.Tunnels, mtus: old.mtus}
	copied, changed := false, false
	edit := func() {
		if !copied {
			t.Hops = append(make([]Hop, 0, len(old.Hops)+len(events)), old.Hops...)
			copied = true
		}
	}
	for _, e := range events {
		w.neighbourUpdates.Add(1)
		if e.now == (neighbour{}) {
			delete(w.state.neighbour, e.key)
			w.dead++
		} else {
			w.state.neighbour[e.key] = e.now
		}
		if hops := w.hopsOf[e.key]; hops != nil {
			for _, v := range hops {
				h := t.Hops[v]
				h.resolve(e.now)
				if h != t.Hops[v] {
					edit()
					t.Hops[v], changed = h, true
				}
			}
		}
		if e.now == (neighbour{}) {
			continue
		}
		v, _ := t.prefixes.Lookup(e.key.addr)
		if v&groupBit != 0 || !t.Hops[v].glean(e.key.ifindex) {
			continue
		}
		// The address has no entry of its own yet, even if it is some route's gateway.
		mark := w.marks[e.key]
		if mark == nil {
			mark = new(atomic.Uint32)
		}
		h := t.Hops[v]
		h.Gateway, h.used = e.key.addr, mark
		h.resolve(e.now)
		edit()
		n := uint32(len(t.Hops))
		t.Hops = append(t.Hops, h)
		t.prefixes = t.prefixes.InsertPersist(netip.PrefixFrom(e.key.addr, e.key.addr.BitLen()), n)
		w.marks[e.key], w.hopsOf[e.key], changed = mark, append(w.hopsOf[e.key], n), true
	}
	if changed {
		w.publish(old, t)
	}
	return true
}

// resolve passes a request on to the kernel unless the address was asked for a moment ago, is
// not on one of our ports, or the rate is used up.
func (w *Watcher) resolve(k neighbourKey, now time.Time) {
	if last, ok := w.asked[k]; ok && now.Sub(last) < resolveAgain {
		return
	}
	if l, ok := w.state.links[k.ifindex]; !ok || w.portsUp[l.name].index != k.ifindex {
		return
	}
	if !w.spend(now) {
		w.resolveLimited.Add(1)
		return
	}
	if len(w.asked) >= resolveRemember {
		for a, last := range w.asked {
			if now.Sub(last) >= resolveAgain {
				delete(w.asked, a)
			}
		}
		if len(w.asked) >= resolveRemember {
			clear(w.asked)
		}
	}
	w.asked[k] = now
	w.resolved.Add(1)
	w.request(k)
}

func (w *Watcher) request(k neighbourKey) {
	if w.cfg.Resolve == nil {
		return
	}
	if err := w.cfg.Resolve(k.ifindex, k.addr); err != nil {
		w.resolveErrors.Add(1)
	}
}

// spend takes one token of the rate limit.
func (w *Watcher) spend(now time.Time) bool {
	w.tokens = min(resolveRate, w.tokens+now.Sub(w.filled).Seconds()*resolveRate)
	w.filled = now
	if w.tokens < 1 {
		return false
	}
	w.tokens--
	return true
}

// keepAlive has the kernel confirm stale neighbours that packets went to since the last time.
func (w *Watcher) keepAlive(now time.Time) {
	for k, mark := range w.marks {
		if mark.Load() == 0 {
			continue
		}
		if w.state.neighbour[k].state&unix.NUD_STALE == 0 {
			mark.Store(0)
			continue
		}
		if !w.spend(now) {
			w.resolveLimited.Add(1)
			return // the others keep their marks for the next time
		}
		mark.Store(0)
		w.refreshed.Add(1)
		w.request(k)
	}
}
