package suite

import (
	"crypto/mlkem"
	"io"

	"sallyport/ike/message"
)

// ML-KEM (FIPS 203) as draft-ietf-ipsecme-ikev2-mlkem uses it: the initiator sends an encapsulation key, the responder
// a ciphertext.
var (
	mlkem768Group = group{
		word: "mlkem768", id: message.KEMLKEM768, first: mlkem.EncapsulationKeySize768, answer: mlkem.CiphertextSize768,
		initiate: func(rand io.Reader) (private, []byte, error) {
			key, err := newKEM(rand, mlkem.NewDecapsulationKey768)
			if err != nil {
				return nil, nil, err
			}
			return kemPrivate{"mlkem768", key}, key.EncapsulationKey().Bytes(), nil
		},
		respond: func(_ io.Reader, peer []byte) (public, shared []byte, err error) {
			key, err := mlkem.NewEncapsulationKey768(peer)
			if err != nil {
				return nil, nil, badValue("mlkem768", "that is no encapsulation key")
			}
			shared, public = key.Encapsulate()
			return public, shared, nil
		},
	}
	mlkem1024Group = group{
		word: "mlkem1024", id: message.KEMLKEM1024, first: mlkem.EncapsulationKeySize1024, answer: mlkem.CiphertextSize1024, noIKE: true,
		initiate: func(rand io.Reader) (private, []byte, error) {
			key, err := newKEM(rand, mlkem.NewDecapsulationKey1024)
			if err != nil {
				return nil, nil, err
			}
			return kemPrivate{"mlkem1024", key}, key.EncapsulationKey().Bytes(), nil
		},
		respond: func(_ io.Reader, peer []byte) (public, shared []byte, err error) {
			key, err := mlkem.NewEncapsulationKey1024(peer)
			if err != nil {
				return nil, nil, badValue("mlkem1024", "that is no encapsulation key")
			}
			shared, public = key.Encapsulate()
			return public, shared, nil
		},
	}
)

// newKEM makes a decapsulation key from a seed of FIPS 203's d and z.
func newKEM[K any](rand io.Reader, make func([]byte) (K, error)) (key K, err error) {
	var seed [mlkem.SeedSize]byte
	defer clear(seed[:])
	if _, err = io.ReadFull(rand, seed[:]); err != nil {
		return key, err
	}
	return make(seed[:])
}

type kemPrivate struct {
	word string
	key  interface {
		Decapsulate(ciphertext []byte) ([]byte, error)
	}
}

// finish never fails for a ciphertext of the right length: a wrong one gives a secret that nobody has (FIPS 203, 6.3).
func (p kemPrivate) finish(peer []byte) ([]byte, error) {
	shared, err := p.key.Decapsulate(peer)
	if err != nil {
		return nil, badValue(p.word, "that is no ciphertext")
	}
	return shared, nil
}
