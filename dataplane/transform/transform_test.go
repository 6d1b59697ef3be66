package transform

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newKey(t testing.TB, s Suite, keymat []byte) *Key {
	t.Helper()
	k, err := NewKey(s, keymat)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// reference seals a packet whose IV is in place, the plain way.
func reference(t testing.TB, s Suite, keymat, packet []byte, hi uint32, esn bool) []byte {
	t.Helper()
	info := s.Info()
	out := bytes.Clone(packet)
	body := out[8+info.IVLen : len(out)-info.ICVLen]
	if info.Hash != 0 {
		cut := len(keymat) - info.Hash.Size()
		if cut > 0 {
			block, err := aes.NewCipher(keymat[:cut])
			if err != nil {
				t.Fatal(err)
			}
			cipher.NewCBCEncrypter(block, out[8:24]).CryptBlocks(body, body)
		}
		mac := hmac.New(info.Hash.New, keymat[cut:])
		mac.Write(out[:len(out)-info.ICVLen])
		if esn {
			mac.Write(binary.BigEndian.AppendUint32(nil, hi))
		}
		copy(out[len(out)-info.ICVLen:], mac.Sum(nil))
		return out
	}
	var aead cipher.AEAD
	var err error
	if strings.HasPrefix(info.Name, "chacha") {
		aead, err = chacha20poly1305.New(keymat[:32])
	} else {
		var block cipher.Block
		if block, err = aes.NewCipher(keymat[:len(keymat)-4]); err == nil {
			aead, err = cipher.NewGCM(block)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	aad := bytes.Clone(out[:4])
	if esn {
		aad = binary.BigEndian.AppendUint32(aad, hi)
	}
	aad = append(aad, out[4:8]...)
	nonce := bytes.Clone(keymat[len(keymat)-4:])
	switch {
	case info.IVLen > 0:
		nonce = append(nonce, out[8:16]...)
	case esn:
		nonce = append(binary.BigEndian.AppendUint32(nonce, hi), out[4:8]...)
	default:
		nonce = append(append(nonce, 0, 0, 0, 0), out[4:8]...)
	}
	if strings.HasSuffix(info.Name, "gmac") {
		return aead.Seal(out[:len(out)-16], nonce, nil, append(aad, out[8:len(out)-16]...))
	}
	sealed := aead.Seal(nil, nonce, bytes.Clone(body), aad)
	return append(out[:8+info.IVLen], sealed[:len(body)+info.ICVLen]...)
}

const canary = 0xA5

// packetOf returns an ESP packet with a random body of the given length between
// canaries, and the area around it.
func packetOf(r *rand.Rand, s Suite, body int) (area, packet []byte) {
	info := s.Info()
	n := 8 + info.IVLen + body + info.ICVLen
	area = bytes.Repeat([]byte{canary}, 64+n+64)
	packet = area[64 : 64+n]
	copy(packet, randomBytes(r, 8+info.IVLen+body))
	return area, packet
}

func checkCanaries(t *testing.T, area, packet []byte) {
	t.Helper()
	for i, c := range area {
		if (i < 64 || i >= 64+len(packet)) && c != canary {
			t.Fatalf("byte %d, outside the packet, was written", i-64)
		}
	}
}

func TestEverySuiteAgainstReference(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	b := new(Batch)
	for _, s := range List() {
		info := s.Info()
		keymat := randomBytes(r, info.KeyLen)
		key := newKey(t, s, keymat)
		for body := 0; body <= 1536; body += info.Align {
			for _, esn := range []bool{false, true} {
				area, packet := packetOf(r, s, body)
				plain := bytes.Clone(packet)
				ops := []Op{{Key: key, Packet: packet, Counter: r.Uint64(), SeqHi: r.Uint32(), ESN: esn}}
				b.Seal(ops)
				if !ops[0].OK {
					t.Fatalf("%s, %d bytes: not sealed", s, body)
				}
				copy(plain[8:8+info.IVLen], packet[8:])
				if want := reference(t, s, keymat, plain, ops[0].SeqHi, esn); !bytes.Equal(packet, want) {
					t.Fatalf("%s, %d bytes, ESN %v: sealed to something else than the reference", s, body, esn)
				}
				b.Open(ops)
				if !ops[0].OK || !bytes.Equal(packet[:8+info.IVLen+body], plain[:8+info.IVLen+body]) {
					t.Fatalf("%s, %d bytes: does not open to what was sealed", s, body)
				}
				checkCanaries(t, area, packet)
			}
		}
	}
}

// RFC 7634, appendix A: an ESP packet with ChaCha20-Poly1305.
func TestRFC7634Example(t *testing.T) {
	key := newKey(t, ChaCha20Poly1305, unhex(t, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f a0a1a2a3"))
	plain := unhex(t, "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363701020204")
	want := unhex(t, "0102030400000005 1011121314151617 24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da9165b82829f641e0 76aaa8266b7fb0f7b11b369907e1ad43")
	packet := make([]byte, len(want))
	copy(packet, want[:8])
	copy(packet[16:], plain)
	ops := []Op{{Key: key, Packet: packet, Counter: 0x1011121314151617}}
	b := new(Batch)
	if b.Seal(ops); !bytes.Equal(packet, want) {
		t.Fatalf("sealed to %x", packet)
	}
	if b.Open(ops); !ops[0].OK || !bytes.Equal(packet[16:16+len(plain)], plain) {
		t.Fatalf("opened to %x", packet)
	}
}

// The first packet of draft-mcgrew-gcm-test-01: AES-128-GCM in ESP (RFC 4106) with a
// 64-bit sequence number.
func TestGCMInESPWithExtendedSequenceNumber(t *testing.T) {
	key := newKey(t, AES128GCM16, unhex(t, "4c80cdefbb5d10da906ac73c3613a634 2e443b68"))
	plain := unhex(t, "45000048699a000080114db7c0a80102c0a801010a9bf15638d30100000100000000000004 5f736970045f756470037369700963796265726369747902646b0000210001 01020201")
	want := unhex(t, "0000432100000000 4956ed7e3b244cfe fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce61bc17d768fd9732459018148f6cbe722fd04796562dfdb4")
	packet := make([]byte, len(want))
	copy(packet, want[:8])
	copy(packet[16:], plain)
	ops := []Op{{Key: key, Packet: packet, Counter: 0x4956ed7e3b244cfe, SeqHi: 0x87654321, ESN: true}}
	b := new(Batch)
	if b.Seal(ops); !bytes.Equal(packet, want) {
		t.Fatalf("sealed to %x", packet)
	}
	if b.Open(ops); !ops[0].OK || !bytes.Equal(packet[16:16+len(plain)], plain) {
		t.Fatalf("opened to %x", packet)
	}
}

// The packet of draft-mcgrew-gcm-test-01 with AES-128-GMAC. It is RFC 4543's author's word on whether the IV is authenticated, which RFC 4543, 7
// denies: it is.
func TestGMACInESP(t *testing.T) {
	key := newKey(t, AES128GMAC, unhex(t, "4c80cdefbb5d10da906ac73c3613a634 22433c64"))
	want := unhex(t, "0000432100000007 0000000000000000 45000030da3a00008001df3bc0a80005c0a800010800c6cd020007006162636465666768696a6b6c6d6e6f7071727374 01020201 f2a9a836e155106aa8dcd618e4099aaa")
	packet := bytes.Clone(want)
	clear(packet[len(packet)-16:])
	ops := []Op{{Key: key, Packet: packet}}
	b := new(Batch)
	if b.Seal(ops); !bytes.Equal(packet, want) {
		t.Fatalf("sealed to %x", packet)
	}
	if b.Open(ops); !ops[0].OK || !bytes.Equal(packet[:len(packet)-16], want[:len(want)-16]) {
		t.Fatalf("OK = %v, opened to %x", ops[0].OK, packet)
	}
}

// RFC 3602, 4, case 5: a transport-mode ESP packet with AES-CBC. The document has no
// ICV, so one is added with a known key.
func TestRFC3602Example(t *testing.T) {
	keymat := append(unhex(t, "90d382b410eeba7ad938c46cec1a82bf"), bytes.Repeat([]byte{0x0b}, 32)...)
	packet := unhex(t, "0000432100000001 e96e8c08ab465763fd098d45dd3ff893 f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4898dc856a4699e523a55db080b59ec3a8e4b7e52775b07d1db34ed9c538ab50c551b874aa269add047ad2d5913ac19b7cfbad4a6")
	plain := unhex(t, "08000ebda70a00008e9c083db95b070008090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f30313233343536370102030405060708090a0b0c0d0e0e01")
	mac := hmac.New(sha256.New, keymat[16:])
	mac.Write(packet)
	packet = append(packet, mac.Sum(nil)[:16]...)
	ops := []Op{{Key: newKey(t, AES128CBCSHA256, keymat), Packet: packet}}
	if new(Batch).Open(ops); !ops[0].OK || !bytes.Equal(packet[24:len(packet)-16], plain) {
		t.Fatalf("OK = %v, opened to %x", ops[0].OK, packet)
	}
}

// RFC 4868, 2.7.2, AUTH256-1, AUTH384-1 and AUTH512-1: eight bytes, which are a packet's SPI and sequence number here.
func TestRFC4868Examples(t *testing.T) {
	for s, want := range map[Suite]string{
		NullSHA256: "198a607eb44bfbc69903a0f1cf2bbdc5",
		NullSHA384: "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973",
		NullSHA512: "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8",
	} {
		key := newKey(t, s, bytes.Repeat([]byte{0x0b}, s.Info().KeyLen))
		packet := append([]byte("Hi There"), make([]byte, s.Info().ICVLen)...)
		ops := []Op{{Key: key, Packet: packet}}
		b := new(Batch)
		if b.Seal(ops); !bytes.Equal(packet[8:], unhex(t, want)) {
			t.Errorf("%s: MAC %x", s, packet[8:])
		}
		if b.Open(ops); !ops[0].OK {
			t.Errorf("%s: not opened", s)
		}
	}
}

func TestMixtureOfSuitesInOneBatch(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	b := new(Batch)
	var keys []*Key
	var keymats [][]byte
	for range 2 {
		for _, s := range List() {
			keymats = append(keymats, randomBytes(r, s.Info().KeyLen))
			keys = append(keys, newKey(t, s, keymats[len(keymats)-1]))
		}
	}
	for _, n := range []int{0, 1, 2, 31, 63, 64, 65, 67, 129, 257} {
		ops := make([]Op, n)
		areas, plains, bad := make([][]byte, n), make([][]byte, n), make([]bool, n)
		for i := range ops {
			which := r.IntN(len(keys))
			s := keys[which].Suite()
			var packet []byte
			areas[i], packet = packetOf(r, s, s.Info().Align*r.IntN(20))
			plains[i] = bytes.Clone(packet)
			ops[i] = Op{Key: keys[which], Packet: packet, Counter: r.Uint64(), SeqHi: r.Uint32(), ESN: r.IntN(2) == 0}
			ops[i].Counter = ops[i].Counter>>8<<8 | uint64(which)
		}
		b.Seal(ops)
		for i := range ops {
			info := ops[i].Key.Suite().Info()
			copy(plains[i][8:8+info.IVLen], ops[i].Packet[8:])
			want := reference(t, ops[i].Key.Suite(), keymats[ops[i].Counter&0xff], plains[i], ops[i].SeqHi, ops[i].ESN)
			if !ops[i].OK || !bytes.Equal(ops[i].Packet, want) {
				t.Fatalf("batch of %d: op %d (%s) differs from the reference", n, i, ops[i].Key.Suite())
			}
			if bad[i] = r.IntN(3) == 0; bad[i] {
				ops[i].Packet[r.IntN(len(ops[i].Packet))] ^= 0x40
			}
		}
		b.Open(ops)
		for i := range ops {
			info := ops[i].Key.Suite().Info()
			if ops[i].OK == bad[i] {
				t.Fatalf("batch of %d: op %d (%s): OK = %v, damaged = %v", n, i, ops[i].Key.Suite(), ops[i].OK, bad[i])
			}
			if end := len(plains[i]) - info.ICVLen; !bad[i] && !bytes.Equal(ops[i].Packet[:end], plains[i][:end]) {
				t.Fatalf("batch of %d: op %d opened to something else", n, i)
			}
			if bad[i] && len(bytes.TrimLeft(ops[i].Packet[8:], "\x00")) != 0 {
				t.Fatalf("batch of %d: op %d was refused but not wiped", n, i)
			}
			checkCanaries(t, areas[i], ops[i].Packet)
		}
	}
}

func TestEveryWrongByteIsRefused(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	b := new(Batch)
	for _, s := range List() {
		key := newKey(t, s, randomBytes(r, s.Info().KeyLen))
		_, packet := packetOf(r, s, 48)
		ops := []Op{{Key: key, Packet: packet, Counter: 9, SeqHi: 1, ESN: true}}
		b.Seal(ops)
		sealed := bytes.Clone(packet)
		for i := range sealed {
			copy(packet, sealed)
			packet[i] ^= 1
			if b.Open(ops); ops[0].OK {
				t.Fatalf("%s: a wrong byte at %d was accepted", s, i)
			}
		}
		for _, change := range []func(){func() { ops[0].SeqHi = 2 }, func() { ops[0].SeqHi, ops[0].ESN = 1, false }} {
			copy(packet, sealed)
			change()
			if b.Open(ops); ops[0].OK {
				t.Fatalf("%s: a wrong upper half of the sequence number was accepted", s)
			}
		}
	}
}

func TestUnusableOpsFailWithoutPanic(t *testing.T) {
	b := new(Batch)
	for _, s := range List() {
		gone := newKey(t, s, make([]byte, s.Info().KeyLen))
		gone.Zero()
		key := newKey(t, s, make([]byte, s.Info().KeyLen))
		for n := range 80 {
			ops := []Op{{Key: gone, Packet: make([]byte, n), OK: true}, {Packet: make([]byte, n), OK: true}, {Key: key, Packet: make([]byte, n)}}
			b.Seal(ops)
			if ops[0].OK || ops[1].OK {
				t.Fatalf("%s: sealed without a key", s)
			}
			info := s.Info()
			if fits := n >= 8+info.IVLen+info.ICVLen && (info.Kind != KindCBC || (n-8-info.IVLen-info.ICVLen)%16 == 0); ops[2].OK != fits {
				t.Fatalf("%s: packet of %d bytes: OK = %v", s, n, ops[2].OK)
			}
			ops[0].OK, ops[1].OK = true, true
			ops[2].Packet = make([]byte, n)
			b.Open(ops)
			if ops[0].OK || ops[1].OK || ops[2].OK {
				t.Fatalf("%s: opened %d bytes of nothing", s, n)
			}
		}
	}
}

// A CBC IV must not be predictable from the counter (RFC 3602, 3): two associations
// with the same keying material use different IVs for the same counter.
func TestCBCIVDependsOnMoreThanCounter(t *testing.T) {
	b := new(Batch)
	seen := map[string]bool{}
	for range 2 {
		key := newKey(t, AES256CBCSHA256, make([]byte, 64))
		for c := range uint64(1000) {
			packet := make([]byte, 8+16+16+16)
			b.Seal([]Op{{Key: key, Packet: packet, Counter: c}})
			iv := string(packet[8:24])
			if seen[iv] {
				t.Fatalf("an IV was used twice")
			}
			seen[iv] = true
		}
	}
}

func TestSuiteTable(t *testing.T) {
	if len(List()) != int(suiteCount)-1 {
		t.Fatalf("List has %d suites, the table %d", len(List()), suiteCount-1)
	}
	for _, s := range List() {
		got, err := Parse(s.String())
		if err != nil || got != s {
			t.Errorf("Parse(%q) = %v, %v", s.String(), got, err)
		}
		info := s.Info()
		if info.IVLen > IVMax || info.ICVLen > ICVMax || info.Align > AlignMax || info.KeyLen == 0 {
			t.Errorf("%s: %+v is outside the bounds", s, info)
		}
		for n := range 80 {
			if _, err := NewKey(s, make([]byte, n)); (err == nil) != (n == info.KeyLen) {
				t.Errorf("%s: %d bytes of keying material: error %v", s, n, err)
			}
		}
	}
	for name, nearest := range map[string]string{"aes256gcm": "aes256gcm16", "chacha20": "chacha20poly1305", "aes128-sha1": "aes128-sha512", "": ""} {
		if _, err := Parse(name); err == nil || !strings.Contains(err.Error(), nearest) {
			t.Errorf("Parse(%q): error %v, want one that names %q", name, err, nearest)
		}
	}
	if _, err := NewKey(200, nil); err == nil || Suite(200).Info().Kind != KindNone {
		t.Error("a suite that does not exist was accepted")
	}
}

func TestErrorsHoldNoKey(t *testing.T) {
	secret := []byte("this is the secret keying material")
	for _, s := range List() {
		if _, err := NewKey(s, secret); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: error %v", s, err)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	for _, s := range List() {
		b, ops := batchOf(t, s, 64, 496)
		if n := testing.AllocsPerRun(20, func() { b.Seal(ops); b.Open(ops) }); n != 0 {
			t.Errorf("%s: %v allocations a batch", s, n)
		}
		if n := testing.AllocsPerRun(20, func() { b.Open(ops) }); n != 0 {
			t.Errorf("%s: %v allocations a refused batch", s, n)
		}
	}
}

func batchOf(t testing.TB, s Suite, n, body int) (*Batch, []Op) {
	info := s.Info()
	key := newKey(t, s, make([]byte, info.KeyLen))
	ops := make([]Op, n)
	body = (body + info.Align - 1) / info.Align * info.Align
	for i := range ops {
		ops[i] = Op{Key: key, Packet: make([]byte, 8+info.IVLen+body+info.ICVLen), Counter: uint64(i), ESN: true}
	}
	return new(Batch), ops
}

func BenchmarkSeal(b *testing.B) {
	for _, s := range List() {
		b.Run(s.String(), func(b *testing.B) {
			batch, ops := batchOf(b, s, 64, 1420)
			b.ReportAllocs()
			for b.Loop() {
				batch.Seal(ops)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(ops)), "ns/packet")
		})
	}
}
