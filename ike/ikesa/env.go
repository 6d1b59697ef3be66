package ikesa

import (
	"io"
	"net/netip"
	"time"

	"sallyport/ike/auth"
	"sallyport/ike/message"
)

// Env answers what a machine must ask in the middle of a step. Every call is a pure
// look-up or reservation: it returns at once and never calls back into an SA.
type Env interface {
	// Rand is the source of nonces, keys and jitter.
	Rand() io.Reader
	// NewIKESPI reserves an SPI that is not zero and that leads to this goroutine.
	NewIKESPI() message.SPI
	// NewChildSPI reserves an inbound SPI until it is installed or released.
	NewChildSPI() (uint32, error)
	ReleaseChildSPI(spi uint32)
	// Select finds the connection of a peer that came to us: the first time, in
	// IKE_SA_INIT, by addresses only, and again in IKE_AUTH by identities as well. It
	// returns nil if there is none.
	Select(q Query) *Connection
	// Store is the snapshot of secrets and trust to use now.
	Store() *auth.Store
	// AssignAddress leases a virtual address from the connection's pools; wanted is
	// unspecified when any of that family will do.
	AssignAddress(c *Connection, id auth.Identity, wanted netip.Addr) (Lease, error)
	ReleaseAddress(c *Connection, id auth.Identity, addr netip.Addr)
	// Usage tells what an installed child carried; ok is false if it is unknown.
	Usage(spiIn, spiOut uint32) (u Usage, ok bool)
	// RekeyWait says how long a rekey that is due by time should wait because many are; 0 lets it begin and counts it.
	RekeyWait() time.Duration
	// LinkMTU is the largest packet to an address that the first link takes, 0 if none can be sent that must not be cut up.
	LinkMTU(remote netip.Addr) int
	// PathFound is what the last search of a path by any IKE SA has come to, while that is good; ok is false if there was none.
	PathFound(p Path) (f PathFound, ok bool)
	// PathTurn says how long the IKE SA with one of our SPIs should wait with a search of a path, because another one searches it or many
	// are being searched; 0 lets it begin and counts it.
	PathTurn(p Path, spi message.SPI) time.Duration
	// KeyLog says whether KeyLog outputs are wanted at all.
	KeyLog() bool
}

// Query describes a peer for which a connection is looked for.
type Query struct {
	Local, Remote netip.AddrPort
	// LocalID is the identity that the initiator asks for (IDr), RemoteID the one it
	// claims (IDi); nil in IKE_SA_INIT, and LocalID also when it did not ask.
	LocalID, RemoteID *auth.Identity
	// Proposals are those of the IKE_SA_INIT request, so that among connections that
	// match equally one with a common proposal is chosen; nil in IKE_AUTH.
	Proposals []message.Proposal
	// Chosen is the connection that the first query returned, and so the one whose
	// proposals the IKE SA was made with; nil the first time.
	Chosen *Connection
}

// Lease is a virtual address with what goes along with it.
type Lease struct {
	Addr netip.Addr
	DNS  []netip.Addr
}

// Usage is what the data plane knows of a child. Zero times mean never.
type Usage struct {
	LastIn, LastOut time.Time // coarse, about a second
}
