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
	"io"
	"math/big"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ocsp"
)

// credentials says what certificates a scenario's gateways have. Each gateway's certificate is
// signed by an intermediate authority of its own, or a chain of them, and these by one root, which alone both trust.
type credentials struct {
	Key     string `yaml:"key"`     // rsa2048, rsa3072, rsa4096, p256, p384, p521 or ed25519, of all of them
	Names   int    `yaml:"names"`   // further DNS names in each gateway's certificate, to make it large
	CRL     bool   `yaml:"crl"`     // certificates say where their authority's revocation list is to be had
	OCSP    bool   `yaml:"ocsp"`    // certificates say where their authority's responder is to be asked
	Depth   int    `yaml:"depth"`   // intermediate authorities between a gateway and the root; 1 if not given
	Without string `yaml:"without"` // the side that has none of them, and so can send none: strongswan
}

// The gateways' names, which stand in their certificates.
const (
	nameSallyport  = "gw-a.example.org"
	nameStrongSwan = "gw-b.example.org"
)

// holder is a gateway's part of the PKI, in PEM.
type holder struct {
	cert, key     []byte
	intermediates [][]byte // from the one that signed the gateway's upwards

	issuer *authority
	serial *big.Int
}

// pki is fresh for every scenario.
type pki struct {
	root                  []byte
	sallyport, strongSwan holder

	mu      sync.Mutex
	lists   []*authority // each publishes its revocation list, and answers questions, under its index
	answers string       // what the responders say of gateways' certificates; empty: whether they are revoked
}

// authority signs certificates and revocation lists.
type authority struct {
	cert    *x509.Certificate
	key     crypto.Signer
	crl     string // where its list is to be had; empty if it has none
	ocsp    string // where its responder is to be asked; empty if it has none
	revoked []x509.RevocationListEntry
	number  int64 // of the next list
}

// issue makes the root and both gateways' chains. Revocation lists are below url.
func issue(c credentials, url string) (*pki, error) {
	p := &pki{}
	publish := func(a *authority) {
		if c.CRL {
			a.crl = fmt.Sprintf("%s/%d.crl", url, len(p.lists))
		}
		if c.OCSP {
			a.ocsp = fmt.Sprintf("%s/%d.ocsp", url, len(p.lists))
		}
		p.lists = append(p.lists, a)
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
		middle := root
		var middles [][]byte
		for depth := range max(1, c.Depth) {
			below, text, _, err := c.certify(fmt.Sprintf("Test Authority %d of %s", depth+1, x.name), nil, middle)
			if err != nil {
				return nil, err
			}
			middle, middles = below, append([][]byte{text}, middles...)
			publish(middle)
		}
		names := []string{x.name}
		for i := range c.Names {
			names = append(names, fmt.Sprintf("service-%04d.%s", i, x.name))
		}
		leaf, certPEM, keyPEM, err := c.certify(x.name, names, middle)
		if err != nil {
			return nil, err
		}
		*x.into = holder{certPEM, keyPEM, middles, middle, leaf.cert.SerialNumber}
	}
	return p, nil
}

// revoke has the authority of a gateway revoke its certificate.
func (p *pki) revoke(side string) error {
	h, ok := map[string]*holder{sallyport: &p.sallyport, strongswan: &p.strongSwan}[side]
	if !ok || h.issuer.crl == "" && h.issuer.ocsp == "" {
		return fmt.Errorf("nothing of %q can be revoked", side)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	h.issuer.revoked = append(h.issuer.revoked, x509.RevocationListEntry{SerialNumber: h.serial, RevocationTime: time.Now().Add(-time.Minute)})
	return nil
}

// ServeHTTP gives out the revocation lists, and answers for the responders.
func (p *pki) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, a := range p.lists {
		if r.URL.Path == fmt.Sprintf("/%d.ocsp", i) {
			p.respond(a, w, r)
			return
		}
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

// The answers that a responder can be told to give of gateways' certificates.
const (
	answerUnknown = "unknown" // it knows nothing of them
	answerStale   = "stale"   // good, but of the week before
	answerForged  = "forged"  // good, but signed by another authority
	answerNothing = "nothing" // an error of HTTP
)

// respond answers a question about one certificate (RFC 6960). The responder is the authority itself.
func (p *pki) respond(a *authority, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	if err != nil {
		return
	}
	question, err := ocsp.ParseRequest(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	now := time.Now()
	answer := ocsp.Response{Status: ocsp.Good, SerialNumber: question.SerialNumber, IssuerHash: question.HashAlgorithm,
		ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour)}
	for _, e := range a.revoked {
		if e.SerialNumber.Cmp(question.SerialNumber) == 0 {
			answer.Status, answer.RevokedAt = ocsp.Revoked, e.RevocationTime
		}
	}
	signer := a.key
	if a != p.lists[0] { // the root speaks of the intermediate ones, always well
		switch p.answers {
		case answerUnknown:
			answer.Status = ocsp.Unknown
		case answerStale:
			answer.ThisUpdate, answer.NextUpdate = now.Add(-8*24*time.Hour), now.Add(-7*24*time.Hour)
		case answerForged:
			signer = p.lists[0].key
		case answerNothing:
			http.Error(w, "out of order", http.StatusServiceUnavailable)
			return
		}
	}
	der, err := ocsp.CreateResponse(a.cert, a.cert, answer, signer)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/ocsp-response")
	w.Write(der)
}

// answer tells the responders what to say.
func (p *pki) answer(what string) error {
	if !slices.Contains([]string{"", answerUnknown, answerStale, answerForged, answerNothing}, what) {
		return fmt.Errorf("there is no answer %q", what)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers = what
	return nil
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
		if issuer.ocsp != "" {
			template.OCSPServer = []string{issuer.ocsp}
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

// folder is what a gateway's folder holds: its own certificate and key, the intermediates int.pem, int2.pem and so on, and the root.
// The names are those of swanctl's folders.
func (p *pki) folder(h holder) map[string][]byte {
	files := map[string][]byte{"x509/gw.pem": h.cert, "x509ca/root.pem": p.root, "private/gw.key": h.key}
	for i, text := range h.intermediates {
		name := "x509ca/int.pem"
		if i > 0 {
			name = fmt.Sprintf("x509ca/int%d.pem", i+1)
		}
		files[name] = text
	}
	return files
}
