package ikesa

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"testing"
	"time"

	crand "crypto/rand"

	"sallyport/ike/auth"
)

// authority signs certificates for the two hosts.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newAuthority(t testing.TB, name string) *authority {
	key := must(ecdsa.GenerateKey(elliptic.P256(), crand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: epoch.Add(-time.Hour), NotAfter: epoch.Add(10000 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(crand.Reader, template, template, key.Public(), key))
	return &authority{must(x509.ParseCertificate(der)), key}
}

func (a *authority) issue(host string, key crypto.Signer) *x509.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: epoch.Add(-time.Hour), NotAfter: epoch.Add(1000 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	return must(x509.ParseCertificate(must(x509.CreateCertificate(crand.Reader, template, a.cert, key.Public(), a.key))))
}

// useCertificates gives both hosts certificates of one authority.
func (w *world) useCertificates(keys map[string]crypto.Signer, revocation auth.Revocation) {
	ca := newAuthority(w.t, "ca")
	for name, h := range w.hosts {
		cert := ca.issue(testID(name).Data, keys[name])
		h.conn.Local = *must(auth.NewLocal(testID(name), auth.PublicKey, auth.Schemes{}, []*x509.Certificate{cert}, keys[name]))
		h.conn.Remote = auth.Remote{ID: auth.ExactPattern(testID(w.peer(h).name)), Revocation: revocation}
		h.store = must(auth.NewStore(auth.Material{Authorities: []auth.Authority{{Name: "ca", Certificate: ca.cert}}}))
	}
}

func ecdsaKeys() map[string]crypto.Signer {
	return map[string]crypto.Signer{
		"a": must(ecdsa.GenerateKey(elliptic.P256(), crand.Reader)),
		"b": must(ecdsa.GenerateKey(elliptic.P256(), crand.Reader)),
	}
}

func TestCertificatesOfEveryKind(t *testing.T) {
	_, ed, _ := ed25519.GenerateKey(crand.Reader)
	for name, keys := range map[string]map[string]crypto.Signer{
		"ECDSA":       {"a": must(ecdsa.GenerateKey(elliptic.P256(), crand.Reader)), "b": must(ecdsa.GenerateKey(elliptic.P384(), crand.Reader))},
		"RSA Ed25519": {"a": must(rsa.GenerateKey(crand.Reader, 2048)), "b": ed},
	} {
		w := newWorld(t, 1)
		w.useCertificates(keys, auth.Relaxed)
		w.hosts["a"].initiate(InitiatorOptions{})
		w.settle()
		for _, h := range w.hosts {
			if h.last == nil || h.last.state != StateEstablished || len(h.in) != 1 {
				t.Fatalf("%s: %s\n%s", name, h.name, w.log.String())
			}
		}
		// C11: the right certificate of somebody else.
		w = newWorld(t, 1)
		w.useCertificates(keys, auth.Relaxed)
		w.hosts["a"].conn.Remote.ID = auth.ExactPattern(testID("c"))
		w.hosts["b"].conn.Local.ID = testID("c")
		s := w.hosts["a"].initiate(InitiatorOptions{})
		w.settle()
		w.advance(5 * time.Second)
		if s.state != StateEnded || s.reason != ReasonIdentity || len(w.hosts["a"].in)+len(w.hosts["b"].in) != 0 {
			t.Fatalf("%s: an identity that no certificate names: %v %v\n%s", name, s.state, s.reason, w.log.String())
		}
	}
}

// Revocation is looked up off the machine. Until then there is no answer, no child, and
// no second question.
func TestRevocationIsAwaited(t *testing.T) {
	for _, revoked := range []string{"", "a", "b"} {
		w := newWorld(t, 1)
		w.useCertificates(ecdsaKeys(), auth.Strict)
		a, b := w.hosts["a"], w.hosts["b"]
		s := a.initiate(InitiatorOptions{})
		verdict := func(h *host, of string) {
			if len(h.verify) != 1 || len(h.in) != 0 || h.last.state != StateVerifying {
				t.Fatalf("%s: %d questions, %d associations, %v\n%s", h.name, len(h.verify), len(h.in), h.last.state, w.log.String())
			}
			id := h.verify[0].ID
			var err error
			if revoked == of {
				err = auth.ErrRevoked
			}
			h.drive(h.last, func(out *Outputs) { h.last.Verified(w.now, id+2, errors.New("another question's"), out) })
			s := h.last
			h.drive(s, func(out *Outputs) { s.Verified(w.now, id, err, out) })
			h.drive(s, func(out *Outputs) { s.Verified(w.now, id, err, out) })
		}
		w.settle()
		w.advance(5 * time.Second) // a asks again
		w.settle()
		verdict(b, "a")
		w.settle()
		if revoked == "a" {
			w.advance(5 * time.Second)
			if s.state != StateEnded || s.reason != ReasonAuthentication || b.ended[0].Reason != ReasonRevoked {
				t.Fatalf("%v %v\n%s", s.reason, b.ended, w.log.String())
			}
			continue
		}
		verdict(a, "b")
		w.settle()
		if revoked == "b" {
			w.advance(5 * time.Second)
			if s.state != StateEnded || s.reason != ReasonRevoked || len(b.in) != 0 || len(b.sas) != 0 {
				t.Fatalf("%v %v\n%s", s.reason, b.ended, w.log.String())
			}
			continue
		}
		if s.state != StateEstablished || len(a.in) != 1 || len(b.in) != 1 {
			t.Fatal(w.log.String())
		}
		w.idle()
	}
}

// A look-up that never ends does not keep the SA for ever.
func TestRevocationThatNeverEnds(t *testing.T) {
	w := newWorld(t, 1)
	w.useCertificates(ecdsaKeys(), auth.Strict)
	w.hosts["a"].initiate(InitiatorOptions{})
	w.advanceWith(10*time.Minute, w.settle)
	for _, h := range w.hosts {
		if len(h.sas) != 0 {
			t.Errorf("%s still waits", h.name)
		}
	}
	w.idle()
}

// C10: a peer of which a certificate is expected does not get in with a secret, and the
// other way round.
func TestMethodIsTheConfiguredOne(t *testing.T) {
	w := newWorld(t, 1)
	w.useCertificates(ecdsaKeys(), auth.Relaxed)
	a, b := w.hosts["a"], w.hosts["b"]
	a.conn.Local, a.store = testLocal("a"), testStore()
	b.store = must(auth.NewStore(auth.Material{
		Secrets: []auth.Secret{{Name: "all", Secret: []byte("correct horse battery staple 0123456789")}},
	}))
	a.initiate(InitiatorOptions{})
	w.settle()
	if len(b.in) != 0 || len(b.ended) != 1 || b.ended[0].Reason != ReasonAuthentication {
		t.Fatalf("%v\n%s", b.ended, w.log.String())
	}
}

// Nothing of certificates is left once the SA is established: TestIdleSAIsSmall with them.
func TestCertificatesAreFreed(t *testing.T) {
	w := newWorld(t, 1)
	w.useCertificates(ecdsaKeys(), auth.Relaxed)
	a := w.hosts["a"]
	a.initiate(InitiatorOptions{})
	w.settle()
	a.command(Liveness{})
	w.settle()
	for _, h := range w.hosts {
		if s := h.last; s.handshake != nil || s.question != nil || len(s.answer) > 0 && len(s.answer[0]) > 200 {
			t.Errorf("%s keeps %d bytes of an answer", h.name, len(s.answer[0]))
		}
	}
}
