// Package crypto measures what sealing and opening a packet costs: each implementation
// of AES-GCM beside the others and beside the standard library, in turn, in one process.
package crypto

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"slices"
	"time"

	"sallyport/bench/result"
	"sallyport/dataplane/aesgcm"
)

// batch is the number of packets of one call, stride the distance of their buffers, and front what lies in front of the first: as
// in a worker's frame memory, where no text begins where memory does.
const (
	batch  = 64
	stride = 2048
	front  = 64
)

// SizeMax is the largest text, in bytes.
const SizeMax = stride - aesgcm.TagSize

// Standard names the standard library's cipher, called packet by packet.
const Standard = "crypto/cipher"

// Names returns what can be measured: the implementations this machine can run, the preferred first, and Standard.
func Names() []string {
	var names []string
	for _, v := range aesgcm.Variants() {
		names = append(names, v.Name)
	}
	return append(names, Standard)
}

// Case is one thing to measure, and what was measured.
type Case struct {
	Name string // one of Names
	Bits int    // of the key: 128, 192, 256
	Size int    // of the text in bytes, 0 to SizeMax
	// Seal and Open are nanoseconds a packet, one for each call of Measure; Cycles of the
	// core in the same order.
	Seal, Open             []float64
	SealCycles, OpenCycles []float64
	subject                subject
}

// subject is what works on a batch.
type subject struct {
	seal, open func([]aesgcm.Op)
	ops        []aesgcm.Op
}

// Prepare makes keys and packets.
func (c *Case) Prepare() error {
	if c.Size < 0 || c.Size > SizeMax {
		return fmt.Errorf("text of %d bytes: 0 to %d are possible", c.Size, SizeMax)
	}
	raw := make([]byte, c.Bits/8)
	ops := make([]aesgcm.Op, batch+1)[1:] // as in a worker, none begins where memory does
	area := make([]byte, (batch+1)*stride)
	for i := range ops {
		ops[i] = aesgcm.Op{AADLen: 8, Buf: area[front+i*stride:][:c.Size+aesgcm.TagSize]}
		ops[i].Nonce[aesgcm.NonceSize-1] = byte(i)
	}
	if c.Name == Standard {
		block, err := aes.NewCipher(raw)
		if err != nil {
			return err
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return err
		}
		c.subject = subject{sealStandard(aead), openStandard(aead), ops}
		return nil
	}
	variants := aesgcm.Variants()
	i := slices.IndexFunc(variants, func(v aesgcm.Variant) bool { return v.Name == c.Name })
	if i < 0 {
		return fmt.Errorf("implementation %q: this machine can run %v", c.Name, Names())
	}
	key := new(aesgcm.Key)
	if err := variants[i].Set(key, raw); err != nil {
		return err
	}
	for j := range ops {
		ops[j].Key = key
	}
	c.subject = subject{variants[i].Seal, variants[i].Open, ops}
	return nil
}

func sealStandard(aead cipher.AEAD) func([]aesgcm.Op) {
	return func(ops []aesgcm.Op) {
		for i := range ops {
			op := &ops[i]
			text := op.Buf[: len(op.Buf)-aesgcm.TagSize : len(op.Buf)]
			aead.Seal(text[:0], op.Nonce[:], text, op.AAD[:op.AADLen])
			op.OK = true
		}
	}
}

func openStandard(aead cipher.AEAD) func([]aesgcm.Op) {
	return func(ops []aesgcm.Op) {
		for i := range ops {
			op := &ops[i]
			_, err := aead.Open(op.Buf[:0:len(op.Buf)], op.Nonce[:], op.Buf, op.AAD[:op.AADLen])
			op.OK = err == nil
		}
	}
}

// Measure takes one sample: it seals and opens the same batch in turn for at least the given
// time; the median batch counts, so that one during which other work had the core does not. It
// fails if a packet does not open to what was sealed.
func (c *Case) Measure(atLeast time.Duration) error {
	s := &c.subject
	var sealing, opening []float64
	hertz := frequency()
	for begin := time.Now(); len(sealing) == 0 || time.Since(begin) < atLeast; {
		start := time.Now()
		s.seal(s.ops)
		middle := time.Now()
		s.open(s.ops)
		end := time.Now()
		sealing = append(sealing, float64(middle.Sub(start).Nanoseconds())/batch)
		opening = append(opening, float64(end.Sub(middle).Nanoseconds())/batch)
	}
	for i := range s.ops {
		if !s.ops[i].OK {
			return fmt.Errorf("%s, %d bits, %d bytes: packet %d does not open", c.Name, c.Bits, c.Size, i)
		}
	}
	hertz = max(hertz, frequency())
	sample := func(all, cycles *[]float64, batches []float64) {
		ns := result.Median(batches)
		*all = append(*all, ns)
		*cycles = append(*cycles, ns*hertz/1e9)
	}
	sample(&c.Seal, &c.SealCycles, sealing)
	sample(&c.Open, &c.OpenCycles, opening)
	return nil
}

// Run prepares the cases and measures them in turn. next is told what comes.
func Run(ctx context.Context, cases []*Case, rounds result.Rounds, atLeast time.Duration, next func(string)) error {
	for _, c := range cases {
		if err := c.Prepare(); err != nil {
			return err
		}
		if err := c.Measure(0); err != nil { // warms caches and pages
			return err
		}
		c.Seal, c.Open, c.SealCycles, c.OpenCycles = nil, nil, nil, nil
	}
	unstable := func(i int) bool { return result.Unsteady(cases[i].Seal, cases[i].Open) }
	for list := rounds.Next(len(cases), unstable); len(list) > 0; list = rounds.Next(len(cases), unstable) {
		for _, i := range list {
			c := cases[i]
			if ctx.Err() != nil {
				return ctx.Err()
			}
			next(fmt.Sprintf("%s, %d bits, %d bytes", c.Name, c.Bits, c.Size))
			if err := c.Measure(atLeast); err != nil {
				return err
			}
		}
	}
	return nil
}
