package ike

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"github.com/rs/zerolog"

	"sallyport/ike"
	"sallyport/ike/ikesa"
	"sallyport/ike/message"
	"sallyport/ike/suite"
)

// clientAddr is the address of client n, serverAddr that of the server they all speak with. All are the loopback's.
var serverAddr = netip.AddrFrom4([4]byte{127, 255, 0, 1})

func clientAddr(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, byte(1 + n>>16), byte(n >> 8), byte(n)})
}

// pair is two servers of this process: clients, which has a connection for each tunnel, and server, which has one for
// all of them.
type pair struct {
	wire            wire
	clients, server *ike.Server
	kernel          [2]*kernel // of clients, of server
}

// scenario says what is set up.
type scenario struct {
	method method
	ike    string // proposal
	esp    string
	start  bool // clients begin by themselves
}

// method is how both sides prove who they are.
type method uint8

const (
	psk method = iota
	ecdsaP256
)

// unlimited are the limits where one host is many peers, and none of them is an attacker.
var unlimited = ike.Limits{
	HalfOpen: 1 << 20, HalfOpenPerAddress: 1 << 20, CookieThreshold: 1 << 20, SAs: 1 << 20, Queue: 1 << 14, Connecting: 256, Rekeys: 1 << 20,
}

func newPair(w wire, server ike.Limits) *pair {
	p := &pair{wire: w}
	for side, to := range []**ike.Server{&p.clients, &p.server} {
		limits := unlimited
		if side == 1 {
			limits = server
		}
		p.kernel[side] = newKernel()
		*to = ike.NewServer(ike.Options{Workers: runtime.GOMAXPROCS(0), Limits: limits, Log: zerolog.Nop()}, w.end(side), p.kernel[side])
		w.end(side).server.Store(*to)
	}
	return p
}

// close ends both servers without asking whether the other agrees.
func (p *pair) close() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p.clients.Close(ctx)
	p.server.Close(ctx)
	p.wire.close()
}

// configure gives the server its connection, and the clients n of them.
func (p *pair) configure(s scenario, n int) error {
	proposals, err := suite.ParseIKE(s.ike)
	if err != nil {
		return err
	}
	esp, err := suite.ParseESP(s.esp)
	if err != nil {
		return err
	}
	secrets, err := newSecrets(s.method)
	if err != nil {
		return err
	}
	connection := func(name string) *ikesa.Connection {
		return &ikesa.Connection{
			Name: name, Proposals: []suite.Proposal{proposals}, FragmentSize: ikesa.DefaultFragmentSize, SendCert: ikesa.SendCertAlways,
			Retransmit: ikesa.DefaultRetransmit, DPDDelay: time.Hour, RekeyTime: 24 * time.Hour,
		}
	}
	child := func() *ikesa.Child {
		return &ikesa.Child{Name: childName, Proposals: []suite.Proposal{esp}, RekeyTime: 24 * time.Hour, LifeTime: 25 * time.Hour}
	}

	server := connection("clients")
	server.Local, server.Remote = secrets.server()
	c := child()
	c.LocalTS, c.RemoteTS = selector(protectedNet), selector(clientsNet)
	server.Children = []*ikesa.Child{c}
	if err := p.server.Apply(&ike.Config{Connections: []*ikesa.Connection{server}, Store: secrets.store}); err != nil {
		return fmt.Errorf("configure the server: %w", err)
	}

	clients := make([]*ikesa.Connection, n)
	for i := range clients {
		client := connection(clientName(i))
		client.LocalAddrs, client.RemoteAddrs = address(clientAddr(i)), address(serverAddr)
		client.Local, client.Remote = secrets.client(i)
		c := child()
		c.LocalTS = selector(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32))
		c.RemoteTS = selector(protectedNet)
		if s.start {
			c.StartAction = ikesa.ActionStart
		}
		client.Children = []*ikesa.Child{c}
		clients[i] = client
	}
	if err := p.clients.Apply(&ike.Config{Connections: clients, Store: secrets.store}); err != nil {
		return fmt.Errorf("configure the clients: %w", err)
	}
	return nil
}

const childName = "net"

var (
	protectedNet = netip.MustParsePrefix("198.18.0.0/15")
	clientsNet   = netip.MustParsePrefix("10.0.0.0/8")
)

func clientName(i int) string { return fmt.Sprintf("client-%d", i) }

func address(a netip.Addr) []ikesa.Address {
	return []ikesa.Address{{Prefix: netip.PrefixFrom(a, a.BitLen())}}
}

func selector(p netip.Prefix) []ikesa.Selector {
	return []ikesa.Selector{{TS: message.SelectorOf(p)}}
}
