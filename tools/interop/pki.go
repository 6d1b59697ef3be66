package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"sync"
	"time"
)

// credentials says what certificates a scenario's gateways have. Each gateway's certificate is
// signed by an intermediate authority of its own, and these by one root, which alone both trust.
type credentials struct {
	Key   string `yaml:"key"`   // rsa2048, rsa3072, rsa4096, p256, p384, p521 or ed25519, of all of them
	Names int    `yaml:"names"` // further DNS names in each gateway's certificate, to make it large
	CRL   bool   `yaml:"crl"`   // certificates say where their authority's revocation list is to be had
}

// The gateways' names, which stand in their certificates.
const (
	nameSallyport  = "gw-a.example.org"
	nameStrongSwan = "gw-b.example.org"
)

// holder is a gateway's part of the PKI, in PEM.
type holder struct {
	cert, intermediate, key []byte

	issuer *authority
	serial *big.Int
}

// pki is fresh for every scenario.
type pki struct {
	root                  []byte
	sallyport, strongSwan holder

	mu    sync.Mutex
	lists []*authority // each publishes its revocation list under its index
}

// authority signs certificates and revocation lists.
type authority struct {
	cert    *x509.Certificate
	key     crypto.Signer
	crl     string // where its list is to be had; empty if it has none
	revoked []x509.RevocationListEntry
	number  int64 // of the next list
}

// issue makes the root and both gateways' chains. Revocation lists are below url.
func issue(c credentials, url string) (*pki, error) {
	p := &pki{}
	publish := func(a *authority) {
		if c.CRL {
			a.crl = fmt.Sprintf("%s/%d.crl", url, len(p.lists))
			p.lists = append(p.lists, a)
		}
	}
	root, text, _, err := c.certify("Test Root", nil, nil)
	if err != nil {
		return nil, err
	}
	p.root = text
	publish(root)
	for _, x := range []struct {
		into *holder
		name string
	}{{&p.sallyport, nameSallyport}, {&p.strongSwan, nameStrongSwan}} {
		middle, middlePEM, _, err := c.certify("Test Authority of "+x.name, nil, root)
		if err != nil {
			return nil, err
		}
		publish(middle)
		names := []string{x.name}
		for i := range c.Names {
			names = append(names, fmt.Sprintf("service-%04d.%s", i, x.name))
		}
		leaf, certPEM, keyPEM, err := c.certify(x.name, names, middle)
		if err != nil {
			return nil, err
		}
		*x.into = holder{certPEM, middlePEM, keyPEM, middle, leaf.cert.SerialNumber}
	}
	return p, nil
}

// revoke has the authority of a gateway revoke its certificate.
func (p *pki) revoke(side string) error {
	h, ok := map[string]*holder{sallyport: &p.sallyport, strongswan: &p.strongSwan}[side]
	if !ok || len(p.lists) == 0 {
		return fmt.Errorf("nothing of %q can be revoked", side)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	h.issuer.revoked = append(h.issuer.revoked, x509.RevocationListEntry{SerialNumber: h.serial, RevocationTime: time.Now().Add(-time.Minute)})
	return nil
}

// ServeHTTP gives out the revocation lists.
func (p *pki) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, a := range p.lists {
		if r.URL.Path != fmt.Sprintf("/%d.crl", i) {
			continue
		}
		a.number++
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(a.number), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour),
			RevokedCertificateEntries: a.revoked,
		}, a.cert, a.key)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/pkix-crl")
		w.Write(der)
		return
	}
	http.NotFound(w, r)
}

// certify makes a key and its certificate, signed by the issuer or, without one, by itself.
// One with names is a gateway's, one without an authority's.
func (c credentials) certify(name string, names []string, issuer *authority) (*authority, []byte, []byte, error) {
	key, err := c.generate()
	if err != nil {
		return nil, nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Country: []string{"CH"}, Organization: []string{"Sallyport Interop"}, CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: names, BasicConstraintsValid: true,
	}
	if names == nil {
		template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	} else {
		template.KeyUsage = x509.KeyUsageDigitalSignature
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.cert, issuer.key
		if issuer.crl != "" {
			template.CRLDistributionPoints = []string{issuer.crl}
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("certificate of %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, nil, err
	}
	return &authority{cert: cert, key: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

func (c credentials) generate() (crypto.Signer, error) {
	switch c.Key {
	case "rsa2048":
		return rsa.GenerateKey(rand.Reader, 2048)
	case "rsa3072":
		return rsa.GenerateKey(rand.Reader, 3072)
	case "rsa4096":
		return rsa.GenerateKey(rand.Reader, 4096)
	case "p256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "p384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "p521":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ed25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("there is no kind of key called %q", c.Key)
}

// folder is what a gateway's folder holds: its own certificate, intermediate and key, and the root.
// The names are those of swanctl's folders.
func (p *pki) folder(h holder) map[string][]byte {
	return map[string][]byte{
		"x509/gw.pem": h.cert, "x509ca/int.pem": h.intermediate, "x509ca/root.pem": p.root, "private/gw.key": h.key,
	}
}
