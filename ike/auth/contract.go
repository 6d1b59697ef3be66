// Package auth holds identities, secrets and certificates: the types that an IKE SA's
// machine is written against.
package auth

import "sallyport/ike/message"

// Identity is an IKE identity in comparable form.
type Identity struct {
	Type message.IDType
	Data string
}

func (i Identity) String() string { return i.Data }

// Pattern matches identities.
type Pattern struct{ Exact Identity }

// Local is what we prove, Remote what the peer must prove.
type Local struct{ ID Identity }
type Remote struct{ ID Pattern }

// Store is a snapshot of secrets and trust.
type Store struct{ PSK []byte }

// Chain is a certificate with its issuers.
type Chain struct{}
