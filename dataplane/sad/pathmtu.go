package sad

import (
	"errors"
	"math"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// Bounds of what an ICMP error may say of the path to a peer. It is not authenticated: it counts only with what just the way there can
// have seen, and never for long (RFC 4301, 8.2.1; RFC 8201, 4).
const (
	// PathMTUMin4 and PathMTUMin6 are the least outer MTUs that are believed: what every IPv4 host takes (RFC 791, 3.1) and every
	// IPv6 link carries (RFC 8200, 5).
	PathMTUMin4 = 576
	PathMTUMin6 = 1280
	// PathMTUAge is how long a path MTU holds after the last error that gave it (RFC 1191, 6.3; RFC 8201, 4).
	PathMTUAge = 10 * time.Minute
	// quotedAge is how many sequence numbers ago a packet may have been sent that an error is about.
	quotedAge = 1 << 20
)

// plateaus are the MTUs to try after an error that tells none (RFC 1191, 7), as far as they are not below the least one.
var plateaus = []int{2002, 1492, 1006, PathMTUMin4}

// Complaint is an ICMP error about a packet of ESP or AH that left here.
type Complaint struct {
	// What the packet says that it quotes: its outer addresses, ports in UDP, SPI, sequence number (low half) and length.
	Local, Remote         netip.Addr
	AH, Encap             bool
	LocalPort, RemotePort uint16
	SPI, Sequence         uint32
	Length                int
	// TooBig says that the packet was larger than MTU, which is 0 if the error does not tell. Otherwise Why says why it did not
	// arrive.
	TooBig bool
	MTU    int
	Why    Unreachable
}

// Unreachable is why packets to a peer do not arrive.
type Unreachable uint8

const (
	HostUnreachable Unreachable = iota + 1
	AdminProhibited
)

// Errors about complaints that are not heeded.
var (
	ErrImplausible = errors.New("quotes no packet that was sent lately")
	ErrNothingNew  = errors.New("says nothing new")
)

// pathKey names a path of which something was learned: the successor of an association inherits it.
type pathKey struct {
	name          string
	local, remote netip.Addr
}

type path struct {
	mtu     int
	probed  bool      // it was found out by packets that arrived, not only said by somebody on the way
	at      time.Time // that it was learned, or confirmed
	until   time.Time
	handles []Handle // that it was given to, some of which may be gone by now
	left    int      // of these, when those that are gone were last taken out
}

// paths is what was learned of the paths of outbound associations. Behind the table's mutex.
type paths struct {
	bySPI map[uint32]uint32 // slot + 1 of the first outbound association with an SPI: peers choose theirs without regard to others
	same  []uint32          // slot + 1 of the next one, by slot; made with the first association
	known map[pathKey]*path
	of    []*path // that an association was given, by slot; nil if none
}

func (p *paths) add(spi, slot uint32, capacity int) {
	if p.bySPI == nil {
		p.bySPI, p.same, p.of = map[uint32]uint32{}, make([]uint32, capacity), make([]*path, capacity)
	}
	p.same[slot] = p.bySPI[spi]
	p.bySPI[spi] = slot + 1
}

func (p *paths) remove(spi, slot uint32) {
	p.of[slot] = nil
	if first := p.bySPI[spi]; first == slot+1 {
		if next := p.same[slot]; next != 0 {
			p.bySPI[spi] = next
		} else {
			delete(p.bySPI, spi)
		}
		return
	}
	for at := p.bySPI[spi]; at != 0; at = p.same[at-1] {
		if p.same[at-1] == slot+1 {
			p.same[at-1] = p.same[slot]
			return
		}
	}
}

// quoted returns the live outbound association that sent the packet of a complaint, nil if there is none.
func (t *Table) quoted(c *Complaint) (*Outbound, *Params) {
	for at := t.paths.bySPI[c.SPI]; at != 0; at = t.paths.same[at-1] {
		o, p := &t.outbound[at-1], t.slots[out].params[at-1]
		if p == nil || p.Local != c.Local || p.Remote != c.Remote || p.AH != c.AH || p.Encap != c.Encap ||
			p.Encap && (p.LocalPort != c.LocalPort || p.RemotePort != c.RemotePort) {
			continue
		}
		sent := o.Seq.Load()
		if ago := uint64(uint32(sent) - c.Sequence); ago < quotedAge && ago < sent {
			head := t.OutboundHead(o)
			return head, t.slots[out].params[head.Slot]
		}
	}
	return nil, nil
}

// Complain takes an ICMP error to heart, if it quotes a packet that an outbound association sent lately. It returns the association, and what
// its path MTU is now, 0 if the error is about something else: then the owner tells a sender when it next comes to it. The error says why
// nothing changed.
func (t *Table) Complain(c *Complaint, now time.Time) (h Handle, mtu int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return 0, 0, ErrNotFound
	}
	o, p := t.quoted(c)
	if o == nil {
		return 0, 0, ErrImplausible
	}
	h = Handle(o.live)
	if !c.TooBig {
		o.learn(0xffff, uint32(c.Why)<<16)
		o.notify()
		return h, 0, nil
	}
	if mtu, err = believed(c); err != nil {
		return h, 0, err
	}
	k := pathKey{p.Name, p.Local, p.Remote}
	known := t.paths.known[k]
	switch {
	case known == nil:
		known = &path{mtu: mtu}
		if t.paths.known == nil {
			t.paths.known = map[pathKey]*path{}
		}
		t.paths.known[k] = known
	case mtu > known.mtu || mtu == known.mtu && known.probed:
		return h, known.mtu, ErrNothingNew // sent before it was learned, or a lie
	}
	known.at, known.until, known.probed = now, now.Add(PathMTUAge), false
	t.give(known, o)
	t.change(known, mtu)
	return h, mtu, nil
}

// Probed takes over what the peer has proven to arrive on an outbound association's path, be it more or less than was known, until it is
// to be forgotten. It returns what was known before, 0 if nothing.
func (t *Table) Probed(h Handle, mtu int, now, until time.Time) (before int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || h.Inbound() {
		return 0, ErrNotFound
	}
	o := t.LookupOutbound(h.Value())
	if o == nil {
		return 0, ErrNotFound
	}
	p := t.slots[out].params[o.Slot]
	k := pathKey{p.Name, p.Local, p.Remote}
	known := t.paths.known[k]
	if known == nil {
		known = &path{}
		if t.paths.known == nil {
			t.paths.known = map[pathKey]*path{}
		}
		t.paths.known[k] = known
	}
	before = known.mtu
	known.at, known.until, known.probed = now, until, true
	t.give(known, o)
	t.change(known, min(mtu, math.MaxUint16))
	return before, nil
}

// believed returns the MTU that a complaint is believed to tell.
func believed(c *Complaint) (int, error) {
	least, mtu := PathMTUMin4, c.MTU
	if c.Remote.Is6() {
		// Less is no link's MTU (RFC 8201, 4).
		if least = PathMTUMin6; mtu < least {
			return 0, ErrImplausible
		}
	}
	if mtu == 0 {
		for _, mtu = range plateaus {
			if mtu < c.Length {
				break
			}
		}
	}
	// What would have passed was not too big.
	if mtu = max(mtu, least); mtu >= c.Length {
		return 0, ErrImplausible
	}
	return mtu, nil
}

// give makes an association use what is known of its path. Thousands may have one path, so that costs the same however many there are.
func (t *Table) give(known *path, o *Outbound) {
	o.learn(0xffff<<16, uint32(known.mtu))
	if t.paths.of[o.Slot] == known {
		return
	}
	t.paths.of[o.Slot] = known
	if known.handles = append(known.handles, Handle(o.live)); len(known.handles) > 2*known.left+8 {
		known.handles = slices.DeleteFunc(known.handles, func(h Handle) bool { return t.user(known, h) == nil })
		known.left = len(known.handles)
	}
}

// user returns the association with a handle if it is there and uses what is known of a path, else nil.
func (t *Table) user(known *path, h Handle) *Outbound {
	if o := t.LookupOutbound(h.Value()); o != nil && t.paths.of[o.Slot] == known {
		return o
	}
	return nil
}

// change makes all that use a path use another MTU.
func (t *Table) change(known *path, mtu int) {
	if known.mtu == mtu {
		return
	}
	known.mtu = mtu
	for _, h := range known.handles {
		if o := t.user(known, h); o != nil {
			o.learn(0xffff<<16, uint32(mtu))
		}
	}
}

// inherit gives a new association what is known of its path.
func (t *Table) inherit(p *Params, o *Outbound) {
	known := t.paths.known[pathKey{p.Name, p.Local, p.Remote}]
	if known == nil {
		t.paths.of[o.Slot] = nil
		return
	}
	t.give(known, o)
}

// AgePaths forgets path MTUs that are too old, so that larger ones are tried again. To be called now and then.
func (t *Table) AgePaths(now time.Time) (forgotten int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return 0
	}
	for k, known := range t.paths.known {
		if now.Before(known.until) {
			continue
		}
		forgotten++
		delete(t.paths.known, k)
		for _, h := range known.handles {
			if o := t.user(known, h); o != nil {
				o.learn(0xffff<<16, 0)
				t.paths.of[o.Slot] = nil
			}
		}
	}
	return forgotten
}

// learn changes what is known of the path, but for the bits in keep.
func (o *Outbound) learn(keep, value uint32) {
	for {
		old := atomic.LoadUint32(&o.path)
		if atomic.CompareAndSwapUint32(&o.path, old, old&keep|value) {
			return
		}
	}
}

// PathMTU returns the largest outer packet on the way to the peer, as configured or learned; 0 if only the route's MTU is known.
// Anyone may call it.
func (o *Outbound) PathMTU() uint16 {
	learned := uint16(atomic.LoadUint32(&o.path))
	if learned == 0 || o.MTU != 0 && o.MTU < learned {
		return o.MTU
	}
	return learned
}

// Complaint returns why packets to the peer do not arrive, if somebody on the way has said so since the last call; 0 if not. Only the
// owner calls it.
func (o *Outbound) Complaint() Unreachable {
	why := Unreachable(atomic.LoadUint32(&o.path) >> 16)
	if why != 0 {
		o.learn(0xffff, 0)
	}
	return why
}
