package ike

import "sync"

// homes says on which shard a child lives, by its inbound SPI: for events of the data plane, which knows no more of it.
type homes struct {
	stripes [64]struct {
		sync.Mutex
		shard map[uint32]uint8
	}
}

func (h *homes) start() {
	for i := range h.stripes {
		h.stripes[i].shard = make(map[uint32]uint8)
	}
}

func (h *homes) set(spi uint32, shard int) {
	s := &h.stripes[spi%64]
	s.Lock()
	defer s.Unlock()
	s.shard[spi] = uint8(shard)
}

func (h *homes) forget(spi uint32) {
	s := &h.stripes[spi%64]
	s.Lock()
	defer s.Unlock()
	delete(s.shard, spi)
}

func (h *homes) find(spi uint32) (shard int, ok bool) {
	s := &h.stripes[spi%64]
	s.Lock()
	defer s.Unlock()
	n, ok := s.shard[spi]
	return int(n), ok
}
