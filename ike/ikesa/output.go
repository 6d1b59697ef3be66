package ikesa

import (
	"net/netip"
	"time"

	"sallyport/ike/auth"
	"sallyport/ike/message"
	"sallyport/ike/suite"
)

// Datagram is one IKE message on the wire, without the marker of RFC 3948 that
// stands before it where either port is 4500.
type Datagram struct {
	Local, Remote netip.AddrPort
	Data          []byte
	// Whole says that it must not be cut up, here or on its way; sent only.
	Whole bool
}

// Outputs collects what a step wants done. The server performs Actions strictly in
// order, and may then empty the slice and use it again.
type Outputs struct {
	Actions []Action
}

func (o *Outputs) add(a Action) { o.Actions = append(o.Actions, a) }

// Action is one thing to do.
type Action interface{ action() }

type (
	// Send sends a datagram. Data is kept for retransmission: it must be copied, not changed.
	Send struct{ Datagram }
	// Keepalive sends the one octet of RFC 3948, 2.3, unless something else was just sent.
	Keepalive struct{ Local, Remote netip.AddrPort }
	// InstallInbound and InstallOutbound install one direction. Of a rekeyed child's
	// two directions the outbound one may come much later than the inbound one; then
	// it replaces the predecessor's for new packets. The receiver wipes the key.
	InstallInbound  struct{ *ChildSA }
	InstallOutbound struct{ *ChildSA }
	// UpdateChild says that the endpoints or the encapsulation have changed. Keys are nil.
	UpdateChild struct{ *ChildSA }
	// PathMTU says how large an outer packet of a child may be, until the path is to be taken for as large as the route again.
	PathMTU struct {
		SPIIn uint32
		MTU   int
		Until time.Time
	}
	// RemoveChild removes what is installed of both directions, after the data plane's
	// own grace periods. SPIOut is 0 if no outbound direction was installed.
	RemoveChild struct {
		SPIIn, SPIOut uint32
		Reason        Reason
	}
	// Verify asks whether any certificate of the chain is revoked; the answer goes to
	// SA.Verified with the same ID. The SA waits for it.
	Verify struct {
		ID     uint64
		Chain  *auth.Chain
		Remote *auth.Remote
	}
	// NewSA is another machine to be driven from now on, registered under its
	// LocalSPI before the next action: the successor of a rekey, or the one that
	// reauthenticates.
	NewSA struct{ SA *SA }
	// Touched says that another machine than the one called has changed: read its
	// Deadline and Ended again.
	Touched struct{ SA *SA }
	// InitialContact says that the peer, now authenticated on SA, has no other IKE SA
	// with us (RFC 7296, 2.4): others with the same two identities are to be abandoned.
	InitialContact struct{ SA *SA }
	// Assigned and Unassigned say which virtual addresses the peer gave us.
	Assigned struct {
		SA     *SA
		Leases []Lease
	}
	Unassigned struct {
		SA    *SA
		Addrs []netip.Addr
	}
	// KeyLog carries the keys of an SA for Wireshark; only when Env.KeyLog says so.
	KeyLog struct {
		SPIi, SPIr message.SPI
		Choice     suite.Choice
		Keys       *suite.Keys // must be read at once
	}
	// Report tells what happened, for log, counters and the control tool.
	Report struct{ Event }
	// Ended is the last action of an SA: forget it.
	Ended struct {
		SA     *SA
		Reason Reason
	}
)

func (Send) action()            {}
func (Keepalive) action()       {}
func (InstallInbound) action()  {}
func (InstallOutbound) action() {}
func (UpdateChild) action()     {}
func (PathMTU) action()         {}
func (PathFound) action()       {}
func (RemoveChild) action()     {}
func (Verify) action()          {}
func (NewSA) action()           {}
func (Touched) action()         {}
func (InitialContact) action()  {}
func (Assigned) action()        {}
func (Unassigned) action()      {}
func (KeyLog) action()          {}
func (Report) action()          {}
func (Ended) action()           {}

// ChildSA describes a child's associations for the data plane.
type ChildSA struct {
	Connection *Connection
	Child      *Child
	SPIIn      uint32
	SPIOut     uint32
	Choice     suite.Choice
	// KeyIn and KeyOut are those of the direction that is installed (the other is nil):
	// encryption key, then salt or integrity key.
	KeyIn, KeyOut     []byte
	Local, Remote     netip.AddrPort
	Encap             bool // ESP in UDP between these ports
	Mode              Mode
	Unpadded          bool // the peer takes no traffic flow confidentiality padding (RFC 7296, 1.3.1)
	LocalTS, RemoteTS []message.TrafficSelector
	// SeenLocal and SeenRemote are our and the peer's address as the peer knows them, in transport mode: with a NAT between they
	// differ from Local and Remote, and its upper layers' checksums are made with them (RFC 7296, 2.23.1). Perhaps invalid.
	SeenLocal, SeenRemote netip.Addr
	// Replaces is the inbound SPI of the child that this one replaces, 0 = none.
	Replaces  uint32
	Initiator bool // we sent the request that created it
	CreatedAt time.Time
	RekeyAt   time.Time // zero = never
	ExpireAt  time.Time // zero = never
	// Soft and hard limits for each direction, the jitter in; 0 = none.
	SoftBytes, HardBytes, SoftPackets, HardPackets uint64
}

// EventKind says what an Event tells.
type EventKind uint8

const (
	EventExchange     EventKind = iota // an exchange is complete: Exchange, MessageID, Initiator, Reason if it failed
	EventRetransmit                    // a request was sent again; N is how often by now
	EventDrop                          // a datagram was discarded: Reason
	EventEstablished                   // the IKE SA is up
	EventRekeyed                       // the IKE SA has a successor: Successor
	EventChildUp                       // SPI, Child
	EventChildRekeyed                  // SPI is the new one, Old the one it replaces
	EventChildDown                     // SPI, Reason
	EventChildFailed                   // a child could not be made: Child, Reason
	EventMoved                         // endpoints have changed
	EventEnding                        // the IKE SA will end: Reason
	EventHint                          // an unauthenticated notify that is not acted upon: Notify
)

// Event is one line of the log.
type Event struct {
	SA        *SA
	Kind      EventKind
	Reason    Reason
	Exchange  message.ExchangeType
	MessageID uint32
	Initiator bool // we sent the request
	Child     *Child
	SPI, Old  uint32
	Notify    message.NotifyType
	N         int
	Successor *SA
	// Err says more than Reason does; nil if there is nothing more to say. It never
	// holds key material.
	Err error
}
