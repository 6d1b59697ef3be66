package sad

import (
	"fmt"
	"math"
	"sync/atomic"
)

// Lifetime bounds what an association carries; 0 is no bound. Reaching a soft bound is only told, once. At a hard one
// the association ends.
type Lifetime struct {
	SoftBytes, HardBytes     uint64 // of inner IP datagrams
	SoftPackets, HardPackets uint64
}

// Cause is the bound that was reached.
type Cause uint8

const (
	CauseBytes Cause = iota
	CausePackets
	// CauseSequence: three quarters of the 32-bit sequence numbers are used up (RFC 4303, 3.3.3).
	CauseSequence
)

func (c Cause) String() string { return [...]string{"bytes", "packets", "sequence"}[c] }

// sequenceSoft is the sequence number at which an outbound association without extended numbers should be
// replaced: at 10 million packets/s, 100 s before the last one.
const sequenceSoft = 3 << 30

// Bounds are the numbers of bytes and packets at which an association's next bound lies. The owner compares after each
// batch; control calls set them.
type Bounds struct{ bytes, packets uint64 }

// unbounded is more than anything can carry.
const unbounded = math.MaxUint64

// Reached says that a bound lies behind these counts. The owner reports it to [Table.Expire].
func (b *Bounds) Reached(bytes, packets uint64) bool {
	return bytes >= atomic.LoadUint64(&b.bytes) || packets >= atomic.LoadUint64(&b.packets)
}

// Told keeps Reached from being true until Expire, or until a hard bound in t, which may be nil, is reached that was not yet. Only the
// owner calls it, with its counts.
func (b *Bounds) Told(t *Terms, bytes, packets uint64) {
	next := Lifetime{}
	if t != nil && !t.Over(bytes, packets) {
		next = t.hard
	}
	atomic.StoreUint64(&b.bytes, least(next.HardBytes, unbounded))
	atomic.StoreUint64(&b.packets, least(next.HardPackets, unbounded))
}

// arm sets the next bounds of an association that has carried so much: the soft ones, or, when they are reached, the hard ones.
func (b *Bounds) arm(p *Params, bytes, packets uint64) {
	nextBytes, nextPackets := p.Lifetime.HardBytes, p.Lifetime.HardPackets
	if _, reached := p.soft(bytes, packets); !reached {
		nextBytes, nextPackets = least(nextBytes, p.Lifetime.SoftBytes), least(nextPackets, p.softPackets())
	}
	atomic.StoreUint64(&b.bytes, least(nextBytes, unbounded))
	atomic.StoreUint64(&b.packets, least(nextPackets, unbounded))
}

// least returns the smaller of two bounds, of which 0 is none.
func least(a, b uint64) uint64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// softPackets is the number of packets at which the association should be replaced, by its lifetime or its sequence numbers.
func (p *Params) softPackets() uint64 { return least(p.Lifetime.SoftPackets, p.softSequence()) }

// softSequence is the number of packets after which the sequence numbers run short; 0 if they never do.
func (p *Params) softSequence() (packets uint64) {
	if p.Inbound || p.Manual || p.half {
		return 0
	}
	if !p.ESN {
		packets = max(sequenceSoft, p.Sequence+1) - p.Sequence
	}
	if b := p.Bundle; b != nil && !b.ESN {
		packets = least(packets, max(sequenceSoft, b.Sequence+1)-b.Sequence)
	}
	return packets
}

// soft says which soft bound these counts have reached.
func (p *Params) soft(bytes, packets uint64) (Cause, bool) {
	l := &p.Lifetime
	switch {
	case l.SoftBytes != 0 && bytes >= l.SoftBytes:
		return CauseBytes, true
	case l.SoftPackets != 0 && packets >= l.SoftPackets:
		return CausePackets, true
	case p.softSequence() != 0 && packets >= p.softSequence():
		return CauseSequence, true
	}
	return 0, false
}

// hard says which hard bound these counts have reached.
func (p *Params) hard(bytes, packets uint64) (Cause, bool) {
	l := &p.Lifetime
	switch {
	case l.HardBytes != 0 && bytes >= l.HardBytes:
		return CauseBytes, true
	case l.HardPackets != 0 && packets >= l.HardPackets:
		return CausePackets, true
	}
	return 0, false
}

// Expire judges an association whose owner found a bound reached: which one, and whether it is a hard one, after which
// the caller removes the association. Otherwise the next bounds are set. The error is [ErrNotFound]: it is gone.
func (t *Table) Expire(h Handle) (cause Cause, hard bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, bytes, packets, bounds := t.carried(h)
	if p == nil {
		return 0, false, fmt.Errorf("expire association %s: %w", h, ErrNotFound)
	}
	if cause, hard = p.hard(bytes, packets); hard {
		return cause, true, nil
	}
	cause, _ = p.soft(bytes, packets)
	bounds.arm(p, bytes, packets)
	return cause, false, nil
}

// carried returns an association's description, counts and bounds. The caller holds the mutex.
func (t *Table) carried(h Handle) (p *Params, bytes, packets uint64, b *Bounds) {
	if t.closed {
		return nil, 0, 0, nil
	}
	if h.Inbound() {
		if a := t.LookupInbound(h.Value()); a != nil {
			return t.slots[in].params[a.Slot], a.Bytes.Load(), a.Packets.Load(), &a.Bounds
		}
	} else if a := t.LookupOutbound(h.Value()); a != nil {
		return t.slots[out].params[a.Slot], a.Bytes.Load(), a.Packets.Load(), &a.Bounds
	}
	return nil, 0, 0, nil
}

// Usage is what an association has carried.
type Usage struct {
	SPI            uint32
	Packets, Bytes uint64 // of inner IP datagrams
	Last           int64  // when the last one was accepted or sent, on the workers' clock; 0: never
	// Sequence is the highest number received or sent, SequenceLeft how many may still be sent.
	Sequence, SequenceLeft uint64
}

// Usage says what an association has carried; ok is false if it is gone.
func (t *Table) Usage(h Handle) (u Usage, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return u, false
	}
	if h.Inbound() {
		a := t.LookupInbound(h.Value())
		if a == nil {
			return u, false
		}
		return Usage{a.SPI, a.Packets.Load(), a.Bytes.Load(), int64(a.Last.Load()), a.Window.Top(), 0}, true
	}
	a := t.LookupOutbound(h.Value())
	if a == nil {
		return u, false
	}
	return Usage{a.SPI, a.Packets.Load(), a.Bytes.Load(), int64(a.Last.Load()), a.Seq.Load(), a.Left()}, true
}
