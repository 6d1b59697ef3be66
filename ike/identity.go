package ike

import (
	"fmt"

	"sallyport/ike/auth"
)

// identityKey is an identity as a map's key; no two identities share one.
func identityKey(id auth.Identity) string { return fmt.Sprintf("%d:%s", id.Type, id.Data) }

// matches says whether a peer's identity is one that a connection allows, and how exactly it says so.
func matches(p auth.Pattern, id auth.Identity) (weight int, ok bool) {
	if p.Exact == (auth.Identity{}) {
		return 0, true
	}
	return 2, p.Exact == id
}

// isOwn says whether a connection has the identity that a peer asks for.
func isOwn(own, asked auth.Identity) bool { return own == auth.Identity{} || own == asked }

// withoutCredentials is what of a local side may not change without deleting its IKE SAs.
func withoutCredentials(l auth.Local) auth.Local { return auth.Local{ID: l.ID} }
