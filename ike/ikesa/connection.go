package ikesa

import (
	"net/netip"
	"time"

	"sallyport/ike/auth"
	"sallyport/ike/message"
	"sallyport/ike/suite"
)

// Connection describes how to speak with one peer, or with a class of peers. It is
// read-only once an SA was made with it, and shared by all of them. Zero values of
// times and sizes switch the thing off, unless the field says otherwise.
type Connection struct {
	Name string
	// Priority orders connections to the same site; lower goes first. The machine
	// does not read it.
	Priority int

	// LocalAddrs and RemoteAddrs are the outer addresses that the connection may
	// use; empty means any. LocalPort and RemotePort are where an initiator starts,
	// 500 when 0.
	LocalAddrs, RemoteAddrs []Address
	LocalPort, RemotePort   uint16

	Proposals []suite.Proposal // of the IKE SA, in order of preference
	Local     auth.Local       // what we prove
	Remote    auth.Remote      // what the peer must prove

	Children []*Child

	// Retransmit is the back-off of our requests.
	Retransmit Retransmit
	// DPDDelay is how long a peer may be silent before its liveness is checked.
	DPDDelay time.Duration
	// PathTime is how often it is found out how large packets reach the peer.
	PathTime time.Duration
	// Keepalive is the interval of NAT keepalives when we are behind a NAT.
	Keepalive time.Duration
	// RekeyTime and ReauthTime are when the IKE SA is rekeyed or made anew, less a
	// random part of up to RandTime; OverTime later it is deleted if that did not happen.
	RekeyTime, ReauthTime, OverTime, RandTime time.Duration

	Fragmentation Fragmentation
	// FragmentSize is the largest IKE datagram in bytes, IP and UDP headers in, when
	// the peer supports fragments (RFC 7383).
	FragmentSize int
	// Encap forces ESP in UDP by pretending that there is a NAT.
	Encap  bool
	MOBIKE bool // RFC 4555
	// Childless says when the IKE SA is made without a first child (RFC 6023).
	Childless Childless
	// SendCertReq and SendCert say whether CERTREQ and CERT payloads are sent.
	SendCertReq bool
	SendCert    SendCert
	// Unique is the server's policy for several IKE SAs of one peer.
	Unique Unique
	// KeyingTries is how often the server starts again after no answer; 0 = for ever.
	KeyingTries int

	// VIPs are the virtual addresses asked of the peer; an unspecified address asks
	// for any of its family. Pools name those from which peers are served.
	VIPs  []netip.Addr
	Pools []string
}

// Child finds a child by its name; nil if there is none.
func (c *Connection) Child(name string) *Child {
	for _, child := range c.Children {
		if child.Name == name {
			return child
		}
	}
	return nil
}

// Address is one outer address of a connection: a prefix, or a name that the
// server resolves.
type Address struct {
	Prefix netip.Prefix // a single address has all bits; "%any" is 0.0.0.0/0 or ::/0
	Host   string       // a DNS name, if not empty
}

// Retransmit describes the back-off of a request: the n-th wait is Timeout·Base^n,
// at most Limit, less a random part of up to Jitter percent. After Tries
// retransmissions and the last wait the peer counts as dead.
type Retransmit struct {
	Timeout time.Duration
	Base    float64
	Tries   int
	Limit   time.Duration // 0 = none
	Jitter  int           // percent, 0 to 50
}

// Fragmentation says whether IKE messages are fragmented (RFC 7383).
type Fragmentation uint8

const (
	FragmentationYes    Fragmentation = iota // offered and used
	FragmentationAccept                      // offered, but our own messages stay whole
	FragmentationForce                       // used even if the peer did not offer it
	FragmentationNo
)

// Childless says whether IKE_AUTH creates a first child (RFC 6023).
type Childless uint8

const (
	ChildlessAllow  Childless = iota // as responder accepted, as initiator not used
	ChildlessPrefer                  // used when the peer supports it
	ChildlessForce                   // required in both roles
	ChildlessNever                   // refused as responder
)

// SendCert says when our certificates are sent.
type SendCert uint8

const (
	SendCertIfAsked SendCert = iota
	SendCertAlways
	SendCertNever
)

// Unique is the policy for several IKE SAs with the same pair of identities.
type Unique uint8

const (
	UniqueNo      Unique = iota // several may stand; INITIAL_CONTACT is honoured
	UniqueNever                 // several may stand; INITIAL_CONTACT is ignored
	UniqueKeep                  // the old one stays, the new one is refused
	UniqueReplace               // the new one replaces the old one
)

// Mode is how packets are carried.
type Mode uint8

const (
	Tunnel Mode = iota
	Transport
)

func (m Mode) String() string {
	if m == Transport {
		return "transport"
	}
	return "tunnel"
}

// ChildAction is what the server does with a child at start, when the peer closes it
// or when the peer is dead.
type ChildAction uint8

const (
	ActionNone ChildAction = iota
	ActionTrap
	ActionStart
	ActionTrapStart
)

// Selector is a traffic selector of the configuration. Dynamic stands for the
// host's own side of the tunnel: the virtual address if there is one, else the outer
// address; TS then carries protocol and ports only.
type Selector struct {
	TS      message.TrafficSelector
	Dynamic bool
}

// Child describes a child SA. It is read-only and shared like its Connection.
type Child struct {
	Name              string
	Proposals         []suite.Proposal
	LocalTS, RemoteTS []Selector
	Mode              Mode

	// RekeyTime is when the child is rekeyed, less a random part of up to RandTime;
	// at LifeTime it is deleted. Bytes and packets likewise, counted by the data plane.
	RekeyTime, LifeTime, RandTime          time.Duration
	RekeyBytes, LifeBytes, RandBytes       uint64
	RekeyPackets, LifePackets, RandPackets uint64
	// Inactivity deletes a child that carried nothing for so long.
	Inactivity time.Duration

	// StartAction, CloseAction and DPDAction are the server's.
	StartAction, CloseAction, DPDAction ChildAction
	// Data is the data plane's part of the configuration, opaque here.
	Data any
}

// Defaults of a connection, RFC 7296 2.4 leaves them to us; the retransmission
// ones give up after 165 s.
const (
	DefaultRetransmitTimeout = 4 * time.Second
	DefaultRetransmitBase    = 1.8
	DefaultRetransmitTries   = 5
	DefaultRetransmitJitter  = 10 // percent
	DefaultDPDDelay          = 30 * time.Second
	DefaultKeepalive         = 20 * time.Second
	DefaultRekeyTime         = 4 * time.Hour
	DefaultChildRekeyTime    = time.Hour
	// DefaultFragmentSize is the largest IPv6 datagram that every path carries.
	DefaultFragmentSize = 1280
)

// DefaultRetransmit is used for what a Retransmit leaves zero.
var DefaultRetransmit = Retransmit{Timeout: DefaultRetransmitTimeout, Base: DefaultRetransmitBase, Tries: DefaultRetransmitTries, Jitter: DefaultRetransmitJitter}
