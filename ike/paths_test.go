package ike

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"sallyport/ike/ikesa"
	"sallyport/ike/message"
)

// blackHole loses what must not be cut up and is too large, without a word.
type blackHole struct {
	mu     sync.Mutex
	mtu    int // IPv4
	probes map[netip.Addr]int
	last   message.SPI // of the initiator of the IKE SA that the last probe was of
}

// dig puts it between the two, whose links take 1500.
func (p *pair) dig(mtu int) *blackHole {
	b := &blackHole{mtu: mtu, probes: map[netip.Addr]int{}}
	p.a.link, p.b.link = 1500, 1500
	p.net.filter = func(d ikesa.Datagram) bool {
		if !d.Whole {
			return true
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.probes[d.Local.Addr()]++
		if h, err := message.ParseHeader(d.Data); err == nil {
			b.last = h.InitiatorSPI
		}
		size := 20 + 8 + len(d.Data)
		if d.Local.Port() == 4500 {
			size += 4 // the marker
		}
		return size <= b.mtu
	}
	return b
}

// count returns how many probes there were since the last call.
func (b *blackHole) count() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.probes {
		n += c
	}
	clear(b.probes)
	return n
}

func (b *blackHole) set(mtu int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mtu = mtu
}

// between counts the live children for which a node was told an MTU of this much.
func (nd *node) between(low, high int) (n int) {
	nd.mu.Lock()
	defer nd.mu.Unlock()
	for spi := range nd.in {
		if mtu := nd.told[spi]; mtu >= low && mtu <= high {
			n++
		}
	}
	return n
}

func probing(side string, c *ikesa.Connection) { c.PathTime = 10 * time.Minute }

// oneSearch is more probes than two searches of a path take, one by either side.
const oneSearch = 2 * 8 * 4

// TestTunnelsOfOnePathNeedOneSearch: each side finds the black hole once, for all its tunnels, again when it has changed, and
// for a tunnel that comes later not at all.
func TestTunnelsOfOnePathNeedOneSearch(t *testing.T) {
	simulate(t, 1, Options{Workers: 3, Limits: Limits{HalfOpenPerAddress: 1000}}, func(t *testing.T, p *pair) {
		const n = 60
		hole := p.dig(1400)
		p.configure(t, n, probing)
		time.Sleep(45 * time.Second)
		check := func(when string, tunnels, low, high, probes int) {
			t.Helper()
			if got := hole.count(); got > probes {
				t.Errorf("%s: %d probes", when, got)
			}
			if a, b := p.a.between(low, high), p.b.between(low, high); a != tunnels || b != tunnels {
				t.Errorf("%s: %d and %d of %d tunnels know that %d to %d arrive", when, a, b, tunnels, low, high)
			}
		}
		check("at first", n, 1393, 1400, oneSearch)
		hole.set(1300)
		time.Sleep(13 * time.Minute)
		check("when it has changed", n, 1293, 1300, oneSearch)
		hole.set(1500)
		time.Sleep(13 * time.Minute)
		check("when it has gone", n, 1500, 1500, 8)
		p.configure(t, n+1, probing)
		time.Sleep(time.Second)
		check("of a later tunnel", n+1, 1500, 1500, 0)
		if a, b := len(p.a.server.Load().paths.all), len(p.b.server.Load().paths.all); a != 1 || b != 1 {
			t.Errorf("%d and %d paths", a, b)
		}
		p.configure(t, 0, nil)
		time.Sleep(time.Minute)
		if a, b := len(p.a.server.Load().paths.all), len(p.b.server.Load().paths.all); a != 0 || b != 0 {
			t.Errorf("%d and %d paths without tunnels", a, b)
		}
	})
}

// TestAnotherIKESATakesASearchOver has the one that searches end in the middle of it.
func TestAnotherIKESATakesASearchOver(t *testing.T) {
	simulate(t, 1, Options{}, func(t *testing.T, p *pair) {
		const n = 4
		hole := p.dig(1400)
		p.configure(t, n, probing)
		time.Sleep(3 * time.Second) // the first probe has not been given up yet
		hole.mu.Lock()
		first := hole.last
		hole.mu.Unlock()
		ended := ""
		p.a.server.Load().List(func(i *Info) bool {
			if i.SPIi == first {
				ended = i.Connection.Name
			}
			return true
		})
		if ended == "" || p.a.between(1, 9999) != 0 {
			t.Fatalf("%q probes, %d know", ended, p.a.between(1, 9999))
		}
		if err := p.a.server.Load().Down(t.Context(), ended, ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if a, b := p.a.between(1393, 1400), p.b.between(1393, 1400); a != n-1 || b != n-1 {
			t.Errorf("%d and %d of %d tunnels know", a, b, n-1)
		}
		if got := hole.count(); got > 2*oneSearch {
			t.Errorf("%d probes", got)
		}
	})
}

// TestSearchesOfManyPathsAreSpread: peers that come up together are not probed together, but all in the end.
func TestSearchesOfManyPathsAreSpread(t *testing.T) {
	simulate(t, 1, Options{Limits: Limits{Searches: 2}}, func(t *testing.T, p *pair) {
		const n = 40
		hole := p.dig(1500)
		i := 0
		p.configure(t, n, func(side string, c *ikesa.Connection) {
			probing(side, c)
			if side == "a" {
				addr := fmt.Sprintf("192.0.2.%d", 10+i)
				c.RemoteAddrs = addresses(addr)
				p.net.attach(netip.MustParseAddr(addr), p.b)
				i++
			}
		})
		most := 0
		for range 60 {
			time.Sleep(time.Second)
			most = max(most, hole.count())
		}
		if most > 2*2*2 { // by either side, and the burst
			t.Errorf("up to %d probes a second", most)
		}
		if a, b := p.a.between(1500, 1500), p.b.between(1500, 1500); a != n || b != n {
			t.Errorf("%d and %d of %d tunnels know", a, b, n)
		}
	})
}
