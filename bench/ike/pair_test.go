package ike

import (
	"testing"
)

var quick = scenario{ike: "aes256gcm16-prfsha256-x25519", esp: "aes256gcm16-esn-noesn"}

// Each measurement runs once in the ordinary tests, so that it cannot rot.
func TestMeasurementsRun(t *testing.T) {
	udp, err := newUDPWire()
	if err != nil {
		t.Fatal(err)
	}
	for name, w := range map[string]wire{"memory": newMemoryWire(), "udp": udp} {
		t.Run(name, func(t *testing.T) {
			p := newPair(w)
			defer p.close()
			s, err := establish(t.Context(), p, quick, 100)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%.0f handshakes/s, %.0f a CPU second", s.perSecond(), s.perCPUSecond())
			if s, err = rekey(t.Context(), p, 100, 2); err != nil {
				t.Fatal(err)
			}
			t.Logf("%.0f rekeys/s, %.0f a CPU second", s.perSecond(), s.perCPUSecond())
		})
	}
	p := newPair(newMemoryWire())
	defer p.close()
	bytes, err := memory(t.Context(), p, quick, 100)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.0f bytes an IKE SA", bytes)
}

func BenchmarkHandshake(b *testing.B) {
	for _, v := range []struct{ name, ike string }{
		{"x25519", "aes256gcm16-prfsha256-x25519"}, {"hybrid", "aes256gcm16-prfsha256-x25519-ke1_mlkem768"},
	} {
		b.Run(v.name, func(b *testing.B) {
			b.ReportAllocs()
			p := newPair(newMemoryWire())
			defer p.close()
			s := quick
			s.ike = v.ike
			r, err := establish(b.Context(), p, s, b.N)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(r.perCPUSecond(), "hs/cpu-s")
		})
	}
}

func BenchmarkChildRekey(b *testing.B) {
	for _, v := range []struct{ name, esp string }{{"plain", "aes256gcm16"}, {"x25519", "aes256gcm16-x25519"}} {
		b.Run(v.name, func(b *testing.B) {
			b.ReportAllocs()
			p := newPair(newMemoryWire())
			defer p.close()
			s := quick
			s.esp = v.esp
			if _, err := establish(b.Context(), p, s, 200); err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			r, err := rekey(b.Context(), p, 200, (b.N+199)/200)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(r.perCPUSecond(), "rekeys/cpu-s")
		})
	}
}
