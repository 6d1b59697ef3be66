package ikesa

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"
)

// Proposals of the two hosts: with one key exchange, and with an additional one.
const (
	espOne  = "aes128gcm16-esn-noesn"
	ikeOne  = "aes128gcm16-prfsha256-x25519"
	espMore = "aes128gcm16-x25519-ke1_ecp256"
	ikeMore = "aes128gcm16-prfsha256-x25519-ke1_ecp256"
)

// TestTwoHostsAgreeAfterEveryOrder lets two hosts rekey, delete, create and check
// liveness at the same time over a network that delays, reorders, duplicates and loses,
// and then waits until it is quiet: both must have the same IKE SA and the same
// children, each of which carries traffic both ways, and nothing may be left behind.
func TestTwoHostsAgreeAfterEveryOrder(t *testing.T) {
	runs := uint64(200)
	if os.Getenv("SALLYPORT_LONG") != "" {
		runs = 10000
	}
	for seed := range runs {
		simulate(t, seed, espOne, ikeOne, 60, false)
		simulate(t, seed, espOne, ikeOne, 90, true)
	}
	for seed := range runs / 10 { // additional key exchanges make exchanges long
		simulate(t, seed, espMore, ikeMore, 60, false)
		simulate(t, seed, espMore, ikeMore, 90, true)
	}
}

// What the simulation once found, by its seed.
func TestOrdersThatFailedOnce(t *testing.T) {
	for _, c := range []struct {
		seed     uint64
		steps    int
		esp, ike string
		what     string
	}{
		{1286, 90, espOne, ikeOne, "an IKE SA that another had replaced lost its last request twice and left without a word: its peer sent by its newest child into nothing"},
		{1867, 90, espOne, ikeOne, "a reauthentication that had to wait gave the IKE SA's successor the end of an authentication that is to be renewed"},
		{99, 90, espMore, ikeMore, "a child whose successor the peer took back, for a rekey that was never finished, was refused every rekey and then deleted"},
		{2093, 120, espMore, ikeMore, "an IKE SA whose successor the peer took back, for a rekey that was never finished, refused everything from then on"},
		{13844, 120, espMore, ikeMore, "an IKE SA that was about to go finished the peer's rekey of it: its peer sent by a successor that was never used"},
	} {
		t.Log(c.what)
		simulate(t, c.seed, c.esp, c.ike, c.steps, true)
	}
}

// simulate runs one seed. A failure names it. With hard the network loses a fifth of what it carries, and one of the hosts
// reauthenticates, too (both would leave two IKE SAs, of which the server chooses).
func simulate(t *testing.T, seed uint64, esp, ike string, steps int, hard bool) {
	w := newWorld(t, seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for _, h := range w.hosts {
		h.conn.Proposals = proposalsIKE(t, ike)
		h.conn.Children[0].Proposals = proposalsESP(t, esp)
		h.conn.Children = append(h.conn.Children, &Child{
			Name: "other", Proposals: h.conn.Children[0].Proposals,
			LocalTS: []Selector{prefixSelector("2001:db8::/32")}, RemoteTS: []Selector{prefixSelector("2001:db8::/32")},
		})
	}
	if hard { // who could not say goodbye is missed
		for _, h := range w.hosts {
			h.conn.DPDDelay = 30 * time.Second
		}
	}
	w.hosts["a"].initiate(InitiatorOptions{})
	w.settle()
	defer func() {
		if r := recover(); r != nil {
			t.Fatalf("seed %d: %v\n%s", seed, r, w.log.String())
		}
		if t.Failed() {
			t.Fatalf("seed %d %s:\n%s", seed, esp, w.log.String())
		}
	}()
	for range steps {
		h := w.hosts[[]string{"a", "b"}[rng.IntN(2)]]
		switch n := rng.IntN(100); {
		case n < 50 && len(w.net) > 0: // any packet arrives next
			i := rng.IntN(len(w.net))
			p := w.net[i]
			w.net = slices.Delete(w.net, i, i+1)
			if hard && rng.IntN(5) == 0 {
				fmt.Fprintln(&w.log, "lost:", w.describe(p))
				break
			}
			fmt.Fprintln(&w.log, w.describe(p))
			w.deliver(p)
			if rng.IntN(8) == 0 {
				w.net = append(w.net, p)
			}
		case n < 53 && len(w.net) > 0:
			i := rng.IntN(len(w.net))
			w.net = slices.Delete(w.net, i, i+1)
			fmt.Fprintln(&w.log, "lost")
		case n < 65:
			w.advance(time.Duration(rng.IntN(5000)) * time.Millisecond)
		case h.last == nil:
		case n < 78:
			if spi := h.childByName("net"); spi != 0 {
				fmt.Fprintf(&w.log, "%s rekeys child\n", h.name)
				h.commandTo(spi, RekeyChild{spi})
			}
		case n < 88:
			fmt.Fprintf(&w.log, "%s rekeys IKE\n", h.name)
			h.command(RekeyIKE{})
		case n < 92:
			fmt.Fprintf(&w.log, "%s creates\n", h.name)
			h.command(AddChild{h.conn.Children[1]})
		case n < 95:
			if spi := h.childByName("other"); spi != 0 {
				fmt.Fprintf(&w.log, "%s deletes child\n", h.name)
				h.commandTo(spi, DeleteChild{SPI: spi})
			}
		case n < 98:
			h.command(Liveness{})
		case hard && h.name == "a":
			fmt.Fprintln(&w.log, "a reauthenticates")
			h.command(Reauth{})
		}
		if t.Failed() {
			return
		}
	}
	fmt.Fprintln(&w.log, "-- the network is good from here on")
	w.settle()
	w.advanceWith(10*time.Minute, w.settle)
	if hard && w.gaveUp() { // a request was lost as often as it may be repeated: nothing may be left
		w.idle()
		return
	}
	w.agree(seed)
}

// gaveUp says whether both hosts have ended everything because one of them took the other for dead.
func (w *world) gaveUp() bool {
	dead := false
	for _, h := range w.hosts {
		if len(h.sas) > 0 {
			return false
		}
		dead = dead || h.lostPeer()
	}
	return dead
}

// commandTo gives a command to the SA that has a child.
func (h *host) commandTo(spi uint32, c Command) {
	for _, s := range h.sorted() {
		if s.childBySPIIn(spi) != nil {
			h.drive(s, func(out *Outputs) { s.Command(h.w.now, c, out) })
			return
		}
	}
}

// agree checks that both hosts see the same.
func (w *world) agree(seed uint64) {
	a, b := w.hosts["a"], w.hosts["b"]
	if len(a.sas) != 1 || len(b.sas) != 1 {
		w.state()
		w.t.Errorf("seed %d: %d and %d IKE SAs", seed, len(a.sas), len(b.sas))
		return
	}
	x, y := a.sorted()[0], b.sorted()[0]
	if x.spiI != y.spiI || x.spiR != y.spiR || x.initiator == y.initiator || x.state != StateEstablished || y.state != StateEstablished {
		w.t.Errorf("seed %d: the IKE SAs are different ones", seed)
	}
	for _, pair := range [][2]*host{{a, b}, {b, a}} {
		ins, outs := slices.Sorted(maps.Keys(pair[0].in)), slices.Sorted(maps.Keys(pair[1].out))
		if !slices.Equal(ins, outs) {
			w.state()
			w.t.Errorf("seed %d: %s receives on %x, %s sends on %x", seed, pair[0].name, ins, pair[1].name, outs)
		}
	}
	if a.childByName("net") == 0 {
		w.t.Errorf("seed %d: the child is gone", seed)
	}
	w.check()
	w.idle()
	if x.request != nil || y.request != nil || len(x.queue)+len(y.queue) > 0 {
		w.t.Errorf("seed %d: work is left", seed)
	}
}

// TestHandshakeOnBadNetworks lets every packet of a handshake, fragments and additional
// key exchanges in, be lost, repeated or overtaken: in the end both hosts have the
// same, or the initiator has given up and nothing is left of it.
func TestHandshakeOnBadNetworks(t *testing.T) {
	established := 0
	const runs = 100
	for seed := range uint64(runs) {
		w := newWorld(t, seed)
		rng := rand.New(rand.NewPCG(seed, 2))
		for _, h := range w.hosts {
			h.conn.Proposals = proposalsIKE(t, "aes128gcm16-prfsha256-x25519-ke1_mlkem768-ke2_ecp256")
			h.conn.FragmentSize = 500
			h.conn.DPDDelay = 30 * time.Second
			h.conn.Retransmit.Tries, h.conn.Retransmit.Limit = 12, 8*time.Second
		}
		s := w.hosts["a"].initiate(InitiatorOptions{})
		bad := func() {
			for n := 0; len(w.net) > 0 && n < 30; n++ {
				i := rng.IntN(len(w.net))
				p := w.net[i]
				switch rng.IntN(10) {
				case 0, 1: // lost
					w.net = slices.Delete(w.net, i, i+1)
				case 2: // arrives, and will again
					w.deliver(p)
				default:
					w.net = slices.Delete(w.net, i, i+1)
					w.deliver(p)
				}
			}
		}
		bad()
		for range 40 {
			w.advanceWith(5*time.Second, bad)
			bad()
		}
		w.advanceWith(10*time.Minute, w.settle)
		a, b := w.hosts["a"], w.hosts["b"]
		switch {
		case s.state == StateEstablished:
			established++
			w.agree(seed)
		case s.state != StateEnded || len(a.sas)+len(b.sas) != 0:
			t.Errorf("%v, %d and %d SAs", s.state, len(a.sas), len(b.sas))
		}
		w.idle()
		if t.Failed() {
			t.Fatalf("seed %d\n%s", seed, w.log.String())
		}
	}
	t.Logf("%d of %d", established, runs)
	if established < runs/2 {
		t.Errorf("only %d of %d handshakes", established, runs)
	}
}
