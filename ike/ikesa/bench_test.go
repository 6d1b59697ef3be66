package ikesa

import "testing"

// benchmarkSetup is both ends of a handshake, on one core, without network or data plane.
func benchmarkSetup(b *testing.B, ike string) {
	w := newWorld(b, 1)
	for _, h := range w.hosts {
		h.conn.Proposals = proposalsIKE(b, ike)
	}
	b.ReportAllocs()
	for b.Loop() {
		w.hosts["a"].initiate(InitiatorOptions{})
		w.quietly()
		for _, h := range w.hosts {
			if h.last == nil || h.last.state != StateEstablished {
				b.Fatal("not established")
			}
			h.drive(h.last, func(out *Outputs) { h.last.Command(w.now, Abandon{}, out) })
		}
		w.log.Reset()
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "handshakes/s")
}

// quietly delivers everything without describing it, which would decrypt it all once more.
func (w *world) quietly() {
	for p := w.take(""); p != nil; p = w.take("") {
		w.deliver(p)
	}
}

func BenchmarkHandshake(b *testing.B) {
	b.Run("x25519", func(b *testing.B) { benchmarkSetup(b, "aes128gcm16-prfsha256-x25519") })
	b.Run("x25519-mlkem768", func(b *testing.B) { benchmarkSetup(b, "aes256gcm16-prfsha384-x25519-ke1_mlkem768") })
}

// BenchmarkChildRekey is both ends of a rekey and its delete, without a key exchange.
func BenchmarkChildRekey(b *testing.B) {
	w := connected(b, 1)
	a := w.hosts["a"]
	b.ReportAllocs()
	for b.Loop() {
		a.command(RekeyChild{a.childByName("net")})
		w.quietly()
		w.log.Reset()
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rekeys/s")
}
