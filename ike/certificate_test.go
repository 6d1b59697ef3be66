package ike

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"testing"
	"time"

	"sallyport/ike/auth"
	"sallyport/ike/ikesa"
	"sallyport/ike/message"
)

// authority signs the certificates of a test.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newAuthority() *authority {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of a test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10000 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	return &authority{must(x509.ParseCertificate(der)), key}
}

func (a *authority) store() *auth.Store {
	return must(auth.NewStore(auth.Material{Authorities: []auth.Authority{{Name: "ca", Certificate: a.cert}}}))
}

// local is an end with a fresh certificate for a name.
func (a *authority) local(name string) auth.Local { return a.localFor(name, 1000*time.Hour) }

func (a *authority) localFor(name string, lifetime time.Duration) auth.Local {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lifetime), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	cert := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key))))
	return *must(auth.NewLocal(identity(name), auth.PublicKey, auth.Schemes{}, []*x509.Certificate{cert}, key))
}

func certified(a *authority, revocation auth.Revocation) func(string, *ikesa.Connection) {
	return func(side string, c *ikesa.Connection) {
		peer, _ := c.Remote.ID.Exact()
		c.Local = a.local(c.Local.ID.Data)
		c.Remote = auth.Remote{ID: auth.ExactPattern(peer), Method: auth.PublicKey, Revocation: revocation}
		c.SendCert, c.SendCertReq = ikesa.SendCertAlways, true
	}
}

// configureCertified is configure with certificates of one authority.
func (p *pair) configureCertified(t *testing.T, a *authority, n int, revocation auth.Revocation) (as, bs *Config) {
	edit := certified(a, revocation)
	as, bs = &Config{Store: a.store()}, &Config{Store: a.store()}
	for i := range n {
		ca, cb := connection(i, "a", "b", true, "192.0.2.2"), connection(i, "b", "a", false, "192.0.2.1")
		edit("a", ca)
		edit("b", cb)
		ca.KeyingTries = 1 // who is refused does not come again and again
		as.Connections, bs.Connections = append(as.Connections, ca), append(bs.Connections, cb)
	}
	if err := errors.Join(p.b.server.Load().Apply(bs), p.a.server.Load().Apply(as)); err != nil {
		t.Fatal(err)
	}
	return as, bs
}

// TestRevocationIsAskedWithoutHoldingOthersUp: the check of one certificate takes its time on one shard, a second one is
// revoked, the third comes up at once.
func TestRevocationIsAskedWithoutHoldingOthersUp(t *testing.T) {
	check := func(ctx context.Context, c *auth.Chain, _ *auth.Remote) error {
		switch c.Leaf().Subject.CommonName {
		case "a0":
			select {
			case <-time.After(10 * time.Second):
			case <-ctx.Done():
			}
			return ctx.Err()
		case "a1":
			return fmt.Errorf("%w: by this test", auth.ErrRevoked)
		case "a2":
			<-ctx.Done() // a responder that never answers
			return ctx.Err()
		}
		return nil
	}
	simulate(t, 1, Options{Workers: 1, Revocation: check}, func(t *testing.T, p *pair) {
		p.configureCertified(t, newAuthority(), 4, auth.Strict)
		time.Sleep(2 * time.Second)
		if in, _, _ := p.b.counts(); in != 1 {
			t.Errorf("%d children while a check is under way", in)
		}
		time.Sleep(10 * time.Second)
		if in, _, _ := p.b.counts(); in != 2 {
			t.Errorf("%d children after it", in)
		}
		time.Sleep(time.Minute)
		if s := p.b.server.Load().Stats(); s.Reasons[ikesa.ReasonRevoked] == 0 {
			t.Error("the revoked certificate is not named")
		}
		if n := paired(t, p.a, p.b); n != 2 {
			t.Errorf("%d children", n)
		}
	})
}

// TestRenewedCertificateCountsFromTheNextAuthenticationOn: a reload with new certificates leaves tunnels alone.
func TestRenewedCertificateCountsFromTheNextAuthenticationOn(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		ca := newAuthority()
		as, _ := p.configureCertified(t, ca, 1, auth.Relaxed)
		time.Sleep(time.Second)
		a := p.a.server.Load()
		before := a.Stats().Established
		renewed := *as.Connections[0]
		renewed.Local = ca.local("a0")
		if err := a.Apply(&Config{Store: ca.store(), Connections: []*ikesa.Connection{&renewed}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := paired(t, p.a, p.b); n != 1 || a.Stats().Established != before || a.Stats().SAs != 1 {
			t.Errorf("%d children, %+v", n, a.Stats())
		}
		if err := a.Rekey(t.Context(), "a-b-0", "net"); err != nil {
			t.Error(err)
		}
		if err := errors.Join(a.Down(t.Context(), "a-b-0", ""), a.Up(t.Context(), "a-b-0", "net")); err != nil {
			t.Error(err)
		}
		a.List(func(i *Info) bool {
			if i.Connection != &renewed {
				t.Error("the old certificate is still in use")
			}
			return true
		})
	})
}

// TestEndOfACertificateIsNotOutlived: before the peer's certificate ends the IKE SA is made anew, with the renewed certificate of either side
// if a reload brought one and without a moment that has no child; if none came it ends with the certificate, and begins again when
// it is renewed late.
func TestEndOfACertificateIsNotOutlived(t *testing.T) {
	for _, renewed := range []bool{true, false} {
		t.Run(fmt.Sprint("renewed ", renewed), func(t *testing.T) {
			simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
				const lifetime = 10 * time.Hour
				ca := newAuthority()
				edit := certified(ca, auth.Relaxed)
				x, y := connection(0, "a", "b", true, "192.0.2.2"), connection(0, "b", "a", false, "192.0.2.1")
				edit("a", x)
				edit("b", y)
				y.Local = ca.localFor("b0", lifetime)
				if err := errors.Join(p.b.server.Load().Apply(&Config{Store: ca.store(), Connections: []*ikesa.Connection{y}}),
					p.a.server.Load().Apply(&Config{Store: ca.store(), Connections: []*ikesa.Connection{x}})); err != nil {
					t.Fatal(err)
				}
				renew := func() {
					z := *y
					z.Local = ca.localFor("b0", 100*lifetime)
					if err := p.b.server.Load().Apply(&Config{Store: ca.store(), Connections: []*ikesa.Connection{&z}}); err != nil {
						t.Fatal(err)
					}
				}
				began := time.Now()
				time.Sleep(lifetime / 2)
				if renewed {
					renew()
				}
				without := 0
				for time.Since(began) < lifetime+time.Hour {
					if in, _, _ := p.a.counts(); in == 0 {
						without++
					}
					time.Sleep(10 * time.Second)
				}
				expired := p.a.server.Load().Stats().Reasons[ikesa.ReasonExpired]
				if renewed && (without > 0 || expired != 0) || !renewed && (without < 300 || expired == 0) {
					t.Errorf("%d times without a child, %d IKE SAs ended with the certificate", without, expired)
				}
				if !bytes.Contains(p.a.log.Bytes(), []byte("ends soon")) {
					t.Error("nobody was warned")
				}
				if !renewed {
					renew()
					time.Sleep(2 * time.Minute)
				}
				if n := paired(t, p.a, p.b); n != 1 {
					t.Errorf("%d children", n)
				}
			})
		})
	}
}

// TestForgedAnswersDoNotStopAnInitiator: C4, C5. Before each real answer to IKE_SA_INIT comes a forged one: refusals, a
// weaker group, another key exchange value.
func TestForgedAnswersDoNotStopAnInitiator(t *testing.T) {
	for name, forge := range map[string]func(h message.Header, real *message.Message) []message.Payload{
		"no proposal": func(message.Header, *message.Message) []message.Payload {
			return []message.Payload{&message.Notify{Notify: message.NoProposalChosen}}
		},
		"syntax": func(message.Header, *message.Message) []message.Payload {
			return []message.Payload{&message.Notify{Notify: message.InvalidSyntax}}
		},
		"a group that was not offered": func(message.Header, *message.Message) []message.Payload {
			return []message.Payload{&message.Notify{Notify: message.InvalidKEPayload, Data: []byte{0, 2}}}
		},
		"another value": func(_ message.Header, real *message.Message) []message.Payload {
			all := append([]message.Payload(nil), real.Payloads...)
			for i, p := range all {
				if ke, ok := p.(*message.KE); ok {
					other := append([]byte(nil), ke.Data...)
					other[0] ^= 1
					all[i] = &message.KE{Method: ke.Method, Data: other}
				}
			}
			return all
		},
		"nothing": func(message.Header, *message.Message) []message.Payload { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
				p.net.lose(func(d ikesa.Datagram) bool {
					h, err := message.ParseHeader(d.Data)
					if err != nil || h.Exchange != message.IKESAInit || !h.IsResponse() {
						return true
					}
					real := must(message.Parse(d.Data))
					forged := message.Message{Header: h, Payloads: forge(h, real)}
					forged.Header.ResponderSPI ^= 0xffff
					p.net.deliver(ikesa.Datagram{Local: d.Local, Remote: d.Remote, Data: forged.Append(nil)}, 0) // overtakes it
					return true
				})
				p.configure(t, 1, nil)
				time.Sleep(20 * time.Second)
				if n := paired(t, p.a, p.b); n != 1 {
					t.Errorf("%d children", n)
				}
				if s := p.a.server.Load().Stats(); s.Established != 1 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// TestLargeMessagesTravelInFragments: C8. Certificates in pieces of 600 bytes, over a network that mixes and doubles them, while somebody
// throws fragments of his own between.
func TestLargeMessagesTravelInFragments(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		p.net.loss, p.net.dup, p.net.jitter = 0.05, 0.2, 100*time.Millisecond
		largest, pieces := 0, 0
		p.net.tap = func(d ikesa.Datagram) {
			h := must(message.ParseHeader(d.Data))
			if h.NextPayload != message.TypeEncryptedFragment {
				return
			}
			pieces++
			largest = max(largest, len(d.Data))
			forged := append([]byte(nil), d.Data...)
			forged[len(forged)-1] ^= 1
			p.net.deliver(ikesa.Datagram{Local: d.Local, Remote: d.Remote, Data: forged}, 0)
			forged = append([]byte(nil), d.Data...)
			forged[message.HeaderLen+7]++ // another total
			p.net.deliver(ikesa.Datagram{Local: d.Local, Remote: d.Remote, Data: forged}, 0)
		}
		ca := newAuthority()
		edit := certified(ca, auth.Relaxed)
		as, bs := &Config{Store: ca.store()}, &Config{Store: ca.store()}
		for i := range 5 {
			x, y := connection(i, "a", "b", true, "192.0.2.2"), connection(i, "b", "a", false, "192.0.2.1")
			edit("a", x)
			edit("b", y)
			x.FragmentSize, y.FragmentSize = 600, 600
			as.Connections, bs.Connections = append(as.Connections, x), append(bs.Connections, y)
		}
		if err := errors.Join(p.b.server.Load().Apply(bs), p.a.server.Load().Apply(as)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if n := paired(t, p.a, p.b); n != 5 {
			t.Errorf("%d children", n)
		}
		p.net.mu.Lock()
		defer p.net.mu.Unlock()
		if pieces < 10 || largest > 600-28 {
			t.Errorf("%d pieces, the largest of %d bytes", pieces, largest)
		}
	})
}
