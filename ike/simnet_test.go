package ike

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sallyport/ike/ikesa"
	"sallyport/ike/message"
	"sallyport/ike/suite"
)

// network is an internet in memory, in virtual time: it delays, loses, doubles and so reorders datagrams as its seed
// says.
type network struct {
	t          testing.TB
	mu         sync.Mutex
	random     *rand.Rand
	nodes      map[netip.Addr]*node
	loss, dup  float64 // of a datagram
	delay      time.Duration
	jitter     time.Duration
	filter     func(ikesa.Datagram) bool // false loses it
	tap        func(ikesa.Datagram)
	sent, lost int
}

func newNetwork(t testing.TB, seed uint64) *network {
	return &network{t: t, random: rand.New(rand.NewPCG(seed, seed)), nodes: make(map[netip.Addr]*node), delay: 5 * time.Millisecond}
}

// carry takes a datagram as its sender sees it.
func (n *network) carry(d ikesa.Datagram) {
	d.Data = bytes.Clone(d.Data)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sent++
	if n.tap != nil {
		n.tap(d)
	}
	copies := 1
	if n.random.Float64() < n.dup {
		copies = 2
	}
	for range copies {
		if n.random.Float64() < n.loss || n.filter != nil && !n.filter(d) {
			n.lost++
			continue
		}
		wait := n.delay
		if n.jitter > 0 {
			wait += time.Duration(n.random.Int64N(int64(n.jitter)))
		}
		n.deliver(d, wait)
	}
}

func (n *network) deliver(d ikesa.Datagram, wait time.Duration) {
	time.AfterFunc(wait, func() {
		n.mu.Lock()
		to := n.nodes[d.Remote.Addr()]
		n.mu.Unlock()
		if to == nil || to.deaf.Load() {
			return
		}
		to.server.Load().Receive(ikesa.Datagram{Local: d.Remote, Remote: d.Local, Data: bytes.Clone(d.Data)})
	})
}

func (n *network) attach(a netip.Addr, to *node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if to == nil {
		delete(n.nodes, a)
	} else {
		n.nodes[a] = to
	}
}

// association is one direction as the data plane holds it.
type association struct {
	ikesa.ChildSA
	key []byte
}

// node is one gateway: a server, and what stands in for transport and data plane. It holds every call to the rules.
type node struct {
	t      testing.TB
	name   string
	net    *network
	server serverBox
	deaf   flag // receives nothing and sends nothing
	mu     sync.Mutex
	source map[bool]netip.Addr // what RouteSource says, by whether it is for IPv4
	nextIn uint32
	held   map[uint32]bool // reserved SPIs
	in     map[uint32]*association
	out    map[uint32]*association // by the peer's SPI
	last   map[uint32]time.Time    // when a child last carried a packet in
	keep   int
	given  []netip.Addr
	refuse func(c *ikesa.ChildSA) error
	link   int            // MTU of its link; 0: it has no way for what must not be cut up
	told   map[uint32]int // path MTUs by inbound SPI
	log    paper
}

func (n *network) node(name, address string) *node {
	a := netip.MustParseAddr(address)
	nd := &node{t: n.t, name: name, net: n, source: map[bool]netip.Addr{a.Is4(): a}, nextIn: uint32(len(n.nodes)+1) << 24,
		held: map[uint32]bool{}, in: map[uint32]*association{}, out: map[uint32]*association{}, last: map[uint32]time.Time{}, told: map[uint32]int{}}
	n.attach(a, nd)
	return nd
}

func (nd *node) start(o Options) *Server {
	if o.Workers == 0 {
		o.Workers = 2
	}
	o.Log = zerolog.New(&nd.log)
	s := NewServer(o, nd, nd)
	nd.server.Store(s)
	return s
}

func (nd *node) fault(format string, args ...any) {
	nd.t.Helper()
	nd.t.Errorf(nd.name+": "+format, args...)
}

func (nd *node) Send(d ikesa.Datagram) error {
	if !nd.deaf.Load() {
		nd.net.carry(d)
	}
	return nil
}

func (nd *node) Keepalive(netip.AddrPort, netip.AddrPort) error {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	nd.keep++
	return nil
}

func (nd *node) NewChildSPI() (uint32, error) {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	nd.nextIn++
	nd.held[nd.nextIn] = true
	return nd.nextIn, nil
}

func (nd *node) ReleaseSPI(spi uint32) {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	if !nd.held[spi] {
		nd.fault("SPI %08x is released but not reserved", spi)
	}
	delete(nd.held, spi)
}

func (nd *node) InstallInbound(c *ikesa.ChildSA) error {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	if nd.refuse != nil {
		if err := nd.refuse(c); err != nil {
			delete(nd.held, c.SPIIn) // who refuses has released it
			return err
		}
	}
	if !nd.held[c.SPIIn] || nd.in[c.SPIIn] != nil || len(c.KeyIn) == 0 || c.KeyOut != nil {
		nd.fault("inbound %08x: reserved %v, there %v, key of %d bytes", c.SPIIn, nd.held[c.SPIIn], nd.in[c.SPIIn] != nil, len(c.KeyIn))
	}
	delete(nd.held, c.SPIIn)
	nd.in[c.SPIIn] = &association{*c, bytes.Clone(c.KeyIn)}
	return nil
}

func (nd *node) InstallOutbound(c *ikesa.ChildSA) error {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	if nd.in[c.SPIIn] == nil && nd.refuse == nil {
		nd.fault("outbound %08x without its inbound %08x", c.SPIOut, c.SPIIn)
	}
	for _, o := range nd.out {
		if bytes.Equal(o.key, c.KeyOut) {
			nd.fault("one key for two associations")
		}
	}
	nd.out[c.SPIOut] = &association{*c, bytes.Clone(c.KeyOut)}
	return nil
}

func (nd *node) RemoveChild(spiIn, spiOut uint32, reason string) {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	if nd.in[spiIn] == nil && nd.refuse == nil {
		nd.fault("%08x is removed (%s) but not there", spiIn, reason)
	}
	delete(nd.in, spiIn)
	delete(nd.out, spiOut)
	delete(nd.last, spiIn)
}

func (nd *node) UpdateChild(c *ikesa.ChildSA) error {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	for _, a := range []*association{nd.in[c.SPIIn], nd.out[c.SPIOut]} {
		if a == nil {
			nd.fault("endpoints of a child that is not there")
			return errors.New("unknown")
		}
		a.Local, a.Remote, a.Encap = c.Local, c.Remote, c.Encap
	}
	return nil
}

func (nd *node) Usage(spiIn, spiOut uint32) (Usage, bool) {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	return Usage{LastIn: nd.last[spiIn]}, nd.in[spiIn] != nil
}

func (nd *node) LinkMTU(netip.Addr) int { return nd.link }

func (nd *node) PathMTU(spiIn uint32, mtu int, until time.Time) {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	nd.told[spiIn] = mtu
}

func (nd *node) RouteSource(remote netip.Addr) (netip.Addr, error) {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	a, ok := nd.source[remote.Is4()]
	if !ok {
		return a, errors.New("network is unreachable")
	}
	return a, nil
}

func (nd *node) Assigned(_ *ikesa.Connection, leases []ikesa.Lease) {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	for _, l := range leases {
		nd.given = append(nd.given, l.Addr)
	}
}

func (nd *node) Unassigned(_ *ikesa.Connection, addrs []netip.Addr) {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	nd.given = slices.DeleteFunc(nd.given, func(a netip.Addr) bool { return slices.Contains(addrs, a) })
}

// move gives the node another address.
func (nd *node) move(from, to string) {
	a := netip.MustParseAddr(to)
	nd.net.attach(netip.MustParseAddr(from), nil)
	nd.net.attach(a, nd)
	nd.mu.Lock()
	nd.source[a.Is4()] = a
	nd.mu.Unlock()
}

func (nd *node) counts() (in, out, held int) {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	return len(nd.in), len(nd.out), len(nd.held)
}

// differences says in what two sides do not fit together: what one sends the other must be able to receive, with the
// same key and mirrored selectors, and nothing is left over. N is the number of children.
func differences(a, b *node) (n int, all []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	for _, side := range [2][2]*node{{a, b}, {b, a}} {
		for spi, o := range side[0].out {
			i := side[1].in[spi]
			if i == nil {
				say("%s sends on %08x of %s, which %s does not know", side[0].name, spi, o.Connection.Name, side[1].name)
				continue
			}
			if !bytes.Equal(i.key, o.key) || i.Choice != o.Choice {
				say("%08x: keys or suites differ", spi)
			}
			if !slices.Equal(i.LocalTS, o.RemoteTS) || !slices.Equal(i.RemoteTS, o.LocalTS) {
				say("%08x: selectors differ: %v %v, %v %v", spi, i.LocalTS, i.RemoteTS, o.LocalTS, o.RemoteTS)
			}
		}
		for spi := range side[0].held {
			say("%s still reserves SPI %08x", side[0].name, spi)
		}
	}
	if len(a.in) != len(b.in) || len(a.out) != len(b.out) || len(a.in) != len(a.out) {
		say("%d in and %d out here, %d and %d there", len(a.in), len(a.out), len(b.in), len(b.out))
	}
	return len(a.in), all
}

// paired fails unless two sides fit together, now or, if an exchange is just under way, a little later. It returns the
// number of children.
func paired(t testing.TB, a, b *node) int {
	t.Helper()
	n, wrong := differences(a, b)
	for wait := 0; len(wrong) > 0 && wait < 60; wait++ {
		time.Sleep(time.Second)
		n, wrong = differences(a, b)
	}
	for _, w := range wrong {
		t.Error(w)
	}
	return n
}

func prefixes(words ...string) []ikesa.Selector {
	var all []ikesa.Selector
	for _, w := range words {
		if w == "dynamic" {
			all = append(all, ikesa.Selector{Dynamic: true})
			continue
		}
		all = append(all, ikesa.Selector{TS: message.SelectorOf(netip.MustParsePrefix(w))})
	}
	return all
}

func addresses(words ...string) []ikesa.Address {
	var all []ikesa.Address
	for _, w := range words {
		if p, err := netip.ParsePrefix(w); err == nil {
			all = append(all, ikesa.Address{Prefix: p})
		} else if a, err := netip.ParseAddr(w); err == nil {
			all = append(all, ikesa.Address{Prefix: netip.PrefixFrom(a, a.BitLen())})
		} else {
			all = append(all, ikesa.Address{Host: w})
		}
	}
	return all
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var (
	ikeProposal = []suite.Proposal{must(suite.ParseIKE("aes128gcm16-prfsha256-x25519"))}
	espProposal = []suite.Proposal{must(suite.ParseESP("aes128gcm16-esn-noesn"))}
)

// connection is number n from own to peer: one child between two prefixes of its own.
func connection(n int, own, peer string, initiator bool, remote ...string) *ikesa.Connection {
	low, high := fmt.Sprintf("198.18.%d.%d/31", n/64, n%64*4), fmt.Sprintf("198.18.%d.%d/31", n/64, n%64*4+2)
	action := ikesa.ActionStart
	if !initiator {
		low, high = high, low
		action = ikesa.ActionTrap
	}
	c := &ikesa.Connection{
		Name: fmt.Sprintf("%s-%s-%d", own, peer, n), RemoteAddrs: addresses(remote...), Proposals: ikeProposal,
		Local: testLocal(fmt.Sprintf("%s%d", own, n)), Remote: testRemote(fmt.Sprintf("%s%d", peer, n)),
		Retransmit: ikesa.Retransmit{Timeout: 2 * time.Second, Base: 1.5, Tries: 6, Jitter: 10},
		DPDDelay:   30 * time.Second, RekeyTime: 4 * time.Hour, RandTime: 10 * time.Minute, OverTime: 20 * time.Minute,
		MOBIKE: true, FragmentSize: 1280,
		Children: []*ikesa.Child{{
			Name: "net", Proposals: espProposal, LocalTS: prefixes(low), RemoteTS: prefixes(high),
			RekeyTime: time.Hour, LifeTime: 70 * time.Minute, RandTime: 6 * time.Minute, StartAction: action,
		}},
	}
	return c
}

// pair is two gateways with a network between them.
type pair struct {
	net  *network
	a, b *node
}

func newPair(t testing.TB, seed uint64) *pair {
	n := newNetwork(t, seed)
	return &pair{n, n.node("a", "192.0.2.1"), n.node("b", "192.0.2.2")}
}

// configure gives a and b n connections with each other, changed by the edits.
func (p *pair) configure(t testing.TB, n int, edit func(side string, c *ikesa.Connection)) {
	t.Helper()
	var as, bs Config
	as.Store, bs.Store = testStore(), testStore()
	for i := range n {
		ca := connection(i, "a", "b", true, "192.0.2.2")
		cb := connection(i, "b", "a", false, "192.0.2.1")
		if edit != nil {
			edit("a", ca)
			edit("b", cb)
		}
		as.Connections, bs.Connections = append(as.Connections, ca), append(bs.Connections, cb)
	}
	if err := p.b.server.Load().Apply(&bs); err != nil {
		t.Fatal(err)
	}
	if err := p.a.server.Load().Apply(&as); err != nil {
		t.Fatal(err)
	}
}

func (p *pair) start(o Options) {
	p.a.start(o)
	p.b.start(o)
}

func (p *pair) close(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for _, nd := range []*node{p.a, p.b} {
		nd.server.Load().Close(ctx)
	}
	time.Sleep(time.Minute) // what is still on its way
}

// simulate runs a test in virtual time with a pair, and closes it. With SALLYPORT_TEST_LOGS naming a folder, both logs of
// a test that fails are kept there.
func simulate(t *testing.T, seed uint64, o Options, f func(t *testing.T, p *pair)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, seed)
		p.start(o)
		defer func() {
			p.close(t)
			if dir := os.Getenv("SALLYPORT_TEST_LOGS"); t.Failed() && dir != "" {
				for _, nd := range []*node{p.a, p.b} {
					name := strings.ReplaceAll(t.Name(), "/", "_") + "." + nd.name
					if err := os.WriteFile(filepath.Join(dir, name), nd.log.Bytes(), 0o600); err != nil {
						t.Error(err)
					}
				}
			}
		}()
		f(t, p)
	})
}
