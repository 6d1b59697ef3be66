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
	*(*[4]byte)(a.Nonce[0:]) = *op.Key.salt()
	*(*[8]byte)(a.Nonce[4:]) = [8]byte(op.Packet[headerLen:])
	fillAAD(a, op)
	a.Buf = op.Packet[headerLen+ivAEAD:]
}

// fillImplicit does the same for a packet that holds no IV: that is the sequence number, with
// leading zeros where it has 32 bits (RFC 8750, 4).
func fillImplicit(a *aesgcm.Op, op *Op) {
	*(*[4]byte)(a.Nonce[0:]) = *op.Key.salt()
	var hi uint32
	if op.ESN {
		hi = op.SeqHi
	}
	binary.BigEndian.PutUint32(a.Nonce[4:], hi)
	*(*[4]byte)(a.Nonce[8:]) = [4]byte(op.Packet[4:])
	fillAAD(a, op)
	a.Buf = op.Packet[headerLen:]
}

func fillAAD(a *aesgcm.Op, op *Op) {
	p := (*[headerLen]byte)(op.Packet)
	if op.ESN {
		*(*[4]byte)(a.AAD[0:]) = [4]byte(p[0:])
		binary.BigEndian.PutUint32(a.AAD[4:8], op.SeqHi)
		*(*[4]byte)(a.AAD[8:]) = [4]byte(p[4:])
		a.AADLen = 12
	} else {
		*(*[8]byte)(a.AAD[0:]) = [8]byte(p[0:])
		a.AADLen = 8
	}
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
