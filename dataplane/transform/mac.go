package transform

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	_ "crypto/sha256" // the hashes that suites name
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"hash"
)

// mode is a CBC mode that takes a new IV; both of the standard library's do.
type mode interface {
	cipher.BlockMode
	SetIV([]byte)
}

// macKey is HMAC-SHA2, with AES-CBC or without encryption (RFC 2410), for one direction, with the state
// that calls use again.
type macKey struct {
	ivLen, icvLen    int
	encrypt, decrypt mode // nil without encryption
	mac              hash.Hash
	// iv encrypts the packet counter into an unpredictable IV, under a random key of the
	// association's own that never leaves it (RFC 3602, 3; SP 800-38A, appendix C).
	iv  cipher.Block
	sum [sha512.Size]byte
	hi  [4]byte
}

func newMACKey(info *Info, encryption, integrity []byte) (*macKey, error) {
	k := &macKey{ivLen: info.IVLen, icvLen: info.ICVLen, mac: hmac.New(info.Hash.New, integrity)}
	if info.Kind == KindNull {
		return k, nil
	}
	block, err := aes.NewCipher(encryption)
	if err != nil {
		return nil, err
	}
	var ivKey [16]byte
	defer clear(ivKey[:])
	if _, err := rand.Read(ivKey[:]); err != nil {
		return nil, err
	}
	if k.iv, err = aes.NewCipher(ivKey[:]); err != nil {
		return nil, err
	}
	var zero [aes.BlockSize]byte
	k.encrypt = cipher.NewCBCEncrypter(block, zero[:]).(mode)
	k.decrypt = cipher.NewCBCDecrypter(block, zero[:]).(mode)
	return k, nil
}

// authenticate puts the MAC over SPI to next header, and the upper half of an
// extended sequence number (RFC 4303, 2.2.1), into k.sum.
func (k *macKey) authenticate(op *Op) {
	k.mac.Reset()
	k.mac.Write(op.Packet[:len(op.Packet)-k.icvLen])
	if op.ESN {
		binary.BigEndian.PutUint32(k.hi[:], op.SeqHi)
		k.mac.Write(k.hi[:])
	}
	k.mac.Sum(k.sum[:0])
}

// sealMAC writes the IV and encrypts, if the suite does, then authenticates the ciphertext.
func sealMAC(op *Op) {
	k := macKeys.Get(op.Key.other)
	if k.encrypt != nil {
		iv := op.Packet[headerLen : headerLen+k.ivLen]
		text := op.Packet[headerLen+k.ivLen : len(op.Packet)-k.icvLen]
		if len(text)%aes.BlockSize != 0 {
			fail(op)
			return
		}
		clear(iv[:8])
		binary.BigEndian.PutUint64(iv[8:], op.Counter)
		k.iv.Encrypt(iv, iv)
		k.encrypt.SetIV(iv)
		k.encrypt.CryptBlocks(text, text)
	}
	k.authenticate(op)
	copy(op.Packet[len(op.Packet)-k.icvLen:], k.sum[:k.icvLen])
	op.OK = true
}

// openMAC verifies the ICV over the ciphertext before it decrypts anything.
func openMAC(op *Op) {
	k := macKeys.Get(op.Key.other)
	text := op.Packet[headerLen+k.ivLen : len(op.Packet)-k.icvLen]
	if k.decrypt != nil && len(text)%aes.BlockSize != 0 {
		fail(op)
		return
	}
	k.authenticate(op)
	if subtle.ConstantTimeCompare(k.sum[:k.icvLen], op.Packet[len(op.Packet)-k.icvLen:]) != 1 {
		fail(op)
		return
	}
	if k.decrypt != nil {
		k.decrypt.SetIV(op.Packet[headerLen : headerLen+k.ivLen])
		k.decrypt.CryptBlocks(text, text)
	}
	op.OK = true
}
