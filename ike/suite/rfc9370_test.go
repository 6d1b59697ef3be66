package suite

import (
	"bytes"
	"crypto/hmac"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"sallyport/ike/message"
)

// The oracle is the text of RFC 7296, 2.13 to 2.18 and RFC 9370, 2.2.2 and 2.2.4, with the standard library's HMAC and slices that
// are put together anew for each line.

func oraclePRF(p *prfInfo, key, data []byte) []byte {
	h := hmac.New(p.hash, key)
	h.Write(data)
	return h.Sum(nil)
}

// oraclePlus is prf+ (K,S) = T1 | T2 | T3 | T4 | …, T1 = prf (K, S | 0x01), T2 = prf (K, T1 | S | 0x02), …
func oraclePlus(p *prfInfo, key, seed []byte, n int) (all []byte) {
	var t []byte
	for i := byte(1); len(all) < n; i++ {
		t = oraclePRF(p, key, slices.Concat(t, seed, []byte{i}))
		all = append(all, t...)
	}
	return all[:n]
}

// oracleKeys is {SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr} = prf+ (SKEYSEED, Ni | Nr | SPIi | SPIr).
func oracleKeys(p *prfInfo, integ, encr int, skeyseed, ni, nr []byte, spiI, spiR message.SPI) map[string][]byte {
	spis := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(spiI)), uint64(spiR))
	all := oraclePlus(p, skeyseed, slices.Concat(ni, nr, spis), 3*p.size+2*integ+2*encr)
	keys := map[string][]byte{}
	for _, k := range []struct {
		name string
		size int
	}{{"d", p.size}, {"ai", integ}, {"ar", integ}, {"ei", encr}, {"er", encr}, {"pi", p.size}, {"pr", p.size}} {
		keys[k.name], all = all[:k.size], all[k.size:]
	}
	return keys
}

// TestKeyScheduleIsThatOfRFC9370 goes through an IKE_SA_INIT, up to seven additional key exchanges, a child, and a rekey with as
// many, with values drawn anew for each and secrets of every length.
func TestKeyScheduleIsThatOfRFC9370(t *testing.T) {
	rng := rand.New(rand.NewPCG(9370, 1))
	draw := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	same := func(what string, k *Keys, want map[string][]byte) {
		t.Helper()
		for name, got := range k.parts() {
			if !bytes.Equal(got, want[name]) {
				t.Fatalf("%s: SK_%s is not what the RFC says", what, name)
			}
		}
	}
	for _, c := range []struct {
		word        string
		integ, encr int
	}{
		{"aes256gcm16-prfsha384-x25519", 0, 36}, {"chacha20poly1305-prfsha256-x25519", 0, 36},
		{"aes128-sha256-prfsha512-x25519", 32, 16}, {"aes256-sha512-prfsha512-x25519", 64, 32},
	} {
		proposal, err := ParseIKE(c.word)
		if err != nil {
			t.Fatal(err)
		}
		choice, _, err := Select(Offer([]Proposal{proposal}, nil), []Proposal{proposal}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		p := prfOf(choice.PRF)
		for additional := range 8 {
			ni, nr, spiI, spiR, first := draw(16+rng.IntN(241)), draw(16+rng.IntN(241)), message.SPI(rng.Uint64()), message.SPI(rng.Uint64()), draw(1+rng.IntN(600))
			k, err := DeriveIKE(choice, first, ni, nr, spiI, spiR)
			if err != nil {
				t.Fatal(err)
			}
			// SKEYSEED = prf (Ni | Nr, g^ir)
			want := oracleKeys(p, c.integ, c.encr, oraclePRF(p, slices.Concat(ni, nr), first), ni, nr, spiI, spiR)
			same("IKE_SA_INIT", k, want)
			for range additional {
				secret := draw(1 + rng.IntN(600))
				if k, err = k.Intermediate(secret, ni, nr, spiI, spiR); err != nil {
					t.Fatal(err)
				}
				// SKEYSEED(n) = prf (SK_d(n-1), SK(n) | Ni | Nr)
				want = oracleKeys(p, c.integ, c.encr, oraclePRF(p, want["d"], slices.Concat(secret, ni, nr)), ni, nr, spiI, spiR)
				same("IKE_INTERMEDIATE", k, want)
			}
			// CREATE_CHILD_SA: KEYMAT = prf+ (SK_d, SK(0) | Ni | Nr | SK(1) | … SK(n)), and the same seed for SKEYSEED.
			ni, nr, spiI, spiR = draw(32), draw(32), message.SPI(rng.Uint64()), message.SPI(rng.Uint64())
			secrets := [][]byte{draw(1 + rng.IntN(600))}
			seed := slices.Concat(secrets[0], ni, nr)
			for range additional {
				secrets = append(secrets, draw(1+rng.IntN(600)))
				seed = append(seed, secrets[len(secrets)-1]...)
			}
			esp := Choice{Encr: message.EncrAESGCM16, KeyLen: 128}
			in, out, err := k.ChildKeymat(esp, secrets, ni, nr, true)
			if err != nil || !bytes.Equal(slices.Concat(out, in), oraclePlus(p, want["d"], seed, 2*20)) {
				t.Fatalf("the child's keys: %v", err)
			}
			next, err := k.Rekey(choice, secrets, ni, nr, spiI, spiR)
			if err != nil {
				t.Fatal(err)
			}
			same("rekeyed", next, oracleKeys(p, c.integ, c.encr, oraclePRF(p, want["d"], seed), ni, nr, spiI, spiR))
		}
	}
}
