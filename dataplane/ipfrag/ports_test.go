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

// FuzzPorts: whatever fragments come in whatever order, through whatever association and when, a later one gets the ports of the first one of its own
// datagram or none, by a map without bounds; while there are no more datagrams than one place holds, it gets them always.
func FuzzPorts(f *testing.F) {
	f.Add([]byte{0, 1, 0, 5, 0x80, 1, 0, 6})
	f.Add([]byte{0, 9, 1, 0x40, 3, 0x80, 1, 255, 0x80, 2, 3, 7, 0x40, 0x80})
	f.Fuzz(func(t *testing.T, script []byte) {
		type name struct {
			version      string
			src, id, spi int
		}
		type entry struct {
			until, end int
			port       uint16
		}
		model, ports, now := map[name]entry{}, NewPorts(), 0
		data := make([]byte, 512)
		for ; len(script) >= 4; script = script[4:] {
			op, who, at, port := script[0], script[1], int(script[2]&31)*8, uint16(script[3])
			now += int(op&15) * int(Timeout) / 20
			n := name{"v4", int(who & 3), int(who >> 2 & 7), int(who >> 5)}
			for version := range families {
				if (op&16 == 0) == (version == "v6") {
					n.version = version
				}
			}
			data[1], data[3] = byte(port), byte(port+1)
			if op&0x80 == 0 {
				p, flow, h := parsed(t, families[n.version](n.src, n.id, packet.ProtoUDP, 0, data, cut{0, at + 8, true}))
				ports.Remember(&p, &flow, h, uint32(n.spi), int64(now))
				model[n] = entry{now + int(Timeout), at + 8, port}
				continue
			}
			p, flow, h := parsed(t, families[n.version](n.src, n.id, packet.ProtoUDP, 0, data, cut{at + 8, at + 16, op&0x40 == 0}))
			before := flow
			got := ports.Inherit(&p, &flow, h, uint32(n.spi), int64(now))
			e, known := model[n]
			want := known && now < e.until && at+8 >= e.end
			switch {
			case got && !want, !got && want && len(model) <= 2:
				t.Fatalf("%v at %d: %v, and not as the map says: %+v, %v", n, now, got, e, known)
			case !got && flow != before:
				t.Fatalf("%v: changed without a word: %+v", n, flow)
			case got && (flow.SrcPort != e.port || flow.DstPort != uint16(byte(e.port+1)) || flow.Proto != packet.ProtoUDP || flow.Flags&packet.FlagPorts == 0):
				t.Fatalf("%v: %+v, not %d", n, flow, e.port)
			}
		}
	})
}
