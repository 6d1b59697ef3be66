package sad

import (
	"errors"
	"fmt"
)

// Reserve sets an inbound SPI and the slot behind it aside: a peer is told of it before there are keys. Install with
// Params.SPI takes it up, Unreserve gives it back.
func (t *Table) Reserve() (uint32, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return 0, errors.New("reserve an SPI: table is closed")
	}
	slot, err := t.take(in)
	if err != nil {
		return 0, fmt.Errorf("reserve an SPI: %w", err)
	}
	spi := t.newSPI(slot)
	if t.reserved == nil {
		t.reserved = map[uint32]uint32{}
	}
	t.reserved[spi] = slot
	return spi, nil
}

// Unreserve gives back what Reserve gave out, if it is not installed.
func (t *Table) Unreserve(spi uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slot, ok := t.reserved[spi]; ok {
		delete(t.reserved, spi)
		t.slots[in].free.push(slot) // never published: no worker can hold it
	}
}

// newSPI returns an SPI of slot's that nobody has.
func (t *Table) newSPI(slot uint32) uint32 {
	for {
		spi := t.spis.apply(t.nextGeneration(in, slot))
		if _, taken := t.configured.find(spi); !taken {
			return spi
		}
	}
}
