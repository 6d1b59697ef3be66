package ikesa

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"sallyport/ike/message"
)

// flow is one packet as selectors see it; port -1 cannot be seen.
type flow struct {
	protocol uint8
	port     int
	addr     netip.Addr
}

// matches is the definition that narrowing is held to.
func matches(t message.TrafficSelector, f flow) bool {
	if t.Protocol != 0 && t.Protocol != f.protocol || t.Start.BitLen() != f.addr.BitLen() || f.addr.Less(t.Start) || t.End.Less(f.addr) {
		return false
	}
	if t.StartPort == 0 && t.EndPort == 65535 {
		return true
	}
	if t.IsOpaque() {
		return f.port < 0
	}
	return f.port >= int(t.StartPort) && f.port <= int(t.EndPort)
}

func anyMatches(list []message.TrafficSelector, f flow) bool {
	return slices.ContainsFunc(list, func(t message.TrafficSelector) bool { return matches(t, f) })
}

func randomSelectors(rng *rand.Rand) []message.TrafficSelector {
	var all []message.TrafficSelector
	for range 1 + rng.IntN(4) {
		t := message.TrafficSelector{Protocol: []uint8{0, 0, 6, 17}[rng.IntN(4)], EndPort: 65535}
		switch rng.IntN(4) {
		case 0:
			t.StartPort = uint16(rng.IntN(4))
			t.EndPort = t.StartPort + uint16(rng.IntN(3))
		case 1:
			t.StartPort, t.EndPort = 65535, 0
		}
		low := byte(rng.IntN(8))
		high := low + byte(rng.IntN(int(8-low)))
		t.Start, t.End = netip.AddrFrom4([4]byte{192, 0, 2, low}), netip.AddrFrom4([4]byte{192, 0, 2, high})
		if rng.IntN(4) == 0 {
			t.Start, t.End = netip.AddrFrom16([16]byte{0x20, 1, 15: low}), netip.AddrFrom16([16]byte{0x20, 1, 15: high})
		}
		all = append(all, t)
	}
	return all
}

// C19: narrowing is the intersection, never more and, below the limit, never less.
func TestNarrowIsTheIntersection(t *testing.T) {
	var flows []flow
	for addr := range 8 {
		for _, a := range []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(addr)}), netip.AddrFrom16([16]byte{0x20, 1, 15: byte(addr)})} {
			for _, protocol := range []uint8{1, 6, 17} {
				for port := -1; port < 8; port++ {
					flows = append(flows, flow{protocol, port, a})
				}
			}
		}
	}
	rng := rand.New(rand.NewPCG(7, 7))
	for range 2000 {
		x, y := randomSelectors(rng), randomSelectors(rng)
		both := narrow(x, y)
		for _, f := range flows {
			if want := anyMatches(x, f) && anyMatches(y, f); anyMatches(both, f) != want {
				t.Fatalf("%v and %v give %v: wrong for %+v, want %v", x, y, both, f, want)
			}
		}
		if len(both) > 0 && (!covered(both, x) || !covered(both, y)) {
			t.Fatalf("%v is not covered by %v and %v", both, x, y)
		}
	}
}

func TestNarrowIsBounded(t *testing.T) {
	var x, y []message.TrafficSelector
	for i := range message.SelectorsMax {
		x = append(x, message.TrafficSelector{StartPort: uint16(2 * i), EndPort: uint16(2 * i), Start: netip.IPv4Unspecified(), End: netip.MustParseAddr("255.255.255.255")})
		y = append(y, message.TrafficSelector{EndPort: 65535, Start: netip.AddrFrom4([4]byte{byte(i)}), End: netip.AddrFrom4([4]byte{byte(i)})})
	}
	if n := len(narrow(x, y)); n != selectorsMax {
		t.Errorf("%d selectors", n)
	}
}

// C19: a responder that answers with more than was asked for is not believed.
func TestWiderAnswerIsRefused(t *testing.T) {
	for _, wide := range []string{"198.51.0.0/16", "0.0.0.0/0", "198.51.100.0/25"} {
		w := newWorld(t, 1)
		a, b := w.hosts["a"], w.hosts["b"]
		a.initiate(InitiatorOptions{})
		w.pass("a")
		w.pass("b")
		w.pass("a")
		p := w.take("b") // b's IKE_AUTH response, which b itself now makes wider
		m := must(message.Parse(slices.Clone(p.Data)))
		if err := m.Open(a.last.opener); err != nil {
			t.Fatal(err)
		}
		ts := m.Payload(message.TypeTSr).(*message.TS)
		ts.Selectors = []message.TrafficSelector{message.SelectorOf(netip.MustParsePrefix(wide))}
		packets := must(message.AppendProtected(nil, m.Header, m.Payloads, b.last.sealer, 0))
		a.inject(a.last, packets[0])
		if len(a.in)+len(a.out) != 0 {
			t.Fatalf("%s was accepted", wide)
		}
		w.settle() // a tells b to remove the child
		if len(b.in) != 0 {
			t.Errorf("%s: b still has the child\n%s", wide, w.log.String())
		}
		w.idle()
	}
}

// TestPeerThatTakesNoPadding has either side say ESP_TFC_PADDING_NOT_SUPPORTED when a child is made: the other one is told with the
// association that it must not pad (RFC 7296, 1.3.1).
func TestPeerThatTakesNoPadding(t *testing.T) {
	for _, says := range []string{"a", "b", ""} {
		w := newWorld(t, 1)
		a, b := w.hosts["a"], w.hosts["b"]
		from, to := a, b
		a.initiate(InitiatorOptions{})
		w.pass("a")
		w.pass("b")
		if says == "b" {
			from, to = b, a
			w.pass("a")
		}
		if says != "" {
			p := w.take(says)
			m := must(message.Parse(slices.Clone(p.Data)))
			if err := m.Open(to.last.opener); err != nil {
				t.Fatal(err)
			}
			m.Payloads = append(m.Payloads, &message.Notify{Notify: message.ESPTFCPaddingNotSupported})
			to.inject(to.last, must(message.AppendProtected(nil, m.Header, m.Payloads, from.last.sealer, 0))[0])
		}
		w.settle()
		for _, h := range []*host{a, b} {
			for _, c := range h.out {
				if want := h == to && says != ""; c.Unpadded != want {
					t.Errorf("%q says it: %s's child has Unpadded %v", says, h.name, c.Unpadded)
				}
			}
			if len(h.out) != 1 {
				t.Errorf("%s has %d children", h.name, len(h.out))
			}
		}
		w.idle()
	}
}
