package transform

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"hash"
)

// integrityKeyLen is the key length of HMAC-SHA2-256-128 (RFC 4868, 2.1.1).
const integrityKeyLen = 32

// mode is a CBC mode that takes a new IV; both of the standard library's do.
type mode interface {
	cipher.BlockMode
	SetIV([]byte)
}

// cbcKey is AES-CBC with HMAC-SHA2-256-128 for one direction, with the state
// that calls use again.
type cbcKey struct {
	encrypt, decrypt mode
	mac              hash.Hash
	// iv encrypts the packet counter into an unpredictable IV, under a random key of the
	// association's own that never leaves it (RFC 3602, 3; SP 800-38A, appendix C).
	iv  cipher.Block
	sum [sha256.Size]byte
	hi  [4]byte
}

func newCBCKey(encryption, integrity []byte) (*cbcKey, error) {
	block, err := aes.NewCipher(encryption)
	if err != nil {
		return nil, err
	}
	var ivKey [16]byte
	defer clear(ivKey[:])
	if _, err := rand.Read(ivKey[:]); err != nil {
		return nil, err
	}
	iv, err := aes.NewCipher(ivKey[:])
	if err != nil {
		return nil, err
	}
	var zero [aes.BlockSize]byte
	return &cbcKey{
		encrypt: cipher.NewCBCEncrypter(block, zero[:]).(mode),
		decrypt: cipher.NewCBCDecrypter(block, zero[:]).(mode),
		mac:     hmac.New(sha256.New, integrity),
		iv:      iv,
	}, nil
}

// authenticate puts the MAC over SPI to next header, and the upper half of an
// extended sequence number (RFC 4303, 2.2.1), into k.sum.
func (k *cbcKey) authenticate(op *Op) {
	k.mac.Reset()
	k.mac.Write(op.Packet[:len(op.Packet)-icvCBC])
	if op.ESN {
		binary.BigEndian.PutUint32(k.hi[:], op.SeqHi)
		k.mac.Write(k.hi[:])
	}
	k.mac.Sum(k.sum[:0])
}

const (
	ivCBC  = aes.BlockSize
	icvCBC = 16
)

// sealCBC writes the IV, encrypts, then authenticates the ciphertext.
func sealCBC(op *Op) {
	k := cbcKeys.Get(op.Key.other)
	iv := op.Packet[headerLen : headerLen+ivCBC]
	text := op.Packet[headerLen+ivCBC : len(op.Packet)-icvCBC]
	if len(text)%aes.BlockSize != 0 {
		fail(op)
		return
	}
	clear(iv[:8])
	binary.BigEndian.PutUint64(iv[8:], op.Counter)
	k.iv.Encrypt(iv, iv)
	k.encrypt.SetIV(iv)
	k.encrypt.CryptBlocks(text, text)
	k.authenticate(op)
	copy(op.Packet[len(op.Packet)-icvCBC:], k.sum[:icvCBC])
	op.OK = true
}

// openCBC verifies the ICV over the ciphertext before it decrypts anything.
func openCBC(op *Op) {
	k := cbcKeys.Get(op.Key.other)
	text := op.Packet[headerLen+ivCBC : len(op.Packet)-icvCBC]
	if len(text)%aes.BlockSize != 0 {
		fail(op)
		return
	}
	k.authenticate(op)
	if subtle.ConstantTimeCompare(k.sum[:icvCBC], op.Packet[len(op.Packet)-icvCBC:]) != 1 {
		fail(op)
		return
	}
	k.decrypt.SetIV(op.Packet[headerLen : headerLen+ivCBC])
	k.decrypt.CryptBlocks(text, text)
	op.OK = true
}
