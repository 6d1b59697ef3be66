package ike

import (
	"os"
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
