package ike

import (
	"errors"

	"sallyport/ike/auth"
	"sallyport/ike/message"
)

// secrets are what both sides prove themselves with.
type secrets struct {
	method method
	store  *auth.Store
}

func newSecrets(m method) (*secrets, error) {
	if m != psk {
		return nil, errors.New("not yet")
	}
	store, err := auth.NewStore(auth.Material{Secrets: []auth.Secret{{Name: "ike", Secret: []byte("a secret of 32 random characters")}}})
	return &secrets{m, store}, err
}

func identity(name string) auth.Identity {
	return auth.Identity{Type: message.IDFQDN, Data: name}
}

func (s *secrets) server() (auth.Local, auth.Remote) {
	return auth.Local{ID: identity("server.example.org")}, auth.Remote{ID: anybody()}
}

func (s *secrets) client(n int) (auth.Local, auth.Remote) {
	return auth.Local{ID: identity(clientName(n) + ".example.org")}, auth.Remote{ID: auth.ExactPattern(identity("server.example.org"))}
}

func anybody() auth.Pattern {
	p, err := auth.ParsePattern("%any")
	if err != nil {
		panic(err)
	}
	return p
}
