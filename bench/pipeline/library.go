package pipeline

import (
	"crypto/cipher"
	"fmt"
	"time"

	"sallyport/dataplane/transform"
)

// Library is what the standard library and x/crypto take for the ciphers alone: the same texts, as many and as long as a rig's packets of one
// suite, one call after the other, and nothing of a gateway. Truncated tags are whole here, since the library has no others that are shorter
// than twelve bytes.
type Library struct {
	far      farEnd
	decrypt  bool
	packets  []libraryPacket
	encipher cbc // nil without CBC
	decipher cbc
	sum      []byte
}

// libraryPacket is an ESP packet in parts of one buffer.
type libraryPacket struct {
	covered []byte // SPI to next header
	iv      []byte
	text    []byte // between IV and ICV, with capacity for a whole tag
	sealed  []byte // text and tag
}

// cbc is a CBC mode that takes a new IV; both of the standard library's do.
type cbc interface {
	cipher.BlockMode
	SetIV([]byte)
}

// NewLibrary prepares the packets of a rig with these options, of which direction, suite, sizes and number of packets count.
func NewLibrary(o Options) (*Library, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	l := &Library{decrypt: o.Decrypt}
	if err := l.far.init(o.Suite, make([]byte, o.Suite.Info().KeyLen)); err != nil {
		return nil, err
	}
	if l.far.block != nil {
		var zero [16]byte
		l.encipher = cipher.NewCBCEncrypter(l.far.block, zero[:]).(cbc)
		l.decipher = cipher.NewCBCDecrypter(l.far.block, zero[:]).(cbc)
	}
	for i := range o.Packets {
		n := l.far.sealedLen(o.Sizes[i%len(o.Sizes)]) - l.far.icvLen
		b := make([]byte, n+transform.ICVMax)
		b[espHeader+l.far.ivLen] = byte(i)
		p := libraryPacket{covered: b[:n], iv: b[espHeader : espHeader+l.far.ivLen], text: b[espHeader+l.far.ivLen : n]}
		if l.far.aead != nil {
			p.sealed = b[espHeader+l.far.ivLen : n+l.far.aead.Overhead()]
		}
		l.packets = append(l.packets, p)
	}
	return l, nil
}

// seal does with one packet what the sender of its suite does.
func (l *Library) seal(p *libraryPacket) {
	f := &l.far
	switch {
	case f.gmac:
		f.aead.Seal(p.covered[len(p.covered):], f.nonce[:], nil, p.covered)
	case f.aead != nil:
		f.aead.Seal(p.text[:0], f.nonce[:], p.text, f.aad[:])
	default:
		if l.encipher != nil {
			l.encipher.SetIV(p.iv)
			l.encipher.CryptBlocks(p.text, p.text)
		}
		l.authenticate(p)
	}
}

// open does what the receiver does, but for the comparison of MACs.
func (l *Library) open(p *libraryPacket) (err error) {
	f := &l.far
	switch {
	case f.gmac:
		_, err = f.aead.Open(nil, f.nonce[:], p.sealed[len(p.text):], p.covered)
	case f.aead != nil:
		_, err = f.aead.Open(p.text[:0], f.nonce[:], p.sealed, f.aad[:])
	default:
		l.authenticate(p)
		if l.decipher != nil {
			l.decipher.SetIV(p.iv)
			l.decipher.CryptBlocks(p.text, p.text)
		}
	}
	return err
}

func (l *Library) authenticate(p *libraryPacket) {
	l.far.mac.Reset()
	l.far.mac.Write(p.covered)
	l.sum = l.far.mac.Sum(l.sum[:0])
}

// Measure seals or opens packets until so much time has passed. To be opened again they are sealed anew, outside what is timed.
func (l *Library) Measure(atLeast time.Duration) (Sample, error) { return l.measure(atLeast, 0) }

// MeasureOn is Measure on one CPU, watched by a witness as a worker's is.
func (l *Library) MeasureOn(cpu int, w *Witness, atLeast time.Duration) (s Sample, err error) {
	limit, err := w.limit([]int{cpu})
	if err != nil {
		return s, err
	}
	err = OnCore(cpu, func() (err error) {
		s, err = l.measure(atLeast, limit)
		return err
	})
	return s, err
}

func (l *Library) measure(atLeast time.Duration, limit float64) (Sample, error) {
	var s Sample
	rounds := rounds{limit: limit}
	for s.Packets == 0 || s.Elapsed < atLeast {
		if l.decrypt {
			for i := range l.packets {
				l.seal(&l.packets[i])
			}
		}
		rounds.begin()
		began := time.Now()
		for i := range l.packets {
			if !l.decrypt {
				l.seal(&l.packets[i])
			} else if err := l.open(&l.packets[i]); err != nil {
				return s, fmt.Errorf("packet %d does not open: %w", i, err)
			}
		}
		took := time.Since(began)
		rounds.add(float64(took) / float64(len(l.packets)))
		s.Elapsed += took
		s.Packets += len(l.packets)
	}
	rounds.into(&s)
	return s, nil
}
