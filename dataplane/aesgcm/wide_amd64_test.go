package aesgcm

import "testing"

// The functions for AVX-512 for every text that they take, where the implementation has them take longer ones only.
func init() {
	for _, im := range implementations {
		if im.name == "avx512" {
			im.name = "avx512 for all it takes"
			im.seal = overBatch(bySize(0, wideMax, sealAVX512, sealVAES))
			im.open, im.openTruncated = openers(bySize(0, wideMax, openAVX512, openVAES))
			more = append(more, im)
			im.name = "avx512 with every four alike"
			im.seal = overBatch(inQuads(4, sealQuads, assembly(sealVAES).on))
			im.open, im.openTruncated = openers(inQuads(4, openQuads, assembly(openVAES).on))
			more = append(more, im)
		}
	}
}

// TestWideRefusesLongTexts: they are left to others, and wiped.
func TestWideRefusesLongTexts(t *testing.T) {
	for i := range implementations {
		im := &implementations[i]
		if im.name != "avx512" {
			continue
		}
		if !im.available {
			t.Skip("no AVX-512 on this machine")
		}
		for _, f := range []assembly{sealAVX512, openAVX512} {
			key := newKey(t, im, make([]byte, 16))
			for _, n := range []int{wideMax + 1, wideMax + 16, 1 << 16} {
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
