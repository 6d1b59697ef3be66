package suite

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/c2sp/wycheproof"

	"sallyport/ike/message"
)

func spi(t testing.TB, s string) message.SPI {
	return message.SPI(binary.BigEndian.Uint64(unhex(t, s)))
}

// parts cuts keys as RFC 7296, 2.14 orders them.
func (k *Keys) parts() map[string][]byte {
	return map[string][]byte{
		"d": k.d(), "ai": k.fromInitiator.integ, "ar": k.fromResponder.integ,
		"ei": k.fromInitiator.encr, "er": k.fromResponder.encr, "pi": k.SKp(true), "pr": k.SKp(false),
	}
}

func wantKeys(t *testing.T, what string, k *Keys, want map[string]string) {
	t.Helper()
	for name, got := range k.parts() {
		if !bytes.Equal(got, unhex(t, want[name])) {
			t.Errorf("%s: SK_%s is %x, want %s", what, name, got, want[name])
		}
	}
}

func TestKeyScheduleAgreesWithPython(t *testing.T) {
	for _, v := range readPython(t).Schedules {
		c, esp := v.Choice.choice(), v.ESP.choice()
		esp.PRF, esp.KE = 0, 0
		t.Run(c.String(), func(t *testing.T) {
			ni, nr, spiI, spiR := unhex(t, v.NI), unhex(t, v.NR), spi(t, v.SPII), spi(t, v.SPIR)
			k, err := DeriveIKE(c, unhex(t, v.Shared), ni, nr, spiI, spiR)
			if err != nil {
				t.Fatal(err)
			}
			wantKeys(t, "first", k, v.Keys)

			next, err := k.Intermediate(unhex(t, v.Extra), ni, nr, spiI, spiR)
			if err != nil {
				t.Fatal(err)
			}
			wantKeys(t, "after IKE_INTERMEDIATE", next, v.Intermediate)
			wantKeys(t, "kept", k, v.Keys)
			link := k.IntAuth(true, nil, []byte("first"))
			if link = next.IntAuth(true, link, []byte("second")); !bytes.Equal(link, unhex(t, v.IntAuth)) {
				t.Errorf("IntAuth %x", link)
			}

			other := c
			other.PRF = v.NewPRF
			newNI, newNR := unhex(t, v.NewNI), unhex(t, v.NewNR)
			shared := [][]byte{unhex(t, v.S0), unhex(t, v.S1)}
			rekeyed, err := k.Rekey(other, shared, newNI, newNR, spi(t, v.NewSPII), spi(t, v.NewSPIR))
			if err != nil {
				t.Fatal(err)
			}
			wantKeys(t, "rekeyed", rekeyed, v.Rekeyed)

			for _, child := range []struct {
				shared [][]byte
				want   string
			}{{nil, v.Child}, {shared, v.ChildPFS}} {
				in, out, err := k.ChildKeymat(esp, child.shared, newNI, newNR, true)
				if err != nil || fmt.Sprintf("%x%x", out, in) != child.want {
					t.Errorf("child of the initiator: %v", err)
				}
				in, out, err = k.ChildKeymat(esp, child.shared, newNI, newNR, false)
				if err != nil || fmt.Sprintf("%x%x", in, out) != child.want {
					t.Errorf("child of the responder: %v", err)
				}
			}

			// A message that Python sealed.
			packet, want := unhex(t, v.Message), unhex(t, v.Chain)
			_, receive := k.Protector(false)
			got, err := receive.Open(slices.Clone(packet), message.HeaderLen+4)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("opened %x, %v; want %x", got, err, want)
			}
			m, err := message.Parse(packet)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Open(receive); err != nil || len(m.Payloads) != 1 {
				t.Errorf("%d payloads, %v", len(m.Payloads), err)
			}
		})
	}
}

func TestPRFWycheproof(t *testing.T) {
	for file, id := range map[string]uint16{
		"hmac_sha256_test.json": message.PRFHMACSHA2256, "hmac_sha384_test.json": message.PRFHMACSHA2384, "hmac_sha512_test.json": message.PRFHMACSHA2512,
	} {
		if _, err := fs.Stat(wycheproof.TestVectors, file); err != nil {
			t.Fatal(err)
		}
		var vectors struct {
			TestGroups []struct {
				TagSize int
				Tests   []struct {
					TcID                  int
					Key, Msg, Tag, Result string
				}
			}
		}
		readVectors(t, file, &vectors)
		for _, g := range vectors.TestGroups {
			for _, v := range g.Tests {
				msg := unhex(t, v.Msg)
				got := PRF(id, unhex(t, v.Key), msg[:len(msg)/2], msg[len(msg)/2:])[:g.TagSize/8]
				if bytes.Equal(got, unhex(t, v.Tag)) != (v.Result == "valid") {
					t.Errorf("%s %d", file, v.TcID)
				}
			}
		}
	}
}

// RFC 4868, 2.7.2.1: PRF test vectors with keys shorter and longer than a block.
func TestPRFTakesKeysOfAnyLength(t *testing.T) {
	got := PRF(message.PRFHMACSHA2256, bytes.Repeat([]byte{0x0b}, 20), []byte("Hi There"))
	if want := "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"; fmt.Sprintf("%x", got) != want {
		t.Errorf("%x", got)
	}
	got = PRF(message.PRFHMACSHA2512, bytes.Repeat([]byte{0xaa}, 131), []byte("Test Using Larger Than Block-Size Key - Hash Key First"))
	if want := "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f3526b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598"; fmt.Sprintf("%x", got) != want {
		t.Errorf("%x", got)
	}
	for id, size := range map[uint16]int{5: 32, 6: 48, 7: 64, 0: 0, 2: 0, 4: 0} {
		if PRFSize(id) != size {
			t.Errorf("PRF %d has %d bytes", id, PRFSize(id))
		}
	}
}

// eachChoice runs a test with every way to protect IKE messages.
func eachChoice(t *testing.T, test func(t *testing.T, k *Keys)) {
	for _, c := range ciphers {
		if c.espOnly != "" {
			continue
		}
		for _, p := range prfs {
			choice := Choice{Encr: c.encr.ID, KeyLen: c.encr.KeyLen, PRF: p.id, KE: message.KECurve25519}
			if c.aead() {
				t.Run(choice.String(), func(t *testing.T) { test(t, newKeys(t, choice)) })
				continue
			}
			for _, i := range integs {
				choice.Integ = i.id
				t.Run(choice.String(), func(t *testing.T) { test(t, newKeys(t, choice)) })
			}
		}
	}
}

func newKeys(t testing.TB, c Choice) *Keys {
	t.Helper()
	k, err := DeriveIKE(c, bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32), bytes.Repeat([]byte{3}, 32), 4, 5)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sealed returns a packet with n bytes of payloads after a head of arbitrary bytes.
func sealed(t testing.TB, p message.Protector, head, n int) (packet, payloads []byte) {
	t.Helper()
	packet = make([]byte, head+p.BodyLen(n))
	rand.Read(packet[:head])
	payloads = make([]byte, n)
	rand.Read(payloads)
	copy(packet[head+p.IVLen():], payloads)
	if err := p.Seal(packet, head, n); err != nil {
		t.Fatal(err)
	}
	return packet, payloads
}

func TestWhatOneSideSealsTheOtherOpens(t *testing.T) {
	eachChoice(t, func(t *testing.T, k *Keys) {
		peer := newKeys(t, k.choice)
		for _, initiator := range []bool{true, false} {
			send, mine := k.Protector(initiator)
			theirs, receive := peer.Protector(!initiator)
			for _, n := range []int{0, 1, 14, 15, 16, 17, 31, 32, 33, 255, 1500, 60000} {
				packet, payloads := sealed(t, send, 32, n)
				got, err := receive.Open(slices.Clone(packet), 32)
				if err != nil || !bytes.Equal(got, payloads) {
					t.Fatalf("%d bytes: %v", n, err)
				}
				if n > 16 && bytes.Contains(packet, payloads[:16]) {
					t.Errorf("%d bytes: payloads stand in the packet", n)
				}
				for _, wrong := range []message.Protector{send, mine, theirs} {
					if wrong == send { // one direction's protection opens what it seals itself
						continue
					}
					if _, err := wrong.Open(slices.Clone(packet), 32); !errors.Is(err, message.ErrIntegrity) {
						t.Errorf("%d bytes: opened with the other direction's keys: %v", n, err)
					}
				}
			}
		}
	})
}

func TestEveryChangedBitIsNoticedAndLeavesThePacketAlone(t *testing.T) {
	eachChoice(t, func(t *testing.T, k *Keys) {
		send, _ := k.Protector(true)
		_, receive := k.Protector(false)
		packet, _ := sealed(t, send, 36, 21)
		for i := range packet {
			changed := slices.Clone(packet)
			changed[i] ^= 1 << (i % 8)
			before := slices.Clone(changed)
			if _, err := receive.Open(changed, 36); !errors.Is(err, message.ErrIntegrity) {
				t.Fatalf("byte %d of %d: %v", i, len(packet), err)
			}
			if !bytes.Equal(changed, before) {
				t.Fatalf("byte %d of %d: the packet was changed", i, len(packet))
			}
		}
		for n := range packet {
			if _, err := receive.Open(slices.Clone(packet[:n]), min(36, n)); !errors.Is(err, message.ErrIntegrity) {
				t.Fatalf("prefix of %d bytes: %v", n, err)
			}
		}
		if _, err := receive.Open(packet, 36); err != nil {
			t.Error(err)
		}
	})
}

func TestIVsDoNotRepeatAndThoseOfCBCAreNotACount(t *testing.T) {
	eachChoice(t, func(t *testing.T, k *Keys) {
		seen := make(map[string]bool)
		send, _ := k.Protector(true)
		for range 300 {
			again, _ := k.Protector(true) // does not start over
			for _, p := range []message.Protector{send, again} {
				packet, _ := sealed(t, p, 28, 10)
				iv := string(packet[28 : 28+p.IVLen()])
				if seen[iv] {
					t.Fatal("an IV came twice")
				}
				if p.IVLen() == 16 && strings.HasPrefix(iv, "\x00\x00\x00\x00\x00\x00") {
					t.Fatalf("IV %x can be foreseen", iv)
				}
				seen[iv] = true
			}
		}
	})
}

func TestLengthsOfProtectedBodies(t *testing.T) {
	for _, v := range []struct {
		word          string
		iv, empty, at int // at: BodyLen(100)
	}{
		{"aes256gcm16-prfsha256-x25519", 8, 8 + 1 + 16, 8 + 101 + 16},
		{"chacha20poly1305-prfsha256-x25519", 8, 8 + 1 + 16, 8 + 101 + 16},
		{"aes128-sha256-x25519", 16, 16 + 16 + 16, 16 + 112 + 16},
		{"aes256-sha384-x25519", 16, 16 + 16 + 24, 16 + 112 + 24},
		{"aes256-sha512-x25519", 16, 16 + 16 + 32, 16 + 112 + 32},
	} {
		p, _ := newKeys(t, choiceOf(t, v.word)).Protector(true)
		if p.IVLen() != v.iv || p.BodyLen(0) != v.empty || p.BodyLen(100) != v.at {
			t.Errorf("%s: %d, %d, %d", v.word, p.IVLen(), p.BodyLen(0), p.BodyLen(100))
		}
		for n := range 200 {
			if p.BodyLen(n+1) < p.BodyLen(n) {
				t.Errorf("%s: shorter with %d bytes than with %d", v.word, n+1, n)
			}
		}
	}
}

// choiceOf is the choice that a proposal with one algorithm of each kind leaves.
func choiceOf(t testing.TB, s string) Choice {
	t.Helper()
	p, err := ParseIKE(s)
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := Select(Offer([]Proposal{p}, nil), []Proposal{p}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPaddingLongerThanItsPayloadIsAnErrorOfThePeer(t *testing.T) {
	eachChoice(t, func(t *testing.T, k *Keys) {
		p := &k.fromInitiator
		packet := make([]byte, 28+p.BodyLen(0))
		plain := packet[28+p.cipher.iv : len(packet)-p.icvLen()]
		plain[len(plain)-1] = byte(len(plain))
		resealed(t, p, packet, 28)
		var m *message.Error
		if _, err := p.Open(packet, 28); !errors.As(err, &m) || m.Notify != message.InvalidSyntax {
			t.Errorf("%v", err)
		}
	})
}

// resealed seals a body whose padding stands there already.
func resealed(t *testing.T, p *protector, packet []byte, body int) {
	t.Helper()
	plain := slices.Clone(packet[body+p.cipher.iv : len(packet)-p.icvLen()])
	if err := p.Seal(packet, body, 0); err != nil {
		t.Fatal(err)
	}
	if p.auth == nil {
		aead, _ := p.aead()
		var nonce [12]byte
		p.nonce(&nonce, packet[body:body+p.cipher.iv])
		aead.Seal(packet[body+p.cipher.iv:][:0], nonce[:], plain, packet[:body])
		return
	}
	icv := len(packet) - p.icvLen()
	// With CBC, the last byte of a block follows the previous one's bits: the IV, here.
	packet[body+15] ^= plain[15] ^ byte(p.BodyLen(0)-p.cipher.iv-p.icvLen()-1)
	p.checksum(packet[icv:icv], packet[:icv])
}

func TestWipedKeysProtectNothing(t *testing.T) {
	eachChoice(t, func(t *testing.T, k *Keys) {
		send, receive := k.Protector(true)
		packet, _ := sealed(t, send, 28, 10)
		material := k.material
		k.Zero()
		if bytes.Count(material, []byte{0}) != len(material) {
			t.Error("key material is still there")
		}
		if err := send.Seal(packet, 28, 10); err == nil {
			t.Error("sealed")
		}
		if _, err := receive.Open(packet, 28); err == nil {
			t.Error("opened")
		}
		if _, err := k.Intermediate(nil, nil, nil, 0, 0); err == nil {
			t.Error("keys follow from nothing")
		}
		if _, _, err := k.ChildKeymat(Choice{Encr: message.EncrAESGCM16, KeyLen: 128}, nil, nil, nil, true); err == nil {
			t.Error("a child's keys follow from nothing")
		}
		if _, err := k.Rekey(k.choice, [][]byte{{1}}, nil, nil, 0, 0); err == nil {
			t.Error("a successor's keys follow from nothing")
		}
		if k.SKp(true) != nil || k.SKp(false) != nil {
			t.Error("SK_p")
		}
		k.Zero()
	})
}

func TestSealRefusesWrongLengths(t *testing.T) {
	eachChoice(t, func(t *testing.T, k *Keys) {
		send, _ := k.Protector(true)
		for _, v := range []struct{ size, body, n int }{{0, 0, 0}, {100, 28, 100}, {28 + send.BodyLen(5), 28, 40}, {28, 28, 0}, {100, -1, 5}, {100, 28, -5}} {
			if err := send.Seal(make([]byte, v.size), v.body, v.n); err == nil {
				t.Errorf("sealed %+v", v)
			}
		}
	})
}

func TestChoicesThatAreNoneAreErrors(t *testing.T) {
	good := choiceOf(t, "aes256gcm16-prfsha384-x25519")
	for i, change := range []func(*Choice){
		func(c *Choice) { c.Encr = 3 },
		func(c *Choice) { c.KeyLen = 0 },
		func(c *Choice) { c.KeyLen = 512 },
		func(c *Choice) { c.PRF = 0 },
		func(c *Choice) { c.PRF = 2 },
		func(c *Choice) { c.Integ = message.AuthHMACSHA2256128 },
		func(c *Choice) { c.Encr = message.EncrAESCBC },
		func(c *Choice) { c.Encr = message.EncrAESGCM12 },
		func(c *Choice) { c.Encr = message.EncrAESGCM16IIV },
		func(c *Choice) { c.Encr = message.EncrNullAuthAESGMAC },
		func(c *Choice) { c.Encr, c.KeyLen, c.Integ = message.EncrNULL, 0, message.AuthHMACSHA2256128 },
	} {
		c := good
		change(&c)
		if _, err := DeriveIKE(c, nil, nil, nil, 1, 2); err == nil {
			t.Errorf("%d: keys for %+v", i, c)
		}
	}
	k := newKeys(t, good)
	if _, err := k.Rekey(good, nil, nil, nil, 1, 2); err == nil {
		t.Error("rekeyed without a key exchange")
	}
	for _, c := range []Choice{
		{}, {Encr: message.EncrAESCBC, KeyLen: 128}, {Encr: message.EncrAESCBC, KeyLen: 128, Integ: message.AuthAESXCBC96},
		{Encr: message.EncrAESGCM16, KeyLen: 128, Integ: message.AuthHMACSHA2256128}, {Encr: message.EncrNULL},
	} {
		if _, _, err := k.ChildKeymat(c, nil, nil, nil, true); err == nil {
			t.Errorf("keys of a child for %+v", c)
		}
	}
}

func TestChildKeymatHasTheDataPlanesLengths(t *testing.T) {
	k := newKeys(t, choiceOf(t, "aes256gcm16-prfsha384-x25519"))
	for word, n := range map[string]int{
		"aes128gcm16": 20, "aes192gcm16": 28, "aes256gcm16": 36, "chacha20poly1305": 36, "aes128-sha256": 48, "aes192-sha256": 56, "aes256-sha256": 64,
		"aes128-sha384": 64, "aes256-sha512": 96, "aes128gcm8": 20, "aes256gcm12": 36, "aes256gcm16iiv": 36, "chacha20poly1305iiv": 36, "aes192gmac": 28, "null-sha384": 48,
	} {
		p, err := ParseESP(word)
		if err != nil {
			t.Fatal(err)
		}
		c, _, err := Select(Offer([]Proposal{p}, []byte{1, 2, 3, 4}), []Proposal{p}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		in, out, err := k.ChildKeymat(c, nil, []byte{1}, []byte{2}, true)
		if err != nil || len(in) != n || len(out) != n || bytes.Equal(in, out) {
			t.Errorf("%s: %d and %d bytes, %v", word, len(in), len(out), err)
		}
		if c.Cipher() != word {
			t.Errorf("%s: the data plane would be asked for %q", word, c.Cipher())
		}
		// Appending to one direction's keys must not write into the other's.
		if len(append(out, 0)) > 0 && len(append(in, 0)) > 0 && cap(out) != n && cap(in) != n {
			t.Errorf("%s: capacities %d and %d", word, cap(in), cap(out))
		}
	}
}

func TestKeyLogIsWiresharksTable(t *testing.T) {
	k := newKeys(t, choiceOf(t, "aes256gcm16-prfsha256-x25519"))
	got := string(k.AppendKeyLog(nil, 0x0102, 0x0304))
	want := fmt.Sprintf("0000000000000102,0000000000000304,%x,%x,\"AES-GCM-256 with 16 octet ICV [RFC5282]\",,,\"NONE [RFC4306]\"\n", k.fromInitiator.encr, k.fromResponder.encr)
	if got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	k = newKeys(t, choiceOf(t, "aes128-sha512-prfsha256-x25519"))
	got = string(k.AppendKeyLog(nil, 1, 2))
	want = fmt.Sprintf("0000000000000001,0000000000000002,%x,%x,\"AES-CBC-128 [RFC3602]\",%x,%x,\"HMAC_SHA2_512_256 [RFC4868]\"\n",
		k.fromInitiator.encr, k.fromResponder.encr, k.fromInitiator.integ, k.fromResponder.integ)
	if got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestNoKeyIsPrinted(t *testing.T) {
	k := newKeys(t, choiceOf(t, "aes128-sha256-x25519"))
	text := fmt.Sprint(k.Choice(), errZeroed)
	for name, key := range k.parts() {
		if strings.Contains(text, fmt.Sprintf("%x", key)) {
			t.Errorf("SK_%s is printed", name)
		}
	}
}

func FuzzOpen(f *testing.F) {
	words := []string{"aes256gcm16-prfsha256-x25519", "chacha20poly1305-prfsha384-x25519", "aes128-sha256-x25519", "aes256-sha512-x25519"}
	var keys []*Keys
	for i, w := range words {
		k := newKeys(f, choiceOf(f, w))
		keys = append(keys, k)
		send, _ := k.Protector(true)
		packet, _ := sealed(f, send, 32, 40)
		f.Add(uint8(i), packet, 32)
		f.Add(uint8(i), packet[:40], 28)
	}
	f.Fuzz(func(t *testing.T, which uint8, packet []byte, body int) {
		if body < 0 || body > len(packet) {
			return
		}
		_, receive := keys[int(which)%len(keys)].Protector(false)
		before := slices.Clone(packet)
		got, err := receive.Open(packet, body)
		if errors.Is(err, message.ErrIntegrity) && !bytes.Equal(before, packet) {
			t.Fatal("a packet that is not genuine was changed")
		}
		if len(got) > len(packet) {
			t.Fatal("more came out than went in")
		}
	})
}

func BenchmarkProtector(b *testing.B) {
	for _, w := range []string{"aes256gcm16-prfsha256-x25519", "chacha20poly1305-prfsha256-x25519", "aes256-sha256-x25519"} {
		k := newKeys(b, choiceOf(b, w))
		send, _ := k.Protector(true)
		_, receive := k.Protector(false)
		b.Run(w, func(b *testing.B) {
			packet := make([]byte, 32+send.BodyLen(200))
			b.ReportAllocs()
			for b.Loop() {
				if err := send.Seal(packet, 32, 200); err != nil {
					b.Fatal(err)
				}
				if _, err := receive.Open(packet, 32); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDeriveIKE(b *testing.B) {
	for _, w := range []string{"aes256gcm16-prfsha256-x25519", "aes256gcm16-prfsha384-x25519"} {
		c := choiceOf(b, w)
		b.Run(w, func(b *testing.B) {
			nonce := make([]byte, 32)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := DeriveIKE(c, nonce, nonce, nonce, 1, 2); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkChildKeymat(b *testing.B) {
	k := newKeys(b, choiceOf(b, "aes256gcm16-prfsha256-x25519"))
	nonce := make([]byte, 32)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := k.ChildKeymat(Choice{Encr: message.EncrAESGCM16, KeyLen: 256}, nil, nonce, nonce, true); err != nil {
			b.Fatal(err)
		}
	}
}
