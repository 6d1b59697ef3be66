package ike

import "sallyport/ike/auth"

func testLocal(name string) auth.Local   { return auth.Local{ID: identity(name)} }
func testRemote(name string) auth.Remote { return auth.Remote{ID: auth.Pattern{Exact: identity(name)}} }
func testStore() *auth.Store             { return &auth.Store{PSK: []byte("a shared secret of these tests")} }
