package ikesa

import (
	"crypto"
	"crypto/x509"
	"slices"
	"testing"
	"time"

	"sallyport/ike/auth"
	"sallyport/ike/auth/authtest"
	"sallyport/ike/message"
)

// trust is how the two hosts are to believe each other; a test changes what it is about.
type trust struct {
	keys    map[string]crypto.Signer
	certs   map[string][]*x509.Certificate // the host's own first
	schemes map[string]auth.Schemes        // as signer
	accepts map[string]auth.Schemes        // as verifier
	root    *authtest.Authority            // that both trust
	sub     *authtest.Authority            // below it
}

func newTrust(a, b string) *trust {
	x := &trust{
		keys:    map[string]crypto.Signer{"a": authtest.Key(a, 0), "b": authtest.Key(b, 1)},
		certs:   map[string][]*x509.Certificate{},
		schemes: map[string]auth.Schemes{}, accepts: map[string]auth.Schemes{},
		root: authtest.NewRoot("root", authtest.Key("p256", 9)),
	}
	x.sub = x.root.Sub("sub", authtest.Key("p384", 8))
	for _, host := range []string{"a", "b"} {
		x.issue(host)
	}
	return x
}

func (x *trust) issue(host string, change ...func(*x509.Certificate)) {
	x.certs[host] = []*x509.Certificate{x.sub.Issue(testID(host).Data, x.keys[host], change...), x.sub.Certificate}
}

// apply writes the trust into the hosts. What NewLocal would refuse to configure is
// configured: the peer must find out.
func (x *trust) apply(w *world) {
	w.now = authtest.Now
	for name, h := range w.hosts {
		peer := w.peer(h).name
		h.conn.Local = auth.Local{ID: testID(name), Certificates: x.certs[name], Key: x.keys[name], Schemes: x.schemes[name]}
		h.conn.Remote = auth.Remote{ID: auth.ExactPattern(testID(peer)), Schemes: x.accepts[name]}
		h.store = must(auth.NewStore(auth.Material{Authorities: []auth.Authority{{Name: "root", Certificate: x.root.Certificate}}}))
		h.conn.FragmentSize = DefaultFragmentSize
	}
}

// Every kind of key, each proven to every other kind, through an intermediate, in
// fragments.
func TestEveryKeyConvincesEveryOther(t *testing.T) {
	words := []string{"rsa2048", "rsa3072", "p256", "p384", "p521", "ed25519"}
	for i, a := range words {
		for _, pkcs1 := range []bool{false, true} {
			x := newTrust(a, words[(i+1)%len(words)])
			for _, host := range []string{"a", "b"} {
				x.schemes[host] = auth.Schemes{PKCS1: pkcs1}
			}
			w := newWorld(t, uint64(i))
			x.apply(w)
			w.hosts["a"].initiate(InitiatorOptions{})
			w.settle()
			for _, h := range w.hosts {
				if h.last == nil || h.last.state != StateEstablished || len(h.in) != 1 || len(h.out) != 1 {
					t.Fatalf("%s: %s is not connected\n%s", a, h.name, w.log.String())
				}
			}
		}
	}
}

// What is wrong with one side is found by the other, by whichever role, with its reason;
// no association comes to be for it.
func TestWrongCertificatesAreRefused(t *testing.T) {
	stranger := authtest.NewRoot("root", authtest.Key("p256", 7))
	for _, c := range []struct {
		what  string
		spoil func(x *trust, host, peer string)
		want  Reason
	}{
		{"of another name", func(x *trust, host, _ string) {
			x.certs[host] = []*x509.Certificate{x.sub.Issue("c.example.org", x.keys[host]), x.sub.Certificate}
		}, ReasonIdentity},
		{"of the other end", func(x *trust, host, peer string) { x.certs[host] = x.certs[peer] }, ReasonIdentity},
		{"expired", func(x *trust, host, _ string) { x.issue(host, authtest.Expired) }, ReasonCertificate},
		{"of the future", func(x *trust, host, _ string) { x.issue(host, authtest.Future) }, ReasonCertificate},
		{"without its intermediate", func(x *trust, host, _ string) { x.certs[host] = x.certs[host][:1] }, ReasonCertificate},
		{"of a stranger with the authority's name", func(x *trust, host, _ string) {
			x.certs[host] = []*x509.Certificate{stranger.Issue(testID(host).Data, x.keys[host])}
		}, ReasonCertificate},
		{"self-signed", func(x *trust, host, _ string) {
			x.certs[host] = []*x509.Certificate{authtest.SelfSigned(testID(host).Data, x.keys[host])}
		}, ReasonCertificate},
		{"not sent", func(x *trust, host, _ string) { x.certs[host] = nil }, ReasonCertificate},
		{"not for signing", func(x *trust, host, _ string) {
			x.issue(host, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })
		}, ReasonCertificate},
		{"below a weak key", func(x *trust, host, _ string) {
			weak := x.root.Sub("weak", authtest.Key("rsa1024", 8))
			x.certs[host] = []*x509.Certificate{weak.Issue(testID(host).Data, x.keys[host]), weak.Certificate}
		}, ReasonCertificate},
		{"with a key that the other end does not accept", func(x *trust, host, peer string) {
			_, s, err := auth.ParseMethod("rsa-3072")
			if err != nil {
				panic(err)
			}
			x.accepts[peer] = s
		}, ReasonCertificate},
		{"with a hash that the other end does not accept", func(x *trust, host, peer string) {
			_, s, err := auth.ParseMethod("pubkey-sha512")
			if err != nil {
				panic(err)
			}
			x.accepts[peer] = s // our key is for P-256, which takes SHA-256
		}, ReasonAuthentication},
		{"with a key that is not its own", func(x *trust, host, _ string) { x.keys[host] = authtest.Key("p256", 5) }, ReasonAuthentication},
	} {
		for _, host := range []string{"a", "b"} {
			x := newTrust("p256", "p256")
			peer := map[string]string{"a": "b", "b": "a"}[host]
			c.spoil(x, host, peer)
			w := newWorld(t, 1)
			x.apply(w)
			s := w.hosts["a"].initiate(InitiatorOptions{})
			w.settle()
			w.advanceWith(time.Minute, w.settle)
			judge := w.hosts[peer]
			i := slices.IndexFunc(judge.ended, func(e Ended) bool { return e.Reason == c.want })
			if i < 0 || s.state != StateEnded {
				t.Errorf("%s's certificate %s: %v %v, %s ended %v", host, c.what, s.state, s.reason, judge.name, judge.ended)
			}
			for _, h := range w.hosts {
				if len(h.in)+len(h.out)+len(h.sas) != 0 {
					t.Errorf("%s's certificate %s: %s keeps %d associations, %d IKE SAs", host, c.what, h.name, len(h.in)+len(h.out), len(h.sas))
				}
			}
			w.idle()
		}
	}
}

// A weak key of our own is not used at all.
func TestWeakKeyProvesNothing(t *testing.T) {
	x := newTrust("rsa1024", "p256")
	w := newWorld(t, 1)
	x.apply(w)
	s := w.hosts["a"].initiate(InitiatorOptions{})
	w.settle()
	w.advanceWith(time.Minute, w.settle)
	if s.state != StateEnded || s.reason != ReasonOwnProof || len(w.hosts["b"].in) != 0 {
		t.Errorf("%v %v\n%s", s.state, s.reason, w.log.String())
	}
}

// C5, C10: who takes hashes out of the SIGNATURE_HASH_ALGORITHMS of IKE_SA_INIT, to make the
// signer use a weaker one or an older method, breaks the signature over it.
func TestHashesAreNotDowngraded(t *testing.T) {
	for what, change := range map[string]func(n *message.Notify) bool{
		"one hash left":   func(n *message.Notify) bool { n.Data = n.Data[:2]; return true },
		"SHA-1 only":      func(n *message.Notify) bool { n.Data = []byte{0, 1}; return true },
		"no notify":       func(n *message.Notify) bool { return false },
		"hashes in a row": func(n *message.Notify) bool { slices.Reverse(n.Data); return true },
	} {
		for _, from := range []string{"a", "b"} {
			w := newWorld(t, 1)
			x := newTrust("rsa2048", "p384")
			x.apply(w)
			w.hosts["a"].initiate(InitiatorOptions{})
			if from == "b" {
				w.pass("")
			}
			p := w.net[0]
			m := must(message.Parse(p.Data))
			m.Payloads = slices.DeleteFunc(m.Payloads, func(p message.Payload) bool {
				n, ok := p.(*message.Notify)
				return ok && n.Notify == message.SignatureHashAlgorithms && !change(n)
			})
			p.Data = m.Append(nil)
			w.settle()
			for range 12 { // some of it ends in silence
				w.advanceWith(time.Minute, w.settle)
			}
			for _, h := range w.hosts {
				if len(h.in)+len(h.out) != 0 {
					t.Errorf("%s, by %s: %s has associations\n%s", what, from, h.name, w.log.String())
				}
			}
		}
	}
}

// A renewed certificate comes with a new connection and a new Store; the next
// authentication uses it, and what is established stays.
func TestRenewedCertificateIsUsedNext(t *testing.T) {
	x := newTrust("p256", "p256")
	w := newWorld(t, 1)
	x.apply(w)
	a, b := w.hosts["a"], w.hosts["b"]
	a.initiate(InitiatorOptions{})
	w.settle()
	if len(a.in) != 1 {
		t.Fatal(w.log.String())
	}
	x.issue("b", authtest.Expired)
	x.apply(w) // b's is expired now: only the next handshake notices
	a.command(Liveness{})
	w.settle()
	if len(a.in) != 1 || len(b.in) != 1 {
		t.Fatal("a change of credentials ends what is established")
	}
	x.issue("b")
	x.apply(w)
	renewed := *b.conn
	b.conn = &renewed
	s := a.initiate(InitiatorOptions{})
	w.settle()
	if s.state != StateEstablished {
		t.Fatalf("%v %v\n%s", s.state, s.reason, w.log.String())
	}
}
