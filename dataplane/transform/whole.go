package transform

import (
	"crypto/subtle"
	"encoding/binary"

	"sallyport/dataplane/aesgcm"
)

// Whole says that a suite can authenticate a packet as a whole, as AH does (RFC 4302): HMAC alone, or GMAC.
func (i *Info) Whole() bool { return i.Kind == KindNull || i.Kind == KindGMAC }

// WholeICVLen is the length of AH's ICV field without padding: with GMAC the IV stands in front of the tag in it (RFC 4543, 5).
func (i *Info) WholeICVLen() int { return i.IVLen + i.ICVLen }

// Sign computes the ICV field of AH over covered, in which fields that change on the way, and the ICV field, are zero. counter is
// as in [Op]. icv has WholeICVLen bytes, and must not lie in covered. It returns false if the key is gone or for something else.
func (b *Batch) Sign(k *Key, covered []byte, counter uint64, icv []byte) bool {
	info := k.Suite().Info()
	if !info.Whole() || len(icv) != info.WholeICVLen() {
		return false
	}
	if info.Kind == KindGMAC {
		binary.BigEndian.PutUint64(icv, counter)
	}
	b.whole(k, covered, icv)
	copy(icv[info.IVLen:], b.scratch[:info.ICVLen])
	return true
}

// Verify says whether icv is the ICV field of AH over covered.
func (b *Batch) Verify(k *Key, covered, icv []byte) bool {
	info := k.Suite().Info()
	if !info.Whole() || len(icv) != info.WholeICVLen() {
		return false
	}
	b.whole(k, covered, icv)
	return subtle.ConstantTimeCompare(b.scratch[:info.ICVLen], icv[info.IVLen:]) == 1
}

// whole leaves the tag over covered in the scratch, with the IV in icv if the suite has one.
func (b *Batch) whole(k *Key, covered, icv []byte) {
	if k.kind() == KindGMAC {
		nonce := &b.gcm[0].Nonce
		copy(nonce[:], k.salt()[:])
		copy(nonce[len(k.salt()):], icv[:ivAEAD])
		ciphers.Get(k.other).Seal(b.scratch[:0:aesgcm.TagSize], nonce[:], nil, covered)
		return
	}
	mac := macKeys.Get(k.other)
	mac.mac.Reset()
	mac.mac.Write(covered)
	mac.mac.Sum(mac.sum[:0])
	copy(b.scratch[:], mac.sum[:mac.icvLen])
}
