package ikesa

import (
	"net/netip"
	"time"

	"sallyport/ike/auth"
	"sallyport/ike/message"
	"sallyport/ike/suite"
)

// SA is one IKE SA. All of its methods are for the goroutine that owns it.
type SA struct {
	env       Env
	conn      *Connection
	initiator bool // the original initiator: our SPI is the first one
	state     State
	ability          // what the peer can do and what stands between us
	reason    Reason // why it is about to end

	spiI, spiR     message.SPI
	local, remote  netip.AddrPort
	localID        auth.Identity
	remoteID       auth.Identity
	validUntil     time.Time // by the wall clock: the certificates that the peer was believed for; zero = no certificates
	ownUntil       time.Time // the one that we showed
	choice         suite.Choice
	keys           *suite.Keys
	sealer, opener message.Protector

	window

	// handshake holds everything that is needed until the SA is established only.
	handshake *handshake
	children  []*child
	queue     []queued // tasks that wait for the window, or for a better moment

	followups []*followup // exchanges of the peer whose additional key exchanges are under way

	collision *ikeCollision // the peer rekeys this SA, too
	// An IKE rekey hands everything over to the successor. As long as a collision is
	// undecided, predecessor of the peer's successor still has it all.
	successor, predecessor *SA
	redundant              bool // it lost a collision; the peer, who made it, deletes it

	// replaces is the SA that this one reauthenticates, replacement the one that
	// reauthenticates this one.
	replaces, replacement *SA

	leases  []netip.Addr // virtual addresses that we gave the peer
	virtual []netip.Addr // virtual addresses that the peer gave us
	mobike  *mobility    // what MOBIKE must remember, nil without it
	path    *pathSearch  // how large packets to the peer may be; nil if it is not probed

	timers
	verifyID uint64 // of the Verify that is waited for
	retries  uint8  // how often in a row a rekey met TEMPORARY_FAILURE
}

// ability is what IKE_SA_INIT and IKE_AUTH told of the peer and of the path.
type ability struct {
	fragments  bool // RFC 7383
	natHere    bool // there is a NAT before us
	natThere   bool // there is one before the peer
	forced     bool // we have pretended that there is one
	natChecked bool // the peer knows NAT traversal at all
	mobikeOn   bool // RFC 4555, both sides
	confirmed  bool // the peer has proven that it got our last message of IKE_AUTH
}

// NewInitiator makes the machine of an SA that we start with Initiate. Local and
// remote are the addresses and ports to begin with.
func NewInitiator(c *Connection, env Env, local, remote netip.AddrPort, options InitiatorOptions) *SA {
	s := &SA{env: env, conn: c, initiator: true, local: local, remote: remote, spiI: env.NewIKESPI()}
	s.handshake = &handshake{initialContact: options.InitialContact, first: options.Child}
	return s
}

// InitiatorOptions are what the server knows when it starts an SA.
type InitiatorOptions struct {
	// Child is the first child; nil makes an IKE SA without one if the peer can do
	// that, and else takes the connection's first child.
	Child *Child
	// InitialContact says that there is no other SA with this peer.
	InitialContact bool
}

// NewResponder makes the machine of an SA whose first datagram, an IKE_SA_INIT
// request, is then given to Receive.
func NewResponder(env Env) *SA {
	return &SA{env: env, handshake: &handshake{}}
}

// LocalSPI is the SPI that the peer's messages name us by: the key of the server's table.
func (s *SA) LocalSPI() message.SPI {
	if s.initiator {
		return s.spiI
	}
	return s.spiR
}

// RemoteSPI is the peer's SPI, 0 while it is unknown.
func (s *SA) RemoteSPI() message.SPI {
	if s.initiator {
		return s.spiR
	}
	return s.spiI
}

// SPIs are those of the original initiator and responder.
func (s *SA) SPIs() (initiator, responder message.SPI) { return s.spiI, s.spiR }

// State is where the SA stands.
func (s *SA) State() State { return s.state }

// Confirmed says whether the peer is authenticated and has shown that it is alive
// since; until then an SA counts as half-open.
func (s *SA) Confirmed() bool { return s.state >= StateEstablished && (s.initiator || s.confirmed) }

// Initiator says whether we are the original initiator.
func (s *SA) Initiator() bool { return s.initiator }

// Connection is nil while a responder has not found one.
func (s *SA) Connection() *Connection { return s.conn }

// Endpoints are the addresses and ports in use now.
func (s *SA) Endpoints() (local, remote netip.AddrPort) { return s.local, s.remote }

// Identities are those of IKE_AUTH; zero before.
func (s *SA) Identities() (local, remote auth.Identity) { return s.localID, s.remoteID }

// ValidUntil is when the first of the certificates ends that the peer was believed for; zero without certificates.
func (s *SA) ValidUntil() time.Time { return s.validUntil }

// Successor is the SA that took this one's place in a rekey, or nil.
func (s *SA) Successor() *SA { return s.successor }

// Info is a copy of what the control tool shows.
type Info struct {
	Connection            *Connection
	State                 State
	Initiator             bool
	SPIi, SPIr            message.SPI
	Local, Remote         netip.AddrPort
	LocalID, RemoteID     auth.Identity
	Choice                suite.Choice
	NATLocal, NATRemote   bool
	Encap                 bool
	MOBIKE, Fragments     bool
	PathProbing           string // on, off, or unanswered
	Established           time.Time
	RekeyAt, ReauthAt     time.Time // zero = never
	ExpireAt              time.Time
	LastIn                time.Time // the last authenticated message
	RequestOut            bool      // a request of ours is unanswered
	NextOut, NextIn       uint32    // message IDs
	Queued                int       // tasks that wait
	LocalVIPs, RemoteVIPs []netip.Addr
	Children              []ChildInfo
}

// ChildInfo is a copy of what the control tool shows of a child.
type ChildInfo struct {
	Child             *Child
	State             string // installed, rekeyed, deleting
	SPIIn, SPIOut     uint32
	Choice            suite.Choice
	Mode              Mode
	Encap             bool
	Initiator         bool
	LocalTS, RemoteTS []message.TrafficSelector
	Created           time.Time
	RekeyAt, ExpireAt time.Time
}

// Info tells what the SA looks like now. The slices are fresh but for the selectors,
// which must not be changed.
func (s *SA) Info() Info {
	i := Info{
		Connection: s.conn, State: s.state, Initiator: s.initiator, SPIi: s.spiI, SPIr: s.spiR,
		Local: s.local, Remote: s.remote, LocalID: s.localID, RemoteID: s.remoteID, Choice: s.choice,
		NATLocal: s.natHere, NATRemote: s.natThere, Encap: s.encap(), MOBIKE: s.mobikeOn, Fragments: s.fragments, PathProbing: s.pathProbing(),
		Established: s.establishedAt, RekeyAt: s.rekeyAt, ReauthAt: s.reauthAt, ExpireAt: s.expireAt, LastIn: s.lastIn,
		RequestOut: s.request != nil, NextOut: s.nextOut, NextIn: s.nextIn, Queued: len(s.queue),
		LocalVIPs: append([]netip.Addr(nil), s.virtual...), RemoteVIPs: append([]netip.Addr(nil), s.leases...),
	}
	for _, c := range s.children {
		i.Children = append(i.Children, ChildInfo{
			Child: c.conf, State: c.state.String(), SPIIn: c.spiIn, SPIOut: c.spiOut, Choice: c.choice, Mode: c.mode,
			Encap: s.encap(), Initiator: c.initiator, LocalTS: c.localTS, RemoteTS: c.remoteTS,
			Created: c.created, RekeyAt: c.rekeyAt, ExpireAt: c.expireAt,
		})
	}
	return i
}

// encap says whether ESP travels in UDP.
func (s *SA) encap() bool { return s.natHere || s.natThere || s.forced }

// own is the SA that now holds the children of this one: itself, or its successor's successor.
func (s *SA) own() *SA {
	for s.successor != nil {
		s = s.successor
	}
	return s
}

func (s *SA) report(out *Outputs, e Event) {
	e.SA = s
	out.add(Report{e})
}
