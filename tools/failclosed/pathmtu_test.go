package failclosed

import (
	"encoding/json"
	"net"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// TestBlackHoleOfThePathIsFound has the transit network drop what is larger than 1400 bytes on its way to B without a word, as a bridge
// does: A finds out by probing, and what its hosts send by TCP arrives.
func TestBlackHoleOfThePathIsFound(t *testing.T) {
	tunnels := rig.Negotiated()
	g := lay(t, tunnels)
	g.pair.PathTime = "30s"
	must(t, g.pair.Write())
	_, b := g.net.Sides()
	must(t, g.net.Transit.Do(func() error {
		link, err := netlink.LinkByName(b.Port)
		if err != nil {
			return err
		}
		return netlink.LinkSetMTU(link, 1400)
	}))
	must(t, g.pair.Start())
	var text []byte
	testbed.Eventually(t, "the path MTU of both tunnels is known to be less than the link's", func() bool {
		var err error
		text, err = g.pair.A.Ask("sas", "--json")
		must(t, err)
		var sas struct {
			SAs []struct {
				Direction string `json:"direction"`
				PathMTU   int    `json:"path_mtu"`
				Probed    bool   `json:"path_mtu_probed"`
			} `json:"sas"`
		}
		must(t, json.Unmarshal(text, &sas))
		found := 0
		for _, sa := range sas.SAs {
			if sa.Direction == "out" && sa.Probed && sa.PathMTU >= 1280 && sa.PathMTU <= 1400 {
				found++
			}
		}
		return found == len(tunnels)
	})
	for _, x := range []struct{ network, addr string }{{"tcp4", rig.HostB4}, {"tcp6", rig.HostB6}} {
		g.echo(g.net.HostB, x.network, net.JoinHostPort(x.addr, "2200"))
		g.talk(g.net.HostA, x.network, "", net.JoinHostPort(x.addr, "2200"), strings.Repeat(string(g.net.Mark), 500))
	}
	g.tight("through a black hole")
	if t.Failed() {
		t.Logf("%s", text)
	}
}
