package peers

import (
	"testing"

	"sallyport/bench/crypto"
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

func TestCiphersStandBesideEachOther(t *testing.T) {
	c := ciphers{cases: []cipherCase{{
		ours:     crypto.Case{Size: 64, Seal: []float64{30}, Open: []float64{31}},
		standard: crypto.Case{Size: 64, Seal: []float64{120}, Open: []float64{124}},
		direct:   direct{seal: []float64{60}},
	}}}
	rows := c.rows(&Options{})
	if len(rows) != 3 || rows[0].Name != "aesgcm128/libipsec-mb/64" || rows[0].Ratio != 0.5 || rows[1].Name != "aesgcm128/go/64" || rows[1].Ratio != 0.25 ||
		rows[2].Name != "aesgcm128/go/64/open" || rows[2].Ratio != 0.25 {
		t.Errorf("%+v", rows)
	}
}

// TestAPeerThatDoesNotStartLeavesOurs: what could be measured is there, without a peer, and the reason is told once.
func TestAPeerThatDoesNotStartLeavesOurs(t *testing.T) {
	o := Options{Sizes: []int{64}, Directions: []string{"encrypt"}, Seconds: 1, Progress: func(string) {}}
	g := gateways{program: "/nowhere", modes: secgw.Modes[:2], cases: []gatewayCase{{direction: "encrypt", size: 64, theirs: make([][]float64, 2)}}}
	for range 2 {
		if err := g.sample(t.Context(), &o, &g.cases[0], "1 of 1"); err != nil {
			t.Fatal(err)
		}
	}
	rows := g.rows(&o)
	if g.broken == nil || len(rows) != 1 || len(rows[0].Samples) != 2 || rows[0].Peer != "" || rows[0].Value <= 0 {
		t.Errorf("%v, %+v", g.broken, rows)
	}
}
