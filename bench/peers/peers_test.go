package peers

import (
	"testing"

	"sallyport/bench/secgw"
)

func TestOptionsAreChecked(t *testing.T) {
	good := Options{Sizes: []int{64}, Directions: []string{"encrypt"}, Modes: secgw.ModeNames(), Runs: 1, Seconds: 1}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(*Options){
		func(o *Options) { o.Sizes = []int{20} }, func(o *Options) { o.Directions = []string{"up"} }, func(o *Options) { o.Modes = []string{"fast"} },
		func(o *Options) { o.Modes = nil }, func(o *Options) { o.Runs = 0 }, func(o *Options) { o.Seconds = 0 },
	} {
		o := good
		change(&o)
		if o.check() == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}

// TestTheBestModeIsThePeer keeps a slow mode from flattering us.
func TestTheBestModeIsThePeer(t *testing.T) {
	g := gateways{modes: secgw.Modes[:3], cases: []gatewayCase{{direction: "encrypt", size: 64, ours: []float64{4, 6, 5}, theirs: [][]float64{{9, 1, 1}, {2, 3, 2.5}, {2, 2, 2}}}}}
	row := g.rows(&Options{})[0]
	if row.Name != "gateway/encrypt/64" || row.Peer != secgw.Name+" "+secgw.Modes[1].Name || row.Ratio != 2 {
		t.Errorf("%+v", row)
	}
}

// TestCiphersAreTimed runs each once, so that they cannot rot.
func TestCiphersAreTimed(t *testing.T) {
	for _, open := range []bool{false, true} {
		for name, f := range map[string]func(int, bool) float64{"ours": timeOurs, "go": timeGo} {
			if ns := f(64, open); ns <= 0 {
				t.Errorf("%s, open=%v: %v ns", name, open, ns)
			}
		}
	}
	c := ciphers{samples: map[int]*[2][cipherCount][]float64{64: {{{30}, {120}, {60}}, {{31}, {124}, {62}}}}}
	rows := c.rows(&Options{Sizes: []int{64}})
	if len(rows) != 4 || rows[0].Name != "aesgcm128/libipsec-mb/64" || rows[0].Ratio != 0.5 || rows[1].Name != "aesgcm128/go/64" || rows[1].Ratio != 0.25 {
		t.Errorf("%+v", rows)
	}
}
