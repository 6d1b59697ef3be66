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
var selfTestAnswer = [TagSize]byte{0xe1, 0x66, 0x1e, 0xe7, 0x56, 0xbb, 0xc6, 0xda, 0x81, 0xf0, 0x7f, 0xff, 0x48, 0xab, 0x48, 0x0c}

// givesKnownAnswers says whether an implementation computes what ends the chain,
// gives every text back, and refuses every packet whose tag was changed.
func givesKnownAnswers(im *implementation) bool {
	tag, ok := selfTestTag(im)
	return ok && tag == selfTestAnswer
}

// selfTestTag seals packets for each length and key size: two, or, where they are short, as many as are worked on together. The last tag so far
// makes the nonce, the additional data and the start of the next packet's text.
func selfTestTag(im *implementation) (tag [TagSize]byte, ok bool) {
	const (
		textMax  = 2048
		shortMax = 192
		count    = 9
	)
	var texts, bufs [count][textMax + TagSize]byte
	for i := range textMax {
		for k := range texts {
			texts[k][i] = byte(i * (7 + 2*k))
		}
	}
	ok = true
	for _, size := range []int{16, 24, 32} {
		var key Key
		if im.set(&key, texts[0][32:32+size]) != nil {
			return tag, false
		}
		for i, n := range selfTestLengths {
			var all [count]Op
			ops := all[:2]
			if n <= shortMax {
				ops = all[:]
			}
			for k := range ops {
				op := &ops[k]
				*op = Op{Key: &key, AADLen: uint8(8 + i%2*4), Buf: bufs[k][:n+TagSize]}
				copy(texts[k][:], tag[:])
				texts[k][0] += byte(k)
				copy(op.Buf, texts[k][:n])
				copy(op.Nonce[:], tag[k%4:])
				op.Nonce[0] = byte(k)
				copy(op.AAD[:], tag[4-k%4:])
			}
			im.seal(ops)
			for k := range ops {
				ok = ok && ops[k].OK
				for j, c := range bufs[k][n : n+TagSize] {
					tag[j] = tag[j]*3 ^ c
				}
			}
			// Of a wrong tag only one packet is refused; of a truncated one only what was sent counts.
			sent, wrong, spoiled := 8+i%2*4, i%len(ops), n+i%TagSize
			sealed := bufs
			bufs[wrong][spoiled] ^= 1
			im.open(ops)
			for k := range ops {
				ok = ok && ops[k].OK == (k != wrong) && (k == wrong || bytes.Equal(bufs[k][:n], texts[k][:n]))
			}
			bufs = sealed
			bufs[wrong][spoiled] ^= 1
			im.openTruncated(ops, sent)
			for k := range ops {
				ok = ok && ops[k].OK == (k != wrong || i%TagSize >= sent) && (!ops[k].OK || bytes.Equal(bufs[k][:n], texts[k][:n]))
			}
		}
		key.Zero()
	}
	return tag, ok
}
