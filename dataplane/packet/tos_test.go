package packet

import "testing"

// The table as RFC 6040, figure 4 prints it: rows are the inner, columns the outer field, both in
// the order Not-ECT, ECT(0), ECT(1), CE. "(!)" and "(!!!)" are the combinations that
// the document marks as currently unused.
func TestDecapsulationIsTheTableOfRFC6040(t *testing.T) {
	order := []uint8{ECNNotECT, ECNECT0, ECNECT1, ECNCE}
	figure := [4][4]struct {
		ecn     uint8
		verdict ECNVerdict
	}{
		{{ECNNotECT, ECNForward}, {ECNNotECT, ECNAlarm}, {ECNNotECT, ECNAlarm}, {ECNNotECT, ECNDrop}},
		{{ECNECT0, ECNForward}, {ECNECT0, ECNForward}, {ECNECT1, ECNForward}, {ECNCE, ECNForward}},
		{{ECNECT1, ECNForward}, {ECNECT1, ECNAlarm}, {ECNECT1, ECNForward}, {ECNCE, ECNForward}},
		{{ECNCE, ECNForward}, {ECNCE, ECNForward}, {ECNCE, ECNAlarm}, {ECNCE, ECNForward}},
	}
	for row, inner := range order {
		for column, outer := range order {
			for dscp := range uint8(64) {
				tos, verdict := DecapsulateTOS(dscp<<2|inner, (63-dscp)<<2|outer)
				want := figure[row][column]
				if tos != dscp<<2|want.ecn || verdict != want.verdict {
					t.Errorf("inner %02b, outer %02b, DSCP %d: %#x, %d", inner, outer, dscp, tos, verdict)
				}
			}
		}
	}
}

func TestEncapsulationCopiesWhatItIsTold(t *testing.T) {
	for tos := range 256 {
		inner := uint8(tos)
		for _, c := range []struct {
			copyDSCP, ecn bool
			want          uint8
		}{{true, true, inner}, {true, false, inner &^ 3}, {false, true, inner & 3}, {false, false, 0}} {
			if got := EncapsulateTOS(inner, c.copyDSCP, c.ecn); got != c.want {
				t.Errorf("%#x, %v, %v: %#x, want %#x", inner, c.copyDSCP, c.ecn, got, c.want)
			}
		}
	}
}
