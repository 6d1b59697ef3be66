package suite

import (
	"encoding/hex"
	"io"
	"sync"

	"filippo.io/bigmod"
)

// modp is a group of RFC 3526: its prime is a safe one, and 2 generates the subgroup of prime order. Arithmetic with
// secrets is bigmod's, whose time depends on lengths alone.
type modp struct {
	// exponent is the length of a private value in bytes: the most that RFC 3526, 8 finds useful for the group.
	exponent int
	modulus  func() *bigmod.Modulus
}

var (
	modp2048 = newMODP(prime2048, 40)
	modp3072 = newMODP(prime3072, 53)
	modp4096 = newMODP(prime4096, 60)
)

// newMODP prepares the modulus when it is first used.
func newMODP(prime string, exponent int) *modp {
	return &modp{exponent, sync.OnceValue(func() *bigmod.Modulus {
		b, err := hex.DecodeString(prime)
		if err != nil {
			panic(err)
		}
		m, err := bigmod.NewModulus(b)
		if err != nil {
			panic(err)
		}
		return m
	})}
}

func modpGroup(word string, id uint16, bits int, m *modp) group {
	return group{
		word: word, id: id, first: bits / 8, answer: bits / 8,
		initiate: func(rand io.Reader) (private, []byte, error) {
			exponent, public, err := m.generate(rand)
			return &modpPrivate{m, word, exponent}, public, err
		},
		respond: func(rand io.Reader, peer []byte) (public, shared []byte, err error) {
			exponent, public, err := m.generate(rand)
			if err != nil {
				return nil, nil, err
			}
			defer clear(exponent)
			shared, err = (&modpPrivate{m, word, exponent}).finish(peer)
			return public, shared, err
		},
	}
}

// generate draws a private exponent and returns 2 to its power. The top bit is set, so that the exponent is as long as
// it should be.
func (m *modp) generate(rand io.Reader) (exponent, public []byte, err error) {
	exponent = make([]byte, m.exponent)
	if _, err := io.ReadFull(rand, exponent); err != nil {
		return nil, nil, err
	}
	exponent[0] |= 0x80
	n := m.modulus()
	two := bigmod.NewNat().SetUint(2).ExpandFor(n)
	return exponent, bigmod.NewNat().Exp(two, exponent, n).Bytes(n), nil
}

type modpPrivate struct {
	*modp
	word     string
	exponent []byte
}

// finish returns the secret with its leading zeros (RFC 7296, 2.14).
func (p *modpPrivate) finish(peer []byte) ([]byte, error) {
	n := p.modulus()
	y, err := bigmod.NewNat().SetBytes(peer, n)
	// RFC 6989, 2.1: with a safe prime, 1 < y < p - 1 is all that is to be checked. The peer's value is no secret.
	if err != nil || y.IsZero() == 1 || y.IsOne() == 1 || y.IsMinusOne(n) == 1 {
		return nil, badValue(p.word, "out of range")
	}
	return bigmod.NewNat().Exp(y, p.exponent, n).Bytes(n), nil
}
