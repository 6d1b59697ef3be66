package failclosed

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// TestGatewaysTalkInTransportMode has the gateways' kernels talk to each other, by TCP and with datagrams close to the MTU: the transit network sees ESP
// alone, between the same addresses. With a gateway killed, or before it has keys, nothing of it crosses, from either side.
func TestGatewaysTalkInTransportMode(t *testing.T) {
	g := lay(t, rig.Hosts())
	for _, x := range []struct{ network, addr string }{{"tcp4", rig.GwB4}, {"tcp6", rig.GwB6}} {
		g.echo(g.net.GwB, x.network, net.JoinHostPort(x.addr, "2200"))
	}
	must(t, g.pair.Start())
	both := func() {
		t.Helper()
		g.talk(g.net.GwA, "tcp4", "", net.JoinHostPort(rig.GwB4, "2200"), string(g.net.Mark))
		g.talk(g.net.GwA, "tcp6", "", net.JoinHostPort(rig.GwB6, "2200"), strings.Repeat(string(g.net.Mark), 60))
	}
	both()
	g.tight("in transport mode")
	if f := g.figures().Sub(g.opened); f.Kinds[testbed.ESP.String()] < 12 {
		t.Errorf("%d ESP packets crossed: %v", f.Kinds[testbed.ESP.String()], f.Kinds)
	}

	// What the tool shows.
	text, err := g.pair.A.Ask("sas", "--json")
	must(t, err)
	var sas struct {
		IKESAs []struct {
			Children []struct {
				Mode    string   `json:"mode"`
				LocalTS []string `json:"local_ts"`
			} `json:"children"`
		} `json:"ike_sas"`
		SAs []struct {
			Name, Mode, Direction string
			Packets               uint64
		} `json:"sas"`
	}
	must(t, json.Unmarshal(text, &sas))
	if len(sas.SAs) != 4 || len(sas.IKESAs) != 1 || len(sas.IKESAs[0].Children) != 1 || sas.IKESAs[0].Children[0].Mode != "transport" {
		t.Errorf("sas: %s", text)
	}
	for _, sa := range sas.SAs {
		if sa.Mode != "transport" || sa.Packets == 0 {
			t.Errorf("%+v", sa)
		}
	}

	// The other gateway, without its daemon, neither hears cleartext nor says any: its program and its routes stay.
	g.pair.B.Kill()
	cleartext := func() {
		t.Helper()
		for _, x := range []struct{ network, addr string }{{"udp4", rig.GwA4}, {"udp6", rig.GwA6}} {
			g.in(g.net.GwB, func() error {
				c, err := net.Dial(x.network, net.JoinHostPort(x.addr, "2300"))
				if err != nil {
					if errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EACCES) {
						return nil // the fence answers
					}
					return err
				}
				defer c.Close()
				c.Write(g.net.Mark)
				return nil
			})
		}
	}
	cleartext()
	time.Sleep(50 * time.Millisecond)
	g.tight("with a killed daemon")

	// It comes back, and so does the traffic. Manual keys never live through a restart.
	must(t, g.pair.Rekey())
	_, err = g.pair.A.Ask("reload")
	must(t, err)
	must(t, g.pair.B.Launch())
	for until := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) { // its peer has not noticed, so it is the one to begin
		if _, err = g.pair.B.Ask("up", "four"); err == nil {
			break
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
	}
	must(t, g.pair.B.Ready(15*time.Second))
	both()
	g.tight("after the restart")
}

// TestHostsOfAnyAddressTalkInTransportMode: a gateway that does not know its peers' addresses before they come leads into the association what
// its kernel answers, and what it begins itself.
func TestHostsOfAnyAddressTalkInTransportMode(t *testing.T) {
	g := lay(t, rig.Hosts()[:1])
	text, err := os.ReadFile(g.pair.B.Config)
	must(t, err)
	known := "    remote_addrs: " + rig.GwA4 + "\n"
	if !strings.Contains(string(text), known) {
		t.Fatalf("no %q in %s", known, text)
	}
	unknown := strings.Replace(string(text), known, "    remote_addrs: \"%any\"\n    remote: {id: "+rig.GwA4+"}\n", 1)
	must(t, os.WriteFile(g.pair.B.Config, []byte(strings.Replace(unknown, "start_action: trap", "start_action: none", 1)), 0o600))
	must(t, g.pair.Start())
	g.echo(g.net.GwA, "tcp4", net.JoinHostPort(rig.GwA4, "2200"))
	g.echo(g.net.GwB, "tcp4", net.JoinHostPort(rig.GwB4, "2200"))
	g.talk(g.net.GwA, "tcp4", "", net.JoinHostPort(rig.GwB4, "2200"), string(g.net.Mark))
	g.talk(g.net.GwB, "tcp4", "", net.JoinHostPort(rig.GwA4, "2200"), string(g.net.Mark))
	g.tight("in transport mode with a peer of any address")
}
