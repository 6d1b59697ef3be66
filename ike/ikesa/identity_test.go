package ikesa

import (
	"sallyport/ike/auth"
	"sallyport/ike/message"
)

func testID(name string) auth.Identity {
	return auth.Identity{Type: message.IDFQDN, Data: name + ".example.org"}
}

func testLocal(own string) auth.Local { return auth.Local{ID: testID(own), Method: auth.PSK} }

func testRemote(peer string) auth.Remote {
	return auth.Remote{ID: auth.ExactPattern(testID(peer)), Method: auth.PSK}
}

func testStore() *auth.Store { return testStoreWith("correct horse battery staple 0123456789") }

func testStoreWith(psk string) *auth.Store {
	return must(auth.NewStore(auth.Material{Secrets: []auth.Secret{{Name: "all", Secret: []byte(psk)}}}))
}
