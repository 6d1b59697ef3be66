package wiretest

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// TestJumboInterfaceIsRefused starts a gateway whose interfaces have larger packets than a frame holds: it says so, with the MTU that
// would do, and serves neither. With that MTU it starts.
func TestJumboInterfaceIsRefused(t *testing.T) {
	testbed.Need(t, testbed.Root...)
	bed := testbed.ForTest(t, "jumbo")
	ns, err := bed.Namespace("gw")
	testbed.Must(t, err)
	other, err := bed.Namespace("other")
	testbed.Must(t, err)
	for _, name := range []string{"lan", "wan"} {
		testbed.Must(t, bed.Veth(ns, name, other, name, 2))
	}
	mtu := func(name string, bytes int) {
		t.Helper()
		for _, n := range []*testbed.Namespace{other, ns} {
			l, err := n.Netlink().LinkByName(name)
			testbed.Must(t, err)
			testbed.Must(t, n.Netlink().LinkSetMTU(l, bytes))
		}
	}
	g, err := rig.NewGateway(bed, ns, programs, "gw", 0, func(g *rig.Gateway) string {
		return fmt.Sprintf("instance: jumbo\ncontrol: {socket: %s}\nworkers: {count: 1}\ndataplane: {pin_dir: %s}\ninterfaces:\n  lan: {role: protected}\n  wan: {role: outside}\n", g.Socket, g.Pins)
	})
	testbed.Must(t, err)
	for _, name := range []string{"lan", "wan"} {
		mtu(name, 9000)
		if err := g.Run(); err == nil {
			t.Fatalf("it starts with an MTU of 9000 on %s", name)
		}
		log, err := os.ReadFile(g.Log)
		testbed.Must(t, err)
		line := "interface " + name + " has an MTU of 9000: a packet must fit one 4096-byte frame"
		var limit int
		if at := strings.Index(string(log), "the MTU can be "); !strings.Contains(string(log), line) || at < 0 {
			t.Fatalf("the log does not say why: %s", log)
		} else if _, err := fmt.Sscanf(string(log[at:]), "the MTU can be %d", &limit); err != nil {
			t.Fatal(err)
		}
		for _, port := range []string{"lan", "wan"} {
			l, err := ns.Netlink().LinkByName(port)
			testbed.Must(t, err)
			if x := l.Attrs().Xdp; x != nil && x.Attached {
				t.Errorf("a program runs on %s although the start was refused", port)
			}
		}
		mtu(name, min(limit, 3400)) // veth with a program has less room than the gateway
	}
	testbed.Must(t, g.Launch())
	testbed.Must(t, g.Ready(15*time.Second))
}
