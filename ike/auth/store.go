package auth

import (
	"bytes"
	"crypto"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"sallyport/ike/message"
)

// Secret is a pre-shared key with the identities that it is for: those of the peer, or
// of both ends. Without any it is for everybody.
type Secret struct {
	Name   string
	IDs    []Pattern
	Secret []byte
}

func (s Secret) String() string { return "secret " + s.Name }

// GoString keeps the secret out of %#v.
func (s Secret) GoString() string { return s.String() }

// Authority is a certificate authority that we trust, with where to ask about its
// certificates beside what they say themselves.
type Authority struct {
	Name        string
	Certificate *x509.Certificate
	CRLs, OCSP  []string // http URIs
}

// Material is what a Store is made of, as loaded from files.
type Material struct {
	Secrets      []Secret
	Authorities  []Authority
	Certificates []*x509.Certificate // ours and intermediates: may complete a chain, are not trusted for that
	Keys         []crypto.Signer
	CRLs         []*x509.RevocationList
}

// Store is an immutable snapshot of secrets, keys and trust. Whatever changes on disk,
// a renewed certificate as well, gets in by making another one. The zero Store, and nil, has
// nothing.
type Store struct {
	exact       map[Identity][]*Secret // by canonical identity of either end
	wild        []*Secret              // with patterns among their identities, or without any
	authorities []*Authority
	material    Material
}

// NewStore checks and indexes what was loaded.
func NewStore(m Material) (*Store, error) {
	s := &Store{material: m, exact: make(map[Identity][]*Secret)}
	for i := range m.Secrets {
		secret := &m.Secrets[i]
		if len(secret.Secret) == 0 {
			return nil, fmt.Errorf("secret %s is empty", secret.Name)
		}
		wild := len(secret.IDs) == 0
		for _, p := range secret.IDs {
			if p.kind == exactIdentity {
				s.exact[p.id] = append(s.exact[p.id], secret)
			} else {
				wild = true
			}
		}
		if wild {
			s.wild = append(s.wild, secret)
		}
	}
	for i := range m.Authorities {
		a := &m.Authorities[i]
		if err := checkAuthority(a.Certificate); err != nil {
			return nil, fmt.Errorf("authority %s: %w", a.Name, err)
		}
		for _, uri := range slices.Concat(a.CRLs, a.OCSP) {
			if _, err := httpURI(uri); err != nil {
				return nil, fmt.Errorf("authority %s: %w", a.Name, err)
			}
		}
		s.authorities = append(s.authorities, a)
	}
	for _, key := range m.Keys {
		if err := checkKey(key.Public(), Schemes{}); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// CheckAuthority says whether a certificate can be one of an authority.
func checkAuthority(c *x509.Certificate) error {
	switch {
	case c == nil:
		return errors.New("there is no certificate")
	case !c.BasicConstraintsValid || !c.IsCA:
		return fmt.Errorf("%w: %s is no authority (basicConstraints)", ErrCertificate, SubjectOf(c))
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return fmt.Errorf("%w: %s may not sign certificates (keyUsage)", ErrCertificate, SubjectOf(c))
	}
	return checkKey(c.PublicKey, Schemes{})
}

// PSK returns the secret for a pair of identities: of all that fit, the one that names
// the peer most narrowly, then us; the first configured of equals. ErrNoSecret if none.
//
// A secret fits if one of its identities is the peer's. One that names only us is for any
// peer; one that names us and somebody else is not: otherwise whoever shares a secret
// with us could pass for any third.
func (s *Store) PSK(local, remote Identity) ([]byte, error) {
	if s == nil {
		return nil, ErrNoSecret
	}
	var best *Secret
	bestRemote, bestLocal := -1, -1
	try := func(secret *Secret) {
		r, l := secret.fit(local, remote)
		if r < 0 {
			return
		}
		if r > bestRemote || r == bestRemote && l > bestLocal {
			best, bestRemote, bestLocal = secret, r, l
		}
	}
	for _, secret := range s.exact[remote.Canonical()] {
		try(secret)
	}
	if bestRemote < 1<<16 {
		for _, secret := range s.exact[local.Canonical()] {
			try(secret)
		}
		for _, secret := range s.wild {
			try(secret)
		}
	}
	if best == nil {
		return nil, fmt.Errorf("%w: %v and %v", ErrNoSecret, local, remote)
	}
	return best.Secret, nil
}

// fit says how narrowly the secret names the peer and us; -1 if it is not for the pair.
func (s *Secret) fit(local, remote Identity) (r, l int) {
	r, l = -1, -1
	others := false // it names somebody who is not us
	for _, p := range s.IDs {
		us := p.Matches(local)
		if us {
			l = max(l, p.Specificity())
		} else {
			others = true
		}
		if p.Matches(remote) {
			r = max(r, p.Specificity())
		}
	}
	switch {
	case r >= 0:
	case len(s.IDs) == 0 || !others:
		r = 0
	}
	return r, l
}

// Key returns the private key of a certificate; nil if it was not loaded.
func (s *Store) Key(c *x509.Certificate) crypto.Signer {
	if s == nil {
		return nil
	}
	for _, key := range s.material.Keys {
		if samePublic(c.PublicKey, key.Public()) {
			return key
		}
	}
	return nil
}

// Complete appends to our own certificate, and whatever stands behind it, the issuers
// that the Store has, up to a trusted one, so that peers need not have them.
func (s *Store) Complete(certs []*x509.Certificate) []*x509.Certificate {
	if s == nil || len(certs) == 0 {
		return certs
	}
	certs = slices.Clone(certs)
	for len(certs) < chainMax {
		last := certs[len(certs)-1]
		if bytes.Equal(last.RawIssuer, last.RawSubject) {
			break
		}
		i := slices.IndexFunc(s.material.Certificates, func(c *x509.Certificate) bool {
			return bytes.Equal(c.RawSubject, last.RawIssuer) && last.CheckSignatureFrom(c) == nil
		})
		if i < 0 || slices.Contains(certs, s.material.Certificates[i]) {
			break
		}
		certs = append(certs, s.material.Certificates[i])
	}
	return certs
}

// requestsMax bounds the authorities that a CERTREQ names.
const requestsMax = 100

// CertReqs asks a peer for a certificate below an authority that it may use (RFC 7296,
// 3.7); nothing if its certificate is configured or no authority is known.
func (s *Store) CertReqs(r *Remote) []message.Payload {
	if r.Method != PublicKey || s == nil {
		return nil
	}
	var hashes []byte
	for _, a := range s.trusted(r) {
		hash := authorityHash(a.Certificate)
		if len(hashes) < requestsMax*len(hash) {
			hashes = append(hashes, hash[:]...)
		}
	}
	if len(hashes) == 0 {
		return nil
	}
	return []message.Payload{&message.CertReq{Encoding: message.CertX509Signature, Authorities: hashes}}
}

// authorityHash names an authority in CERTREQ. SHA-1 is the format's; nothing rests on it.
func authorityHash(c *x509.Certificate) [message.AuthorityHashBytes]byte {
	return sha1.Sum(c.RawSubjectPublicKeyInfo)
}

// trusted are the authorities above the peer's certificate.
func (s *Store) trusted(r *Remote) []*Authority {
	if len(r.CACerts) == 0 {
		return s.authorities
	}
	var all []*Authority
	for _, c := range r.CACerts {
		i := slices.IndexFunc(s.authorities, func(a *Authority) bool { return a.Certificate.Equal(c) })
		if i >= 0 {
			all = append(all, s.authorities[i])
		} else {
			all = append(all, &Authority{Certificate: c})
		}
	}
	return all
}

// ahead says how long something lies ahead in the unit that suits it.
func ahead(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	}
	return fmt.Sprintf("%d minutes", d/time.Minute)
}

// Warning is about a certificate that is, or will soon be, outside of its time.
type Warning struct {
	What string    // "ours", "authority NAME" or "intermediate"
	ID   Identity  // the subject
	At   time.Time // when it ends, or, if that lies ahead, begins
	Text string    // one sentence
}

// Expiring lists the certificates of the Store that are not valid now or will not be
// after the given time.
func (s *Store) Expiring(now time.Time, within time.Duration) []Warning {
	if s == nil {
		return nil
	}
	var all []Warning
	add := func(what string, c *x509.Certificate) {
		w := Warning{What: what, ID: SubjectOf(c), At: c.NotAfter}
		day := c.NotAfter.UTC().Format(time.DateOnly)
		switch {
		case now.Before(c.NotBefore):
			w.At = c.NotBefore
			w.Text = fmt.Sprintf("the certificate of %v (%s) is not valid before %s", w.ID, what, c.NotBefore.UTC().Format(time.RFC3339))
		case now.After(c.NotAfter):
			w.Text = fmt.Sprintf("the certificate of %v (%s) has expired on %s", w.ID, what, day)
		case c.NotAfter.Sub(now) <= within:
			w.Text = fmt.Sprintf("the certificate of %v (%s) expires on %s, in %s", w.ID, what, day, ahead(c.NotAfter.Sub(now)))
		default:
			return
		}
		all = append(all, w)
	}
	for _, c := range s.material.Certificates {
		if s.Key(c) != nil {
			add("ours", c)
		} else {
			add("intermediate", c)
		}
	}
	for _, a := range s.authorities {
		add("authority "+a.Name, a.Certificate)
	}
	slices.SortStableFunc(all, func(a, b Warning) int { return a.At.Compare(b.At) })
	return all
}
