package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"

	"sallyport/ike/message"
)

// algorithm is a signature algorithm as a digital signature names it (RFC 7427, 3).
type algorithm struct {
	key  KeyType
	pss  bool
	hash message.HashAlgorithm
	salt int // PSS: bytes
}

// Sign makes our AUTH over the octets with the key of l. peer are the hashes of the
// peer's SIGNATURE_HASH_ALGORITHMS, nil if it sent none and so knows only the methods
// of RFC 7296 and RFC 4754.
func Sign(l *Local, peer []message.HashAlgorithm, octets []byte, rand io.Reader) (*message.Auth, error) {
	if l.Key == nil {
		return nil, errors.New("no private key is loaded for our certificate")
	}
	if err := checkKey(l.Key.Public(), l.Schemes); err != nil {
		return nil, err
	}
	if peer == nil {
		return signClassic(l, octets, rand)
	}
	a, err := chooseAlgorithm(l, peer)
	if err != nil {
		return nil, err
	}
	id := a.identifier()
	signature, err := sign(l.Key, a, octets, rand)
	if err != nil {
		return nil, err
	}
	data := append([]byte{byte(len(id))}, id...)
	return &message.Auth{Method: message.AuthDigitalSignature, Data: append(data, signature...)}, nil
}

// chooseAlgorithm takes the hash that fits the key's strength, else the best that both know.
func chooseAlgorithm(l *Local, peer []message.HashAlgorithm) (algorithm, error) {
	a := algorithm{key: keyType(l.Key.Public())}
	if a.key == Ed25519 {
		if !slices.Contains(peer, message.HashIdentity) { // RFC 8420, 2
			return a, fmt.Errorf("%w: our key is for Ed25519, which the peer does not announce", ErrAlgorithm)
		}
		a.hash = message.HashIdentity
		return a, nil
	}
	best := message.HashSHA2256
	if pub, ok := l.Key.Public().(*ecdsa.PublicKey); ok {
		best = curveHash(pub)
	}
	for _, h := range append([]message.HashAlgorithm{best}, signatureHashes...) {
		if slices.Contains(peer, h) && l.Schemes.allows(h) {
			a.hash = h
			a.pss = a.key == RSA && !l.Schemes.PKCS1 // RFC 8247, 3.2: PSS is the MUST
			a.salt = hashOf(h).Size()
			return a, nil
		}
	}
	return a, fmt.Errorf("%w: the peer announces no hash that we may use", ErrAlgorithm)
}

// curveHash is the hash that RFC 4754 and RFC 5656 pair with a curve.
func curveHash(pub *ecdsa.PublicKey) message.HashAlgorithm {
	switch pub.Curve.Params().BitSize {
	case 384:
		return message.HashSHA2384
	case 521:
		return message.HashSHA2512
	}
	return message.HashSHA2256
}

// signClassic signs by a method of its own number. RFC 8247, 3.1 forbids SHA-1, which
// old peers take for granted with RSA: they cannot be helped.
func signClassic(l *Local, octets []byte, rand io.Reader) (*message.Auth, error) {
	switch pub := l.Key.Public().(type) {
	case *rsa.PublicKey:
		a := algorithm{key: RSA, hash: message.HashSHA2256}
		if !l.Schemes.allows(a.hash) {
			a.hash = message.HashSHA2512
		}
		s, err := sign(l.Key, a, octets, rand)
		return &message.Auth{Method: message.AuthRSA, Data: s}, err
	case *ecdsa.PublicKey:
		der, err := sign(l.Key, algorithm{key: ECDSA, hash: curveHash(pub)}, octets, rand)
		if err != nil {
			return nil, err
		}
		size := (pub.Curve.Params().BitSize + 7) / 8
		var r, s big.Int
		input := cryptobyte.String(der)
		var seq cryptobyte.String
		if !input.ReadASN1(&seq, casn1.SEQUENCE) || !seq.ReadASN1Integer(&r) || !seq.ReadASN1Integer(&s) {
			return nil, errors.New("our key made a signature that is not one")
		}
		data := make([]byte, 2*size)
		r.FillBytes(data[:size])
		s.FillBytes(data[size:])
		return &message.Auth{Method: curveMethods[pub.Curve.Params().BitSize], Data: data}, nil
	}
	return nil, fmt.Errorf("%w: our key is for Ed25519, and the peer does not know RFC 7427", ErrAlgorithm)
}

var curveMethods = map[int]message.AuthMethod{256: message.AuthECDSA256, 384: message.AuthECDSA384, 521: message.AuthECDSA521}

func sign(key crypto.Signer, a algorithm, octets []byte, rand io.Reader) ([]byte, error) {
	digest, h := octets, crypto.Hash(0)
	if a.hash != message.HashIdentity {
		h = hashOf(a.hash)
		digest = sum(h, octets)
	}
	var o crypto.SignerOpts = h
	if a.pss {
		o = &rsa.PSSOptions{SaltLength: a.salt, Hash: h}
	}
	s, err := key.Sign(rand, digest, o)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return s, nil
}

func sum(h crypto.Hash, b []byte) []byte {
	w := h.New()
	w.Write(b)
	return w.Sum(nil)
}

// VerifySignature checks a peer's AUTH against the public key of its certificate, whose
// strength it checks too.
func VerifySignature(pub crypto.PublicKey, auth *message.Auth, octets []byte, c Schemes) error {
	if err := checkKey(pub, c); err != nil {
		return err
	}
	switch auth.Method {
	case message.AuthRSA:
		key, ok := pub.(*rsa.PublicKey)
		if !ok || c.PSS {
			return fmt.Errorf("%w: %v with a key for %v", ErrAlgorithm, auth.Method, keyType(pub))
		}
		// The hash stands inside of the signature (RFC 7296, 3.8), so each that is allowed
		// is tried; the signature binds it.
		for _, h := range signatureHashes {
			if c.allows(h) && rsa.VerifyPKCS1v15(key, hashOf(h), sum(hashOf(h), octets), auth.Data) == nil {
				return nil
			}
		}
		return fmt.Errorf("%w: the RSA signature does not verify, or uses SHA-1", ErrProof)
	case message.AuthECDSA256, message.AuthECDSA384, message.AuthECDSA521:
		return verifyRaw(pub, auth, octets, c)
	case message.AuthDigitalSignature:
		return verifyDigital(pub, auth.Data, octets, c)
	}
	return fmt.Errorf("%w: the peer proves itself by %v, a certificate is configured", ErrMethod, auth.Method)
}

// verifyRaw is RFC 4754: r and s side by side, each as long as the curve's order, and
// the method names curve and hash.
func verifyRaw(pub crypto.PublicKey, auth *message.Auth, octets []byte, c Schemes) error {
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok || curveMethods[key.Curve.Params().BitSize] != auth.Method || !c.allows(curveHash(key)) {
		return fmt.Errorf("%w: %v with a key for %v, or another curve", ErrAlgorithm, auth.Method, keyType(pub))
	}
	size := (key.Curve.Params().BitSize + 7) / 8
	if len(auth.Data) != 2*size {
		return fmt.Errorf("%w: %v with a signature of %d bytes", ErrProof, auth.Method, len(auth.Data))
	}
	var r, s big.Int
	r.SetBytes(auth.Data[:size])
	s.SetBytes(auth.Data[size:])
	var b cryptobyte.Builder
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1BigInt(&r); b.AddASN1BigInt(&s) })
	der, err := b.Bytes()
	if err != nil || !ecdsa.VerifyASN1(key, sum(hashOf(curveHash(key)), octets), der) {
		return fmt.Errorf("%w: the ECDSA signature does not verify", ErrProof)
	}
	return nil
}

func verifyDigital(pub crypto.PublicKey, data, octets []byte, c Schemes) error {
	if len(data) < 1 || len(data) < 1+int(data[0]) {
		return fmt.Errorf("%w: a digital signature that is cut short", ErrProof)
	}
	id, signature := data[1:1+int(data[0])], data[1+int(data[0]):]
	a, err := parseAlgorithm(id)
	if err != nil {
		return err
	}
	if a.key != keyType(pub) {
		return fmt.Errorf("%w: a signature of %v with a key for %v", ErrAlgorithm, a.key, keyType(pub))
	}
	if a.hash != message.HashIdentity && !c.allows(a.hash) || c.PSS && a.key == RSA && !a.pss {
		return fmt.Errorf("%w: not one of those configured", ErrAlgorithm)
	}
	var ok bool
	switch key := pub.(type) {
	case *rsa.PublicKey:
		h := hashOf(a.hash)
		if a.pss {
			ok = rsa.VerifyPSS(key, h, sum(h, octets), signature, &rsa.PSSOptions{SaltLength: a.salt, Hash: h}) == nil
		} else {
			ok = rsa.VerifyPKCS1v15(key, h, sum(h, octets), signature) == nil
		}
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(key, sum(hashOf(a.hash), octets), signature)
	case ed25519.PublicKey:
		ok = ed25519.Verify(key, octets, signature)
	}
	if !ok {
		return fmt.Errorf("%w: the %v signature does not verify", ErrProof, a.key)
	}
	return nil
}

// Object identifiers of RFC 7427, appendix A, and RFC 8420, as DER content.
var (
	oidPSS     = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a"
	oidMGF1    = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08"
	oidEd25519 = "\x2b\x65\x70"

	oidHashes = map[string]message.HashAlgorithm{
		"\x60\x86\x48\x01\x65\x03\x04\x02\x01": message.HashSHA2256,
		"\x60\x86\x48\x01\x65\x03\x04\x02\x02": message.HashSHA2384,
		"\x60\x86\x48\x01\x65\x03\x04\x02\x03": message.HashSHA2512,
	}
	oidSignatures = map[string]algorithm{
		"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b": {key: RSA, hash: message.HashSHA2256},
		"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c": {key: RSA, hash: message.HashSHA2384},
		"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d": {key: RSA, hash: message.HashSHA2512},
		"\x2a\x86\x48\xce\x3d\x04\x03\x02":     {key: ECDSA, hash: message.HashSHA2256},
		"\x2a\x86\x48\xce\x3d\x04\x03\x03":     {key: ECDSA, hash: message.HashSHA2384},
		"\x2a\x86\x48\xce\x3d\x04\x03\x04":     {key: ECDSA, hash: message.HashSHA2512},
		oidEd25519:                             {key: Ed25519, hash: message.HashIdentity},
	}
)

// identifier is the AlgorithmIdentifier's DER.
func (a algorithm) identifier() []byte {
	var b cryptobyte.Builder
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
		if a.pss {
			addOID(b, oidPSS)
			addPSS(b, a)
			return
		}
		for oid, of := range oidSignatures {
			if of.key == a.key && of.hash == a.hash {
				addOID(b, oid)
			}
		}
		if a.key == RSA { // RFC 7427, A.1: the parameters are NULL with RSA, absent else
			addNull(b)
		}
	})
	return b.BytesOrPanic()
}

func addOID(b *cryptobyte.Builder, content string) {
	b.AddASN1(casn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes([]byte(content)) })
}

func addNull(b *cryptobyte.Builder) { b.AddASN1(casn1.NULL, func(*cryptobyte.Builder) {}) }

// addPSS adds RSASSA-PSS-params (RFC 4055, 3.1) with all that is not SHA-1's default.
func addPSS(b *cryptobyte.Builder, a algorithm) {
	hash := func(b *cryptobyte.Builder) {
		b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for oid, h := range oidHashes {
				if h == a.hash {
					addOID(b, oid)
				}
			}
			addNull(b)
		})
	}
	explicit := func(n uint8) casn1.Tag { return casn1.Tag(n).Constructed().ContextSpecific() }
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(explicit(0), hash)
		b.AddASN1(explicit(1), func(b *cryptobyte.Builder) {
			b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) { addOID(b, oidMGF1); hash(b) })
		})
		b.AddASN1(explicit(2), func(b *cryptobyte.Builder) { b.AddASN1Int64(int64(a.salt)) })
	})
}

// parseAlgorithm reads an AlgorithmIdentifier strictly: nothing missing, nothing behind.
func parseAlgorithm(der []byte) (algorithm, error) {
	bad := func(what string) (algorithm, error) {
		return algorithm{}, fmt.Errorf("%w: %s", ErrAlgorithm, what)
	}
	input := cryptobyte.String(der)
	var seq, oid cryptobyte.String
	if !input.ReadASN1(&seq, casn1.SEQUENCE) || !input.Empty() || !seq.ReadASN1(&oid, casn1.OBJECT_IDENTIFIER) {
		return bad("an algorithm identifier that is not DER")
	}
	if string(oid) == oidPSS {
		return parsePSS(seq)
	}
	a, ok := oidSignatures[string(oid)]
	if !ok {
		return bad(fmt.Sprintf("signature algorithm %v", decodeOID(string(oid))))
	}
	if a.key == RSA && !readNull(&seq) {
		return bad("an RSA algorithm identifier without its NULL")
	}
	if !seq.Empty() {
		return bad("an algorithm identifier with parameters that it does not have")
	}
	return a, nil
}

func readNull(s *cryptobyte.String) bool {
	var null cryptobyte.String
	return s.ReadASN1(&null, casn1.NULL) && null.Empty()
}

// parsePSS reads RSASSA-PSS-params. Every default is SHA-1's, so hash, mask and salt
// must all be named; the mask's hash must be the message's (RFC 8247, 3.2).
func parsePSS(s cryptobyte.String) (algorithm, error) {
	bad := fmt.Errorf("%w: RSASSA-PSS with parameters that are malformed, SHA-1's defaults, or of two hashes", ErrAlgorithm)
	a := algorithm{key: RSA, pss: true}
	explicit := func(n uint8) casn1.Tag { return casn1.Tag(n).Constructed().ContextSpecific() }
	var params, field, mask, oid cryptobyte.String
	if !s.ReadASN1(&params, casn1.SEQUENCE) || !s.Empty() {
		return a, bad
	}
	if !params.ReadASN1(&field, explicit(0)) {
		return a, bad
	}
	var ok bool
	if a.hash, ok = readHash(&field); !ok || !field.Empty() {
		return a, bad
	}
	if !params.ReadASN1(&field, explicit(1)) || !field.ReadASN1(&mask, casn1.SEQUENCE) || !field.Empty() ||
		!mask.ReadASN1(&oid, casn1.OBJECT_IDENTIFIER) || string(oid) != oidMGF1 {
		return a, bad
	}
	if h, ok := readHash(&mask); !ok || h != a.hash || !mask.Empty() {
		return a, bad
	}
	if !params.ReadASN1(&field, explicit(2)) || !field.ReadASN1Integer(&a.salt) || !field.Empty() || a.salt < 0 || a.salt > RSABitsMax/8 {
		return a, bad
	}
	if a.salt == 0 {
		return a, fmt.Errorf("%w: RSASSA-PSS without salt", ErrAlgorithm)
	}
	if !params.Empty() { // trailerField, whose one value is 1
		var trailer int
		if !params.ReadASN1(&field, explicit(3)) || !field.ReadASN1Integer(&trailer) || trailer != 1 || !field.Empty() || !params.Empty() {
			return a, bad
		}
	}
	return a, nil
}

// readHash reads a hash's AlgorithmIdentifier, whose NULL may be absent (RFC 4055, 2.1).
func readHash(s *cryptobyte.String) (message.HashAlgorithm, bool) {
	var seq, oid cryptobyte.String
	if !s.ReadASN1(&seq, casn1.SEQUENCE) || !seq.ReadASN1(&oid, casn1.OBJECT_IDENTIFIER) {
		return 0, false
	}
	h, ok := oidHashes[string(oid)]
	if !seq.Empty() && !readNull(&seq) || !seq.Empty() {
		return 0, false
	}
	return h, ok
}
