package auth

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sallyport/ike/message"
)

// Limits on what a peer may send of certificates.
const (
	certsMax = 10 // CERT payloads that are looked at
	chainMax = 8  // certificates from the peer's to the trusted one
)

// Chain is a peer's certificate with its issuers up to a trusted one, verified but for
// revocation.
type Chain struct {
	Certificates []*x509.Certificate // the peer's first, the trusted one last
	Revocation   Revocation
	issuers      []*Authority // of each certificate's issuer, where one is configured; may be nil
	crls         []*x509.RevocationList
}

// Leaf is the peer's certificate.
func (c *Chain) Leaf() *x509.Certificate { return c.Certificates[0] }

// NotAfter is when the first of the certificates ends, by the wall clock. That of an authority which is trusted for being configured counts
// like the others: the chain is not believed after its end.
func (c *Chain) NotAfter() time.Time {
	return slices.MinFunc(c.Certificates, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) }).NotAfter
}

// Chain finds the peer's certificate in what it sent (or, if it sent none, among those
// that are configured for it), builds a chain to an authority that r allows, and binds it
// to the identity: after that only the signature and revocation are open. It uses no
// network, and now is the wall clock's.
func (s *Store) Chain(r *Remote, id Identity, sent []*message.Cert, now time.Time) (*Chain, error) {
	if s == nil {
		s = new(Store)
	}
	if !r.ID.Matches(id) {
		return nil, fmt.Errorf("%w: the peer is %v, configured is %v", ErrIdentity, id, r.ID)
	}
	certs, err := parseSent(sent)
	if err != nil {
		return nil, err
	}
	if len(certs) == 0 {
		if certs = s.known(r, id); len(certs) == 0 {
			return nil, fmt.Errorf("%w: the peer sent none, and none is configured for %v", ErrCertificate, id)
		}
	}
	leaf := certs[0]
	if err := checkLeaf(leaf, r, now); err != nil {
		return nil, err
	}
	pinned := slices.ContainsFunc(r.Certs, leaf.Equal)
	if len(r.Certs) > 0 && !pinned {
		return nil, fmt.Errorf("%w: %v is none of the configured certificates", ErrUntrusted, SubjectOf(leaf))
	}
	if err := certifies(leaf, id); err != nil {
		// A certificate that is configured together with one identity is bound to it.
		if _, exact := r.ID.Exact(); !pinned || !exact {
			return nil, err
		}
	}
	if pinned && len(r.CACerts) == 0 {
		return &Chain{Certificates: []*x509.Certificate{leaf}, Revocation: r.Revocation, issuers: []*Authority{nil}}, nil
	}
	return s.build(leaf, certs[1:], r, now)
}

// parseSent parses the certificates of a message; the first is the peer's (RFC 7296, 3.6).
func parseSent(sent []*message.Cert) ([]*x509.Certificate, error) {
	if len(sent) > certsMax {
		return nil, fmt.Errorf("%w: %d certificates sent, %d are accepted", ErrCertificate, len(sent), certsMax)
	}
	var certs []*x509.Certificate
	for _, p := range sent {
		switch p.Encoding {
		case message.CertX509Signature:
			c, err := x509.ParseCertificate(p.Data)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrCertificate, err)
			}
			certs = append(certs, c)
		case message.CertHashURL, message.CertHashURLBundle:
			// We never announce HTTP_CERT_LOOKUP_SUPPORTED: fetching what an
			// unauthenticated peer names would make us its tool.
			return nil, fmt.Errorf("%w: hash-and-URL certificates are refused", ErrCertificate)
		case message.CertCRL, message.CertOCSPContent: // we look for ourselves
		default:
			return nil, fmt.Errorf("%w: certificate encoding %d is not supported", ErrCertificate, p.Encoding)
		}
	}
	return certs, nil
}

// known finds the peer's certificate among the configured ones.
func (s *Store) known(r *Remote, id Identity) []*x509.Certificate {
	_, exact := r.ID.Exact()
	if exact && len(r.Certs) == 1 {
		return r.Certs
	}
	for _, c := range slices.Concat(r.Certs, s.material.Certificates) {
		if certifies(c, id) == nil {
			return []*x509.Certificate{c}
		}
	}
	return nil
}

// checkLeaf checks the peer's certificate by itself.
func checkLeaf(c *x509.Certificate, r *Remote, now time.Time) error {
	if err := checkTime(c, now); err != nil {
		return err
	}
	if err := checkKey(c.PublicKey, r.Schemes); err != nil {
		return err
	}
	if c.BasicConstraintsValid && c.IsCA && !slices.ContainsFunc(r.Certs, c.Equal) {
		return fmt.Errorf("%w: %v is an authority, not a peer", ErrCertificate, SubjectOf(c))
	}
	return checkUsage(c)
}

func checkTime(c *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(c.NotBefore):
		return fmt.Errorf("%w: %v begins on %s", ErrExpired, SubjectOf(c), c.NotBefore.UTC().Format(time.RFC3339))
	case now.After(c.NotAfter):
		return fmt.Errorf("%w: %v ended on %s", ErrExpired, SubjectOf(c), c.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// oidIKE is id-kp-ipsecIKE (RFC 4945, 5.1.3.12).
var oidIKE = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 17}

// checkUsage says whether the certificate may authenticate an end of IKE: keyUsage, if
// present, has digitalSignature or nonRepudiation (RFC 4945, 5.1.3.2); extKeyUsage, if
// present, has one of IKE, any, or, as is common practice, TLS server or client.
func checkUsage(c *x509.Certificate) error {
	if c.KeyUsage != 0 && c.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0 {
		return fmt.Errorf("%w: %v may not sign (keyUsage)", ErrCertificate, SubjectOf(c))
	}
	if len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0 {
		return nil
	}
	for _, u := range c.ExtKeyUsage {
		switch u {
		case x509.ExtKeyUsageAny, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth:
			return nil
		}
	}
	if slices.ContainsFunc(c.UnknownExtKeyUsage, oidIKE.Equal) {
		return nil
	}
	return fmt.Errorf("%w: %v is not for IKE (extKeyUsage)", ErrCertificate, SubjectOf(c))
}

// certifies says whether the certificate names the identity: an alternative name of the
// identity's type that is equal, or the whole subject (RFC 4945, 3). A common name is no
// host's name, and a name with a wildcard names nobody (RFC 4945, 5.1.3.6).
func certifies(c *x509.Certificate, id Identity) error {
	ok := false
	switch id.Type {
	case message.IDFQDN:
		ok = slices.ContainsFunc(c.DNSNames, func(n string) bool { return Identity{id.Type, n}.Equal(id) })
	case message.IDRFC822Addr:
		ok = slices.ContainsFunc(c.EmailAddresses, func(n string) bool { return Identity{id.Type, n}.Equal(id) })
	case message.IDIPv4Addr, message.IDIPv6Addr:
		for _, ip := range c.IPAddresses {
			if a, valid := netip.AddrFromSlice(ip); valid && AddressIdentity(a) == id {
				ok = true
			}
		}
	case message.IDDERASN1DN:
		ok = len(c.Subject.Names) > 0 && SubjectOf(c).Equal(id)
	}
	if !ok {
		return fmt.Errorf("%w: the certificate of %v does not name %v (%v)", ErrIdentity, SubjectOf(c), id, id.Type)
	}
	return nil
}

// build finds chains with the standard library, which checks signatures, times, basic and
// name constraints, path lengths and critical extensions, and takes the first in which
// every key is strong.
func (s *Store) build(leaf *x509.Certificate, rest []*x509.Certificate, r *Remote, now time.Time) (*Chain, error) {
	trusted := s.trusted(r)
	if len(trusted) == 0 {
		return nil, fmt.Errorf("%w: no authority is configured", ErrUntrusted)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, a := range trusted {
		roots.AddCert(a.Certificate)
	}
	for _, c := range slices.Concat(rest, s.material.Certificates) {
		between.AddCert(c)
	}
	// Which usages an issuer may grant is none of IKE's business: checkUsage has seen the
	// peer's certificate.
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		var invalid x509.CertificateInvalidError
		if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
			return nil, fmt.Errorf("%w: %v, or one of its issuers: %w", ErrExpired, SubjectOf(leaf), err)
		}
		return nil, fmt.Errorf("%w: %v, issued by %v: %w", ErrUntrusted, SubjectOf(leaf), Identity{message.IDDERASN1DN, string(leaf.RawIssuer)}, err)
	}
	var weak error
	for _, certs := range chains {
		if weak = checkChain(certs, trusted); weak == nil {
			return s.describe(certs, r), nil
		}
	}
	return nil, weak
}

// checkChain checks what the standard library does not: the strength of the issuers' keys,
// and that a root that is an authority of its own right is one.
func checkChain(certs []*x509.Certificate, trusted []*Authority) error {
	if len(certs) > chainMax {
		return fmt.Errorf("%w: a chain of %d certificates", ErrUntrusted, len(certs))
	}
	for _, c := range certs[1:] {
		if err := checkAuthority(c); err != nil {
			return err
		}
	}
	if len(certs) == 1 && !slices.ContainsFunc(trusted, func(a *Authority) bool { return a.Certificate.Equal(certs[0]) }) {
		return ErrUntrusted
	}
	return nil
}

// describe adds to a chain where to ask about its certificates.
func (s *Store) describe(certs []*x509.Certificate, r *Remote) *Chain {
	c := &Chain{Certificates: certs, Revocation: r.Revocation, issuers: make([]*Authority, len(certs))}
	for i := range certs[:len(certs)-1] {
		issuer := certs[i+1]
		at := slices.IndexFunc(s.authorities, func(a *Authority) bool { return a.Certificate.Equal(issuer) })
		if at >= 0 {
			c.issuers[i] = s.authorities[at]
		}
		for _, crl := range s.material.CRLs {
			if bytes.Equal(crl.RawIssuer, issuer.RawSubject) {
				c.crls = append(c.crls, crl)
			}
		}
	}
	return c
}
