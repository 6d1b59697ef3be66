package ike

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/ike/ikesa"
	"sallyport/ike/message"
)

// wire keeps what was sent.
type wire struct {
	mu  sync.Mutex
	all []ikesa.Datagram
}

func (w *wire) tap(n *network) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tap = func(d ikesa.Datagram) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.all = append(w.all, ikesa.Datagram{Local: d.Local, Remote: d.Remote, Data: bytes.Clone(d.Data)})
	}
}

func (w *wire) taken() []ikesa.Datagram {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.all
	w.all = nil
	return all
}

// inject brings a datagram to whoever has its destination, as if from its source.
func (n *network) inject(d ikesa.Datagram) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.deliver(d, 0)
}

// TestHonestInitiatorGetsThroughAFlood: C1. 20,000 spoofed requests a second for five seconds; each of 20 honest tunnels
// comes up, and what the flood left is next to nothing.
func TestHonestInitiatorGetsThroughAFlood(t *testing.T) {
	simulate(t, 1, Options{Limits: Limits{CookieThreshold: 10}}, func(t *testing.T, p *pair) {
		b := p.b.server.Load()
		stop := make(chan struct{})
		go func() {
			request := initRequest(1, nil)
			for i := uint64(1); ; i++ {
				for range 20 {
					i++
					binary.BigEndian.PutUint64(request, i)
					from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), uint16(i))
					b.Receive(ikesa.Datagram{Local: hereAt, Remote: from, Data: request})
				}
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
			}
		}()
		time.Sleep(time.Second)
		began := time.Now()
		p.configure(t, 20, nil)
		for range 100 {
			if in, _, _ := p.a.counts(); in == 20 {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		took := time.Since(began)
		time.Sleep(3 * time.Second)
		close(stop)
		if n := paired(t, p.a, p.b); n != 20 {
			t.Errorf("%d children", n)
		}
		s := b.Stats()
		if took > 2*time.Second || s.HalfOpen > 60 || s.Drops[DropCookieDemanded] < 20000 {
			t.Errorf("%v, %d half-open, %d cookies", took, s.HalfOpen, s.Drops[DropCookieDemanded])
		}
	})
}

// TestManyClientsBehindOneAddress: C1. Of the clients behind a translator the first are let in at once, the others with cookies.
func TestManyClientsBehindOneAddress(t *testing.T) {
	simulate(t, 1, Options{Workers: 2, Limits: Limits{HalfOpenPerAddress: 3}}, func(t *testing.T, p *pair) {
		const n = 60
		p.configure(t, n, func(side string, c *ikesa.Connection) {
			if side == "b" {
				c.RemoteAddrs = nil
			}
		})
		time.Sleep(2 * time.Second) // less than the first retransmission
		if in, _, _ := p.b.counts(); in != n {
			t.Errorf("%d of %d children", in, n)
		}
		if s := p.b.server.Load().Stats(); s.Drops[DropHalfOpenAddress] != 0 || s.Drops[DropCookieDemanded] == 0 {
			t.Errorf("%d refused, %d asked for cookies", s.Drops[DropHalfOpenAddress], s.Drops[DropCookieDemanded])
		}
	})
}

// TestOneAddressCannotHoldMoreThanItsShare: C1, C16. Whoever answers with cookies from a real address gets a hundredth of the half-open
// IKE SAs, for a while; who does not, a few.
func TestOneAddressCannotHoldMoreThanItsShare(t *testing.T) {
	simulate(t, 1, Options{Workers: 1, Limits: Limits{HalfOpenPerAddress: 3, HalfOpen: 1000}}, func(t *testing.T, p *pair) {
		p.configure(t, 1, func(side string, c *ikesa.Connection) {
			c.Children[0].StartAction = ikesa.ActionNone
			if side == "b" {
				c.RemoteAddrs = nil
			}
		})
		// A real request, sent again under other SPIs.
		var w wire
		w.tap(p.net)
		p.b.deaf.Store(true)
		go func() { _ = p.a.server.Load().Up(t.Context(), "a-b-0", "") }()
		time.Sleep(time.Second)
		p.b.deaf.Store(false)
		first := w.taken()[0]
		b := p.b.server.Load()
		for i := range 50 {
			data := bytes.Clone(first.Data)
			binary.BigEndian.PutUint64(data, uint64(i+1))
			b.Receive(ikesa.Datagram{Local: first.Remote, Remote: netip.MustParseAddrPort("192.0.2.200:500"), Data: data})
		}
		time.Sleep(100 * time.Millisecond)
		if s := b.Stats(); s.HalfOpen != 3 || s.Drops[DropHalfOpenAddress] != 0 || s.Drops[DropCookieDemanded] != 47 {
			t.Errorf("%d half-open, %d refused, %d asked for cookies", s.HalfOpen, s.Drops[DropHalfOpenAddress], s.Drops[DropCookieDemanded])
		}
		// With cookies it gets its share.
		for i := range 50 {
			data := bytes.Clone(first.Data)
			binary.BigEndian.PutUint64(data, uint64(i+201))
			h, _ := message.ParseHeader(data)
			_, nonce, _ := cookieAndNonce(h, data)
			cookie := b.gate.cookies.make(time.Now(), h.InitiatorSPI, netip.MustParseAddr("192.0.2.200"), nonce)
			m, err := message.Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			m.Payloads = append([]message.Payload{&message.Notify{Notify: message.Cookie, Data: cookie[:]}}, m.Payloads...)
			b.Receive(ikesa.Datagram{Local: first.Remote, Remote: netip.MustParseAddrPort("192.0.2.200:500"), Data: m.Append(nil)})
		}
		time.Sleep(100 * time.Millisecond)
		if s := b.Stats(); s.HalfOpen != 1000/addressShare || s.Drops[DropHalfOpenAddress] != 50-(1000/addressShare-3) {
			t.Errorf("%d half-open, %d refused with cookies", s.HalfOpen, s.Drops[DropHalfOpenAddress])
		}
		// The same datagram again is the same IKE SA (RFC 7296, 2.1).
		data := bytes.Clone(first.Data)
		binary.BigEndian.PutUint64(data, 1)
		b.Receive(ikesa.Datagram{Local: first.Remote, Remote: netip.MustParseAddrPort("192.0.2.200:500"), Data: data})
		time.Sleep(2 * time.Minute)
		if s := b.Stats(); s.HalfOpen != 0 || s.Reasons[ikesa.ReasonHalfOpen] != 1000/addressShare || s.Repeated != 1 {
			t.Errorf("%d half-open, %d timed out, %d repeated", s.HalfOpen, s.Reasons[ikesa.ReasonHalfOpen], s.Repeated)
		}
		// Another limit counts from now on.
		b.Limit(Limits{HalfOpenPerAddress: 1, CookieThreshold: 2})
		for i := range 5 {
			data := bytes.Clone(first.Data)
			binary.BigEndian.PutUint64(data, uint64(i+101))
			b.Receive(ikesa.Datagram{Local: first.Remote, Remote: netip.MustParseAddrPort("192.0.2.200:500"), Data: data})
		}
		time.Sleep(100 * time.Millisecond)
		if s := b.Stats(); s.HalfOpen != 1 {
			t.Errorf("%d half-open under another limit", s.HalfOpen)
		}
		time.Sleep(2 * time.Minute)
	})
}

// TestNobodyKillsATunnelFromOutside: C3, C6, C15, C20, C21, C22. Every datagram of a tunnel's life is thrown back at both
// ends: as it was, reflected, with each header field changed, cut and lengthened, from elsewhere. Nothing comes of it.
func TestNobodyKillsATunnelFromOutside(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		var w wire
		w.tap(p.net)
		p.configure(t, 1, nil)
		time.Sleep(time.Second)
		if err := p.a.server.Load().Rekey(t.Context(), "a-b-0", "net"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // a few liveness checks
		paired(t, p.a, p.b)
		place := map[string]association{}
		synctest.Wait()
		for _, nd := range []*node{p.a, p.b} {
			for spi, o := range nd.out {
				place[fmt.Sprint(nd.name, spi)] = *o
			}
		}
		stranger := netip.MustParseAddrPort("203.0.113.7:4500")
		attacks := 0
		for _, d := range w.taken() {
			for _, change := range []func(b []byte) []byte{
				func(b []byte) []byte { return b },
				func(b []byte) []byte { b[19] ^= byte(message.Initiator); return b },
				func(b []byte) []byte { b[19] ^= byte(message.Response); return b },
				func(b []byte) []byte { b[18] = byte(message.Informational); return b },
				func(b []byte) []byte { b[18] = byte(message.CreateChildSA); return b },
				func(b []byte) []byte { b[18] = byte(message.IKESAInit); return b },
				func(b []byte) []byte { b[18] = 200; return b },
				func(b []byte) []byte { b[23]++; return b },
				func(b []byte) []byte { b[20] = 0xff; return b },
				func(b []byte) []byte { b[16] = byte(message.TypeDelete); return b },
				func(b []byte) []byte { b[16] = byte(message.TypeEncryptedFragment); return b },
				func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
				func(b []byte) []byte { return fixed(b[:len(b)-1]) },
				func(b []byte) []byte { return fixed(append(b, 0)) },
				func(b []byte) []byte { return fixed(b[:message.HeaderLen]) },
				func(b []byte) []byte { // an unprotected notify and a delete of the IKE SA under its real SPIs
					m := message.Message{Header: must(message.ParseHeader(b))}
					m.Header.Exchange = message.Informational
					m.Payloads = []message.Payload{&message.Notify{Notify: message.InvalidIKESPI}, &message.Delete{Protocol: message.ProtocolIKE},
						&message.Notify{Notify: message.AuthenticationFailed}}
					return m.Append(nil)
				},
			} {
				data := change(bytes.Clone(d.Data))
				for _, at := range []ikesa.Datagram{
					{Local: d.Local, Remote: d.Remote}, // again
					{Local: d.Remote, Remote: d.Local}, // reflected
					{Local: stranger, Remote: d.Remote},
				} {
					at.Data = data
					p.net.inject(at)
					attacks++
				}
			}
			synctest.Wait()
		}
		time.Sleep(2 * time.Minute)
		if attacks < 500 {
			t.Errorf("only %d attacks", attacks)
		}
		if n := paired(t, p.a, p.b); n != 1 {
			t.Errorf("%d children", n)
		}
		for _, nd := range []*node{p.a, p.b} {
			for spi, o := range nd.out {
				was, ok := place[fmt.Sprint(nd.name, spi)]
				if !ok || was.Remote != o.Remote || was.Local != o.Local {
					t.Errorf("%s: %08x was moved to %v, %v", nd.name, spi, o.Local, o.Remote)
				}
			}
			s := nd.server.Load().Stats()
			if s.SAs != 1 || s.Panics != 0 || s.ChildrenDown > 1 {
				t.Errorf("%s: %+v", nd.name, s)
			}
		}
	})
}

func fixed(b []byte) []byte {
	binary.BigEndian.PutUint32(b[24:], uint32(len(b)))
	return b
}

// TestInitialContactCountsForItsIdentityOnly: C18.
func TestInitialContactCountsForItsIdentityOnly(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		p.configure(t, 3, nil) // each with INITIAL_CONTACT, all from one address
		time.Sleep(time.Minute)
		if n := paired(t, p.a, p.b); n != 3 {
			t.Errorf("%d children", n)
		}
		if s := p.b.server.Load().Stats(); s.Reasons[ikesa.ReasonInitialContact] != 0 {
			t.Error("one peer's word counted for another")
		}
	})
}

// TestRetransmissionIsBoundedAndBacksOff: C7.
func TestRetransmissionIsBoundedAndBacksOff(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		var w wire
		w.tap(p.net)
		p.b.deaf.Store(true)
		p.configure(t, 1, func(side string, c *ikesa.Connection) { c.KeyingTries = 1 })
		var times []time.Time
		for range 600 {
			for range w.taken() {
				times = append(times, time.Now())
			}
			time.Sleep(100 * time.Millisecond)
		}
		if len(times) != 1+6 {
			t.Fatalf("sent %d times", len(times))
		}
		for i := 2; i < len(times); i++ {
			if a, b := times[i-1].Sub(times[i-2]), times[i].Sub(times[i-1]); b < a {
				t.Errorf("waits %v, then %v", a, b)
			}
		}
	})
}

// TestRekeysOfManyTunnelsAreSpread: C24. 100 tunnels that come up together do not rekey together.
func TestRekeysOfManyTunnelsAreSpread(t *testing.T) {
	simulate(t, 1, Options{Limits: Limits{Rekeys: 2, HalfOpenPerAddress: 1000}}, func(t *testing.T, p *pair) {
		const n = 100
		p.configure(t, n, func(side string, c *ikesa.Connection) {
			c.Children[0].RandTime, c.RandTime = 0, 0 // no jitter at all: the limit must do it
			c.DPDDelay = 0
			if side == "b" {
				c.Children[0].RekeyTime, c.RekeyTime = 0, 0
			}
		})
		time.Sleep(59 * time.Minute)
		if got := paired(t, p.a, p.b); got != n {
			t.Fatalf("%d children", got)
		}
		most, before := uint64(0), p.a.server.Load().Stats().ChildRekeyed
		for range 10 * 60 {
			time.Sleep(time.Second)
			now := p.a.server.Load().Stats().ChildRekeyed
			most = max(most, now-before)
			before = now
		}
		if before < n || most > 2*2 {
			t.Errorf("%d rekeys, up to %d a second", before, most)
		}
		if got := paired(t, p.a, p.b); got != n {
			t.Errorf("%d children", got)
		}
	})
}

// TestManyTunnelsLeaveInTurn: those that a reload drops, and those of a server that stops, are not deleted all at once.
func TestManyTunnelsLeaveInTurn(t *testing.T) {
	for _, how := range []string{"reload", "stop"} {
		t.Run(how, func(t *testing.T) {
			simulate(t, 1, Options{Workers: 1, Limits: Limits{HalfOpenPerAddress: 1000}}, func(t *testing.T, p *pair) {
				const n = 150
				p.configure(t, n, nil)
				time.Sleep(time.Minute)
				if got := paired(t, p.a, p.b); got != n {
					t.Fatalf("%d children", got)
				}
				var mu sync.Mutex
				sent := map[time.Time]int{} // by moment
				p.net.mu.Lock()
				p.net.tap = func(d ikesa.Datagram) {
					mu.Lock()
					defer mu.Unlock()
					if h, err := message.ParseHeader(d.Data); err == nil && d.Local.Addr() == netip.MustParseAddr("192.0.2.1") && h.Flags&message.Response == 0 {
						sent[time.Now()]++
					}
				}
				p.net.mu.Unlock()
				a := p.a.server.Load()
				if how == "reload" {
					if err := a.Apply(&Config{Store: testStore()}); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Second)
				} else {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					a.Close(ctx)
					time.Sleep(100 * time.Millisecond)
				}
				mu.Lock()
				defer mu.Unlock()
				all, most := 0, 0
				for _, k := range sent {
					all, most = all+k, max(most, k)
				}
				if all != n || most > shardTurn {
					t.Errorf("%d requests, up to %d at once", all, most)
				}
				if left := p.b.server.Load().Stats().SAs; left != 0 {
					t.Errorf("%d IKE SAs are left with the peer", left)
				}
			})
		})
	}
}

// TestPanicCostsOneIKESAOnly: whatever is wrong with one, the others go on, and that one comes back.
func TestPanicCostsOneIKESAOnly(t *testing.T) {
	simulate(t, 1, Options{Workers: 1}, func(t *testing.T, p *pair) {
		var broken flag
		broken.Store(true)
		p.a.refuse = func(c *ikesa.ChildSA) error {
			if broken.Load() && c.Connection.Name == "a-b-1" {
				p.a.mu.Unlock() // the deferred one comes, too
				defer p.a.mu.Lock()
				panic("a fault of this test")
			}
			return nil
		}
		p.configure(t, 3, nil)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		s := p.a.server.Load().Stats()
		// It is tried again with back-off, not as fast as the network allows.
		if s.Panics == 0 || s.Reasons[ikesa.ReasonPanic] != s.Panics || s.Panics > 10 {
			t.Errorf("%d panics, %d IKE SAs ended by one", s.Panics, s.Reasons[ikesa.ReasonPanic])
		}
		if in, _, _ := p.a.counts(); in != 2 {
			t.Errorf("%d children beside the broken one", in)
		}
		broken.Store(false)
		time.Sleep(5 * time.Minute)
		if in, _, _ := p.a.counts(); in != 3 {
			t.Errorf("%d children in the end", in)
		}
	})
}

// TestRefusedAssociationIsDeletedAgain: the data plane says no; the peer is told.
func TestRefusedAssociationIsDeletedAgain(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		p.a.refuse = func(c *ikesa.ChildSA) error {
			if c.Connection.Name == "a-b-1" {
				return errors.New("full")
			}
			return nil
		}
		p.configure(t, 2, func(side string, c *ikesa.Connection) { c.Children[0].StartAction = ikesa.ActionTrap })
		for _, name := range []string{"a-b-0", "a-b-1"} {
			p.a.server.Load().Acquire(name, "net")
		}
		time.Sleep(10 * time.Second)
		a, _, _ := p.a.counts()
		b, _, _ := p.b.counts()
		if a != 1 || b != 1 {
			t.Errorf("%d children here, %d there", a, b)
		}
	})
}

// TestRefusedAssociationIsTriedWithBackOff: a child that is always wanted, and that the data plane does not take, is not made anew as fast as
// the network allows, and comes up once there is room.
func TestRefusedAssociationIsTriedWithBackOff(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		var full flag
		full.Store(true)
		p.a.refuse = func(c *ikesa.ChildSA) error {
			if full.Load() {
				return errors.New("full")
			}
			return nil
		}
		p.configure(t, 1, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := p.a.server.Load().Stats(); s.ChildrenUp == 0 || s.ChildrenUp > 130 {
			t.Errorf("tried %d times", s.ChildrenUp)
		}
		full.Store(false)
		time.Sleep(2 * time.Minute)
		if n := paired(t, p.a, p.b); n != 1 {
			t.Errorf("%d children", n)
		}
	})
}

// TestKeyLogIsWhatWiresharkReads: a line for every IKE SA, also after a rekey, the same on both sides, and nothing of it
// in the log.
func TestKeyLogIsWhatWiresharkReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, 1)
		var logs [2]bytes.Buffer
		p.a.start(Options{KeyLog: &logs[0]})
		p.b.start(Options{KeyLog: &logs[1]})
		p.configure(t, 1, nil)
		time.Sleep(time.Second)
		if err := p.a.server.Load().Rekey(t.Context(), "a-b-0", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if logs[0].String() != logs[1].String() {
			t.Errorf("here\n%s\nthere\n%s", &logs[0], &logs[1])
		}
		// A reload may begin and end it.
		var later bytes.Buffer
		p.a.server.Load().KeyLog(nil)
		p.b.server.Load().KeyLog(&later)
		if err := p.a.server.Load().Rekey(t.Context(), "a-b-0", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		p.close(t)
		if logs[0].String() != logs[1].String() || bytes.Count(later.Bytes(), []byte("\n")) != 1 {
			t.Errorf("after the change\n%s\n%s\nand\n%s", &logs[0], &logs[1], &later)
		}
		lines := strings.Split(strings.TrimSpace(logs[0].String()), "\n")
		if len(lines) != 2 {
			t.Fatalf("%d lines", len(lines))
		}
		for _, line := range lines {
			f := strings.Split(line, ",")
			if len(f) != 8 || len(f[0]) != 16 || len(f[1]) != 16 || len(f[2]) != 2*20 || len(f[3]) != 2*20 ||
				f[4] != `"AES-GCM-128 with 16 octet ICV [RFC5282]"` || f[5] != "" || f[6] != "" || f[7] != `"NONE [RFC4306]"` {
				t.Errorf("%q", line)
			}
			for _, key := range f[2:4] {
				if bytes.Contains(p.a.log.Bytes(), []byte(key[:16])) {
					t.Error("the log holds a key")
				}
			}
		}
	})
}

// TestLogSaysWhoWhatAndWhy: a line for each exchange, with the reason's name and the rule where it failed.
func TestLogSaysWhoWhatAndWhy(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		p.configure(t, 2, func(side string, c *ikesa.Connection) {
			if c.Name == "a-b-1" {
				c.Children[0].RemoteTS = prefixes("203.0.113.0/24")
			}
		})
		time.Sleep(time.Second)
		type line struct{ Connection, Peer, Exchange, Role, Reason, Rule, Message, Remote string }
		var all []line
		for l := range bytes.Lines(p.a.log.Bytes()) {
			var parsed line
			if err := json.Unmarshal(l, &parsed); err != nil {
				t.Fatalf("%s: %v", l, err)
			}
			all = append(all, parsed)
		}
		for _, want := range []line{
			{Connection: "a-b-0", Exchange: "IKE_SA_INIT", Role: "initiator", Message: "exchange done"},
			{Connection: "a-b-0", Peer: "b0", Exchange: "IKE_AUTH", Role: "initiator", Message: "exchange done"},
			{Connection: "a-b-0", Peer: "b0", Message: "IKE SA established"},
			{Connection: "a-b-1", Peer: "b1", Reason: "selectors", Rule: "RFC 7296, 2.9", Message: "child not established: " + ikesa.ReasonSelectors.Text()},
		} {
			found := false
			for _, l := range all {
				l.Remote = ""
				found = found || l == want
			}
			if !found {
				t.Errorf("no line %+v", want)
			}
		}
	})
}

// TestPanicOfAnOrderIsCaught: neither the manager nor a shard dies of one.
func TestPanicOfAnOrderIsCaught(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		a := p.a.server.Load()
		a.manager.call(func() { panic("a fault of this test") })
		for _, sh := range a.shards {
			sh.call(func() { panic("a fault of this test") })
		}
		p.configure(t, 4, nil)
		time.Sleep(time.Second)
		if n := paired(t, p.a, p.b); n != 4 || a.Stats().Panics != uint64(1+len(a.shards)) {
			t.Errorf("%d children, %d panics", n, a.Stats().Panics)
		}
	})
}
