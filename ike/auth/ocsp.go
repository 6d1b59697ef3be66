package auth

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"
)

// statusRequest asks about one certificate. The hash only names the issuer.
func statusRequest(cert, issuer *x509.Certificate) ([]byte, error) {
	return ocsp.CreateRequest(cert, issuer, &ocsp.RequestOptions{Hash: crypto.SHA1})
}

// parseStatus reads a response: signed by the issuer, or by somebody to whom the issuer
// gave that right in a certificate of its own (RFC 6960, 4.2.2.2), and of now. until is
// when to ask again. There is no nonce, so that responders may answer from a cache; what
// a replayed answer can do ends with its own time.
func parseStatus(der []byte, cert, issuer *x509.Certificate, now time.Time) (s status, until time.Time, err error) {
	r, err := ocsp.ParseResponseForCert(der, cert, issuer)
	if err != nil {
		return unknown, until, err
	}
	if weakSignature(r.SignatureAlgorithm) {
		return unknown, until, fmt.Errorf("%w: an OCSP response signed by %v", ErrAlgorithm, r.SignatureAlgorithm)
	}
	if d := r.Certificate; d != nil && !bytes.Equal(d.Raw, issuer.Raw) {
		switch {
		case !slices.Contains(d.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
			return unknown, until, fmt.Errorf("%w: the responder's certificate is not for OCSP", ErrCertificate)
		case weakSignature(d.SignatureAlgorithm):
			return unknown, until, fmt.Errorf("%w: the responder's certificate", ErrAlgorithm)
		case !bytes.Equal(d.RawIssuer, issuer.RawSubject):
			return unknown, until, fmt.Errorf("%w: the responder's certificate is of another issuer", ErrCertificate)
		}
		if err := checkTime(d, now); err != nil {
			return unknown, until, err
		}
		if err := checkKey(d.PublicKey, Schemes{}); err != nil {
			return unknown, until, err
		}
	}
	switch {
	case r.ThisUpdate.After(now.Add(clockSkew)):
		return unknown, until, errors.New("the OCSP response is of the future")
	case !r.NextUpdate.IsZero() && now.After(r.NextUpdate.Add(clockSkew)):
		return unknown, until, errors.New("the OCSP response is too old")
	case r.NextUpdate.IsZero() && now.Sub(r.ThisUpdate) > freshMax:
		return unknown, until, errors.New("the OCSP response is too old")
	}
	switch r.Status {
	case ocsp.Good:
		return good, r.NextUpdate, nil
	case ocsp.Revoked:
		return revoked, r.NextUpdate, nil
	}
	return unknown, r.NextUpdate, nil
}
