package ikesa

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/ike/auth"
	"sallyport/ike/message"
	"sallyport/ike/suite"
)

// world is two hosts, a and b, a network between them that does what the test says,
// and a clock that stands still unless told to go on.
type world struct {
	mtu   int // of the path between them, which drops what is larger without a word if it must not be cut up; 0: any size passes
	t     testing.TB
	now   time.Time
	hosts map[string]*host
	net   []*packet // on their way, oldest first
	log   strings.Builder
	// nat, if set, translates a's source address on the way to b, and back.
	nat map[netip.AddrPort]netip.AddrPort
	// forged says that one host hears what the other did not say, so that they need not agree.
	forged bool
	dead   map[netip.Addr]bool // addresses that nothing reaches
	keys   map[string]string   // every outbound key ever installed, and for what
}

// packet is a datagram on its way.
type packet struct {
	from *host
	Datagram
}

// host is one side: what the server and the data plane would be.
type host struct {
	w       *world
	name    string
	addr    netip.Addr
	rng     *rand.ChaCha8
	first   int // first byte of every nonce, -1 = random
	nextIKE uint64
	nextSPI uint32
	conn    *Connection
	store   *auth.Store
	selects func(Query) *Connection
	sas     map[message.SPI]*SA
	last    *SA // the newest
	in      map[uint32]*ChildSA
	out     map[uint32]*ChildSA
	order   []uint32 // outbound SPIs in the order of their installation
	spis    map[uint32]bool
	leased  map[netip.Addr]bool
	pool    netip.Addr
	usage   map[uint32]Usage
	paths   map[uint32]int // path MTUs, by inbound SPI
	found   PathFound      // the last result of a search
	virtual []netip.Addr
	verify  []Verify
	drops   map[Reason]int
	ended   []Ended
	keylog  int
	noSPIs  bool
	link    int // MTU of its link; 0: it has no way for what must not be cut up
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newWorld(t testing.TB, seed uint64) *world {
	w := &world{t: t, now: epoch, hosts: map[string]*host{}}
	for i, name := range []string{"a", "b"} {
		var key [32]byte
		binary.LittleEndian.PutUint64(key[:], seed)
		key[31] = byte(i)
		addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)})
		w.hosts[name] = &host{
			w: w, name: name, addr: addr, rng: rand.NewChaCha8(key), first: -1,
			nextIKE: uint64(0xa+i) << 4, nextSPI: uint32(0xa00 + 0x100*i),
			sas: map[message.SPI]*SA{}, in: map[uint32]*ChildSA{}, out: map[uint32]*ChildSA{}, spis: map[uint32]bool{},
			leased: map[netip.Addr]bool{}, usage: map[uint32]Usage{}, drops: map[Reason]int{}, paths: map[uint32]int{},
			pool: netip.MustParseAddr("198.18.0.1"),
		}
	}
	w.hosts["a"].conn = testConnection("a", "b", "198.51.100.0/25", "198.51.100.128/25")
	w.hosts["b"].conn = testConnection("b", "a", "198.51.100.128/25", "198.51.100.0/25")
	for _, h := range w.hosts {
		h.store = testStore()
	}
	return w
}

func prefixSelector(s string) Selector {
	if s == "dynamic" {
		return Selector{Dynamic: true}
	}
	return Selector{TS: message.SelectorOf(netip.MustParsePrefix(s))}
}

func proposalsIKE(t testing.TB, words ...string) []suite.Proposal {
	all, err := suite.ParseList(words, suite.ParseIKE, nil)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func proposalsESP(t testing.TB, words ...string) []suite.Proposal {
	all, err := suite.ParseList(words, suite.ParseESP, nil)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// testConnection is the connection of a host to another one: one child, named net.
func testConnection(own, peer, local, remote string) *Connection {
	return &Connection{
		Name:      own + "-" + peer,
		Proposals: []suite.Proposal{must(suite.ParseIKE("aes128gcm16-prfsha256-x25519"))},
		Local:     testLocal(own), Remote: testRemote(peer),
		Children: []*Child{{
			Name:      "net",
			Proposals: []suite.Proposal{must(suite.ParseESP("aes128gcm16-esn-noesn"))},
			LocalTS:   []Selector{prefixSelector(local)}, RemoteTS: []Selector{prefixSelector(remote)},
		}},
		Retransmit: Retransmit{Timeout: 4 * time.Second, Base: 1.8, Tries: 5},
		SendCert:   SendCertAlways, SendCertReq: true,
	}
}

// Env

func (h *host) Rand() io.Reader { return h }

func (h *host) Read(b []byte) (int, error) {
	h.rng.Read(b)
	if h.first >= 0 && len(b) == nonceLen {
		b[0] = byte(h.first)
	}
	return len(b), nil
}

func (h *host) NewIKESPI() message.SPI { h.nextIKE++; return message.SPI(h.nextIKE) }

func (h *host) NewChildSPI() (uint32, error) {
	if h.noSPIs {
		return 0, errors.New("full")
	}
	h.nextSPI++
	h.spis[h.nextSPI] = true
	return h.nextSPI, nil
}

func (h *host) ReleaseChildSPI(spi uint32) {
	if !h.spis[spi] {
		h.w.t.Errorf("%s releases SPI %x, which is not reserved", h.name, spi)
	}
	delete(h.spis, spi)
}

func (h *host) Select(q Query) *Connection {
	if h.selects != nil {
		return h.selects(q)
	}
	return h.conn
}

func (h *host) Store() *auth.Store { return h.store }

func (h *host) RekeyWait() time.Duration { return 0 }
func (h *host) LinkMTU(netip.Addr) int   { return h.link }

func (h *host) PathFound(Path) (PathFound, bool)         { return PathFound{}, false }
func (h *host) PathTurn(Path, message.SPI) time.Duration { return 0 }

func (h *host) AssignAddress(_ *Connection, _ auth.Identity, wanted netip.Addr) (Lease, error) {
	addr := h.pool
	if wanted.BitLen() != addr.BitLen() {
		return Lease{}, errors.New("no pool of this family")
	}
	for h.leased[addr] {
		addr = addr.Next()
	}
	h.leased[addr] = true
	return Lease{Addr: addr, DNS: []netip.Addr{netip.MustParseAddr("198.18.0.254")}}, nil
}

func (h *host) ReleaseAddress(_ *Connection, _ auth.Identity, addr netip.Addr) {
	if !h.leased[addr] {
		h.w.t.Errorf("%s releases %v, which is not leased", h.name, addr)
	}
	delete(h.leased, addr)
}

func (h *host) Usage(spiIn, _ uint32) (Usage, bool) {
	u, ok := h.usage[spiIn]
	return u, ok
}

func (h *host) KeyLog() bool { return true }

// perform does what a machine wants done.
func (h *host) perform(out *Outputs) {
	for _, action := range out.Actions {
		switch a := action.(type) {
		case Send:
			h.w.net = append(h.w.net, &packet{h, Datagram{Local: a.Local, Remote: a.Remote, Data: bytes.Clone(a.Data), Whole: a.Whole}})
		case Keepalive:
			h.say("keepalive %v", a.Remote)
		case InstallInbound:
			if !h.spis[a.SPIIn] {
				h.w.t.Errorf("%s installs SPI %x, which is not reserved", h.name, a.SPIIn)
			}
			h.in[a.SPIIn] = a.ChildSA
			h.say("install in %s", describeChild(a.ChildSA, true))
		case InstallOutbound:
			if h.in[a.SPIIn] == nil {
				h.w.t.Errorf("%s installs outbound %x before its inbound half", h.name, a.SPIOut)
			}
			h.w.keyUsedOnce(h, a.SPIOut, a.KeyOut)
			h.out[a.SPIOut] = a.ChildSA
			h.order = append(h.order, a.SPIOut)
			h.say("install out %s", describeChild(a.ChildSA, false))
		case UpdateChild:
			h.say("update %x: %v to %v%s", a.SPIIn, a.Local, a.Remote, map[bool]string{true: " in UDP"}[a.Encap])
			if c := h.in[a.SPIIn]; c != nil {
				c.Local, c.Remote, c.Encap = a.Local, a.Remote, a.Encap
			}
			if c := h.out[a.SPIOut]; c != nil {
				c.Local, c.Remote, c.Encap = a.Local, a.Remote, a.Encap
			}
		case PathMTU:
			h.paths[a.SPIIn] = a.MTU
			h.say("path MTU of %x: %d for %v", a.SPIIn, a.MTU, a.Until.Sub(h.w.now).Round(time.Minute))
		case PathFound:
			h.found = a
		case RemoveChild:
			if h.in[a.SPIIn] == nil || (a.SPIOut != 0) != (h.out[a.SPIOut] != nil) {
				h.w.t.Errorf("%s removes %x/%x, installed are %v and %v", h.name, a.SPIIn, a.SPIOut, h.in[a.SPIIn], h.out[a.SPIOut])
			}
			delete(h.in, a.SPIIn)
			delete(h.spis, a.SPIIn)
			delete(h.out, a.SPIOut)
			h.order = slices.DeleteFunc(h.order, func(s uint32) bool { return s == a.SPIOut })
			h.say("remove %x: %v", a.SPIIn, a.Reason)
		case Verify:
			h.verify = append(h.verify, a)
			h.say("verify")
		case NewSA:
			if _, taken := h.sas[a.SA.LocalSPI()]; taken {
				h.w.t.Errorf("%s: two SAs with SPI %v", h.name, a.SA.LocalSPI())
			}
			h.sas[a.SA.LocalSPI()] = a.SA
			h.last = a.SA
			h.say("new %s", ikeName(a.SA))
		case Touched:
		case InitialContact:
			h.say("initial contact on %s", ikeName(a.SA))
		case Assigned:
			for _, l := range a.Leases {
				h.virtual = append(h.virtual, l.Addr)
				h.say("assigned %v dns %v", l.Addr, l.DNS)
			}
		case Unassigned:
			h.virtual = nil
			h.say("unassigned %v", a.Addrs)
		case KeyLog:
			h.keylog++
			a.Keys.AppendKeyLog(nil, a.SPIi, a.SPIr)
		case Report:
			h.event(a.Event)
		case Ended:
			delete(h.sas, a.SA.LocalSPI())
			h.ended = append(h.ended, a)
			h.say("ended %s: %v", ikeName(a.SA), a.Reason)
			if h.last == a.SA {
				h.last = nil
				for _, spi := range slices.Sorted(maps.Keys(h.sas)) {
					h.last = h.sas[spi]
				}
			}
		default:
			h.w.t.Fatalf("unknown action %T", a)
		}
	}
	out.Actions = out.Actions[:0]
	h.w.check()
}

func ikeName(s *SA) string {
	side := "responder"
	if s.initiator {
		side = "initiator"
	}
	return fmt.Sprintf("IKE SA %x (%s)", uint64(s.LocalSPI()), side)
}

func describeChild(c *ChildSA, in bool) string {
	spi, key := c.SPIIn, c.KeyIn
	if !in {
		spi, key = c.SPIOut, c.KeyOut
	}
	s := fmt.Sprintf("%x %s %s %v to %v", spi, c.Child.Name, c.Choice, tsString(c.LocalTS), tsString(c.RemoteTS))
	if c.Mode == Transport {
		s += " transport"
		if c.Encap {
			s += fmt.Sprintf(" (%v to %v over there)", c.SeenLocal, c.SeenRemote)
		}
	}
	if c.Replaces != 0 {
		s += fmt.Sprintf(" replaces %x", c.Replaces)
	}
	if c.Encap {
		s += " in UDP"
	}
	if len(key) == 0 {
		s += " WITHOUT KEY"
	}
	return s
}

func tsString(list []message.TrafficSelector) string {
	var all []string
	for _, t := range list {
		all = append(all, t.String())
	}
	return strings.Join(all, ",")
}

// event writes what is not visible otherwise.
func (h *host) event(e Event) {
	why := ""
	if e.Reason != ReasonNone {
		why = ": " + e.Reason.String()
	}
	switch e.Kind {
	case EventDrop:
		h.drops[e.Reason]++
		h.say("drop%s", why)
	case EventRetransmit:
		h.say("retransmit %v %d", e.Exchange, e.MessageID)
	case EventEstablished:
		h.say("established %s", ikeName(e.SA))
	case EventRekeyed:
		h.say("rekeyed to %s", ikeName(e.Successor))
	case EventChildFailed:
		name := "none"
		if e.Child != nil {
			name = e.Child.Name
		}
		h.say("child %s failed%s", name, why)
	case EventExchange:
		if e.Reason != ReasonNone {
			h.say("%v %d failed%s", e.Exchange, e.MessageID, why)
		}
	case EventMoved:
		h.say("moved")
	case EventHint:
		h.say("hint%s", why)
	}
}

func (h *host) say(format string, args ...any) {
	fmt.Fprintf(&h.w.log, "  %s: %s\n", h.name, fmt.Sprintf(format, args...))
}

// check is the invariant that a rekey loses nothing: whatever association a host sends
// on in the place of another one, the other host can receive on, with the same key
// and matching selectors.
func (w *world) check() {
	if w.forged {
		return
	}
	for _, pair := range [][2]string{{"a", "b"}, {"b", "a"}} {
		from, to := w.hosts[pair[0]], w.hosts[pair[1]]
		for _, c := range from.out {
			peer := to.in[c.SPIOut]
			if peer == nil {
				continue
			}
			same := slices.Equal(c.LocalTS, peer.RemoteTS) && slices.Equal(c.RemoteTS, peer.LocalTS)
			if c.Mode == Transport && c.Encap { // each has the addresses of its own side, and knows the other's
				same = peer.SeenRemote == c.LocalTS[0].Start && peer.SeenLocal == c.RemoteTS[0].Start
			}
			if !same || !bytes.Equal(c.KeyOut, peer.KeyIn) || c.Choice.Cipher() != peer.Choice.Cipher() || c.Mode != peer.Mode {
				w.t.Errorf("%s and %s disagree about %x:\n%s\n%s", from.name, to.name, c.SPIOut, describeChild(c, false), describeChild(peer, true))
			}
		}
		if len(from.order) == 0 {
			continue
		}
		spi := from.order[len(from.order)-1]
		if c := from.out[spi]; c.Replaces != 0 && to.in[spi] == nil && from.in[c.Replaces] != nil && !from.deletes(c.SPIIn) && !to.lostPeer() {
			w.t.Errorf("%s sends on %x, which %s cannot receive\n%s", from.name, spi, to.name, w.log.String())
		}
	}
}

// lostPeer says whether the host has given up an IKE SA because its peer did not answer: the peer does not know yet.
func (h *host) lostPeer() bool {
	return slices.ContainsFunc(h.ended, func(e Ended) bool { return e.Reason == ReasonPeerDead })
}

// deletes says whether the host has asked for the end of a child itself.
func (h *host) deletes(spi uint32) bool {
	for _, s := range h.sas {
		if c := s.childBySPIIn(spi); c != nil {
			return c.state == childDeleting
		}
	}
	return false
}

// drive calls one machine.
func (h *host) drive(s *SA, f func(out *Outputs)) {
	var out Outputs
	f(&out)
	h.perform(&out)
}

func (h *host) initiate(options InitiatorOptions) *SA {
	peer := h.w.peer(h)
	if options.Child == nil && h.conn.Childless == ChildlessAllow {
		options.Child = h.conn.Children[0]
	}
	s := NewInitiator(h.conn, h, netip.AddrPortFrom(h.addr, 500), netip.AddrPortFrom(peer.addr, 500), options)
	h.sas[s.LocalSPI()], h.last = s, s
	h.drive(s, func(out *Outputs) { s.Command(h.w.now, Initiate{}, out) })
	return s
}

func (h *host) command(c Command) {
	s := h.last
	if s == nil {
		h.w.t.Fatalf("%s has no IKE SA", h.name)
	}
	h.drive(s, func(out *Outputs) { s.Command(h.w.now, c, out) })
}

func (w *world) peer(h *host) *host {
	if h.name == "a" {
		return w.hosts["b"]
	}
	return w.hosts["a"]
}

// size is that of a packet with its IP header.
func (p *packet) size() int {
	n := len(p.Data) + 28
	if p.Remote.Addr().Is6() {
		n += 20
	}
	if natT(p.Local, p.Remote) {
		n += 4
	}
	return n
}

// deliver hands a packet to the host that it is for.
func (w *world) deliver(p *packet) {
	h := w.peer(p.from)
	if p.Whole && w.mtu != 0 && p.size() > w.mtu {
		fmt.Fprintf(&w.log, "  %d bytes are more than the path takes\n", p.size())
		return
	}
	if w.dead[p.Remote.Addr()] {
		h.say("nothing arrives at %v", p.Remote.Addr())
		return
	}
	d := Datagram{Local: p.Remote, Remote: p.Local, Data: bytes.Clone(p.Data)}
	if to, ok := w.nat[d.Remote]; ok && p.from.name == "a" {
		d.Remote = to
	}
	if p.from.name == "b" {
		known := len(w.nat) == 0
		for inside, outside := range w.nat {
			if outside == d.Local {
				d.Local, known = inside, true
			}
		}
		if !known {
			return // the translator has no such mapping
		}
	}
	header, err := message.ParseHeader(d.Data)
	if err != nil {
		h.say("drop: %v", ReasonOf(err))
		return
	}
	own := header.ResponderSPI
	if !header.FromInitiator() {
		own = header.InitiatorSPI
	}
	s := h.sas[own]
	if s == nil && header.Exchange == message.IKESAInit && !header.IsResponse() {
		for _, o := range h.sas {
			if !o.initiator && o.spiI == header.InitiatorSPI {
				s = o
			}
		}
		if s == nil {
			s = NewResponder(h)
			h.drive(s, func(out *Outputs) { s.Receive(w.now, d, out) })
			if s.state != StateEnded {
				h.sas[s.LocalSPI()], h.last = s, s
			}
			return
		}
	}
	if s == nil {
		h.say("drop: no IKE SA %x", uint64(own))
		return
	}
	h.drive(s, func(out *Outputs) { s.Receive(w.now, d, out) })
}

// describe shows a packet as its receiver will see it.
func (w *world) describe(p *packet) string {
	h := w.peer(p.from)
	data := bytes.Clone(p.Data)
	m, err := message.Parse(data)
	if err != nil {
		return fmt.Sprintf("%s->%s malformed: %v", p.from.name, h.name, err)
	}
	kind := "request"
	if m.Header.IsResponse() {
		kind = "response"
	}
	what := ""
	number, total, fragment := m.Fragment()
	switch {
	case fragment:
		what = fmt.Sprintf("fragment %d/%d", number, total)
	default:
		if m.Header.Exchange != message.IKESAInit {
			what = "?"
			for _, s := range h.sas {
				if s.opener != nil && s.spiI == m.Header.InitiatorSPI && s.spiR == m.Header.ResponderSPI {
					if e := m.Open(s.opener); e == nil {
						what = payloadNames(m)
					}
				}
			}
		} else {
			what = payloadNames(m)
		}
	}
	return fmt.Sprintf("%s->%s %v %s %d: %s", p.from.name, h.name, m.Header.Exchange, kind, m.Header.MessageID, what)
}

func payloadNames(m *message.Message) string {
	var names []string
	for _, p := range m.Payloads {
		name := p.Type().String()
		switch p := p.(type) {
		case *message.Notify:
			if p.Notify == message.RekeySA {
				name = fmt.Sprintf("N(REKEY_SA %x)", p.SPI[len(p.SPI)-2:])
			} else {
				name = fmt.Sprintf("N(%v)", p.Notify)
			}
		case *message.Delete:
			name = fmt.Sprintf("D(%v%s)", p.Protocol, strings.TrimSuffix(fmt.Sprintf(" %x", p.SPIs), " []"))
		case *message.KE:
			name = fmt.Sprintf("KE(%s)", suite.KEWord(p.Method))
		}
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

// take removes and returns the oldest packet of a host, nil if there is none.
func (w *world) take(from string) *packet {
	for i, p := range w.net {
		if from == "" || p.from.name == from {
			w.net = slices.Delete(w.net, i, i+1)
			return p
		}
	}
	return nil
}

// pass delivers the oldest packet of a host and says so.
func (w *world) pass(from string) bool {
	p := w.take(from)
	if p == nil {
		return false
	}
	fmt.Fprintln(&w.log, w.describe(p))
	w.deliver(p)
	return true
}

// settle delivers everything until nothing is on its way.
func (w *world) settle() {
	for i := 0; w.pass(""); i++ {
		if i > 10000 {
			w.t.Fatal("the network never rests")
		}
	}
}

// advance lets time pass; deadlines are met in their order. Packets wait.
func (w *world) advance(d time.Duration) {
	w.advanceWith(d, func() {})
}

func (w *world) advanceWith(d time.Duration, after func()) {
	end := w.now.Add(d)
	for range 100000 {
		var next *SA
		var of *host
		for _, name := range []string{"a", "b"} {
			h := w.hosts[name]
			for _, s := range h.sorted() {
				if at := s.Deadline(); !at.IsZero() && !at.After(end) && (next == nil || at.Before(next.Deadline())) {
					next, of = s, h
				}
			}
		}
		if next == nil {
			w.now = end
			return
		}
		if at := next.Deadline(); at.After(w.now) {
			w.now = w.now.Add(at.Sub(w.now)) // where both readings of the clock differ, the deadline's wall clock is not set
		}
		of.drive(next, func(out *Outputs) { next.Tick(w.now, out) })
		after()
	}
	w.t.Fatal("a deadline is never met")
}

func (h *host) sorted() []*SA {
	return slices.SortedFunc(maps.Values(h.sas), func(a, b *SA) int { return cmp.Compare(a.LocalSPI(), b.LocalSPI()) })
}

// childByName is the newest child of that name that is up.
func (h *host) childByName(name string) uint32 {
	var spi uint32
	for _, s := range h.sorted() {
		for _, c := range s.children {
			if c.conf.Name == name && c.state == childUp && !c.redundant {
				spi = c.spiIn
			}
		}
	}
	return spi
}

// state shows IKE SAs and installed associations of both hosts.
func (w *world) state() {
	for _, name := range []string{"a", "b"} {
		h := w.hosts[name]
		for _, s := range h.sorted() {
			fmt.Fprintf(&w.log, "%s: %s %v", name, ikeName(s), s.state)
			for _, c := range s.children {
				fmt.Fprintf(&w.log, " [%s %x/%x %v", c.conf.Name, c.spiIn, c.spiOut, c.state)
				if !c.outbound {
					fmt.Fprint(&w.log, " inbound only")
				}
				fmt.Fprint(&w.log, "]")
			}
			fmt.Fprintln(&w.log)
		}
		fmt.Fprintf(&w.log, "%s: in %x out %x\n", name, slices.Sorted(maps.Keys(h.in)), slices.Sorted(maps.Keys(h.out)))
	}
}

// idle checks that nothing is left of what was reserved when all is over.
func (w *world) idle() {
	for _, h := range w.hosts {
		if len(h.sas) == 0 && (len(h.spis) > 0 || len(h.leased) > 0 || len(h.in) > 0 || len(h.out) > 0) {
			w.t.Errorf("%s keeps SPIs %v, addresses %v, associations %v %v", h.name, h.spis, h.leased, h.in, h.out)
		}
		for spi := range h.spis {
			if h.in[spi] == nil && w.quiet() {
				w.t.Errorf("%s keeps SPI %x reserved", h.name, spi)
			}
		}
	}
}

func (w *world) quiet() bool {
	for _, h := range w.hosts {
		for _, s := range h.sas {
			if s.request != nil || len(s.queue) > 0 || len(s.followups) > 0 || s.state < StateEstablished {
				return false
			}
		}
	}
	return true
}
