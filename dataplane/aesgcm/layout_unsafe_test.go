package aesgcm

import (
	"bytes"
	"testing"
	"unsafe"

	"sallyport/tools/asmlayout"
)

// TestGeneratorKnowsTheLayout reads the constants of the assembly's generator and holds them
// against the types.
func TestGeneratorKnowsTheLayout(t *testing.T) {
	var op Op
	var key Key
	asmlayout.Check(t, "layout.go", map[string]uintptr{
		"opKey": unsafe.Offsetof(op.Key), "opNonce": unsafe.Offsetof(op.Nonce), "opAAD": unsafe.Offsetof(op.AAD),
		"opAADLen": unsafe.Offsetof(op.AADLen), "opOK": unsafe.Offsetof(op.OK), "opMatch": unsafe.Offsetof(op.match), "opBuf": unsafe.Offsetof(op.Buf),
		"opLen": unsafe.Offsetof(op.Buf) + unsafe.Sizeof(uintptr(0)), "opSize": unsafe.Sizeof(op),
		"keyPowers": unsafe.Offsetof(key.powers), "keyRounds": unsafe.Offsetof(key.rounds), "keyRound": unsafe.Offsetof(key.round), "keyPower20": unsafe.Offsetof(key.power20),
		"tagSize": TagSize, "aadMax": AADMax, "powerMax": powerMax,
	})
	// The counter block is made from 16 bytes at the nonce, the data's block from 16 bytes at AAD.
	if opEnd := unsafe.Sizeof(op); unsafe.Offsetof(op.Nonce)+16 > opEnd || unsafe.Offsetof(op.AAD)+16 > opEnd {
		t.Error("the assembly reads behind an op")
	}
}

// TestZeroLeavesNothing looks at every byte of a key.
func TestZeroLeavesNothing(t *testing.T) {
	eachImplementation(t, func(t *testing.T, im *implementation) {
		for _, size := range []int{16, 24, 32} {
			before := standard.Len()
			key := newKey(t, im, bytes.Repeat([]byte{0x5a}, size))
			raw := unsafe.Slice((*byte)(unsafe.Pointer(key)), unsafe.Sizeof(*key))
			if allZero(raw) {
				t.Fatal("the key is empty before")
			}
			key.Zero()
			key.Zero()
			if !allZero(raw) {
				t.Errorf("%d bytes: %x is left", size, raw)
			}
			if standard.Len() != before {
				t.Errorf("%d bytes: %d ciphers of the standard library, %d before", size, standard.Len(), before)
			}
		}
	})
}

// TestKeyOutsideTheHeap works with a key that ends where readable memory ends.
func TestKeyOutsideTheHeap(t *testing.T) {
	eachImplementation(t, func(t *testing.T, im *implementation) {
		area := guarded(t)
		for _, size := range []int{16, 24, 32} {
			raw := bytes.Repeat([]byte{7}, size)
			key := (*Key)(unsafe.Pointer(&area[len(area)-int(unsafe.Sizeof(Key{}))]))
			if err := im.set(key, raw); err != nil {
				t.Fatal(err)
			}
			for n := range 300 {
				text := make([]byte, n)
				_, buf := framed(text, 0)
				ops := []Op{opOf(key, text[:0], nil, buf)}
				im.seal(ops)
				if want := oracle(t, raw).Seal(nil, make([]byte, NonceSize), text, nil); !bytes.Equal(buf, want) {
					t.Fatalf("%d bytes: sealed to something else", n)
				}
			}
			key.Zero()
		}
	})
}
