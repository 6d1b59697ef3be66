package ikesa

import (
	"bytes"
	"crypto/ecdh"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/ike/message"
	"sallyport/ike/suite"
)

// connected is a world whose two hosts have an IKE SA and a child, confirmed on both sides.
func connected(t testing.TB, seed uint64) *world {
	t.Helper()
	w := newWorld(t, seed)
	w.hosts["a"].initiate(InitiatorOptions{})
	w.settle()
	w.hosts["a"].command(Liveness{})
	w.settle()
	w.log.Reset()
	for _, h := range w.hosts {
		if h.last == nil || h.last.state != StateEstablished || len(h.in) != 1 || len(h.out) != 1 {
			t.Fatal("not established")
		}
		clear(h.drops)
	}
	return w
}

// inject gives a host a datagram from the other's address.
func (h *host) inject(s *SA, data []byte) {
	peer := h.w.peer(h)
	d := Datagram{Local: netip.AddrPortFrom(h.addr, 500), Remote: netip.AddrPortFrom(peer.addr, 500), Data: bytes.Clone(data)}
	h.drive(s, func(out *Outputs) { s.Receive(h.w.now, d, out) })
}

// header is one that a forger makes for a message to s.
func (s *SA) forged(x message.ExchangeType, id uint32, response bool) message.Header {
	h := message.Header{InitiatorSPI: s.spiI, ResponderSPI: s.spiR, Exchange: x, MessageID: id}
	if !s.initiator {
		h.Flags |= message.Initiator
	}
	if response {
		h.Flags |= message.Response
	}
	return h
}

func clearMessage(h message.Header, payloads ...message.Payload) []byte {
	m := message.Message{Header: h, Payloads: payloads}
	return m.Append(nil)
}

// RFC 7296, 2.4 and 2.21.4: what is not authenticated makes us ask, and ends nothing.
func TestClearNotifiesOnlyMakeUsAsk(t *testing.T) {
	for _, n := range []message.NotifyType{message.InvalidIKESPI, message.InvalidSPI, message.InvalidMajorVersion, message.InvalidSyntax, message.AuthenticationFailed} {
		w := connected(t, 1)
		a := w.hosts["a"]
		s := a.last
		for _, data := range [][]byte{
			clearMessage(s.forged(message.Informational, 0, true), &message.Notify{Notify: n}),
			clearMessage(s.forged(message.Informational, s.nextIn, false), &message.Notify{Notify: n}),
			clearMessage(s.forged(message.Informational, 0, true), &message.Delete{Protocol: message.ProtocolIKE}),
			clearMessage(s.forged(message.IKESAInit, 0, true), &message.Notify{Notify: n}),
		} {
			a.inject(s, data)
			if s.request != nil {
				t.Fatalf("%v: asked although the peer was heard of just now", n)
			}
			if s.state != StateEstablished || len(a.in) != 1 {
				t.Fatalf("%v ended something", n)
			}
		}
		w.advance(time.Minute)
		for range 100 { // and no faster than one question at a time
			a.inject(s, clearMessage(s.forged(message.Informational, 0, true), &message.Notify{Notify: n}))
		}
		if len(w.net) != 1 || !strings.Contains(w.describe(w.net[0]), "INFORMATIONAL request") {
			t.Fatalf("%v: %d packets", n, len(w.net))
		}
		w.settle()
		if s.state != StateEstablished || a.drops[ReasonUnauthenticated] == 0 {
			t.Fatalf("%v: state %v, drops %v", n, s.state, a.drops)
		}
	}
}

// attacker answers an IKE_SA_INIT request with a key exchange of its own.
type attacker struct {
	keys *suite.Keys
	spi  message.SPI
	data []byte
}

func answerAs(t *testing.T, request []byte, spi message.SPI) *attacker {
	t.Helper()
	m, err := message.Parse(bytes.Clone(request))
	if err != nil {
		t.Fatal(err)
	}
	sa, _ := message.First[*message.SA](m)
	ke, _ := message.First[*message.KE](m)
	nonce, _ := message.First[*message.Nonce](m)
	own := []suite.Proposal{must(suite.ParseIKE("aes128gcm16-prfsha256-x25519"))}
	choice, answer, err := suite.Select(sa.Proposals, own, suite.Options{KE: ke.Method})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.NewChaCha8([32]byte{byte(spi)})
	public, shared, err := suite.Respond(choice.KE, rng, ke.Data)
	if err != nil {
		t.Fatal(err)
	}
	nr := make([]byte, 32)
	rng.Read(nr)
	keys, err := suite.DeriveIKE(choice, shared, nonce.Data, nr, m.Header.InitiatorSPI, spi)
	if err != nil {
		t.Fatal(err)
	}
	h := message.Header{InitiatorSPI: m.Header.InitiatorSPI, ResponderSPI: spi, Exchange: message.IKESAInit, Flags: message.Response}
	return &attacker{keys, spi, clearMessage(h, &message.SA{Proposals: []message.Proposal{answer}},
		&message.KE{Method: choice.KE, Data: public}, &message.Nonce{Data: nr})}
}

// RFC 7296, 2.21.1: whoever answers first may be a forger; AUTH decides.
func TestForgedFirstAnswersDoNotWin(t *testing.T) {
	for _, forgers := range []int{1, 3} {
		for _, sameSPI := range []bool{false, true} {
			w := newWorld(t, 2)
			a := w.hosts["a"]
			s := a.initiate(InitiatorOptions{})
			request := w.net[0].Data
			var first *attacker
			for i := range forgers {
				spi := message.SPI(0xbad0 + i)
				if sameSPI {
					spi = 0xb1 // that of the true one
				}
				f := answerAs(t, request, spi)
				if first == nil {
					first = f
				}
				a.inject(s, f.data)
			}
			w.net = w.net[:1] // what goes to the forgers
			w.settle()        // the true answer, and the rest
			if s.state != StateEstablished || len(a.in) != 1 || w.hosts["b"].last.state != StateEstablished {
				t.Fatalf("%d forgers: state %v\n%s", forgers, s.state, w.log.String())
			}
			if s.spiR != 0xb1 || s.handshake != nil {
				t.Fatalf("established with SPI %v", s.spiR)
			}
			w.idle()
			_ = first
		}
	}
}

// A forger that goes on and fails in IKE_AUTH must not take the handshake with it, be
// the true answer there already or not.
func TestForgerThatFailsDoesNotEndTheHandshake(t *testing.T) {
	for _, trueFirst := range []bool{true, false} {
		w := newWorld(t, 3)
		a := w.hosts["a"]
		s := a.initiate(InitiatorOptions{})
		f := answerAs(t, w.net[0].Data, 0xbad)
		a.inject(s, f.data)
		auth := w.net[len(w.net)-1]
		w.net = w.net[:1]
		if trueFirst {
			w.pass("a")
			w.pass("b")
		}
		// The forger refuses, under its own keys.
		send, receive := f.keys.Protector(false)
		m := must(message.Parse(bytes.Clone(auth.Data)))
		if err := m.Open(receive); err != nil {
			t.Fatal(err)
		}
		h := message.Header{InitiatorSPI: s.spiI, ResponderSPI: f.spi, Exchange: message.IKEAuth, Flags: message.Response, MessageID: 1}
		packets := must(message.AppendProtected(nil, h, []message.Payload{&message.Notify{Notify: message.AuthenticationFailed}}, send, 0))
		a.inject(s, packets[0])
		w.settle()
		if s.state != StateEstablished || len(a.in) != 1 {
			t.Fatalf("true answer first %v: %v\n%s", trueFirst, s.state, w.log.String())
		}
		w.idle()
	}
}

// More forgers than are followed cost no more than that many key exchanges.
func TestForgedAnswersAreBounded(t *testing.T) {
	w := newWorld(t, 4)
	a := w.hosts["a"]
	s := a.initiate(InitiatorOptions{})
	request := w.net[0].Data
	for i := range 20 {
		a.inject(s, answerAs(t, request, message.SPI(0xbad0+i)).data)
	}
	if len(s.handshake.rivals) != rivalsMax || a.drops[ReasonRivals] != 20-1-rivalsMax {
		t.Fatalf("%d rivals, drops %v", len(s.handshake.rivals), a.drops)
	}
	w.advance(10 * time.Minute)
	if s.state != StateEnded {
		t.Fatal("goes on for ever")
	}
	w.idle()
}

// RFC 7296, 2.21.2: some errors mean that the responder has no IKE SA, even beside its proof of who it is; the others are
// about the child alone.
func TestFatalErrorBesideTheProofEndsTheHandshake(t *testing.T) {
	for n, want := range map[message.NotifyType]State{
		message.InvalidSyntax: StateEnded, message.UnsupportedCriticalPayload: StateEnded, message.AuthenticationFailed: StateEnded,
		message.NoProposalChosen: StateEstablished, message.TSUnacceptable: StateEstablished,
	} {
		w := newWorld(t, 23)
		a := w.hosts["a"]
		s := a.initiate(InitiatorOptions{})
		w.pass("a")
		w.pass("b")
		w.pass("a")
		_, receive := s.keys.Protector(true)
		m := must(message.Parse(w.take("b").Data))
		if err := m.Open(receive); err != nil {
			t.Fatal(err)
		}
		proof := slices.DeleteFunc(m.Payloads, func(p message.Payload) bool { return p.Type() != message.TypeIDr && p.Type() != message.TypeAuth })
		send, _ := s.keys.Protector(false)
		h := message.Header{InitiatorSPI: s.spiI, ResponderSPI: s.spiR, Exchange: message.IKEAuth, Flags: message.Response, MessageID: 1}
		a.inject(s, must(message.AppendProtected(nil, h, append(proof, &message.Notify{Notify: n}), send, 0))[0])
		w.advance(2 * time.Second)
		if s.state != want {
			t.Errorf("%v: %v", n, s.state)
		}
		if len(a.in)+len(a.spis) > 0 {
			t.Errorf("%v: %d associations, %d SPIs are left", n, len(a.in), len(a.spis))
		}
	}
}

// Clear errors in answer to IKE_SA_INIT end the handshake only if nothing better comes.
func TestForgedErrorDoesNotEndTheHandshake(t *testing.T) {
	w := newWorld(t, 5)
	a := w.hosts["a"]
	s := a.initiate(InitiatorOptions{})
	for _, n := range []*message.Notify{
		{Notify: message.NoProposalChosen}, {Notify: message.AuthenticationFailed}, {Notify: message.InvalidSyntax},
		{Notify: message.InvalidKEPayload, Data: []byte{0, 14}}, // C5: a method that was not offered
		{Notify: message.InvalidKEPayload, Data: []byte{0, 31}}, // the one that was sent
	} {
		a.inject(s, clearMessage(message.Header{InitiatorSPI: s.spiI, Exchange: message.IKESAInit, Flags: message.Response}, n))
	}
	if len(w.net) != 1 {
		t.Fatalf("%d packets", len(w.net))
	}
	w.settle()
	if s.state != StateEstablished {
		t.Fatal(w.log.String())
	}
}

// RFC 7296, 2.6: cookies are repeated, but not for ever.
func TestCookiesAreRepeatedAndBounded(t *testing.T) {
	w := newWorld(t, 6)
	a := w.hosts["a"]
	s := a.initiate(InitiatorOptions{})
	var sent [][]byte
	for i := range 10 {
		w.net = nil
		cookie := bytes.Repeat([]byte{byte(i + 1)}, 20)
		a.inject(s, clearMessage(message.Header{InitiatorSPI: s.spiI, Exchange: message.IKESAInit, Flags: message.Response}, &message.Notify{Notify: message.Cookie, Data: cookie}))
		if len(w.net) == 0 {
			break
		}
		m := must(message.Parse(w.net[0].Data))
		n, ok := m.Payloads[0].(*message.Notify)
		if !ok || n.Notify != message.Cookie || !bytes.Equal(n.Data, cookie) || m.Header.MessageID != 0 {
			t.Fatalf("%v", m.Payloads)
		}
		sent = append(sent, w.net[0].Data)
	}
	if len(sent) != cookiesMax || a.drops[ReasonCookies] != 1 {
		t.Fatalf("%d cookies repeated, drops %v", len(sent), a.drops)
	}
	// Nonce and key exchange stay the same, or the cookie would be wrong.
	strip := func(b []byte) []byte { return b[28+8+20:] }
	if !bytes.Equal(strip(sent[0]), strip(sent[1])) {
		t.Error("the rest of the request has changed")
	}
	w.net = append(w.net, &packet{a, Datagram{Local: s.local, Remote: s.remote, Data: sent[len(sent)-1]}})
	w.settle()
	if s.state != StateEstablished {
		t.Fatal(w.log.String())
	}
}

// C5: whoever changes IKE_SA_INIT on the way fails in IKE_AUTH.
func TestChangedInitFailsAuthentication(t *testing.T) {
	for _, direction := range []string{"a", "b"} {
		w := newWorld(t, 7)
		for _, h := range w.hosts {
			h.conn.Proposals = proposalsIKE(t, "aes256gcm16-aes128gcm16-prfsha256-x25519")
		}
		a := w.hosts["a"]
		s := a.initiate(InitiatorOptions{})
		if direction == "b" {
			w.pass("a")
		}
		p := w.take(direction)
		m := must(message.Parse(p.Data))
		if direction == "a" { // the stronger cipher vanishes from the offer
			sa, _ := message.First[*message.SA](m)
			sa.Proposals[0].Transforms = slices.DeleteFunc(sa.Proposals[0].Transforms, func(x message.Transform) bool {
				return x.Type == message.TransformEncr && x.KeyLen == 256
			})
		} else { // fragmentation and hashes vanish from the answer
			m.Payloads = slices.DeleteFunc(m.Payloads, func(x message.Payload) bool {
				n, ok := x.(*message.Notify)
				return ok && n.Notify == message.SignatureHashAlgorithms
			})
		}
		p.Data = m.Append(nil)
		w.net = append(w.net, p)
		w.settle()
		w.advance(5 * time.Second)
		if s.state != StateEnded || s.reason != ReasonAuthentication || len(a.in)+len(w.hosts["b"].in) != 0 {
			t.Fatalf("changed by %s: %v %v\n%s", direction, s.state, s.reason, w.log.String())
		}
	}
}

// C6: of all that was ever said, repeated in any order, only the last answers come again.
func TestReplayChangesNothing(t *testing.T) {
	w := newWorld(t, 8)
	var all []*packet
	record := func() {
		for len(w.net) > 0 {
			p := w.net[0]
			all = append(all, &packet{p.from, Datagram{Local: p.Local, Remote: p.Remote, Data: bytes.Clone(p.Data), Whole: p.Whole}})
			w.pass("")
		}
	}
	a := w.hosts["a"]
	a.initiate(InitiatorOptions{})
	record()
	a.command(RekeyChild{a.childByName("net")})
	record()
	w.hosts["b"].command(Liveness{})
	record()
	a.command(RekeyIKE{})
	record()
	a.command(Liveness{})
	record()
	w.state()
	before := stateOf(w)
	sent := 0
	rng := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		p := all[rng.IntN(len(all))]
		w.deliver(&packet{p.from, Datagram{Local: p.Local, Remote: p.Remote, Data: bytes.Clone(p.Data), Whole: p.Whole}})
		sent += len(w.net)
		w.net = nil
		for _, h := range w.hosts { // an INIT request of old makes a half-open SA; the server limits those
			for spi, s := range h.sas {
				if s.state < StateEstablished {
					delete(h.sas, spi)
				}
			}
		}
	}
	if after := stateOf(w); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if sent == 0 {
		t.Error("no answer was repeated")
	}
}

func stateOf(w *world) string {
	w.log.Reset()
	w.state()
	s := w.log.String()
	w.log.Reset()
	return s
}

// C7: retransmissions are as many as configured, further and further apart, not all at
// the same distance, and then it is over.
func TestRetransmissionBacksOffAndEnds(t *testing.T) {
	w := newWorld(t, 9)
	a := w.hosts["a"]
	a.conn.Retransmit = Retransmit{Timeout: time.Second, Base: 2, Tries: 6, Limit: 10 * time.Second, Jitter: 20}
	s := a.initiate(InitiatorOptions{})
	first := w.net[0].Data
	var at []time.Duration
	w.advanceWith(10*time.Minute, func() {
		for _, p := range w.net[min(1, len(w.net)):] {
			if !bytes.Equal(p.Data, first) { // RFC 7296, 2.1: bit for bit
				t.Error("a retransmission differs from the request")
			}
			at = append(at, w.now.Sub(epoch))
		}
		w.net = w.net[:1]
	})
	if len(at) != 6 || s.state != StateEnded || s.reason != ReasonTimeout {
		t.Fatalf("retransmissions at %v, %v", at, s.state)
	}
	wait, last := time.Second, time.Duration(0)
	for _, x := range at {
		gap := x - last
		if gap > wait || gap < wait*8/10 {
			t.Errorf("waited %v instead of %v less 20%%", gap, wait)
		}
		wait, last = min(2*wait, 10*time.Second), x
	}
}

// C8: fragments that are forged, repeated or of an older division do no harm.
func TestFragmentsAreAuthenticatedOneByOne(t *testing.T) {
	w := newWorld(t, 10)
	for _, h := range w.hosts {
		h.conn.FragmentSize = 300
	}
	a, b := w.hosts["a"], w.hosts["b"]
	for i := range 20 {
		a.conn.Children[0].LocalTS = append(a.conn.Children[0].LocalTS, prefixSelector(netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i), 0}), 24).String()))
	}
	a.initiate(InitiatorOptions{})
	w.pass("a")
	w.pass("b")
	s := b.last
	fragments := w.net
	if len(fragments) < 2 {
		t.Fatal("IKE_AUTH is not in fragments")
	}
	forge := func(p *packet, i int) []byte {
		data := bytes.Clone(p.Data)
		data[i] ^= 1
		return data
	}
	for _, p := range fragments {
		b.inject(s, forge(p, len(p.Data)-1))
		b.inject(s, forge(p, 33)) // its number
		b.inject(s, forge(p, 35)) // the total
	}
	if s.asked != nil && s.asked.Pending() {
		t.Error("a forged fragment was kept")
	}
	b.inject(s, fragments[0].Data)
	b.inject(s, fragments[0].Data)
	if b.drops[ReasonFragmentStale] != 1 {
		t.Errorf("drops %v", b.drops)
	}
	// What is incomplete is forgotten, and the next attempt starts from nothing.
	w.net = nil
	w.advance(20 * time.Second)
	w.settle()
	if a.last.state != StateEstablished {
		t.Fatal(w.log.String())
	}
	w.advance(message.ReassemblyTimeout)
	if s.asked != nil {
		t.Error("fragments are kept for ever")
	}
}

// C9: bad public values end in a named reason, as initiator and responder.
func TestBadKeyExchangeValues(t *testing.T) {
	p256 := must(ecdh.P256().NewPublicKey(must(ecdh.P256().GenerateKey(rand.NewChaCha8([32]byte{}))).PublicKey().Bytes())).Bytes()[1:]
	p256[63] ^= 1 // off the curve
	for _, c := range []struct {
		ike    string
		method uint16
		value  []byte
	}{
		{"aes128gcm16-prfsha256-x25519", message.KECurve25519, make([]byte, 32)},
		{"aes128gcm16-prfsha256-x25519", message.KECurve25519, append([]byte{1}, make([]byte, 31)...)},
		{"aes128gcm16-prfsha256-x25519", message.KECurve25519, make([]byte, 31)},
		{"aes128gcm16-prfsha256-ecp256", message.KEECP256, p256},
		{"aes128gcm16-prfsha256-ecp256", message.KEECP256, make([]byte, 64)},
		{"aes128gcm16-prfsha256-modp2048", message.KEMODP2048, append(make([]byte, 255), 1)},
		{"aes128gcm16-prfsha256-modp2048", message.KEMODP2048, make([]byte, 256)},
	} {
		for _, side := range []string{"a", "b"} {
			w := newWorld(t, 11)
			for _, h := range w.hosts {
				h.conn.Proposals = proposalsIKE(t, c.ike)
			}
			s := w.hosts["a"].initiate(InitiatorOptions{})
			if side == "b" {
				w.pass("a")
			}
			p := w.take(side)
			m := must(message.Parse(p.Data))
			ke, _ := message.First[*message.KE](m)
			ke.Data = c.value
			p.Data = m.Append(nil)
			w.deliver(p)
			w.settle()
			if side == "a" {
				if b := w.hosts["b"]; len(b.sas) != 0 || b.ended[0].Reason != ReasonKEValue {
					t.Errorf("%s: responder: %v", c.ike, b.ended)
				}
			} else if s.state != StateInit {
				t.Errorf("%s: initiator went on to %v", c.ike, s.state)
			}
		}
	}
}

// C15: what we sent ourselves is not taken up.
func TestReflectedMessagesAreDropped(t *testing.T) {
	w := newWorld(t, 12)
	a := w.hosts["a"]
	s := a.initiate(InitiatorOptions{})
	request := w.net[0].Data
	a.inject(s, request)
	m := must(message.Parse(bytes.Clone(request))) // our own request as an answer
	m.Header.Flags = message.Response
	m.Header.ResponderSPI = 0xb1
	a.inject(s, m.Append(nil))
	m.Header.ResponderSPI = s.spiI // and our own SPI
	a.inject(s, m.Append(nil))
	if s.state != StateInit || a.drops[ReasonReflected] != 1 || a.drops[ReasonOwnNonce] != 2 {
		t.Fatalf("%v, drops %v", s.state, a.drops)
	}
	w.settle()
	a.command(Liveness{})
	p := w.take("a")
	a.inject(s, p.Data)
	if a.drops[ReasonReflected] != 2 {
		t.Fatalf("drops %v", a.drops)
	}
}

// C12: EAP is not spoken. An initiator that leaves AUTH out to ask for it is refused before we prove or offer anything, and so is a responder
// that answers with it.
func TestEAPIsRefused(t *testing.T) {
	for _, asking := range []string{"a", "b"} {
		w := newWorld(t, 12)
		a, b := w.hosts["a"], w.hosts["b"]
		s := a.initiate(InitiatorOptions{})
		w.pass("a")
		w.pass("b")
		payloads := []message.Payload{idPayload(testID(asking), asking == "b")}
		if asking == "b" {
			w.take("a") // b never sees it
			payloads = append(payloads, &message.EAP{Data: []byte{1, 1, 0, 5, 1}})
		}
		h := s.header(message.IKEAuth, 1, asking == "b")
		from, p := s, &packet{}
		if asking == "a" {
			p = w.take("a")
		} else {
			from = b.last
			h = from.header(message.IKEAuth, 1, true)
		}
		sealed, err := from.seal(h, payloads)
		if err != nil || len(sealed) != 1 {
			t.Fatal(len(sealed), err)
		}
		if asking == "a" {
			p.Data = sealed[0]
			w.net = append(w.net, p)
			w.settle()
			if len(b.sas) != 0 || len(b.ended) != 1 || b.ended[0].Reason != ReasonEAP || len(b.in) != 0 {
				t.Errorf("%v\n%s", b.ended, w.log.String())
			}
			continue
		}
		a.drive(s, func(out *Outputs) {
			s.Receive(w.now, Datagram{Local: s.local, Remote: s.remote, Data: sealed[0]}, out)
		})
		w.settle()
		w.advance(5 * time.Second)
		if s.state != StateEnded || s.reason != ReasonEAP || len(a.in) != 0 {
			t.Errorf("%v %v\n%s", s.state, s.reason, w.log.String())
		}
	}
}

// C15: a peer that claims our own identity is refused, even with the right secret.
func TestOwnIdentityIsRefused(t *testing.T) {
	w := newWorld(t, 13)
	a, b := w.hosts["a"], w.hosts["b"]
	b.conn.Local, b.conn.Remote, a.conn.Remote = testLocal("a"), testRemote("a"), testRemote("a")
	a.initiate(InitiatorOptions{})
	w.settle()
	w.advance(5 * time.Second)
	if len(a.sas)+len(b.sas) != 0 || b.ended[0].Reason != ReasonOwnIdentity {
		t.Fatalf("%v %v", a.ended, b.ended)
	}
}

// C16: an SA whose initiator never showed that it got our answer counts as half-open,
// is asked, and goes.
func TestUnconfirmedResponderAsksAndGoes(t *testing.T) {
	w := newWorld(t, 14)
	a, b := w.hosts["a"], w.hosts["b"]
	a.initiate(InitiatorOptions{})
	w.pass("a")
	w.pass("b")
	w.pass("a")
	s := b.last
	w.net = nil
	if s.state != StateEstablished || s.Confirmed() {
		t.Fatal("confirmed by nothing")
	}
	w.sas(a).Command(w.now, Abandon{}, &Outputs{})
	w.advance(confirmTime + time.Second)
	if len(w.net) == 0 {
		t.Fatal("does not ask")
	}
	w.net = nil
	w.advance(5 * time.Minute)
	if s.state != StateEnded || s.reason != ReasonPeerDead || len(b.in) != 0 {
		t.Fatalf("%v %v", s.state, s.reason)
	}
}

func (w *world) sas(h *host) *SA {
	for _, s := range h.sas {
		return s
	}
	return nil
}

// C18: INITIAL_CONTACT counts from an authenticated peer only.
func TestInitialContactNeedsAuthentication(t *testing.T) {
	w := newWorld(t, 15)
	w.hosts["a"].store = testStoreWith("wrong wrong wrong wrong wrong wrong")
	w.hosts["a"].initiate(InitiatorOptions{InitialContact: true})
	w.settle()
	if strings.Contains(w.log.String(), "initial contact") {
		t.Fatal(w.log.String())
	}
	w = newWorld(t, 15)
	w.hosts["b"].conn.Unique = UniqueNever
	w.hosts["a"].initiate(InitiatorOptions{InitialContact: true})
	w.settle()
	if strings.Contains(w.log.String(), "initial contact") {
		t.Fatal("honoured although it is to be ignored")
	}
}

// C21: every exchange, as request and as response, clear and protected, in every state:
// what the table does not list changes nothing.
func TestEveryExchangeInEveryState(t *testing.T) {
	type stage struct {
		name string
		make func() (*world, *host)
	}
	var stages []stage
	for steps := range 4 { // how many packets have arrived
		for _, of := range []string{"a", "b"} {
			stages = append(stages, stage{of, func() (*world, *host) {
				w := newWorld(t, 16)
				w.hosts["a"].initiate(InitiatorOptions{})
				for range steps {
					w.pass("")
				}
				w.net = nil
				return w, w.hosts[of]
			}})
		}
	}
	for _, of := range []string{"a", "b"} {
		stages = append(stages,
			stage{of + " established", func() (*world, *host) { w := connected(t, 16); return w, w.hosts[of] }},
			stage{of + " deleting", func() (*world, *host) {
				w := connected(t, 16)
				w.hosts[of].command(DeleteIKE{})
				w.net = nil
				return w, w.hosts[of]
			}})
	}
	for _, stage := range stages {
		for x := message.ExchangeType(30); x < 50; x++ {
			for _, response := range []bool{false, true} {
				for _, protected := range []bool{false, true} {
					w, h := stage.make()
					if h.last == nil {
						continue
					}
					s := h.last
					state, peer := s.state, w.peer(h).last
					var data []byte
					header := s.forged(x, s.nextIn, response)
					if response && s.request != nil {
						header.MessageID = s.request.id
					}
					if protected {
						if s.opener == nil || peer == nil || peer.sealer == nil {
							continue
						}
						data = must(message.AppendProtected(nil, header, nil, peer.sealer, 0))[0]
					} else {
						data = clearMessage(header)
					}
					h.inject(s, data)
					legal := protected && (!response && s.requestAllowed(x) || s.state != state)
					if !legal && (s.state != state || len(h.drops) == 0) && !(protected && response) {
						t.Errorf("%s: %v response %v protected %v: %v became %v, drops %v", stage.name, x, response, protected, state, s.state, h.drops)
					}
				}
			}
		}
	}
}

// C22: a forged packet does not move the endpoint, an authentic old one neither.
func TestOnlyTheNewestAuthenticPacketMovesThePeer(t *testing.T) {
	w := newWorld(t, 17)
	w.nat = map[netip.AddrPort]netip.AddrPort{
		netip.MustParseAddrPort("192.0.2.1:500"):  netip.MustParseAddrPort("203.0.113.1:2000"),
		netip.MustParseAddrPort("192.0.2.1:4500"): netip.MustParseAddrPort("203.0.113.1:2001"),
	}
	a, b := w.hosts["a"], w.hosts["b"]
	a.initiate(InitiatorOptions{})
	w.settle()
	a.command(Liveness{})
	old := bytes.Clone(w.net[0].Data)
	w.settle()
	a.command(Liveness{})
	next := bytes.Clone(w.net[0].Data)
	s := b.last
	elsewhere := netip.MustParseAddrPort("203.0.113.66:1")
	at := func(data []byte) {
		d := Datagram{Local: s.local, Remote: elsewhere, Data: bytes.Clone(data)}
		b.drive(s, func(out *Outputs) { s.Receive(w.now, d, out) })
	}
	at(old)
	forged := bytes.Clone(next)
	forged[len(forged)-1] ^= 1
	at(forged)
	if s.remote == elsewhere {
		t.Fatal("moved by a replayed or forged packet")
	}
	at(next)
	if s.remote != elsewhere {
		t.Fatal("not moved by the newest one")
	}
}

// Half-open SAs end by themselves wherever the peer stops.
func TestHalfOpenEndsWhereverThePeerStops(t *testing.T) {
	for steps := range 6 {
		w := newWorld(t, 18)
		for _, h := range w.hosts {
			h.conn.Proposals = proposalsIKE(t, "aes128gcm16-prfsha256-x25519-ke1_ecp256")
		}
		w.hosts["a"].initiate(InitiatorOptions{})
		for range steps {
			w.pass("")
		}
		w.net = nil
		w.advanceWith(20*time.Minute, func() { w.net = nil })
		for _, h := range w.hosts {
			for _, s := range h.sas {
				t.Errorf("after %d packets %s still has an SA in state %v", steps, h.name, s.state)
			}
		}
		w.idle()
	}
}

// The same answer with another payload gives the same keys; following it beside the
// first, or after it, would seal two messages with the same key and IV.
func TestAnswersWithTheSameKeysAreFollowedOnce(t *testing.T) {
	w := newWorld(t, 19)
	a := w.hosts["a"]
	s := a.initiate(InitiatorOptions{})
	f := answerAs(t, w.net[0].Data, 0xbad)
	m := must(message.Parse(bytes.Clone(f.data)))
	m.Payloads = append(m.Payloads, &message.VendorID{Data: []byte("another")})
	w.net = nil
	a.inject(s, f.data)
	a.inject(s, m.Append(nil))
	if len(w.net) != 1 || len(s.handshake.rivals) != 0 {
		t.Fatalf("%d messages, %d rivals", len(w.net), len(s.handshake.rivals))
	}
	// Nor after the first one failed.
	send, _ := f.keys.Protector(false)
	h := message.Header{InitiatorSPI: s.spiI, ResponderSPI: f.spi, Exchange: message.IKEAuth, Flags: message.Response, MessageID: 1}
	a.inject(s, must(message.AppendProtected(nil, h, []message.Payload{&message.Notify{Notify: message.AuthenticationFailed}}, send, 0))[0])
	w.net = nil
	a.inject(s, f.data)
	a.inject(s, m.Append(nil))
	if len(w.net) != 0 {
		t.Fatal("the same keys were used again")
	}
}

// TestPeerThatIgnoresProbesStaysUp has a peer leave messages that it does not know without an answer, against RFC 7296, 3.10.1. Nothing
// is found out then, nothing told, and the IKE SA goes on; an hour later it is tried again.
func TestPeerThatIgnoresProbesStaysUp(t *testing.T) {
	w := newWorld(t, 7)
	a := w.hosts["a"]
	a.conn.PathTime, a.conn.DPDDelay, a.link = 10*time.Minute, 30*time.Second, 1500
	a.initiate(InitiatorOptions{})
	w.settle()
	probes := map[int]int{} // by size
	deliver := func() {
		for p := w.take(""); p != nil; p = w.take("") {
			if p.Whole {
				probes[len(p.Data)]++
			} else {
				w.deliver(p)
			}
		}
	}
	w.advanceWith(time.Hour, deliver)
	s := a.last
	if s.state != StateEstablished || !s.path.mute || !a.found.Mute || len(a.paths) != 0 || s.nextOut < 100 {
		t.Errorf("%v, path %+v, told %v, %d requests", s.state, s.path, a.paths, s.nextOut)
	}
	// Each three times alone, and once beside the empty request that was answered.
	if len(probes) != 2 || probes[1500-28] != probeTries+1 || probes[pathBase4-28] != probeTries+1 {
		t.Errorf("%v probes by size", probes)
	}
	w.advanceWith(time.Minute, deliver)
	if s.state != StateEstablished || probes[1500-28] != 2*(probeTries+1) {
		t.Errorf("an hour later: %v, %v probes by size", s.state, probes)
	}
}
