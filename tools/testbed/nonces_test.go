package testbed

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// TestNoncesAgainstAMap compares with the naive set, over counters, random IVs and both ends of the range.
func TestNoncesAgainstAMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	n, naive := nonces{}, map[[2]uint64]bool{}
	for i := range 20_000 {
		spi, iv := uint64(r.IntN(3)+256), uint64(r.IntN(9000))
		if i%5 == 0 {
			iv = ^uint64(r.IntN(100))
		}
		b := make([]byte, 16)
		binary.BigEndian.PutUint32(b, uint32(spi))
		binary.BigEndian.PutUint32(b[4:], uint32(i)) // the sequence number does not matter
		binary.BigEndian.PutUint64(b[8:], iv)
		if got := n.add(b); got == naive[[2]uint64{spi, iv}] {
			t.Fatalf("SPI %d, IV %d: fresh %v", spi, iv, got)
		}
		naive[[2]uint64{spi, iv}] = true
	}
	if !n.add(make([]byte, 15)) || !n.add(nil) {
		t.Error("a packet without an IV is taken for a repeated one")
	}
}

func TestCaptureCountsRepeatedNonces(t *testing.T) {
	packet := func(udp bool, spi, iv byte) []byte {
		f := make([]byte, 14+20+8+40)
		f[12], f[14], f[23] = 8, 0x45, 50
		esp := f[34:]
		if udp {
			f[23] = 17
			binary.BigEndian.PutUint16(f[34:], 4500)
			binary.BigEndian.PutUint16(f[36:], 4500)
			esp = f[42:]
		}
		esp[2], esp[15] = spi, iv
		return f
	}
	c := &Capture{watch: Watch{Nonces: true}, nonces: nonces{}}
	for _, f := range [][]byte{packet(false, 1, 1), packet(true, 2, 1), packet(false, 1, 2), packet(false, 1, 1), packet(true, 2, 1)} {
		c.see(f, len(f), nil)
	}
	if c.figures.Repeated != 2 || c.kinds[ESP] != 3 || c.kinds[ESPInUDP] != 2 {
		t.Errorf("%+v, kinds %v", c.figures, c.kinds)
	}
}
