package wiretest

import (
	"bytes"
	"encoding/binary"
	"maps"
	"testing"

	"sallyport/tools/craft"
)

// attack is one kind of bad input: frames and where each of them is counted.
type attack struct {
	name   string
	end    *end
	frames [][]byte
	xdp    string // the steering program's verdict on all of them
	drop   string // the reason of all of them; "" if they are not dropped by a worker
	made   uint64 // packets that the gateway answers with
	passed uint64 // packets that pass
	punted uint64 // packets that go to the kernel
}

// TestEveryBadPacketEndsInOneCounter sends what a correct peer or host does not. Each frame is
// counted once by the steering program and, if it got there, once by a worker, under the name that
// belongs to it; good packets pass after each kind, and at the end every frame is at home.
func TestEveryBadPacketEndsInOneCounter(t *testing.T) {
	w := start(t)
	w.pass("at first")
	attacks := w.attacks()
	rest := w.still()
	for _, a := range attacks {
		before := w.figures()
		w.send(a.end, a.frames...)
		got := w.settle(before)
		n := uint64(len(a.frames))
		wantXDP, wantDrops := map[string]uint64{a.xdp: n}, map[string]uint64{}
		if a.drop != "" {
			wantDrops[a.drop] = n
		}
		if !maps.Equal(got.xdp, wantXDP) || !maps.Equal(got.drops, wantDrops) || got.originated != a.made || got.out != a.made+a.passed || got.punt != a.punted {
			t.Errorf("%s: %d frames: steering %v, want %v; drops %v, want %v; %d made, %d sent, want %d and %d; %d punted",
				a.name, n, got.xdp, wantXDP, got.drops, wantDrops, got.originated, got.out, a.made, a.passed, got.punt)
		}
		w.pass(a.name)
	}
	w.settle(rest)
	w.home(rest)
}

func (w *wire) attacks() []attack {
	inner := w.good(far4, host4)
	clone := bytes.Clone
	mend := func(f []byte) []byte { craft.FixIPv4(f[14:]); return f }
	alter := func(f []byte, at int, x byte) []byte { f = clone(f); f[(at+len(f))%len(f)] ^= x; return f }
	var list []attack
	add := func(name string, e *end, xdp, drop string, frames ...[]byte) *attack {
		list = append(list, attack{name: name, end: e, frames: frames, xdp: xdp, drop: drop})
		return &list[len(list)-1]
	}
	spi := func(n uint32) []byte {
		esp := w.in.Carry(1, inner)
		binary.BigEndian.PutUint32(esp, n)
		return w.outer(craft.ESPv, esp)
	}

	// Frames.
	short := func(n int) []byte { return append(clone(w.outer(0, nil)[:12]), make([]byte, n-12)...) }
	add("no IP at all", w.peer, "pass-not-ip", "", short(14), short(60), short(1500))
	add("LLDP", w.host, "pass-not-ip", "", append(clone(w.fromHost(nil)[:12]), 0x88, 0xcc, 1, 2, 3))
	whole := w.esp(inner)
	var cut [][]byte
	for n := 14; n < 34; n++ {
		cut = append(cut, whole[:n])
	}
	add("an IP header cut short", w.peer, "drop-malformed", "", cut...)
	cut = nil
	for n := 34; n < len(whole); n++ {
		cut = append(cut, whole[:n])
	}
	add("ESP cut short", w.peer, "esp", "bad-ip-header", cut[:60]...)
	add("ESP cut short further", w.peer, "esp", "bad-ip-header", cut[60:]...)
	add("versions 0 and 15", w.peer, "drop-malformed", "", alter(whole, 14, 0x40), alter(whole, 14, 0xb0))
	add("header length 16", w.peer, "drop-malformed", "", mend(alter(whole, 14, 1)))
	add("header checksum", w.peer, "esp", "bad-ip-checksum", alter(whole, 24, 1), alter(whole, 25, 0x80), alter(whole, 22, 1))
	add("three tags", w.peer, "drop-tags", "", craft.Tag(whole, 1, 2, 3))
	add("VLANs", w.peer, "drop-vlan", "", craft.Tag(whole, 100), craft.Tag(whole, 1, 2), craft.Tag(whole, 0, 2), craft.Tag(whole, 2, 0), craft.Tag(whole, 4095))
	add("VLANs in front of what is to be protected", w.host, "drop-vlan", "", craft.Tag(w.fromHost(w.good(host4, far4)), 100), craft.Tag(w.fromHost(w.good(host6, far6)), 7, 100))

	// ESP.
	add("runts of ESP", w.peer, "esp", "short-esp", w.outer(craft.ESPv, nil), w.outer(craft.ESPv, []byte{1, 2, 3, 4}), w.outer(craft.ESPv, make([]byte, 7)))
	var tiny [][]byte
	for n := 8; n < 34; n++ {
		tiny = append(tiny, w.outer(craft.ESPv, w.in.Carry(99, inner)[:n]))
	}
	add("ESP without room for IV, trailer and ICV", w.peer, "esp", "short-esp", tiny...)
	add("ESP of no multiple of four bytes", w.peer, "esp", "short-esp", w.outer(craft.ESPv, append(w.in.Carry(1<<20, inner), 1)), w.outer(craft.ESPv, w.in.Seal(1<<20, make([]byte, 81))))
	w.seq += 10
	fresh := func() []byte { w.seq++; return w.outer(craft.ESPv, w.in.Carry(w.seq, inner)) }
	add("corrupt ICV", w.peer, "esp", "bad-icv", alter(fresh(), -1, 1), alter(fresh(), -9, 0x80), alter(fresh(), -16, 4))
	add("corrupt ciphertext, IV, sequence number", w.peer, "esp", "bad-icv", alter(fresh(), 50, 1), alter(fresh(), -17, 1), alter(fresh(), 42, 1), alter(fresh(), 41, 1))
	add("another key", w.peer, "esp", "bad-icv", w.otherKey(inner)...)
	add("unknown SPIs", w.peer, "esp", "no-association", spi(256), spi(spiIn+1), spi(spiOut), spi(1<<32-1))
	add("reserved SPIs", w.peer, "esp", "reserved-spi", spi(0), spi(1), spi(255))
	add("another tunnel's SPI", w.peer, "esp", "wrong-endpoint", spi(spiIn6))
	add("our SPI in UDP", w.peer, "esp-in-udp", "wrong-endpoint", w.outer(craft.UDPv, craft.UDP(peer4, gw4, 4500, 4500, w.in.Carry(1<<20, inner))))
	add("another peer", w.peer, "esp", "wrong-endpoint", w.toGateway(craft.IP(far4.Next(), gw4, craft.ESPv, w.in.Carry(1<<20, inner))))

	// Replay: numbers far enough ahead that the earliest are out of the window of 4096.
	w.seq += 5000
	ahead := fresh()
	w.send(w.peer, ahead)
	add("replays", w.peer, "esp", "replayed", ahead, ahead, ahead)
	old6 := func(seq uint64) []byte {
		return w.toGateway(craft.IP(peer6, gw6, craft.UDPv, craft.UDP(peer6, gw6, 4500, 4500, w.in6.Carry(seq, w.good(far6, host6)))))
	}
	w.seq6 = 5000
	w.send(w.peer, old6(w.seq6))
	add("too old", w.peer, "esp-in-udp", "too-old", old6(1), old6(w.seq6-4096))
	add("too old with extended numbers, where they are taken for new ones", w.peer, "esp", "bad-icv", w.outer(craft.ESPv, w.in.Carry(1, inner)), w.outer(craft.ESPv, w.in.Carry(w.seq-4096, inner)))
	add("sequence number 0", w.peer, "esp-in-udp", "too-old", w.toGateway(craft.IP(peer6, gw6, craft.UDPv, craft.UDP(peer6, gw6, 4500, 4500, w.in6.Carry(0, inner)))))

	// What only a peer with the key can send.
	add("padding", w.peer, "esp", "bad-trailer", w.authentic(append(clone(inner), 1, 3, 2, 4)), w.authentic([]byte{0, 200, 200, 4}), w.authentic(append(make([]byte, 4), 9, 9, 255, 4)))
	add("dummies", w.peer, "esp", "dummy", w.authentic(craft.Trailer(nil, 0, craft.NextNone)), w.authentic(craft.Trailer(make([]byte, 900), 0, craft.NextNone)), w.authentic([]byte{1, 2, 77, craft.NextNone}))
	add("next header", w.peer, "esp", "bad-next-header", w.authentic(craft.Trailer(inner, 0, craft.TCP)), w.authentic(craft.Trailer(inner, 0, 0)), w.authentic(craft.Trailer(inner, 0, 255)))
	add("no inner packet", w.peer, "esp", "bad-inner",
		w.authentic(craft.Trailer(nil, 0, 4)), w.authentic(craft.Trailer([]byte("not a packet"), 0, 4)), w.authentic(craft.Trailer(inner, 0, 41)),
		w.authentic(craft.Trailer(inner[:30], 0, 4)), w.authentic(craft.Trailer(alter(inner, 10, 1), 0, 4)))
	add("outside the selectors", w.peer, "esp", "selector-mismatch",
		w.esp(w.good(far4, peer4)), w.esp(w.good(peer4, host4)), w.esp(w.good(host4, far4)), w.esp(w.good(far6, host6)), w.esp(w.good(far4, gw4)))
	expired := clone(inner)
	expired[8] = 1
	add("hop count at its end in the tunnel", w.peer, "esp", "ttl-expired", w.esp(craft.FixIPv4(expired))).made = 1

	// What is not for a tunnel.
	part := w.outer(craft.ESPv, w.in.Carry(1, inner)[:64])
	add("outer fragments that overlap", w.peer, "esp", "fragment-overlap", w.fragment(part, 0x2000), w.fragment(part, 0x2007), w.fragment(part, 0x0010))
	add("fragments of UDP, for no association", w.peer, "udp-fragment", "no-association", w.fragment(w.outer(craft.UDPv, craft.UDP(peer4, gw4, 4500, 4500, inner)), 0x2000))
	add("AH for no association", w.peer, "ah", "no-association", w.outer(craft.AH, bytes.Repeat([]byte{0x51}, 40)))
	add("AH with a reserved SPI", w.peer, "ah", "reserved-spi", w.outer(craft.AH, make([]byte, 40)))
	add("AH cut short", w.peer, "ah", "bad-ah", w.outer(craft.AH, bytes.Repeat([]byte{0x51}, 11)))
	add("keepalives", w.peer, "drop-keepalive", "", w.outer(craft.UDPv, craft.UDP(peer4, gw4, 4500, 4500, []byte{0xff})), w.toGateway(craft.IP(peer6, gw6, craft.UDPv, craft.UDP(peer6, gw6, 4500, 4500, []byte{0xff}))))
	add("runts in UDP", w.peer, "esp-in-udp", "short-esp", w.outer(craft.UDPv, craft.UDP(peer4, gw4, 4500, 4500, []byte{1})), w.outer(craft.UDPv, craft.UDP(peer4, gw4, 4500, 4500, []byte{1, 2, 3, 4, 5, 6, 7})))
	add("UDP cut short", w.peer, "drop-malformed", "", w.outer(craft.UDPv, []byte{0x11, 0x94, 0x11, 0x94}), w.outer(craft.UDPv, craft.UDP(peer4, gw4, 4500, 4500, nil)))
	marked := append(make([]byte, 4), make([]byte, 28)...)
	add("IKE without a server", w.peer, "no-socket-pass", "", w.outer(craft.UDPv, craft.UDP(peer4, gw4, 500, 500, make([]byte, 28))), w.outer(craft.UDPv, craft.UDP(peer4, gw4, 4500, 4500, marked)))
	add("cleartext for a protected prefix", w.peer, "cleartext", "cleartext", w.toGateway(inner), w.toGateway(w.good(far6, host6)), craft.Tag(w.toGateway(inner), 0))
	add("cleartext for a protected prefix in a VLAN", w.peer, "drop-vlan", "", craft.Tag(w.toGateway(inner), 5), craft.Tag(w.toGateway(w.good(far6, host6)), 5))
	add("spoofed from outside", w.peer, "spoofed", "spoofed", w.toGateway(w.good(host4, far4)), w.toGateway(w.good(host6, far6)))
	add("spoofed from inside", w.host, "spoofed", "spoofed", w.fromHost(inner), w.fromHost(w.good(far6, host6)))
	cleartext := w.good(far6, host6)
	add("extension headers in cleartext", w.peer, "cleartext", "cleartext", w.toGateway(craft.IPv6(far6, host6, 60, append([]byte{craft.UDPv, 0, 1, 4, 0, 0, 0, 0}, cleartext[40:]...))))
	var chain []byte
	for range 9 {
		chain = append(chain, 60, 0, 1, 4, 0, 0, 0, 0)
	}
	add("too many extension headers", w.peer, "drop-malformed", "", w.toGateway(craft.IPv6(far6, host6, 60, chain)))
	add("extension headers cut short", w.peer, "drop-malformed", "", w.toGateway(craft.IPv6(far6, host6, 60, []byte{60, 200, 0})))
	add("IPv6 cut short", w.host, "protect", "bad-ip-header", w.fromHost(w.good(host6, far6)[:60]), w.fromHost(w.good(host6, far6)[:150]))
	hop := clone(w.good(host4, far4))
	hop[8] = 1
	add("hop count at its end before the tunnel", w.host, "protect", "ttl-expired", w.fromHost(craft.FixIPv4(hop))).made = 1
	big := craft.IP(host6, far6, craft.UDPv, craft.UDP(host6, far6, 1, 2, make([]byte, 1440)))
	add("too big for the tunnel", w.host, "protect", "too-big", w.fromHost(big)).made = 1
	add("ICMP errors about our packets", w.peer, "icmp-error", "icmp-heeded", w.icmpError())
	add("fragments of UDP that may be the kernel's", w.peer, "udp-fragment", "",
		w.fragment(w.outer(craft.UDPv, craft.UDP(peer4, gw4, 53, 53, inner[:len(inner)&^7])), 0x2000), w.fragment(w.outer(craft.UDPv, inner), 0x0010)).punted = 2

	// And what is unusual but right.
	add("options", w.peer, "esp", "", w.toGateway(craft.IPv4(peer4, gw4, craft.ESPv, w.in.Carry(w.next(), w.good(far4, host4)), []byte{7, 7, 4, 0, 0, 0, 0, 0}))).passed = 1
	add("priority tags", w.peer, "esp", "", craft.Tag(w.esp(w.good(far4, host4)), 0xe000), craft.Tag(w.esp(w.good(far4, host4)), 0, 0x2000)).passed = 2
	add("priority tags in front of what is to be protected", w.host, "protect", "", craft.Tag(w.fromHost(w.good(host4, far4)), 0x6000), craft.Tag(w.fromHost(w.good(host6, far6)), 0, 0)).passed = 2
	add("traffic flow confidentiality", w.peer, "esp", "", w.authentic(craft.Trailer(w.good(far4, host4), 600, craft.NextIPv4))).passed = 1
	add("IPv6 in UDP", w.peer, "esp-in-udp", "", w.esp6(w.good(far6, host6))).passed = 1
	ext := craft.IPv6(peer6, gw6, 60, append([]byte{craft.UDPv, 0, 1, 4, 0, 0, 0, 0}, craft.UDP(peer6, gw6, 4500, 4500, w.in6.Carry(w.next6(), w.good(far6, host6)))...))
	add("extension headers before ESP in UDP", w.peer, "esp-in-udp", "", w.toGateway(ext)).passed = 1
	return list
}

func (w *wire) next() uint64  { w.seq++; return w.seq }
func (w *wire) next6() uint64 { w.seq6++; return w.seq6 }

// otherKey returns a packet that is right but for the key.
func (w *wire) otherKey(inner []byte) [][]byte {
	e, err := craft.NewESP(spiIn, bytes.Repeat([]byte{7}, 20), true)
	w.must(err)
	return [][]byte{w.outer(craft.ESPv, e.Carry(w.next(), inner))}
}

// fragment sets the flags and the offset of an IPv4 packet.
func (w *wire) fragment(frame []byte, word uint16) []byte {
	f := bytes.Clone(frame)
	binary.BigEndian.PutUint16(f[20:], word)
	craft.FixIPv4(f[14:])
	return f
}

// icmpError says that a packet of ours was too big.
func (w *wire) icmpError() []byte {
	quoted := craft.IP(gw4, peer4, craft.ESPv, make([]byte, 8))
	icmp := append([]byte{3, 4, 0, 0, 0, 0, 5, 0}, quoted...)
	binary.BigEndian.PutUint16(icmp[2:], ^craft.Sum(icmp))
	return w.outer(craft.ICMP, icmp)
}
