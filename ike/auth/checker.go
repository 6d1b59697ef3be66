package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// Limits of a Checker. Everything that it fetches is named by a certificate of a chain that
// is trusted, or by the configuration; what answers is not trusted at all.
const (
	fetchTime      = 5 * time.Second  // one fetch, redirects in
	fetchesMax     = 8                // at a time
	waitersMax     = 1024             // checks that wait for a fetch
	redirectsMax   = 3                // of one fetch, each to http again
	crlBytesMax    = 8 << 20          // one CRL
	ocspBytesMax   = 64 << 10         // one OCSP response
	cacheBytesMax  = 32 << 20         // everything that is kept
	cacheEntryCost = 512              // bytes that an entry costs beside its contents
	freshMin       = time.Minute      // an answer is kept so long at least,
	freshMax       = 24 * time.Hour   // so long at most,
	freshUnknown   = 10 * time.Minute // and so long if it does not say
	failedTime     = 30 * time.Second // after a failure the same is not tried again
	clockSkew      = 5 * time.Minute  // between us and who signs CRLs
)

// Checker asks whether certificates are revoked, by OCSP (RFC 6960) and by CRL (RFC
// 5280). It is safe for concurrent use and outlives Stores: what it knows survives a reload.
type Checker struct {
	client *http.Client
	now    func() time.Time

	mu      sync.Mutex
	entries map[string]*entry // by what was fetched
	bytes   int
	waiting int // checks that wait
	pending int // fetches that run or wait for a slot
	slots   chan struct{}
}

// entry is one answer that is kept, or being fetched.
type entry struct {
	done  chan struct{} // closed when the rest is set
	value any           // *list or status
	err   error
	until time.Time
	used  time.Time
	cost  int
}

// NewChecker makes a Checker. transport reaches the network, nil for the usual one without
// proxies; now is the wall clock, nil for time.Now.
func NewChecker(transport http.RoundTripper, now func() time.Time) *Checker {
	if transport == nil {
		transport = &http.Transport{MaxConnsPerHost: 2, MaxIdleConns: 4, IdleConnTimeout: 10 * time.Second, MaxResponseHeaderBytes: 16 << 10, DisableCompression: true}
	}
	if now == nil {
		now = time.Now
	}
	return &Checker{
		client: &http.Client{Transport: transport, Timeout: fetchTime, CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > redirectsMax {
				return errors.New("too many redirects")
			}
			_, err := httpURI(r.URL.String())
			return err
		}},
		now: now, entries: make(map[string]*entry), slots: make(chan struct{}, fetchesMax),
	}
}

// status is what is known of one certificate.
type status uint8

const (
	unknown status = iota
	good
	revoked
)

// Check returns nil if the chain may be used: nothing of it is revoked, and as much is
// known as its Revocation demands. The error wraps ErrRevoked or ErrUnknown. It may take
// as long as ctx allows; call it off the machine.
func (c *Checker) Check(ctx context.Context, chain *Chain) error {
	for i := range len(chain.Certificates) - 1 {
		s, err := c.certificate(ctx, chain, i)
		subject := SubjectOf(chain.Certificates[i])
		switch {
		case s == revoked:
			return fmt.Errorf("%w: %v", ErrRevoked, subject)
		case s == good:
		case chain.Revocation == Strict, chain.Revocation == IfURI && len(chain.crlURIs(i))+len(chain.ocspURIs(i)) > 0:
			if err == nil {
				err = errors.New("nothing says where to ask")
			}
			return fmt.Errorf("%w: %v: %w", ErrUnknown, subject, err)
		}
	}
	return nil
}

// certificate asks about one certificate of the chain: configured lists, then responders,
// then lists from the network. The first that knows decides.
func (c *Checker) certificate(ctx context.Context, chain *Chain, i int) (status, error) {
	cert, issuer := chain.Certificates[i], chain.Certificates[i+1]
	var all error
	for _, crl := range chain.crls {
		if !bytes.Equal(crl.RawIssuer, issuer.RawSubject) {
			continue
		}
		l, err := newList(crl, issuer)
		if err == nil {
			if s, e := l.status(cert, nil, c.now()); e == nil {
				return s, nil
			} else {
				err = e
			}
		}
		all = errors.Join(all, err)
	}
	for _, uri := range chain.ocspURIs(i) {
		s, err := c.ask(ctx, uri, cert, issuer)
		if err == nil && s != unknown {
			return s, nil
		}
		if err == nil {
			err = fmt.Errorf("asking %s: the responder does not know the certificate", uri)
		}
		all = errors.Join(all, err)
	}
	uris := chain.crlURIs(i)
	for _, uri := range uris {
		l, err := c.list(ctx, uri, issuer)
		if err == nil {
			var s status
			if s, err = l.status(cert, uris, c.now()); err == nil {
				return s, nil
			}
		}
		all = errors.Join(all, err)
	}
	return unknown, all
}

// ask gets a responder's word about one certificate.
func (c *Checker) ask(ctx context.Context, uri string, cert, issuer *x509.Certificate) (status, error) {
	key := cacheKey("ocsp", uri, issuer.Raw, cert.SerialNumber.Bytes())
	v, err := c.cached(ctx, key, func() (any, time.Time, int, error) {
		request, err := statusRequest(cert, issuer)
		if err != nil {
			return nil, time.Time{}, 0, err
		}
		body, err := c.fetch(http.MethodPost, uri, "application/ocsp-request", request, ocspBytesMax)
		if err != nil {
			return nil, time.Time{}, 0, err
		}
		s, until, err := parseStatus(body, cert, issuer, c.now())
		return s, until, 0, err
	})
	if err != nil {
		return unknown, fmt.Errorf("asking %s: %w", uri, err)
	}
	return v.(status), nil
}

// list gets the list of an issuer. Two issuers may have lists at one address only if the
// second one's is fetched again: the key holds the issuer, whose signature was checked.
func (c *Checker) list(ctx context.Context, uri string, issuer *x509.Certificate) (*list, error) {
	v, err := c.cached(ctx, cacheKey("crl", uri, issuer.Raw, nil), func() (any, time.Time, int, error) {
		body, err := c.fetch(http.MethodGet, uri, "", nil, crlBytesMax)
		if err != nil {
			return nil, time.Time{}, 0, err
		}
		l, err := parseList(body, issuer)
		if err != nil {
			return nil, time.Time{}, 0, err
		}
		if err := l.fresh(c.now()); err != nil {
			return nil, time.Time{}, 0, err
		}
		return l, l.until, len(l.serials) * len(serial{}), nil
	})
	if err != nil {
		return nil, fmt.Errorf("fetching %s: %w", uri, err)
	}
	return v.(*list), nil
}

func cacheKey(kind, uri string, issuer, number []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00%x\x00%x", kind, uri, issuer, number)
	return string(h.Sum(nil))
}

var errBusy = errors.New("too many checks wait already")

// cached returns what is kept under the key, or fetches it once for all that ask at the
// same time. A fetch goes on when who asked first gives up: others wait for it, and the
// next one will want it.
func (c *Checker) cached(ctx context.Context, key string, fetch func() (value any, until time.Time, cost int, err error)) (any, error) {
	c.mu.Lock()
	now := c.now()
	e := c.entries[key]
	if e != nil && e.ready() && !now.Before(e.until) {
		c.drop(key, e)
		e = nil
	}
	if e == nil {
		if c.pending >= waitersMax {
			c.mu.Unlock()
			return nil, errBusy
		}
		c.pending++
		e = &entry{done: make(chan struct{}), used: now}
		c.entries[key] = e
		go c.fill(key, e, fetch)
	}
	e.used = now
	if e.ready() {
		c.mu.Unlock()
		return e.value, e.err
	}
	if c.waiting >= waitersMax {
		c.mu.Unlock()
		return nil, errBusy
	}
	c.waiting++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.waiting--
		c.mu.Unlock()
	}()
	select {
	case <-e.done:
		return e.value, e.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (e *entry) ready() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

func (c *Checker) fill(key string, e *entry, fetch func() (any, time.Time, int, error)) {
	c.slots <- struct{}{}
	value, until, cost, err := guarded(fetch)
	<-c.slots
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending--
	now := c.now()
	switch {
	case err != nil:
		until = now.Add(failedTime)
	case until.IsZero():
		until = now.Add(freshUnknown)
	case until.Before(now.Add(freshMin)):
		until = now.Add(freshMin)
	case until.After(now.Add(freshMax)):
		until = now.Add(freshMax)
	}
	e.value, e.err, e.until, e.cost = value, err, until, cost+cacheEntryCost
	c.bytes += e.cost
	close(e.done)
	c.evict(e)
}

// guarded turns a panic over what a server sent into an error: it must not cost more than
// the check.
func guarded(fetch func() (any, time.Time, int, error)) (value any, until time.Time, cost int, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a fault of this program: %v", p)
		}
	}()
	return fetch()
}

// evict forgets what was not used for longest until the rest fits. keep is the entry that
// somebody waits for; it has its value already, wherever it is listed.
func (c *Checker) evict(keep *entry) {
	for c.bytes > cacheBytesMax {
		var oldest string
		var victim *entry
		for key, e := range c.entries {
			if e != keep && e.ready() && (victim == nil || e.used.Before(victim.used)) {
				oldest, victim = key, e
			}
		}
		if victim == nil {
			return
		}
		c.drop(oldest, victim)
	}
}

func (c *Checker) drop(key string, e *entry) {
	delete(c.entries, key)
	c.bytes -= e.cost
}

// fetch reads at most limit bytes from an http address.
func (c *Checker) fetch(method, uri, contentType string, body []byte, limit int64) ([]byte, error) {
	u, err := httpURI(uri)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), fetchTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	r.Header.Set("User-Agent", "")
	answer, err := c.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answers %d", answer.StatusCode)
	}
	b, err := io.ReadAll(io.LimitReader(answer.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("more than %d bytes", limit)
	}
	if block, _ := pem.Decode(b); block != nil && block.Type == "X509 CRL" { // against RFC 5280, but seen
		b = block.Bytes
	}
	return b, nil
}
