package transform

import (
	"encoding/binary"

	"sallyport/dataplane/aesgcm"
)

// Packets of AES-GCM with a truncated tag are worked on in the scratch, where there is room for a whole one. a is one op of the
// cipher, as a slice.

// sealShort encrypts the text, and sends the first bytes of its tag.
func (b *Batch) sealShort(a []aesgcm.Op, op *Op) {
	binary.BigEndian.PutUint64(op.Packet[headerLen:], op.Counter)
	b.shorten(a, op)
	aesgcm.Seal(a)
	b.finishShort(a, op)
}

// openShort decrypts the text and verifies the part of its tag that was sent. The text leaves the scratch only then.
func (b *Batch) openShort(a []aesgcm.Op, op *Op) {
	b.shorten(a, op)
	aesgcm.OpenTruncated(a, op.Key.Suite().Info().ICVLen)
	b.finishShort(a, op)
}

// shorten makes a from op, with what lies behind the IV in the scratch.
func (b *Batch) shorten(a []aesgcm.Op, op *Op) {
	fillAEAD(&a[0], op)
	n := copy(b.scratch[:], op.Packet[headerLen+ivAEAD:])
	a[0].Key, a[0].Buf = &op.Key.gcm, b.scratch[:n-op.Key.Suite().Info().ICVLen+aesgcm.TagSize]
}

func (b *Batch) finishShort(a []aesgcm.Op, op *Op) {
	if !a[0].OK {
		fail(op)
		return
	}
	copy(op.Packet[headerLen+ivAEAD:], b.scratch[:])
	op.OK = true
}
