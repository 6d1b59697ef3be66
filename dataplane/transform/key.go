package transform

import (
	"crypto/cipher"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"

	"sallyport/dataplane/aesgcm"
)

// Key holds what one direction of one association is worked on with. It belongs
// to the association's owner: CBC keys keep state between calls, so a key is
// used by one goroutine at a time. It must not be copied.
type Key struct {
	// hot
	gcm   aesgcm.Key
	salt  [4]byte
	suite Suite
	kind  Kind

	// only for the suite that uses them
	aead cipher.AEAD
	cbc  *cbcKey
}

// NewKey makes a key from the keying material of one direction, which must have
// exactly the suite's KeyLen bytes. The caller keeps ownership of keymat and
// wipes it; no part of it is in the error.
func NewKey(suite Suite, keymat []byte) (*Key, error) {
	info := suite.Info()
	if info.Kind == KindNone {
		return nil, fmt.Errorf("suite %d does not exist", suite)
	}
	if len(keymat) != info.KeyLen {
		return nil, fmt.Errorf("%s takes %d bytes of keying material, not %d", info.Name, info.KeyLen, len(keymat))
	}
	k := &Key{suite: suite, kind: info.Kind}
	secret, salt := keymat[:info.KeyLen-info.SaltLen], keymat[info.KeyLen-info.SaltLen:]
	copy(k.salt[:], salt)
	var err error
	switch info.Kind {
	case KindGCM:
		k.gcm, err = aesgcm.NewKey(secret)
	case KindChaCha:
		k.aead, err = chacha20poly1305.New(secret)
	case KindCBC:
		k.cbc, err = newCBCKey(secret[:len(secret)-integrityKeyLen], secret[len(secret)-integrityKeyLen:])
	}
	if err != nil {
		return nil, fmt.Errorf("expand key for %s: %w", info.Name, err)
	}
	return k, nil
}

// Zero forgets the key: later operations with it fail. Expanded keys inside the
// standard library cannot be wiped (see [aesgcm.Key.Zero]). Nobody may be inside
// Seal or Open with this key.
func (k *Key) Zero() {
	k.gcm.Zero()
	*k = Key{suite: k.suite}
}

// Suite returns the suite that the key is for.
func (k *Key) Suite() Suite { return k.suite }

// Salt returns the nonce salt; zero for suites without one.
func (k *Key) Salt() [4]byte { return k.salt }
