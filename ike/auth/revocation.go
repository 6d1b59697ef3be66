package auth

import (
	"fmt"
	"net/url"
)

// Revocation says what happens if nobody can say whether a certificate is revoked. One
// that is known to be revoked is always refused.
type Revocation uint8

const (
	Relaxed Revocation = iota // it is accepted
	IfURI                     // it is accepted if nothing says where to ask
	Strict                    // it is refused
)

func (r Revocation) String() string {
	switch r {
	case IfURI:
		return "ifuri"
	case Strict:
		return "strict"
	}
	return "relaxed"
}

// ParseRevocation reads swanctl's word.
func ParseRevocation(s string) (Revocation, error) {
	for _, r := range []Revocation{Relaxed, IfURI, Strict} {
		if s == r.String() {
			return r, nil
		}
	}
	return 0, fmt.Errorf("revocation %q is none of relaxed, ifuri, strict", s)
}

// httpURI parses an address of a CRL or a responder. Only http counts: what comes is
// signed, https would need certificates to check certificates (RFC 5280, 8), and
// files or other services are not to be reached through a certificate.
func httpURI(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" || u.Host == "" || u.User != nil || len(s) > 2048 {
		return nil, fmt.Errorf("%.100q is not an http address", s)
	}
	return u, nil
}

// NeedsCheck says whether a Checker has anything to ask or to refuse; without, the
// chain is good as it is.
func (c *Chain) NeedsCheck() bool {
	for i := range len(c.Certificates) - 1 {
		if len(c.crls) > 0 || c.Revocation == Strict || len(c.crlURIs(i))+len(c.ocspURIs(i)) > 0 {
			return true
		}
	}
	return c.Revocation == Strict && len(c.Certificates) > 1
}

// urisMax bounds the addresses that are tried for one certificate.
const urisMax = 4

func (c *Chain) crlURIs(i int) []string {
	return c.uris(i, c.Certificates[i].CRLDistributionPoints, func(a *Authority) []string { return a.CRLs })
}

func (c *Chain) ocspURIs(i int) []string {
	return c.uris(i, c.Certificates[i].OCSPServer, func(a *Authority) []string { return a.OCSP })
}

// uris are the addresses for certificate i, the configured ones first.
func (c *Chain) uris(i int, certified []string, of func(*Authority) []string) []string {
	var all []string
	if c.issuers[i] != nil {
		all = append(all, of(c.issuers[i])...)
	}
	for _, u := range certified {
		if _, err := httpURI(u); err == nil {
			all = append(all, u)
		}
	}
	return all[:min(len(all), urisMax)]
}
