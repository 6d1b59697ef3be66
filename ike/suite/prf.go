package suite

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"

	"sallyport/ike/message"
)

// prfInfo describes a pseudo-random function: HMAC, so that keys of any length fit (RFC 4868, 2.4).
type prfInfo struct {
	word string
	id   uint16
	size int // bytes of output, and of the keys that are derived for it
	hash func() hash.Hash
}

var prfs = []prfInfo{
	{"prfsha384", message.PRFHMACSHA2384, sha512.Size384, sha512.New384},
	{"prfsha256", message.PRFHMACSHA2256, sha256.Size, sha256.New},
	{"prfsha512", message.PRFHMACSHA2512, sha512.Size, sha512.New},
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
	mac := hmac.New(p.hash, key)
	for _, part := range parts {
		mac.Write(part)
	}
	return mac.Sum(make([]byte, 0, p.size))
}

// plus fills out with prf+ (RFC 7296, 2.13): T1 | T2 | …, Tn = prf(key, Tn-1 | seed | n).
func (p *prfInfo) plus(out, key []byte, seed ...[]byte) {
	if len(out) > 255*p.size {
		panic("suite: prf+ beyond its 255 blocks")
	}
	mac := hmac.New(p.hash, key)
	block := make([]byte, 0, p.size)
	for n := byte(1); len(out) > 0; n++ {
		mac.Reset()
		mac.Write(block)
		for _, part := range seed {
			mac.Write(part)
		}
		mac.Write([]byte{n})
		block = mac.Sum(block[:0])
		out = out[copy(out, block):]
	}
	clear(block)
}
