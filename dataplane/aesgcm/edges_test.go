package aesgcm

import (
	"bytes"
	"crypto/cipher"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// guarded returns memory with a page in front of it and one behind it that fault when touched.
func guarded(t testing.TB) []byte {
	t.Helper()
	page := os.Getpagesize()
	m, err := unix.Mmap(-1, 0, 4*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(m) })
	for _, guard := range [][]byte{m[:page], m[3*page:]} {
		if err := unix.Mprotect(guard, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	return m[page : 3*page]
}

// TestNothingOutsideBufIsTouched puts buffers at both edges of readable memory: a single byte read or
// written before or behind them ends the test with a fault.
func TestNothingOutsideBufIsTouched(t *testing.T) {
	eachImplementation(t, func(t *testing.T, im *implementation) {
		r := rand.New(rand.NewPCG(9, 9))
		area := guarded(t)
		raw := randomBytes(r, 16)
		key, ref := newKey(t, im, raw), oracle(t, raw)
		for n := range 2*128 + 160 {
			text, nonce, aad := randomBytes(r, n), randomBytes(r, NonceSize), randomBytes(r, 8)
			want := ref.Seal(nil, nonce, text, aad)
			size := n + TagSize
			end := len(area) - size
			for _, buf := range [][]byte{area[:size:size], area[end:]} {
				copy(buf, text)
				ops := []Op{opOf(key, nonce, aad, buf)}
				im.seal(ops)
				if !bytes.Equal(buf, want) {
					t.Fatalf("%d bytes: sealed to something else", n)
				}
				im.open(ops)
				if !ops[0].OK || !bytes.Equal(buf[:n], text) {
					t.Fatalf("%d bytes: opened to something else", n)
				}
				copy(buf, want)
				buf[0] ^= 1
				im.open(ops)
				if ops[0].OK || !allZero(buf) {
					t.Fatalf("%d bytes: damaged packet: OK = %v", n, ops[0].OK)
				}
			}
		}
	})
}

// TestEveryAlignment moves a buffer byte by byte over a cache line.
func TestEveryAlignment(t *testing.T) {
	eachImplementation(t, func(t *testing.T, im *implementation) {
		r := rand.New(rand.NewPCG(10, 10))
		raw := randomBytes(r, 32)
		key, ref := newKey(t, im, raw), oracle(t, raw)
		area := make([]byte, 1024)
		for _, n := range []int{1, 15, 17, 64, 129, 400} {
			text, nonce := randomBytes(r, n), randomBytes(r, NonceSize)
			want := ref.Seal(nil, nonce, text, nil)
			for from := range 65 {
				buf := area[from : from+n+TagSize]
				copy(buf, text)
				ops := []Op{opOf(key, nonce, nil, buf)}
				if im.seal(ops); !bytes.Equal(buf, want) {
					t.Fatalf("%d bytes at %d: sealed to something else", n, from)
				}
				if im.open(ops); !ops[0].OK || !bytes.Equal(buf[:n], text) {
					t.Fatalf("%d bytes at %d: opened to something else", n, from)
				}
			}
		}
	})
}

// TestCounterCarries seals texts whose block counter carries into its second and third byte.
func TestCounterCarries(t *testing.T) {
	eachImplementation(t, func(t *testing.T, im *implementation) {
		r := rand.New(rand.NewPCG(11, 11))
		raw := randomBytes(r, 24)
		key, ref := newKey(t, im, raw), oracle(t, raw)
		for _, n := range []int{4000, 4047, 4048, 4064, 4065, 4080, 4096, 4097, 4200, 9000, 16 * (1<<16 - 3), 16*(1<<16) + 5, 1 << 21} {
			text, nonce := randomBytes(r, n), randomBytes(r, NonceSize)
			_, buf := framed(text, 0)
			ops := []Op{opOf(key, nonce, nil, buf)}
			if im.seal(ops); !bytes.Equal(buf, ref.Seal(nil, nonce, text, nil)) {
				t.Fatalf("%d bytes: sealed to something else", n)
			}
			if im.open(ops); !ops[0].OK || !bytes.Equal(buf[:n], text) {
				t.Fatalf("%d bytes: opened to something else", n)
			}
		}
	})
}

// TestEveryLengthOfAdditionalData seals with 0 to AADMax bytes, and with garbage behind them in the op.
func TestEveryLengthOfAdditionalData(t *testing.T) {
	eachImplementation(t, func(t *testing.T, im *implementation) {
		r := rand.New(rand.NewPCG(12, 12))
		raw := randomBytes(r, 16)
		key, ref := newKey(t, im, raw), oracle(t, raw)
		for length := range AADMax + 1 {
			for _, n := range []int{0, 5, 16, 48, 100, 128, 300} {
				text, nonce, aad := randomBytes(r, n), randomBytes(r, NonceSize), randomBytes(r, AADMax)
				_, buf := framed(text, 0)
				ops := []Op{opOf(key, nonce, aad, buf)}
				ops[0].AADLen = uint8(length)
				if im.seal(ops); !bytes.Equal(buf, ref.Seal(nil, nonce, text, aad[:length])) {
					t.Fatalf("%d bytes with %d of additional data: sealed to something else", n, length)
				}
			}
		}
	})
}

// TestNeighboursOfEqualLength seals batches whose packets have the same number of blocks, with keys of different
// sizes and ops that cannot be worked on between them: what is done to one must not depend on its neighbour.
func TestNeighboursOfEqualLength(t *testing.T) {
	eachImplementation(t, func(t *testing.T, im *implementation) {
		r := rand.New(rand.NewPCG(13, 13))
		var keys []*Key
		var refs []cipher.AEAD
		for _, size := range []int{16, 16, 24, 32, 32} {
			raw := randomBytes(r, size)
			keys, refs = append(keys, newKey(t, im, raw)), append(refs, oracle(t, raw))
		}
		for n := range 150 {
			for count := 1; count <= 7; count++ {
				ops := make([]Op, count)
				wants, bufs := make([][]byte, count), make([][]byte, count)
				for i := range ops {
					which := r.IntN(len(keys)) >> r.IntN(3)
					text, nonce, aad := randomBytes(r, n), randomBytes(r, NonceSize), randomBytes(r, r.IntN(AADMax+1))
					frame, buf := framed(text, r.IntN(2)*slack)
					defer checkCanaries(t, frame, buf)
					bufs[i], wants[i] = buf, refs[which].Seal(nil, nonce, text, aad)
					ops[i] = opOf(keys[which], nonce, aad, buf)
					switch r.IntN(20) {
					case 0:
						ops[i].Key = nil
					case 1:
						ops[i].AADLen = AADMax + 1 + uint8(r.IntN(200))
					case 2:
						ops[i].Buf = buf[:r.IntN(TagSize)]
					case 3:
						ops[i].Key = new(Key)
					default:
						continue
					}
					wants[i] = nil
				}
				im.seal(ops)
				for i := range ops {
					if ops[i].OK != (wants[i] != nil) {
						t.Fatalf("%d ops of %d bytes: op %d: OK = %v", count, n, i, ops[i].OK)
					}
					if ops[i].OK && !bytes.Equal(bufs[i], wants[i]) || !ops[i].OK && !allZero(ops[i].Buf) {
						t.Fatalf("%d ops of %d bytes: op %d is neither sealed nor wiped", count, n, i)
					}
				}
			}
		}
	})
}
