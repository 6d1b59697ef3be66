package pipeline

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	_ "crypto/sha256" // the hashes that suites name
	_ "crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"

	"sallyport/dataplane/transform"
)

// farEnd is the far end of one association, written over the standard library alone, so that the
// gateway's own output is not judged by itself. It uses extended sequence numbers unless short is set.
type farEnd struct {
	spi   uint32
	short bool
	seq   uint64 // last number sealed, or highest opened

	ivLen, icvLen, align int

	// one of the two
	aead           cipher.AEAD
	salt           [4]byte
	implicit, gmac bool

	block cipher.Block // nil: no encryption
	mac   hash.Hash

	nonce, aad [12]byte // of the packet in hand; here, so that sealing makes no garbage
}

// espHeader is the length of SPI and sequence number.
const espHeader = 8

var errForged = errors.New("the ICV does not match")

// init makes the far end with the keying material that the gateway got. What a suite looks like on the wire it knows by itself.
func (p *farEnd) init(suite transform.Suite, keymat []byte) (err error) {
	info := suite.Info()
	key, rest := keymat[:info.KeyLen-info.SaltLen], keymat[info.KeyLen-info.SaltLen:]
	copy(p.salt[:], rest)
	p.ivLen, p.icvLen, p.align = 8, 16, 4 // of most (RFC 4106, RFC 4543, RFC 7634)
	p.gmac = info.Kind == transform.KindGMAC
	switch info.Kind {
	case transform.KindChaCha:
		p.aead, err = chacha20poly1305.New(key)
	case transform.KindChaChaImplicit:
		p.ivLen, p.implicit = 0, true
		p.aead, err = chacha20poly1305.New(key)
	case transform.KindGCMShort:
		if p.icvLen = 12; strings.HasSuffix(info.Name, "gcm8") {
			p.icvLen = 8
		}
		p.aead, err = gcm(key)
	case transform.KindGCMImplicit:
		p.ivLen, p.implicit = 0, true
		p.aead, err = gcm(key)
	case transform.KindGCM, transform.KindGMAC:
		p.aead, err = gcm(key)
	case transform.KindCBC, transform.KindNull:
		cut := len(key) - info.Hash.Size()
		p.mac = hmac.New(info.Hash.New, key[cut:])
		p.icvLen = info.Hash.Size() / 2 // RFC 4868, 2
		if p.ivLen = 0; cut > 0 {
			p.ivLen, p.align = aes.BlockSize, aes.BlockSize
			p.block, err = aes.NewCipher(key[:cut])
		}
	default:
		err = fmt.Errorf("no such suite: %d", suite)
	}
	return err
}

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// sealedLen is the length of the ESP packet around an inner datagram of size bytes.
func (p *farEnd) sealedLen(size int) int {
	return espHeader + p.ivLen + (size+2+p.align-1)/p.align*p.align + p.icvLen
}

// prepare sets nonce and additional data of an ESP packet (RFC 4106, 4 and 5; RFC 7634, 2; RFC 8750, 4).
func (p *farEnd) prepare(esp []byte, seq uint64) {
	if p.short {
		seq &= 1<<32 - 1
	}
	copy(p.nonce[:], p.salt[:])
	if p.implicit {
		binary.BigEndian.PutUint64(p.nonce[4:], seq)
	} else {
		copy(p.nonce[4:], esp[espHeader:espHeader+8])
	}
	binary.BigEndian.PutUint32(p.aad[:], p.spi)
	if p.short {
		binary.BigEndian.PutUint32(p.aad[4:], uint32(seq))
		return
	}
	binary.BigEndian.PutUint64(p.aad[4:], seq)
}

// additional is the additional data: what prepare set, and with GMAC the rest of the packet (RFC 4543, 3.3).
func (p *farEnd) additional(rest []byte) []byte {
	aad := p.aad[:]
	if p.short {
		aad = p.aad[:8]
	}
	if p.gmac {
		return append(bytes.Clone(aad), rest...)
	}
	return aad
}

// tag returns the ICV of a packet with HMAC (RFC 4303, 2.2.1: the upper half of the number at the end).
func (p *farEnd) tag(covered []byte, seq uint64) []byte {
	p.mac.Reset()
	p.mac.Write(covered)
	if !p.short {
		p.mac.Write(binary.BigEndian.AppendUint32(nil, uint32(seq>>32)))
	}
	return p.mac.Sum(nil)[:p.icvLen]
}

// seal writes the next ESP packet around the datagram inner into esp, of sealedLen bytes.
func (p *farEnd) seal(esp, inner []byte) {
	p.seq++
	binary.BigEndian.PutUint32(esp, p.spi)
	binary.BigEndian.PutUint32(esp[4:], uint32(p.seq))
	covered := esp[:len(esp)-p.icvLen]
	text, icv := covered[espHeader+p.ivLen:], esp[len(covered):]
	pad := len(text) - copy(text, inner) - 2
	for i := range pad {
		text[len(inner)+i] = byte(i + 1)
	}
	text[len(text)-2], text[len(text)-1] = byte(pad), nextHeader(inner)
	iv := esp[espHeader : espHeader+p.ivLen]
	if p.ivLen > 0 {
		binary.BigEndian.PutUint64(iv[len(iv)-8:], p.seq)
	}
	switch {
	case p.gmac:
		p.prepare(esp, p.seq)
		p.aead.Seal(icv[:0], p.nonce[:], nil, p.additional(covered[espHeader:]))
	case p.aead != nil && p.icvLen == p.aead.Overhead():
		p.prepare(esp, p.seq)
		p.aead.Seal(text[:0], p.nonce[:], text, p.additional(nil))
	case p.aead != nil:
		p.prepare(esp, p.seq)
		copy(esp[espHeader+p.ivLen:], p.aead.Seal(nil, p.nonce[:], text, p.additional(nil)))
	default:
		if p.block != nil {
			p.block.Encrypt(iv, iv)
			cipher.NewCBCEncrypter(p.block, iv).CryptBlocks(text, text)
		}
		copy(icv, p.tag(covered, p.seq))
	}
}

// nextHeader is that of ESP around a datagram (RFC 4303, 2.6).
func nextHeader(inner []byte) byte {
	if inner[0]>>4 == 6 {
		return 41
	}
	return 4
}

// open returns the datagram inside an ESP packet, checking SPI, ICV and padding. The numbers of
// successive packets grow by less than 2^32.
func (p *farEnd) open(esp []byte) ([]byte, error) {
	if len(esp) < espHeader+p.ivLen+2+p.icvLen {
		return nil, fmt.Errorf("an ESP packet of %d bytes", len(esp))
	}
	if spi := binary.BigEndian.Uint32(esp); spi != p.spi {
		return nil, fmt.Errorf("SPI %#x, want %#x", spi, p.spi)
	}
	seq := p.seq&^0xffffffff | uint64(binary.BigEndian.Uint32(esp[4:]))
	if seq <= p.seq {
		seq += 1 << 32
	}
	text, err := p.decrypt(esp, seq)
	if err != nil {
		return nil, err
	}
	p.seq = seq
	pad := int(text[len(text)-2])
	if pad > len(text)-2 || text[len(text)-1] != nextHeader(text) {
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

// decrypt returns what is between IV and ICV of an ESP packet, or errForged.
func (p *farEnd) decrypt(esp []byte, seq uint64) ([]byte, error) {
	covered := esp[:len(esp)-p.icvLen]
	text, icv := bytes.Clone(covered[espHeader+p.ivLen:]), esp[len(covered):]
	if p.mac != nil {
		if !hmac.Equal(p.tag(covered, seq), icv) {
			return nil, errForged
		}
		if p.block != nil {
			cipher.NewCBCDecrypter(p.block, esp[espHeader:espHeader+p.ivLen]).CryptBlocks(text, text)
		}
		return text, nil
	}
	p.prepare(esp, seq)
	var err error
	switch {
	case p.gmac:
		_, err = p.aead.Open(nil, p.nonce[:], icv, p.additional(covered[espHeader:]))
	case p.icvLen == p.aead.Overhead():
		text, err = p.aead.Open(nil, p.nonce[:], esp[espHeader+p.ivLen:], p.additional(nil))
	default:
		// The library opens no tag as short as that. Encrypting twice decrypts, and the second time gives the tag.
		text = p.aead.Seal(nil, p.nonce[:], text, p.additional(nil))[:len(text)]
		if sealed := p.aead.Seal(nil, p.nonce[:], text, p.additional(nil)); !hmac.Equal(sealed[len(text):][:p.icvLen], icv) {
			err = errForged
		}
	}
	if err != nil {
		return nil, errForged
	}
	return text, nil
}
