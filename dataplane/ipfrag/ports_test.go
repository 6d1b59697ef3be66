package ipfrag

import (
	"testing"

	"sallyport/dataplane/packet"
)

// parsed returns record, flow and datagram of an IP packet.
func parsed(t *testing.T, ip []byte) (packet.Packet, packet.Flow, []byte) {
	t.Helper()
	b := packet.Batch{Mem: make([]byte, packet.FrameSize), N: 1}
	b.P[0] = packet.Packet{Addr: packet.Headroom, Len: uint16(packet.EtherLen + len(ip)), L3: packet.EtherLen}
	copy(b.Mem[packet.Headroom+packet.EtherLen:], ip)
	if reason := packet.ParseIP(&b, 0); reason != packet.DropNone {
		t.Fatal(reason)
	}
	return b.P[0], b.Flows[0], b.IP(0)
}

// TestPortsAreThoseOfTheFirst holds what is remembered, of which datagram, through which association, and for how long.
func TestPortsAreThoseOfTheFirst(t *testing.T) {
	data := random(2000, 1)
	copy(data, []byte{0x10, 0, 0x20, 0})
	for version, make := range families {
		ports := NewPorts()
		p, f, h := parsed(t, make(1, 5, packet.ProtoUDP, 0, data, cut{0, 1000, true}))
		ports.Remember(&p, &f, h, 77, 100)
		for _, c := range []struct {
			name    string
			src, id int
			cut     cut
			spi     uint32
			now     int64
			want    bool
		}{
			{"the next", 1, 5, cut{1000, 1496, true}, 77, 101, true},
			{"the last", 1, 5, cut{1496, 2000, false}, 77, 100 + Timeout - 1, true},
			{"too late", 1, 5, cut{1496, 2000, false}, 77, 100 + Timeout, false},
			{"of another datagram", 1, 6, cut{1000, 2000, false}, 77, 101, false},
			{"of another source", 2, 5, cut{1000, 2000, false}, 77, 101, false},
			{"of another association", 1, 5, cut{1000, 2000, false}, 78, 101, false},
			{"of none", 1, 5, cut{1000, 2000, false}, 0, 101, false},
			{"into the first", 1, 5, cut{992, 2000, false}, 77, 101, false},
		} {
			p, f, h := parsed(t, make(c.src, c.id, packet.ProtoUDP, 0, data, c.cut))
			before := f
			if got := ports.Inherit(&p, &f, h, c.spi, c.now); got != c.want {
				t.Errorf("%s, %s: %v", version, c.name, got)
			} else if got && (f.SrcPort != 0x1000 || f.DstPort != 0x2000 || f.Flags&packet.FlagPorts == 0 || f.Proto != packet.ProtoUDP) || !got && f != before {
				t.Errorf("%s, %s: %+v", version, c.name, f)
			}
		}
	}
}

// TestNewPortsTakeThePlaceOfOldOnes remembers more than there is room for: the last ones are there.
func TestNewPortsTakeThePlaceOfOldOnes(t *testing.T) {
	data := random(2000, 1)
	ports := NewPorts()
	found := 0
	for id := range 40000 {
		p, f, h := parsed(t, datagram4(id>>8, id, packet.ProtoUDP, 0, data, cut{0, 1000, true}))
		ports.Remember(&p, &f, h, 0, int64(id))
		p, f, h = parsed(t, datagram4(id>>8, id, packet.ProtoUDP, 0, data, cut{1000, 2000, false}))
		if ports.Inherit(&p, &f, h, 0, int64(id)) {
			found++
		}
		if id > 0 {
			p, f, h = parsed(t, datagram4((id-1)>>8, id-1, packet.ProtoUDP, 0, data, cut{1000, 2000, false}))
			if ports.Inherit(&p, &f, h, 0, int64(id)) {
				found++
			}
		}
	}
	if found != 2*40000-1 {
		t.Errorf("%d of %d found again", found, 2*40000-1)
	}
}
