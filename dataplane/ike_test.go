package dataplane

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"sallyport/bpf"
	"sallyport/dataplane/datagram"
	"sallyport/dataplane/keeper"
	"sallyport/dataplane/packet"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/worker"
	"sallyport/tools/testbed"
)

// mailbox is the IKE side of a test.
type mailbox struct {
	mu  sync.Mutex
	got []string
}

func (m *mailbox) handle(local, remote netip.AddrPort, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.got = append(m.got, fmt.Sprintf("%v from %v: %s", local, remote, brief(data)))
}

// brief shortens long messages that repeat one byte.
func brief(data []byte) string {
	if len(data) > 64 {
		return fmt.Sprintf("%d × %c", len(data), data[0])
	}
	return string(data)
}

func (m *mailbox) wait(t *testing.T, want string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		m.mu.Lock()
		got := strings.Join(m.got, "; ")
		m.mu.Unlock()
		if strings.Contains(got, want) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%q did not arrive, but %q", want, got)
		}
	}
}

func from(t *testing.T, local, remote string, marked bool, data string) []byte {
	t.Helper()
	frame, err := datagram.Append(nil, netip.MustParseAddrPort(local), netip.MustParseAddrPort(remote), 1, marked, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

// TestIKEDatagramsCrossTheGateway carries datagrams in and out of a gateway in memory, by both ports and families.
func TestIKEDatagramsCrossTheGateway(t *testing.T) {
	for _, workers := range []int{1, 3} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			a, b := newRig(t, options{workers: workers, queues: workers, ike: true})
			a.run()
			for _, c := range []struct{ local, remote string }{
				{"192.0.2.1:500", "192.0.2.2:500"}, {"192.0.2.1:4500", "192.0.2.2:4500"},
				{"[2001:db8::1]:500", "[2001:db8::2]:500"}, {"[2001:db8::1]:4500", "[2001:db8::2]:4500"},
			} {
				if err := a.IKE().Send(netip.MustParseAddrPort(c.local), netip.MustParseAddrPort(c.remote), []byte("request")); err != nil {
					t.Fatal(err)
				}
				a.run()
				b.inject(outside, a.drain(outside)...)
				b.mail.wait(t, fmt.Sprintf("%s from %s: request", c.remote, c.local))
			}
			if s := b.Stats(); s.Total.Delivered != 4 || s.IKE.Received != 4 || s.IKE.Malformed != 0 {
				t.Errorf("%+v, dropped %v", s.IKE, b.dropped())
			}
			if err := a.IKE().Keepalive(netip.MustParseAddrPort("192.0.2.1:4500"), netip.MustParseAddrPort("192.0.2.2:4500")); err != nil {
				t.Fatal(err)
			}
			a.run()
			b.inject(outside, a.drain(outside)...)
			if n := b.dropped()["keepalive"]; n != 1 {
				t.Errorf("the keepalive is not seen as one: %v", b.dropped())
			}
			a.settled()
			b.settled()
		})
	}
}

func TestIKESendSaysWhyNot(t *testing.T) {
	a := newGateway(t, sideA, sideB, options{ike: true})
	at := netip.MustParseAddrPort
	for _, c := range []struct {
		local, remote string
		size          int
		want          error
	}{
		{"192.0.2.1:500", "198.18.0.1:500", 100, ErrIKENoRoute},
		{"192.0.2.1:500", "192.0.2.2:500", 5000, ErrIKETooLong},
		{"[2001:db8::1]:500", "[2001:db8::2]:500", 2000, ErrIKETooLong},
		{"192.0.2.1:500", "[2001:db8::2]:500", 100, datagram.ErrAddress},
	} {
		if err := a.IKE().Send(at(c.local), at(c.remote), make([]byte, c.size)); err != c.want {
			t.Errorf("%d bytes from %s to %s: %v, not %v", c.size, c.local, c.remote, err, c.want)
		}
	}
	a.run()
	full := 0
	for range 2 * ikeRing {
		if a.IKE().Send(at("192.0.2.1:500"), at("192.0.2.2:500"), []byte("x")) == ErrIKEFull {
			full++
		}
	}
	if full < ikeRing || a.Stats().IKE.Full != uint64(full) {
		t.Errorf("%d of %d did not fit, %d counted", full, 2*ikeRing, a.Stats().IKE.Full)
	}
}

// TestIKEDatagramIsCutUpWhereTheKernelCannot: IPv4 allows it, and so the worker does it.
func TestIKEDatagramIsCutUpWhereTheKernelCannot(t *testing.T) {
	a := newGateway(t, sideA, sideB, options{ike: true, mtu: 1000})
	a.run()
	if err := a.IKE().Send(netip.MustParseAddrPort("192.0.2.1:500"), netip.MustParseAddrPort("192.0.2.2:500"), make([]byte, 2500)); err != nil {
		t.Fatal(err)
	}
	a.run()
	if pieces := a.drain(outside); len(pieces) != 3 {
		t.Errorf("%d pieces, dropped %v", len(pieces), a.dropped())
	}
	a.settled()
}

// TestWithoutIKEItsMessagesAreCounted as what nobody here reads.
func TestWithoutIKEItsMessagesAreCounted(t *testing.T) {
	a := newGateway(t, sideA, sideB, options{})
	a.tunnel(sideA, sideB, options{}, 0x1001, 0x2001)
	a.inject(outside, from(t, "192.0.2.2:500", "192.0.2.1:500", false, "x"), from(t, "192.0.2.2:4500", "192.0.2.1:4500", true, "x"))
	if n := a.dropped()["unexpected-ike"]; n != 2 {
		t.Errorf("%v", a.dropped())
	}
	if a.IKE() != nil {
		t.Error("a way for IKE that nobody asked for")
	}
}

// TestIKELeavesAheadOfAFlood holds that a datagram leaves with the next batch, however many packets wait.
func TestIKELeavesAheadOfAFlood(t *testing.T) {
	a, _ := newRig(t, options{ike: true, ring: 2048})
	a.run()
	queue := a.queues[inside][0]
	n := queue.InjectBatch(repeat(udp4("198.51.100.5", "198.51.100.200", 100, 64), 1000))
	if n != 1000 {
		t.Fatalf("%d injected", n)
	}
	for range 20 {
		a.workers[0].Step(a.now)
		if err := a.IKE().Send(netip.MustParseAddrPort("192.0.2.1:500"), netip.MustParseAddrPort("192.0.2.2:500"), []byte("x")); err != nil {
			t.Fatal(err)
		}
		a.queues[outside][0].Discard(1 << 20)
		a.workers[0].Step(a.now)
		first := true
		ike := 0
		a.queues[outside][0].Drain(func(f []byte) {
			if f[23] == packet.ProtoUDP {
				ike++
				if !first {
					t.Error("the datagram does not leave first")
				}
			}
			first = false
		})
		if ike != 1 {
			t.Fatalf("%d datagrams left in the next batch", ike)
		}
		queue.InjectBatch(repeat(udp4("198.51.100.5", "198.51.100.200", 100, 64), 128))
	}
}

// TestFloodOfIKELeavesPacketsTheirTurn holds the other direction: of each batch, datagrams get an eighth.
func TestFloodOfIKELeavesPacketsTheirTurn(t *testing.T) {
	a, _ := newRig(t, options{ike: true, ring: 2048})
	a.run()
	a.queues[inside][0].InjectBatch(repeat(udp4("198.51.100.5", "198.51.100.200", 100, 64), 1000))
	for range ikeRing {
		a.IKE().Send(netip.MustParseAddrPort("192.0.2.1:500"), netip.MustParseAddrPort("192.0.2.2:500"), []byte("x"))
	}
	for range 16 {
		a.workers[0].Step(a.now)
		a.queues[outside][0].Discard(1 << 20)
	}
	if n := a.Stats().Total.SentESP; n < 16*(packet.BatchMax-packet.BatchMax/8) {
		t.Errorf("%d packets sealed in 16 batches", n)
	}
}

// cable is an engine in a namespace, with a peer that speaks through the kernel:
//
//	[gw] 192.0.2.1, 2001:db8::1 ══ wan, two queues ══ 192.0.2.2, 2001:db8::2 [peer]
type cable struct {
	*Engine
	t        *testing.T
	gw, peer *testbed.Namespace
	mail     mailbox
}

// cableOptions vary the cable.
type cableOptions struct {
	mode string
	spd  []spd.Policy
	own  []string                           // more addresses of the gateway
	look func(s *bpf.Steering, ifindex int) // if given, at the steering program in the moment in which it is attached
}

// looking is the kernel, with a look at each program that is attached.
type looking struct {
	*keeper.Local
	look func(s *bpf.Steering, ifindex int)
}

func (l looking) AttachXDP(s *bpf.Steering, ifname string, ifindex int, mode bpf.Mode, pinDir string) (*bpf.Link, error) {
	if l.look != nil {
		l.look(s, ifindex)
	}
	return l.Local.AttachXDP(s, ifname, ifindex, mode, pinDir)
}

func newCable(t *testing.T, o cableOptions) *cable {
	t.Helper()
	testbed.Need(t, testbed.Root...)
	bed := testbed.ForTest(t, "ikepath")
	c := &cable{t: t}
	var err error
	c.gw, err = bed.Namespace("gw")
	testbed.Must(t, err)
	c.peer, err = bed.Namespace("peer")
	testbed.Must(t, err)
	testbed.Must(t, bed.Veth(c.gw, "wan", c.peer, "wan", 2))
	testbed.Must(t, c.gw.Address("wan", append([]string{"192.0.2.1/24", "2001:db8::1/64"}, o.own...)...))
	testbed.Must(t, c.peer.Address("wan", "192.0.2.2/24", "2001:db8::2/64"))
	testbed.Must(t, c.gw.Up("lo", "wan"))
	testbed.Must(t, c.peer.Up("lo", "wan"))
	folder, err := bed.Folder()
	testbed.Must(t, err)
	pins := filepath.Join(folder, "bpf")
	testbed.Must(t, os.Mkdir(pins, 0o700))
	testbed.Must(t, unix.Mount("bpf", pins, "bpf", 0, "mode=0700"))
	testbed.Must(t, c.gw.Do(func() error {
		k, err := keeper.NewLocal()
		if err != nil {
			return err
		}
		c.Engine, err = New(Config{
			Workers: 2, RingSize: 256, Associations: 16, TUN: "sp0", PinDir: filepath.Join(pins, "gw"), IKE: true,
			Ports: []PortConfig{{Name: "wan", Role: worker.Outside, Mode: o.mode}},
		}, looking{k, o.look}, zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel))
		if err != nil {
			return err
		}
		c.IKE().Handle(c.mail.handle)
		if err := c.Apply(Policies{SPD: o.spd, Endpoints: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}}); err != nil {
			return err
		}
		return c.Start()
	}))
	t.Cleanup(func() {
		testbed.Must(t, c.gw.Do(func() error { c.Stop(); c.Close(); return nil }))
	})
	return c
}

// TestOwnAddressesBeforeAttaching has a tunnel for everything. A process that dies as soon as it serves its interfaces leaves a
// program behind that lets an administrator in.
func TestOwnAddressesBeforeAttaching(t *testing.T) {
	every := func(p string) []spd.Range { return []spd.Range{spd.RangeOf(netip.MustParsePrefix(p))} }
	seen := map[string]uint32{}
	newCable(t, cableOptions{
		mode: "auto", own: []string{"198.51.100.1/24"},
		spd: []spd.Policy{{Name: "all", Action: spd.Protect, Selectors: []spd.Selector{{Local: every("198.51.100.0/24"), Remote: every("0.0.0.0/0")}}}},
		look: func(s *bpf.Steering, ifindex int) {
			for _, to := range []string{"198.51.100.1", "203.0.113.1"} {
				frame := udp4("198.51.100.10", to, 64, 64)
				action, err := s.Program().Run(&ebpf.RunOptions{Data: frame, Context: struct{ Data, DataEnd, DataMeta, Ingress, Queue, Egress uint32 }{
					DataEnd: uint32(len(frame)), Ingress: uint32(ifindex),
				}})
				if err != nil {
					t.Error(err)
				}
				seen[to] = action
			}
		},
	})
	const pass = 2 // enum xdp_action (include/uapi/linux/bpf.h)
	if seen["198.51.100.1"] != pass || seen["203.0.113.1"] == pass || len(seen) != 2 {
		t.Errorf("frames to the gateway itself and into the tunnel end with actions %v", seen)
	}
}

// socket opens a UDP socket of the peer.
func (c *cable) socket(addr string) *net.UDPConn {
	c.t.Helper()
	var s *net.UDPConn
	testbed.Must(c.t, c.peer.Do(func() (err error) {
		s, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		return err
	}))
	c.t.Cleanup(func() { s.Close() })
	return s
}

// TestIKEOverXDPAndKernel: short messages go by XDP, both ways and behind a driver with and without it; long ones by the kernel.
func TestIKEOverXDPAndKernel(t *testing.T) {
	for _, mode := range []string{"auto", "generic"} {
		t.Run(mode, func(t *testing.T) {
			e := newCable(t, cableOptions{mode: mode})
			read := func(c *net.UDPConn, want string) {
				t.Helper()
				b := make([]byte, 65535)
				c.SetReadDeadline(time.Now().Add(5 * time.Second))
				n, from, err := c.ReadFromUDPAddrPort(b)
				if err != nil {
					t.Fatalf("%s: %v; %+v %v", want, err, e.Stats().IKE, e.Stats().XDP)
				}
				if got := fmt.Sprintf("%v: %s", netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), brief(b[:n])); got != want {
					t.Errorf("%s arrived, not %s", got, want)
				}
			}
			long := strings.Repeat("L", 3000)
			for _, c := range []struct{ gw, peer, mark string }{
				{"192.0.2.1:500", "192.0.2.2:500", ""}, {"192.0.2.1:4500", "192.0.2.2:4500", "\x00\x00\x00\x00"},
				{"[2001:db8::1]:500", "[2001:db8::2]:500", ""}, {"[2001:db8::1]:4500", "[2001:db8::2]:4500", "\x00\x00\x00\x00"},
			} {
				s := e.socket(c.peer)
				to, local, remote := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(c.gw)), netip.MustParseAddrPort(c.gw), netip.MustParseAddrPort(c.peer)
				for _, message := range []string{"hello", long} {
					if _, err := s.WriteTo([]byte(c.mark+message), to); err != nil {
						t.Fatal(err)
					}
					e.mail.wait(t, fmt.Sprintf("%s from %s: %s", c.gw, c.peer, brief([]byte(message))))
					testbed.Must(t, e.IKE().Send(local, remote, []byte(message)))
					read(s, fmt.Sprintf("%s: %s", c.gw, brief([]byte(c.mark+message))))
				}
			}
			s := e.Stats().IKE
			if s.Received != 4 || s.Sent != 4 || s.KernelReceived != 4 || s.KernelSent != 4 || s.Malformed+s.Full != 0 {
				t.Errorf("the short ones should go by XDP and the long ones by the kernel: %+v", s)
			}
			var source netip.Addr
			testbed.Must(t, e.gw.Do(func() (err error) {
				source, err = e.RouteSource(netip.MustParseAddr("192.0.2.2"))
				return err
			}))
			if source != netip.MustParseAddr("192.0.2.1") {
				t.Errorf("the source towards the peer is %v", source)
			}
		})
	}
}

// TestFullRingOfPacketsLeavesRoomForIKE: while workers do not get at their packets and the ring of these is full to the
// brim, IKE messages still find frames and a ring of their own.
func TestFullRingOfPacketsLeavesRoomForIKE(t *testing.T) {
	c := newCable(t, cableOptions{mode: "auto"})
	esp, ike := c.socket("192.0.2.2:4500"), c.socket("192.0.2.2:500")
	to := netip.MustParseAddrPort("192.0.2.1:4500")
	if _, err := ike.WriteToUDPAddrPort([]byte("first"), netip.MustParseAddrPort("192.0.2.1:500")); err != nil { // resolves the neighbour
		t.Fatal(err)
	}
	c.mail.wait(t, "first")
	release := make(chan struct{})
	var stalled sync.WaitGroup
	for _, w := range c.group.Workers {
		stalled.Add(1)
		go w.Call(func() { stalled.Done(); <-release })
	}
	stalled.Wait()
	flood := make([]byte, 100)
	flood[0] = 0x80
	for range 3000 {
		esp.WriteToUDPAddrPort(flood, to)
	}
	const messages = 20
	for i := range messages {
		if _, err := ike.WriteToUDPAddrPort(fmt.Appendf(nil, "message %d.", i), netip.MustParseAddrPort("192.0.2.1:500")); err != nil {
			t.Fatal(err)
		}
	}
	testbed.Eventually(t, "the ring is full", func() bool {
		full := uint64(0)
		for _, s := range c.ports[0].sockets { // not by Stats, which may wait for whoever waits for a worker
			k, err := s.queue.(statistician).Stats()
			testbed.Must(t, err)
			full += k.RxRingFull
		}
		return full > 0
	})
	close(release)
	for i := range messages {
		c.mail.wait(t, fmt.Sprintf("message %d.", i))
	}
	if s := c.Stats().IKE; s.Received != messages+1 || s.KernelReceived != 0 {
		t.Errorf("%+v", s)
	}
}
