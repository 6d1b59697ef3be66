// Package authtest makes authorities, certificates, CRLs and OCSP responses for tests.
// Everything panics on error: a test that cannot make its certificates has nothing to say.
package authtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ocsp"
)

// Now is the wall clock of certificates that are made without other times.
var Now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

var serial atomic.Int64

// Keys by their word: rsa2048, rsa3072, rsa1024 (weak), p224 (weak), p256, p384, p521,
// ed25519. One of each kind is made, and reused by number.
func Key(word string, n int) crypto.Signer {
	keysMu.Lock()
	defer keysMu.Unlock()
	name := fmt.Sprint(word, n)
	if k := keys[name]; k != nil {
		return k
	}
	var k crypto.Signer
	var err error
	switch word {
	case "rsa1024":
		k = weakRSA()
	case "rsa2048":
		k, err = rsa.GenerateKey(rand.Reader, 2048)
	case "rsa3072":
		k, err = rsa.GenerateKey(rand.Reader, 3072)
	case "p224":
		k, err = ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	case "p256":
		k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "p384":
		k, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "p521":
		k, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ed25519":
		_, k, err = ed25519.GenerateKey(rand.Reader)
	default:
		panic("authtest: key " + word)
	}
	must(err)
	keys[name] = k
	return k
}

func weakRSA() crypto.Signer {
	k, err := rsa.GenerateKey(rand.Reader, 1024)
	must(err)
	return k
}

var (
	keysMu sync.Mutex
	keys   = map[string]crypto.Signer{}
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// Authority signs certificates.
type Authority struct {
	Certificate *x509.Certificate
	Key         crypto.Signer
}

// NewRoot makes an authority of its own right.
func NewRoot(name string, key crypto.Signer, change ...func(*x509.Certificate)) *Authority {
	t := authorityTemplate(name)
	for _, f := range change {
		f(t)
	}
	return &Authority{create(t, t, key, key), key}
}

// Sub makes an authority below this one.
func (a *Authority) Sub(name string, key crypto.Signer, change ...func(*x509.Certificate)) *Authority {
	t := authorityTemplate(name)
	for _, f := range change {
		f(t)
	}
	return &Authority{create(t, a.Certificate, key, a.Key), key}
}

func authorityTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)), Subject: pkix.Name{Country: []string{"CH"}, Organization: []string{"Example"}, CommonName: name},
		NotBefore: Now.AddDate(-5, 0, 0), NotAfter: Now.AddDate(5, 0, 0),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// Issue makes the certificate of a peer called name, with name as DNS name.
func (a *Authority) Issue(name string, key crypto.Signer, change ...func(*x509.Certificate)) *x509.Certificate {
	t := &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)), Subject: pkix.Name{Country: []string{"CH"}, Organization: []string{"Example"}, CommonName: name},
		NotBefore: Now.AddDate(0, -1, 0), NotAfter: Now.AddDate(1, 0, 0),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, DNSNames: []string{name},
	}
	for _, f := range change {
		f(t)
	}
	return create(t, a.Certificate, key, a.Key)
}

func create(t, parent *x509.Certificate, key, signer crypto.Signer) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
	must(err)
	c, err := x509.ParseCertificate(der)
	must(err)
	return c
}

// SelfSigned makes a certificate that nobody vouches for.
func SelfSigned(name string, key crypto.Signer) *x509.Certificate {
	t := &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)), Subject: pkix.Name{CommonName: name},
		NotBefore: Now.AddDate(0, -1, 0), NotAfter: Now.AddDate(1, 0, 0), DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	return create(t, t, key, key)
}

// CRL lists the certificates as revoked.
func (a *Authority) CRL(revoked []*x509.Certificate, change ...func(*x509.RevocationList)) []byte {
	t := &x509.RevocationList{Number: big.NewInt(serial.Add(1)), ThisUpdate: Now.Add(-time.Hour), NextUpdate: Now.Add(24 * time.Hour)}
	for _, c := range revoked {
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: Now.Add(-2 * time.Hour)})
	}
	for _, f := range change {
		f(t)
	}
	der, err := x509.CreateRevocationList(rand.Reader, t, a.Certificate, a.Key)
	must(err)
	return der
}

// OCSP answers about a certificate; responder is nil for the authority itself.
func (a *Authority) OCSP(c *x509.Certificate, status int, responder *Authority, change ...func(*ocsp.Response)) []byte {
	t := ocsp.Response{Status: status, SerialNumber: c.SerialNumber, ThisUpdate: Now.Add(-time.Hour), NextUpdate: Now.Add(time.Hour), RevokedAt: Now.Add(-2 * time.Hour)}
	by := a
	if responder != nil {
		by = responder
		t.Certificate = responder.Certificate
	}
	for _, f := range change {
		f(&t)
	}
	der, err := ocsp.CreateResponse(a.Certificate, by.Certificate, t, by.Key)
	must(err)
	return der
}

// Changes of a certificate before it is signed.

func Expired(c *x509.Certificate) { c.NotAfter = Now.Add(-time.Hour) }
func Future(c *x509.Certificate)  { c.NotBefore = Now.Add(time.Hour) }

// IP adds an address to the names.
func IP(s string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.IPAddresses = append(c.IPAddresses, net.ParseIP(s)) }
}

// Email adds a mail address to the names.
func Email(s string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.EmailAddresses = append(c.EmailAddresses, s) }
}

// URIs says where to ask about the certificate.
func URIs(crl, ocsp []string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.CRLDistributionPoints, c.OCSPServer = crl, ocsp }
}
