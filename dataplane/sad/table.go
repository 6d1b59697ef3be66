// Package sad is the security association database (RFC 4301, 4.4.2): fixed arenas of
// inbound and outbound associations outside the Go heap, found by one index.
//
// The SPI of an inbound association is a keyed permutation of (generation,
// slot), so look-up inverts it, reads the slot and compares the whole SPI. SPIs
// that the configuration chose stand in a small hash beside. An outbound association
// is named by a handle of (generation, slot).
//
// Control calls (Install, Remove, Bind, Range, ...) take a mutex and may come from
// any goroutine. Workers take none: an association is published by one atomic store
// when it is complete, unpublished by another, and its key zeroed and its slot
// used again only when every worker has passed a batch boundary since (see Pass).
// Negotiation, lifetimes and policy are not handled here.
package sad

import (
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"sallyport/dataplane/offheap"
	"sallyport/dataplane/replay"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
)

// CapacityMax is the largest number of associations in each direction.
const CapacityMax = 1 << 21

// recycleMin is how many free slots are kept before one is used again, so
// that a generation, and with it an SPI, returns late.
const recycleMin = 1024

// Errors that callers test for.
var (
	ErrFull      = errors.New("no free association slot")
	ErrDuplicate = errors.New("SPI is in use")
	ErrNotFound  = errors.New("no such association")
)

// Config sizes a table.
type Config struct {
	Capacity int // associations in each direction, 1..CapacityMax
	Workers  int // number of workers that look up
}

// Handle names an association for its life: the SPI of an inbound one, slot and
// generation of an outbound one.
type Handle uint64

const handleInbound Handle = 1 << 32

// InboundHandle returns the handle of the inbound association with an SPI.
func InboundHandle(spi uint32) Handle { return handleInbound | Handle(spi) }

// Inbound says which direction the handle is for.
func (h Handle) Inbound() bool { return h&handleInbound != 0 }

// Value is what LookupInbound (the SPI) or LookupOutbound and Bind take.
func (h Handle) Value() uint32 { return uint32(h) }

func (h Handle) String() string {
	if h.Inbound() {
		return fmt.Sprintf("in:%08x", h.Value())
	}
	return fmt.Sprintf("out:%08x", h.Value())
}

// Table is the database.
type Table struct {
	// hot: written by New only
	inbound    []Inbound
	outbound   []Outbound
	mask       uint32 // of the slot in a permuted SPI or an outbound handle
	spis       permutation
	words      words
	keys       [2][]transform.Key // by direction and slot; written before publication
	selectors  []*spd.Selectors
	plain6     []spd.Plain6 // by slot, of inbound associations whose Plain says so
	terms      [2][]*Terms  // by direction and slot; nil for most
	flights    [2][]Flight  // by direction and slot
	configured configured
	epochs     epochs
	bindings   bindings
	crowded    atomic.Bool
	unlike     atomic.Int64    // inbound associations whose Plain is none
	sixes      atomic.Int64    // those with a Plain6
	long       [2]atomic.Int64 // associations whose packets need a third cache line, by direction

	// cold: behind the mutex, but for bound, which counts calls of Bind
	bound    atomic.Uint64
	mu       sync.Mutex
	closed   bool
	mappings [7]offheap.Mapping // associations, then keys, then flights, by direction; plain6
	reserved map[uint32]uint32  // slots by SPI
	moved    sync.Map           // Handle to *Params: what Move left for an owner
	slots    [2]slots
	limbo    queue[removed]
	paths    paths        // of outbound associations
	bits     [11]freeBits // by log2 of the words of a window
	bitsNext uint32       // first replay word that was never used
}

// Directions index what exists for each.
const (
	out = iota
	in
)

// slots is the control side of one arena.
type slots struct {
	fresh      int // slots from here on were never used
	free       queue[uint32]
	generation []uint32
	params     []*Params // of live slots, without keying material
	live       int
}

type freeBits []uint32

type removed struct {
	epoch     uint64
	slot      uint32
	direction int
}

// New maps the arenas.
func New(c Config) (*Table, error) {
	if c.Capacity < 1 || c.Capacity > CapacityMax {
		return nil, fmt.Errorf("association table for %d: 1 to %d", c.Capacity, CapacityMax)
	}
	if c.Workers < 0 {
		return nil, fmt.Errorf("association table with %d workers", c.Workers)
	}
	t := &Table{
		// At least 8 bits of slot, so that a generation from 1 up keeps clear of the reserved SPIs.
		mask:      1<<max(bits.Len(uint(c.Capacity-1)), 8) - 1,
		selectors: make([]*spd.Selectors, c.Capacity),
	}
	t.epochs.start(c.Workers)
	for d := range t.slots {
		t.slots[d].generation = make([]uint32, c.Capacity)
		t.slots[d].params = make([]*Params, c.Capacity)
		t.terms[d] = make([]*Terms, c.Capacity)
	}
	err := t.open(c.Capacity)
	if err != nil {
		t.Close()
		return nil, fmt.Errorf("association table for %d: %w", c.Capacity, err)
	}
	return t, nil
}

func (t *Table) open(capacity int) (err error) {
	if t.spis, err = newPermutation(); err != nil {
		return err
	}
	if t.inbound, t.mappings[in], err = newSlots[Inbound](capacity); err != nil {
		return err
	}
	if t.outbound, t.mappings[out], err = newSlots[Outbound](capacity); err != nil {
		return err
	}
	for d := range t.keys {
		if t.keys[d], t.mappings[2+d], err = newSlots[transform.Key](capacity); err != nil {
			return err
		}
		if t.flights[d], t.mappings[4+d], err = newSlots[Flight](capacity); err != nil {
			return err
		}
	}
	if t.plain6, t.mappings[6], err = newSlots[spd.Plain6](capacity); err != nil {
		return err
	}
	// Blocks stay in their size class, so at worst each class once has a block for every slot:
	// less than twice the largest class.
	t.words, err = newWords(capacity * 2 * replay.Words(replay.SizeMax))
	return err
}

// Close zeroes every key and unmaps the arenas. No worker may look anything up, and no
// association may be held, from then on.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.closed = true
	for d := range t.keys {
		for i := range min(t.slots[d].fresh, len(t.keys[d])) {
			t.keys[d][i].Zero()
		}
		t.keys[d], t.flights[d] = nil, nil
	}
	t.inbound, t.outbound, t.plain6 = nil, nil, nil
	for i := range t.mappings {
		t.mappings[i].Release()
		t.mappings[i] = nil
	}
	t.words.Release()
	t.words = words{}
}

// Capacity returns how many associations of each direction there is room for.
func (t *Table) Capacity() int { return len(t.selectors) }

// Install makes an association that workers find as soon as it returns. It costs the same
// however many there are. On error nothing is left behind.
func (t *Table) Install(p Params) (Handle, error) {
	h, err := t.install(&p)
	if err != nil {
		return 0, fmt.Errorf("install association %q: %w", p.Name, err)
	}
	return h, nil
}

func (t *Table) install(p *Params) (Handle, error) {
	if p.half {
		return 0, errHalf
	}
	c, err := newCandidate(p)
	if err != nil {
		return 0, err
	}
	var ah candidate
	if p.Bundle != nil {
		if ah, err = newCandidate(p.signer()); err != nil {
			return 0, fmt.Errorf("its AH: %w", err)
		}
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return 0, errors.New("table is closed")
	}
	if err := t.fill(&c); err != nil {
		return 0, err
	}
	if p.Bundle == nil {
		return t.publish(&c), nil
	}
	if ah.direction == in && ah.params.SPI == c.params.SPI {
		err = fmt.Errorf("SPI %#x: %w", c.params.SPI, ErrDuplicate)
	} else {
		err = t.fill(&ah)
	}
	if err != nil {
		t.limbo.push(removed{t.epochs.begin(), c.slot, c.direction})
		return 0, fmt.Errorf("its AH: %w", err)
	}
	t.link(c.direction, c.slot, ah.slot)
	// The half that packets come to first becomes visible last.
	if c.direction == in {
		h := t.publish(&c)
		t.publish(&ah)
		return h, nil
	}
	t.publish(&ah)
	return t.publish(&c), nil
}

// candidate is an association on its way into the table.
type candidate struct {
	params    *Params // without keying material
	keymat    []byte  // the caller's
	selectors *spd.Selectors
	terms     *Terms
	direction int
	slot      uint32
	chosen    bool // the configuration chose its SPI, inbound
}

// newCandidate checks and compiles what needs no table.
func newCandidate(p *Params) (c candidate, err error) {
	if err := p.check(); err != nil {
		return c, err
	}
	c = candidate{keymat: p.Keymat, terms: p.terms(), direction: out}
	if p.Inbound {
		if c.selectors, err = spd.CompileSelectors(p.Selectors); err != nil {
			return c, err
		}
		c.direction = in
	}
	kept := *p
	kept.Keymat = nil
	if p.Bundle != nil {
		bundle := *p.Bundle
		bundle.Keymat = nil
		kept.Bundle = &bundle
	}
	c.params = &kept
	return c, nil
}

// fill makes a candidate complete in a slot, where nobody finds it. On error nothing is left behind. The caller holds the mutex.
func (t *Table) fill(c *candidate) (err error) {
	if c.direction == in {
		return t.fillInbound(c)
	}
	if c.slot, err = t.take(out); err != nil {
		return err
	}
	if err := t.keys[out][c.slot].Set(c.params.Suite, c.keymat); err != nil {
		t.slots[out].free.push(c.slot)
		return err
	}
	t.outbound[c.slot].fill(c.params, c.slot)
	t.terms[out][c.slot] = c.terms
	return nil
}

func (t *Table) fillInbound(c *candidate) error {
	p := c.params
	chosen := p.SPI != 0
	if chosen && t.LookupInbound(p.SPI) != nil {
		return fmt.Errorf("SPI %#x: %w", p.SPI, ErrDuplicate)
	}
	slot, reserved := t.reserved[p.SPI]
	if reserved && p.Manual {
		return fmt.Errorf("SPI %#x: %w", p.SPI, ErrDuplicate)
	}
	var err error
	if !reserved {
		if slot, err = t.take(in); err != nil {
			return err
		}
	}
	giveBack := func() {
		if !reserved {
			t.slots[in].free.push(slot)
		}
	}
	if err := t.keys[in][slot].Set(p.Suite, c.keymat); err != nil {
		giveBack()
		return err
	}
	block, err := t.takeBits(p.Window)
	if err != nil {
		t.keys[in][slot].Zero()
		giveBack()
		return err
	}
	if reserved {
		delete(t.reserved, p.SPI)
		chosen = false // its slot follows from it
	} else if !chosen {
		p.SPI = t.newSPI(slot)
	}
	t.inbound[slot].fill(p, slot, block)
	if t.inbound[slot].Plain = *c.selectors.Plain(); p.Transport {
		t.inbound[slot].Plain = spd.NoPlain()
	}
	if t.inbound[slot].Plain.Has6() {
		t.plain6[slot] = c.selectors.Plain6()
	}
	t.selectors[slot], t.terms[in][slot] = c.selectors, c.terms
	c.slot, c.chosen = slot, chosen
	return nil
}

// publish lets workers find what fill completed. The caller holds the mutex.
func (t *Table) publish(c *candidate) Handle {
	p := c.params
	t.describe(c.direction, c.slot, p)
	t.count(c.direction, 1)
	if c.direction == in {
		t.countForm(&t.inbound[c.slot].Plain, 1)
		atomic.StoreUint32(&t.inbound[c.slot].live, p.SPI)
		if c.chosen {
			t.configured.insert(p.SPI, c.slot)
		}
		return InboundHandle(p.SPI)
	}
	a, h := &t.outbound[c.slot], t.nextGeneration(out, c.slot)
	if p.Bundle == nil { // the SPI that is seen on the way is that of AH
		t.paths.add(p.SPI, c.slot, len(t.outbound))
	}
	atomic.StoreUint32(&a.live, h)
	if !p.half {
		t.inherit(p, a)
	}
	return Handle(h)
}

// count keeps the number of live associations, and what depends on it.
func (t *Table) count(direction, change int) {
	t.slots[direction].live += change
	if crowded := max(t.slots[in].live, t.slots[out].live) > crowd; crowded != t.crowded.Load() {
		t.crowded.Store(crowded)
	}
}

// take returns an empty slot. Fresh ones are used while few wait to be used again.
func (t *Table) take(direction int) (uint32, error) {
	t.reclaim()
	s := &t.slots[direction]
	if s.fresh < len(s.generation) && s.free.len() < recycleMin {
		s.fresh++
		return uint32(s.fresh - 1), nil
	}
	if slot, ok := s.free.pop(); ok {
		return slot, nil
	}
	return 0, fmt.Errorf("%w: all %d are in use or wait for the workers to let go", ErrFull, len(s.generation))
}

// nextGeneration returns generation and slot as one number. Generations begin at 1 and skip 0 when
// they wrap, so the number is never below 256.
func (t *Table) nextGeneration(direction int, slot uint32) uint32 {
	width := uint(bits.Len32(t.mask))
	g := &t.slots[direction].generation[slot]
	*g = (*g + 1) & (1<<(32-width) - 1)
	if *g == 0 {
		*g = 1
	}
	return *g<<width | slot
}

// takeBits returns the index of the first of the zero words of a window.
func (t *Table) takeBits(size uint32) (uint32, error) {
	n := replay.Words(size)
	class := &t.bits[bits.Len(uint(n-1))]
	if last := len(*class) - 1; last >= 0 {
		block := (*class)[last]
		*class = (*class)[:last]
		return block, nil
	}
	if err := t.words.grow(int(t.bitsNext) + n); err != nil {
		return 0, err
	}
	t.bitsNext += uint32(n)
	return t.bitsNext - uint32(n), nil
}

// Remove takes an association out: no look-up that begins afterwards finds it.
// Its key is zeroed and its slot free when every worker has passed, at the next
// Install, Remove or Reclaim after that.
func (t *Table) Remove(h Handle) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	direction, slot := out, uint32(0)
	if h.Inbound() {
		a := t.LookupInbound(h.Value())
		if a == nil {
			return fmt.Errorf("remove inbound association %s: %w", h, ErrNotFound)
		}
		direction, slot = in, a.Slot
	} else {
		a := t.LookupOutbound(h.Value())
		if a == nil {
			return fmt.Errorf("remove outbound association %s: %w", h, ErrNotFound)
		}
		slot = a.Slot
	}
	p := t.slots[direction].params[slot]
	if p.half {
		return fmt.Errorf("remove association %s: %w", h, errHalf)
	}
	t.unpublish(direction, slot)
	gone := []uint32{slot}
	if p.Bundle != nil {
		gone = append(gone, t.partnerOf(direction, slot))
		t.unpublish(direction, gone[1])
	}
	epoch := t.epochs.begin() // one for both: who found either may hold the other
	for _, slot := range gone {
		t.limbo.push(removed{epoch, slot, direction})
	}
	t.reclaim()
	return nil
}

// unpublish takes the association in a slot out of every index. The caller holds the mutex.
func (t *Table) unpublish(direction int, slot uint32) {
	if direction == in {
		a := &t.inbound[slot]
		t.countForm(&a.Plain, -1)
		t.moved.Delete(InboundHandle(a.SPI))
		if known, ok := t.configured.find(a.SPI); ok && known == slot {
			t.configured.remove(a.SPI)
		}
		atomic.StoreUint32(&a.live, 0)
	} else {
		a := &t.outbound[slot]
		t.paths.remove(a.SPI, slot)
		t.moved.Delete(Handle(a.live))
		atomic.StoreUint32(&a.live, 0)
	}
	t.count(direction, -1)
	t.describe(direction, slot, nil)
}

// countForm counts an inbound association by what its packets are held against.
func (t *Table) countForm(p *spd.Plain, change int64) {
	switch {
	case p.None():
		t.unlike.Add(change)
	case p.Has6():
		t.sixes.Add(change)
	}
}

// describe keeps the description of the association in a slot, nil for none, and the number of those that are long. The caller holds the mutex.
func (t *Table) describe(direction int, slot uint32, p *Params) {
	kept := &t.slots[direction].params[slot]
	if p.long() {
		t.long[direction].Add(1)
	}
	if (*kept).long() {
		t.long[direction].Add(-1)
	}
	*kept = p
}

// Has says whether the association is installed.
func (t *Table) Has(h Handle) bool {
	t.mu.Lock() // so that the slot cannot be used again meanwhile
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	if h.Inbound() {
		return t.LookupInbound(h.Value()) != nil
	}
	return t.LookupOutbound(h.Value()) != nil
}

// RemoveInbound removes the inbound association with an SPI.
func (t *Table) RemoveInbound(spi uint32) error { return t.Remove(InboundHandle(spi)) }

// RemoveOutbound removes an outbound association.
func (t *Table) RemoveOutbound(handle uint32) error { return t.Remove(Handle(handle)) }

// Reclaim zeroes what removed associations left and every worker has let go of. It returns how
// many still wait. To be called now and then, so that no key waits for the next Install.
func (t *Table) Reclaim() (waiting int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.reclaim()
	}
	return t.limbo.len()
}

func (t *Table) reclaim() {
	if t.limbo.len() == 0 {
		return
	}
	oldest := t.epochs.oldest()
	for {
		r, ok := t.limbo.peek()
		if !ok || r.epoch > oldest {
			return
		}
		t.limbo.pop()
		t.keys[r.direction][r.slot].Zero()
		t.terms[r.direction][r.slot] = nil
		if f := &t.flights[r.direction][r.slot]; f.passed|f.dropped != 0 {
			*f = Flight{}
		}
		if r.direction == in {
			a := &t.inbound[r.slot]
			class := &t.bits[bits.Len(uint(a.Window.Words()-1))]
			clear(t.Bits(a))
			*class = append(*class, a.bits)
			t.selectors[r.slot] = nil
			reset(a)
		} else {
			reset(&t.outbound[r.slot])
		}
		t.slots[r.direction].free.push(r.slot)
	}
}

// LookupInbound returns the inbound association with an SPI, nil if there is
// none. The pointer is good until the worker's next Pass or Sleep.
func (t *Table) LookupInbound(spi uint32) *Inbound { return t.LookupInboundAt(spi, t.SlotOf(spi)) }

// SlotOf returns where the inbound association with an SPI is if this table chose the SPI, for LookupInboundAt. To compute it takes as long as the rest of a
// look-up or longer; a worker has a Finder remember it.
func (t *Table) SlotOf(spi uint32) uint32 {
	if spi < spiMin {
		return t.mask
	}
	return t.spis.invert(spi) & t.mask
}

// LookupInboundAt is LookupInbound with what SlotOf said of the SPI.
func (t *Table) LookupInboundAt(spi, slot uint32) *Inbound {
	if spi < spiMin {
		return nil
	}
	if int(slot) < len(t.inbound) {
		if a := &t.inbound[slot]; atomic.LoadUint32(&a.live) == spi {
			return a
		}
	}
	if i, ok := t.configured.find(spi); ok {
		if a := &t.inbound[i]; atomic.LoadUint32(&a.live) == spi {
			return a
		}
	}
	return nil
}

// LookupOutbound returns the outbound association with a handle, nil if it is gone. The
// pointer is good until the worker's next Pass or Sleep.
func (t *Table) LookupOutbound(handle uint32) *Outbound {
	if i := handle & t.mask; handle != 0 && int(i) < len(t.outbound) {
		if a := &t.outbound[i]; atomic.LoadUint32(&a.live) == handle {
			return a
		}
	}
	return nil
}

// InboundAt returns the inbound association in a slot that was looked up.
func (t *Table) InboundAt(slot uint32) *Inbound { return &t.inbound[slot] }

// InboundKey returns the key of an inbound association in a slot that was looked up.
func (t *Table) InboundKey(slot uint32) *transform.Key { return &t.keys[in][slot] }

// OutboundKey returns the key of an outbound association in a slot that was looked up.
func (t *Table) OutboundKey(slot uint32) *transform.Key { return &t.keys[out][slot] }

// Selectors returns the selectors of an inbound association in a slot that was looked up.
func (t *Table) Selectors(slot uint32) *spd.Selectors { return t.selectors[slot] }

// Plain6 returns the Plain6 of an inbound association in a slot that was looked up; if its Plain says that it has one.
func (t *Table) Plain6(slot uint32) *spd.Plain6 { return &t.plain6[slot] }

// Bits returns the words of an inbound association's replay window; the owner's.
func (t *Table) Bits(a *Inbound) []uint64 {
	n := a.bits + uint32(a.Window.Words())
	return t.words.all[a.bits:n:n]
}

// RequestMove asks that worker become the owner: at once if nobody is, else when the
// owner releases the association at the end of a batch.
func (t *Table) RequestMove(h Handle, worker int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if worker < 0 || worker >= len(t.epochs.worker) {
		return fmt.Errorf("move association %s to worker %d of %d", h, worker, len(t.epochs.worker))
	}
	if h.Inbound() {
		if a := t.LookupInbound(h.Value()); a != nil {
			t.InboundHead(a).request(worker)
			return nil
		}
	} else if a := t.LookupOutbound(h.Value()); a != nil {
		t.OutboundHead(a).request(worker)
		return nil
	}
	return fmt.Errorf("move association %s: %w", h, ErrNotFound)
}
