package aesgcm

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// The functions for AVX-512 for every text that they take, where the implementation has them take longer ones only.
func init() {
	for _, im := range implementations {
		if im.name == "avx512" {
			im.name = "avx512 for all it takes"
			im.seal = overBatch(bySize(0, sealAVX512, sealVAES))
			im.open, im.openTruncated = openers(bySize(0, openAVX512, openVAES))
			more = append(more, im)
			im.name = "avx512 with every four alike"
			im.seal = overBatch(inQuads(4, sealQuads, assembly(sealVAES).on))
			im.open, im.openTruncated = openers(inQuads(4, openQuads, assembly(openVAES).on))
			more = append(more, im)
		}
	}
}

// TestWideStopsInFrontOfWhatItDoesNotTake: what stands before it is done, it and what is behind stay as they are.
func TestWideStopsInFrontOfWhatItDoesNotTake(t *testing.T) {
	i := slices.IndexFunc(implementations, func(im implementation) bool { return im.name == "avx512" })
	im := &implementations[i]
	if !im.available {
		t.Skip("no AVX-512 on this machine")
	}
	raw := make([]byte, 16)
	key, ref := newKey(t, im, raw), oracle(t, raw)
	r := rand.New(rand.NewPCG(12, 1))
	for _, min := range []int{0, 1, 81, 161, 1000, wideMax} {
		for _, length := range []int{-TagSize, -1, min - 1, wideMax + 1, 1 << 16} {
			for before := range 6 {
				var ops []Op
				add := func(length int) {
					ops = append(ops, opOf(key, randomBytes(r, NonceSize), randomBytes(r, 8), randomBytes(r, length+TagSize)))
				}
				for range before {
					add(min + r.IntN(wideMax-min+1)%[]int{1, 200}[r.IntN(2)])
				}
				add(length)
				add(wideMax)
				var was, sealed [][]byte
				for i := range ops {
					op, text := &ops[i], ops[i].Buf
					was = append(was, bytes.Clone(text))
					if i < before {
						text = ref.Seal(nil, op.Nonce[:], text[:len(text)-TagSize], op.AAD[:op.AADLen])
					}
					sealed = append(sealed, text)
				}
				run := func(what string, f wide, wants [][]byte) {
					if done, taken := f(&ops[0], len(ops), min); done != before || taken != before {
						t.Fatalf("%s: %d bytes behind %d packets of at least %d: %d done, %d taken", what, length, before, min, done, taken)
					}
					for i := range ops {
						n := len(wants[i])
						if what == "open" && i < before {
							n -= TagSize
						}
						if !bytes.Equal(ops[i].Buf[:n], wants[i][:n]) || ops[i].OK != (i < before) {
							t.Fatalf("%s: %d bytes behind %d packets of at least %d: packet %d is not as it should be", what, length, before, min, i)
						}
						ops[i].OK = false
					}
				}
				run("seal", sealAVX512, sealed)
				run("open", openAVX512, was)
			}
		}
	}
}
