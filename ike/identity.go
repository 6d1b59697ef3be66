package ike

import (
	"fmt"

	"sallyport/ike/auth"
	"sallyport/ike/ikesa"
)

// identityKey is an identity as a map's key: the same for all ways to write it, and for no two identities.
func identityKey(id auth.Identity) string {
	id = id.Canonical()
	return fmt.Sprintf("%d:%s", id.Type, id.Data)
}

// pairKey is the two identities of a connection, as configured, as a map's key.
func pairKey(c *ikesa.Connection) string {
	return fmt.Sprintf("%s|%v", identityKey(c.Local.ID), c.Remote.ID)
}

// matches says whether a peer's identity is one that a connection allows, and how exactly it says so.
func matches(p auth.Pattern, id auth.Identity) (weight int, ok bool) {
	return p.Specificity(), p.Matches(id)
}

// isOwn says whether a connection has the identity that a peer asks for.
func isOwn(own, asked auth.Identity) bool { return own.IsZero() || own.Equal(asked) }

// withoutCredentials is what of a local side may not change without deleting its IKE SAs.
func withoutCredentials(l auth.Local) auth.Local {
	l.Certificates, l.Key = nil, nil
	return l
}
