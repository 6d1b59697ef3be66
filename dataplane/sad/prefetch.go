package sad

import "sallyport/dataplane/prefetch"

// crowd is how many associations of a direction a core's second-level cache holds about, with their keys and windows.
const crowd = 256

// Crowded says that there are so many associations that asking for them before they are read pays.
func (t *Table) Crowded() bool { return t.crowded.Load() }

// PrefetchInbound asks for the inbound association with an SPI and its key, if the SPI is one that
// this table chose. PrefetchOf, when that has arrived, asks for what it points to.
func (t *Table) PrefetchInbound(spi uint32) {
	if spi < spiMin {
		return
	}
	if i := t.spis.invert(spi) & t.mask; int(i) < len(t.inbound) {
		prefetch.Of(&t.inbound[i])
		t.keys[in][i].Prefetch()
		prefetch.Of(&t.selectors[i])
	}
}

// PrefetchOf asks for an inbound association's selectors, and for the word of its window where the next
// packet in order belongs.
func (t *Table) PrefetchOf(a *Inbound) {
	prefetch.Of(t.selectors[a.Slot])
	prefetch.Of(&t.words.all[a.bits+a.Window.Place(a.Window.Top()+1)])
}

// PrefetchOutbound asks for the outbound association with a handle and its key.
func (t *Table) PrefetchOutbound(handle uint32) {
	if i := handle & t.mask; int(i) < len(t.outbound) {
		prefetch.Of(&t.outbound[i])
		t.keys[out][i].Prefetch()
	}
}
