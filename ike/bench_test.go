package ike

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sallyport/ike/ikesa"
)

// direct is a transport and data plane that cost nothing: what is sent arrives at once.
type direct struct {
	peer *Server
	own  netip.Addr
	spi  atomic.Uint32
	up   chan struct{} // an element for each outbound association
}

func (d *direct) Send(p ikesa.Datagram) error {
	d.peer.Receive(ikesa.Datagram{Local: p.Remote, Remote: p.Local, Data: p.Data})
	return nil
}
func (d *direct) Keepalive(netip.AddrPort, netip.AddrPort) error { return nil }
func (d *direct) NewChildSPI() (uint32, error)                   { return 256 + d.spi.Add(1), nil }
func (d *direct) ReleaseSPI(uint32)                              {}
func (d *direct) InstallInbound(*ikesa.ChildSA) error            { return nil }
func (d *direct) InstallOutbound(*ikesa.ChildSA) error           { d.up <- struct{}{}; return nil }
func (d *direct) RemoveChild(uint32, uint32, string)             {}
func (d *direct) UpdateChild(*ikesa.ChildSA) error               { return nil }
func (d *direct) Usage(uint32, uint32) (Usage, bool)             { return Usage{}, true }
func (d *direct) PathMTU(uint32, int, time.Time)                 {}
func (d *direct) LinkMTU(netip.Addr) int                         { return 1500 }
func (d *direct) RouteSource(netip.Addr) (netip.Addr, error)     { return d.own, nil }
func (d *direct) Assigned(*ikesa.Connection, []ikesa.Lease)      {}
func (d *direct) Unassigned(*ikesa.Connection, []netip.Addr)     {}

func directPair(n int) (a, b *Server, up chan struct{}) {
	up = make(chan struct{}, 2*n+1000)
	da, db := &direct{own: netip.MustParseAddr("192.0.2.1"), up: up}, &direct{own: netip.MustParseAddr("192.0.2.2"), up: up}
	limits := Limits{CookieThreshold: 1 << 30, HalfOpenPerAddress: 1 << 30, Queue: 1 << 16, Rekeys: 1 << 30}
	a = NewServer(Options{Workers: 1, Limits: limits, Log: zerolog.Nop()}, da, da)
	b = NewServer(Options{Workers: 1, Limits: limits, Log: zerolog.Nop()}, db, db)
	da.peer, db.peer = b, a
	return a, b, up
}

// BenchmarkHandshake sets tunnels up, both ends in this process on a core each: PSK and x25519.
func BenchmarkHandshake(b *testing.B) {
	here, there, up := directPair(b.N)
	apply(b, here, there, b.N, ikesa.ActionTrap)
	b.ReportAllocs()
	b.ResetTimer()
	began := time.Now()
	for i := range b.N {
		for !here.manager.post(func() { here.manager.acquire(fmt.Sprintf("a-b-%d", i), "net") }) {
			time.Sleep(time.Millisecond)
		}
	}
	for range 2 * b.N {
		<-up
	}
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "handshakes/s")
	b.StopTimer()
	stop(here, there)
}

// BenchmarkRekey rekeys the children of 100 tunnels again and again, without key exchange.
func BenchmarkRekey(b *testing.B) {
	const n = 100
	here, there, up := directPair(n + 2*b.N)
	apply(b, here, there, n, ikesa.ActionStart)
	for range 2 * n {
		<-up
	}
	b.ReportAllocs()
	b.ResetTimer()
	began := time.Now()
	done := make(chan error, n)
	for worker := range n {
		go func() {
			var err error
			for i := worker; i < b.N && err == nil; i += n {
				err = here.Rekey(context.Background(), fmt.Sprintf("a-b-%d", worker), "net")
			}
			done <- err
		}()
	}
	for range n {
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "rekeys/s")
	b.StopTimer()
	stop(here, there)
}

func apply(b *testing.B, here, there *Server, n int, action ikesa.ChildAction) {
	var as, bs Config
	as.Store, bs.Store = testStore(), testStore()
	for i := range n {
		ca, cb := connection(i, "a", "b", true, "192.0.2.2"), connection(i, "b", "a", false, "192.0.2.1")
		low, high := netip.AddrFrom4([4]byte{198, 18 + byte(i>>15&1), byte(i >> 7), byte(i << 1)}), netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
		ca.Children[0].LocalTS, ca.Children[0].RemoteTS = prefixes(low.String()+"/32"), prefixes(high.String()+"/32")
		cb.Children[0].LocalTS, cb.Children[0].RemoteTS = ca.Children[0].RemoteTS, ca.Children[0].LocalTS
		ca.Children[0].StartAction = action
		as.Connections, bs.Connections = append(as.Connections, ca), append(bs.Connections, cb)
	}
	if err := there.Apply(&bs); err != nil {
		b.Fatal(err)
	}
	if err := here.Apply(&as); err != nil {
		b.Fatal(err)
	}
}

func stop(servers ...*Server) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, s := range servers {
		s.Close(ctx)
	}
}
