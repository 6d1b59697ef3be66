package ikesa

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"sallyport/ike/message"
)

// TestCollisionsInEveryOrder lets both hosts begin something at once and delivers
// their messages in every order that keeps each direction's own: after each message no
// host sends where the other cannot receive (world.check), and at the end both have
// the same.
func TestCollisionsInEveryOrder(t *testing.T) {
	type operation struct {
		name string
		do   func(h *host)
	}
	child := operation{"rekey child", func(h *host) { h.command(RekeyChild{h.childByName("net")}) }}
	ike := operation{"rekey IKE", func(h *host) { h.command(RekeyIKE{}) }}
	create := operation{"create", func(h *host) { h.command(AddChild{h.conn.Children[0]}) }}
	drop := operation{"delete child", func(h *host) { h.command(DeleteChild{SPI: h.childByName("net")}) }}
	leave := operation{"delete IKE", func(h *host) { h.command(DeleteIKE{}) }}
	ask := operation{"liveness", func(h *host) { h.command(Liveness{}) }}
	reauth := operation{"reauthenticate", func(h *host) { h.command(Reauth{}) }}
	all := []operation{child, ike, create, drop, leave, ask, reauth}
	orders := 0
	for _, suites := range [][2]string{
		{"aes128gcm16-esn-noesn", "aes128gcm16-prfsha256-x25519"},
		{"aes128gcm16-x25519-ke1_ecp256", "aes128gcm16-prfsha256-x25519-ke1_ecp256"},
	} {
		for i, x := range all {
			for _, y := range all[i:] {
				for _, low := range []string{"a", "b"} {
					var path []bool
					for { // depth first; a path says which host's packet goes next wherever both have one
						name := fmt.Sprintf("%s: a: %s, b: %s, lowest nonce %s, order %v", suites[0], x.name, y.name, low, path)
						w := newWorld(t, 1)
						for _, h := range w.hosts {
							h.conn.Proposals = proposalsIKE(t, suites[1])
							h.conn.Children[0].Proposals = proposalsESP(t, suites[0])
						}
						w.hosts["a"].initiate(InitiatorOptions{})
						w.settle()
						w.hosts["a"].command(Liveness{})
						w.settle()
						w.log.Reset()
						w.hosts["a"].first, w.hosts["b"].first = 0x80, 0x80
						w.hosts[low].first = 0x10
						x.do(w.hosts["a"])
						y.do(w.hosts["b"])
						w.hosts["a"].first, w.hosts["b"].first = 0xf0, 0xf0
						path = w.follow(path)
						orders++
						w.settle()
						w.advanceWith(10*time.Minute, w.settle)
						w.conclude(name, x.name == leave.name || y.name == leave.name, x.name == drop.name || y.name == drop.name)
						if t.Failed() {
							t.Fatalf("%s\n%s", name, w.log.String())
						}
						for len(path) > 0 && path[len(path)-1] {
							path = path[:len(path)-1]
						}
						if len(path) == 0 {
							break
						}
						path[len(path)-1] = true
					}
				}
			}
		}
		if testing.Short() {
			break
		}
	}
	t.Logf("%d orders", orders)
}

// follow delivers packets: where both hosts have one on its way, b's if the path says
// so. It returns the path that it took, continued with a's first.
func (w *world) follow(path []bool) []bool {
	const choicesMax = 7 // the first ones; what comes later is no collision any more
	for i := 0; len(w.net) > 0; {
		from := map[string]bool{}
		for _, p := range w.net {
			from[p.from.name] = true
		}
		next := "a"
		switch {
		case !from["a"]:
			next = "b"
		case from["b"] && i < choicesMax:
			if i == len(path) {
				path = append(path, false)
			}
			if path[i] {
				next = "b"
			}
			i++
		}
		w.pass(next)
	}
	return path
}

// conclude checks what the two hosts have in the end.
func (w *world) conclude(name string, left, dropped bool) {
	a, b := w.hosts["a"], w.hosts["b"]
	if left {
		// Who left may have met a reauthentication or a new start of the other.
		if len(a.sas) != len(b.sas) {
			w.state()
			w.t.Errorf("%s: %d and %d IKE SAs", name, len(a.sas), len(b.sas))
		}
		w.idle()
		return
	}
	if len(a.sas) == 2 && len(b.sas) == 2 { // both reauthenticated: each made one, the server chooses
		return
	}
	if !dropped {
		w.agree(0)
		return
	}
	if len(a.sas) != 1 || len(b.sas) != 1 || len(a.in) != len(b.out) || len(a.out) != len(b.in) {
		w.state()
		w.t.Errorf("%s: they disagree", name)
	}
	w.idle()
}

// TestLoserOfACollisionThatThePeerForgot: both hosts rekey the IKE SA, and a throws away the answer to its own request once b's
// has overtaken it. Nobody deletes what b made for it then but b, which does not take it for an IKE SA that carries anything.
func TestLoserOfACollisionThatThePeerForgot(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.hosts["a"], w.hosts["b"]
	a.initiate(InitiatorOptions{})
	w.settle()
	a.command(Liveness{})
	w.settle()
	old := a.last
	a.first, b.first = 0x10, 0x80 // a's has the lowest nonce: it loses
	a.command(RekeyIKE{})
	b.command(RekeyIKE{})
	a.first, b.first = 0xf0, 0xf0
	w.pass("a") // b answers, and waits for the answer to its own
	w.net = slices.DeleteFunc(w.net, func(p *packet) bool { return p.from == b && must(message.ParseHeader(p.Data)).IsResponse() })
	old.dropRequest()
	w.settle()
	established := 0
	for _, s := range b.sorted() {
		if s.state == StateEstablished {
			established++
		}
	}
	if established != 1 || len(b.sas) != 2 {
		w.state()
		t.Errorf("%d of %d IKE SAs of b are established\n%s", established, len(b.sas), w.log.String())
	}
	w.advanceWith(time.Minute, w.settle)
	w.agree(0)
}
