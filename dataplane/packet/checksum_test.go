package packet

import (
	"encoding/binary"
	"math/rand/v2"
	"strconv"
	"testing"
)

// slowChecksum is RFC 1071, 4.1, word by word.
func slowChecksum(b []byte, sum uint32) uint16 {
	acc := uint64(sum)
	for k := 0; k+1 < len(b); k += 2 {
		acc += uint64(binary.BigEndian.Uint16(b[k:]))
	}
	if len(b)%2 == 1 {
		acc += uint64(b[len(b)-1]) << 8
	}
	for acc>>16 != 0 {
		acc = acc>>16 + acc&0xffff
	}
	return ^uint16(acc)
}

func TestChecksumEqualsWordByWord(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	buf := make([]byte, 2100)
	for n := range 20000 {
		length := n % len(buf)
		b := buf[:length]
		fill(r, b)
		sum := r.Uint32()
		if n%5 == 0 { // carries everywhere
			for k := range b {
				b[k] = 0xff
			}
			sum = 0xffffffff
		}
		if got, want := Checksum(b, sum), slowChecksum(b, sum); got != want {
			t.Fatalf("length %d: %04x, want %04x", length, got, want)
		}
	}
	// RFC 1071, 3: the example's sum is ddf2.
	if got := Sum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}, 0); got != 0xddf2 {
		t.Fatalf("%04x", got)
	}
}

func TestChecksumUpdateEqualsFullChecksum(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	b := make([]byte, 40)
	for n := range 50000 {
		fill(r, b)
		b[0] |= 1 // data of zeros only has two checksums
		check := slowChecksum(b, 0)
		if n%2 == 0 {
			at := 2 + 2*r.IntN(18)
			old := binary.BigEndian.Uint16(b[at:])
			new := [...]uint16{0, 0xffff, old, uint16(r.Uint32())}[r.IntN(4)]
			binary.BigEndian.PutUint16(b[at:], new)
			check = ChecksumUpdate16(check, old, new)
		} else {
			at := 2 + 2*r.IntN(17)
			old := binary.BigEndian.Uint32(b[at:])
			new := [...]uint32{0, 0xffffffff, old, r.Uint32()}[r.IntN(4)]
			binary.BigEndian.PutUint32(b[at:], new)
			check = ChecksumUpdate32(check, old, new)
		}
		if want := slowChecksum(b, 0); check != want {
			t.Fatalf("%d: %04x, want %04x", n, check, want)
		}
	}
	// RFC 1624, 4: 0xdd2f with 0x5555 changed to 0x3285 becomes 0x0000.
	if got := ChecksumUpdate16(0xdd2f, 0x5555, 0x3285); got != 0 {
		t.Fatalf("%04x", got)
	}
}

// TestPlainSumAgreesWithChecksum tries headers with right checksums, with each other one nearby, and those whose words wrap.
func TestPlainSumAgreesWithChecksum(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	right := 0
	for n := range 200000 {
		h := make([]byte, PlainLen)
		for i := range h {
			h[i] = []byte{byte(r.Uint32()), 0xff, 0}[n/1000%3*r.IntN(2)]
		}
		h[14] = 0x45
		if n&1 == 0 {
			h[24], h[25] = 0, 0
			binary.BigEndian.PutUint16(h[24:], Checksum(h[14:34], 0))
			if r.IntN(2) == 0 {
				h[14+r.IntN(20)] ^= 1 << r.IntN(8)
				h[14] |= 1
			}
		}
		want := Sum(h[14:34], 0) == 0xffff
		if want {
			right++
		}
		if got := PlainSum(binary.LittleEndian.Uint64(h[12:]), binary.LittleEndian.Uint64(h[20:]), binary.LittleEndian.Uint64(h[28:])); got != want {
			t.Fatalf("%x: %v, want %v", h[14:34], got, want)
		}
	}
	if right < 40000 {
		t.Errorf("%d headers were right", right)
	}
}

func BenchmarkChecksum(bm *testing.B) {
	for _, n := range []int{20, 64, 576, 1280} {
		b := make([]byte, n)
		bm.Run(strconv.Itoa(n), func(bm *testing.B) {
			for bm.Loop() {
				sumSink = Checksum(b, 0)
			}
		})
	}
}
