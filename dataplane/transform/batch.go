package transform

import (
	"encoding/binary"
	"math/bits"

	"sallyport/dataplane/aesgcm"
)

// BatchMax is the largest number of ops that [Batch] takes in one piece; longer
// slices are worked on in pieces of this length.
const BatchMax = 64

// PacketMax is the longest packet, in bytes, of suites that cannot work in place: those of GMAC and of truncated tags. Their
// longer packets fail.
const PacketMax = 9216

// headerLen is the length of SPI and sequence number.
const headerLen = 8

// Op is one ESP packet to seal or to open.
type Op struct {
	// Key is the key of the association's direction. Ops may share it.
	Key *Key
	// Packet reaches from the SPI to the end of the ICV. Nothing outside it is read or written.
	Packet []byte
	// Counter is the value of the association's IV generator: never used twice with a key.
	// It becomes the IV of AEAD suites and, encrypted, that of CBC. Open does not look at it.
	Counter uint64
	// SeqHi is the upper half of the extended sequence number, authenticated if ESN is set
	// but not sent (RFC 4303, 2.2.1).
	SeqHi uint32
	ESN   bool
	// OK is the result. If it is false, the packet behind SPI and sequence number was wiped.
	OK bool
}

// Batch holds the per-worker scratch of the batch calls. One goroutine uses it
// at a time. It must live on the heap and be made once.
type Batch struct {
	from [BatchMax]uint8 // index of the op behind gcm[i]
	// gcm has something in front of it: assembly reads with masks from 28 bytes in front of an op on, and where the page there is missing that
	// takes 150 ns.
	gcm [BatchMax]aesgcm.Op
	// scratch holds a packet that cannot be worked on in place.
	scratch [PacketMax + aesgcm.TagSize]byte
}

// Seal writes IV, ciphertext and ICV of each packet in place.
func (b *Batch) Seal(ops []Op) {
	for len(ops) > BatchMax {
		b.seal(ops[:BatchMax])
		ops = ops[BatchMax:]
	}
	b.seal(ops)
}

// Open verifies and decrypts each packet in place.
func (b *Batch) Open(ops []Op) {
	for len(ops) > BatchMax {
		b.open(ops[:BatchMax])
		ops = ops[BatchMax:]
	}
	b.open(ops)
}

// GCM returns op i, below BatchMax, of a batch that is AES-GCM from one end to the other, for [GCMRun.Put].
func (b *Batch) GCM(i int) *aesgcm.Op { return &b.gcm[i&(BatchMax-1)] }

// GCMOps returns the ops from i on, below BatchMax.
func (b *Batch) GCMOps(i int) []aesgcm.Op { return b.gcm[i&(BatchMax-1):] }

// GCMRun is what packets for one key of AES-GCM, one after the other, have in common. Assembly knows its layout.
type GCMRun struct {
	key    *aesgcm.Key
	salt   uint32
	spi    uint32
	aadLen uint8
}

// RunOf returns the run of a key, for which k.GCM() is true; spi is as it stands in the packet, read as a little-endian word.
func RunOf(k *Key, spi uint32, esn bool) GCMRun {
	r := GCMRun{&k.gcm, binary.LittleEndian.Uint32(k.salt()[:]), spi, 8}
	if esn {
		r.aadLen = 12
	}
	return r
}

// SPI returns the SPI as [RunOf] got it.
func (r *GCMRun) SPI() uint32 { return r.spi }

// Put makes g the op of the packet with an IV, as it stands in the packet, read as a little-endian word, and with sequence number seq. text
// reaches from behind the IV to the end of the ICV; IV, and what stands in front of it, are the caller's.
func (r *GCMRun) Put(g *aesgcm.Op, text []byte, iv, seq uint64) {
	binary.LittleEndian.PutUint32(g.Nonce[0:], r.salt)
	binary.LittleEndian.PutUint64(g.Nonce[4:], iv)
	word := bits.ReverseBytes64(seq) // both halves of the extended sequence number
	if r.aadLen == 8 {
		word >>= 32
	}
	binary.LittleEndian.PutUint32(g.AAD[0:], r.spi)
	binary.LittleEndian.PutUint64(g.AAD[4:], word)
	g.AADLen, g.Key, g.Buf = r.aadLen, r.key, text
}

// putGCM makes op the AES-GCM op i; the IV stands in the packet.
func (b *Batch) putGCM(i int, op *Op) {
	r := RunOf(op.Key, binary.LittleEndian.Uint32(op.Packet), op.ESN)
	seq := uint64(op.SeqHi)<<32 | uint64(binary.BigEndian.Uint32(op.Packet[4:]))
	r.Put(&b.gcm[i], op.Packet[headerLen+ivAEAD:], binary.LittleEndian.Uint64(op.Packet[headerLen:]), seq)
}

// putImplicit makes op the AES-GCM op i; the packet holds no IV.
func (b *Batch) putImplicit(i int, op *Op) {
	fillImplicit(&b.gcm[i], op)
	b.gcm[i].Key = &op.Key.gcm
}

// SealGCM seals the first n ops, and returns how many of them went well. The packet of one that did not is wiped behind its IV.
func (b *Batch) SealGCM(n int) (done int) {
	aesgcm.Seal(b.gcm[:n])
	for i := range b.gcm[:n] {
		if b.gcm[i].OK {
			done++
		}
	}
	return done
}

// OpenGCM opens the first n ops.
func (b *Batch) OpenGCM(n int) { aesgcm.Open(b.gcm[:n]) }

// DoneGCM says whether op i of the last SealGCM or OpenGCM went well.
func (b *Batch) DoneGCM(i int) bool { return b.gcm[i].OK }

// seal sorts the ops in one pass: GCM packets gather for one call, others are
// done at once.
func (b *Batch) seal(ops []Op) {
	n := 0
	for i := range ops {
		op := &ops[i]
		switch kindOf(op) {
		case KindGCM:
			binary.BigEndian.PutUint64(op.Packet[headerLen:], op.Counter)
			b.putGCM(n, op)
			n = b.gather(n, i)
		case KindGCMImplicit:
			b.putImplicit(n, op)
			n = b.gather(n, i)
		case KindChaCha:
			binary.BigEndian.PutUint64(op.Packet[headerLen:], op.Counter)
			fillAEAD(&b.gcm[n], op)
			sealChaCha(&b.gcm[n], op)
		case KindChaChaImplicit:
			fillImplicit(&b.gcm[n], op)
			sealChaCha(&b.gcm[n], op)
		case KindGCMShort:
			b.sealShort(b.gcm[n:n+1], op)
		case KindGMAC:
			b.sealGMAC(&b.gcm[n], op)
		case KindCBC, KindNull:
			sealMAC(op)
		default:
			fail(op)
		}
	}
	aesgcm.Seal(b.gcm[:n])
	b.collect(ops, n)
}

func (b *Batch) open(ops []Op) {
	n := 0
	for i := range ops {
		op := &ops[i]
		switch kindOf(op) {
		case KindGCM:
			b.putGCM(n, op)
			n = b.gather(n, i)
		case KindGCMImplicit:
			b.putImplicit(n, op)
			n = b.gather(n, i)
		case KindChaCha:
			fillAEAD(&b.gcm[n], op)
			openChaCha(&b.gcm[n], op)
		case KindChaChaImplicit:
			fillImplicit(&b.gcm[n], op)
			openChaCha(&b.gcm[n], op)
		case KindGCMShort:
			b.openShort(b.gcm[n:n+1], op)
		case KindGMAC:
			b.openGMAC(&b.gcm[n], op)
		case KindCBC, KindNull:
			openMAC(op)
		default:
			fail(op)
		}
	}
	aesgcm.Open(b.gcm[:n])
	b.collect(ops, n)
}

// gather says that GCM op n is that of op i, and returns the number of GCM ops.
func (b *Batch) gather(n, i int) int {
	b.from[n] = uint8(i)
	return n + 1
}

// collect copies the results of the n gathered GCM ops back.
func (b *Batch) collect(ops []Op, n int) {
	for i := range n {
		op := &ops[b.from[i]]
		op.OK = b.gcm[i].OK
		if !op.OK {
			fail(op)
		}
	}
}

// kindOf says how to work on an op, KindNone if its key is gone or its packet too short.
func kindOf(op *Op) Kind {
	if op.Key == nil {
		return KindNone
	}
	k, info := op.Key.kind(), op.Key.Suite().Info()
	if len(op.Packet) < headerLen+info.IVLen+info.ICVLen || len(op.Packet) > PacketMax && (k == KindGMAC || k == KindGCMShort) {
		return KindNone
	}
	return k
}

// fail wipes everything behind SPI and sequence number.
func fail(op *Op) {
	if len(op.Packet) > headerLen {
		clear(op.Packet[headerLen:])
	}
	op.OK = false
}
