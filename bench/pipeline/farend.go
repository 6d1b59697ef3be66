package pipeline

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"

	"golang.org/x/crypto/chacha20poly1305"

	"sallyport/dataplane/transform"
)

// farEnd is the far end of one association, written over the standard library alone, so that the
// gateway's own output is not judged by itself. It uses extended sequence numbers unless short is set.
type farEnd struct {
	spi   uint32
	short bool
	seq   uint64 // last number sealed, or highest opened

	// one of the two
	aead cipher.AEAD
	salt [4]byte

	block cipher.Block
	mac   hash.Hash

	nonce, aad [12]byte // of the packet in hand; here, so that sealing makes no garbage
}

const (
	espHeader = 8  // SPI and sequence number
	icvLen    = 16 // of every suite here
)

var errForged = errors.New("the ICV does not match")

// init makes the far end with the keying material that the gateway got.
func (p *farEnd) init(suite transform.Suite, keymat []byte) (err error) {
	info := suite.Info()
	key, rest := keymat[:info.KeyLen-info.SaltLen], keymat[info.KeyLen-info.SaltLen:]
	copy(p.salt[:], rest)
	switch info.Kind {
	case transform.KindGCM:
		var block cipher.Block
		if block, err = aes.NewCipher(key); err == nil {
			p.aead, err = cipher.NewGCM(block)
		}
	case transform.KindChaCha:
		p.aead, err = chacha20poly1305.New(key)
	case transform.KindCBC:
		p.mac = hmac.New(sha256.New, key[len(key)-32:])
		p.block, err = aes.NewCipher(key[:len(key)-32])
	default:
		err = fmt.Errorf("no such suite: %d", suite)
	}
	return err
}

func (p *farEnd) ivLen() int {
	if p.aead != nil {
		return 8
	}
	return aes.BlockSize
}

// sealedLen is the length of the ESP packet around an inner datagram of size bytes.
func (p *farEnd) sealedLen(size int) int {
	align := 4
	if p.aead == nil {
		align = aes.BlockSize
	}
	return espHeader + p.ivLen() + (size+2+align-1)/align*align + icvLen
}

// prepare sets nonce and additional data of an ESP packet (RFC 4106, 4 and 5; RFC 7634, 2).
func (p *farEnd) prepare(esp []byte, seq uint64) {
	copy(p.nonce[:], p.salt[:])
	copy(p.nonce[4:], esp[espHeader:espHeader+8])
	binary.BigEndian.PutUint32(p.aad[:], p.spi)
	if p.short {
		binary.BigEndian.PutUint32(p.aad[4:], uint32(seq))
		return
	}
	binary.BigEndian.PutUint64(p.aad[4:], seq)
}

// additional is the additional data that prepare set.
func (p *farEnd) additional() []byte {
	if p.short {
		return p.aad[:8]
	}
	return p.aad[:]
}

// tag returns the ICV of a CBC packet (RFC 4303, 2.2.1: the upper half of the number at the end).
func (p *farEnd) tag(covered []byte, seq uint64) []byte {
	p.mac.Reset()
	p.mac.Write(covered)
	p.mac.Write(binary.BigEndian.AppendUint32(nil, uint32(seq>>32)))
	return p.mac.Sum(nil)[:icvLen]
}

// seal writes the next ESP packet around the IPv4 datagram inner into esp, of sealedLen bytes.
func (p *farEnd) seal(esp, inner []byte) {
	p.seq++
	binary.BigEndian.PutUint32(esp, p.spi)
	binary.BigEndian.PutUint32(esp[4:], uint32(p.seq))
	text := esp[espHeader+p.ivLen() : len(esp)-icvLen]
	pad := len(text) - copy(text, inner) - 2
	for i := range pad {
		text[len(inner)+i] = byte(i + 1)
	}
	text[len(text)-2], text[len(text)-1] = byte(pad), 4
	iv := esp[espHeader : espHeader+p.ivLen()]
	binary.BigEndian.PutUint64(iv[len(iv)-8:], p.seq)
	if p.aead != nil {
		p.prepare(esp, p.seq)
		p.aead.Seal(text[:0], p.nonce[:], text, p.additional())
		return
	}
	p.block.Encrypt(iv, iv)
	cipher.NewCBCEncrypter(p.block, iv).CryptBlocks(text, text)
	copy(esp[len(esp)-icvLen:], p.tag(esp[:len(esp)-icvLen], p.seq))
}

// open returns the datagram inside an ESP packet, checking SPI, ICV and padding. The numbers of
// successive packets grow by less than 2^32.
func (p *farEnd) open(esp []byte) ([]byte, error) {
	if len(esp) < espHeader+p.ivLen()+2+icvLen {
		return nil, fmt.Errorf("an ESP packet of %d bytes", len(esp))
	}
	if spi := binary.BigEndian.Uint32(esp); spi != p.spi {
		return nil, fmt.Errorf("SPI %#x, want %#x", spi, p.spi)
	}
	seq := p.seq&^0xffffffff | uint64(binary.BigEndian.Uint32(esp[4:]))
	if seq <= p.seq {
		seq += 1 << 32
	}
	text := append([]byte{}, esp[espHeader+p.ivLen():len(esp)-icvLen]...)
	if p.aead != nil {
		p.prepare(esp, seq)
		var err error
		if text, err = p.aead.Open(nil, p.nonce[:], esp[espHeader+p.ivLen():], p.additional()); err != nil {
			return nil, errForged
		}
	} else {
		if !hmac.Equal(p.tag(esp[:len(esp)-icvLen], seq), esp[len(esp)-icvLen:]) {
			return nil, errForged
		}
		cipher.NewCBCDecrypter(p.block, esp[espHeader:espHeader+p.ivLen()]).CryptBlocks(text, text)
	}
	p.seq = seq
	pad := int(text[len(text)-2])
	if pad > len(text)-2 || text[len(text)-1] != 4 {
		return nil, fmt.Errorf("pad length %d, next header %d", pad, text[len(text)-1])
	}
	inner := text[:len(text)-2-pad]
	for i, v := range text[len(inner) : len(inner)+pad] {
		if v != byte(i+1) {
			return nil, fmt.Errorf("padding byte %d is %d", i+1, v)
		}
	}
	return inner, nil
}
