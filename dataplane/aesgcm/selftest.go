package aesgcm

import "bytes"

// selfTestLengths reach every path of the assembly: every length of a packet's end
// alone and behind one group and several, whole and partial blocks.
var selfTestLengths = func() (lengths []int) {
	for n := 0; n <= 3*128; n += 5 {
		lengths = append(lengths, n)
	}
	return append(lengths, 16, 32, 64, 128, 256, 1420, 1421, 2048)
}()

// selfTestAnswer is the last tag of a chain that selfTestTag describes, computed with
// crypto/cipher; a test computes it again.
var selfTestAnswer = [TagSize]byte{0xad, 0xf4, 0xfd, 0x4e, 0x79, 0x36, 0xbb, 0xb4, 0x5e, 0x6a, 0x7f, 0xdc, 0xe3, 0xb4, 0x60, 0x4e}

// givesKnownAnswers says whether an implementation computes the tag that ends the chain,
// gives every text back, and refuses every packet whose tag was changed.
func givesKnownAnswers(im *implementation) bool {
	tag, ok := selfTestTag(im)
	return ok && tag == selfTestAnswer
}

// selfTestTag seals one packet for each length and key size. The tag so far
// makes the nonce, the additional data and the start of the next packet's text.
func selfTestTag(im *implementation) (tag [TagSize]byte, ok bool) {
	var text, buf [2048 + TagSize]byte
	for i := range text {
		text[i] = byte(i * 7)
	}
	ok = true
	for _, size := range []int{16, 24, 32} {
		var key Key
		if im.set(&key, text[1:1+size]) != nil {
			return tag, false
		}
		for i, n := range selfTestLengths {
			copy(text[:], tag[:])
			op := Op{Key: &key, AADLen: uint8(8 + i%2*4), Buf: append(buf[:0], text[:n+TagSize]...)}
			copy(op.Nonce[:], tag[:])
			copy(op.AAD[:], tag[4:])
			ops := []Op{op}
			im.seal(ops)
			ok = ok && ops[0].OK
			copy(tag[:], buf[n:])
			im.open(ops)
			ok = ok && ops[0].OK && bytes.Equal(buf[:n], text[:n])
			copy(buf[n:], tag[:])
			buf[n+i%TagSize] ^= 1
			im.open(ops)
			ok = ok && !ops[0].OK
		}
		key.Zero()
	}
	return tag, ok
}
