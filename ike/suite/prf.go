package suite

import (
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"sync"

	"sallyport/ike/message"
)

// prfInfo describes a pseudo-random function: HMAC, so that keys of any length fit (RFC 4868, 2.4).
type prfInfo struct {
	word string
	id   uint16
	size int // bytes of output, and of the keys that are derived for it
	hash func() hash.Hash
	pool *sync.Pool // of *mac
}

var prfs = []prfInfo{
	{"prfsha384", message.PRFHMACSHA2384, sha512.Size384, sha512.New384, new(sync.Pool)},
	{"prfsha256", message.PRFHMACSHA2256, sha256.Size, sha256.New, new(sync.Pool)},
	{"prfsha512", message.PRFHMACSHA2512, sha512.Size, sha512.New, new(sync.Pool)},
}

func prfOf(id uint16) *prfInfo {
	for i := range prfs {
		if prfs[i].id == id {
			return &prfs[i]
		}
	}
	return nil
}

// PRF computes the pseudo-random function with this transform ID over the concatenation of parts. An ID that is not
// implemented is a mistake of the caller: choices have only implemented ones.
func PRF(id uint16, key []byte, parts ...[]byte) []byte {
	p := prfOf(id)
	if p == nil {
		panic(fmt.Sprintf("suite: PRF %d is not implemented", id))
	}
	return p.sum(key, parts...)
}

// PRFSize returns the length of PRF's result in bytes, 0 for an ID that is not implemented.
func PRFSize(id uint16) int {
	if p := prfOf(id); p != nil {
		return p.size
	}
	return 0
}

func (p *prfInfo) sum(key []byte, parts ...[]byte) []byte {
	m := p.mac(key)
	defer p.release(m)
	m.begin()
	for _, part := range parts {
		m.hash.Write(part)
	}
	return m.end(make([]byte, 0, p.size))
}

// plus fills out with prf+ (RFC 7296, 2.13): T1 | T2 | …, Tn = prf(key, Tn-1 | seed | n).
func (p *prfInfo) plus(out, key []byte, seed ...[]byte) {
	if len(out) > 255*p.size {
		panic("suite: prf+ beyond its 255 blocks")
	}
	m := p.mac(key)
	defer p.release(m)
	var previous []byte
	for n := byte(1); len(out) > 0; n++ {
		m.begin()
		m.hash.Write(previous)
		for _, part := range seed {
			m.hash.Write(part)
		}
		m.number[0] = n
		m.hash.Write(m.number[:])
		m.end(m.block[:0])
		previous = m.block[:p.size]
		out = out[copy(out, previous):]
	}
}

// mac is HMAC (RFC 2104) with what it needs beside its result, so that it can be used again. The standard library's
// allocates five times for each key, and an IKE SA has a dozen keys that are used once.
type mac struct {
	hash   hash.Hash
	key    [sha512.BlockSize]byte // padded with zeros
	pad    [sha512.BlockSize]byte
	inner  [sha512.Size]byte
	block  [sha512.Size]byte // the last block of prf+
	number [1]byte
	blocks int // the hash's block size
}

// mac returns a mac with this key.
func (p *prfInfo) mac(key []byte) *mac {
	m, ok := p.pool.Get().(*mac)
	if !ok {
		h := p.hash()
		m = &mac{hash: h, blocks: h.BlockSize()}
	}
	if len(key) > m.blocks { // RFC 2104, 2
		m.hash.Reset()
		m.hash.Write(key)
		m.hash.Sum(m.key[:0])
	} else {
		copy(m.key[:], key)
	}
	return m
}

// release wipes a mac, so that nothing is left of keys and results, and keeps it.
func (p *prfInfo) release(m *mac) {
	m.hash.Reset()
	*m = mac{hash: m.hash, blocks: m.blocks}
	p.pool.Put(m)
}

func (m *mac) begin() {
	m.hash.Reset()
	m.hash.Write(m.padded(0x36))
}

// end appends the result to b.
func (m *mac) end(b []byte) []byte {
	inner := m.hash.Sum(m.inner[:0])
	m.hash.Reset()
	m.hash.Write(m.padded(0x5c))
	m.hash.Write(inner)
	return m.hash.Sum(b)
}

func (m *mac) padded(with byte) []byte {
	pad := m.pad[:m.blocks]
	for i := range pad {
		pad[i] = m.key[i] ^ with
	}
	return pad
}
