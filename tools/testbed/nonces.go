package testbed

import "encoding/binary"

// nonces is the set of IVs seen, by SPI: bitmaps of 4,096 neighbouring ones, since an IV is most often a counter. Exact
// for any IV; a million of a counter take 150 KiB.
type nonces map[noncePage]*[64]uint64

type noncePage struct {
	spi  uint32
	page uint64
}

// add takes a packet from its ESP header on and returns false if the set had its SPI and IV. Packets that are too short for
// an IV of eight bytes are let pass.
func (n nonces) add(esp []byte) bool {
	if len(esp) < 16 {
		return true
	}
	iv := binary.BigEndian.Uint64(esp[8:])
	key := noncePage{binary.BigEndian.Uint32(esp), iv >> 12}
	bits := n[key]
	if bits == nil {
		bits = new([64]uint64)
		n[key] = bits
	}
	word, bit := &bits[iv>>6&63], uint64(1)<<(iv&63)
	fresh := *word&bit == 0
	*word |= bit
	return fresh
}

// espHeader returns a frame from its ESP header on, nil for one that [Classify] calls something else.
func espHeader(kind Kind, frame []byte) []byte {
	if kind != ESP && kind != ESPInUDP {
		return nil
	}
	b, ether := frame[14:], binary.BigEndian.Uint16(frame[12:])
	if ether == 0x8100 || ether == 0x88a8 {
		ether, b = binary.BigEndian.Uint16(b[2:]), b[4:]
	}
	skip := 40
	if ether == 0x0800 {
		skip = int(b[0]&15) * 4
	}
	if kind == ESPInUDP {
		skip += 8
	}
	return b[min(skip, len(b)):]
}
