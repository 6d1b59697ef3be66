package transform

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"

	"sallyport/dataplane/aesgcm"
	"sallyport/dataplane/prefetch"
	"sallyport/dataplane/registry"
)

// Key holds what one direction of one association is worked on with. It belongs
// to the association's owner: CBC keys keep state between calls, so a key is
// used by one goroutine at a time. It must not be copied. It holds no Go pointer, so it may
// live outside the Go heap; its zero value is no key. It fills whole cache lines.
type Key struct {
	// gcm is that of AES-GCM. Its extra bytes are salt, suite and kind, whatever the suite: see extra.
	gcm aesgcm.Key
	// other is the handle of what suites but AES-GCM use, in ciphers or macKeys; 0 without.
	other uint32
	_     [44]byte
}

// Places in the extra bytes, after the salt.
const (
	extraSuite = 4
	extraKind  = 5
)

func (k *Key) salt() *[4]byte { return (*[4]byte)(k.gcm.Extra[:]) }
func (k *Key) kind() Kind     { return Kind(k.gcm.Extra[extraKind]) }

// What keys have handles of, for the suites whose implementations live on the Go heap.
var (
	ciphers registry.Registry[cipher.AEAD]
	macKeys registry.Registry[*macKey]
)

// Prefetch asks for what of the keys that index names a short packet under AES-128-GCM needs: five cache lines of nine.
func Prefetch(keys []Key, index []uint32) {
	prefetch.Items(keys, index, aesgcm.HotFrom, aesgcm.HotLines)
}

// NewKey makes a key from the keying material of one direction, as Set does.
func NewKey(suite Suite, keymat []byte) (*Key, error) {
	k := new(Key)
	if err := k.Set(suite, keymat); err != nil {
		return nil, err
	}
	return k, nil
}

// Set makes k, which is none or was zeroed, a key from the keying material of one direction. That must
// have exactly the suite's KeyLen bytes. The caller keeps ownership of keymat and
// wipes it; no part of it is in the error. Zero must be called when the key is not needed any more.
func (k *Key) Set(suite Suite, keymat []byte) error {
	info := suite.Info()
	if info.Kind == KindNone {
		return fmt.Errorf("suite %d does not exist", suite)
	}
	if len(keymat) != info.KeyLen {
		return fmt.Errorf("%s takes %d bytes of keying material, not %d", info.Name, info.KeyLen, len(keymat))
	}
	secret, salt := keymat[:info.KeyLen-info.SaltLen], keymat[info.KeyLen-info.SaltLen:]
	var err error
	switch info.Kind {
	case KindGCM, KindGCMShort, KindGCMImplicit:
		err = k.gcm.Set(secret)
	case KindGMAC:
		var block cipher.Block
		if block, err = aes.NewCipher(secret); err != nil {
			break
		}
		var aead cipher.AEAD
		if aead, err = cipher.NewGCM(block); err == nil {
			k.other = ciphers.Put(aead)
		}
	case KindChaCha, KindChaChaImplicit:
		var aead cipher.AEAD
		if aead, err = chacha20poly1305.New(secret); err == nil {
			k.other = ciphers.Put(aead)
		}
	case KindCBC, KindNull:
		cut := len(secret) - info.Hash.Size()
		var mac *macKey
		if mac, err = newMACKey(info, secret[:cut], secret[cut:]); err == nil {
			k.other = macKeys.Put(mac)
		}
	}
	if err != nil {
		return fmt.Errorf("expand key for %s: %w", info.Name, err)
	}
	copy(k.salt()[:], salt)
	k.gcm.Extra[extraSuite], k.gcm.Extra[extraKind] = uint8(suite), uint8(info.Kind)
	return nil
}

// Zero wipes the key: later operations with it fail. Expanded keys of suites but AES-GCM belong to
// libraries that offer no way to wipe them; so may those of AES-GCM, see [aesgcm.Key.Zero].
// Nobody may be inside Seal or Open with this key.
func (k *Key) Zero() {
	switch k.kind() {
	case KindChaCha, KindChaChaImplicit, KindGMAC:
		ciphers.Drop(k.other)
	case KindCBC, KindNull:
		macKeys.Drop(k.other)
	}
	k.gcm.Zero()
	*k = Key{}
}

// Suite returns the suite that the key is for, None if it is no key.
func (k *Key) Suite() Suite { return Suite(k.gcm.Extra[extraSuite]) }

// GCM says that the key is one of AES-GCM-16 with the IV in the packet.
func (k *Key) GCM() bool { return k.kind() == KindGCM }

// Salt returns the nonce salt; zero for suites without one.
func (k *Key) Salt() [4]byte { return *k.salt() }
