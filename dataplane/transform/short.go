package transform

import (
	"crypto/subtle"
	"encoding/binary"

	"sallyport/dataplane/aesgcm"
)

// Packets of AES-GCM with a truncated tag are worked on in the scratch, since the cipher's tags are whole. a is one op of the
// cipher, as a slice.

// sealShort encrypts the text, and sends the first bytes of its tag.
func (b *Batch) sealShort(a []aesgcm.Op, op *Op) {
	binary.BigEndian.PutUint64(op.Packet[headerLen:], op.Counter)
	text := shortText(op)
	if !b.runShort(a, op, text) {
		fail(op)
		return
	}
	copy(text, b.scratch[:len(text)])
	copy(op.Packet[len(op.Packet)-op.Key.suite.Info().ICVLen:], b.scratch[len(text):])
	op.OK = true
}

// openShort decrypts in the scratch, encrypts again there for the tag, and lets the text out only if that matches. GCM's
// encryption is a key stream, so that encrypting twice decrypts.
func (b *Batch) openShort(a []aesgcm.Op, op *Op) {
	text, icv := shortText(op), op.Key.suite.Info().ICVLen
	ok := b.runShort(a, op, text)
	plain := b.plain[:len(text)]
	copy(plain, b.scratch[:len(text)])
	ok = ok && b.runShort(a, op, plain)
	if !ok || subtle.ConstantTimeCompare(b.scratch[len(text):len(text)+icv], op.Packet[len(op.Packet)-icv:]) != 1 {
		fail(op)
	} else {
		copy(text, plain)
		op.OK = true
	}
	clear(plain)
}

// shortText is what lies between IV and ICV.
func shortText(op *Op) []byte {
	return op.Packet[headerLen+ivAEAD : len(op.Packet)-op.Key.suite.Info().ICVLen]
}

// runShort leaves the encrypted text and its whole tag in the scratch.
func (b *Batch) runShort(a []aesgcm.Op, op *Op, text []byte) bool {
	fillAEAD(&a[0], op)
	copy(b.scratch[:], text)
	a[0].Key, a[0].Buf = &op.Key.gcm, b.scratch[:len(text)+aesgcm.TagSize]
	aesgcm.Seal(a)
	return a[0].OK
}
