package auth

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"

	"sallyport/ike/message"
)

// Local is what we prove towards a peer. Read-only and shared; make one with NewLocal.
type Local struct {
	ID           Identity // zero: our address
	Method       Method
	Certificates []*x509.Certificate // ours first, then its issuers; the root is not sent
	Key          crypto.Signer       // of the first certificate
	Schemes      Schemes
}

// Remote is what a peer must prove. Read-only and shared.
type Remote struct {
	ID      Pattern
	Method  Method
	Schemes Schemes
	// CACerts are the authorities that may stand above the peer's certificate; empty
	// means all of the Store.
	CACerts []*x509.Certificate
	// Certs, if any, are the only certificates that the peer may have. They are trusted
	// for being configured.
	Certs      []*x509.Certificate
	Revocation Revocation
}

// NewLocal checks that identity, certificates and key belong together. certs begins with
// our own; without an identity it is that certificate's subject. now is the wall clock's:
// an expired certificate is no error here, since Expiring warns of it.
func NewLocal(id Identity, m Method, schemes Schemes, certs []*x509.Certificate, key crypto.Signer) (*Local, error) {
	l := &Local{ID: id, Method: m, Schemes: schemes}
	if m == PSK {
		if len(certs) > 0 {
			return nil, errors.New("certificates make no sense with auth: psk")
		}
		return l, nil
	}
	if len(certs) == 0 {
		return nil, errors.New("auth: pubkey needs a certificate in certs")
	}
	leaf := certs[0]
	switch {
	case key == nil:
		return nil, fmt.Errorf("no private key is loaded for the certificate of %s", SubjectOf(leaf))
	case !samePublic(leaf.PublicKey, key.Public()):
		return nil, fmt.Errorf("the private key is not that of the certificate of %s", SubjectOf(leaf))
	}
	if err := checkKey(leaf.PublicKey, schemes); err != nil {
		return nil, err
	}
	if err := checkUsage(leaf); err != nil {
		return nil, err
	}
	subject := SubjectOf(leaf)
	switch {
	case id.IsZero():
		if len(leaf.Subject.Names) == 0 {
			return nil, errors.New("the certificate has no subject: configure an id that it names")
		}
		l.ID = subject
	case id.Equal(subject):
		l.ID = subject // byte for byte as certified: some peers compare like that
	case certifies(leaf, id) != nil:
		return nil, certifies(leaf, id)
	}
	l.Certificates, l.Key = certs, key
	return l, nil
}

// SubjectOf is the certificate's distinguished name as an identity.
func SubjectOf(c *x509.Certificate) Identity {
	return Identity{message.IDDERASN1DN, string(c.RawSubject)}
}

// Payloads are the CERT payloads to send: ours and its issuers but for the root, which a
// peer that trusts it has.
func (l *Local) Payloads() []message.Payload {
	var all []message.Payload
	for i, c := range l.Certificates {
		if i > 0 && bytes.Equal(c.RawIssuer, c.RawSubject) {
			continue
		}
		all = append(all, &message.Cert{Encoding: message.CertX509Signature, Data: c.Raw})
	}
	return all
}
