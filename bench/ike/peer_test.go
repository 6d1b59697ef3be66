package ike

import (
	"os"
	"strings"
	"testing"

	"sallyport/tools/testbed"
)

func TestPeerRuns(t *testing.T) {
	charon := os.Getenv(PeerVariable)
	if charon == "" {
		t.Skipf("%s names no charon", PeerVariable)
	}
	testbed.Need(t, testbed.NetAdmin, testbed.SysAdmin, "swanctl", "unshare")
	for name, m := range map[string]method{"psk": psk, "ecdsa": ecdsaP256} {
		t.Run(name, func(t *testing.T) {
			s := quick
			s.method, s.esp = m, "aes256gcm16"
			p, err := newPeer(t.Context(), charon, s)
			if err != nil {
				t.Fatal(err)
			}
			defer p.close()
			r, err := p.establish(t.Context(), 200)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%.0f handshakes/s, %.0f a CPU second", r.perSecond(), r.perCPUSecond())
			if r, err = p.rekey(t.Context(), 200, 2); err != nil {
				t.Fatal(err)
			}
			t.Logf("%.0f rekeys/s, %.0f a CPU second", r.perSecond(), r.perCPUSecond())
		})
	}
}

// TestAPeerThatDoesNotStartLeavesOurs: the rest is measured, and the reason is told once.
func TestAPeerThatDoesNotStartLeavesOurs(t *testing.T) {
	var missed []string
	rows, err := Run(t.Context(), Options{
		Peer: "/nowhere", Which: []string{"handshake"}, Runs: 2, Handshakes: 4, Tunnels: 1, Flood: 1, Overload: 1,
		Miss: func(name, reason string) { missed = append(missed, name+": "+reason) },
	})
	if err != nil || len(missed) != 1 || !strings.HasPrefix(missed[0], "ike/strongSwan: ") {
		t.Errorf("%v, %q", err, missed)
	}
	for _, r := range rows {
		if len(r.Samples) != 2 || r.Peer == strongSwan {
			t.Errorf("%+v", r)
		}
	}
	if len(rows) == 0 {
		t.Error("nothing was measured")
	}
}
