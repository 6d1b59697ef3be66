package transform

import (
	"encoding/binary"

	"sallyport/dataplane/aesgcm"
)

// gmacAAD returns what GMAC authenticates: SPI, sequence number, with ESN all 64 bits of it, IV, and everything up to the
// ICV (RFC 4543, 3.3). With ESN that is a copy in the scratch. RFC 4543, 7 says that the IV is left out, but the test cases of
// its author (draft-mcgrew-gcm-test-01) have it in, and so have other implementations.
func (b *Batch) gmacAAD(op *Op) []byte {
	covered := op.Packet[:len(op.Packet)-aesgcm.TagSize]
	if !op.ESN {
		return covered
	}
	copy(b.scratch[:4], covered)
	binary.BigEndian.PutUint32(b.scratch[4:], op.SeqHi)
	return b.scratch[:8+copy(b.scratch[8:], covered[4:])]
}

// sealGMAC uses a as the home of the nonce, see sealChaCha.
func (b *Batch) sealGMAC(a *aesgcm.Op, op *Op) {
	binary.BigEndian.PutUint64(op.Packet[headerLen:], op.Counter)
	fillAEAD(a, op)
	icv := len(op.Packet) - aesgcm.TagSize
	ciphers.Get(op.Key.other).Seal(op.Packet[icv:icv:len(op.Packet)], a.Nonce[:], nil, b.gmacAAD(op))
	op.OK = true
}

func (b *Batch) openGMAC(a *aesgcm.Op, op *Op) {
	fillAEAD(a, op)
	icv := len(op.Packet) - aesgcm.TagSize
	if _, err := ciphers.Get(op.Key.other).Open(op.Packet[icv:icv:len(op.Packet)], a.Nonce[:], op.Packet[icv:], b.gmacAAD(op)); err != nil {
		fail(op)
		return
	}
	op.OK = true
}
