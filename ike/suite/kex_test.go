package suite

import (
	"bytes"
	"crypto/ecdh"
	"crypto/mlkem"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"testing"

	"sallyport/ike/message"
)

// refused fails the test unless err is the refusal of a bad public value.
func refused(t *testing.T, err error) {
	t.Helper()
	var m *message.Error
	if !errors.As(err, &m) || m.Reason != ReasonKEValue || m.Notify != message.InvalidSyntax {
		t.Errorf("error %v, want %s with INVALID_SYNTAX", err, ReasonKEValue)
	}
}

func TestBothSidesAgreeWithEveryMethod(t *testing.T) {
	for _, g := range groups {
		t.Run(g.word, func(t *testing.T) {
			for range 3 {
				k, err := Initiate(g.id, rand.Reader)
				if err != nil {
					t.Fatal(err)
				}
				if k.Method() != g.id || len(k.Public()) != g.first || PublicLen(g.id) != g.first {
					t.Fatalf("method %d with a value of %d bytes", k.Method(), len(k.Public()))
				}
				public, shared, err := Respond(g.id, rand.Reader, k.Public())
				if err != nil || len(public) != g.answer {
					t.Fatal(err, len(public))
				}
				mine, err := k.Finish(public)
				if err != nil || !bytes.Equal(mine, shared) {
					t.Fatalf("secrets differ: %v", err)
				}
			}
		})
	}
}

func TestSecretsKeepTheirLengthAndAreFresh(t *testing.T) {
	lengths := map[uint16]int{14: 256, 15: 384, 16: 512, 19: 32, 20: 48, 21: 66, 31: 32, 36: 32, 37: 32}
	for _, g := range groups {
		var seen [][]byte
		for range 3 {
			k, _ := Initiate(g.id, rand.Reader)
			_, shared, err := Respond(g.id, rand.Reader, k.Public())
			if err != nil || len(shared) != lengths[g.id] {
				t.Errorf("%s: secret of %d bytes, %v", g.word, len(shared), err)
			}
			for _, old := range seen {
				if bytes.Equal(old, shared) || bytes.Equal(old, k.Public()) {
					t.Errorf("%s: a value came twice", g.word)
				}
			}
			seen = append(seen, shared, k.Public())
		}
	}
}

func TestInitiatorDependsOnItsSourceAlone(t *testing.T) {
	for _, g := range groups {
		one, _ := Initiate(g.id, source(1))
		two, _ := Initiate(g.id, source(1))
		three, _ := Initiate(g.id, source(2))
		if !bytes.Equal(one.Public(), two.Public()) || bytes.Equal(one.Public(), three.Public()) {
			t.Errorf("%s: not a function of the random source", g.word)
		}
	}
}

func TestFailingSourceIsAnError(t *testing.T) {
	for _, g := range groups {
		if _, err := Initiate(g.id, io.LimitReader(rand.Reader, 7)); err == nil {
			t.Errorf("%s: began with 7 random bytes", g.word)
		}
		if _, err := Initiate(g.id, zeros{}); err == nil && g.id >= message.KEECP256 && g.id <= message.KEECP521 {
			t.Errorf("%s: took a scalar of zero", g.word)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestFinishForgetsAndTryKeeps(t *testing.T) {
	k, _ := Initiate(message.KECurve25519, rand.Reader)
	forged := make([]byte, 32)
	if _, err := k.Try(forged); err == nil {
		t.Fatal("all-zero value accepted")
	}
	public, shared, _ := Respond(message.KECurve25519, rand.Reader, k.Public())
	for range 2 {
		if mine, err := k.Try(public); err != nil || !bytes.Equal(mine, shared) {
			t.Fatal("a forged answer ended the exchange", err)
		}
	}
	if mine, err := k.Finish(public); err != nil || !bytes.Equal(mine, shared) {
		t.Fatal(err)
	}
	if _, err := k.Finish(public); err == nil {
		t.Error("finished twice")
	}
}

func TestUnknownMethods(t *testing.T) {
	for _, method := range []uint16{0, 1, 2, 5, 17, 22, 23, 24, 32, 35, 38, 1024, 65535} {
		var m *message.Error
		if _, err := Initiate(method, rand.Reader); !errors.As(err, &m) || m.Reason != ReasonKEMethod {
			t.Errorf("method %d: %v", method, err)
		}
		if _, _, err := Respond(method, rand.Reader, make([]byte, 32)); !errors.As(err, &m) {
			t.Errorf("method %d: %v", method, err)
		}
		if PublicLen(method) != 0 {
			t.Errorf("method %d has a length", method)
		}
	}
}

func TestValuesOfWrongLengthAreRefused(t *testing.T) {
	for _, g := range groups {
		for _, n := range []int{0, 1, g.first - 1, g.first + 1, 2 * g.first, 4096} {
			_, _, err := Respond(g.id, rand.Reader, make([]byte, n))
			refused(t, err)
		}
		k, _ := Initiate(g.id, rand.Reader)
		for _, n := range []int{0, 1, g.answer - 1, g.answer + 1, 2 * g.answer, 4096} {
			_, err := k.Try(make([]byte, n))
			refused(t, err)
		}
	}
}

// X25519

func TestX25519KnownAnswers(t *testing.T) {
	// RFC 7748, 5.2 and 6.1.
	for _, v := range []struct{ scalar, u, want string }{
		{"a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4", "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c", "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"},
		{"4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d", "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493", "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957"},
	} {
		got, err := (*x25519Private)(unhex(t, v.scalar)).finish(unhex(t, v.u))
		if err != nil || !bytes.Equal(got, unhex(t, v.want)) {
			t.Errorf("%x, %v; want %s", got, err, v.want)
		}
	}
	// A thousand times with its own result (RFC 7748, 5.2).
	k := unhex(t, "0900000000000000000000000000000000000000000000000000000000000000")
	u := slices.Clone(k)
	for range 1000 {
		next, err := (*x25519Private)(k).finish(u)
		if err != nil {
			t.Fatal(err)
		}
		k, u = next, k
	}
	if want := "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"; fmt.Sprintf("%x", k) != want {
		t.Errorf("after 1,000 rounds %x, want %s", k, want)
	}
}

func TestX25519AgreesWithTheStandardLibrary(t *testing.T) {
	r := source(9)
	for range 200 {
		var p x25519Private
		public, err := p.generate(r)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := ecdh.X25519().NewPrivateKey(p[:])
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(public, theirs.PublicKey().Bytes()) {
			t.Fatalf("public value of %x", p)
		}
		u := make([]byte, 32)
		r.Read(u)
		point, _ := ecdh.X25519().NewPublicKey(u)
		want, err := theirs.ECDH(point)
		got, mine := p.finish(u)
		if (err == nil) != (mine == nil) || !bytes.Equal(got, want) {
			t.Fatalf("secret with %x: %x, want %x", u, got, want)
		}
	}
	// Scalars at the edges of clamping.
	for _, fill := range []byte{0, 1, 7, 8, 0x7f, 0x80, 0xff} {
		p := x25519Private(bytes.Repeat([]byte{fill}, 32))
		public, _ := p.generate(bytes.NewReader(p[:]))
		theirs, _ := ecdh.X25519().NewPrivateKey(p[:])
		if !bytes.Equal(public, theirs.PublicKey().Bytes()) {
			t.Errorf("public value of %x", p)
		}
	}
}

func TestX25519Wycheproof(t *testing.T) {
	var file xdhVectors
	readVectors(t, "x25519_test.json", &file)
	ran := 0
	for _, g := range file.TestGroups {
		for _, v := range g.Tests {
			ran++
			got, err := (*x25519Private)(unhex(t, v.Private)).finish(unhex(t, v.Public))
			if slices.Contains(v.Flags, "ZeroSharedSecret") {
				refused(t, err) // RFC 8031, 4
				continue
			}
			if err != nil || !bytes.Equal(got, unhex(t, v.Shared)) {
				t.Errorf("%d %s: %x, %v", v.TcID, v.Comment, got, err)
			}
		}
	}
	if ran < 400 {
		t.Errorf("only %d vectors", ran)
	}
}

// NIST curves

func TestECPKnownAnswer(t *testing.T) {
	// RFC 5903, 8.1.
	i := "c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433"
	gi := "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c37725811805271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3"
	r := "c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53"
	gr := "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf6356fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab"
	want := unhex(t, "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de")
	k, err := Initiate(message.KEECP256, bytes.NewReader(unhex(t, i)))
	if err != nil || !bytes.Equal(k.Public(), unhex(t, gi)) {
		t.Fatalf("%v, value %x", err, k.Public())
	}
	public, shared, err := Respond(message.KEECP256, bytes.NewReader(unhex(t, r)), k.Public())
	if err != nil || !bytes.Equal(public, unhex(t, gr)) || !bytes.Equal(shared, want) {
		t.Fatalf("%v, value %x, secret %x", err, public, shared)
	}
	if got, err := k.Finish(unhex(t, gr)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v, secret %x", err, got)
	}
}

func TestECPWycheproof(t *testing.T) {
	for _, c := range []struct {
		file  string
		group uint16
		curve nistCurve
	}{
		{"ecdh_secp256r1_ecpoint_test.json", message.KEECP256, p256},
		{"ecdh_secp384r1_ecpoint_test.json", message.KEECP384, p384},
		{"ecdh_secp521r1_ecpoint_test.json", message.KEECP521, p521},
	} {
		var file xdhVectors
		readVectors(t, c.file, &file)
		ran := 0
		for _, g := range file.TestGroups {
			for _, v := range g.Tests {
				public, private := unhex(t, v.Public), unhex(t, v.Private)
				if len(public) != 1+2*c.curve.coord || public[0] != 4 {
					continue // IKEv2 has no other form
				}
				// The vectors' scalars have leading zeros, or lack them.
				scalar := new(big.Int).SetBytes(private).FillBytes(make([]byte, c.curve.coord))
				k, err := Initiate(c.group, bytes.NewReader(scalar))
				if err != nil {
					continue // a scalar that we never draw
				}
				ran++
				got, err := k.Finish(public[1:])
				if v.Result == "invalid" {
					refused(t, err)
				} else if err != nil || !bytes.Equal(got, unhex(t, v.Shared)) {
					t.Errorf("%s %d %s: %x, %v", c.file, v.TcID, v.Comment, got, err)
				}
			}
		}
		if ran < 150 {
			t.Errorf("%s: only %d vectors", c.file, ran)
		}
	}
}

func TestPointsOffTheCurveAreRefused(t *testing.T) {
	for _, id := range []uint16{message.KEECP256, message.KEECP384, message.KEECP521} {
		k, _ := Initiate(id, rand.Reader)
		n := len(k.Public()) / 2
		bad := [][]byte{
			make([]byte, 2*n), // the point at infinity, as some write it
			bytes.Repeat([]byte{0xff}, 2*n),
			append(slices.Clone(k.Public()[n:]), k.Public()[:n]...), // coordinates exchanged
		}
		for bit := range 8 { // on the twist or nowhere
			b := slices.Clone(k.Public())
			b[2*n-1] ^= 1 << bit
			bad = append(bad, b)
		}
		for _, value := range bad {
			_, _, err := Respond(id, rand.Reader, value)
			refused(t, err)
			_, err = k.Try(value)
			refused(t, err)
		}
	}
}

// MODP

func TestMODPPrimesAreThoseOfPi(t *testing.T) {
	for _, g := range readPython(t).MODP {
		m := map[uint16]*modp{14: modp2048, 15: modp3072, 16: modp4096}[g.Group]
		prime, _ := new(big.Int).SetString(g.Prime, 16)
		if !bytes.Equal(m.modulus().Nat().Bytes(m.modulus()), prime.Bytes()) {
			t.Errorf("group %d is not RFC 3526's formula", g.Group)
		}
	}
}

func TestMODPKnownAnswers(t *testing.T) {
	for _, g := range readPython(t).MODP {
		k, err := Initiate(g.Group, bytes.NewReader(unhex(t, g.X)))
		if err != nil || !bytes.Equal(k.Public(), unhex(t, g.GX)) {
			t.Fatalf("group %d: %v", g.Group, err)
		}
		public, shared, err := Respond(g.Group, bytes.NewReader(unhex(t, g.Y)), k.Public())
		if err != nil || !bytes.Equal(public, unhex(t, g.GY)) || !bytes.Equal(shared, unhex(t, g.Shared)) {
			t.Fatalf("group %d: %v", g.Group, err)
		}
		if mine, err := k.Finish(public); err != nil || !bytes.Equal(mine, shared) {
			t.Errorf("group %d: %v", g.Group, err)
		}
	}
}

// RFC 6989, 2.1: 0, 1, p-1, p and above.
func TestMODPValuesOutOfRangeAreRefused(t *testing.T) {
	one := big.NewInt(1)
	for _, g := range readPython(t).MODP {
		p, _ := new(big.Int).SetString(g.Prime, 16)
		size := len(p.Bytes())
		top := new(big.Int).Sub(new(big.Int).Lsh(one, uint(8*size)), one)
		k, _ := Initiate(g.Group, rand.Reader)
		for _, v := range []*big.Int{new(big.Int), one, new(big.Int).Sub(p, one), p, new(big.Int).Add(p, one), top} {
			b := v.FillBytes(make([]byte, size))
			_, _, err := Respond(g.Group, rand.Reader, b)
			refused(t, err)
			_, err = k.Try(b)
			refused(t, err)
		}
		for _, v := range []*big.Int{big.NewInt(2), new(big.Int).Sub(p, big.NewInt(2))} {
			if _, _, err := Respond(g.Group, rand.Reader, v.FillBytes(make([]byte, size))); err != nil {
				t.Errorf("group %d: %v", g.Group, err)
			}
		}
	}
}

// A secret whose first byte is zero keeps it (RFC 7296, 2.14).
func TestMODPSecretsKeepLeadingZeros(t *testing.T) {
	m := modpPrivate{modp: modp2048, word: "modp2048", exponent: []byte{1}}
	two := make([]byte, 256)
	two[255] = 2
	got, err := m.finish(two)
	if err != nil || !bytes.Equal(got, two) {
		t.Errorf("2^1 = %x, %v", got, err)
	}
}

// ML-KEM

func TestMLKEMWycheproof(t *testing.T) {
	for _, c := range []struct {
		file  string
		group *group
	}{{"mlkem_768_test.json", groupOf(message.KEMLKEM768)}, {"mlkem_1024_test.json", groupOf(message.KEMLKEM1024)}} {
		var file xdhVectors
		readVectors(t, c.file, &file)
		ran := 0
		for _, g := range file.TestGroups {
			for _, v := range g.Tests {
				if len(v.Seed) != 2*mlkem.SeedSize {
					continue // we draw seeds of the right length
				}
				k, err := Initiate(c.group.id, bytes.NewReader(unhex(t, v.Seed)))
				if err != nil {
					t.Fatal(err)
				}
				if v.Ek != "" && !bytes.Equal(k.Public(), unhex(t, v.Ek)) {
					t.Errorf("%d: another encapsulation key", v.TcID)
				}
				ran++
				got, err := k.Finish(unhex(t, v.C))
				if v.Result == "invalid" {
					refused(t, err)
				} else if err != nil || !bytes.Equal(got, unhex(t, v.K)) {
					t.Errorf("%d: %x, %v", v.TcID, got, err)
				}
			}
		}
		if ran < 10 {
			t.Errorf("%s: only %d vectors", c.file, ran)
		}
	}
}

// FIPS 203, 7.2: coefficients that are not reduced.
func TestMLKEMEncapsulationKeysAreChecked(t *testing.T) {
	for _, c := range []struct {
		file  string
		group uint16
	}{{"mlkem_768_encaps_test.json", message.KEMLKEM768}, {"mlkem_1024_encaps_test.json", message.KEMLKEM1024}} {
		var file xdhVectors
		readVectors(t, c.file, &file)
		for _, g := range file.TestGroups {
			for _, v := range g.Tests {
				_, _, err := Respond(c.group, rand.Reader, unhex(t, v.Ek))
				if v.Result == "invalid" {
					refused(t, err)
				} else if err != nil {
					t.Errorf("%d: %v", v.TcID, err)
				}
			}
		}
	}
}

// A ciphertext that was changed on the way gives a secret that differs, not an error (FIPS 203, 6.3).
func TestMLKEMRejectsImplicitly(t *testing.T) {
	k, _ := Initiate(message.KEMLKEM768, rand.Reader)
	public, shared, _ := Respond(message.KEMLKEM768, rand.Reader, k.Public())
	public[100] ^= 1
	got, err := k.Finish(public)
	if err != nil || len(got) != len(shared) || bytes.Equal(got, shared) {
		t.Errorf("%x, %v", got, err)
	}
}

func FuzzRespond(f *testing.F) {
	for _, g := range groups {
		k, _ := Initiate(g.id, source(3))
		f.Add(g.id, k.Public())
		f.Add(g.id, make([]byte, g.first))
	}
	f.Fuzz(func(t *testing.T, method uint16, peer []byte) {
		public, shared, err := Respond(method, source(4), peer)
		if err != nil {
			var m *message.Error
			if !errors.As(err, &m) || public != nil || shared != nil {
				t.Fatalf("%v with %d and %d bytes", err, len(public), len(shared))
			}
			return
		}
		g := groupOf(method)
		if len(peer) != g.first || len(public) != g.answer || bytes.Count(shared, []byte{0}) == len(shared) {
			t.Fatalf("%s accepted %x", g.word, peer)
		}
	})
}

func BenchmarkInitiate(b *testing.B) {
	for _, g := range groups {
		b.Run(g.word, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Initiate(g.id, rand.Reader); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRespond(b *testing.B) {
	for _, g := range groups {
		b.Run(g.word, func(b *testing.B) {
			k, _ := Initiate(g.id, rand.Reader)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Respond(g.id, rand.Reader, k.Public()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkFinish(b *testing.B) {
	for _, g := range groups {
		b.Run(g.word, func(b *testing.B) {
			k, _ := Initiate(g.id, rand.Reader)
			public, _, _ := Respond(g.id, rand.Reader, k.Public())
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.Try(public); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
