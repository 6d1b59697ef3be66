package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"sallyport/cmd/internal/config"
	"sallyport/dataplane"
	"sallyport/ike"
	"sallyport/ike/auth"
	"sallyport/ike/ikesa"
)

// exchanger agrees on keys with peers. Its methods may be called from any goroutine.
type exchanger interface {
	// Apply takes over connections, secrets and pools; tunnels gives each protect policy's Tunnel its
	// number. What has not changed goes on untouched.
	Apply(c *config.Config, tunnels map[string]uint32) error
	// Close says goodbye to every peer and stops.
	Close(ctx context.Context)
	AddressesChanged()
	Up(ctx context.Context, connection, child string) error
	Down(ctx context.Context, connection, child string) error
	Rekey(ctx context.Context, connection, child string) error
	List(f func(*ike.Info) bool)
	Stats() ike.Stats
	// Place tells a child's number in the daemon's life, and the tunnel of the data plane that it sends by.
	Place(spiIn uint32) (number uint64, tunnel uint32)
}

// exchange is the IKE server over the data plane.
type exchange struct {
	*ike.Server
	associations *associations
	keyLog       *os.File // nil: none
}

// datagrams is the way of IKE datagrams through the data plane, an ike.Transport.
type datagrams struct{ port *dataplane.IKEPort }

func (d datagrams) Send(g ikesa.Datagram) error {
	if g.Whole {
		return d.port.SendWhole(g.Local, g.Remote, g.Data)
	}
	return d.port.Send(g.Local, g.Remote, g.Data)
}

func (d datagrams) Keepalive(local, remote netip.AddrPort) error {
	return d.port.Keepalive(local, remote)
}

// newExchange makes the IKE server of an engine that does not run yet.
func newExchange(c *config.Config, e *dataplane.Engine, log zerolog.Logger) (*exchange, error) {
	x := &exchange{associations: newAssociations(e)}
	i := &c.File.IKE
	checker := auth.NewChecker(nil, nil)
	o := ike.Options{
		Workers: int(i.Threads), Log: log,
		Revocation: func(ctx context.Context, chain *auth.Chain, _ *auth.Remote) error { return checker.Check(ctx, chain) },
		Limits:     limits(c),
	}
	x.Server = ike.NewServer(o, datagrams{e.IKE()}, x.associations)
	if err := x.logKeys(i.KeyLog); err != nil {
		x.Close(context.Background())
		return nil, err
	}
	e.IKE().Handle(func(local, remote netip.AddrPort, data []byte) {
		x.Receive(ikesa.Datagram{Local: local, Remote: remote, Data: data})
	})
	e.HandleEvents(x.event)
	return x, nil
}

// limits are those of a configuration.
func limits(c *config.Config) ike.Limits {
	i := &c.File.IKE
	l := ike.Limits{
		SAs: i.SAs, HalfOpen: i.HalfOpen, HalfOpenPerAddress: i.HalfOpenPerAddress, CookieThreshold: i.CookieThreshold, Rekeys: i.Rekeys,
	}
	if i.CookieThreshold == 0 {
		l.CookieThreshold = -1 // always
	}
	return l
}

// logKeys has keys of IKE SAs written to a file from now on; none if path is empty.
func (x *exchange) logKeys(path string) error {
	former := x.keyLog
	if former == nil && path == "" || former != nil && former.Name() == path {
		return nil
	}
	if path == "" {
		x.keyLog = nil
		x.KeyLog(nil)
		return former.Close()
	}
	f, err := openKeyLog(path)
	if err != nil {
		return err
	}
	x.keyLog = f
	x.KeyLog(f)
	if former != nil {
		return former.Close()
	}
	return nil
}

// openKeyLog opens a file for keys, which nobody else may read and which is no link.
func openKeyLog(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("ike.keylog: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("open to others (mode %04o): chmod 600 %s", info.Mode().Perm(), path)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("ike.keylog: %w", err)
	}
	return f, nil
}

// event passes on what happened on the packet path.
func (x *exchange) event(e dataplane.Event) {
	switch e.Kind {
	case dataplane.EventAcquire:
		if m, ok := x.associations.wanted(e.Tunnel); ok {
			x.Acquire(m.Connection, m.Child)
		}
	case dataplane.EventSoft, dataplane.EventHard:
		if spi, ok := x.associations.child(e.Handle); ok {
			x.Expired(spi, e.Kind == dataplane.EventHard)
		}
	case dataplane.EventPathDoubted:
		if spi, ok := x.associations.child(e.Handle); ok {
			x.PathDoubted(spi)
		}
	case dataplane.EventPeerMoved:
		if e.Remote.Port() != 0 {
			x.PeerMoved(e.SPI, e.Remote)
		}
	}
}

// Apply takes over a configuration.
func (x *exchange) Apply(c *config.Config, tunnels map[string]uint32) error {
	if err := x.logKeys(c.File.IKE.KeyLog); err != nil {
		return err
	}
	x.associations.configure(c, tunnels)
	next := &ike.Config{Connections: c.Connections, Store: c.Store}
	for i := range c.File.Pools {
		p := &c.File.Pools[i]
		pool := ike.Pool{Name: p.Name, Prefixes: p.Prefixes()}
		for _, d := range p.DNS {
			pool.DNS = append(pool.DNS, d.Addr)
		}
		next.Pools = append(next.Pools, pool)
	}
	if err := x.Server.Apply(next); err != nil {
		return err
	}
	x.Server.Limit(limits(c))
	return nil
}

// Place looks a child up by its inbound SPI.
func (x *exchange) Place(spiIn uint32) (number uint64, tunnel uint32) {
	return x.associations.place(spiIn)
}

// Close deletes every IKE SA and stops the server.
func (x *exchange) Close(ctx context.Context) {
	x.Server.Close(ctx)
	x.associations.stop()
	if x.keyLog != nil {
		x.keyLog.Close()
	}
}

// goodbye bounds how long a daemon that stops waits for its peers to confirm.
const goodbye = 2 * time.Second

// silent is the exchanger of a daemon with manual keys only.
type silent struct{}

var errSilent = errors.New("this daemon was started with manual keys only: it does not negotiate")

func (silent) Apply(*config.Config, map[string]uint32) error { return nil }
func (silent) Close(context.Context)                         {}
func (silent) AddressesChanged()                             {}
func (silent) Up(context.Context, string, string) error      { return errSilent }
func (silent) Down(context.Context, string, string) error    { return errSilent }
func (silent) Rekey(context.Context, string, string) error   { return errSilent }
func (silent) List(func(*ike.Info) bool)                     {}
func (silent) Place(uint32) (uint64, uint32)                 { return 0, 0 }
func (silent) Stats() ike.Stats                              { return ike.Stats{} }
