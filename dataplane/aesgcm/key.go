package aesgcm

import "errors"

// roundsMax is the number of rounds of AES-256, rounds128 that of AES-128 (FIPS 197, 5).
const (
	roundsMax = 14
	rounds128 = 10
)

// powerMax is the highest power of H in a key: one sum takes 16 blocks of text, or the additional data, 8
// blocks and the block of lengths.
const powerMax = 16

// ErrKeySize says that a key has not 16, 24 or 32 bytes.
var ErrKeySize = errors.New("AES key is not 16, 24 or 32 bytes long")

// Key is an expanded AES-GCM key. It holds no Go pointer, so it may live outside the Go
// heap. It is read-only once made, so any number of goroutines may use it. It must not
// be copied after first use: Zero would wipe one copy and end them all.
//
// The order of the fields is known to the assembly. A packet of few blocks
// touches the last few powers and as many round keys as its key size needs.
type Key struct {
	// powers are H^powerMax down to H^1, each divided by x, with reversed bytes: see expandPowers.
	powers [powerMax][16]byte
	// rounds is the number of AES's rounds; 0 without a key that the assembly can use.
	rounds uint32
	// standard is the handle of the standard library's cipher, 0 without.
	standard uint32
	// Extra is the caller's: it lies in a cache line that every packet needs. Zero wipes it.
	Extra [8]byte
	round [roundsMax + 1][16]byte
	// power20 is H^20, divided by x. With AVX-512, packets of more than 30 blocks need it.
	power20 [16]byte
}

// NewKey expands an AES key of 16, 24 or 32 bytes, as Set does.
func NewKey(key []byte) (k Key, err error) {
	err = k.Set(key)
	return k, err
}

// Set makes k, which is none or was zeroed, the expansion of an AES key of 16, 24 or 32
// bytes for the implementation in use. The caller keeps ownership of key and
// wipes it; no part of it is in the error. Zero must be called when the key is not needed any more.
func (k *Key) Set(key []byte) error { return active.set(k, key) }

// set expands a key for an implementation.
func (im *implementation) set(k *Key, key []byte) error {
	if len(key) != 16 && len(key) != 24 && len(key) != 32 {
		return ErrKeySize
	}
	return im.expand(k, key)
}

// HotFrom and HotLines are the part of a key that a short packet under AES-128 reads, as far as six blocks of text, in bytes and in cache lines: the
// last powers of H, what follows them, and round keys. Only a longer packet, or a longer key, needs the rest, and takes long
// enough to wait for it.
const (
	hotPowers = 8 // up to six blocks of text, additional data and lengths
	HotFrom   = (powerMax - hotPowers) * 16
	HotLines  = (hotPowers + 1 + rounds128 + 1) * 16 / 64
)

// Zero wipes the key: later ops with it fail. What an implementation without assembly
// expanded belongs to the standard library's cipher, which offers no way to wipe it, so
// that memory is cleared only when the collector uses it again. Nobody may be inside
// Seal or Open with this key.
func (k *Key) Zero() {
	if k.standard != 0 {
		standard.Drop(k.standard)
	}
	*k = Key{}
}
