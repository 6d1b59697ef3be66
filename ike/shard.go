package ike

import (
	"encoding/binary"
	"io"
	"net/netip"
	"runtime/debug"
	"time"

	"sallyport/ike/ikesa"
	"sallyport/ike/message"
)

// shard is one goroutine with the IKE SAs whose SPI names it. All fields but the queues are its own.
type shard struct {
	server   *Server
	index    int
	inbox    chan ikesa.Datagram // for SPIs of this shard
	initials chan ikesa.Datagram // first IKE_SA_INIT requests; they come last
	orders   *mailbox

	sas      map[message.SPI]*entry
	initial  map[initialKey]*entry
	children map[uint32]*entry // by inbound SPI
	paths    map[ikesa.Path][]*entry
	timers   timers
	env      *env
	out      ikesa.Outputs
	leaving  []leaver // IKE SAs that are to be deleted, in their turn
	later    []func() // orders to SAs that came up while outputs were performed
}

// entry is one IKE SA in its shard.
type entry struct {
	sa       *ikesa.SA
	spi      message.SPI // ours
	number   uint64      // in the server's life, from 1
	deadline time.Time
	place    int  // in the heap, from 1; 0 = not there
	counted  bool // in the server's total
	halfOpen bool
	source   netip.Addr // whom halfOpen is counted for
	initial  initialKey // zero for initiators and successors
	path     ikesa.Path // whose MTU it wants to know, zero if none
	pathAt   int        // its place in the shard's list of that
	children []uint32   // inbound SPIs that were installed through this entry
	spiOut   []uint32   // their outbound ones, 0 = none yet
}

const shardBits = 6 // of an SPI; shardsMax = 1 << shardBits

// shardOf returns the shard that one of our SPIs names. A foreign one may name one that does not exist.
func shardOf(spi message.SPI) int { return int(spi & (1<<shardBits - 1)) }

func newShard(s *Server, index int) *shard {
	sh := &shard{
		server: s, index: index, orders: newMailbox(),
		inbox:    make(chan ikesa.Datagram, s.limits.Load().Queue),
		initials: make(chan ikesa.Datagram, max(s.limits.Load().Queue/4, 1)),
		sas:      make(map[message.SPI]*entry),
		initial:  make(map[initialKey]*entry),
		children: make(map[uint32]*entry),
		paths:    make(map[ikesa.Path][]*entry),
	}
	sh.env = &env{shard: sh}
	return sh
}

// newSPI draws an SPI of this shard that is not in use.
func (sh *shard) newSPI() message.SPI {
	for {
		var b [8]byte
		if _, err := io.ReadFull(sh.server.options.Rand, b[:]); err != nil {
			panic("ike: no randomness: " + err.Error())
		}
		spi := message.SPI(binary.BigEndian.Uint64(b[:]))&^(1<<shardBits-1) | message.SPI(sh.index)
		if spi>>shardBits != 0 && sh.sas[spi] == nil {
			return spi
		}
	}
}

// The loop. Orders come first, then timers, then messages of known IKE SAs, then new initiators; a few of each
// before the others get their turn.
const shardTurn = 32

func (sh *shard) run() {
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	for {
		if sh.orders.work(sh.server.guard) {
			return
		}
		sh.doTimers(time.Now())
		worked := sh.doDatagrams(sh.inbox, sh.receive) + sh.doDatagrams(sh.initials, sh.receiveInitial)
		if worked > 0 {
			continue
		}
		wait := time.Hour
		if e := sh.timers.next(); e != nil {
			wait = max(time.Until(e.deadline), 0)
		}
		alarm.Reset(wait)
		select {
		case <-sh.orders.ring:
		case <-alarm.C:
		case d := <-sh.inbox:
			sh.receive(d)
		case d := <-sh.initials:
			sh.receiveInitial(d)
		}
	}
}

// stop ends the goroutine after the orders that it has.
func (sh *shard) stop() { sh.orders.close() }

// call runs f on the shard's goroutine, some time soon.
func (sh *shard) call(f func()) {
	if !sh.orders.post(f) {
		sh.server.stats.drop(DropCall)
	}
}

// offer is call for events that come as fast as they like; it says whether it was taken.
func (sh *shard) offer(f func(*shard)) bool { return sh.orders.offer(func() { f(sh) }) }

func (sh *shard) doTimers(now time.Time) {
	for range shardTurn {
		e := sh.timers.next()
		if e == nil || now.Before(e.deadline) {
			return
		}
		sh.step(e, now, func() { e.sa.Tick(now, &sh.out) })
		if e.place != 0 && !now.Before(e.deadline) { // it wants to be called again at once: not before others
			sh.timers.set(e, now.Add(time.Millisecond))
		}
	}
}

func (sh *shard) doDatagrams(queue chan ikesa.Datagram, receive func(ikesa.Datagram)) (n int) {
	for ; n < shardTurn; n++ {
		select {
		case d := <-queue:
			receive(d)
		default:
			return n
		}
	}
	return n
}

// receive takes a datagram for an SPI of this shard.
func (sh *shard) receive(d ikesa.Datagram) {
	h, err := message.ParseHeader(d.Data)
	if err != nil {
		return // the gate has read it before
	}
	own := h.InitiatorSPI
	if h.FromInitiator() {
		own = h.ResponderSPI
	}
	e := sh.sas[own]
	if e == nil {
		sh.server.unknown(d, h)
		return
	}
	now := time.Now()
	sh.step(e, now, func() { e.sa.Receive(now, d, &sh.out) })
}

// receiveInitial takes an IKE_SA_INIT request that passed the gate.
func (sh *shard) receiveInitial(d ikesa.Datagram) {
	s := sh.server
	h, err := message.ParseHeader(d.Data)
	if err != nil {
		return
	}
	now := time.Now()
	key := initialKey{h.InitiatorSPI, d.Remote}
	if e := sh.initial[key]; e != nil {
		sh.step(e, now, func() { e.sa.Receive(now, d, &sh.out) })
		return
	}
	if s.closed.Load() {
		s.stats.drop(DropClosed)
		return
	}
	if s.total.Load() >= int64(s.limits.Load().SAs) {
		s.stats.drop(DropFull)
		return
	}
	source := sourceOf(d.Remote.Addr())
	limits := s.limits.Load()
	few := limits.HalfOpenPerAddress + s.config.Load().named[d.Remote.Addr()]
	drop := s.gate.halfOpen.enter(source, few, limits.HalfOpen)
	if drop == DropHalfOpenAddress {
		if !s.showsCookie(d, h) {
			return
		}
		drop = s.gate.halfOpen.enter(source, max(few, limits.HalfOpen/addressShare), limits.HalfOpen)
	}
	if drop != DropNone {
		s.stats.drop(drop)
		return
	}
	e := &entry{counted: true, halfOpen: true, source: source, initial: key}
	s.total.Add(1)
	sh.initial[key] = e
	sh.step(e, now, func() {
		e.sa = ikesa.NewResponder(sh.env)
		e.sa.Receive(now, d, &sh.out)
	})
}

// connect starts an IKE SA of ours. Made is called before its first datagram is sent, or not at all.
func (sh *shard) connect(c *ikesa.Connection, local, remote netip.AddrPort, o ikesa.InitiatorOptions, made func(*ikesa.SA)) {
	if sh.server.closed.Load() || sh.server.total.Load() >= int64(sh.server.limits.Load().SAs) {
		sh.server.stats.drop(DropFull)
		return
	}
	e := &entry{counted: true}
	sh.server.total.Add(1)
	now := time.Now()
	sh.step(e, now, func() {
		e.sa = ikesa.NewInitiator(c, sh.env, local, remote, o)
		sh.register(e)
		made(e.sa)
		e.sa.Command(now, ikesa.Initiate{}, &sh.out)
	})
}

// command gives an order to the IKE SA with one of our SPIs; none if it is gone.
func (sh *shard) command(spi message.SPI, c ikesa.Command) {
	if e := sh.sas[spi]; e != nil {
		sh.commandEntry(e, c)
	}
}

func (sh *shard) commandEntry(e *entry, c ikesa.Command) {
	now := time.Now()
	sh.step(e, now, func() { e.sa.Command(now, c, &sh.out) })
}

// commandChild gives an order to whoever holds a child now.
func (sh *shard) commandChild(spiIn uint32, c ikesa.Command) {
	if e := sh.holder(spiIn); e != nil {
		sh.commandEntry(e, c)
	}
}

// holder returns the entry of the IKE SA that holds a child: that through which it was installed, or, after rekeys of
// the IKE SA, the last successor.
func (sh *shard) holder(spiIn uint32) *entry {
	e := sh.children[spiIn]
	for e != nil {
		successor := e.sa.Successor()
		if successor == nil {
			break
		}
		next := sh.sas[successor.LocalSPI()]
		if next == nil {
			break
		}
		e = next
	}
	return e
}

// leaver is an IKE SA that is to be deleted.
type leaver struct {
	sa     *ikesa.SA
	reason ikesa.Reason
}

// leavePause is how long a shard waits after it has deleted shardTurn of many IKE SAs. At once they would overrun the queues between here and the
// peer, and what is lost there is sent again seconds later.
const leavePause = 5 * time.Millisecond

// dismiss deletes an IKE SA, in its turn.
func (sh *shard) dismiss(spi message.SPI, r ikesa.Reason) {
	e := sh.sas[spi]
	if e == nil {
		return
	}
	if sh.leaving = append(sh.leaving, leaver{e.sa, r}); len(sh.leaving) == 1 {
		sh.call(sh.leave)
	}
}

// leave deletes the first of those that are to be deleted, or, if the peer has rekeyed one meanwhile, its successor.
func (sh *shard) leave() {
	n := min(len(sh.leaving), shardTurn)
	for _, x := range sh.leaving[:n] {
		sa := x.sa
		for next := sa.Successor(); next != nil; next = sa.Successor() {
			sa = next
		}
		sh.command(sa.LocalSPI(), ikesa.DeleteIKE{Reason: x.reason})
	}
	if sh.leaving = sh.leaving[n:]; len(sh.leaving) > 0 {
		time.AfterFunc(leavePause, func() { sh.call(sh.leave) })
	} else {
		sh.leaving = nil
	}
}

func (sh *shard) deleteAll() {
	for spi := range sh.sas {
		sh.dismiss(spi, ikesa.ReasonShutdown)
	}
	for _, e := range sh.initial {
		if e.spi == 0 {
			sh.forget(e)
		}
	}
}

// step lets one IKE SA do something and performs what it wants done. A panic costs this IKE SA only.
func (sh *shard) step(e *entry, now time.Time, f func()) {
	if !sh.guarded(e, func() {
		f()
		sh.register(e)
		sh.perform(e)
		sh.settle(e)
	}) {
		return
	}
	for len(sh.later) > 0 {
		next := sh.later[0]
		sh.later = sh.later[1:]
		next()
	}
}

// guard runs an order. If it panics, that is counted, and the goroutine goes on.
func (s *Server) guard(f func()) {
	ok := false
	defer func() {
		if !ok {
			s.stats.panics.Add(1)
			s.log.panicked(nil, recover(), debug.Stack())
		}
	}()
	f()
	ok = true
}

// guarded runs f, and reports whether it came to its end. If it panics, the IKE SA is torn out: its peer finds that
// out by asking.
func (sh *shard) guarded(e *entry, f func()) (ok bool) {
	defer func() {
		if ok {
			return
		}
		r := recover()
		sh.server.stats.panics.Add(1)
		sh.server.stats.reason(ikesa.ReasonPanic)
		sh.server.log.panicked(e, r, debug.Stack())
		sh.tearOut(e)
	}()
	f()
	return true
}

// tearOut removes an IKE SA without calling it again. The data plane may be at fault itself, so each call of it is on its own.
func (sh *shard) tearOut(e *entry) {
	clear(sh.out.Actions)
	sh.out.Actions, sh.later = sh.out.Actions[:0], nil
	spi := e.spi
	for len(e.children) > 0 {
		in, out := e.children[0], e.spiOut[0]
		sh.forgetChild(in)
		func() {
			defer func() { _ = recover() }()
			sh.server.kernel.RemoveChild(in, out, ikesa.ReasonPanic.String())
		}()
	}
	sh.forget(e)
	if spi != 0 {
		sh.server.manager.ended(spi, ikesa.ReasonPanic)
	}
}

// register enters an IKE SA under its SPI once it has one.
func (sh *shard) register(e *entry) {
	if e.spi != 0 || e.sa == nil {
		return
	}
	if spi := e.sa.LocalSPI(); spi != 0 {
		e.spi, e.number = spi, sh.server.number.Add(1)
		sh.sas[spi] = e
	}
}

// settle brings timers and counts in line with what the IKE SA is now.
func (sh *shard) settle(e *entry) {
	if e.sa == nil || e.sa.State() == ikesa.StateEnded {
		sh.forget(e)
		return
	}
	if e.halfOpen && e.sa.Confirmed() {
		e.halfOpen = false
		sh.server.gate.halfOpen.leave(e.source)
	}
	sh.settlePath(e)
	sh.timers.set(e, e.sa.Deadline())
}

// forget removes what the shard knows of an IKE SA. Its children have been removed, or a successor has them.
func (sh *shard) forget(e *entry) {
	if !e.counted {
		return // forgotten already
	}
	sh.timers.remove(e)
	sh.leavePath(e)
	if e.halfOpen {
		e.halfOpen = false
		sh.server.gate.halfOpen.leave(e.source)
	}
	if sh.initial[e.initial] == e {
		delete(sh.initial, e.initial)
	}
	if sh.sas[e.spi] == e {
		delete(sh.sas, e.spi)
	}
	if e.sa != nil {
		if successor := e.sa.Successor(); successor != nil {
			if next := sh.sas[successor.LocalSPI()]; next != nil {
				for i, spi := range e.children {
					sh.children[spi] = next
					next.children, next.spiOut = append(next.children, spi), append(next.spiOut, e.spiOut[i])
				}
			}
		}
	}
	sh.server.total.Add(-1)
	*e = entry{}
}
