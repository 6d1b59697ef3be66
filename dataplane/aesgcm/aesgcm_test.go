package aesgcm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// more are implementations for tests only.
var more []implementation

// eachImplementation runs a test body once for every implementation that this
// machine can run.
func eachImplementation(t *testing.T, body func(t *testing.T, im *implementation)) {
	for _, im := range append(slices.Clone(implementations), more...) {
		im := &im
		t.Run(im.name, func(t *testing.T) {
			if !im.available {
				t.Skip("this machine cannot run " + im.name)
			}
			body(t, im)
		})
	}
}

// oracle is crypto/cipher's AES-GCM.
func oracle(t testing.TB, key []byte) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return aead
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newKey(t testing.TB, im *implementation, key []byte) *Key {
	t.Helper()
	k := new(Key)
	if err := im.set(k, key); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Zero)
	return k
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// canary is what stands around buffers, to show that nothing outside is written.
const canary = 0xA5

// slack is what some buffers have behind them.
const slack = 64

// framed puts text and room for the tag between canaries; slack bytes follow the
// buffer inside its capacity.
func framed(text []byte, slack int) (frame, buf []byte) {
	frame = bytes.Repeat([]byte{canary}, 32+len(text)+TagSize+slack)
	buf = frame[32 : 32+len(text)+TagSize : len(frame)]
	copy(buf, text)
	return frame, buf
}

func checkCanaries(t *testing.T, frame, buf []byte) {
	t.Helper()
	for i, c := range frame {
		if (i < 32 || i >= 32+len(buf)) && c != canary {
			t.Fatalf("byte %d of the frame, outside the buffer, was written", i)
		}
	}
}

// The GCM specification's test cases without additional data and with 96-bit
// nonces (McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B), and the
// packets of draft-mcgrew-gcm-test-01 for AES-GCM in ESP.
var known = []struct{ name, key, nonce, aad, text, sealed string }{
	{"case 1", "00000000000000000000000000000000", "000000000000000000000000", "", "", "58e2fccefa7e3061367f1d57a4e7455a"},
	{"case 2", "00000000000000000000000000000000", "000000000000000000000000", "", "00000000000000000000000000000000",
		"0388dace60b6a392f328c2b971b2fe78ab6e47d42cec13bdf53a67b21257bddf"},
	{"case 3", "feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888", "",
		"d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
		"42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091473f59854d5c2af327cd64a62cf35abd2ba6fab4"},
	{"case 7", "000000000000000000000000000000000000000000000000", "000000000000000000000000", "", "", "cd33b28ac773f74ba00ed1f312572435"},
	{"case 8", "000000000000000000000000000000000000000000000000", "000000000000000000000000", "", "00000000000000000000000000000000",
		"98e7247c07f0fe411c267e4384b0f6002ff58d80033927ab8ef4d4587514f0fb"},
	{"case 13", "0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000", "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
	{"case 14", "0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000", "", "00000000000000000000000000000000",
		"cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"},
	{"esp with 8 bytes of additional data", "4c80cdefbb5d10da906ac73c3613a634", "2e443b684956ed7e3b244cfe", "000043218765432100000000",
		"45000048699a000080114db7c0a80102c0a801010a9bf15638d301000001000000000000045f736970045f756470037369700963796265726369747902646b000021000101020201",
		"fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce61bc17d768fd9732459018148f6cbe722fd04796562dfdb4"},
}

func TestKnownAnswers(t *testing.T) {
	eachImplementation(t, func(t *testing.T, im *implementation) {
		for _, v := range known {
			text, sealed := unhex(t, v.text), unhex(t, v.sealed)
			_, buf := framed(text, slack)
			op := opOf(newKey(t, im, unhex(t, v.key)), unhex(t, v.nonce), unhex(t, v.aad), buf)
			ops := []Op{op}
			im.seal(ops)
			if !ops[0].OK || !bytes.Equal(buf, sealed) {
				t.Errorf("%s: sealed to %x, want %x", v.name, buf, sealed)
				continue
			}
			im.open(ops)
			if !ops[0].OK || !bytes.Equal(buf[:len(text)], text) {
				t.Errorf("%s: opened to %x", v.name, buf)
			}
		}
	})
}

func opOf(k *Key, nonce, aad, buf []byte) Op {
	op := Op{Key: k, AADLen: uint8(len(aad)), Buf: buf}
	copy(op.Nonce[:], nonce)
	copy(op.AAD[:], aad)
	return op
}

func TestEveryLengthAgainstCryptoCipher(t *testing.T) {
	eachImplementation(t, func(t *testing.T, im *implementation) {
		r := rand.New(rand.NewPCG(1, 2))
		for _, size := range []int{16, 24, 32} {
			raw := randomBytes(r, size)
			key, ref := newKey(t, im, raw), oracle(t, raw)
			for length := 0; length <= 2048; length++ {
				text, nonce, aad := randomBytes(r, length), randomBytes(r, NonceSize), randomBytes(r, []int{0, 8, 12}[length%3])
				frame, buf := framed(text, []int{0, 1, slack}[length%3])
				want := ref.Seal(nil, nonce, text, aad)
				ops := []Op{opOf(key, nonce, aad, buf)}
				im.seal(ops)
				if !ops[0].OK || !bytes.Equal(buf, want) {
					t.Fatalf("AES-%d, %d bytes: Seal differs from crypto/cipher", size*8, length)
				}
				im.open(ops)
				if !ops[0].OK || !bytes.Equal(buf[:length], text) {
					t.Fatalf("AES-%d, %d bytes: Open does not give the text back", size*8, length)
				}
				checkCanaries(t, frame, buf)
			}
		}
	})
}

func TestBatchesOfMixedKeysAndLengths(t *testing.T) {
	eachImplementation(t, func(t *testing.T, im *implementation) {
		r := rand.New(rand.NewPCG(3, 4))
		var keys []*Key
		var refs []cipher.AEAD
		for i := range 7 {
			raw := randomBytes(r, []int{16, 24, 32}[i%3])
			keys, refs = append(keys, newKey(t, im, raw)), append(refs, oracle(t, raw))
		}
		for n := 0; n <= 67; n++ {
			ops := make([]Op, n)
			frames, texts, wants := make([][]byte, n), make([][]byte, n), make([][]byte, n)
			bad := make([]bool, n)
			for i := range ops {
				which := r.IntN(len(keys))
				texts[i] = randomBytes(r, r.IntN([]int{300, 2048}[r.IntN(2)]))
				nonce, aad := randomBytes(r, NonceSize), randomBytes(r, 8+4*r.IntN(2))
				var buf []byte
				frames[i], buf = framed(texts[i], slack*r.IntN(2))
				wants[i] = refs[which].Seal(nil, nonce, texts[i], aad)
				ops[i] = opOf(keys[which], nonce, aad, buf)
			}
			im.seal(ops)
			for i := range ops {
				if !ops[i].OK || !bytes.Equal(ops[i].Buf, wants[i]) {
					t.Fatalf("batch of %d: op %d differs from crypto/cipher", n, i)
				}
				if r.IntN(4) == 0 {
					bad[i] = true
					ops[i].Buf[r.IntN(len(ops[i].Buf))] ^= 1 << r.IntN(8)
				}
			}
			im.open(ops)
			for i := range ops {
				if ops[i].OK == bad[i] {
					t.Fatalf("batch of %d: op %d: OK = %v, damaged = %v", n, i, ops[i].OK, bad[i])
				}
				if want := texts[i]; !bad[i] && !bytes.Equal(ops[i].Buf[:len(want)], want) {
					t.Fatalf("batch of %d: op %d opened to something else", n, i)
				}
				if bad[i] && !allZero(ops[i].Buf) {
					t.Fatalf("batch of %d: op %d was refused but not wiped", n, i)
				}
				checkCanaries(t, frames[i], ops[i].Buf)
			}
		}
	})
}

func TestEveryWrongByteIsRefusedAndWiped(t *testing.T) {
	eachImplementation(t, func(t *testing.T, im *implementation) {
		r := rand.New(rand.NewPCG(5, 6))
		for i, length := range []int{0, 1, 15, 16, 17, 64, 100, 240, 395, 1160, 1421} {
			key := newKey(t, im, randomBytes(r, []int{16, 24, 32}[i%3]))
			text, nonce, aad := randomBytes(r, length), randomBytes(r, NonceSize), randomBytes(r, AADMax)
			_, sealed := framed(text, slack)
			ops := []Op{opOf(key, nonce, aad, sealed)}
			im.seal(ops)
			// Positions: the buffer, then the nonce, then the additional data.
			for at := range len(sealed) + NonceSize + AADMax {
				for _, bit := range []byte{0x01, 0x80} {
					frame, buf := framed(text, slack)
					copy(buf, sealed)
					op := opOf(key, nonce, aad, buf)
					switch {
					case at < len(sealed):
						buf[at] ^= bit
					case at < len(sealed)+NonceSize:
						op.Nonce[at-len(sealed)] ^= bit
					default:
						op.AAD[at-len(sealed)-NonceSize] ^= bit
					}
					op.OK = true
					ops[0] = op
					im.open(ops)
					if ops[0].OK {
						t.Fatalf("%d bytes: a wrong byte at %d was accepted", length, at)
					}
					if !allZero(buf) {
						t.Fatalf("%d bytes: refused for byte %d, but not wiped", length, at)
					}
					checkCanaries(t, frame, buf)
				}
			}
		}
	})
}

// Packets lie one behind another in the UMEM: the slack of one is the next one's bytes.
func TestNeighboursInOneArea(t *testing.T) {
	eachImplementation(t, func(t *testing.T, im *implementation) {
		r := rand.New(rand.NewPCG(7, 8))
		raw := randomBytes(r, 32)
		key, ref := newKey(t, im, raw), oracle(t, raw)
		area := make([]byte, 64*400)
		var ops []Op
		var want []byte
		for at := 0; at+TagSize+200 < len(area); {
			length := r.IntN(200)
			text, nonce := randomBytes(r, length), randomBytes(r, NonceSize)
			copy(area[at:], text)
			ops = append(ops, opOf(key, nonce, nonce[:8], area[at:at+length+TagSize]))
			want = ref.Seal(want, nonce, text, nonce[:8])
			at += length + TagSize
		}
		im.seal(ops)
		if !bytes.Equal(area[:len(want)], want) {
			t.Fatal("packets that touch each other are not sealed as each alone")
		}
	})
}

func TestUnusableOpsFailWithoutPanic(t *testing.T) {
	eachImplementation(t, func(t *testing.T, im *implementation) {
		key := newKey(t, im, make([]byte, 16))
		gone := newKey(t, im, make([]byte, 16))
		gone.Zero()
		for name, op := range map[string]Op{
			"nil key":      {Buf: bytes.Repeat([]byte{1}, 40), OK: true},
			"zeroed key":   {Key: gone, Buf: bytes.Repeat([]byte{1}, 40), OK: true},
			"empty buffer": {Key: key, OK: true},
			"short buffer": {Key: key, Buf: bytes.Repeat([]byte{1}, TagSize-1), OK: true},
			"long data":    {Key: key, AADLen: AADMax + 1, Buf: bytes.Repeat([]byte{1}, 40), OK: true},
		} {
			for _, call := range []func([]Op){im.seal, im.open} {
				ops := []Op{op}
				ops[0].Buf = bytes.Clone(op.Buf)
				call(ops)
				if ops[0].OK || !allZero(ops[0].Buf) {
					t.Errorf("%s: OK = %v, buffer %x", name, ops[0].OK, ops[0].Buf)
				}
			}
		}
		im.seal(nil)
		im.open(nil)
	})
}

// TestUnusableKeysBetweenGoodOnes: what a key left in registers is not used for the next packet, whose key is gone.
func TestUnusableKeysBetweenGoodOnes(t *testing.T) {
	eachImplementation(t, func(t *testing.T, im *implementation) {
		a, b := newKey(t, im, make([]byte, 16)), newKey(t, im, make([]byte, 32))
		gone := newKey(t, im, make([]byte, 16))
		gone.Zero()
		for _, length := range []int{40, 300, 500} {
			var ops, alone []Op
			for i, key := range []*Key{a, nil, nil, a, gone, gone, b, nil, b, gone, a, a} {
				ops = append(ops, opOf(key, []byte{byte(i)}, nil, make([]byte, length)))
				alone = append(alone, opOf(key, []byte{byte(i)}, nil, make([]byte, length)))
				im.seal(alone[i:])
			}
			im.seal(ops)
			for i := range ops {
				if usable := ops[i].Key != nil && ops[i].Key != gone; ops[i].OK != usable || !usable && !allZero(ops[i].Buf) || !bytes.Equal(ops[i].Buf, alone[i].Buf) {
					t.Errorf("%d bytes: packet %d: OK = %v, not as it is alone", length, i, ops[i].OK)
				}
			}
		}
	})
}

func TestKeySizes(t *testing.T) {
	for n := range 40 {
		_, err := NewKey(make([]byte, n))
		if (err == nil) != (n == 16 || n == 24 || n == 32) {
			t.Errorf("key of %d bytes: error %v", n, err)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	eachImplementation(t, func(t *testing.T, im *implementation) {
		ops := benchmarkOps(t, im, 64, 500)
		if n := testing.AllocsPerRun(50, func() { im.seal(ops); im.open(ops) }); n != 0 {
			t.Errorf("%v allocations a batch", n)
		}
		for i := range ops {
			ops[i].Buf[0] ^= 1
		}
		if n := testing.AllocsPerRun(50, func() { im.open(ops) }); n != 0 {
			t.Errorf("%v allocations a refused batch", n)
		}
	})
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func benchmarkOps(t testing.TB, im *implementation, n, length int) []Op {
	key := newKey(t, im, make([]byte, 16))
	ops := make([]Op, n)
	area := make([]byte, n*2048)
	for i := range ops {
		ops[i] = Op{Key: key, AADLen: 8, Buf: area[i*2048 : i*2048+length+TagSize]}
		ops[i].Nonce[11] = byte(i)
	}
	return ops
}

func BenchmarkSeal(b *testing.B) {
	for i := range implementations {
		im := &implementations[i]
		for _, length := range []int{64, 512, 1420} {
			b.Run(fmt.Sprintf("%s/%d", im.name, length), func(b *testing.B) {
				ops := benchmarkOps(b, im, 64, length)
				b.ReportAllocs()
				b.SetBytes(int64(length) * int64(len(ops)))
				for b.Loop() {
					im.seal(ops)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(ops)), "ns/packet")
			})
		}
	}
}

func BenchmarkSet(b *testing.B) {
	for i := range implementations {
		im := &implementations[i]
		for _, size := range []int{16, 32} {
			b.Run(fmt.Sprintf("%s/%d", im.name, size*8), func(b *testing.B) {
				var key Key
				raw := make([]byte, size)
				for b.Loop() {
					if err := im.set(&key, raw); err != nil {
						b.Fatal(err)
					}
					key.Zero()
				}
			})
		}
	}
}
