package sad

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
)

// spiMin is the lowest SPI that may be used; those below are reserved (RFC 4303, 2.1).
const spiMin = 256

// permutation maps the 32-bit numbers from spiMin up one to one onto
// themselves, under a key drawn at start: a balanced Feistel network over 16-bit halves, walked
// on along its cycle while the result is reserved. It hides slot and generation
// from the casual observer; security never rests on it.
type permutation struct {
	add, mul [rounds]uint32
}

const rounds = 6

func newPermutation() (permutation, error) {
	var p permutation
	var seed [8 * rounds]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return p, fmt.Errorf("draw the key of the SPI permutation: %w", err)
	}
	for i := range rounds {
		p.add[i] = binary.LittleEndian.Uint32(seed[8*i:])
		p.mul[i] = binary.LittleEndian.Uint32(seed[8*i+4:]) | 1
	}
	return p, nil
}

func (p *permutation) round(i int, half uint32) uint32 {
	x := (half + p.add[i]) * p.mul[i]
	x ^= x >> 15
	return x * 0x9e3779b1 >> 16
}

// apply returns the image of x, which must not be reserved.
func (p *permutation) apply(x uint32) uint32 {
	for {
		left, right := x>>16, x&0xffff
		for i := range rounds {
			left, right = right, left^p.round(i, right)
		}
		if x = left<<16 | right; x >= spiMin {
			return x
		}
	}
}

// invert returns the number whose image is y, which must not be reserved.
func (p *permutation) invert(y uint32) uint32 {
	for {
		left, right := y>>16, y&0xffff
		for i := rounds - 1; i >= 0; i-- {
			left, right = right^p.round(i, left), left
		}
		if y = left<<16 | right; y >= spiMin {
			return y
		}
	}
}
