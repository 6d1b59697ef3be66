package ike

import (
	"os"
	"testing"
	"time"

	"sallyport/tools/rig"
	"sallyport/tools/testbed"
)

// programs is the folder of sallyportd and sallyport, built once for the tests that need them.
var programs string

func TestMain(m *testing.M) { os.Exit(rig.WithPrograms(&programs, m.Run)) }

// TestDaemonsSetUpTunnelsBesideTraffic: those of a reload come up, while the established one carries on.
func TestDaemonsSetUpTunnelsBesideTraffic(t *testing.T) {
	testbed.Need(t, testbed.Root...)
	const n = 50
	m, err := massive(t.Context(), programs, n)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d tunnels %.2f s after the reload; of %d datagrams %d lost", n, m.all, m.sent, m.lost)
	if m.sent == 0 || m.lost > m.sent/20 { // the machine may be busy with other tests
		t.Errorf("of %d datagrams %d got lost", m.sent, m.lost)
	}
}

// TestDaemonServesHonestClientsUnderAFlood: each of them gets its tunnel.
func TestDaemonServesHonestClientsUnderAFlood(t *testing.T) {
	testbed.Need(t, testbed.Root...)
	f, err := spoofing(t.Context(), programs, "", 5000, 12, 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.0f spoofed/s, median %v, 99 %% within %v", f.offered, f.percentile(0.5), f.percentile(0.99))
	if f.failed > 0 {
		t.Errorf("%d of %d handshakes failed", f.failed, f.tried)
	}
}

// TestKeyExchangeLivesThroughAnOverload: with a tunnel offered twice what it carries, the peer's liveness is checked, and
// rekeys and a new handshake succeed.
func TestKeyExchangeLivesThroughAnOverload(t *testing.T) {
	testbed.Need(t, testbed.Root...)
	o, err := overloaded(t.Context(), programs, 5*time.Second, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.0f packets/s offered, %.0f delivered; %d checks, %d operations", o.offered, o.delivered, o.liveness, o.tried)
	for _, err := range o.troubles {
		t.Error(err)
	}
	if o.liveness == 0 || o.tried < 3 {
		t.Errorf("%d checks of the peer, %d operations", o.liveness, o.tried)
	}
}
