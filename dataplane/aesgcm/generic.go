package aesgcm

import "sallyport/dataplane/prefetch"

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
		op.Key.aead.Seal(text[:0], op.Nonce[:], text, op.AAD[:op.AADLen])
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
		if _, err := op.Key.aead.Open(op.Buf[:0:len(op.Buf)], op.Nonce[:], op.Buf, op.AAD[:op.AADLen]); err != nil {
			fail(op)
			continue
		}
		op.OK = true
	}
}

// usable says whether an op has a key and lengths that can be worked on.
func usable(op *Op) bool {
	return op.Key != nil && op.Key.aead != nil && len(op.Buf) >= TagSize && op.AADLen <= AADMax
}

// fail wipes an op's buffer and marks the op.
func fail(op *Op) {
	clear(op.Buf)
	op.OK = false
}
