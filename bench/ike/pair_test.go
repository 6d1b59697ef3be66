package ike

import (
	"testing"

	"sallyport/ike"
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
			p := newPair(w, unlimited)
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
	p := newPair(newMemoryWire(), unlimited)
	defer p.close()
	took, bytes, err := fill(t.Context(), p, quick, 100)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("100 tunnels in %v, %.0f bytes an IKE SA", took, bytes)
}

// However many spoofed requests arrive, honest clients get through.
func TestHonestClientsGetThroughAFlood(t *testing.T) {
	w, err := newUDPWire()
	if err != nil {
		t.Fatal(err)
	}
	p := newPair(w, ike.Limits{})
	defer p.close()
	f, err := underFlood(t.Context(), p, quick, 5000, 20, 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.0f spoofed/s, %.0f %%, median %v, 99 %% within %v", f.offered, 100*f.success(), f.percentile(0.5), f.percentile(0.99))
	if f.failed > 0 {
		t.Errorf("%d of %d failed", f.failed, f.tried)
	}
}

func TestBound(t *testing.T) {
	for _, h := range handshakes {
		b, err := bound(h.scenario)
		if err != nil || b < 10 {
			t.Errorf("%s: %.0f, %v", h.name, b, err)
		}
		t.Logf("%s: %.0f handshakes a CPU second", h.name, b)
	}
}

func BenchmarkHandshake(b *testing.B) {
	for _, v := range []struct{ name, ike string }{
		{"x25519", "aes256gcm16-prfsha256-x25519"}, {"hybrid", "aes256gcm16-prfsha256-x25519-ke1_mlkem768"},
	} {
		b.Run(v.name, func(b *testing.B) {
			b.ReportAllocs()
			p := newPair(newMemoryWire(), unlimited)
			defer p.close()
			s := quick
			s.ike = v.ike
			r, err := establish(b.Context(), p, s, b.N)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(r.perCPUSecond(), "hs/cpu-s")
			b.Log(r.wall, p.troubles())
		})
	}
}

func BenchmarkChildRekey(b *testing.B) {
	for _, v := range []struct{ name, esp string }{{"plain", "aes256gcm16"}, {"x25519", "aes256gcm16-x25519"}} {
		b.Run(v.name, func(b *testing.B) {
			b.ReportAllocs()
			p := newPair(newMemoryWire(), unlimited)
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
