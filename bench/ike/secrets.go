package ike

import (
	"crypto"
	"crypto/x509"

	"sallyport/ike/auth"
	"sallyport/ike/message"
)

// secrets are what both sides prove themselves with: one secret for all, or a certificate for the server and another
// for all clients, like strongSwan's.
type secrets struct {
	method       method
	store        *auth.Store
	certificates certificates
}

func newSecrets(m method) (s *secrets, err error) {
	s = &secrets{method: m}
	material := auth.Material{Secrets: []auth.Secret{{Name: "all", Secret: []byte("a secret of 32 random characters")}}}
	if m == ecdsaP256 {
		if s.certificates, err = newCertificates(); err != nil {
			return nil, err
		}
		c := s.certificates
		material = auth.Material{
			Authorities:  []auth.Authority{{Name: "authority", Certificate: c.authority.certificate}},
			Certificates: []*x509.Certificate{c.client.certificate, c.server.certificate},
			Keys:         []crypto.Signer{c.client.key, c.server.key},
		}
	}
	s.store, err = auth.NewStore(material)
	return s, err
}

func (s *secrets) server() (auth.Local, auth.Remote, error) {
	local, err := s.local("server.example.org", s.certificates.server)
	remote := auth.Remote{Method: local.Method}
	if s.method == ecdsaP256 {
		remote.ID = exact("client.example.org")
	}
	return local, remote, err
}

func (s *secrets) client(n int) (auth.Local, auth.Remote, error) {
	name := clientName(n) + ".example.org"
	if s.method == ecdsaP256 {
		name = "client.example.org"
	}
	local, err := s.local(name, s.certificates.client)
	return local, auth.Remote{ID: exact("server.example.org"), Method: local.Method}, err
}

func (s *secrets) local(name string, k *keyPair) (auth.Local, error) {
	id := auth.Identity{Type: message.IDFQDN, Data: name}
	if s.method == psk {
		return auth.Local{ID: id, Method: auth.PSK}, nil
	}
	local, err := auth.NewLocal(id, auth.PublicKey, auth.Schemes{}, []*x509.Certificate{k.certificate}, k.key)
	if err != nil {
		return auth.Local{}, err
	}
	return *local, nil
}

func exact(name string) auth.Pattern {
	return auth.ExactPattern(auth.Identity{Type: message.IDFQDN, Data: name})
}
