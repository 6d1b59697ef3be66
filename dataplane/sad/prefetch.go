package sad

import "sallyport/dataplane/prefetch"

// crowd is how many associations of a direction a core's second-level cache holds about, with their keys and windows.
const crowd = 256

// Crowded says that there are so many associations that asking for one before it is read pays.
func (t *Table) Crowded() bool { return t.crowded.Load() }

// PrefetchInbound asks for what a packet of the inbound association with an SPI will read, if the SPI is one that
// this table chose.
func (t *Table) PrefetchInbound(spi uint32) {
	if spi < spiMin {
		return
	}
	if i := t.spis.invert(spi) & t.mask; int(i) < len(t.inbound) {
		prefetch.Of(&t.inbound[i])
		prefetch.Of(&t.selectors[i])
	}
}

// PrefetchOutbound does the same for the outbound association with a handle.
func (t *Table) PrefetchOutbound(handle uint32) {
	if i := handle & t.mask; int(i) < len(t.outbound) {
		prefetch.Of(&t.outbound[i])
	}
}
