package suite

import (
	"encoding/binary"
	"errors"
	"fmt"

	"sallyport/ike/message"
)

// Keys are the seven keys of an IKE SA (RFC 7296, 2.14) with the state of the protection that uses two or four of them.
// They belong to one goroutine. They must not be copied: the counters of the IVs would be copied with them.
type Keys struct {
	choice   Choice
	prf      *prfInfo
	material []byte // SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr

	// The protection of what the original initiator sends, of what the original responder sends.
	fromInitiator, fromResponder protector
}

// DeriveIKE computes the keys of an IKE SA from IKE_SA_INIT: SKEYSEED = prf(Ni | Nr, g^ir).
func DeriveIKE(c Choice, shared, ni, nr []byte, spiI, spiR message.SPI) (*Keys, error) {
	prf, err := c.check()
	if err != nil {
		return nil, err
	}
	nonces := make([]byte, 0, 128)
	nonces = append(append(nonces, ni...), nr...)
	seed := prf.sum(nonces, shared)
	defer clear(seed)
	return derive(c, prf, seed, ni, nr, spiI, spiR), nil
}

// Rekey computes the keys of the IKE SA that succeeds the one with k, which keeps its keys (RFC 7296, 2.18):
// SKEYSEED = prf(SK_d, g^ir | Ni | Nr), with the old SA's PRF. Shared has the secret of the key exchange, then those of
// the additional ones in their order (RFC 9370, 2.2.4). The choice, the nonces and the SPIs are the new SA's.
func (k *Keys) Rekey(c Choice, shared [][]byte, ni, nr []byte, spiI, spiR message.SPI) (*Keys, error) {
	prf, err := c.check()
	if err != nil {
		return nil, err
	}
	if len(shared) == 0 {
		return nil, errors.New("rekeying an IKE SA needs a key exchange")
	}
	if len(k.material) == 0 {
		return nil, errZeroed
	}
	seed := k.prf.sum(k.d(), seedParts(shared, ni, nr)...)
	defer clear(seed)
	return derive(c, prf, seed, ni, nr, spiI, spiR), nil
}

// Intermediate computes the keys that follow an additional key exchange in IKE_INTERMEDIATE (RFC 9370, 2.2.2):
// SKEYSEED(n) = prf(SK_d(n-1), SK(n) | Ni | Nr). They protect the messages after that exchange; k remains usable for
// what belongs to the exchange itself.
func (k *Keys) Intermediate(shared, ni, nr []byte, spiI, spiR message.SPI) (*Keys, error) {
	if len(k.material) == 0 {
		return nil, errZeroed
	}
	seed := k.prf.sum(k.d(), shared, ni, nr)
	defer clear(seed)
	return derive(k.choice, k.prf, seed, ni, nr, spiI, spiR), nil
}

// ChildKeymat computes the keys of a child SA (RFC 7296, 2.17; RFC 9370, 2.2.4): prf+(SK_d, SK(0) | Ni | Nr | SK(1) …).
// Shared is empty for the child of IKE_AUTH and for a child without a key exchange. Initiator says whether this side
// began the exchange that made the child. In and out are, for each direction, the encryption key, then the salt or the
// integrity key. The caller wipes them.
func (k *Keys) ChildKeymat(c Choice, shared [][]byte, ni, nr []byte, initiator bool) (in, out []byte, err error) {
	n, err := c.childKeymatLen()
	if err != nil {
		return nil, nil, err
	}
	if len(k.material) == 0 {
		return nil, nil, errZeroed
	}
	keymat := make([]byte, 2*n)
	k.prf.plus(keymat, k.d(), seedParts(shared, ni, nr)...)
	// The keys of what the initiator sends come first.
	if initiator {
		return keymat[n:], keymat[:n:n], nil
	}
	return keymat[:n:n], keymat[n:], nil
}

// Zero wipes the keys. Whoever protects with them afterwards gets an error.
func (k *Keys) Zero() {
	clear(k.material)
	k.material = nil
	k.fromInitiator.zero()
	k.fromResponder.zero()
}

// Choice returns what the keys were made for.
func (k *Keys) Choice() Choice { return k.choice }

// Protector returns the protection of the messages that this side sends and of those that it receives. Initiator says
// whether this side is the original initiator of the IKE SA. The same two are returned each time.
func (k *Keys) Protector(initiator bool) (send, receive message.Protector) {
	if initiator {
		return &k.fromInitiator, &k.fromResponder
	}
	return &k.fromResponder, &k.fromInitiator
}

// PRF computes the IKE SA's pseudo-random function over the concatenation of parts.
func (k *Keys) PRF(key []byte, parts ...[]byte) []byte { return k.prf.sum(key, parts...) }

// SKp returns SK_pi or SK_pr, the key that identities and IKE_INTERMEDIATE messages are bound with. It is valid until
// Zero and not to be changed.
func (k *Keys) SKp(initiator bool) []byte {
	if len(k.material) == 0 {
		return nil
	}
	n := k.prf.size
	if initiator {
		return k.material[len(k.material)-2*n:][:n:n]
	}
	return k.material[len(k.material)-n:]
}

// IntAuth computes the next link of the chain that binds IKE_INTERMEDIATE messages of one direction into AUTH (RFC 9242,
// 3.3.2): prf(SK_p, previous link | octets), with the keys that protected the message. Previous is nil for the first.
// Octets are message.AppendIntermediate's.
func (k *Keys) IntAuth(initiator bool, previous, octets []byte) []byte {
	return k.prf.sum(k.SKp(initiator), previous, octets)
}

// AppendKeyLog appends a line of Wireshark's table of IKEv2 keys (ikev2_decryption_table). It gives everything away
// that the IKE SA protects, and is for a log that the operator asked for.
func (k *Keys) AppendKeyLog(b []byte, spiI, spiR message.SPI) []byte {
	c, ei, er, ai, ar := k.choice, k.fromInitiator.encr, k.fromResponder.encr, k.fromInitiator.integ, k.fromResponder.integ
	return fmt.Appendf(b, "%v,%v,%x,%x,%q,%x,%x,%q\n", spiI, spiR, ei, er, wiresharkEncr(c), ai, ar, wiresharkInteg(c))
}

func (k *Keys) d() []byte { return k.material[:k.prf.size] }

var errZeroed = errors.New("the keys of this IKE SA are wiped")

// seedParts is SK(0) | Ni | Nr | SK(1) | … (RFC 9370, 2.2.4); without a key exchange Ni | Nr.
func seedParts(shared [][]byte, ni, nr []byte) [][]byte {
	if len(shared) == 0 {
		return [][]byte{ni, nr}
	}
	return append([][]byte{shared[0], ni, nr}, shared[1:]...)
}

// derive expands SKEYSEED into the seven keys.
func derive(c Choice, prf *prfInfo, seed, ni, nr []byte, spiI, spiR message.SPI) *Keys {
	encr, integ := cipherOf(c.encryption()), integOf(c.Integ)
	encrLen, integLen := encr.keymat(), 0
	if integ != nil {
		integLen = integ.key
	}
	k := &Keys{choice: c, prf: prf, material: make([]byte, 3*prf.size+2*integLen+2*encrLen)}
	var spis [16]byte
	binary.BigEndian.PutUint64(spis[:], uint64(spiI))
	binary.BigEndian.PutUint64(spis[8:], uint64(spiR))
	prf.plus(k.material, seed, ni, nr, spis[:])

	rest := k.material[prf.size:]
	take := func(n int) (key []byte) {
		key, rest = rest[:n:n], rest[n:]
		return key
	}
	ai, ar := take(integLen), take(integLen)
	ei, er := take(encrLen), take(encrLen)
	k.fromInitiator = protector{cipher: encr, auth: integ, encr: ei, integ: ai}
	k.fromResponder = protector{cipher: encr, auth: integ, encr: er, integ: ar}
	return k
}

// check finds what the choice of an IKE SA names. Choices come from Select and Accept, so that an error here is a
// mistake of ours.
func (c Choice) check() (*prfInfo, error) {
	prf, encr := prfOf(c.PRF), cipherOf(c.encryption())
	if prf == nil || encr == nil || encr.espOnly != "" || encr.aead() != (c.Integ == message.AuthNone) || !encr.aead() && integOf(c.Integ) == nil {
		return nil, fmt.Errorf("%v is no choice for an IKE SA", c)
	}
	return prf, nil
}

func (c Choice) childKeymatLen() (int, error) {
	encr, integ := cipherOf(c.encryption()), integOf(c.Integ)
	switch {
	case encr == nil || encr.aead() != (c.Integ == message.AuthNone):
	case encr.aead():
		return encr.keymat(), nil
	case integ != nil:
		return encr.keymat() + integ.key, nil
	}
	return 0, fmt.Errorf("%v is no choice for ESP", c)
}

// Wireshark's names of what the key log can hold.
func wiresharkEncr(c Choice) string {
	switch c.Encr {
	case message.EncrAESGCM16:
		return fmt.Sprintf("AES-GCM-%d with 16 octet ICV [RFC5282]", c.KeyLen)
	case message.EncrChaCha20Poly1305:
		return "ChaCha20-Poly1305 [RFC7634]"
	}
	return fmt.Sprintf("AES-CBC-%d [RFC3602]", c.KeyLen)
}

func wiresharkInteg(c Choice) string {
	switch c.Integ {
	case message.AuthHMACSHA2256128:
		return "HMAC_SHA2_256_128 [RFC4868]"
	case message.AuthHMACSHA2384192:
		return "HMAC_SHA2_384_192 [RFC4868]"
	case message.AuthHMACSHA2512256:
		return "HMAC_SHA2_512_256 [RFC4868]"
	}
	return "NONE [RFC4306]"
}
