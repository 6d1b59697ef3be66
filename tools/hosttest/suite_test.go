package hosttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"sallyport/tools/rig"
)

// suites are all words of esp_proposals for one suite, and authenticators those of ah_proposals.
func suites() (esp, ah []string) {
	for _, bits := range []string{"128", "192", "256"} {
		for _, rest := range []string{"gcm16", "gcm12", "gcm8", "gcm16iiv", "gmac", "-sha256", "-sha384", "-sha512"} {
			esp = append(esp, "aes"+bits+rest)
		}
		ah = append(ah, "aes"+bits+"gmac")
	}
	esp = append(esp, "chacha20poly1305", "chacha20poly1305iiv", "null-sha256", "null-sha384", "null-sha512")
	return esp, append(ah, "sha256", "sha384", "sha512")
}

// suite is one child of the test: datagrams of one port go by it.
type suite struct {
	connection, proposal string // proposal as `sallyport sas` shows it
	network, near, far   string
	port                 int
	readable             bool // it does not encrypt
}

// perSuite is how many datagrams a suite carries each way: as small as can be, with the mark, and close to the MTU.
const perSuite = 3

// TestEverySuiteThatIKEAgreesOn has two daemons negotiate a child for each suite, all of ESP in UDP over IPv4 with extended sequence numbers and raw over
// IPv6 without, all of AH over IPv6, and sends datagrams through each: by it and no other, and readable between the gateways only where it does not encrypt.
func TestEverySuiteThatIKEAgreesOn(t *testing.T) {
	g := build(t)
	esp, ah := suites()
	if len(esp) != 29 {
		t.Fatalf("%d suites", len(esp))
	}
	var list []suite
	var children [2][2]strings.Builder // by connection: of gateway a, of b
	add := func(connection int, key, word, extended, inner4 string) {
		s := suite{connection: []string{"four", "six"}[connection], proposal: word + "-" + extended, network: "udp4", near: rig.HostA4, far: rig.HostB4, port: 5000 + len(list)}
		nets := [2]string{rig.LANA4, rig.LANB4}
		if inner4 == "" {
			s.network, s.near, s.far, nets = "udp6", rig.HostA6, rig.HostB6, [2]string{rig.LANA6, rig.LANB6}
		}
		s.readable = key == "ah_proposals" || strings.HasPrefix(word, "null") || strings.HasSuffix(word, "gmac")
		for side := range 2 {
			fmt.Fprintf(&children[connection][side], "      c%d: {local_ts: \"%s[udp/%d]\", remote_ts: \"%s[udp/%d]\", %s: %s, start_action: %s}\n",
				s.port, nets[side], s.port, nets[1-side], s.port, key, s.proposal, []string{"start", "none"}[side])
		}
		list = append(list, s)
	}
	for i, word := range esp {
		// Each inner family in each outer one, in turn.
		add(0, "esp_proposals", word, "esn", strings.Repeat("4", i%2))
		add(1, "esp_proposals", word, "noesn", strings.Repeat("4", (i+1)%2))
	}
	for i, word := range ah {
		add(1, "ah_proposals", word, []string{"esn", "noesn"}[i%2], strings.Repeat("4", i%2))
	}
	config := func(side int) string {
		text := "interfaces:\n  lan: {role: protected}\n  wan: {role: outside}\nconnections:\n"
		for c, x := range []struct{ name, a, b, encap string }{{"four", rig.GwA4, rig.GwB4, "true"}, {"six", rig.GwA6, rig.GwB6, "false"}} {
			ends := [2]string{x.a, x.b}
			text += fmt.Sprintf("  %s:\n    local_addrs: \"%s\"\n    remote_addrs: \"%s\"\n    encap: %s\n    proposals: aes256gcm16-prfsha256-x25519\n    children:\n%s",
				x.name, ends[side], ends[1-side], x.encap, children[c][side].String())
		}
		return text + fmt.Sprintf("secrets: {ike-both: {secret: \"%x%x\"}}\n", g.net.Mark, g.net.Mark)
	}
	g.a = g.gateway(g.net.GwA, "gw-a", 2, 2*len(list), config(0))
	g.b = g.gateway(g.net.GwB, "gw-b", 2, 0, config(1))
	g.must(g.b.Launch())
	g.must(g.b.Ready(15 * time.Second))
	g.must(g.a.Launch())
	g.must(g.a.Ready(30 * time.Second))

	// The kernels' neighbours first, so that each suite's counts are its own.
	g.eventually("the hosts' neighbours are known", func() bool {
		_, a := g.run(g.net.GwA, "ping", "-n", "-c", "1", "-W", "1", rig.HostA4)
		_, b := g.run(g.net.GwB, "ping", "-n", "-c", "1", "-W", "1", rig.HostB4)
		_, c := g.run(g.net.GwA, "ping", "-n", "-c", "1", "-W", "1", rig.HostA6)
		_, d := g.run(g.net.GwB, "ping", "-n", "-c", "1", "-W", "1", rig.HostB6)
		return a && b && c && d
	})
	var readable uint64
	for _, s := range list {
		g.exchange(s)
		if s.readable {
			readable += 2 * (perSuite - 1) // the smallest has no mark
		}
	}
	for side, x := range []*rig.Gateway{g.a, g.b} {
		g.carried(x, list, side)
	}
	g.balanced()
	f, err := g.capture.Settled(50*time.Millisecond, 3*time.Second)
	g.must(err)
	if f.Needles != readable || f.Missed > 0 {
		t.Errorf("%d datagrams were readable between the gateways, want %d: %+v", f.Needles, readable, f)
	}
}

// exchange sends the datagrams of a suite one by one; each must come back before the next is sent.
func (g *ground) exchange(s suite) {
	g.t.Helper()
	near, err := rig.ListenPacket(g.net.HostA, s.network, net.JoinHostPort(s.near, fmt.Sprint(s.port)))
	g.must(err)
	defer near.Close()
	far, err := rig.ListenPacket(g.net.HostB, s.network, net.JoinHostPort(s.far, fmt.Sprint(s.port)))
	g.must(err)
	defer far.Close()
	to := &net.UDPAddr{IP: net.ParseIP(s.far), Port: s.port}
	read := func(from net.PacketConn) ([]byte, net.Addr, bool) {
		b := make([]byte, 1500)
		from.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, addr, err := from.ReadFrom(b)
		return b[:n], addr, err == nil
	}
	for _, payload := range [perSuite][]byte{{7}, g.net.Mark, append(bytes.Clone(g.net.Mark), bytes.Repeat([]byte{s.proposal[3]}, 1200)...)} {
		_, err := near.WriteTo(payload, to)
		g.must(err)
		got, from, ok := read(far)
		if !ok || !bytes.Equal(got, payload) {
			g.t.Errorf("%s/%s: %d bytes arrived of %d", s.connection, s.proposal, len(got), len(payload))
			return
		}
		_, err = far.WriteTo(payload, from)
		g.must(err)
		if got, _, ok = read(near); !ok || !bytes.Equal(got, payload) {
			g.t.Errorf("%s/%s: %d bytes came back of %d", s.connection, s.proposal, len(got), len(payload))
			return
		}
	}
}

// carried fails unless a gateway shows each suite's child with its proposal and the datagrams that went by it.
func (g *ground) carried(x *rig.Gateway, list []suite, side int) {
	g.t.Helper()
	text, err := x.Ask("sas", "--json")
	g.must(err)
	var sas struct {
		IKESAs []struct {
			Name     string
			Children []struct {
				Name, Proposal string
				In, Out        struct{ Packets uint64 }
			}
		} `json:"ike_sas"`
	}
	g.must(json.Unmarshal(text, &sas))
	type way struct {
		proposal string
		in, out  uint64
	}
	got := map[string]way{}
	for _, i := range sas.IKESAs {
		for _, c := range i.Children {
			got[i.Name+"/"+c.Name] = way{c.Proposal, c.In.Packets, c.Out.Packets}
		}
	}
	for _, s := range list {
		name := fmt.Sprintf("%s/c%d", s.connection, s.port)
		if want := (way{s.proposal, perSuite, perSuite}); got[name] != want {
			g.t.Errorf("%s shows %s as %+v, want %+v", x.Name, name, got[name], want)
		}
	}
	if len(got) != len(list) {
		g.t.Errorf("%s has %d children, want %d", x.Name, len(got), len(list))
	}
}
