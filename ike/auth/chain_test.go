package auth

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"strings"
	"testing"
	"time"

	"sallyport/ike/auth/authtest"
	"sallyport/ike/message"
)

func sent(certs ...*x509.Certificate) (all []*message.Cert) {
	for _, c := range certs {
		all = append(all, &message.Cert{Encoding: message.CertX509Signature, Data: c.Raw})
	}
	return all
}

func storeOf(t testing.TB, certs []*x509.Certificate, authorities ...*authtest.Authority) *Store {
	t.Helper()
	m := Material{Certificates: certs}
	for _, a := range authorities {
		m.Authorities = append(m.Authorities, Authority{Name: a.Certificate.Subject.CommonName, Certificate: a.Certificate})
	}
	s, err := NewStore(m)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A chain is built only from what is trusted, strong, in time, and names the peer. The
// error says which of these it was.
func TestChainsAreTrustedAndNameThePeer(t *testing.T) {
	key, caKey := authtest.Key("p256", 0), authtest.Key("p384", 9)
	root, other := authtest.NewRoot("root", caKey), authtest.NewRoot("other", authtest.Key("p256", 8))
	sub := root.Sub("sub", authtest.Key("rsa2048", 9))
	impostor := authtest.NewRoot("root", authtest.Key("p256", 7)) // the same name, another key
	const name = "gw.example.org"
	any := &Remote{}
	type certs = []*x509.Certificate
	constrained := root.Sub("constrained", authtest.Key("p256", 6), func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"example.net"}
	})
	short := root.Sub("short", authtest.Key("p256", 6), func(c *x509.Certificate) { c.MaxPathLenZero = true })
	noCA := root.Issue("nobody", authtest.Key("p256", 6), func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign })
	weakSub := root.Sub("weak", authtest.Key("rsa1024", 9))
	good := root.Issue(name, key)
	pinned := authtest.SelfSigned(name, key)
	exact := func(s string) *Remote { return &Remote{ID: pattern(t, s)} }
	for _, c := range []struct {
		what   string
		remote *Remote
		id     string
		sent   certs
		have   certs
		want   error
	}{
		{"by name", any, name, certs{good}, nil, nil},
		{"by name in other case", any, "GW.Example.org", certs{good}, nil, nil},
		{"by subject", any, "C=CH, O=Example, CN=gw.example.org", certs{good}, nil, nil},
		{"by address", any, "192.0.2.1", certs{root.Issue(name, key, authtest.IP("192.0.2.1"))}, nil, nil},
		{"by IPv6 address", any, "2001:db8::1", certs{root.Issue(name, key, authtest.IP("2001:db8::1"))}, nil, nil},
		{"by mail", any, "carol@example.org", certs{root.Issue(name, key, authtest.Email("carol@example.org"))}, nil, nil},
		{"with its intermediate", any, name, certs{sub.Issue(name, key), sub.Certificate}, nil, nil},
		{"with a configured intermediate", any, name, certs{sub.Issue(name, key)}, certs{sub.Certificate}, nil},
		{"with useless others and the root", any, name, certs{sub.Issue(name, key), other.Certificate, sub.Certificate, root.Certificate}, nil, nil},
		{"that was not sent but is known", any, name, nil, certs{good}, nil},
		{"pinned, self-signed", &Remote{Certs: certs{pinned}}, name, certs{pinned}, nil, nil},
		{"pinned, not sent", &Remote{ID: pattern(t, name), Certs: certs{pinned}}, name, nil, nil, nil},
		{"pinned and bound to a key ID", &Remote{ID: pattern(t, "keyid:7"), Certs: certs{pinned}}, "keyid:7", certs{pinned}, nil, nil},
		{"of a configured authority", &Remote{CACerts: certs{root.Certificate}}, name, certs{good}, nil, nil},
		{"of an intermediate that is configured", &Remote{CACerts: certs{sub.Certificate}}, name, certs{sub.Issue(name, key)}, nil, nil},
		{"for IKE", any, name, certs{root.Issue(name, key, func(c *x509.Certificate) { c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, oidIKE) })}, nil, nil},
		{"for TLS", any, name, certs{root.Issue(name, key, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })}, nil, nil},

		{"of another name", any, "b.example.org", certs{good}, nil, ErrIdentity},
		{"whose identity is not the configured one", exact("b.example.org"), name, certs{good}, nil, ErrIdentity},
		{"configured identity, other certificate", exact(name), name, certs{root.Issue("b.example.org", key)}, nil, ErrIdentity},
		{"that has the name as CN only", any, "gw", certs{root.Issue(name, key, func(c *x509.Certificate) { c.Subject.CommonName = "gw" })}, nil, ErrIdentity},
		{"with a wildcard", any, name, certs{root.Issue("*.example.org", key)}, nil, ErrIdentity},
		{"with a part of the subject", any, "O=Example, CN=gw.example.org", certs{good}, nil, ErrIdentity},
		{"of another address", any, "192.0.2.2", certs{root.Issue(name, key, authtest.IP("192.0.2.1"))}, nil, ErrIdentity},
		{"an address as a name", any, "fqdn:192.0.2.1", certs{root.Issue(name, key, authtest.IP("192.0.2.1"))}, nil, ErrIdentity},
		{"of a key ID", any, "keyid:gw.example.org", certs{good}, nil, ErrIdentity},
		{"expired", any, name, certs{root.Issue(name, key, authtest.Expired)}, nil, ErrExpired},
		{"of the future", any, name, certs{root.Issue(name, key, authtest.Future)}, nil, ErrExpired},
		{"below an expired intermediate", any, name, func() certs {
			a := root.Sub("old", authtest.Key("p256", 6), authtest.Expired)
			return certs{a.Issue(name, key), a.Certificate}
		}(), nil, ErrExpired},
		{"self-signed", any, name, certs{pinned}, nil, ErrUntrusted},
		{"of an unknown authority", any, name, certs{other.Issue(name, key), other.Certificate}, nil, ErrUntrusted},
		{"of one with a trusted one's name", any, name, certs{impostor.Issue(name, key), impostor.Certificate}, nil, ErrUntrusted},
		{"without its intermediate", any, name, certs{sub.Issue(name, key)}, nil, ErrUntrusted},
		{"of an authority that is not for this peer", &Remote{CACerts: certs{other.Certificate}}, name, certs{good}, nil, ErrUntrusted},
		{"not the pinned one", &Remote{Certs: certs{pinned}}, name, certs{good}, nil, ErrUntrusted},
		{"signed by a peer", any, name, certs{(&authtest.Authority{Certificate: noCA, Key: authtest.Key("p256", 6)}).Issue(name, key), noCA}, nil, ErrUntrusted},
		{"outside of name constraints", any, name, certs{constrained.Issue(name, key), constrained.Certificate}, nil, ErrUntrusted},
		{"below an authority that may have none below", any, name, func() certs {
			a := short.Sub("too deep", authtest.Key("p256", 5))
			return certs{a.Issue(name, key), a.Certificate, short.Certificate}
		}(), nil, ErrUntrusted},
		{"with an unknown critical extension", any, name, certs{root.Issue(name, key, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 3, 6, 1, 4, 1, 99999, 1}, Critical: true, Value: []byte{5, 0}}}
		})}, nil, ErrUntrusted},
		{"an authority itself", any, "C=CH, O=Example, CN=sub", certs{sub.Certificate}, nil, ErrCertificate},
		{"for encryption only", any, name, certs{root.Issue(name, key, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })}, nil, ErrCertificate},
		{"for code only", any, name, certs{root.Issue(name, key, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} })}, nil, ErrCertificate},
		{"none at all", any, name, nil, nil, ErrCertificate},
		{"with a weak key", any, name, certs{root.Issue(name, authtest.Key("rsa1024", 0))}, nil, ErrKey},
		{"on a weak curve", any, name, certs{root.Issue(name, authtest.Key("p224", 0))}, nil, ErrKey},
		{"below a weak key", any, name, certs{weakSub.Issue(name, key), weakSub.Certificate}, nil, ErrKey},
		{"of a kind that is not configured", &Remote{Schemes: Schemes{Keys: RSA}}, name, certs{good}, nil, ErrKey},
	} {
		s := storeOf(t, c.have, root)
		chain, err := s.Chain(c.remote, id(t, c.id), sent(c.sent...), authtest.Now)
		if !errors.Is(err, c.want) || (err == nil) != (chain != nil) {
			t.Errorf("a certificate %s: %v, want %v", c.what, err, c.want)
		}
	}
	s := storeOf(t, nil, root)
	for what, p := range map[string]*message.Cert{
		"hash and URL":           {Encoding: message.CertHashURL, Data: []byte("01234567890123456789http://192.0.2.1/c")},
		"hash and URL of many":   {Encoding: message.CertHashURLBundle, Data: []byte("x")},
		"PKCS#7":                 {Encoding: message.CertPKCS7, Data: []byte("x")},
		"a raw key":              {Encoding: message.CertRawPublicKey, Data: []byte("x")},
		"garbage":                {Encoding: message.CertX509Signature, Data: []byte("x")},
		"a certificate too long": {Encoding: message.CertX509Signature, Data: append(append([]byte{}, good.Raw...), 0)},
	} {
		if _, err := s.Chain(any, id(t, name), []*message.Cert{p}, authtest.Now); !errors.Is(err, ErrCertificate) {
			t.Errorf("%s: %v", what, err)
		}
	}
	many := sent(good)
	for len(many) <= certsMax {
		many = append(many, many[0])
	}
	if _, err := s.Chain(any, id(t, name), many, authtest.Now); !errors.Is(err, ErrCertificate) {
		t.Error("any number of certificates:", err)
	}
	if _, err := (*Store)(nil).Chain(any, id(t, name), sent(good), authtest.Now); !errors.Is(err, ErrUntrusted) {
		t.Error("without a store:", err)
	}
	if _, err := NewStore(Material{Authorities: []Authority{{Name: "x", Certificate: good}}}); err == nil {
		t.Error("a peer's certificate is taken for an authority's")
	}
}

func TestCertReqNamesTheAuthorities(t *testing.T) {
	a, b := authtest.NewRoot("a", authtest.Key("p256", 9)), authtest.NewRoot("b", authtest.Key("p256", 8))
	s := storeOf(t, nil, a, b)
	want := authorityHash(b.Certificate)
	got := s.CertReqs(&Remote{CACerts: []*x509.Certificate{b.Certificate}})
	if len(got) != 1 || string(got[0].(*message.CertReq).Authorities) != string(want[:]) {
		t.Errorf("%+v", got)
	}
	if got := s.CertReqs(&Remote{}); len(got) != 1 || len(got[0].(*message.CertReq).Authorities) != 40 {
		t.Errorf("%+v", got)
	}
	if got := s.CertReqs(&Remote{Method: PSK}); got != nil {
		t.Errorf("a certificate is asked of a peer with a secret: %+v", got)
	}
}

func TestExpiringCertificatesAreNamed(t *testing.T) {
	root := authtest.NewRoot("root", authtest.Key("p256", 9))
	key := authtest.Key("p256", 0)
	soon := root.Issue("soon", key, func(c *x509.Certificate) { c.NotAfter = authtest.Now.Add(10 * 24 * time.Hour) })
	late := root.Issue("late", key)
	old := root.Issue("old", key, authtest.Expired)
	future := root.Issue("future", key, authtest.Future)
	m := Material{Certificates: []*x509.Certificate{late, soon, old, future}, Authorities: []Authority{{Name: "ca", Certificate: root.Certificate}}}
	m.Keys = append(m.Keys, key)
	s, err := NewStore(m)
	if err != nil {
		t.Fatal(err)
	}
	got := s.Expiring(authtest.Now, 30*24*time.Hour)
	if len(got) != 3 || got[0].ID != SubjectOf(old) || got[1].ID != SubjectOf(future) || got[2].ID != SubjectOf(soon) || got[2].What != "ours" {
		t.Errorf("%+v", got)
	}
	for left, want := range map[time.Duration]string{
		10*24*time.Hour - 1: "in 9 days", 48 * time.Hour: "in 2 days", 47 * time.Hour: "in 47 hours", 119 * time.Minute: "in 119 minutes",
	} {
		if got := s.Expiring(soon.NotAfter.Add(-left), left); !strings.HasSuffix(got[len(got)-1].Text, want) {
			t.Errorf("%v before the end: %q", left, got[len(got)-1].Text)
		}
	}
	if got := s.Expiring(authtest.Now.AddDate(4, 11, 15), 30*24*time.Hour); got[len(got)-1].What != "authority ca" {
		t.Errorf("%+v", got)
	}
	if s.Key(late) == nil || s.Key(root.Certificate) != nil {
		t.Error("keys do not follow certificates")
	}
}

func TestOurChainIsCompleted(t *testing.T) {
	root := authtest.NewRoot("root", authtest.Key("p256", 9))
	sub := root.Sub("sub", authtest.Key("p256", 8))
	leaf := sub.Issue("gw", authtest.Key("p256", 0))
	s := storeOf(t, []*x509.Certificate{leaf, sub.Certificate}, root)
	if got := s.Complete([]*x509.Certificate{leaf}); len(got) != 2 || got[1] != sub.Certificate {
		t.Errorf("%d certificates", len(got))
	}
}

func FuzzChain(f *testing.F) {
	root := authtest.NewRoot("root", authtest.Key("p256", 9))
	good := root.Issue("gw.example.org", authtest.Key("p256", 0))
	f.Add(uint8(4), good.Raw, uint8(2), []byte("gw.example.org"))
	f.Add(uint8(12), []byte("x"), uint8(9), good.RawSubject)
	s, err := NewStore(Material{Authorities: []Authority{{Name: "root", Certificate: root.Certificate}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, encoding uint8, der []byte, kind uint8, name []byte) {
		peer := Identity{message.IDType(kind), string(name)}
		chain, err := s.Chain(&Remote{}, peer, []*message.Cert{{Encoding: message.CertEncoding(encoding), Data: der}}, authtest.Now)
		if err == nil && !chain.Leaf().Equal(good) {
			t.Fatal("a certificate that nobody made is trusted")
		}
	})
}
