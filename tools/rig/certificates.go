package rig

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// nameOf is the name in a gateway's certificate.
func nameOf(g *Gateway) string { return g.Name + ".example" }

// certify makes an authority and a certificate for each gateway, good for an hour, in the rig's folder:
// ca.crt, gw-a.crt and gw-a.key, gw-b.crt and gw-b.key. The authority's key is forgotten.
func (p *Pair) certify() error {
	now := time.Now()
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{Organization: []string{"Example"}, CommonName: name},
			NotBefore: now.Add(-time.Minute), NotAfter: now.AddDate(1, 0, 0),
		}
	}
	authority := template(1, "Example CA")
	authority.IsCA, authority.BasicConstraintsValid, authority.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	issuer, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return err
	}
	if err := p.write("ca", authority, authority, issuer.Public(), issuer); err != nil {
		return err
	}
	for i, g := range p.Both() {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		c := template(int64(i+2), nameOf(g))
		c.KeyUsage, c.DNSNames = x509.KeyUsageDigitalSignature, []string{nameOf(g)}
		if err := p.write(g.Name, c, authority, key.Public(), issuer); err != nil {
			return err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(p.folder, g.Name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// write signs a certificate and writes it as NAME.crt.
func (p *Pair) write(name string, c, parent *x509.Certificate, public crypto.PublicKey, issuer crypto.Signer) error {
	der, err := x509.CreateCertificate(rand.Reader, c, parent, public, issuer)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(p.folder, name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}
