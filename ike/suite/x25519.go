package suite

import (
	"io"

	"filippo.io/edwards25519"
	"filippo.io/edwards25519/field"

	"sallyport/ike/message"
)

const x25519Len = 32

// x25519Group is Curve25519 of RFC 8031. The standard library's PrivateKey computes its public key by a whole ladder
// whenever it is made, so that each side would pay two or three of them; here the public key comes from the Edwards
// form's precomputed base point at 0.4 of a ladder's price.
var x25519Group = group{
	word: "x25519", aliases: []string{"curve25519"}, id: message.KECurve25519, first: x25519Len, answer: x25519Len,
	initiate: func(rand io.Reader) (private, []byte, error) {
		scalar := new(x25519Private)
		public, err := scalar.generate(rand)
		return scalar, public, err
	},
	respond: func(rand io.Reader, peer []byte) (public, shared []byte, err error) {
		scalar := new(x25519Private)
		defer clear(scalar[:])
		if public, err = scalar.generate(rand); err != nil {
			return nil, nil, err
		}
		shared, err = scalar.finish(peer)
		return public, shared, err
	},
}

// x25519Private is a private scalar as RFC 7748 has it before clamping.
type x25519Private [x25519Len]byte

// generate draws the scalar and returns its public value.
func (p *x25519Private) generate(rand io.Reader) ([]byte, error) {
	if _, err := io.ReadFull(rand, p[:]); err != nil {
		return nil, err
	}
	// The clamped scalar modulo the order of the base point gives the same point; its Montgomery u is the public value.
	s, err := new(edwards25519.Scalar).SetBytesWithClamping(p[:])
	if err != nil {
		return nil, err
	}
	return new(edwards25519.Point).ScalarBaseMult(s).BytesMontgomery(), nil
}

// finish is the ladder of RFC 7748, 5, in constant time. An all-zero result means that the peer chose a point of small
// order and is refused (RFC 8031, 4).
func (p *x25519Private) finish(peer []byte) ([]byte, error) {
	e := *p
	defer clear(e[:])
	e[0] &= 248
	e[31] = e[31]&127 | 64

	var x1, x2, z2, x3, z3, a, b, c, d field.Element
	if _, err := x1.SetBytes(peer); err != nil { // masks the top bit, as RFC 7748, 5 demands
		return nil, badValue("x25519", "of another length")
	}
	x2.One()
	x3.Set(&x1)
	z3.One()
	swap := 0
	for t := 254; t >= 0; t-- {
		bit := int(e[t/8]>>(t%8)) & 1
		x2.Swap(&x3, swap^bit)
		z2.Swap(&z3, swap^bit)
		swap = bit

		a.Add(&x2, &z2)
		b.Subtract(&x2, &z2)
		c.Add(&x3, &z3)
		d.Subtract(&x3, &z3)
		d.Multiply(&d, &a) // DA
		c.Multiply(&c, &b) // CB
		a.Square(&a)       // AA
		b.Square(&b)       // BB
		x3.Add(&d, &c)
		x3.Square(&x3)
		z3.Subtract(&d, &c)
		z3.Square(&z3)
		z3.Multiply(&z3, &x1)
		x2.Multiply(&a, &b)
		a.Subtract(&a, &b) // E = AA - BB
		c.Mult32(&a, 121666)
		c.Add(&c, &b) // BB + 121666 E = AA + 121665 E
		z2.Multiply(&a, &c)
	}
	x2.Swap(&x3, swap)
	z2.Swap(&z3, swap)
	shared := x2.Multiply(&x2, z2.Invert(&z2)).Bytes()
	var nonzero byte
	for _, b := range shared {
		nonzero |= b
	}
	if nonzero == 0 {
		return nil, badValue("x25519", "of small order")
	}
	return shared, nil
}
