package aesgcm

import "testing"

// The functions for AVX-512 from the shortest text on that they take, where the implementation has them take longer ones only.
func init() {
	for _, im := range implementations {
		if im.name == "avx512" {
			im.name = "avx512 from its shortest"
			im.seal = overBatch(bySize(sealVAES, sealAVX512, wideMin))
			im.open, im.openTruncated = openers(bySize(openVAES, openAVX512, wideMin))
			more = append(more, im)
		}
	}
}

// TestWideRefusesShortTexts: they are left to others, and wiped.
func TestWideRefusesShortTexts(t *testing.T) {
	for i := range more {
		if !more[i].available {
			t.Skip("no AVX-512 on this machine")
		}
		for _, f := range []assembly{sealAVX512, openAVX512} {
			key := newKey(t, &more[i], make([]byte, 16))
			for n := range wideMin {
				buf := make([]byte, n+TagSize)
				buf[n] = 1
				ops := []Op{opOf(key, nil, nil, buf)}
				if overBatch(f.on)(ops); ops[0].OK || !allZero(buf) {
					t.Errorf("%d bytes are not refused and wiped", n)
				}
			}
		}
	}
}
