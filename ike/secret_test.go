package ike

import "sallyport/ike/auth"

func testLocal(name string) auth.Local { return auth.Local{ID: identity(name), Method: auth.PSK} }

func testRemote(name string) auth.Remote {
	return auth.Remote{ID: auth.ExactPattern(identity(name)), Method: auth.PSK}
}

func testStore() *auth.Store {
	s, err := auth.NewStore(auth.Material{Secrets: []auth.Secret{{Name: "all", Secret: []byte("a shared secret of these tests")}}})
	if err != nil {
		panic(err)
	}
	return s
}
