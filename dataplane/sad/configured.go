package sad

import "sync/atomic"

// configured maps SPIs that the configuration chose to slots: open addressing
// with linear probing. One writer, under the table's mutex; readers take no lock. An
// entry is SPI<<32 | slot; 0 is empty, and gone an entry that was deleted.
type configured struct {
	table atomic.Pointer[[]atomic.Uint64] // a power of two long; nil until the first entry
	live  int
	used  int // live and gone
}

const gone = 1 // SPI 0 is never entered

func home(spi uint32, n int) int { return int(spi*0x9e3779b1>>7) & (n - 1) }

// find returns the slot of spi.
func (c *configured) find(spi uint32) (slot uint32, ok bool) {
	p := c.table.Load()
	if p == nil {
		return 0, false
	}
	table := *p
	for i := home(spi, len(table)); ; i = (i + 1) & (len(table) - 1) {
		e := table[i].Load()
		if e == 0 {
			return 0, false
		}
		if uint32(e>>32) == spi {
			return uint32(e), true
		}
	}
}

// insert enters spi, which must not be there.
func (c *configured) insert(spi, slot uint32) {
	if p := c.table.Load(); p == nil || 2*(c.used+1) > len(*p) {
		c.rebuild()
	}
	put(*c.table.Load(), uint64(spi)<<32|uint64(slot))
	c.live++
	c.used++
}

func put(table []atomic.Uint64, entry uint64) {
	i := home(uint32(entry>>32), len(table))
	for table[i].Load() != 0 {
		i = (i + 1) & (len(table) - 1)
	}
	table[i].Store(entry)
}

// rebuild makes a table at most a quarter full and leaves the deleted entries behind.
func (c *configured) rebuild() {
	n := 16
	for n < 4*(c.live+1) {
		n *= 2
	}
	table := make([]atomic.Uint64, n)
	if p := c.table.Load(); p != nil {
		for i := range *p {
			if e := (*p)[i].Load(); e > gone {
				put(table, e)
			}
		}
	}
	c.used = c.live
	c.table.Store(&table)
}

// remove deletes spi, which must be there. The table stays half empty at least, so probes end.
func (c *configured) remove(spi uint32) {
	table := *c.table.Load()
	i := home(spi, len(table))
	for uint32(table[i].Load()>>32) != spi {
		i = (i + 1) & (len(table) - 1)
	}
	table[i].Store(gone)
	c.live--
}
