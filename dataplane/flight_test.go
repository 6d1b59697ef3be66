package dataplane

import (
	"net/netip"
	"testing"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/sad"
)

// flightOf returns the recorder of the association with an SPI.
func (g *gateway) flightOf(spi uint32) (f Flight) {
	g.t.Helper()
	for _, x := range g.Flights(func(_ string, s uint32) bool { return s == spi }) {
		if x.Burst == packet.DropNone {
			f = x
		}
	}
	return f
}

// TestFlightRecorderKeepsTheLastPackets of an association, in both directions: few of those that pass, every one that does not.
func TestFlightRecorderKeepsTheLastPackets(t *testing.T) {
	a, b := newRig(t, options{})
	var sealed [][]byte
	for i := range 10 {
		a.now, b.now = int64(i+1)*20e6, int64(i+1)*20e6
		for range 5 { // of which one is recorded
			a.queues[inside][0].Inject(udp4("198.51.100.5", "198.51.100.200", 100+i, 9))
		}
		a.run()
		sealed = a.drain(outside)
		for _, f := range sealed {
			b.queues[outside][0].Inject(f)
		}
		b.run()
		b.drain(inside)
	}
	for _, c := range []struct {
		*gateway
		spi      uint32
		ttl      uint8
		sequence uint64 // of the last one
	}{{a, 0x1001, 8, 46}, {b, 0x1001, 7, 50}} {
		f := c.flightOf(c.spi)
		if f.Passed != 10 || f.Dropped != 0 || len(f.Records) != 4 || f.Name != "rig" {
			t.Fatalf("%+v", f)
		}
		for i, r := range f.Records {
			last := uint64(3 - i)
			if r.Reason != packet.DropNone || r.Src.Netip(4) != netip.MustParseAddr("198.51.100.5") || r.Dst.Netip(4) != netip.MustParseAddr("198.51.100.200") ||
				r.SrcPort != 4000 || r.DstPort != 5000 || r.Proto != packet.ProtoUDP || r.Len != uint16(109-last) || r.Outer || r.Sequence != c.sequence-5*last {
				t.Errorf("record %d: %+v", i, r)
			}
		}
	}
	// A replay is recorded with its outer addresses, a packet that is too big with its own; neither pushes out what passed.
	b.inject(outside, sealed...)
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 1500, 64))
	f := b.flightOf(0x1001)
	if f.Dropped != 5 || len(f.Records) != 8 {
		t.Fatalf("%+v", f)
	}
	if r := f.Records[7]; r.Reason != packet.DropReplayed || !r.Outer || r.Sequence != 50 || r.Src.Netip(4) != sideA.outer4 || r.Proto != packet.ProtoESP {
		t.Errorf("%+v", r)
	}
	f = a.flightOf(0x1001)
	if r := f.Records[len(f.Records)-1]; f.Dropped != 1 || r.Reason != packet.DropTooBig || r.Outer || r.Len != 1500 || r.DstPort != 5000 {
		t.Errorf("%+v", f)
	}
	a.settled()
	b.settled()
}

// TestEveryDropOfAnAssociationIsRecordedOnce adds up what the associations' recorders saw over traffic of every kind.
func TestEveryDropOfAnAssociationIsRecordedOnce(t *testing.T) {
	a, b := newRig(t, options{})
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 1), udp4("198.51.100.5", "198.51.100.200", 1500, 9)) // ttl-expired, too-big
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 9), udp4("198.51.100.5", "198.51.100.200", 100, 9))
	frames := a.drain(outside)
	forged := append([]byte{}, frames[0]...)
	forged[60] ^= 1
	elsewhere := append([]byte{}, frames[0]...)
	elsewhere[14+12] ^= 1 // checksum no longer fits: no association's
	short := append([]byte{}, frames[0]...)
	b.inject(outside, forged, frames[0], frames[0], elsewhere, short[:40])
	for _, c := range []struct {
		*gateway
		want map[string]uint64
	}{{a, map[string]uint64{"ttl-expired": 1, "too-big": 1}}, {b, map[string]uint64{"bad-icv": 1, "replayed": 1}}} {
		got := map[string]uint64{}
		for _, r := range c.flightOf(0x1001).Records {
			if r.Reason != packet.DropNone {
				got[r.Reason.String()]++
			}
		}
		if len(got) != len(c.want) {
			t.Errorf("recorded %v, not %v", got, c.want)
		}
		for name, n := range c.want {
			if got[name] != n || c.dropped()[name] != n {
				t.Errorf("%s: recorded %d, counted %d, want %d", name, got[name], c.dropped()[name], n)
			}
		}
	}
}

// TestBurstOfErrorsIsKeptAndToldOnce: what led to it is there afterwards, even when the association is gone. What a healthy network
// drops is no error.
func TestBurstOfErrorsIsKeptAndToldOnce(t *testing.T) {
	a, b := newRig(t, options{})
	a.now, b.now = 1e9, 1e9
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 9))
	frame := a.drain(outside)[0]
	b.inject(outside, frame)
	bursts := func(g *gateway) (list []Flight) {
		g.heard()
		for _, f := range g.Flights(func(string, uint32) bool { return true }) {
			if f.Burst != packet.DropNone {
				list = append(list, f)
			}
		}
		return list
	}
	for range 99 {
		b.inject(outside, frame)
	}
	if list := bursts(b); len(list) != 0 {
		t.Fatalf("99 errors: %+v", list)
	}
	for range 300 {
		b.inject(outside, frame)
	}
	list := bursts(b)
	if len(list) != 1 || list[0].Burst != packet.DropReplayed || list[0].SPI != 0x1001 || !list[0].Exists || list[0].Records[0].Reason != packet.DropNone {
		t.Fatalf("%+v", list)
	}
	if err := b.Remove(sad.InboundHandle(0x1001)); err != nil {
		t.Fatal(err)
	}
	if list := bursts(b); len(list) != 1 || list[0].Exists {
		t.Errorf("once the association is gone: %+v", list)
	}
	for range 300 {
		a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 1500, 9)) // too big: normal
		a.drain(inside)
	}
	if list := bursts(a); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

// TestSlotOfAnotherAssociationHasItsOwnFlight: nothing of the one before is left in a slot that is used again.
func TestSlotOfAnotherAssociationHasItsOwnFlight(t *testing.T) {
	a, b := newRig(t, options{})
	b.now = 1e9
	a.inject(inside, udp4("198.51.100.5", "198.51.100.200", 100, 9))
	b.inject(outside, a.drain(outside)...)
	if f := b.flightOf(0x1001); f.Passed != 1 {
		t.Fatalf("%+v", f)
	}
	in := sad.InboundHandle(0x1001)
	slot := b.sad.LookupInbound(0x1001).Slot
	if err := b.Remove(in); err != nil {
		t.Fatal(err)
	}
	b.run()
	b.sad.Reclaim()
	if list, passed, dropped := b.sad.InboundFlight(slot).Records(); len(list) != 0 || passed+dropped != 0 {
		t.Errorf("%+v", list)
	}
}
