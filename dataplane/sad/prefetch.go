package sad

import (
	"sallyport/dataplane/packet"
	"sallyport/dataplane/prefetch"
	"sallyport/dataplane/transform"
)

// crowd is how many associations of a direction a core's second-level cache holds about, with their keys and windows.
const crowd = 256

// Crowded says that there are so many associations that asking for them before they are read pays.
func (t *Table) Crowded() bool { return t.crowded.Load() }

// Ahead names associations of one direction that a batch is about to look up: by SPI inbound, by handle outbound.
type Ahead struct {
	names, slots [packet.BatchMax]uint32
	n            int
}

// Reset leaves no name.
func (a *Ahead) Reset() { a.n = 0 }

// Add adds a name, which may be wrong.
func (a *Ahead) Add(name uint32) {
	if a.n < len(a.names) {
		a.names[a.n] = name
		a.n++
	}
}

// PrefetchOutbound asks for what a short packet needs of outbound associations and of their keys: seven cache lines each, or eight.
func (t *Table) PrefetchOutbound(a *Ahead) {
	for i, handle := range a.names[:a.n] {
		a.slots[i] = handle & t.mask
	}
	prefetch.Items(t.outbound, a.slots[:a.n], 0, t.lines(out))
	transform.Prefetch(t.keys[out], a.slots[:a.n])
}

// lines is how many cache lines of its associations packets in a direction need.
func (t *Table) lines(direction int) int {
	if t.long[direction].Load() > 0 {
		return 3
	}
	return 2
}

// PrefetchInbound asks for what a short packet in order needs of inbound associations and of their keys, where this table chose the
// SPI: seven cache lines each, or eight. The worker's finder then remembers their slots.
func (t *Table) PrefetchInbound(a *Ahead, f *Finder) {
	for i, spi := range a.names[:a.n] {
		a.slots[i] = f.SlotOf(spi)
	}
	if t.sixes.Load() > 0 {
		prefetch.Items(t.plain6, a.slots[:a.n], 0, 1)
	}
	if t.unlike.Load() > 0 {
		prefetch.Items(t.selectors, a.slots[:a.n], 0, 1)
	}
	prefetch.Items(t.inbound, a.slots[:a.n], 0, t.lines(in))
	transform.Prefetch(t.keys[in], a.slots[:a.n])
}

// PrefetchSelectors asks for the selectors of an inbound association that was looked up, if its packets are held against them.
func (t *Table) PrefetchSelectors(in *Inbound) {
	if in.Plain.None() {
		prefetch.Of(t.selectors[in.Slot])
	}
}
