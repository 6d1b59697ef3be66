package aesgcm

import (
	"encoding/binary"
	"math/bits"
)

// expandAssembly writes round keys and powers of H. No secret is an index or decides a branch.
func expandAssembly(k *Key, key []byte) error {
	k.expandRounds(key)
	k.expandPowers()
	return nil
}

// expandRounds is the key expansion of FIPS 197, 5.2.
func (k *Key) expandRounds(key []byte) {
	n := len(key) / 4
	k.rounds = uint32(n + 6)
	var w [4 * (roundsMax + 1)]uint32 // little-endian words, as they lie in memory
	defer clear(w[:])
	constant := uint32(1)
	for i := range 4 * int(k.rounds+1) {
		switch {
		case i < n:
			w[i] = binary.LittleEndian.Uint32(key[4*i:])
		case i%n == 0:
			w[i] = w[i-n] ^ bits.RotateLeft32(subWord(w[i-1]), -8) ^ constant
			constant = constant<<1 ^ constant>>7*0x11b
		case n == 8 && i%n == 4:
			w[i] = w[i-n] ^ subWord(w[i-1])
		default:
			w[i] = w[i-n] ^ w[i-1]
		}
		binary.LittleEndian.PutUint32(k.round[i/4][i%4*4:], w[i])
	}
}

// expandPowers computes H (SP 800-38D, 7.1), its bytes reversed, divided by x, and then its powers,
// each divided by x. A carry-less product of two reflected numbers is theirs times x, so a block
// times such a power needs no shift. Divided by x, 1 is x^127 + x^6 + x + 1.
func (k *Key) expandPowers() {
	var h [16]byte
	defer clear(h[:])
	encryptBlock(k, &h)
	hi, lo := binary.BigEndian.Uint64(h[:8]), binary.BigEndian.Uint64(h[8:])
	carry := -(hi >> 63)
	hi, lo = hi<<1|lo>>63, lo<<1
	hi, lo = hi^carry&(0xc2<<56), lo^carry&1
	first := &k.powers[powerMax-1]
	binary.LittleEndian.PutUint64(first[:8], lo)
	binary.LittleEndian.PutUint64(first[8:], hi)
	for i := powerMax - 2; i >= 0; i-- {
		k.powers[i] = k.powers[i+1]
		multiply(&k.powers[i], first)
	}
	k.power20 = k.powers[0]
	multiply(&k.power20, &k.powers[powerMax-4])
}
