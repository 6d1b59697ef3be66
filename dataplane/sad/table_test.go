package sad

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/replay"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
)

var anywhere = []spd.Selector{{
	Local:      []spd.Range{spd.RangeOf(netip.MustParsePrefix("198.51.100.0/24"))},
	Remote:     []spd.Range{spd.RangeOf(netip.MustParsePrefix("203.0.113.0/24"))},
	LocalPorts: spd.AnyPorts, RemotePorts: spd.AnyPorts,
}}

func params(inbound bool, spi uint32) Params {
	p := Params{
		Name: "test", SPI: spi, Inbound: inbound, Suite: transform.AES128GCM16, Keymat: make([]byte, 20),
		Local: netip.MustParseAddr("192.0.2.1"), Remote: netip.MustParseAddr("192.0.2.2"), ESN: true, Window: 64,
	}
	if inbound {
		p.Selectors = anywhere
	}
	return p
}

func table(t testing.TB, capacity, workers int) *Table {
	t.Helper()
	tab, err := New(Config{Capacity: capacity, Workers: workers})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tab.Close)
	return tab
}

func install(t testing.TB, tab *Table, p Params) Handle {
	t.Helper()
	h, err := tab.Install(p)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestPermutationIsOneToOneAboveTheReserved(t *testing.T) {
	for range 20 {
		p, err := newPermutation()
		if err != nil {
			t.Fatal(err)
		}
		for range 20_000 {
			x := max(rand.Uint32(), spiMin)
			y := p.apply(x)
			if y < spiMin || p.invert(y) != x || p.apply(p.invert(x)) != x {
				t.Fatalf("%#x -> %#x -> %#x", x, y, p.invert(y))
			}
		}
	}
}

// TestPermutationWalksPastTheReserved looks for the numbers that map onto reserved ones.
func TestPermutationWalksPastTheReserved(t *testing.T) {
	p, err := newPermutation()
	if err != nil {
		t.Fatal(err)
	}
	for reserved := range uint32(spiMin) {
		// invert steps over reserved numbers, so one inverse step is written out here.
		left, right := reserved>>16, reserved&0xffff
		for i := rounds - 1; i >= 0; i-- {
			left, right = right^p.round(i, left), left
		}
		if x := left<<16 | right; x >= spiMin {
			if y := p.apply(x); y < spiMin || p.invert(y) != x {
				t.Fatalf("%#x, which would give %d: %#x, back %#x", x, reserved, y, p.invert(y))
			}
		}
	}
}

func TestStaleNamesFindNothing(t *testing.T) {
	tab := table(t, 1, 0)
	var old []Handle
	for range 300 {
		for _, inbound := range []bool{true, false} {
			spi := uint32(0)
			if !inbound {
				spi = 4711
			}
			h := install(t, tab, params(inbound, spi))
			for _, o := range old {
				if o.Inbound() && tab.LookupInbound(o.Value()) != nil || !o.Inbound() && tab.LookupOutbound(o.Value()) != nil {
					t.Fatalf("%s is still found", o)
				}
			}
			if err := tab.Remove(h); err != nil {
				t.Fatal(err)
			}
			if err := tab.Remove(h); !errors.Is(err, ErrNotFound) {
				t.Fatalf("removed twice: %v", err)
			}
			old = append(old, h)
		}
	}
}

func TestFullTableLeaksNothing(t *testing.T) {
	const capacity = 300
	tab := table(t, capacity, 1)
	for range 3 {
		var hs []Handle
		for range capacity {
			hs = append(hs, install(t, tab, params(true, 0)), install(t, tab, params(false, 256)))
		}
		next := tab.bitsNext
		for range 3 {
			for _, p := range []Params{params(true, 0), params(true, 999), params(false, 256)} {
				if _, err := tab.Install(p); !errors.Is(err, ErrFull) {
					t.Fatalf("more than fits: %v", err)
				}
			}
		}
		if tab.bitsNext != next {
			t.Fatal("a refused install took replay words")
		}
		for _, h := range hs {
			if err := tab.Remove(h); err != nil {
				t.Fatal(err)
			}
		}
		if i, o := tab.Len(); i != 0 || o != 0 {
			t.Fatal(i, o)
		}
	}
	if tab.bitsNext != capacity {
		t.Fatalf("%d replay words in use, want %d", tab.bitsNext, capacity)
	}
}

// TestKeyOutlivesRemovalUntilWorkersPass is hazard D26.
func TestKeyOutlivesRemovalUntilWorkersPass(t *testing.T) {
	for _, inbound := range []bool{true, false} {
		tab := table(t, 4, 3)
		tab.Pass(0)
		tab.Pass(1) // worker 2 sleeps
		h := install(t, tab, params(inbound, 1000))
		var slot uint32
		key := func() *transform.Key { return tab.OutboundKey(slot) }
		if inbound {
			slot = tab.LookupInbound(1000).Slot
			key = func() *transform.Key { return tab.InboundKey(slot) }
		} else {
			slot = tab.LookupOutbound(h.Value()).Slot
		}
		held := key()
		if err := tab.Remove(h); err != nil {
			t.Fatal(err)
		}
		works := func() bool {
			op := []transform.Op{{Key: held, Packet: make([]byte, 64), Counter: 1}}
			new(transform.Batch).Seal(op)
			return op[0].OK
		}
		tab.Pass(0)
		if tab.Reclaim() != 1 || !works() || key() != held {
			t.Fatal("reclaimed while worker 1 may hold it")
		}
		tab.Pass(1)
		if tab.Reclaim() != 0 || works() || key().Suite() != transform.None {
			t.Fatal("not reclaimed, or the key still works, after all passed")
		}
	}
}

func TestSleepingWorkerHoldsNothing(t *testing.T) {
	tab := table(t, 2, 1)
	h := install(t, tab, params(true, 0))
	tab.Wake(0)
	tab.Sleep(0)
	if err := tab.Remove(h); err != nil || tab.Reclaim() != 0 {
		t.Fatal("a sleeping worker delays reclamation", err)
	}
	tab.Wake(0)
	h = install(t, tab, params(true, 0))
	if err := tab.Remove(h); err != nil || tab.Reclaim() != 1 {
		t.Fatal("a worker that woke does not delay reclamation", err)
	}
}

func TestConfiguredSPIs(t *testing.T) {
	tab := table(t, 2000, 0)
	for _, spi := range []uint32{256, 257, math.MaxUint32} {
		install(t, tab, params(true, spi))
		if _, err := tab.Install(params(true, spi)); !errors.Is(err, ErrDuplicate) {
			t.Fatalf("SPI %d twice: %v", spi, err)
		}
	}
	own := install(t, tab, params(true, 0))
	if _, err := tab.Install(params(true, own.Value())); !errors.Is(err, ErrDuplicate) {
		t.Fatalf("an SPI that the table gave out, configured: %v", err)
	}
	for _, spi := range []uint32{1, 255} {
		if _, err := tab.Install(params(true, spi)); err == nil {
			t.Fatalf("reserved SPI %d accepted", spi)
		}
		if tab.LookupInbound(spi) != nil {
			t.Fatal(spi)
		}
	}
	// Insertions and deletions over many times the size of the hash.
	live := map[uint32]bool{256: true, 257: true, math.MaxUint32: true}
	for range 20_000 {
		spi := 256 + rand.Uint32N(1500)
		if live[spi] {
			if err := tab.RemoveInbound(spi); err != nil {
				t.Fatal(err)
			}
			delete(live, spi)
		} else {
			install(t, tab, params(true, spi))
			live[spi] = true
		}
		if probe := 256 + rand.Uint32N(1500); probe != own.Value() && (tab.LookupInbound(probe) != nil) != live[probe] {
			t.Fatalf("SPI %d: found %v, want %v", probe, !live[probe], live[probe])
		}
	}
}

func TestBadParamsAreRefused(t *testing.T) {
	tab := table(t, 4, 0)
	for name, change := range map[string]func(*Params){
		"suite":              func(p *Params) { p.Suite = transform.None },
		"keying material":    func(p *Params) { p.Keymat = p.Keymat[1:] },
		"no address":         func(p *Params) { p.Local = netip.Addr{} },
		"families":           func(p *Params) { p.Local = netip.MustParseAddr("2001:db8::1") },
		"unspecified":        func(p *Params) { p.Remote = netip.IPv4Unspecified() },
		"multicast":          func(p *Params) { p.Remote = netip.MustParseAddr("224.0.0.1") },
		"window":             func(p *Params) { p.Window = replay.SizeMax + 1 },
		"no selectors":       func(p *Params) { p.Selectors = nil },
		"outbound no SPI":    func(p *Params) { p.Inbound, p.SPI = false, 0 },
		"sequence too large": func(p *Params) { p.Inbound, p.SPI, p.ESN, p.Sequence = false, 300, false, 1<<32 },
	} {
		p := params(true, 0)
		change(&p)
		if h, err := tab.Install(p); err == nil {
			t.Errorf("%s: installed as %s", name, h)
		}
	}
	if i, o := tab.Len(); i != 0 || o != 0 || tab.bitsNext != 0 {
		t.Error("something was left behind")
	}
	for _, c := range []Config{{}, {Capacity: CapacityMax + 1}, {Capacity: 1, Workers: -1}} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v accepted", c)
		}
	}
}

func TestSequenceRunsOut(t *testing.T) {
	tab := table(t, 4, 0)
	for _, esn := range []bool{false, true} {
		p := params(false, 300)
		p.ESN, p.Sequence = esn, math.MaxUint32-2
		if esn {
			p.Sequence = math.MaxUint64 - 2
		}
		a := tab.LookupOutbound(install(t, tab, p).Value())
		for i := range uint64(2) {
			if left := a.Left(); left != 2-i {
				t.Fatalf("%d left", left)
			}
			if seq, ok := a.Next(); !ok || seq != p.Sequence+1+i {
				t.Fatalf("%#x %v", seq, ok)
			}
		}
		if seq, ok := a.Next(); ok || a.Left() != 0 {
			t.Fatalf("cycled to %#x", seq)
		}
	}
}

func TestOwnershipMovesOnlyByItsOwner(t *testing.T) {
	tab := table(t, 4, 3)
	h := install(t, tab, params(true, 0))
	a := tab.LookupInbound(h.Value())
	if a.Owner() != -1 || !a.Claim(1) || !a.Claim(1) || a.Claim(0) || a.Owner() != 1 {
		t.Fatal("claim")
	}
	if a.Release(1) || a.Wanted() != -1 {
		t.Fatal("released to nobody")
	}
	if err := tab.RequestMove(h, 2); err != nil || a.Owner() != 1 || a.Wanted() != 2 {
		t.Fatal("request", err)
	}
	if a.Release(0) || a.Release(2) || !a.Release(1) || a.Owner() != 2 || a.Wanted() != -1 {
		t.Fatal("release")
	}
	if tab.RequestMove(h, 3) == nil || tab.RequestMove(Handle(77), 0) == nil {
		t.Fatal("moved to or from nowhere")
	}
	o := install(t, tab, params(false, 300))
	if err := tab.RequestMove(o, 0); err != nil || tab.LookupOutbound(o.Value()).Owner() != 0 {
		t.Fatal("an association without owner moves at once", err)
	}
}

func TestBindings(t *testing.T) {
	tab := table(t, 1, 0)
	for _, tunnel := range []uint32{0, 4095, 4096, TunnelsMax - 1} {
		if tab.Bound(tunnel) != 0 {
			t.Fatal("bound at first")
		}
		if err := tab.Bind(tunnel, tunnel+7); err != nil || tab.Bound(tunnel) != tunnel+7 {
			t.Fatal(tunnel, err)
		}
	}
	if tab.Bind(TunnelsMax, 1) == nil || tab.Bound(math.MaxUint32) != 0 {
		t.Fatal("beyond the last tunnel")
	}
}

// TestReplayWordsAreZeroAndApart fills windows of all sizes, removes them and looks at what comes next.
func TestReplayWordsAreZeroAndApart(t *testing.T) {
	tab := table(t, 64, 0)
	for range 4 {
		owner := map[*uint64]uint32{}
		var hs []Handle
		for i := range 64 {
			p := params(true, 0)
			p.Window = 32 << (i % 12)
			h := install(t, tab, p)
			hs = append(hs, h)
			a := tab.LookupInbound(h.Value())
			words := tab.Bits(a)
			if len(words) != replay.Words(p.Window) {
				t.Fatal(len(words))
			}
			for j := range words {
				if words[j] != 0 || owner[&words[j]] != 0 {
					t.Fatal("a word of another window")
				}
				owner[&words[j]] = h.Value()
				words[j] = math.MaxUint64
			}
		}
		for _, h := range hs {
			if err := tab.Remove(h); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestHeaderTemplate compares the prepared header and its sums with a packet
// checksummed from scratch.
func TestHeaderTemplate(t *testing.T) {
	tab := table(t, 8, 0)
	for _, v6 := range []bool{false, true} {
		for _, encap := range []bool{false, true} {
			p := params(false, 0xdeadbeef)
			p.Encap, p.LocalPort, p.UDPChecksum = encap, 4501, true
			src, dst := []byte{192, 0, 2, 1}, []byte{192, 0, 2, 2}
			if v6 {
				p.Local, p.Remote = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
				src, dst = p.Local.AsSlice(), p.Remote.AsSlice()
			}
			a := tab.LookupOutbound(install(t, tab, p).Value())
			proto := byte(50)
			if encap {
				proto = 17
			}
			want := append([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0}, append(bytes.Clone(src), dst...)...)
			if v6 {
				want = append([]byte{0x60, 0, 0, 0, 0, 0, proto, 64}, append(bytes.Clone(src), dst...)...)
			}
			ip := len(want)
			if encap {
				want = append(want, 4501>>8, 4501&255, 4500>>8, 4500&255, 0, 0, 0, 0)
			}
			esp := len(want)
			want = append(want, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0)
			if got := a.Header[:a.HeaderLen]; !bytes.Equal(got, want) || int(a.ESP) != esp || encap && int(a.UDP) != ip || !encap && a.UDP != 0 {
				t.Fatalf("v6 %v encap %v: % x, want % x", v6, encap, got, want)
			}
			if a.LocalAddr() != p.Local || a.RemoteAddr() != p.Remote {
				t.Fatal("addresses")
			}
			if !v6 {
				h := bytes.Clone(want[:20])
				h[1], h[2], h[3], h[4], h[5], h[6] = 0xb9, 5, 220, 0xab, 0xcd, 0x40
				sum := packet.Checksum(nil, uint32(a.HeaderSum)+0xb9+0x05dc+0xabcd+0x4000)
				if full := packet.Checksum(h, 0); sum != full {
					t.Fatalf("header checksum %#x, want %#x", sum, full)
				}
			}
			if has := a.Flags&FlagUDPChecksum != 0; has != (v6 && encap) {
				t.Fatal("UDP checksum flag", has)
			}
			if v6 && encap {
				payload := make([]byte, 8+33)
				for i := range payload {
					payload[i] = byte(i * 7)
				}
				udp := append(bytes.Clone(want[ip:ip+8]), payload...)
				udp[5] = byte(len(udp))
				full := packet.Checksum(udp, packet.PseudoSum(src, dst, 17, uint32(len(udp))))
				if sum := packet.Checksum(payload, uint32(a.UDPSum)+2*uint32(len(udp))); sum != full {
					t.Fatalf("UDP checksum %#x, want %#x", sum, full)
				}
			}
		}
	}
}

// TestInnerMTUIsExact finds the largest inner packet by building its length up.
func TestInnerMTUIsExact(t *testing.T) {
	tab := table(t, 4*len(transform.List()), 0)
	for _, suite := range transform.List() {
		for _, v6 := range []bool{false, true} {
			for _, encap := range []bool{false, true} {
				p := params(false, 300)
				p.Suite, p.Keymat, p.Encap = suite, make([]byte, suite.Info().KeyLen), encap
				outer := 20
				if v6 {
					p.Local, p.Remote, outer = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), 40
				}
				if encap {
					outer += 8
				}
				a := tab.LookupOutbound(install(t, tab, p).Value())
				packetLen := func(inner int) int {
					text := inner + 2
					for text%suite.Info().Align != 0 {
						text++
					}
					return outer + 8 + suite.Info().IVLen + text + suite.Info().ICVLen
				}
				for mtu := range 1600 {
					want := 0
					for inner := max(mtu-150, 1); packetLen(inner) <= mtu; inner++ {
						want = inner
					}
					if got := a.InnerMTU(mtu); got != want {
						t.Fatalf("%s v6 %v encap %v MTU %d: %d, want %d", suite, v6, encap, mtu, got, want)
					}
				}
				a.MTU = 1400
				if a.InnerMTU(1500) != a.InnerMTU(1400) || a.InnerMTU(1300) == a.InnerMTU(1400) {
					t.Fatal("the association's own MTU")
				}
			}
		}
	}
}

func TestRangeShowsWhatIsInstalled(t *testing.T) {
	tab := table(t, 1000, 0)
	want := map[Handle]string{}
	for i := range 600 {
		p := params(i%2 == 0, uint32(1000+i))
		p.Name, p.Created = fmt.Sprint("name ", i), time.Unix(int64(i), 0)
		h := install(t, tab, p)
		if i%3 == 0 {
			if err := tab.Remove(h); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want[h] = p.Name
	}
	tab.Range(func(i *Info) bool {
		if want[i.Handle] != i.Params.Name || i.Params.Keymat != nil || i.Owner != -1 {
			t.Fatalf("%+v", *i)
		}
		delete(want, i.Handle)
		return true
	})
	if len(want) != 0 {
		t.Fatalf("%d were not shown", len(want))
	}
}

// TestModelUnderReaders installs and removes at random against a map, while workers look up what
// they can. What a worker finds must be whole, be what it asked for, and stay so until it passes.
func TestModelUnderReaders(t *testing.T) {
	const workers = 3
	tab := table(t, 500, workers)
	var published [1024]atomic.Uint64 // handles, live or stale
	var stop atomic.Bool
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(7, uint64(w)))
			for !stop.Load() {
				tab.Pass(w)
				var held [8]func() bool
				for i := range held {
					held[i] = func() bool { return true }
					h := Handle(published[r.IntN(len(published))].Load())
					if h == 0 {
						continue
					}
					if a := tab.LookupInbound(h.Value()); h.Inbound() && a != nil {
						key := tab.InboundKey(a.Slot)
						held[i] = func() bool {
							return a.SPI == h.Value() && a.IVLen == 8 && tab.InboundKey(a.Slot) == key && key.Suite() == a.Suite && tab.Selectors(a.Slot) != nil && len(tab.Bits(a)) == 1
						}
						if a.Claim(w) {
							a.Packets.Add(1)
							a.Window.Advance(tab.Bits(a), a.Window.Top()+1)
							a.Release(w)
						}
					} else if a := tab.LookupOutbound(h.Value()); !h.Inbound() && a != nil {
						key := tab.OutboundKey(a.Slot)
						held[i] = func() bool {
							return a.HeaderLen == 28 && a.SPI >= spiMin && tab.OutboundKey(a.Slot) == key && key.Suite() == a.Suite
						}
						if a.Claim(w) {
							a.Next()
							a.Release(w)
						}
					}
				}
				for _, ok := range held {
					if !ok() {
						t.Error("an association changed under a worker's hands")
						stop.Store(true)
					}
				}
				if r.IntN(16) == 0 {
					tab.Sleep(w)
					tab.Wake(w)
				}
			}
			tab.Sleep(w)
		})
	}
	r := rand.New(rand.NewPCG(1, 2))
	live := map[Handle]bool{}
	at := 0
	for range 6000 {
		if r.IntN(2) == 0 {
			p := params(r.IntN(2) == 0, 0)
			if !p.Inbound || r.IntN(3) == 0 {
				p.SPI = 256 + r.Uint32N(2000)
			}
			h, err := tab.Install(p)
			switch {
			case err == nil:
				if live[h] {
					t.Errorf("%s given out twice", h)
				}
				live[h] = true
				published[at%len(published)].Store(uint64(h))
				at++
			case errors.Is(err, ErrDuplicate) && !live[InboundHandle(p.SPI)], !errors.Is(err, ErrDuplicate) && !errors.Is(err, ErrFull):
				t.Error(err)
			}
			continue
		}
		for h := range live {
			switch r.IntN(8) {
			case 0:
				if err := tab.RequestMove(h, r.IntN(workers)); err != nil {
					t.Error(err)
				}
			default:
				if err := tab.Remove(h); err != nil {
					t.Error(err)
				}
				delete(live, h)
			}
			break
		}
		if r.IntN(200) == 0 {
			n := 0
			tab.Range(func(i *Info) bool {
				if !live[i.Handle] {
					t.Errorf("%s is shown and not live", i.Handle)
				}
				n++
				return true
			})
			if n != len(live) {
				t.Errorf("%d are shown, %d live", n, len(live))
			}
		}
	}
	stop.Store(true)
	wg.Wait()
	for h := range live {
		if err := tab.Remove(h); err != nil {
			t.Error(err)
		}
	}
	if tab.Reclaim() != 0 {
		t.Error("something waits though every worker sleeps")
	}
}

func TestNoAllocation(t *testing.T) {
	tab := table(t, 8, 1)
	spi := install(t, tab, params(true, 0)).Value()
	install(t, tab, params(true, 256))
	h := install(t, tab, params(false, 300)).Value()
	if err := tab.Bind(1, h); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		a, b, c := tab.LookupInbound(spi), tab.LookupInbound(256), tab.LookupOutbound(tab.Bound(1))
		tab.Bits(a)
		tab.Bits(b)
		c.Next()
		a.Claim(0)
		tab.Pass(0)
	}); n != 0 {
		t.Fatal(n)
	}
}

// fillTable installs n inbound associations, of which none fits any more then.
func fillTable(t testing.TB, n int) {
	tab := table(t, n, 0)
	p := params(true, 0)
	from := time.Now()
	var last Handle
	for range n {
		last = install(t, tab, p)
	}
	t.Logf("%d associations: %.0f installs/s", n, float64(n)/time.Since(from).Seconds())
	if _, err := tab.Install(p); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	if tab.LookupInbound(last.Value()) == nil {
		t.Fatal("the last is not found")
	}
	tab.Close()
}

func TestManyAssociations(t *testing.T) {
	if raceEnabled {
		fillTable(t, 10_000)
		return
	}
	fillTable(t, 100_000)
}

// BenchmarkInstallMillion takes about 1.2 GiB of memory for keys, slots and descriptions.
func BenchmarkInstallMillion(b *testing.B) {
	for b.Loop() {
		fillTable(b, 1<<20)
	}
}

func benchmarkLookup(b *testing.B, n int) {
	tab := table(b, n, 0)
	spis := make([]uint32, n)
	for i := range spis {
		spis[i] = install(b, tab, params(true, 0)).Value()
	}
	rand.Shuffle(n, func(i, j int) { spis[i], spis[j] = spis[j], spis[i] })
	i := 0
	for b.Loop() {
		if tab.LookupInbound(spis[i]) == nil {
			b.Fatal(i)
		}
		if i++; i == n {
			i = 0
		}
	}
}

func BenchmarkLookupOf1(b *testing.B)      { benchmarkLookup(b, 1) }
func BenchmarkLookupOf1000(b *testing.B)   { benchmarkLookup(b, 1000) }
func BenchmarkLookupOf100000(b *testing.B) { benchmarkLookup(b, 100_000) }

// TestPlainIsForSelectorsThatHaveOne: associations whose packets are held against the selectors themselves say so, those with a form for IPv6 have it in their
// slot, and both are counted while they are installed.
func TestPlainIsForSelectorsThatHaveOne(t *testing.T) {
	tab := table(t, 16, 0)
	six := spd.Selector{
		Local:      []spd.Range{spd.RangeOf(netip.MustParsePrefix("2001:db8:1::/48"))},
		Remote:     []spd.Range{spd.RangeOf(netip.MustParsePrefix("2001:db8:2::/48"))},
		LocalPorts: spd.AnyPorts, RemotePorts: spd.AnyPorts,
	}
	ported, ported6, udp6 := anywhere[0], six, six
	ported.LocalPorts.Last, ported6.LocalPorts.Last, udp6.Proto = 1000, 1000, 17
	flow := packet.Flow{Version: 6, Proto: 17, Src: packet.AddrOf(netip.MustParseAddr("2001:db8:2::1")), Dst: packet.AddrOf(netip.MustParseAddr("2001:db8:1::1"))}
	var all []Handle
	var unlike, sixes int64
	for k, c := range []struct {
		selectors []spd.Selector
		transport bool
		none, six bool
	}{
		{selectors: anywhere},
		{selectors: []spd.Selector{ported}, none: true},
		{selectors: anywhere, transport: true, none: true},
		{selectors: []spd.Selector{six}, six: true},
		{selectors: []spd.Selector{six}, transport: true, none: true},
		{selectors: []spd.Selector{ported6, anywhere[0], six}, six: true},
		{selectors: []spd.Selector{anywhere[0], udp6}},
		{selectors: []spd.Selector{udp6}, none: true},
	} {
		p := params(true, 0x1000+uint32(k))
		p.Selectors, p.Transport = c.selectors, c.transport
		all = append(all, install(t, tab, p))
		a := tab.LookupInbound(p.SPI)
		if a.Plain.None() != c.none || !c.none && a.Plain != *tab.Selectors(a.Slot).Plain() || a.Plain.Matches6(&flow, tab.Plain6(a.Slot)) != c.six {
			t.Errorf("association %d has %+v", k, a.Plain)
		}
		if c.none {
			unlike++
		} else if c.six {
			sixes++
		}
		if n, m := tab.unlike.Load(), tab.sixes.Load(); n != unlike || m != sixes {
			t.Errorf("association %d: %d without, %d for IPv6, not %d and %d", k, n, m, unlike, sixes)
		}
	}
	for _, h := range all {
		if err := tab.Remove(h); err != nil {
			t.Fatal(err)
		}
	}
	if n, m := tab.unlike.Load(), tab.sixes.Load(); n != 0 || m != 0 {
		t.Errorf("%d associations without, and %d for IPv6, are left", n, m)
	}
}

// TestShortFormsFollowTheSlot: an association that takes the slot, or the SPI, of another is held against its own selectors, and one that was removed against
// those that it had, for as long as a worker may hold it.
func TestShortFormsFollowTheSlot(t *testing.T) {
	tab := table(t, 2, 1)
	selectors := func(n byte) []spd.Selector {
		net := func(last byte) []spd.Range {
			return []spd.Range{spd.RangeOf(netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, n, 0, last}), 64))}
		}
		return []spd.Selector{{Local: net(1), Remote: net(2), LocalPorts: spd.AnyPorts, RemotePorts: spd.AnyPorts}}
	}
	flow := func(n byte) *packet.Flow {
		addr := func(last byte) packet.Addr {
			return packet.AddrOf(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, n, 0, last, 15: 9}))
		}
		return &packet.Flow{Version: 6, Proto: 17, Src: addr(2), Dst: addr(1)}
	}
	matches := func(a *Inbound, n byte) bool { return a.Plain.Matches6(flow(n), tab.Plain6(a.Slot)) }
	tab.Pass(0)
	var held *Inbound // of the association before
	for n := byte(1); n < 20; n++ {
		p := params(true, 0x1000)
		if p.Selectors = selectors(n); n%5 == 0 {
			p.Selectors = anywhere // of IPv4
		}
		h := install(t, tab, p)
		a := tab.LookupInbound(p.SPI)
		if matches(a, n) != (n%5 != 0) || matches(a, n-1) {
			t.Fatalf("association %d is held against selectors of another", n)
		}
		if held != nil && (held == a || matches(held, n-1) != ((n-1)%5 != 0) || matches(held, n)) {
			t.Fatalf("association %d is not held against its selectors any more while a worker may hold it", n-1)
		}
		if held = a; tab.Remove(h) != nil {
			t.Fatal("not removed")
		}
		if n%2 == 0 {
			tab.Pass(0)
			tab.Reclaim()
			held = nil
		}
	}
}

// TestLongAssociationsAreCounted holds the number of associations with a third cache line to read against what is installed, moved and removed.
func TestLongAssociationsAreCounted(t *testing.T) {
	tab := table(t, 16, 0)
	local6, remote6 := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	four := params(false, 0x1000)
	six, udp := four, four
	six.Local, six.Remote = local6, remote6
	udp.Encap, udp.LocalPort, udp.RemotePort = true, 4500, 4500
	for direction, want := range [2][3]int64{out: {0, 1, 1}, in: {0, 1, 0}} {
		for k, p := range []Params{four, six, udp} {
			if p.SPI += uint32(k); direction == in {
				p.Inbound, p.Selectors = true, anywhere
			}
			h := install(t, tab, p)
			if n := tab.long[direction].Load(); n != want[k] || tab.lines(direction) != 2+int(n) {
				t.Errorf("direction %d, association %d: %d are long, %d lines", direction, k, n, tab.lines(direction))
			}
			for _, to := range []Endpoints{{Local: local6, Remote: remote6}, {Local: four.Local, Remote: four.Remote}, {Local: local6, Remote: remote6}} {
				if err := tab.Move(h, to); err != nil {
					t.Fatal(err)
				}
				if n := tab.long[direction].Load(); (n == 1) != (to.Local == local6) {
					t.Errorf("direction %d, association %d moved to %v: %d are long", direction, k, to.Local, n)
				}
			}
			if err := tab.Remove(h); err != nil {
				t.Fatal(err)
			}
			if n := tab.long[direction].Load(); n != 0 {
				t.Errorf("direction %d, association %d: %d are left", direction, k, n)
			}
		}
	}
}
