package sad

import (
	"errors"
	"testing"
)

// TestReservedSPIBelongsToWhoReservedIt: it is found by nobody before it is installed, given to nobody else, and
// installed under the number that the peer was told.
func TestReservedSPIBelongsToWhoReservedIt(t *testing.T) {
	tab := table(t, 8, 1)
	seen := map[uint32]bool{}
	for range 4 {
		spi, err := tab.Reserve()
		if err != nil {
			t.Fatal(err)
		}
		if spi < spiMin || seen[spi] {
			t.Fatalf("SPI %#x twice, or reserved by the standard", spi)
		}
		seen[spi] = true
		if tab.LookupInbound(spi) != nil {
			t.Errorf("SPI %#x is found before it is installed", spi)
		}
	}
	for spi := range seen {
		p := params(true, spi)
		p.Manual = true
		if _, err := tab.Install(p); !errors.Is(err, ErrDuplicate) {
			t.Errorf("a configured association takes a reserved SPI: %v", err)
		}
		p.Manual = false
		h, err := tab.Install(p)
		if err != nil || h != InboundHandle(spi) {
			t.Fatalf("%v %v", h, err)
		}
		if a := tab.LookupInbound(spi); a == nil || a.SPI != spi {
			t.Errorf("SPI %#x is not found", spi)
		}
		if _, ok := tab.configured.find(spi); ok {
			t.Errorf("SPI %#x stands among the configured ones", spi)
		}
		tab.Unreserve(spi) // too late: without effect
		if tab.LookupInbound(spi) == nil {
			t.Errorf("SPI %#x is gone", spi)
		}
	}
}

// TestUnreservedSlotsComeBack holds that reservations cannot use a table up.
func TestUnreservedSlotsComeBack(t *testing.T) {
	tab := table(t, 8, 1)
	for range 10_000 {
		spi, err := tab.Reserve()
		if err != nil {
			t.Fatal(err)
		}
		tab.Unreserve(spi)
		tab.Unreserve(spi)
	}
	var all []uint32
	for range 8 {
		spi, err := tab.Reserve()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, spi)
	}
	if _, err := tab.Reserve(); !errors.Is(err, ErrFull) {
		t.Errorf("a ninth of eight: %v", err)
	}
	for _, spi := range all {
		tab.Unreserve(spi)
	}
}
