package sad

import (
	"testing"
	"unsafe"

	"sallyport/dataplane/packet"
	"sallyport/dataplane/spd"
	"sallyport/dataplane/transform"
	"sallyport/tools/asmlayout"
)

// TestGeneratorKnowsTheLayout: assembly of other packages reads associations, and what a finder knows.
func TestGeneratorKnowsTheLayout(t *testing.T) {
	var (
		o Outbound
		i Inbound
		f Finder
	)
	asmlayout.Check(t, "records.go", map[string]uintptr{
		"outboundLive": unsafe.Offsetof(o.live), "outboundSPI": unsafe.Offsetof(o.SPI), "outboundSlot": unsafe.Offsetof(o.Slot),
		"outboundOwner": unsafe.Offsetof(o.owner), "outboundWant": unsafe.Offsetof(o.want),
		"outboundHop": unsafe.Offsetof(o.Hop), "outboundHopGeneration": unsafe.Offsetof(o.HopGeneration), "outboundFlags": unsafe.Offsetof(o.Flags),
		"outboundIVLen": unsafe.Offsetof(o.IVLen), "outboundICVLen": unsafe.Offsetof(o.ICVLen), "outboundAlign": unsafe.Offsetof(o.Align),
		"outboundHeaderLen": unsafe.Offsetof(o.HeaderLen), "outboundMTU": unsafe.Offsetof(o.MTU), "outboundSeq": unsafe.Offsetof(o.Seq), "outboundSeqMax": unsafe.Offsetof(o.SeqMax),
		"outboundPath": unsafe.Offsetof(o.path), "outboundBound": unsafe.Offsetof(o.bound), "outboundLast": unsafe.Offsetof(o.Last), "outboundRoom": unsafe.Offsetof(o.room),
		"outboundHeaderSum": unsafe.Offsetof(o.HeaderSum), "outboundHeader": unsafe.Offsetof(o.Header), "outboundSize": unsafe.Sizeof(o),
		"inboundLive": unsafe.Offsetof(i.live), "inboundSPI": unsafe.Offsetof(i.SPI), "inboundSlot": unsafe.Offsetof(i.Slot), "inboundOwner": unsafe.Offsetof(i.owner),
		"inboundFlags": unsafe.Offsetof(i.Flags), "inboundVersion": unsafe.Offsetof(i.Version), "inboundWindow": unsafe.Offsetof(i.Window), "inboundPackets": unsafe.Offsetof(i.Packets),
		"inboundBytes": unsafe.Offsetof(i.Bytes), "inboundLast": unsafe.Offsetof(i.Last), "inboundBounds": unsafe.Offsetof(i.Bounds), "inboundPlain": unsafe.Offsetof(i.Plain),
		"inboundAddresses": unsafe.Offsetof(i.Addresses), "inboundSize": unsafe.Sizeof(i),
		"finderSlots": unsafe.Offsetof(f.slots), "finderKeys": unsafe.Offsetof(f.keys), "finderOwner": unsafe.Offsetof(f.owner), "finderKnown": unsafe.Offsetof(f.known), "knownLog": knownLog,
	})
	// Owner and wish are read as one, of room the front and of bounds that of bytes stands first.
	if unsafe.Offsetof(o.want) != unsafe.Offsetof(o.owner)+4 || unsafe.Offsetof(o.room.trailer) != 1 || unsafe.Offsetof(i.want) != unsafe.Offsetof(i.owner)+4 ||
		unsafe.Offsetof(i.Bounds.bytes) != 0 || unsafe.Offsetof(i.Bounds.packets) != 8 {
		t.Error("fields that the assembly takes together lie apart")
	}
}

// TestSizes holds the layout: whole cache lines, the hot fields in the first.
func TestSizes(t *testing.T) {
	var in Inbound
	var out Outbound
	for _, c := range []struct {
		name      string
		got, want uintptr
	}{
		{"Inbound", unsafe.Sizeof(in), 192},
		{"Outbound", unsafe.Sizeof(out), 256},
		{"Plain6", unsafe.Sizeof(spd.Plain6{}), 64},
		{"note of a worker", unsafe.Sizeof(note{}), packet.Apart},
		{"Record", unsafe.Sizeof(Record{}), 64},
		{"Flight", unsafe.Sizeof(Flight{}), 9 * 64},
		{"Key", unsafe.Sizeof(transform.Key{}), 9 * 64},
		{"end of the hot fields of Inbound", unsafe.Offsetof(in.Bytes), 64},
		{"end of the IPv4 addresses of Inbound", unsafe.Offsetof(in.Addresses) + 2*4, 124},
		{"end of the hot fields of Outbound", unsafe.Offsetof(out.path), 64},
		{"end of the IPv4 header of Outbound", unsafe.Offsetof(out.Header) + ipv4HeaderLen, 128},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d bytes, want %d", c.name, c.got, c.want)
		}
	}
}
