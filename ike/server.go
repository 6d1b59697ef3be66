package ike

import (
	"context"
	"crypto/rand"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"sallyport/ike/auth"
	"sallyport/ike/ikesa"
)

// Transport carries IKE datagrams. It is called by all shards.
type Transport interface {
	// Send sends one message, behind the non-ESP marker if a port is 4500 (RFC 3948, 2.2). It copies Data and does
	// not block; what it cannot send is lost, and sent again by the protocol. What must stay Whole is so or lost.
	Send(d ikesa.Datagram) error
	// Keepalive sends the one octet of RFC 3948, 2.3.
	Keepalive(local, remote netip.AddrPort) error
}

// Kernel is where associations are installed: the data plane, behind the daemon's adapter. It is called by all shards,
// and by each for its own children only; it must not call back into the server before it returns.
type Kernel interface {
	// NewChildSPI reserves an inbound SPI until it is installed or released.
	NewChildSPI() (uint32, error)
	ReleaseSPI(spi uint32)
	// InstallInbound and InstallOutbound install one direction. Keys are wiped when they return; the SPI of an inbound one that is refused is
	// released. A child that Replaces
	// another takes its place for new packets when its outbound direction is installed.
	InstallInbound(c *ikesa.ChildSA) error
	InstallOutbound(c *ikesa.ChildSA) error
	// RemoveChild removes both directions, after grace periods that are the data plane's. Reason is for its log.
	RemoveChild(spiIn, spiOut uint32, reason string)
	// UpdateChild moves an association to other endpoints, or into or out of UDP. It has no keys.
	UpdateChild(c *ikesa.ChildSA) error
	// PathMTU says how large a child's outer packets may be until a time, all headers in. LinkMTU is what the first link on the way to an
	// address takes, 0 if Send cannot send what must stay Whole there.
	PathMTU(spiIn uint32, mtu int, until time.Time)
	LinkMTU(remote netip.Addr) int
	// Usage says what a child carried.
	Usage(spiIn, spiOut uint32) (Usage, bool)
	// RouteSource returns the address with which the host reaches remote.
	RouteSource(remote netip.Addr) (netip.Addr, error)
	// Assigned and Unassigned say which virtual addresses a peer gave us.
	Assigned(c *ikesa.Connection, leases []ikesa.Lease)
	Unassigned(c *ikesa.Connection, addrs []netip.Addr)
}

// Usage is what a child carried, both directions seen from here. Times are coarse, about a second; zero means never.
type Usage struct {
	BytesIn, BytesOut     uint64
	PacketsIn, PacketsOut uint64
	LastIn, LastOut       time.Time
}

// Resolver turns names of peers into addresses; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Options are what a server is made with. Zero values are good.
type Options struct {
	Workers  int // shards; 0 = GOMAXPROCS, at most shardsMax
	Limits   Limits
	Log      zerolog.Logger // the zero Logger writes nothing worth reading: give zerolog.Nop()
	Resolver Resolver       // nil = net.DefaultResolver
	// Revocation asks whether a certificate of a trusted chain is revoked, as auth.Checker does. It may take seconds and is called off the
	// shards. Nil accepts every chain: for tests, and for configurations without certificates.
	Revocation func(ctx context.Context, chain *auth.Chain, remote *auth.Remote) error
	// KeyLog receives the keys of every IKE SA as lines of Wireshark's ikev2_decryption_table. Nil = none, as it should be.
	KeyLog io.Writer
	Rand   io.Reader // nil = crypto/rand.Reader; called by all shards
}

// Limits bound what others can make the server hold. Zero values take the defaults.
type Limits struct {
	HalfOpen int // IKE SAs whose peer is not proven: 10,000
	// Of those, from one IPv4 address or IPv6 /64, until it must show a cookie: 5, and one more for each connection that names the address.
	// With cookies it may have a hundredth of HalfOpen.
	HalfOpenPerAddress int
	CookieThreshold    int // half-open ones from which on cookies are demanded (RFC 7296, 2.6): 30; negative = always
	SAs                int // IKE SAs altogether: 200,000
	Queue              int // datagrams that wait for one shard: 2,048; a fourth as many IKE_SA_INIT requests
	Connecting         int // IKE SAs that we set up at a time: 256
	Rekeys             int // rekeys of ours a second, bursts of as many: 1,000 (RFC 7296, 2.8 leaves jitter to us)
	Searches           int // searches of paths to peers a second, bursts of as many: 250
	Verifying          int // revocation checks at a time: 64
}

const shardsMax = 64 // so that six low bits of an SPI name the shard

func (l Limits) orDefaults() Limits {
	for _, d := range []struct {
		value    *int
		standard int
	}{
		{&l.HalfOpen, 10_000}, {&l.HalfOpenPerAddress, 5}, {&l.CookieThreshold, 30}, {&l.SAs, 200_000},
		{&l.Queue, 2048}, {&l.Connecting, 256}, {&l.Rekeys, 1000}, {&l.Searches, 250}, {&l.Verifying, 64},
	} {
		if *d.value == 0 {
			*d.value = d.standard
		}
	}
	return l
}

// Server holds all IKE SAs. Its methods may be called from any goroutine.
type Server struct {
	transport Transport
	kernel    Kernel
	limits    atomic.Pointer[Limits] // never changed behind it
	log       *journal
	options   Options

	config  atomic.Pointer[snapshot]
	pools   *poolSet
	gate    gate
	rekeys  bucket
	paths   paths
	shards  []*shard
	homes   homes // which shard an inbound SPI lives on
	manager *manager
	stats   counters
	total   atomic.Int64  // IKE SAs
	number  atomic.Uint64 // of the newest one

	verifying chan struct{}          // as many as may be checked at a time
	keyLog    atomic.Pointer[keyLog] // nil: none
	context   context.Context        // ends with the server; for look-ups
	cancel    context.CancelFunc
	running   sync.WaitGroup
	closed    atomic.Bool
}

// NewServer starts a server without any connection.
func NewServer(o Options, t Transport, k Kernel) *Server {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	o.Workers = min(o.Workers, shardsMax)
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	s := &Server{transport: t, kernel: k, options: o}
	s.KeyLog(o.KeyLog)
	limits := o.Limits.orDefaults()
	s.limits.Store(&limits)
	s.log = newJournal(o.Log)
	s.context, s.cancel = context.WithCancel(context.Background())
	s.verifying = make(chan struct{}, limits.Verifying)
	s.pools = newPoolSet()
	s.config.Store(newSnapshot(&Config{Store: new(auth.Store)}, nil))
	s.gate.start(o.Rand)
	s.homes.start()
	s.rekeys.set(limits.Rekeys, limits.Rekeys)
	s.paths.all = make(map[ikesa.Path]*searched)
	s.paths.begins.set(limits.Searches, limits.Searches)
	for i := range o.Workers {
		s.shards = append(s.shards, newShard(s, i))
	}
	s.manager = newManager(s)
	for _, shard := range s.shards {
		s.running.Go(shard.run)
	}
	s.running.Go(s.manager.run)
	return s
}

// KeyLog writes the keys of the IKE SAs that come up from now on to w, nil nowhere. When it returns, nothing is written to a former one.
func (s *Server) KeyLog(w io.Writer) {
	var next *keyLog
	if w != nil {
		next = &keyLog{to: w}
	}
	if former := s.keyLog.Swap(next); former != nil {
		former.Lock()
		former.to = io.Discard
		former.Unlock()
	}
}

// Limit changes the limits of a running server. Those of Queue and Verifying stay what they were at the start. What is there already
// stays, also where it is more than a new limit.
func (s *Server) Limit(l Limits) {
	l = l.orDefaults()
	s.limits.Store(&l)
	s.rekeys.set(l.Rekeys, l.Rekeys)
	s.paths.begins.set(l.Searches, l.Searches)
}

// Close deletes every IKE SA, waits until the peers have confirmed or the context ends, and stops the server.
func (s *Server) Close(ctx context.Context) {
	if s.closed.Swap(true) {
		return
	}
	s.manager.call(s.manager.shutDown)
	for _, shard := range s.shards {
		shard.call(shard.deleteAll)
	}
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for s.total.Load() > 0 && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-poll.C:
		}
	}
	s.cancel()
	for _, shard := range s.shards {
		shard.stop()
	}
	s.manager.stop()
	s.running.Wait()
}

// Acquire says that a packet needs a child which is not there: a trap. Unknown names are ignored.
func (s *Server) Acquire(connection, child string) {
	if !s.manager.post(func() { s.manager.acquire(connection, child) }) {
		s.stats.drop(DropEvent) // the next packet asks again
	}
}

// Expired says that a child has reached its soft limit of bytes, packets or sequence numbers, or its hard one.
func (s *Server) Expired(spiIn uint32, hard bool) {
	s.commandChild(spiIn, ikesa.ChildExpired{SPI: spiIn, Hard: hard})
}

// PeerMoved says that an authenticated newest ESP packet of a child came from another address (RFC 7296, 2.23).
func (s *Server) PeerMoved(spiIn uint32, from netip.AddrPort) {
	s.commandChild(spiIn, ikesa.PeerMoved{SPI: spiIn, From: from})
}

// PathDoubted says that somebody who is not authenticated claims that less than thought arrives at a child's peer: the path is probed again.
func (s *Server) PathDoubted(spiIn uint32) { s.commandChild(spiIn, ikesa.PathDoubted{}) }

func (s *Server) commandChild(spiIn uint32, c ikesa.Command) {
	home, ok := s.homes.find(spiIn)
	if !ok || !s.shards[home].offer(func(sh *shard) { sh.commandChild(spiIn, c) }) {
		s.stats.drop(DropEvent)
	}
}

// AddressesChanged says that addresses or routes of the host have changed: IKE SAs whose address is not the one that
// leads to their peer any more are moved (RFC 4555).
func (s *Server) AddressesChanged() { s.manager.post(s.manager.addressesChanged) }

// Up sets up a child, or with an empty name all children of a connection, and waits for it.
func (s *Server) Up(ctx context.Context, connection, child string) error {
	return s.manager.wait(ctx, func(w *waiter) { s.manager.up(connection, child, w) })
}

// Down deletes the children of a name, or with an empty name all IKE SAs of a connection, and waits for it. They stay
// down until a packet or an operator wants them.
func (s *Server) Down(ctx context.Context, connection, child string) error {
	return s.manager.wait(ctx, func(w *waiter) { s.manager.down(connection, child, w) })
}

// Rekey rekeys the children of a name, or with an empty name the IKE SAs of a connection, and waits for it.
func (s *Server) Rekey(ctx context.Context, connection, child string) error {
	return s.manager.wait(ctx, func(w *waiter) { s.manager.rekey(connection, child, w) })
}

// Apply makes a configuration the valid one. Connections that are equal to the present ones go on untouched. Where only our credentials, times
// or children have changed the IKE SAs go on too: credentials count from the next authentication on, children that changed are rekeyed, or made
// anew if they carry something else. IKE SAs of connections that vanish or differ otherwise are deleted. It returns once all is under way.
func (s *Server) Apply(c *Config) error {
	return s.manager.apply(c)
}
