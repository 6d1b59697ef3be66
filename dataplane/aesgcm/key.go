package aesgcm

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
)

// ErrKeySize says that a key has not 16, 24 or 32 bytes.
var ErrKeySize = errors.New("AES key is not 16, 24 or 32 bytes long")

// Key is an expanded AES-GCM key. It is read-only once made, so any number of
// goroutines may use it. It must not be copied after first use.
type Key struct {
	aead cipher.AEAD
}

// NewKey expands an AES key of 16, 24 or 32 bytes. The caller keeps ownership of
// key and wipes it; no part of it is in the error.
func NewKey(key []byte) (Key, error) {
	if len(key) != 16 && len(key) != 24 && len(key) != 32 {
		return Key{}, ErrKeySize
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return Key{}, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return Key{}, err
	}
	return Key{aead: aead}, nil
}

// Zero forgets the key: later ops with it fail. The expanded key belongs to the
// standard library's cipher, which offers no way to wipe it, so its memory is
// cleared only when the collector uses it again. Nobody may be inside Seal or
// Open with this key.
func (k *Key) Zero() { k.aead = nil }
