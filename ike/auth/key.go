package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// ParseKey reads a private key: PEM or DER, PKCS#8, PKCS#1 ("RSA PRIVATE KEY") or SEC1
// ("EC PRIVATE KEY"). An encrypted one is ErrEncryptedKey, a weak one ErrKey. Errors
// never quote any of it.
func ParseKey(b []byte) (crypto.Signer, error) {
	der, kind := b, ""
	if bytes.Contains(b, []byte("-----BEGIN")) {
		block := privateBlock(b)
		if block == nil {
			return nil, errors.New("the file holds no private key in PEM")
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return nil, ErrEncryptedKey
		}
		der, kind = block.Bytes, block.Type
	}
	var key any
	var err error
	switch kind {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(der)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(der)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(der)
	case "OPENSSH PRIVATE KEY":
		return nil, errors.New("an OpenSSH private key: convert it (ssh-keygen -p -m PEM)")
	case "":
		key, err = parseKeyDER(der)
	default:
		return nil, fmt.Errorf("a %s is not supported", strings.ToLower(kind))
	}
	if err != nil {
		return nil, fmt.Errorf("parsing the private key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: a %T cannot sign", ErrKey, key)
	}
	if err := checkKey(signer.Public(), Schemes{}); err != nil {
		return nil, err
	}
	return signer, nil
}

// privateBlock finds the key among what else a PEM file holds: EC PARAMETERS, certificates.
func privateBlock(b []byte) *pem.Block {
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			return nil
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return block
		}
	}
}

func parseKeyDER(der []byte) (any, error) {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	return nil, errors.New("it is neither PEM nor PKCS#8, PKCS#1 or SEC1 in DER")
}

// ParseCertificates reads all certificates of a PEM file in their order, or one in DER.
func ParseCertificates(b []byte) ([]*x509.Certificate, error) {
	if !bytes.Contains(b, []byte("-----BEGIN")) {
		c, err := x509.ParseCertificate(b)
		if err != nil {
			return nil, fmt.Errorf("parsing the certificate: %w", err)
		}
		return []*x509.Certificate{c}, nil
	}
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parsing certificate %d: %w", len(all)+1, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("the file holds no certificate")
	}
	return all, nil
}

// keyType is the kind of a public key, 0 for one that cannot sign here.
func keyType(pub crypto.PublicKey) KeyType {
	switch pub.(type) {
	case *rsa.PublicKey:
		return RSA
	case *ecdsa.PublicKey:
		return ECDSA
	case ed25519.PublicKey:
		return Ed25519
	}
	return 0
}

// checkKey refuses public keys that are weak, or not of the configured kinds.
func checkKey(pub crypto.PublicKey, c Schemes) error {
	t := keyType(pub)
	if t == 0 {
		return fmt.Errorf("%w: only RSA, ECDSA and Ed25519 keys are supported", ErrKey)
	}
	if c.Keys != 0 && c.Keys&t == 0 {
		return fmt.Errorf("%w: it is a key for %v", ErrKey, t)
	}
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		bits := pub.N.BitLen()
		if least := max(RSABitsMin, c.RSABits); bits < least || bits > RSABitsMax {
			return fmt.Errorf("%w: an RSA key of %d bits, %d to %d are accepted", ErrKey, bits, least, RSABitsMax)
		}
		if pub.E < RSAExponentMin || pub.E%2 == 0 {
			return fmt.Errorf("%w: an RSA key with the exponent %d", ErrKey, pub.E)
		}
	case *ecdsa.PublicKey:
		switch pub.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
		default:
			return fmt.Errorf("%w: an ECDSA key on the curve %s", ErrKey, pub.Curve.Params().Name)
		}
		if bits := pub.Curve.Params().BitSize; bits < c.ECDSABits {
			return fmt.Errorf("%w: an ECDSA key on P-%d, at least P-%d is configured", ErrKey, bits, c.ECDSABits)
		}
	}
	return nil
}

// samePublic says whether two public keys are one.
func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
