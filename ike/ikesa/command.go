package ikesa

import (
	"net/netip"
)

// Command is something that the operator, the server or the data plane wants of
// an SA. A command that cannot be done now waits until it can, and one that is
// moot by then is forgotten.
type Command interface{ command() }

type (
	// Initiate starts an SA made by NewInitiator.
	Initiate struct{}
	// AddChild creates a child. On an SA that is not established yet it waits.
	AddChild struct{ Child *Child }
	// RekeyIKE rekeys the IKE SA, Reauth makes it anew and then deletes this one.
	RekeyIKE struct{}
	Reauth   struct{}
	// RekeyChild and DeleteChild name the child by its inbound SPI.
	RekeyChild  struct{ SPI uint32 }
	DeleteChild struct {
		SPI    uint32
		Reason Reason
	}
	// DeleteIKE says goodbye to the peer and ends the SA.
	DeleteIKE struct{ Reason Reason }
	// Abandon ends the SA without a word to the peer, which does not know it any more.
	Abandon struct{ Reason Reason }
	// Moved says that our address has changed: MOBIKE tells the peer, and without
	// MOBIKE the SA is made anew. Remote is the peer's address to use from now on,
	// the present one if not valid.
	Moved struct {
		Local  netip.AddrPort
		Remote netip.AddrPort
	}
	// PeerMoved says that an authenticated newest ESP packet of the child came from
	// another address (RFC 7296, 2.23).
	PeerMoved struct {
		SPI  uint32
		From netip.AddrPort
	}
	// ChildExpired says that the data plane counted to the soft limit of a child, or
	// to the hard one.
	ChildExpired struct {
		SPI  uint32
		Hard bool
	}
	// Liveness asks the peer for a sign of life, if none came just now.
	Liveness struct{}
)

func (Initiate) command()     {}
func (AddChild) command()     {}
func (RekeyIKE) command()     {}
func (Reauth) command()       {}
func (RekeyChild) command()   {}
func (DeleteChild) command()  {}
func (DeleteIKE) command()    {}
func (Abandon) command()      {}
func (Moved) command()        {}
func (PeerMoved) command()    {}
func (ChildExpired) command() {}
func (Liveness) command()     {}
