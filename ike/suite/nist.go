package suite

import (
	"crypto/ecdh"
	"errors"
	"io"
)

// nistCurve is a curve of RFC 5903. Its values are x | y without the prefix that says "uncompressed".
type nistCurve struct {
	curve   ecdh.Curve
	coord   int  // bytes of a coordinate and of a scalar
	topBits byte // mask of a scalar's first byte
}

var (
	p256 = nistCurve{ecdh.P256(), 32, 0xff}
	p384 = nistCurve{ecdh.P384(), 48, 0xff}
	p521 = nistCurve{ecdh.P521(), 66, 0x01}
)

// scalarTries bounds the draws of a private scalar: all but one in 2^32 are below the order of each curve, but that of
// P-521, of which every second one may be above.
const scalarTries = 128

func nistGroup(word string, id uint16, c nistCurve) group {
	return group{
		word: word, id: id, first: 2 * c.coord, answer: 2 * c.coord,
		initiate: func(rand io.Reader) (private, []byte, error) {
			key, err := c.generate(rand)
			if err != nil {
				return nil, nil, err
			}
			return &nistPrivate{c, word, key}, key.PublicKey().Bytes()[1:], nil
		},
		respond: func(rand io.Reader, peer []byte) (public, shared []byte, err error) {
			key, err := c.generate(rand)
			if err != nil {
				return nil, nil, err
			}
			shared, err = (&nistPrivate{c, word, key}).finish(peer)
			return key.PublicKey().Bytes()[1:], shared, err
		},
	}
}

func (c nistCurve) generate(rand io.Reader) (*ecdh.PrivateKey, error) {
	var room [66]byte
	scalar := room[:c.coord]
	defer clear(scalar)
	for range scalarTries {
		if _, err := io.ReadFull(rand, scalar); err != nil {
			return nil, err
		}
		scalar[0] &= c.topBits
		if key, err := c.curve.NewPrivateKey(scalar); err == nil { // refuses zero and what is not below the order
			return key, nil
		}
	}
	return nil, errors.New("the random source repeats itself")
}

type nistPrivate struct {
	nistCurve
	word string
	key  *ecdh.PrivateKey
}

// finish returns the x coordinate of the common point (RFC 5903, 9).
func (p *nistPrivate) finish(peer []byte) ([]byte, error) {
	point, err := p.curve.NewPublicKey(append([]byte{4}, peer...)) // refuses what is not on the curve (RFC 6989, 2.3)
	if err != nil {
		return nil, badValue(p.word, "off the curve")
	}
	return p.key.ECDH(point)
}
