package transform

import (
	"bytes"
	"slices"
	"testing"
)

// FuzzAgainstReference seals packets of any suite and content as the reference does, opens them again, and refuses them with one bit changed.
func FuzzAgainstReference(f *testing.F) {
	for s := range uint8(len(List())) {
		f.Add(s, uint64(s), uint32(3), true, uint16(77), []byte("some text that is longer than two blocks"))
	}
	b := new(Batch)
	f.Fuzz(func(t *testing.T, which uint8, counter uint64, hi uint32, esn bool, flip uint16, text []byte) {
		s := List()[int(which)%len(List())]
		info := s.Info()
		if len(text) > 2000 {
			return
		}
		keymat := bytes.Repeat([]byte{which ^ 0x5a}, info.KeyLen)
		text = append(slices.Clip(text), make([]byte, -len(text)&(info.Align-1))...)
		packet := slices.Concat([]byte{1, 2, 3, 4, 5, 6, 7, 8}, make([]byte, info.IVLen), text, make([]byte, info.ICVLen))
		ops := []Op{{Key: newKey(t, s, keymat), Packet: bytes.Clone(packet), Counter: counter, SeqHi: hi, ESN: esn}}
		defer ops[0].Key.Zero()
		b.Seal(ops)
		sealed := bytes.Clone(ops[0].Packet)
		copy(packet[headerLen:headerLen+info.IVLen], sealed[headerLen:])
		if want := reference(t, s, keymat, packet, hi, esn); !ops[0].OK || !bytes.Equal(sealed, want) {
			t.Fatalf("%s, %d bytes: OK = %v, sealed to %x, want %x", s, len(text), ops[0].OK, sealed, want)
		}
		if b.Open(ops); !ops[0].OK || !bytes.Equal(ops[0].Packet[headerLen+info.IVLen:len(sealed)-info.ICVLen], text) {
			t.Fatalf("%s, %d bytes: OK = %v, opened to %x", s, len(text), ops[0].OK, ops[0].Packet)
		}
		copy(ops[0].Packet, sealed)
		ops[0].Packet[int(flip)/8%len(sealed)] ^= 1 << (flip % 8)
		if b.Open(ops); ops[0].OK || len(bytes.Trim(ops[0].Packet[headerLen:], "\x00")) != 0 {
			t.Fatalf("%s, %d bytes: a changed bit was accepted, or the packet was not wiped", s, len(text))
		}
	})
}
