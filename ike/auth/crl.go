package auth

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// serial is a certificate's number; RFC 5280, 4.1.2.2 allows 20 bytes.
type serial [20]byte

func serialOf(n *big.Int) (s serial, ok bool) {
	if n == nil || n.Sign() < 0 || n.BitLen() > 8*len(s) {
		return s, false
	}
	n.FillBytes(s[:])
	return s, true
}

// list is a CRL whose issuer's signature was checked: the numbers, in order.
type list struct {
	serials      []serial
	from, until  time.Time
	users, cas   bool     // for which certificates it speaks
	distribution []string // the addresses that it is for; nil = for all of its issuer
}

func parseList(der []byte, issuer *x509.Certificate) (*list, error) {
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("parsing the CRL: %w", err)
	}
	return newList(crl, issuer)
}

// newList checks that a list is the issuer's, whole and understood (RFC 5280, 6.3.3).
func newList(crl *x509.RevocationList, issuer *x509.Certificate) (*list, error) {
	if !bytes.Equal(crl.RawIssuer, issuer.RawSubject) {
		return nil, errors.New("the CRL is of another issuer")
	}
	if weakSignature(crl.SignatureAlgorithm) {
		return nil, fmt.Errorf("%w: a CRL signed by %v", ErrAlgorithm, crl.SignatureAlgorithm)
	}
	if err := crl.CheckSignatureFrom(issuer); err != nil {
		return nil, fmt.Errorf("the CRL's signature: %w", err)
	}
	l := &list{from: crl.ThisUpdate, until: crl.NextUpdate, users: true, cas: true, serials: make([]serial, 0, len(crl.RevokedCertificateEntries))}
	for _, e := range crl.Extensions {
		switch {
		case e.Id.Equal(oidDistribution):
			if err := l.scope(e.Value); err != nil {
				return nil, err
			}
		case e.Id.Equal(oidDelta):
			return nil, errors.New("the CRL has only what changed")
		case e.Critical:
			return nil, fmt.Errorf("the CRL has the unknown critical extension %v", e.Id)
		}
	}
	for _, r := range crl.RevokedCertificateEntries {
		for _, e := range r.Extensions {
			if e.Critical {
				return nil, fmt.Errorf("an entry of the CRL has the critical extension %v", e.Id)
			}
		}
		if r.ReasonCode == 8 { // removeFromCRL: only in lists of changes
			continue
		}
		s, ok := serialOf(r.SerialNumber)
		if !ok {
			return nil, errors.New("the CRL has a serial number that is none")
		}
		l.serials = append(l.serials, s)
	}
	slices.SortFunc(l.serials, func(a, b serial) int { return bytes.Compare(a[:], b[:]) })
	return l, nil
}

var (
	oidDistribution = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidDelta        = asn1.ObjectIdentifier{2, 5, 29, 27}
)

// scope reads the issuing distribution point (RFC 5280, 5.2.5): a list that speaks for
// fewer certificates than its issuer's must not be taken for all of them.
func (l *list) scope(der []byte) error {
	bad := errors.New("the CRL is for a part of its issuer's certificates that is not supported")
	input := cryptobyte.String(der)
	var seq cryptobyte.String
	if !input.ReadASN1(&seq, casn1.SEQUENCE) || !input.Empty() {
		return bad
	}
	for !seq.Empty() {
		var field cryptobyte.String
		var tag casn1.Tag
		if !seq.ReadAnyASN1(&field, &tag) {
			return bad
		}
		yes := len(field) == 1 && field[0] == 0xff
		switch tag {
		case casn1.Tag(0).Constructed().ContextSpecific():
			var names cryptobyte.String
			if !field.ReadASN1(&names, casn1.Tag(0).Constructed().ContextSpecific()) || !field.Empty() {
				return bad
			}
			l.distribution = []string{}
			for !names.Empty() {
				var general cryptobyte.String
				if !names.ReadAnyASN1(&general, &tag) {
					return bad
				}
				if tag == casn1.Tag(6).ContextSpecific() {
					l.distribution = append(l.distribution, string(general))
				}
			}
		case casn1.Tag(1).ContextSpecific():
			l.cas = l.cas && !yes
		case casn1.Tag(2).ContextSpecific():
			l.users = l.users && !yes
		default: // only some reasons, indirect, only attribute certificates
			if tag == casn1.Tag(3).ContextSpecific() || yes {
				return bad
			}
		}
	}
	return nil
}

// fresh says whether the list is of now. One without an end is never old.
func (l *list) fresh(now time.Time) error {
	switch {
	case l.from.After(now.Add(clockSkew)):
		return errors.New("the CRL is of the future")
	case !l.until.IsZero() && now.After(l.until.Add(clockSkew)):
		return fmt.Errorf("the CRL ended on %s", l.until.UTC().Format(time.RFC3339))
	}
	return nil
}

// status says whether a certificate is listed. uris are the addresses under which the
// certificate's list is known, nil for one that was configured as a file.
func (l *list) status(c *x509.Certificate, uris []string, now time.Time) (status, error) {
	if err := l.fresh(now); err != nil {
		return unknown, err
	}
	if c.IsCA && !l.cas || !c.IsCA && !l.users {
		return unknown, errors.New("the CRL is for other certificates")
	}
	if l.distribution != nil && !slices.ContainsFunc(l.distribution, func(u string) bool {
		return slices.Contains(uris, u) || slices.Contains(c.CRLDistributionPoints, u)
	}) {
		return unknown, errors.New("the CRL is for another distribution point")
	}
	s, ok := serialOf(c.SerialNumber)
	if !ok {
		return unknown, errors.New("the certificate has a serial number that is none")
	}
	if _, found := slices.BinarySearchFunc(l.serials, s, func(a, b serial) int { return bytes.Compare(a[:], b[:]) }); found {
		return revoked, nil
	}
	return good, nil
}

// weakSignature lists what crypto/x509 still verifies on CRLs and OCSP responses, for the
// sake of others.
func weakSignature(a x509.SignatureAlgorithm) bool {
	switch a {
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
		x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
		x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.PureEd25519:
		return false
	}
	return true
}
