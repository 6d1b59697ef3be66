package sad

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
)

// TestFindersFindWhatTheTableDoes: with what is remembered of SPIs the table finds what it finds without, and a finder nothing else, while associations go, come back with the SPIs that
// they had, and follow each other in slots, and while SPIs share places in the memory.
func TestFindersFindWhatTheTableDoes(t *testing.T) {
	table, err := New(Config{Capacity: 300, Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	find := table.Finder(0)
	params := Params{Name: "in", Inbound: true, Suite: transform.AES128GCM16, Keymat: make([]byte, 20), Window: 64,
		Local: netip.MustParseAddr("192.0.2.1"), Remote: netip.MustParseAddr("192.0.2.2"),
		Selectors: []spd.Selector{{Local: []spd.Range{spd.RangeOf(netip.MustParsePrefix("198.51.100.0/24"))}, Remote: []spd.Range{spd.RangeOf(netip.MustParsePrefix("203.0.113.0/24"))},
			LocalPorts: spd.AnyPorts, RemotePorts: spd.AnyPorts}}}
	r := rand.New(rand.NewPCG(17, 18))
	spis := []uint32{0, 1, 255, 256, 1 << 31} // of some that were installed, and of some that were not
	chosen := map[uint32]bool{}               // SPIs that do not say their slots
	last := map[uint32]uint32{}               // SPI that a slot had
	var live []uint32
	found, missed, reused, back, known := 0, 0, 0, 0, 0
	for range 20_000 {
		if r.IntN(2) == 0 {
			p := params
			switch spi := spis[r.IntN(len(spis))]; {
			case chosen[spi] && table.LookupInbound(spi) == nil:
				p.SPI, p.Manual = spi, true
				back++
			case r.IntN(4) == 0:
				p.SPI, p.Manual = 0x1000+r.Uint32N(1<<16), true
			}
			if h, err := table.Install(p); err == nil {
				spi := h.Value()
				chosen[spi] = p.Manual
				spis, live = append(spis, spi), append(live, spi)
				slot := table.LookupInbound(spi).Slot
				if before := last[slot]; before != 0 && before != spi {
					reused++
				}
				last[slot] = spi
				in := table.LookupInbound(spi)
				in.Claim(max(0, r.IntN(8)-6))
				if r.IntN(8) == 0 {
					if err := table.RequestMove(h, r.IntN(2)); err != nil {
						t.Fatal(err)
					}
				}
			}
		} else if n := len(live); n > 0 {
			at := r.IntN(n)
			if err := table.RemoveInbound(live[at]); err != nil {
				t.Fatal(err)
			}
			live[at] = live[n-1]
			live = live[:n-1]
			table.Pass(0)
			table.Pass(1)
		}
		for range 4 {
			spi := spis[r.IntN(len(spis))]
			if n := len(live); n > 0 && r.IntN(2) == 0 {
				spi = live[r.IntN(n)]
			}
			want := table.LookupInbound(spi)
			if got, key := find.Known(spi); got != nil {
				if known++; got != want || key != table.InboundKey(want.Slot) || want.Owner() != 0 || want.Asked() {
					t.Fatalf("%#x is found at %p, not %p", spi, got, want)
				}
			}
			if got := table.LookupInboundAt(spi, find.SlotOf(spi)); got != want {
				t.Fatalf("%#x is found at %p, not %p", spi, got, want)
			}
			if want != nil {
				found++
			} else {
				missed++
			}
		}
	}
	if found < 10_000 || missed < 10_000 || reused < 1000 || back < 100 || known < 5000 || known == found {
		t.Errorf("%d found, %d of them at a glance, %d not, %d slots used again, %d SPIs back: too few of a kind", found, known, missed, reused, back)
	}
}
