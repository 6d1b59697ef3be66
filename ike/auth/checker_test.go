package auth

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"

	"sallyport/ike/auth/authtest"
)

// web is a network of http servers by URL.
type web struct {
	mu      sync.Mutex
	answers map[string]func() (code int, body []byte)
	delay   time.Duration
	asked   atomic.Int32
	now     atomic.Int32 // requests under way
	most    atomic.Int32
}

func (w *web) RoundTrip(r *http.Request) (*http.Response, error) {
	w.asked.Add(1)
	n := w.now.Add(1)
	defer w.now.Add(-1)
	for m := w.most.Load(); n > m && !w.most.CompareAndSwap(m, n); m = w.most.Load() {
	}
	if w.delay > 0 {
		select {
		case <-time.After(w.delay):
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	w.mu.Lock()
	f := w.answers[r.URL.String()]
	w.mu.Unlock()
	if f == nil {
		return nil, errors.New("no such server")
	}
	code, body := f()
	answer := &http.Response{StatusCode: code, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)), Request: r}
	if code == http.StatusFound {
		answer.Header.Set("Location", string(body))
	}
	return answer, nil
}

func says(b []byte) func() (int, []byte) { return func() (int, []byte) { return 200, b } }

const (
	crlURI  = "http://192.0.2.80/ca.crl"
	ocspURI = "http://192.0.2.81/ocsp"
	peer    = "gw.example.org"
)

func chainFor(t testing.TB, r Revocation, root *authtest.Authority, certs ...*x509.Certificate) *Chain {
	t.Helper()
	c, err := storeOf(t, nil, root).Chain(&Remote{Revocation: r}, id(t, peer), sent(certs...), authtest.Now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func clock() time.Time { return authtest.Now }

// For each answer that a server may give: what each policy makes of it.
func TestRevocationPolicies(t *testing.T) {
	key := authtest.Key("p256", 0)
	root, other := authtest.NewRoot("root", authtest.Key("p256", 9)), authtest.NewRoot("root", authtest.Key("p256", 8))
	both := root.Issue(peer, key, authtest.URIs([]string{crlURI}, []string{ocspURI}))
	byCRL := root.Issue(peer, key, authtest.URIs([]string{crlURI}, nil))
	byOCSP := root.Issue(peer, key, authtest.URIs(nil, []string{ocspURI}))
	none := root.Issue(peer, key)
	odd := root.Issue(peer, key, authtest.URIs([]string{"ldap://192.0.2.80/x", "file:///etc/passwd", "https://192.0.2.80/x"}, nil))
	delegate := func(a *authtest.Authority, change ...func(*x509.Certificate)) *authtest.Authority {
		k := authtest.Key("p256", 5)
		return &authtest.Authority{Certificate: a.Issue("responder", k, change...), Key: k}
	}
	forOCSP := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} }
	only := func(der ...byte) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) {
			l.ExtraExtensions = append(l.ExtraExtensions, pkix.Extension{Id: oidDistribution, Critical: true, Value: append([]byte{0x30, byte(len(der))}, der...)})
		}
	}
	distribution := func(uri string) []byte {
		n := byte(len(uri))
		return append([]byte{0xa0, n + 4, 0xa0, n + 2, 0x86, n}, uri...)
	}
	stale := func(l *x509.RevocationList) {
		l.ThisUpdate, l.NextUpdate = authtest.Now.AddDate(0, 0, -9), authtest.Now.AddDate(0, 0, -8)
	}
	type verdict int
	const (
		fine  verdict = iota // every policy accepts
		bad                  // every policy refuses
		dark                 // unknown: strict and ifuri refuse
		blind                // nobody to ask: strict refuses
	)
	for _, c := range []struct {
		what      string
		cert      *x509.Certificate
		crl, ocsp []byte
		want      verdict
	}{
		{"CRL without it", byCRL, root.CRL(nil), nil, fine},
		{"CRL with it", byCRL, root.CRL([]*x509.Certificate{none, byCRL, both}), nil, bad},
		{"CRL with others", byCRL, root.CRL([]*x509.Certificate{none, both}), nil, fine},
		{"CRL for its address", byCRL, root.CRL(nil, only(distribution(crlURI)...)), nil, fine},
		{"CRL for users", byCRL, root.CRL(nil, only(0x81, 1, 0xff)), nil, fine},
		{"no server", byCRL, nil, nil, dark},
		{"CRL of another key", byCRL, other.CRL(nil), nil, dark},
		{"CRL that is old", byCRL, root.CRL(nil, stale), nil, dark},
		{"CRL of the future", byCRL, root.CRL(nil, func(l *x509.RevocationList) {
			l.ThisUpdate, l.NextUpdate = authtest.Now.Add(time.Hour), authtest.Now.Add(2*time.Hour)
		}), nil, dark},
		{"CRL for authorities", byCRL, root.CRL(nil, only(0x82, 1, 0xff)), nil, dark},
		{"CRL for some reasons", byCRL, root.CRL(nil, only(0x83, 2, 1, 6)), nil, dark},
		{"indirect CRL", byCRL, root.CRL(nil, only(0x84, 1, 0xff)), nil, dark},
		{"CRL for another address", byCRL, root.CRL(nil, only(distribution("http://192.0.2.80/2.crl")...)), nil, dark},
		{"delta CRL", byCRL, root.CRL(nil, func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: oidDelta, Critical: true, Value: []byte{2, 1, 1}}}
		}), nil, dark},
		{"CRL with an unknown extension", byCRL, root.CRL(nil, func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}), nil, dark},
		{"garbage", byCRL, []byte("<html>"), nil, dark},
		{"endless CRL", byCRL, make([]byte, crlBytesMax+1), nil, dark},

		{"OCSP good", byOCSP, nil, root.OCSP(byOCSP, ocsp.Good, nil), fine},
		{"OCSP revoked", byOCSP, nil, root.OCSP(byOCSP, ocsp.Revoked, nil), bad},
		{"OCSP unknown", byOCSP, nil, root.OCSP(byOCSP, ocsp.Unknown, nil), dark},
		{"OCSP of a delegate", byOCSP, nil, root.OCSP(byOCSP, ocsp.Good, delegate(root, forOCSP)), fine},
		{"OCSP of a delegate, revoked", byOCSP, nil, root.OCSP(byOCSP, ocsp.Revoked, delegate(root, forOCSP)), bad},
		{"OCSP of any peer", byOCSP, nil, root.OCSP(byOCSP, ocsp.Good, delegate(root)), dark},
		{"OCSP of an expired delegate", byOCSP, nil, root.OCSP(byOCSP, ocsp.Good, delegate(root, forOCSP, authtest.Expired)), dark},
		{"OCSP of another's delegate", byOCSP, nil, root.OCSP(byOCSP, ocsp.Good, delegate(other, forOCSP)), dark},
		{"OCSP of another key", byOCSP, nil, other.OCSP(byOCSP, ocsp.Good, nil), dark},
		{"OCSP about another", byOCSP, nil, root.OCSP(none, ocsp.Good, nil), dark},
		{"OCSP that is old", byOCSP, nil, root.OCSP(byOCSP, ocsp.Good, nil, func(r *ocsp.Response) {
			r.ThisUpdate, r.NextUpdate = authtest.Now.AddDate(0, 0, -9), authtest.Now.AddDate(0, 0, -8)
		}), dark},
		{"OCSP garbage", byOCSP, nil, []byte("x"), dark},

		{"OCSP fails, CRL knows", both, root.CRL([]*x509.Certificate{both}), []byte("x"), bad},
		{"OCSP fails, CRL is good", both, root.CRL(nil), []byte("x"), fine},
		{"OCSP unknown, CRL is good", both, root.CRL(nil), root.OCSP(both, ocsp.Unknown, nil), fine},
		{"no address", none, nil, nil, blind},
		{"addresses of other kinds", odd, nil, nil, blind},
	} {
		for _, r := range []Revocation{Relaxed, IfURI, Strict} {
			w := &web{answers: map[string]func() (int, []byte){}}
			if c.crl != nil {
				w.answers[crlURI] = says(c.crl)
			}
			if c.ocsp != nil {
				w.answers[ocspURI] = says(c.ocsp)
			}
			chain := chainFor(t, r, root, c.cert)
			err := NewChecker(w, clock).Check(context.Background(), chain)
			var want error
			switch {
			case c.want == bad:
				want = ErrRevoked
			case c.want == dark && r != Relaxed, c.want == blind && r == Strict:
				want = ErrUnknown
			}
			if !errors.Is(err, want) {
				t.Errorf("%s, %v: %v", c.what, r, err)
			}
			if !chain.NeedsCheck() && (err != nil || w.asked.Load() > 0) {
				t.Errorf("%s, %v: the chain says that it needs no check", c.what, r)
			}
		}
	}
}

// TestUnknownSaysWhoWasAsked: a responder that does not know a certificate is not the same as none to ask.
func TestUnknownSaysWhoWasAsked(t *testing.T) {
	root := authtest.NewRoot("root", authtest.Key("p256", 9))
	cert := root.Issue(peer, authtest.Key("p256", 0), authtest.URIs(nil, []string{ocspURI}))
	w := &web{answers: map[string]func() (int, []byte){ocspURI: says(root.OCSP(cert, ocsp.Unknown, nil))}}
	err := NewChecker(w, clock).Check(context.Background(), chainFor(t, Strict, root, cert))
	if !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), ocspURI+": the responder does not know the certificate") {
		t.Error(err)
	}
}

func TestRevokedIntermediateIsRefused(t *testing.T) {
	root := authtest.NewRoot("root", authtest.Key("p256", 9))
	sub := root.Sub("sub", authtest.Key("p256", 8), authtest.URIs([]string{crlURI}, nil))
	chain := chainFor(t, Relaxed, root, sub.Issue(peer, authtest.Key("p256", 0)), sub.Certificate)
	w := &web{answers: map[string]func() (int, []byte){crlURI: says(root.CRL([]*x509.Certificate{sub.Certificate}))}}
	if err := NewChecker(w, clock).Check(context.Background(), chain); !errors.Is(err, ErrRevoked) {
		t.Error(err)
	}
}

func TestConfiguredListsAndAddressesCount(t *testing.T) {
	root := authtest.NewRoot("root", authtest.Key("p256", 9))
	cert := root.Issue(peer, authtest.Key("p256", 0))
	crl, err := x509.ParseRevocationList(root.CRL([]*x509.Certificate{cert}))
	if err != nil {
		t.Fatal(err)
	}
	for what, m := range map[string]Material{
		"file":    {Authorities: []Authority{{Certificate: root.Certificate}}, CRLs: []*x509.RevocationList{crl}},
		"address": {Authorities: []Authority{{Certificate: root.Certificate, CRLs: []string{crlURI}}}},
	} {
		s, err := NewStore(m)
		if err != nil {
			t.Fatal(err)
		}
		chain, err := s.Chain(&Remote{}, id(t, peer), sent(cert), authtest.Now)
		if err != nil || !chain.NeedsCheck() {
			t.Fatal(what, err)
		}
		w := &web{answers: map[string]func() (int, []byte){crlURI: says(crl.Raw)}}
		if err := NewChecker(w, clock).Check(context.Background(), chain); !errors.Is(err, ErrRevoked) {
			t.Error(what, err)
		}
	}
	if _, err := NewStore(Material{Authorities: []Authority{{Certificate: root.Certificate, OCSP: []string{"https://192.0.2.1/"}}}}); err == nil {
		t.Error("an address that would never be asked is taken")
	}
}

// Redirects stay http and few.
func TestRedirectsAreBounded(t *testing.T) {
	root := authtest.NewRoot("root", authtest.Key("p256", 9))
	cert := root.Issue(peer, authtest.Key("p256", 0), authtest.URIs([]string{crlURI}, nil))
	hop := func(to string) func() (int, []byte) { return func() (int, []byte) { return 302, []byte(to) } }
	crl := says(root.CRL(nil))
	for what, c := range map[string]struct {
		answers map[string]func() (int, []byte)
		ok      bool
	}{
		"one":                       {map[string]func() (int, []byte){crlURI: hop("http://192.0.2.82/a"), "http://192.0.2.82/a": crl}, true},
		"https":                     {map[string]func() (int, []byte){crlURI: hop("https://192.0.2.82/a"), "https://192.0.2.82/a": crl}, false},
		"a file":                    {map[string]func() (int, []byte){crlURI: hop("file:///etc/passwd")}, false},
		"endless":                   {map[string]func() (int, []byte){crlURI: hop(crlURI)}, false},
		"an error with a good body": {map[string]func() (int, []byte){crlURI: func() (int, []byte) { _, b := crl(); return 404, b }}, false},
	} {
		w := &web{answers: c.answers}
		err := NewChecker(w, clock).Check(context.Background(), chainFor(t, Strict, root, cert))
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", what, err)
		}
		if n := w.asked.Load(); n > redirectsMax+1 {
			t.Errorf("%s: %d requests", what, n)
		}
	}
}

// Many checks of one list fetch it once; it is kept until it ends, and a failure for a while.
func TestAnswersAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		now := func() time.Time { return authtest.Now.Add(time.Since(start)) }
		root := authtest.NewRoot("root", authtest.Key("p256", 9))
		cert := root.Issue(peer, authtest.Key("p256", 0), authtest.URIs([]string{crlURI}, nil))
		chain := chainFor(t, Strict, root, cert)
		w := &web{answers: map[string]func() (int, []byte){}, delay: time.Second}
		c := NewChecker(w, now)
		check := func() (failed int) {
			var wg sync.WaitGroup
			var n atomic.Int32
			for range 100 {
				wg.Go(func() {
					if c.Check(context.Background(), chain) != nil {
						n.Add(1)
					}
				})
			}
			wg.Wait()
			return int(n.Load())
		}
		steps := []struct {
			after  time.Duration
			server bool
			failed int
			asked  int32
		}{
			{0, false, 100, 1},              // no server
			{failedTime / 2, true, 100, 1},  // the failure is remembered
			{failedTime, true, 0, 2},        // and tried again
			{time.Hour, false, 0, 2},        // kept
			{22 * time.Hour, false, 0, 2},   // until it ends
			{2 * time.Hour, false, 100, 3},  // and no longer
			{2 * failedTime, false, 100, 4}, // an old list is none
		}
		for i, s := range steps {
			time.Sleep(s.after)
			w.mu.Lock()
			delete(w.answers, crlURI)
			if s.server {
				w.answers[crlURI] = says(root.CRL(nil))
			}
			w.mu.Unlock()
			if failed := check(); failed != s.failed || w.asked.Load() != s.asked {
				t.Errorf("step %d: %d failed, %d requests", i, failed, w.asked.Load())
			}
		}
	})
}

// A server that never answers costs its checks their time and nobody else anything; there
// are never more fetches than allowed.
func TestFetchesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := authtest.NewRoot("root", authtest.Key("p256", 9))
		w := &web{answers: map[string]func() (int, []byte){}, delay: time.Hour}
		c := NewChecker(w, clock)
		var chains []*Chain
		for i := range 40 {
			chains = append(chains, chainFor(t, Strict, root, root.Issue(peer, authtest.Key("p256", 0), authtest.URIs([]string{fmt.Sprintf("http://192.0.2.80/%d", i)}, nil))))
		}
		start := time.Now()
		var wg sync.WaitGroup
		for _, chain := range chains {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 7*time.Second)
				defer cancel()
				if err := c.Check(ctx, chain); !errors.Is(err, ErrUnknown) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if d := time.Since(start); d > 7*time.Second {
			t.Errorf("checks took %v", d)
		}
		time.Sleep(time.Minute)
		if n := w.most.Load(); n > fetchesMax {
			t.Errorf("%d fetches at a time", n)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.pending != 0 || c.waiting != 0 {
			t.Errorf("%d fetches and %d checks are left", c.pending, c.waiting)
		}
	})
}

func TestCacheIsBounded(t *testing.T) {
	c := NewChecker(&web{}, clock)
	for i := range 100 {
		_, err := c.cached(context.Background(), fmt.Sprint(i), func() (any, time.Time, int, error) {
			return i, authtest.Now.Add(time.Hour), cacheBytesMax / 10, nil
		})
		if err != nil || c.bytes > cacheBytesMax {
			t.Fatalf("%d bytes, %v", c.bytes, err)
		}
	}
	if len(c.entries) > 10 || len(c.entries) < 8 {
		t.Errorf("%d entries", len(c.entries))
	}
	if _, err := c.cached(context.Background(), "panic", func() (any, time.Time, int, error) { panic("x") }); err == nil {
		t.Error("a panic is no error")
	}
}

func FuzzStatus(f *testing.F) {
	root := authtest.NewRoot("root", authtest.Key("p256", 9))
	cert := root.Issue(peer, authtest.Key("p256", 0))
	f.Add(root.CRL([]*x509.Certificate{cert}))
	f.Add(root.OCSP(cert, ocsp.Revoked, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := parseList(b, root.Certificate); err == nil {
			if s, _ := l.status(cert, nil, authtest.Now); s == good {
				t.Fatal("a forged list says good")
			}
		}
		if s, _, err := parseStatus(b, cert, root.Certificate, authtest.Now); err == nil && s == good {
			t.Fatal("a forged response says good")
		}
	})
}
