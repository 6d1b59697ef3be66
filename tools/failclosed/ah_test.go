package failclosed

import (
	"encoding/json"
	"net"
	"strings"
	"testing"

	"sallyport/tools/rig"
)

// converse has the hosts talk over both families.
func (g *ground) converse() {
	g.t.Helper()
	for _, x := range []struct{ network, hostB string }{{"tcp4", rig.HostB4}, {"tcp6", rig.HostB6}} {
		g.echo(g.net.HostB, x.network, net.JoinHostPort(x.hostB, "2200"))
		g.talk(g.net.HostA, x.network, "", net.JoinHostPort(x.hostB, "2200"), string(g.net.Mark))
	}
}

// TestHostsTalkByAH has hosts talk through tunnels of AH. AH hides nothing, so the capture sees the inner packets: all of them in AH, which no
// other test lets pass.
func TestHostsTalkByAH(t *testing.T) {
	g := lay(t, rig.Signed())
	g.open = true // on purpose: readable
	must(t, g.pair.Start())
	g.converse()
	if f := g.figures().Sub(g.opened); f.ESP() != 0 {
		t.Errorf("%d packets of ESP crossed: %v", f.ESP(), f.Kinds)
	}
	for _, gw := range g.pair.Both() {
		text, err := gw.Ask("sas", "--json")
		must(t, err)
		var sas struct {
			SAs []struct {
				Name, Protocol, Mode, Direction string
				Packets                         uint64
			} `json:"sas"`
		}
		must(t, json.Unmarshal(text, &sas))
		if len(sas.SAs) != 4 {
			t.Errorf("sas: %s", text)
		}
		for _, sa := range sas.SAs {
			if sa.Protocol != "AH" || sa.Mode != "tunnel" || sa.Packets == 0 {
				t.Errorf("%+v", sa)
			}
		}
	}
}

// TestHostsTalkByAHAroundESP has them talk through tunnels where every packet has both: nothing readable crosses, and nothing without AH.
func TestHostsTalkByAHAroundESP(t *testing.T) {
	g := lay(t, rig.Bundled())
	must(t, g.pair.Start())
	g.converse()
	if f := g.figures().Sub(g.opened); f.ESP() != 0 {
		t.Errorf("%d packets of ESP crossed without AH: %v", f.ESP(), f.Kinds)
	}
	for _, gw := range g.pair.Both() {
		text, err := gw.Ask("sas", "--json")
		must(t, err)
		var sas struct {
			SAs []struct {
				Name, Protocol, Mode, Bundled, SPI string
				Packets, Sequence                  uint64
			} `json:"sas"`
		}
		must(t, json.Unmarshal(text, &sas))
		packets := map[string]uint64{}
		for _, sa := range sas.SAs {
			if sa.Packets == 0 || sa.Bundled == "" || (sa.Mode == "transport") != (sa.Protocol == "AH") {
				t.Errorf("%+v", sa)
			}
			packets[sa.SPI] = sa.Packets
		}
		for _, sa := range sas.SAs {
			if packets[sa.Bundled] != sa.Packets {
				t.Errorf("%+v, and %d by the other half", sa, packets[sa.Bundled])
			}
		}
		if len(sas.SAs) != 8 {
			t.Errorf("sas: %s", text)
		}
		shown, err := gw.Ask("sas")
		must(t, err)
		for _, want := range []string{", in AH 0x", ", AH around ESP 0x"} {
			if !strings.Contains(string(shown), want) {
				t.Errorf("no %q in %s", want, shown)
			}
		}
	}
}
