package aesgcm

import "bytes"

// selfTestLengths reach every path of the assembly: every length of a packet's end
// alone and behind one group and several, whole and partial blocks.
var selfTestLengths = func() (lengths []int) {
	for n := 0; n <= 3*128; n += 5 {
		lengths = append(lengths, n)
	}
	// What takes long packets only: every end behind their groups, whole and partial.
	for n := longest; n <= longest+18*16; n += 8 {
		lengths = append(lengths, n)
	}
	return append(lengths, 16, 32, 64, 128, 256, 1420, 1421, 2048)
}()

// longest is the length of text from which no implementation leaves packets to functions for shorter ones.
const longest = 1152

// selfTestAnswer is what the chain of tags that selfTestTag makes ends in, computed with
// crypto/cipher; a test computes it again.
var selfTestAnswer = [TagSize]byte{0xd1, 0x70, 0xa6, 0x50, 0x9c, 0x81, 0xe4, 0xaa, 0x6c, 0x43, 0x1f, 0x61, 0xeb, 0xa7, 0x3a, 0xe2}

// givesKnownAnswers says whether an implementation computes what ends the chain,
// gives every text back, and refuses every packet whose tag was changed.
func givesKnownAnswers(im *implementation) bool {
	tag, ok := selfTestTag(im)
	return ok && tag == selfTestAnswer
}

// selfTestTag seals two packets for each length and key size. The last tag so far
// makes the nonce, the additional data and the start of the next packet's text.
func selfTestTag(im *implementation) (tag [TagSize]byte, ok bool) {
	const textMax = 2048
	var texts, bufs [2][textMax + TagSize]byte
	for i := range textMax {
		texts[0][i], texts[1][i] = byte(i*7), byte(i*5)
	}
	ok = true
	for _, size := range []int{16, 24, 32} {
		var key Key
		if im.set(&key, texts[0][32:32+size]) != nil {
			return tag, false
		}
		for i, n := range selfTestLengths {
			var ops [2]Op
			for k := range ops {
				op := &ops[k]
				*op = Op{Key: &key, AADLen: uint8(8 + (i+k)%2*4), Buf: bufs[k][:n+TagSize]}
				copy(texts[k][:], tag[:])
				copy(op.Buf, texts[k][:n])
				copy(op.Nonce[:], tag[k:])
				copy(op.AAD[:], tag[4-k:])
			}
			im.seal(ops[:])
			ok = ok && ops[0].OK && ops[1].OK
			for k := range ops {
				for j, c := range bufs[k][n : n+TagSize] {
					tag[j] = tag[j]*3 ^ c
				}
			}
			sealed := bufs[1]
			im.open(ops[:])
			for k := range ops {
				ok = ok && ops[k].OK && bytes.Equal(bufs[k][:n], texts[k][:n])
			}
			bufs[1] = sealed
			bufs[1][n+i%TagSize] ^= 1
			im.open(ops[1:])
			ok = ok && !ops[1].OK
			// Of a truncated tag only what was sent counts.
			sent := 8 + i%2*4
			bufs[1] = sealed
			bufs[1][n+i%TagSize] ^= 1
			im.openTruncated(ops[1:], sent)
			ok = ok && ops[1].OK == (i%TagSize >= sent)
		}
		key.Zero()
	}
	return tag, ok
}
