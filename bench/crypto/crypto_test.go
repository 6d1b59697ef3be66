package crypto

import (
	"context"
	"testing"
	"time"

	"sallyport/bench/result"
)

func TestEverythingThatIsNamedCanBeMeasured(t *testing.T) {
	var cases []*Case
	for _, name := range Names() {
		for _, bits := range []int{128, 192, 256} {
			for _, size := range []int{0, 64, SizeMax} {
				cases = append(cases, &Case{Name: name, Bits: bits, Size: size})
			}
		}
	}
	told := 0
	if err := Run(context.Background(), cases, result.Rounds{Runs: 2}, time.Microsecond, func(string) { told++ }); err != nil {
		t.Fatal(err)
	}
	if told != 2*len(cases) {
		t.Errorf("told of %d samples, took %d", told, 2*len(cases))
	}
	for _, c := range cases {
		for _, figures := range [][]float64{c.Seal, c.Open, c.SealCycles, c.OpenCycles} {
			if len(figures) != 2 || figures[0] <= 0 {
				t.Errorf("%s, %d bits, %d bytes: %v", c.Name, c.Bits, c.Size, figures)
			}
		}
	}
}

func TestWhatCannotBeMeasuredIsAnError(t *testing.T) {
	for _, c := range []Case{{Name: "none", Bits: 128}, {Name: Standard, Bits: 100}, {Name: Names()[0], Bits: 100}, {Name: Standard, Bits: 128, Size: -1}, {Name: Standard, Bits: 128, Size: SizeMax + 1}} {
		if err := c.Prepare(); err == nil {
			t.Errorf("%+v was prepared", c)
		}
	}
}

func TestFrequencyIsThatOfAProcessor(t *testing.T) {
	if f := frequency(); f < 2e8 || f > 2e10 {
		t.Errorf("%.0f Hz", f)
	}
}
