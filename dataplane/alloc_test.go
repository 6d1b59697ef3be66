package dataplane

import (
	"fmt"
	"net/netip"
	"testing"

	"sallyport/dataplane/fib"
	"sallyport/dataplane/sad"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
)

// zero runs f, after it has run often enough to have grown what grows once, and fails if it allocates.
func zero(t *testing.T, what string, f func()) {
	t.Helper()
	for range 5 {
		f()
	}
	if n := testing.AllocsPerRun(20, f); n != 0 {
		t.Errorf("%s: %v allocations a round", what, n)
	}
}

// rounds returns a function that lets frames arrive at A and carries what leaves A to B, each step included
// and without an allocation of its own.
func rounds(a, b *gateway, frames [][]byte) func() {
	a.run() // fills the rings
	var carry func(f []byte)
	next := 0
	if b != nil {
		b.run()
		carry = func(f []byte) {
			next++
			b.queues[outside][next%len(b.queues[outside])].Inject(f)
		}
	} else {
		carry = func([]byte) {}
	}
	return func() {
		a.queues[inside][0].InjectBatch(frames)
		a.run()
		for _, q := range a.queues[outside] {
			q.Drain(carry)
		}
		for _, q := range a.queues[inside] {
			q.Discard(1 << 20)
		}
		if b != nil {
			b.run()
			for _, q := range b.queues[inside] {
				q.Discard(1 << 20)
			}
		}
	}
}

// TestNothingAllocatesOnThePacketPath carries full batches through whole gateways: sealing, opening, forwarding,
// cutting up, answering, handing over, waiting for neighbours, and dropping.
func TestNothingAllocatesOnThePacketPath(t *testing.T) {
	mixed := func(n int) (frames [][]byte) {
		for i := range n {
			frames = append(frames, udp4("198.51.100.5", "198.51.100.200", 60+i*17, 64))
			frames = append(frames, udp6("2001:db8:a::5", "2001:db8:b::5", 80+i*13, 64))
		}
		return frames
	}
	for _, suite := range transform.List() {
		for _, o := range []options{{suite: suite, esn: true}, {suite: suite, encap: true, outer6: true, workers: 2, queues: 2}} {
			t.Run(fmt.Sprintf("%s/workers=%d", suite, max(1, o.workers)), func(t *testing.T) {
				a, b := newRig(t, o)
				if o.workers == 2 {
					a.Associations(func(x *sad.Info) bool { a.sad.RequestMove(x.Handle, 1); return true })
				}
				zero(t, "seal and open", rounds(a, b, mixed(31)))
				if n := b.Stats().Total.Opened; n != 26*62 {
					t.Errorf("%d packets opened: %v %v", n, a.dropped(), b.dropped())
				}
				if o.workers == 2 && a.Stats().Total.HandedIn == 0 {
					t.Error("nothing was handed over")
				}
			})
		}
	}
	t.Run("forward", func(t *testing.T) {
		all := selector(sideA, sideB)
		all.Proto = 17
		o := options{
			policies: []spd.Policy{{Name: "all", Action: spd.Bypass, Selectors: []spd.Selector{all}}},
			routes: []fib.Entry{
				{Prefix: sideB.inner4, Hop: fib.Hop{Kind: fib.Forward, Port: outside, MTU: 1500}},
				{Prefix: sideB.inner6, Hop: fib.Hop{Kind: fib.Forward, Port: outside, MTU: 1500}},
			},
		}
		a, _ := newRig(t, o)
		zero(t, "forward", rounds(a, nil, mixed(31)))
		if n := a.Stats().Total.Bypassed; n != 26*62 {
			t.Errorf("%d forwarded: %v", n, a.dropped())
		}
	})
	t.Run("answer", func(t *testing.T) {
		a, _ := newRig(t, options{mtu: 1280})
		var frames [][]byte
		for range 10 {
			frames = append(frames, udp4("198.51.100.5", "198.51.100.200", 100, 1), udp6("2001:db8:a::5", "2001:db8:b::5", 1280, 64), udp4("198.51.100.5", "198.51.100.200", 1400, 64))
		}
		round := rounds(a, nil, frames)
		zero(t, "answer", func() { a.now += 1e9; round() })
		if n := a.Stats().Total.Originated; n != 26*30 {
			t.Errorf("%d answers: %v", n, a.dropped())
		}
	})
	t.Run("fragment", func(t *testing.T) {
		a, b := newRig(t, options{mtu: 1000})
		zero(t, "fragment", rounds(a, b, repeat(fragmentable(1400), 40)))
		if n := b.Stats().Total.Opened; n != 26*80 {
			t.Errorf("%d pieces opened: %v %v", n, a.dropped(), b.dropped())
		}
	})
	// round is zero with rounds of a's, which must all be opened by b: pieces of them are put together first.
	round := func(name string, a, b *gateway, frames [][]byte) {
		t.Run(name, func(t *testing.T) {
			zero(t, name, rounds(a, b, frames))
			if n := b.Stats().Total.Opened; int(n) != 26*len(frames) {
				t.Errorf("%d packets opened of %d: %v %v", n, 26*len(frames), a.dropped(), b.dropped())
			}
		})
	}
	for _, encapsulation := range []sad.Encapsulation{sad.NoEncapsulation, sad.GRE, sad.IPIP} {
		for _, outer6 := range []bool{false, true} {
			a, b := routed(t, options{outer6: outer6, encap: outer6}, func(p *sad.Params, selectors *[]spd.Selector) {
				if encapsulation != sad.NoEncapsulation {
					p.Carrier = sad.Carrier{Encapsulation: encapsulation, Key: 7, Keyed: encapsulation == sad.GRE}
				}
			})
			round(fmt.Sprintf("interface/%v/v6=%v", encapsulation, outer6), a, b, mixed(31))
		}
	}
	for _, outer6 := range []bool{false, true} {
		o := options{outer6: outer6, mtu: 3700, ring: 512, params: func(p *sad.Params) { p.MTU, p.Fragment, p.CopyDF = 1000, true, false }}
		a, b := newRig(t, o)
		round(fmt.Sprintf("cut up after encryption/v6=%v", outer6), a, b, repeat(udp4("198.51.100.5", "198.51.100.200", 1700, 64), 20))
		if a, b := a.Stats().Total, b.Stats().Total; a.FragmentedESP != 26*20 || b.Reassembled != 26*20 {
			t.Errorf("%d cut up, %d put together", a.FragmentedESP, b.Reassembled)
		}
	}
	for _, tfc := range []uint16{700, sad.TFCPath} {
		a, b := newRig(t, options{params: func(p *sad.Params) { p.TFC = tfc }})
		round(fmt.Sprintf("padded/%d", tfc), a, b, mixed(31))
	}
	a, b := newRig(t, options{ah: true, suite: transform.NullSHA256})
	round("AH", a, b, mixed(31))
	for _, ah := range []bool{false, true} {
		for _, o := range []options{{}, {outer6: true}, {encap: true}} {
			if o.suite = transform.AES128GCM16; ah {
				if o.encap {
					continue
				}
				o.suite = transform.NullSHA256
			}
			a, b := protected(t, o, 0, ah)
			var frames [][]byte
			for size := 28; size < 1400; size += 45 {
				frames = append(frames, own(o.outer6, size))
			}
			round(fmt.Sprintf("transport/ah=%v/v6=%v/udp=%v", ah, o.outer6, o.encap), a, b, frames)
		}
	}
	t.Run("errors about ESP", func(t *testing.T) {
		// Routers say that a packet was too big, and that one did not arrive; then what is too large for the path has its sender told.
		a, _ := newRig(t, options{})
		big := udp4("198.51.100.5", "198.51.100.200", 1400, 64)
		a.inject(inside, big)
		sent := a.drain(outside)[0]
		a.inject(outside, tooBigFor(sent, 1300, 100))
		a.judged()
		errors, packets := [][]byte{tooBigFor(sent, 1200, 100), icmpAbout(sent, 3, 1, 0, 100)}, [][]byte{big}
		zero(t, "errors", func() {
			a.now += 1e9
			a.queues[outside][0].InjectBatch(errors)
			a.queues[inside][0].InjectBatch(packets)
			a.run()
			a.queues[inside][0].Discard(1 << 20)
		})
		if d := a.dropped(); d["too-big"] != 26 || sum(d) != 1+26*3 || a.Stats().Total.Originated != 26 {
			t.Errorf("%v, %d told", d, a.Stats().Total.Originated)
		}
		a.settled()
	})
	t.Run("neighbour", func(t *testing.T) {
		a, _ := newRig(t, options{})
		known := a.tables
		unknown := a.tables
		unknown.FIB = fib.Build(2, []fib.Entry{{Prefix: netip.PrefixFrom(sideB.outer4, 32), Hop: fib.Hop{Kind: fib.Unresolved, Port: outside, MTU: 1500}}})
		frames := mixed(31)
		a.run()
		zero(t, "park", func() {
			a.group.SetTables(&unknown)
			a.queues[inside][0].InjectBatch(frames)
			a.run()
			a.group.SetTables(&known)
			a.run()
			a.queues[outside][0].Discard(1 << 20)
			a.run()
		})
		if n := a.Stats().Total.SentESP; n != 26*62 {
			t.Errorf("%d sent: %v", n, a.dropped())
		}
	})
	t.Run("datagrams and events", func(t *testing.T) {
		// The pump and the reader of events are not of the packet path: their rings run full instead.
		a, _ := newRig(t, options{ike: true, noBind: true})
		a.IKE().stop()
		frames := append(mixed(20), repeat(from(t, "192.0.2.2:4500", "192.0.2.1:4500", true, "message"), 20)...)
		frame := from(t, "192.0.2.1:500", "192.0.2.2:500", false, "message")
		round := rounds(a, nil, frames)
		zero(t, "datagrams", func() {
			a.now += 2e9
			a.IKE().queues[0].Inject(frame)
			round()
		})
		if s := a.Stats().Total; s.Delivered == 0 || s.Sent < 26 || a.dropped()["no-outbound"] == 0 {
			t.Errorf("%+v %v", s, a.dropped())
		}
	})
	t.Run("moved", func(t *testing.T) {
		a, b := newRig(t, options{})
		out, in := sad.Handle(a.sad.Bound(0)), sad.InboundHandle(0x1001)
		local, remote := netip.AddrPortFrom(sideA.outer4, 0), netip.AddrPortFrom(sideB.outer4, 0)
		if err := a.UpdateEndpoints(out, local, remote, false); err != nil {
			t.Fatal(err)
		}
		if err := b.UpdateEndpoints(in, remote, local, false); err != nil {
			t.Fatal(err)
		}
		zero(t, "after a move", rounds(a, b, mixed(31)))
	})
	t.Run("drop", func(t *testing.T) {
		a, _ := newRig(t, options{})
		bad := [][]byte{{1}, make([]byte, 60), udp4("198.51.100.200", "198.51.100.5", 100, 64), udp4("198.51.100.5", "192.0.2.77", 100, 64)}
		zero(t, "drop", rounds(a, nil, bad))
		if n := sum(a.dropped()); n != 26*4 {
			t.Errorf("%v", a.dropped())
		}
	})
}
