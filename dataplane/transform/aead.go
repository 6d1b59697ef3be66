package transform

import (
	"encoding/binary"

	"sallyport/dataplane/aesgcm"
)

// ivAEAD is the IV length of every AEAD suite here (RFC 4106, 3.1; RFC 7634, 2).
const ivAEAD = 8

// fillAEAD writes nonce, additional data and buffer of a packet whose IV is in
// place. The nonce is salt and IV (RFC 4106, 4; RFC 7634, 2), the additional data SPI and
// sequence number, with ESN all 64 bits of it (RFC 4106, 5; RFC 7634, 2.1).
func fillAEAD(a *aesgcm.Op, op *Op) {
	p := op.Packet
	copy(a.Nonce[0:4], op.Key.salt[:])
	copy(a.Nonce[4:12], p[headerLen:headerLen+ivAEAD])
	copy(a.AAD[0:4], p[0:4])
	if op.ESN {
		binary.BigEndian.PutUint32(a.AAD[4:8], op.SeqHi)
		copy(a.AAD[8:12], p[4:8])
		a.AADLen = 12
	} else {
		copy(a.AAD[4:8], p[4:8])
		a.AADLen = 8
	}
	a.Buf = p[headerLen+ivAEAD:]
}

func fillGCM(a *aesgcm.Op, op *Op) {
	fillAEAD(a, op)
	a.Key = &op.Key.gcm
}

// sealChaCha uses a as the home of nonce and additional data, which would escape
// from the stack through the interface call.
func sealChaCha(a *aesgcm.Op, op *Op) {
	text := a.Buf[: len(a.Buf)-aesgcm.TagSize : len(a.Buf)]
	ciphers.Get(op.Key.other).Seal(text[:0], a.Nonce[:], text, a.AAD[:a.AADLen])
	op.OK = true
}

func openChaCha(a *aesgcm.Op, op *Op) {
	if _, err := ciphers.Get(op.Key.other).Open(a.Buf[:0:len(a.Buf)], a.Nonce[:], a.Buf, a.AAD[:a.AADLen]); err != nil {
		fail(op)
		return
	}
	op.OK = true
}
