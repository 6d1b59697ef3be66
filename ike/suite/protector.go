package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"

	"sallyport/ike/message"
)

// protector protects one direction of an IKE SA. It keeps raw keys and expands them for each message: an IKE SA speaks
// a few times an hour, expansion takes about a microsecond, and two expanded keys would be the largest part of an idle
// SA's memory.
type protector struct {
	cipher *cipherInfo
	auth   *integInfo // nil with an AEAD
	encr   []byte     // the key, then the salt
	integ  []byte
	sealed uint64 // messages sealed: each IV is one of its own (RFC 5282, 3.1)
}

var (
	errSealed = errors.New("an IKE SA has sealed as many messages as its IVs allow")
	errBody   = errors.New("an SK body of another length than its payloads need")
)

func (p *protector) IVLen() int { return p.cipher.iv }

// BodyLen adds the pad length and the padding before it: as little as the cipher's blocks allow.
func (p *protector) BodyLen(n int) int {
	align := p.cipher.align
	return p.cipher.iv + (n+1+align-1)/align*align + p.icvLen()
}

func (p *protector) icvLen() int {
	if p.auth != nil {
		return p.auth.icv
	}
	return p.cipher.icv
}

func (p *protector) Seal(packet []byte, body, n int) error {
	if len(p.encr) == 0 {
		return errZeroed
	}
	if body < 0 || n < 0 || len(packet) != body+p.BodyLen(n) {
		return errBody
	}
	if p.sealed == 1<<63 {
		return errSealed
	}
	p.sealed++
	iv := packet[body : body+p.cipher.iv]
	icv := len(packet) - p.icvLen()
	plain := packet[body+len(iv) : icv]
	clear(plain[n:])
	plain[len(plain)-1] = byte(len(plain) - n - 1)
	if p.auth == nil {
		binary.BigEndian.PutUint64(iv, p.sealed)
		aead, err := p.aead()
		if err != nil {
			return err
		}
		var nonce [12]byte
		p.nonce(&nonce, iv)
		aead.Seal(plain[:0], nonce[:], plain, packet[:body])
		return nil
	}
	block, err := aes.NewCipher(p.encr)
	if err != nil {
		return err
	}
	// CBC needs an IV that nobody foresees: the cipher's own image of the counter (NIST SP 800-38A, appendix C).
	clear(iv)
	binary.BigEndian.PutUint64(iv[8:], p.sealed)
	block.Encrypt(iv, iv)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(plain, plain)
	p.checksum(packet[icv:icv], packet[:icv])
	return nil
}

func (p *protector) Open(packet []byte, body int) ([]byte, error) {
	if len(p.encr) == 0 {
		return nil, errZeroed
	}
	icv := len(packet) - p.icvLen()
	// RFC 7296, 3.14: at least the pad length is there, and whole blocks.
	if body < 0 || icv < body+p.cipher.iv+1 || (icv-body-p.cipher.iv)%p.cipher.align != 0 {
		return nil, message.ErrIntegrity
	}
	iv, sealed := packet[body:body+p.cipher.iv], packet[body+p.cipher.iv:icv]
	if p.auth == nil {
		if err := p.openAEAD(packet[body+p.cipher.iv:], iv, packet[:body]); err != nil {
			return nil, err
		}
	} else {
		var sum [64]byte
		if subtle.ConstantTimeCompare(p.checksum(sum[:0], packet[:icv]), packet[icv:]) != 1 {
			return nil, message.ErrIntegrity
		}
		block, err := aes.NewCipher(p.encr)
		if err != nil {
			return nil, err
		}
		cipher.NewCBCDecrypter(block, iv).CryptBlocks(sealed, sealed)
	}
	padding := int(sealed[len(sealed)-1])
	if padding > len(sealed)-1 {
		// Authenticated, so that the peer itself is wrong; contents of the padding are free (RFC 7296, 3.14).
		return nil, &message.Error{Notify: message.InvalidSyntax, Reason: message.ReasonSyntax, Detail: "padding longer than its payload"}
	}
	return sealed[:len(sealed)-1-padding], nil
}

// scratch holds plaintext for as long as it is not known to be genuine: the standard library's AEADs destroy their
// destination when the checksum is wrong, and the packet must survive that.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

// openAEAD decrypts text, which ends with the checksum, in place.
func (p *protector) openAEAD(text, iv, additional []byte) error {
	aead, err := p.aead()
	if err != nil {
		return err
	}
	var nonce [12]byte
	p.nonce(&nonce, iv)
	buffer := scratch.Get().(*[]byte)
	defer scratch.Put(buffer)
	plain, err := aead.Open((*buffer)[:0], nonce[:], text, additional)
	if err != nil {
		return message.ErrIntegrity
	}
	copy(text, plain)
	clear(plain)
	*buffer = plain[:0]
	return nil
}

// aead expands the key of an AEAD.
func (p *protector) aead() (cipher.AEAD, error) {
	key := p.encr[:len(p.encr)-p.cipher.salt]
	if p.cipher.kind == kindChaCha {
		return chacha20poly1305.New(key)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// nonce is salt and IV (RFC 5282, 4; RFC 7634, 2).
func (p *protector) nonce(nonce *[12]byte, iv []byte) {
	copy(nonce[:], p.encr[len(p.encr)-p.cipher.salt:])
	copy(nonce[p.cipher.salt:], iv)
}

// checksum appends the truncated HMAC over everything before it.
func (p *protector) checksum(b, packet []byte) []byte {
	mac := hmac.New(prfOf(p.auth.prf).hash, p.integ)
	mac.Write(packet)
	var sum [64]byte
	return append(b, mac.Sum(sum[:0])[:p.auth.icv]...)
}

func (p *protector) zero() { p.encr, p.integ = nil, nil }
