package ike

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/ike/ikesa"
	"sallyport/ike/message"
)

// initRequest is an IKE_SA_INIT request that has everything the gate looks at, and nothing good behind it.
func initRequest(spi message.SPI, cookie []byte) []byte {
	m := message.Message{
		Header: message.Header{InitiatorSPI: spi, Exchange: message.IKESAInit, Flags: message.Initiator},
		Payloads: []message.Payload{
			&message.SA{Proposals: []message.Proposal{{Number: 1, Protocol: message.ProtocolIKE, Transforms: []message.Transform{{Type: message.TransformEncr, ID: message.EncrNULL}}}}},
			&message.KE{Method: message.KECurve25519, Data: make([]byte, 32)},
			&message.Nonce{Data: bytes.Repeat([]byte{7}, 32)},
		},
	}
	if cookie != nil {
		m.Payloads = append([]message.Payload{&message.Notify{Notify: message.Cookie, Data: cookie}}, m.Payloads...)
	}
	return m.Append(nil)
}

func TestCookieIsTheMACOfRFC7296(t *testing.T) {
	var secret [sha256.BlockSize]byte
	copy(secret[:], "a secret of thirty-two bytes....")
	nonce := bytes.Repeat([]byte{9}, 20)
	for _, from := range []string{"192.0.2.1", "2001:db8::1"} {
		address := netip.MustParseAddr(from)
		got := cookie(3, &secret, 0x0102030405060708, address, nonce)
		mac := hmac.New(sha256.New, secret[:32])
		as16 := address.As16()
		mac.Write([]byte{3, 1, 2, 3, 4, 5, 6, 7, 8})
		mac.Write(as16[:])
		mac.Write(nonce[:cookieNonceLen])
		if want := append([]byte{3}, mac.Sum(nil)[:16]...); !bytes.Equal(got[:], want) {
			t.Errorf("%s: %x, want %x", from, got, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { _ = cookie(3, &secret, 1, netip.IPv6Loopback(), nonce) }); n != 0 {
		t.Errorf("%v allocations for every datagram of a flood", n)
	}
}

func TestCookieIsGoodForItsInitiatorOnlyAndForTwoSecrets(t *testing.T) {
	var c cookies
	c.start(rand.Reader)
	now := time.Now()
	here, nonce := netip.MustParseAddr("192.0.2.1"), bytes.Repeat([]byte{9}, 32)
	made := c.make(now, 1, here, nonce)
	valid := func(at time.Time, spi message.SPI, from netip.Addr, nonce []byte) bool {
		return c.valid(at, made[:], spi, from, nonce)
	}
	if !valid(now, 1, here, nonce) {
		t.Fatal("our own cookie is not valid")
	}
	other := bytes.Repeat([]byte{8}, 32)
	if valid(now, 2, here, nonce) || valid(now, 1, netip.MustParseAddr("192.0.2.2"), nonce) || valid(now, 1, here, other) {
		t.Error("a cookie is valid for somebody else")
	}
	for i := range made {
		forged := made
		forged[i] ^= 1
		if c.valid(now, forged[:], 1, here, nonce) {
			t.Errorf("byte %d does not count", i)
		}
	}
	for n := range len(made) {
		if c.valid(now, made[:n], 1, here, nonce) {
			t.Errorf("%d bytes of a cookie are enough", n)
		}
	}
	if !valid(now.Add(cookieLife), 1, here, nonce) {
		t.Error("not valid with the older secret")
	}
	if valid(now.Add(2*cookieLife), 1, here, nonce) {
		t.Error("valid with a secret that is gone")
	}
	// After a long silence the older secret is much older than its time.
	made = c.make(now.Add(2*cookieLife), 1, here, nonce)
	if valid(now.Add(9*cookieLife), 1, here, nonce) {
		t.Error("a cookie outlives a silence")
	}
}

func TestCookieIsLookedForWhereItMustBe(t *testing.T) {
	look := func(b []byte) ([]byte, []byte, bool) {
		h, err := message.ParseHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		return cookieAndNonce(h, b)
	}
	nonce := bytes.Repeat([]byte{7}, 32)
	if found, n, ok := look(initRequest(1, nil)); !ok || found != nil || !bytes.Equal(n, nonce) {
		t.Error(found, n, ok)
	}
	if found, n, ok := look(initRequest(1, []byte("cookie"))); !ok || string(found) != "cookie" || !bytes.Equal(n, nonce) {
		t.Error(found, n, ok)
	}
	// RFC 7296, 2.6: the cookie is the first payload.
	m, err := message.Parse(initRequest(1, nil))
	if err != nil {
		t.Fatal(err)
	}
	m.Payloads = append([]message.Payload{&message.VendorID{}, &message.Notify{Notify: message.Cookie, Data: []byte("x")}}, m.Payloads...)
	if found, _, ok := look(m.Append(nil)); !ok || found != nil {
		t.Error("a cookie behind another payload counts", found, ok)
	}
	// Whatever is cut off, nothing breaks, and without a nonce it is not a request.
	whole := initRequest(1, []byte("cookie"))
	for n := message.HeaderLen; n < len(whole); n++ {
		b := bytes.Clone(whole[:n])
		binary.BigEndian.PutUint32(b[24:], uint32(n))
		if _, _, ok := look(b); ok {
			t.Errorf("%d of %d bytes have a nonce", n, len(whole))
		}
	}
	// A payload of length zero does not loop.
	b := bytes.Clone(whole)
	b[message.HeaderLen+2], b[message.HeaderLen+3] = 0, 0
	if _, _, ok := look(b); ok {
		t.Error("a payload of length zero passes")
	}
}

func TestHalfOpenCountsAddressesAndIPv6Networks(t *testing.T) {
	var h halfOpen
	h.start()
	a, b := sourceOf(netip.MustParseAddr("2001:db8:1:2::1")), sourceOf(netip.MustParseAddr("2001:db8:1:2:ffff::1"))
	c := sourceOf(netip.MustParseAddr("2001:db8:1:3::1"))
	v4, mapped := sourceOf(netip.MustParseAddr("192.0.2.1")), sourceOf(netip.MustParseAddr("::ffff:192.0.2.1"))
	if a != b || a == c || v4 != mapped || v4 == sourceOf(netip.MustParseAddr("192.0.2.2")) {
		t.Fatal("sources")
	}
	for _, s := range []struct {
		source netip.Addr
		want   Drop
	}{{a, DropNone}, {b, DropNone}, {a, DropHalfOpenAddress}, {c, DropNone}, {v4, DropNone}, {v4, DropHalfOpen}} {
		if got := h.enter(s.source, 2, 4); got != s.want {
			t.Errorf("%v: %v, want %v", s.source, got, s.want)
		}
	}
	for _, s := range []netip.Addr{a, b, c, v4} {
		h.leave(s)
	}
	if h.all.Load() != 0 {
		t.Error(h.all.Load())
	}
	for i := range h.stripes {
		if len(h.stripes[i].count) != 0 {
			t.Error("an address is remembered for nothing")
		}
	}
}

func TestBucketGivesItsRateAndItsBurst(t *testing.T) {
	var b bucket
	b.set(10, 5)
	now := time.Now()
	taken := 0
	for range 3 {
		for range 20 {
			if b.take(now) {
				taken++
			}
		}
		now = now.Add(time.Second / 10)
	}
	if taken != 5+1+1 {
		t.Errorf("%d taken", taken)
	}
	if w := b.wait(now.Add(-50 * time.Millisecond)); w != 50*time.Millisecond {
		t.Errorf("wait %v", w)
	}
	now = now.Add(time.Hour)
	taken = 0
	for range 20 {
		if b.take(now) {
			taken++
		}
	}
	if taken != 5 {
		t.Errorf("%d taken after an hour", taken)
	}
	b.set(100, 2)
	now = now.Add(time.Hour)
	taken = 0
	for range 5 {
		if b.take(now) {
			taken++
		}
	}
	if taken != 2 || !b.take(now.Add(10*time.Millisecond)) {
		t.Errorf("%d taken at another rate", taken)
	}
}

// quiet is a transport that keeps what is sent.
type quiet struct{ sent chan ikesa.Datagram }

func (q quiet) Send(d ikesa.Datagram) error {
	d.Data = bytes.Clone(d.Data)
	select {
	case q.sent <- d:
	default:
	}
	return nil
}
func (q quiet) Keepalive(netip.AddrPort, netip.AddrPort) error { return nil }

var (
	hereAt  = netip.MustParseAddrPort("192.0.2.2:500")
	thereAt = netip.MustParseAddrPort("192.0.2.1:500")
)

// TestFloodIsAnsweredWithCookiesAndLeavesNothing: C1, C2, C20.
func TestFloodIsAnsweredWithCookiesAndLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := quiet{make(chan ikesa.Datagram, 10000)}
		s := NewServer(Options{Workers: 2, Limits: Limits{CookieThreshold: -1}}, out, nil)
		defer s.Close(t.Context())
		request := initRequest(1, nil)
		for i := range 5000 {
			binary.BigEndian.PutUint64(request, uint64(i+1))
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 500)
			s.Receive(ikesa.Datagram{Local: hereAt, Remote: from, Data: request})
		}
		synctest.Wait()
		stats := s.Stats()
		if stats.SAs != 0 || stats.HalfOpen != 0 || stats.Drops[DropCookieDemanded] != 5000 || len(out.sent) != 5000 {
			t.Fatalf("%+v, %d sent", stats, len(out.sent))
		}
		answer := <-out.sent
		if len(answer.Data) >= len(request)/2 {
			t.Errorf("an answer of %d bytes to a request of %d", len(answer.Data), len(request))
		}
		m, err := message.Parse(answer.Data)
		if err != nil {
			t.Fatal(err)
		}
		if err := message.Check(m); err != nil {
			t.Fatal(err)
		}
		if n := m.Notify(message.Cookie); n == nil || len(n.Data) != cookieLen || m.Header.ResponderSPI != 0 || m.Header.Flags != message.Response {
			t.Errorf("%+v", m.Header)
		}
	})
}

// TestGateNamesEverythingItDrops goes through datagrams that no IKE SA is bothered with.
func TestGateNamesEverythingItDrops(t *testing.T) {
	header := func(h message.Header) []byte {
		h.Length = message.HeaderLen
		return h.Append(nil)
	}
	higher := header(message.Header{InitiatorSPI: 1, Exchange: message.IKESAInit, Flags: message.Initiator})
	higher[17] = 0x30
	higher = append(higher, make([]byte, 60)...)
	binary.BigEndian.PutUint32(higher[24:], uint32(len(higher)))
	encrypted := append(header(message.Header{InitiatorSPI: 1, ResponderSPI: 1 << 20, Exchange: message.IKEAuth, Flags: message.Initiator, NextPayload: message.TypeEncrypted}), make([]byte, 40)...)
	binary.BigEndian.PutUint32(encrypted[24:], uint32(len(encrypted)))
	answered := bytes.Clone(encrypted)
	answered[19] = byte(message.Response) | byte(message.Initiator)
	for _, c := range []struct {
		name   string
		data   []byte
		drop   Drop
		reason ikesa.Reason
		answer message.NotifyType
	}{
		{"empty", nil, DropHeader, ikesa.ReasonShort, 0},
		// C14: there is no IKEv1 that could share a key with IKEv2.
		{"IKEv1", func() []byte { b := bytes.Clone(higher); b[17] = 0x10; return b }(), DropHeader, ikesa.ReasonLowerVersion, 0},
		{"a later version", higher, DropHeader, ikesa.ReasonHigherVersion, message.InvalidMajorVersion},
		{"IKE_SA_INIT with a message ID", header(message.Header{InitiatorSPI: 1, Exchange: message.IKESAInit, Flags: message.Initiator, MessageID: 1}), DropDirection, 0, 0},
		{"IKE_SA_INIT from a responder", header(message.Header{InitiatorSPI: 1, Exchange: message.IKESAInit}), DropDirection, 0, 0},
		{"IKE_SA_INIT without a nonce", header(message.Header{InitiatorSPI: 1, Exchange: message.IKESAInit, Flags: message.Initiator}), DropInitMalformed, 0, 0},
		{"IKE_SA_INIT with a wrong cookie", initRequest(1, make([]byte, cookieLen)), DropCookieWrong, 0, message.Cookie},
		{"a request for an unknown SPI", encrypted, DropSPIUnknown, 0, message.InvalidIKESPI},
		{"a response for an unknown SPI", answered, DropSPIUnknown, 0, 0},
		{"an answer to an IKE_SA_INIT that we never sent", header(message.Header{InitiatorSPI: 1 << 20, ResponderSPI: 2, Exchange: message.IKESAInit, Flags: message.Response}), DropSPIUnknown, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			out := quiet{make(chan ikesa.Datagram, 10)}
			s := NewServer(Options{Workers: 3, Limits: Limits{CookieThreshold: -1}}, out, nil)
			defer s.Close(t.Context())
			s.Receive(ikesa.Datagram{Local: hereAt, Remote: thereAt, Data: c.data})
			synctest.Wait()
			stats := s.Stats()
			if stats.Drops[c.drop] != 1 || c.reason != 0 && stats.Reasons[c.reason] != 1 || stats.SAs != 0 {
				t.Errorf("%s: %+v", c.name, stats)
			}
			if c.answer == 0 {
				if len(out.sent) != 0 {
					t.Errorf("%s: answered", c.name)
				}
				return
			}
			if len(out.sent) != 1 {
				t.Fatalf("%s: %d answers", c.name, len(out.sent))
			}
			d := <-out.sent
			m, err := message.Parse(d.Data)
			if err != nil {
				t.Fatal(err)
			}
			if m.Notify(c.answer) == nil || !m.Header.IsResponse() || m.Header.FromInitiator() || len(d.Data) > len(c.data) {
				t.Errorf("%s: answered %+v", c.name, m)
			}
		})
	}
}

// TestUnauthenticatedAnswersAreLimited: C2.
func TestUnauthenticatedAnswersAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := quiet{make(chan ikesa.Datagram, 1000)}
		s := NewServer(Options{Workers: 1}, out, nil)
		defer s.Close(t.Context())
		b := append(message.Header{InitiatorSPI: 1, ResponderSPI: 64, Exchange: message.IKEAuth, Flags: message.Initiator}.Append(nil), make([]byte, 40)...)
		binary.BigEndian.PutUint32(b[24:], uint32(len(b)))
		for range 500 {
			s.Receive(ikesa.Datagram{Local: hereAt, Remote: thereAt, Data: b})
		}
		synctest.Wait()
		if len(out.sent) != repliesPerSecond {
			t.Errorf("%d answers", len(out.sent))
		}
	})
}

func TestNamesOfDropsAndReasonsAreDisjoint(t *testing.T) {
	seen := map[string]bool{}
	for r := range ikesa.Reason(ikesa.ReasonCount) {
		seen[r.String()] = true
	}
	for d := range dropCount {
		if seen[d.String()] || d.String() == "" || d.Text() == "" {
			t.Errorf("%d: %q", d, d)
		}
		seen[d.String()] = true
	}
}

// FuzzReceive: no datagram from nowhere makes the server panic or keep anything but half-open IKE SAs.
func FuzzReceive(f *testing.F) {
	f.Add(initRequest(1, nil), true)
	f.Add(initRequest(1, make([]byte, cookieLen)), false)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, b []byte, fix bool) {
		if fix && len(b) >= message.HeaderLen {
			b = bytes.Clone(b)
			binary.BigEndian.PutUint32(b[24:], uint32(len(b)))
		}
		s := NewServer(Options{Workers: 1, Limits: Limits{CookieThreshold: -1}}, quiet{make(chan ikesa.Datagram, 1)}, nil)
		defer s.Close(t.Context())
		s.Receive(ikesa.Datagram{Local: hereAt, Remote: thereAt, Data: b})
	})
}
