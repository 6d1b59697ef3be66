package craft

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
)

// Next headers of ESP's payload (IANA, protocol-numbers).
const (
	NextIPv4 = 4
	NextIPv6 = 41
	NextNone = 59
)

// ESP encodes and decodes ESP packets with AES-GCM and a 16-byte tag (RFC 4106), written from
// the RFCs on the standard library alone, so that it can judge the gateway.
type ESP struct {
	SPI uint32
	// ESN says that the high half of the sequence number is authenticated (RFC 4106, 5).
	ESN bool

	salt [4]byte
	aead cipher.AEAD
}

// NewESP returns a codec for keymat: an AES key of 16, 24 or 32 bytes followed by 4 bytes of salt.
func NewESP(spi uint32, keymat []byte, esn bool) (*ESP, error) {
	if len(keymat) < 4 {
		return nil, fmt.Errorf("%d bytes of keying material", len(keymat))
	}
	block, err := aes.NewCipher(keymat[:len(keymat)-4])
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &ESP{SPI: spi, ESN: esn, salt: [4]byte(keymat[len(keymat)-4:]), aead: aead}, nil
}

// Trailer appends ESP's trailer to a payload: tfc bytes of zero, padding 1, 2, 3… to a multiple of
// four bytes, pad length and next header (RFC 4303, 2.4 to 2.7).
func Trailer(payload []byte, tfc int, next byte) []byte {
	p := append([]byte{}, payload...)
	p = append(p, make([]byte, tfc)...)
	n := byte(0)
	for (len(p)+2)%4 != 0 {
		n++
		p = append(p, n)
	}
	return append(p, n, next)
}

// Seal returns the ESP packet with sequence number seq and the given plaintext, trailer included:
// whatever it is, it is authentic.
func (e *ESP) Seal(seq uint64, plaintext []byte) []byte {
	var iv [8]byte
	binary.BigEndian.PutUint64(iv[:], seq)
	packet := binary.BigEndian.AppendUint32(nil, e.SPI)
	packet = binary.BigEndian.AppendUint32(packet, uint32(seq))
	packet = append(packet, iv[:]...)
	return e.aead.Seal(packet, append(e.salt[:], iv[:]...), plaintext, e.aad(seq))
}

// Carry seals an inner IP packet as a correct peer does.
func (e *ESP) Carry(seq uint64, inner []byte) []byte {
	next := byte(NextIPv4)
	if inner[0]>>4 == 6 {
		next = NextIPv6
	}
	return e.Seal(seq, Trailer(inner, 0, next))
}

// Open authenticates an ESP packet whose sequence number has the given high half and returns the
// payload without its trailer, and the next header.
func (e *ESP) Open(packet []byte, high uint32) (payload []byte, next byte, err error) {
	if len(packet) < 16+16 {
		return nil, 0, fmt.Errorf("%d bytes are no ESP packet", len(packet))
	}
	seq := uint64(high)<<32 | uint64(binary.BigEndian.Uint32(packet[4:]))
	plain, err := e.aead.Open(nil, append(e.salt[:], packet[8:16]...), packet[16:], e.aad(seq))
	if err != nil {
		return nil, 0, err
	}
	n := len(plain)
	if n < 2 || int(plain[n-2])+2 > n {
		return nil, 0, fmt.Errorf("trailer %x", plain[max(0, n-2):])
	}
	for i := range plain[n-2] {
		if plain[n-2-int(plain[n-2])+int(i)] != i+1 {
			return nil, 0, fmt.Errorf("padding %x", plain)
		}
	}
	return plain[:n-2-int(plain[n-2])], plain[n-1], nil
}

// aad is what is authenticated besides: SPI and sequence number (RFC 4106, 5).
func (e *ESP) aad(seq uint64) []byte {
	aad := binary.BigEndian.AppendUint32(nil, e.SPI)
	if e.ESN {
		return binary.BigEndian.AppendUint64(aad, seq)
	}
	return binary.BigEndian.AppendUint32(aad, uint32(seq))
}
