package xsk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/asavie/xdp"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"

	"sallyport/dataplane/packet"
	"sallyport/tools/testbed"
)

// enter puts the test on a thread of its own in a network namespace without a
// name, which vanishes with the thread when the test ends:
//
//	left ══ veth, 2 queues ══ right
func enter(t *testing.T) (left, right netlink.Link) {
	t.Helper()
	testbed.Thread(t)
	must(t, rlimit.RemoveMemlock())
	for _, name := range []string{"all", "default"} {
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0) // no chatter
	}
	return addVeth(t, "left", "right")
}

func addVeth(t *testing.T, a, b string) (netlink.Link, netlink.Link) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.NumTxQueues, attrs.NumRxQueues = a, 2, 2
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: b, PeerNumTxQueues: 2, PeerNumRxQueues: 2}))
	var l [2]netlink.Link
	for i, name := range []string{a, b} {
		var err error
		l[i], err = netlink.LinkByName(name)
		must(t, err)
		must(t, netlink.LinkSetUp(l[i]))
	}
	return l[0], l[1]
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// redirect attaches a program that sends queue q of the interface to slot q of
// the map it returns, and passes what has no socket.
func redirect(t *testing.T, on netlink.Link) *ebpf.Map {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: 8})
	must(t, err)
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "Apache-2.0", Instructions: asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 16, asm.Word), // xdp_md.rx_queue_index
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Imm(asm.R3, 2), // XDP_PASS
		asm.FnRedirectMap.Call(),
		asm.Return(),
	}})
	must(t, err)
	x, err := link.AttachXDP(link.XDPOptions{Program: p, Interface: on.Attrs().Index, Flags: link.XDPDriverMode})
	must(t, err)
	t.Cleanup(func() { x.Close(); p.Close(); m.Close() })
	return m
}

// pool is the test's share of a UMEM's frames.
type pool struct {
	t    *testing.T
	free []uint64
}

func newPool(t *testing.T, d *Domain) *pool {
	p := &pool{t: t}
	for i := range d.umem.frames {
		p.free = append(p.free, uint64(i)*packet.FrameSize)
	}
	return p
}

func (p *pool) put(addr ...uint64) {
	for _, a := range addr {
		p.free = append(p.free, packet.Chunk(a))
	}
}

func (p *pool) get(n int) []uint64 {
	n = min(n, len(p.free))
	a := p.free[len(p.free)-n:]
	p.free = p.free[:len(p.free)-n]
	return a
}

func (p *pool) fill(s *Socket, n int) {
	a := slices.Clone(p.get(n))
	p.put(a[s.Fill(a):]...)
}

func (p *pool) complete(s *Socket) int {
	var a [64]uint64
	n := s.Complete(a[:])
	p.put(a[:n]...)
	return n
}

// whole asserts that every frame is in the pool, once.
func (p *pool) whole(frames int) {
	p.t.Helper()
	slices.Sort(p.free)
	if n := len(p.free); n != frames || len(slices.Compact(slices.Clone(p.free))) != frames {
		p.t.Errorf("%d frames of %d came back, or one twice", n, frames)
	}
}

func domain(t *testing.T, frames int) *Domain {
	u, err := NewUMEM(frames)
	must(t, err)
	d := NewDomain(u, Copy, true, nil)
	t.Cleanup(func() {
		for _, s := range slices.Clone(d.sockets) {
			s.Close()
		}
		u.Close()
	})
	return d
}

func open(t *testing.T, d *Domain, on netlink.Link, queue int) *Socket {
	t.Helper()
	s, err := d.Open(Config{Ifindex: on.Attrs().Index, Ifname: on.Attrs().Name, Queue: queue, RxSize: 256, TxSize: 256, FillSize: 256, CompSize: 256})
	must(t, err)
	return s
}

// frame makes a packet of an experimental EtherType that names itself.
func frame(serial uint32, size int) []byte {
	b := make([]byte, max(size, 18))
	copy(b, "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x88\xb5")
	binary.BigEndian.PutUint32(b[14:], serial)
	rng := rand.New(rand.NewPCG(uint64(serial), 1))
	for i := 18; i < len(b); i++ {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func ours(b []byte) bool { return len(b) >= 18 && b[12] == 0x88 && b[13] == 0xb5 }

// send puts one packet on s's TX ring and flushes.
func (p *pool) send(s *Socket, b []byte) bool {
	a := p.get(1)
	if len(a) == 0 {
		return false
	}
	addr := a[0] + packet.Headroom
	copy(s.domain.umem.Mem()[addr:], b)
	if s.Transmit([]packet.Desc{{Addr: addr, Len: uint32(len(b))}}) == 0 {
		p.put(addr)
		return false
	}
	must(p.t, s.Flush())
	return true
}

// await calls step until it reports done, or fails after a time that no
// healthy machine needs.
func await(t *testing.T, what string, step func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !step(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func sizes() []int { return []int{18, 60, 64, 65, 127, 512, 1420, 1500, 1514} }

func TestProbeNamesModeAndReason(t *testing.T) {
	left, _ := enter(t)
	mode, reason, err := Probe(left.Attrs().Index, 1, OpenLocal)
	if err != nil || mode != Copy || !strings.Contains(reason, "EOPNOTSUPP") {
		t.Errorf("%v, %q, %v", mode, reason, err)
	}
	if _, _, err := Probe(9999, 0, OpenLocal); !errors.Is(err, ErrGone) {
		t.Errorf("interface that does not exist: %v", err)
	}
	if _, _, err := Probe(left.Attrs().Index, 7, OpenLocal); err == nil {
		t.Error("queue 7 of 2 was bound")
	}
}

// TestForwardInPlaceOverTwoInterfacesAndQueues sends from outer queue q through
// a gateway on one UMEM, which receives on one interface and sends on another:
//
//	left(q) ═ right(q) ─ in place ─ east(q) ═ west(q)
func TestForwardInPlaceOverTwoInterfacesAndQueues(t *testing.T) {
	left, right := enter(t)
	east, west := addVeth(t, "east", "west")
	hosts, gateway := domain(t, 1024), domain(t, 1024)
	hp, gp := newPool(t, hosts), newPool(t, gateway)
	maps := map[netlink.Link]*ebpf.Map{}
	for _, l := range []netlink.Link{left, right, east, west} {
		maps[l] = redirect(t, l)
	}
	bound := func(d *Domain, l netlink.Link, q int) *Socket {
		s := open(t, d, l, q)
		must(t, maps[l].Put(uint32(q), uint32(s.FD())))
		return s
	}
	serial := uint32(0)
	for q := range 2 {
		source, in := bound(hosts, left, q), bound(gateway, right, q)
		out, sink := bound(gateway, east, q), bound(hosts, west, q)
		gp.fill(in, 128)
		hp.fill(sink, 128)
		for range 20 {
			for _, size := range sizes() {
				serial++
				want := frame(serial, size)
				if !hp.send(source, want) {
					t.Fatal("no room to send")
				}
				got := false
				await(t, fmt.Sprintf("packet %d on queue %d", serial, q), func() bool {
					var d [8]packet.Desc
					n := in.Receive(d[:])
					if out.Transmit(d[:n]) != n || out.Flush() != nil {
						t.Fatal("forward")
					}
					gp.complete(out)
					gp.fill(in, in.FillRoom()/2)
					n = sink.Receive(d[:])
					for _, x := range d[:n] {
						b := hosts.umem.Mem()[x.Addr : x.Addr+uint64(x.Len)]
						if ours(b) {
							if !bytes.Equal(b, want) {
								t.Fatalf("packet %d differs", serial)
							}
							got = true
						}
						hp.put(x.Addr)
					}
					hp.fill(sink, sink.FillRoom()/2)
					hp.complete(source)
					return got
				})
			}
		}
		if st, err := in.Stats(); err != nil || st.Faults+st.TxInvalid+st.RxInvalid != 0 {
			t.Errorf("statistics %+v, %v", st, err)
		}
	}
	for d, p := range map[*Domain]*pool{hosts: hp, gateway: gp} {
		for _, s := range slices.Clone(d.sockets) {
			must(t, s.Close())
			p.put(s.Reclaim()...)
		}
		p.whole(1024)
	}
}

// TestSecondSocketOnAQueueSharesItsRings also outlives the socket that made them.
func TestSecondSocketOnAQueueSharesItsRings(t *testing.T) {
	left, right := enter(t)
	d := domain(t, 256)
	p := newPool(t, d)
	m := redirect(t, right)
	first, second := open(t, d, right, 0), open(t, d, right, 0)
	source := open(t, d, left, 0)
	p.fill(first, 64)
	if second.Held() != 64 || second.FillRoom() != 256-64 {
		t.Error("the fill ring is not shared")
	}
	receive := func(s *Socket, serial uint32) {
		must(t, m.Put(uint32(0), uint32(s.FD())))
		p.send(source, frame(serial, 100))
		await(t, "a packet", func() bool {
			var x [1]packet.Desc
			if s.Receive(x[:]) == 0 {
				return false
			}
			b := d.umem.Mem()[x[0].Addr:][:x[0].Len]
			got := ours(b) && binary.BigEndian.Uint32(b[14:]) == serial
			p.put(x[0].Addr)
			return got
		})
	}
	receive(first, 1)
	receive(second, 2)
	must(t, first.Close())
	p.put(first.Reclaim()...)
	p.fill(second, 16)
	receive(second, 3)
	p.send(second, frame(4, 60))
	await(t, "a completion", func() bool { return p.complete(second) == 1 })
	third := open(t, d, right, 0)
	receive(third, 5)
	for _, s := range []*Socket{second, third, source} {
		must(t, s.Close())
		p.put(s.Reclaim()...)
	}
	p.whole(256)
}

// TestVanishedInterfaceGivesEveryFrameBack deletes a pair of interfaces under load, while
// packets are everywhere, binds elsewhere while the dead sockets, the one that
// registered the UMEM among them, are still open, and comes back.
func TestVanishedInterfaceGivesEveryFrameBack(t *testing.T) {
	left, right := enter(t)
	d := domain(t, 1024)
	p := newPool(t, d)
	h, err := netlink.NewHandle() // in this namespace, for another thread
	must(t, err)
	defer h.Close()
	for round := range 3 {
		m := redirect(t, right)
		source, sink := open(t, d, left, 0), open(t, d, right, 0)
		must(t, m.Put(uint32(0), uint32(sink.FD())))
		p.fill(sink, 256)
		for i := range 300 {
			p.send(source, frame(uint32(i), 200))
			if i%3 == 0 {
				p.complete(source)
			}
		}
		deleted := make(chan error, 1)
		go func() { deleted <- h.LinkDel(left) }()
		await(t, "the sockets to notice", func() bool {
			var x [32]packet.Desc
			for _, a := range p.get(8) {
				if source.Transmit([]packet.Desc{{Addr: a, Len: 64}}) == 0 {
					p.put(a)
				}
			}
			for _, got := range x[:sink.Receive(x[:])] {
				p.put(got.Addr)
			}
			p.fill(sink, 32)
			p.complete(source)
			return errors.Is(source.Flush(), ErrGone) && errors.Is(sink.Check(), ErrGone)
		})
		must(t, <-deleted)
		left, right = addVeth(t, "left", "right")
		again := open(t, d, left, 1)
		if !p.send(again, frame(1, 100)) {
			t.Error("cannot send after re-creation")
		}
		third := open(t, d, right, 1) // shared from again: the older ones are dead
		for _, s := range []*Socket{source, sink, third, again} {
			must(t, s.Close())
			p.put(s.Reclaim()...)
			if s.Reclaim() != nil {
				t.Error("frames reclaimed twice")
			}
		}
		if p.whole(1024); t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
}

func TestLinkDownIsNotGone(t *testing.T) {
	left, _ := enter(t)
	d := domain(t, 16)
	s := open(t, d, left, 0)
	must(t, netlink.LinkSetDown(left))
	if err := s.Check(); !errors.Is(err, ErrDown) || errors.Is(err, ErrGone) {
		t.Errorf("link down: %v", err)
	}
	must(t, netlink.LinkSetUp(left))
	must(t, s.Check())
	if _, err := d.Open(Config{Ifindex: 9999, Ifname: "nowhere"}); !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("no interface: %v", err)
	}
	if _, err := d.Open(Config{Ifindex: left.Attrs().Index, RxSize: 3}); err == nil {
		t.Error("a ring of 3 was made")
	}
}

func descriptors(t *testing.T) int {
	e, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(e)
}

func mappings(t *testing.T) int {
	b, err := os.ReadFile("/proc/self/maps")
	must(t, err)
	// Only what this package maps: the Go heap comes and goes.
	return strings.Count(string(b), "sallyport-umem") + strings.Count(string(b), "socket:")
}

func TestFiftyReopensLeakNothing(t *testing.T) {
	left, _ := enter(t)
	fds, maps := descriptors(t), mappings(t)
	for range 50 {
		u, err := NewUMEM(64)
		must(t, err)
		d := NewDomain(u, Copy, true, nil)
		s, sibling := open(t, d, left, 0), open(t, d, left, 0)
		if mappings(t) != maps+8+1 {
			t.Fatalf("%d mappings", mappings(t)-maps)
		}
		if _, err := d.Open(Config{Ifindex: left.Attrs().Index, Queue: 9}); err == nil {
			t.Fatal("queue 9 was bound")
		}
		must(t, s.Close())
		must(t, sibling.Close())
		must(t, sibling.Close())
		must(t, u.Close())
	}
	if f, m := descriptors(t), mappings(t); f != fds || m != maps {
		t.Errorf("%d descriptors and %d mappings more than before", f-fds, m-maps)
	}
}

// TestAwaitReleaseSeesAHeldQueue drives what Close does in zero-copy mode, which
// veth does not have.
func TestAwaitReleaseSeesAHeldQueue(t *testing.T) {
	left, _ := enter(t)
	d := domain(t, 16)
	s := open(t, d, left, 0)
	if err := s.awaitRelease(); err == nil {
		t.Error("a bound queue counts as released")
	}
	must(t, s.Close())
	must(t, s.awaitRelease())
}

// TestAgainstIndependentRings sends our packets to github.com/asavie/xdp and its
// packets to us. Its Close leaves the queue bound until the namespace is gone.
func TestAgainstIndependentRings(t *testing.T) {
	left, right := enter(t)
	d := domain(t, 256)
	p := newPool(t, d)
	s := open(t, d, left, 0)
	must(t, redirect(t, left).Put(uint32(0), uint32(s.FD())))
	peer, err := xdp.NewSocket(right.Attrs().Index, 0, nil)
	must(t, err)
	defer peer.Close()
	must(t, redirect(t, right).Put(uint32(0), uint32(peer.FD())))
	p.fill(s, 128)
	peer.Fill(peer.GetDescs(peer.NumFreeFillSlots() / 2))
	for i := range 20 {
		for _, size := range sizes() {
			want := frame(uint32(i*10000+size), size)
			if !p.send(s, want) {
				t.Fatal("no room to send")
			}
			await(t, "the peer's RX", func() bool {
				p.complete(s)
				got := false
				for _, x := range peer.Receive(peer.NumReceived()) {
					b := peer.GetFrame(x)
					if got = got || ours(b); ours(b) && !bytes.Equal(b, want) {
						t.Fatal("the peer received other bytes")
					}
				}
				return got
			})
			back := peer.GetDescs(1)
			copy(peer.GetFrame(back[0]), want)
			back[0].Len = uint32(len(want))
			peer.Transmit(back)
			await(t, "our RX", func() bool {
				peer.Complete(peer.NumCompleted())
				var x [1]packet.Desc
				if s.Receive(x[:]) == 0 {
					return false
				}
				b := d.umem.Mem()[x[0].Addr:][:x[0].Len]
				if ours(b) && !bytes.Equal(b, want) {
					t.Fatal("we received other bytes")
				}
				got := ours(b)
				p.put(x[0].Addr)
				p.fill(s, 1)
				return got
			})
			if free := peer.NumFreeFillSlots(); free > 0 {
				peer.Fill(peer.GetDescs(min(free, 16)))
			}
		}
	}
	must(t, s.Close())
	p.put(s.Reclaim()...)
	p.whole(256)
}
