package aesgcm

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"

	"sallyport/dataplane/prefetch"
	"sallyport/dataplane/registry"
)

// standard holds the standard library's ciphers that keys have handles of.
var standard registry.Registry[cipher.AEAD]

// expandGeneric is the key expansion of the standard library.
func expandGeneric(k *Key, key []byte) error {
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return err
	}
	k.standard = standard.Put(aead)
	return nil
}

// sealGeneric is Seal over the standard library. Nonce, additional data and text
// are passed from the op itself: an array of the loop's own would escape
// through the interface and cost an allocation a packet. The standard library is
// constant-time where it has AES instructions (amd64, arm64, ppc64le, s390x) and not elsewhere.
func sealGeneric(ops []Op) {
	for i := range ops {
		op := &ops[i]
		if i+1 < len(ops) {
			prefetch.Bytes(ops[i+1].Buf)
		}
		if !usable(op) {
			fail(op)
			continue
		}
		text := op.Buf[: len(op.Buf)-TagSize : len(op.Buf)]
		standard.Get(op.Key.standard).Seal(text[:0], op.Nonce[:], text, op.AAD[:op.AADLen])
		op.OK = true
	}
}

// openGeneric is Open over the standard library, whose tag comparison takes the
// same time whatever differs. The error value it returns is a constant.
func openGeneric(ops []Op) {
	for i := range ops {
		op := &ops[i]
		if i+1 < len(ops) {
			prefetch.Bytes(ops[i+1].Buf)
		}
		if !usable(op) {
			fail(op)
			continue
		}
		if _, err := standard.Get(op.Key.standard).Open(op.Buf[:0:len(op.Buf)], op.Nonce[:], op.Buf, op.AAD[:op.AADLen]); err != nil {
			fail(op)
			continue
		}
		op.OK = true
	}
}

// openTruncatedGeneric is OpenTruncated over the standard library, which opens no tag as short as that: it seals the text, which decrypts it, and
// again for its tag, and decrypts it anew.
func openTruncatedGeneric(ops []Op, n int) {
	for i := range ops {
		op := &ops[i]
		if !usable(op) {
			fail(op)
			continue
		}
		text, sent := len(op.Buf)-TagSize, [TagSize]byte(op.Buf[len(op.Buf)-TagSize:])
		one := ops[i : i+1]
		sealGeneric(one)
		sealGeneric(one)
		good := subtle.ConstantTimeCompare(op.Buf[text:text+n], sent[:n]) == 1
		sealGeneric(one)
		copy(op.Buf[text:], sent[:])
		if !good {
			fail(op)
		}
	}
}

// usable says whether an op has a key and lengths that can be worked on.
func usable(op *Op) bool {
	return op.Key != nil && op.Key.standard != 0 && len(op.Buf) >= TagSize && op.AADLen <= AADMax
}

// fail wipes an op's buffer and marks the op.
func fail(op *Op) {
	clear(op.Buf)
	op.OK = false
}
