package aesgcm

import (
	"bytes"
	"slices"
	"testing"
)

// FuzzAgainstCryptoCipher seals packets with two keys cut from the input, first one with each and then eight with the first that are alike, and
// compares with crypto/cipher; then opens them, one with the first key damaged.
func FuzzAgainstCryptoCipher(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), []byte("0123456789ab"), []byte("12345678"), []byte("text"), uint16(3))
	f.Add(make([]byte, 32), make([]byte, 12), make([]byte, 12), make([]byte, 257), uint16(260))
	f.Fuzz(func(t *testing.T, rawKey, rawNonce, aad, text []byte, damage uint16) {
		if len(aad) > AADMax || len(text) > 4096 {
			return
		}
		key := make([]byte, 16+8*(len(rawKey)%3))
		copy(key, rawKey)
		other := bytes.Clone(key)
		other[0] ^= 1
		nonce := make([]byte, NonceSize)
		copy(nonce, rawNonce)
		want := oracle(t, key).Seal(nil, nonce, text, aad)
		wantOther := oracle(t, other).Seal(nil, nonce, text, aad)
		for _, im := range append(slices.Clone(implementations), more...) {
			im := &im
			if !im.available {
				continue
			}
			frame, buf := framed(text, int(damage)%2*slack)
			frameOther, bufOther := framed(text, slack)
			ops := []Op{opOf(newKey(t, im, key), nonce, aad, buf), opOf(newKey(t, im, other), nonce, aad, bufOther)}
			im.seal(ops)
			if !bytes.Equal(buf, want) || !bytes.Equal(bufOther, wantOther) {
				t.Fatalf("%s: Seal differs from crypto/cipher", im.name)
			}
			buf[int(damage)%len(buf)] ^= 1
			im.open(ops)
			if ops[0].OK || !allZero(buf) {
				t.Fatalf("%s: damaged packet: OK = %v", im.name, ops[0].OK)
			}
			if !ops[1].OK || !bytes.Equal(bufOther[:len(text)], text) {
				t.Fatalf("%s: good packet beside a damaged one was refused", im.name)
			}
			checkCanaries(t, frame, buf)
			checkCanaries(t, frameOther, bufOther)
			alike, wrong := make([]Op, 8), int(damage)%8
			for i := range alike {
				alike[i] = opOf(ops[0].Key, nonce, aad, append(bytes.Clone(text), make([]byte, TagSize)...))
				alike[i].Nonce[i] ^= 1
			}
			im.seal(alike)
			for i := range alike {
				if !bytes.Equal(alike[i].Buf, oracle(t, key).Seal(nil, alike[i].Nonce[:], text, aad)) {
					t.Fatalf("%s: packet %d of those alike: Seal differs from crypto/cipher", im.name, i)
				}
			}
			alike[wrong].Buf[int(damage/8)%len(buf)] ^= 1
			im.open(alike)
			for i := range alike {
				if ok, got := i != wrong, alike[i].Buf; alike[i].OK != ok || ok && !bytes.Equal(got[:len(text)], text) || !ok && !allZero(got) {
					t.Fatalf("%s: packet %d of those alike, %d is damaged: OK = %v", im.name, i, wrong, alike[i].OK)
				}
			}
		}
	})
}
