package packet

import (
	"encoding/binary"
	"testing"
)

// errorAbout returns a frame with an ICMP error, to the source of about, that quotes so many bytes of it.
func errorAbout(about []byte, n int) []byte {
	about = about[:min(n, len(about))]
	icmp := append([]byte{3, 1, 0, 0, 0, 0, 0, 0}, about...)
	if len(about) > 0 && about[0]>>4 == 6 {
		f := make([]byte, 54)
		f[12], f[13], f[14], f[20], f[21] = 0x86, 0xdd, 0x60, ProtoICMPv6, 64
		binary.BigEndian.PutUint16(f[18:], uint16(len(icmp)))
		copy(f[22:], []byte{0x20, 1, 0xd, 0xb8, 9})
		if len(about) >= 24 {
			copy(f[38:], about[8:24])
		}
		return append(f, icmp...)
	}
	f := make([]byte, 34)
	f[12], f[14], f[22], f[23] = 8, 0x45, 64, ProtoICMP
	binary.BigEndian.PutUint16(f[16:], uint16(20+len(icmp)))
	copy(f[26:], []byte{203, 0, 113, 9})
	if len(about) >= 16 {
		copy(f[30:], about[12:16])
	}
	binary.BigEndian.PutUint16(f[24:], Checksum(f[14:34], 0))
	return append(f, icmp...)
}

var quoted4 = []byte{
	0x46, 0, 5, 0, 0, 1, 0, 0, 64, ProtoUDP, 0, 0, 198, 51, 100, 5, 203, 0, 113, 1, 1, 1, 1, 1,
	0x0f, 0xa0, 0x13, 0x88, 1, 2, 3, 4, 5, 6,
}

var quoted6 = append(append(append([]byte{0x60, 0, 0, 0, 5, 0, ProtoDestination, 64},
	0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5), 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6),
	ProtoTCP, 0, 1, 4, 0, 0, 0, 0, 0x0f, 0xa0, 0x13, 0x88, 1, 2, 3, 4, 5, 6)

// TestQuoteIsReadWhereItIsWhole quotes packets with options and extension headers, cut at every length.
func TestQuoteIsReadWhereItIsWhole(t *testing.T) {
	for _, about := range [][]byte{quoted4, quoted6} {
		for n := range len(about) + 1 {
			var b Batch
			load(&b, errorAbout(about, n))
			if n < 24 && about[0]>>4 == 6 {
				continue // not even an address to send it to
			}
			if reason := Parse(&b, 0); reason != DropNone {
				t.Fatal(reason)
			}
			q, ok := QuoteOf(&b, 0)
			if want := n >= len(about)-2; ok != want {
				t.Errorf("%d bytes of %d: %v", n, len(about), ok)
			}
			if ok && (q.SrcPort != 4000 || q.DstPort != 5000 || len(q.Data) != n-(len(about)-10) || q.Total != map[uint8]int{4: 0x500, 6: 0x528}[q.Version]) {
				t.Errorf("%+v", q)
			}
			if f, ok := Reported(&b, 0); ok && (f.Src != q.Dst || f.Dst != q.Src || f.SrcPort != 5000 || f.DstPort != 4000) {
				t.Errorf("%+v", f)
			}
		}
	}
}

// FuzzQuote reads quotes of anything.
func FuzzQuote(f *testing.F) {
	f.Add(errorAbout(quoted4, 100))
	f.Add(errorAbout(quoted6, 100))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) > LenMax {
			return
		}
		var b Batch
		load(&b, frame)
		if Parse(&b, 0) != DropNone {
			return
		}
		q, ok := QuoteOf(&b, 0)
		if ok && q.Flags&FlagLaterFragment == 0 && len(q.Data) < 8 || ok && q.Version != b.P[0].Version {
			t.Fatalf("%+v", q)
		}
		Reported(&b, 0)
	})
}
