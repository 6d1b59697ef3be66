package ikesa

import (
	"sallyport/ike/auth"
	"sallyport/ike/message"
)

func testID(name string) auth.Identity {
	return auth.Identity{Type: message.IDFQDN, Data: name + ".example.org"}
}

func testLocal(own string) auth.Local    { return auth.Local{ID: testID(own)} }
func testRemote(peer string) auth.Remote { return auth.Remote{ID: auth.Pattern{Exact: testID(peer)}} }
func testStore() *auth.Store {
	return &auth.Store{PSK: []byte("correct horse battery staple 0123456789")}
}

func testStoreWith(psk string) *auth.Store { return &auth.Store{PSK: []byte(psk)} }
