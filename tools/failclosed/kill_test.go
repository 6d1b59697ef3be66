package failclosed

import (
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/tools/rig"
)

// TestKilledAtRandomMoments kills a gateway again and again under load, sometimes while it is still
// starting. Nothing may cross in the clear, and each restart must work at once.
func TestKilledAtRandomMoments(t *testing.T) {
	g := lay(t, rig.Tunnels())
	moments := 5
	if os.Getenv("SALLYPORT_LONG") == "1" {
		moments = 100
	}
	r := dice(t)
	must(t, g.pair.Start())
	g.send()
	t.Logf("first traffic after %v", g.flows("at the start"))

	var took []time.Duration
	early := 0
	for k := range moments {
		x, other := g.pair.A, g.pair.B
		if r.IntN(2) == 1 {
			x, other = other, x
		}
		time.Sleep(time.Duration(r.Int64N(int64(300 * time.Millisecond))))
		x.Kill()
		time.Sleep(time.Duration(r.Int64N(int64(60 * time.Millisecond))))
		if k%3 == 2 { // once more, somewhere in the middle of its start
			must(t, x.Launch())
			time.Sleep(time.Duration(r.Int64N(int64(400 * time.Millisecond))))
			x.Kill()
			early++
		}
		g.tight("killed")

		must(t, g.pair.Rekey())
		start := time.Now()
		must(t, x.Launch())
		must(t, other.Signal(unix.SIGHUP))
		g.flows("after a restart")
		took = append(took, time.Since(start))
		must(t, x.Alive())
		must(t, other.Alive())
	}
	g.tight("at the end")
	slices.Sort(took)
	f := g.figures()
	t.Logf("%d kills, %d more during a start; traffic flowed again after %v (median), %v at worst; the hosts sent %d datagrams; %d ESP packets crossed, nothing else",
		moments, early, took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), g.sent(), f.ESP())
}
