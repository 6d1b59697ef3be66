package ike

import (
	"crypto/sha256"
	"crypto/subtle"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/ike/message"
)

// cookieLen is the length of a cookie: one byte names the secret, the rest is the MAC. RFC 7296, 2.6 proposes
// <VersionIDofSecret> | Hash(Ni | IPi | SPIi | <secret>), with the secret's part done as HMAC here. Of the nonce only the
// first cookieNonceLen bytes count, so that what is hashed has one size whoever computes it.
const (
	cookieLen      = 1 + 16
	cookieNonceLen = message.NonceMin
	cookieLife     = 2 * time.Minute // of a secret as the newer one, and once more as the older one
)

// cookies makes and checks cookies. It keeps two secrets and nothing else.
type cookies struct {
	secrets atomic.Pointer[cookieSecrets]
	turning sync.Mutex
	rand    io.Reader
}

// cookieSecrets are immutable. Keys are those of HMAC-SHA-256, padded to its block.
type cookieSecrets struct {
	version       uint8 // of the newer one; the older one's is version-1
	newer, older  [sha256.BlockSize]byte
	turn          time.Time
	olderIsUsable bool
}

const (
	hmacInner = 0x36
	hmacOuter = 0x5c
)

func (c *cookies) start(rand io.Reader) { c.rand = rand }

// current returns the secrets, after turning them if it is time.
func (c *cookies) current(now time.Time) *cookieSecrets {
	s := c.secrets.Load()
	if s != nil && now.Before(s.turn) {
		return s
	}
	c.turning.Lock()
	defer c.turning.Unlock()
	if s = c.secrets.Load(); s != nil && now.Before(s.turn) {
		return s
	}
	next := &cookieSecrets{turn: now.Add(cookieLife)}
	if _, err := io.ReadFull(c.rand, next.newer[:sha256.Size]); err != nil {
		panic("ike: no randomness: " + err.Error()) // the system's source never fails; nothing is safe without it
	}
	if s != nil {
		next.version = s.version + 1
		next.older, next.olderIsUsable = s.newer, now.Sub(s.turn) < cookieLife
	}
	c.secrets.Store(next)
	return next
}

// cookie computes the cookie for an initiator: HMAC-SHA-256 over SPI, address and nonce, cut to 16 bytes.
// It does not allocate: it runs for every spoofed datagram of a flood.
func cookie(version uint8, secret *[sha256.BlockSize]byte, spi message.SPI, from netip.Addr, nonce []byte) (out [cookieLen]byte) {
	var inner [sha256.BlockSize + 1 + 8 + 16 + cookieNonceLen]byte
	var outer [sha256.BlockSize + sha256.Size]byte
	for i, k := range secret {
		inner[i], outer[i] = k^hmacInner, k^hmacOuter
	}
	b := inner[sha256.BlockSize:]
	b[0] = version
	for i := range 8 {
		b[1+i] = byte(spi >> (56 - 8*i))
	}
	address := from.As16()
	copy(b[9:], address[:])
	copy(b[25:], nonce)
	sum := sha256.Sum256(inner[:])
	copy(outer[sha256.BlockSize:], sum[:])
	sum = sha256.Sum256(outer[:])
	out[0] = version
	copy(out[1:], sum[:])
	return out
}

// make returns the cookie to demand of an initiator.
func (c *cookies) make(now time.Time, spi message.SPI, from netip.Addr, nonce []byte) [cookieLen]byte {
	s := c.current(now)
	return cookie(s.version, &s.newer, spi, from, nonce)
}

// valid says whether a cookie is one that we have made for this initiator, with one of the two secrets.
func (c *cookies) valid(now time.Time, got []byte, spi message.SPI, from netip.Addr, nonce []byte) bool {
	if len(got) != cookieLen {
		return false
	}
	s := c.current(now)
	secret := &s.newer
	switch {
	case got[0] == s.version:
	case got[0] == s.version-1 && s.olderIsUsable:
		secret = &s.older
	default:
		return false
	}
	want := cookie(got[0], secret, spi, from, nonce)
	return subtle.ConstantTimeCompare(got, want[:]) == 1
}
