// Package replay is the anti-replay window of RFC 4303, 3.4.3, with the
// inference of extended sequence numbers of its appendix A2.2.
//
// The window is the sequence numbers from Top-Size+1 to Top. Their bits stand in a
// ring of whole words, at least Size bits, a power of two: the bit of a number is number
// mod the ring's length. Moving the top clears the bits that it passes, so nothing is
// ever shifted (the idea of RFC 6479, with masks in place of its spare word). The bits lie
// in words that the caller provides, so a window holds no pointer.
//
// The last numbers up to the top that came without a gap are the run. Of a run only the length is kept, and its bits are marked when a
// gap ends it: so packets in order touch no bits at all, whose memory is cold where associations are many.
//
// A packet's way: Infer, Check, authentication, Advance. Only Advance changes the
// window, so a forged packet moves nothing; it checks again, because another packet
// of the same batch may carry the same number. One owner calls; Top may be read by anyone.
// Persistence of windows is not handled here.
package replay

import (
	"math"
	"math/bits"

	"sallyport/dataplane/packet"
)

// Bounds and default of the window size, in sequence numbers. RFC 4303, 3.4.3 has the smallest.
const (
	SizeMin     = 32
	SizeMax     = 65536
	SizeDefault = 4096
)

// Verdict is what a window says of a sequence number.
type Verdict uint8

const (
	// OK says that the number was not seen yet, and lies in the window or ahead of it.
	OK Verdict = iota
	// TooOld says that the number lies left of the window, or is 0, which is never sent.
	TooOld
	// Replayed says that the number was received before.
	Replayed
)

// clip returns the size nearest to size that a window can have.
func clip(size uint32) uint32 { return min(max(size, SizeMin), SizeMax) }

// Words returns how many 64-bit words the ring of a window of size numbers takes: a power of two.
func Words(size uint32) int { return int(ring(clip(size)) / 64) }

// ring returns the length in bits of the ring for a window of size numbers.
func ring(size uint32) uint32 { return max(64, uint32(1)<<bits.Len32(size-1)) }

// Window is the state of one inbound association beside its bits: 16 bytes.
// Make it with [New]. Its methods take the words of bits, always the same and
// zero at first, Words of them.
type Window struct {
	top packet.Counter // highest authenticated sequence number; 0 at first
	// run is how many numbers up to the top were all received and are not marked, at most the ring's length: bits of older ones are not needed any more. What the
	// words hold in their place means nothing.
	run  uint32
	span uint16 // size - 1: how far below the top the oldest number lies
	log  uint8  // binary logarithm of the bits in the ring
	// ESN says that sequence numbers are extended to 64 bits (RFC 4303, 2.2.1).
	ESN bool
}

// New returns a window of size numbers that has seen nothing. A size out of bounds becomes the nearest within.
func New(size uint32, esn bool) Window {
	size = clip(size)
	return Window{log: uint8(bits.TrailingZeros32(ring(size))), span: uint16(size - 1), ESN: esn}
}

// Top returns the highest sequence number that was authenticated, 0 if none was.
// Anyone may call it.
func (w *Window) Top() uint64 { return w.top.Load() }

// Size returns the window's size in sequence numbers.
func (w *Window) Size() uint32 { return uint32(w.span) + 1 }

// Words returns how many words of bits the window takes.
func (w *Window) Words() int { return int(w.ring() / 64) }

// ring returns the number of bits in the ring.
func (w *Window) ring() uint32 { return 1 << (w.log & 31) }

// at returns where the bit of a sequence number is.
func (w *Window) at(seq uint64) (word, bit uint32) {
	n := uint32(seq) & (w.ring() - 1)
	return n / 64, n % 64
}

// Infer returns the sequence number of a packet that carries lo. Without ESN it
// is lo. With ESN the upper half is the one that puts the number into the window
// or closest ahead of it (RFC 4303, A2.2). Two cases that the appendix leaves open: below the
// first subspace there is nothing, so a number that would fall there lies ahead
// in the first; and behind the last subspace there is nothing, which gives 0.
func (w *Window) Infer(lo uint32) uint64 {
	if !w.ESN {
		return uint64(lo)
	}
	top := w.top.Load()
	hi, topLo := uint32(top>>32), uint32(top)
	span := uint32(w.span)
	bottom := topLo - span // mod 2^32
	if topLo >= span {     // case A: the window lies in one subspace
		if lo < bottom {
			if hi == 1<<32-1 {
				return 0
			}
			hi++
		}
	} else if lo >= bottom && hi != 0 { // case B: it spans two
		hi--
	}
	return uint64(hi)<<32 | uint64(lo)
}

// Check says whether a packet with sequence number seq is worth authenticating.
// It changes nothing.
func (w *Window) Check(words []uint64, seq uint64) Verdict {
	top := w.top.Load()
	if seq > top {
		return OK
	}
	if seq == 0 || top-seq > uint64(w.span) {
		return TooOld
	}
	if top-seq < uint64(w.run) {
		return Replayed
	}
	if word, bit := w.at(seq); words[word]>>bit&1 != 0 {
		return Replayed
	}
	return OK
}

// Advance checks seq once more and, if the verdict is OK, marks it as received,
// moving the window if it lies ahead. Only for a packet that was authenticated.
func (w *Window) Advance(words []uint64, seq uint64) Verdict {
	v := w.Check(words, seq)
	if v != OK {
		return v
	}
	top := w.top.Load()
	switch {
	case seq == top+1:
		w.Follow(seq)
		return OK
	case seq < top:
		word, bit := w.at(seq)
		words[word] |= 1 << bit
		return OK
	case seq-top >= uint64(w.ring()):
		clear(words[:w.ring()/64])
	default:
		if w.run > 0 {
			w.change(words, uint32(top)-w.run+1, uint32(top), math.MaxUint64)
		}
		w.change(words, uint32(top+1), uint32(seq-1), 0)
	}
	w.run = 1
	w.top.Add(seq - top)
	return OK
}

// Follow says that the numbers behind the top up to a new one were authenticated, as Advance does for numbers that follow the top one by one, which most do.
func (w *Window) Follow(top uint64) {
	w.run = uint32(min(uint64(w.run)+top-w.top.Load(), uint64(w.ring())))
	w.top.Set(top)
}

// Ahead returns what tells many packets that lie ahead of the window at a glance: one that carries a number above lo has the sequence
// number whose upper half is hi<<32, and Check says OK of it; of others Infer and Check are to be asked. It is good while the window stays.
func (w *Window) Ahead() (hi uint64, lo uint32) {
	top := w.top.Load()
	if hi = top &^ math.MaxUint32; hi != 0 && uint32(top) < uint32(w.span) { // the window reaches back into the subspace before
		return 0, math.MaxUint32
	}
	return hi, uint32(top)
}

// change sets the bits of the numbers from first to last, not more than the ring has, to those of value, all ones or all zeros.
func (w *Window) change(words []uint64, first, last uint32, value uint64) {
	i, low := w.at(uint64(first))
	end, high := w.at(uint64(last))
	from := ^uint64(0) << low          // bits from first up
	until := ^uint64(0) >> (63 - high) // bits up to last
	if i == end && low <= high {
		words[i] = words[i]&^(from&until) | value&from&until
		return
	}
	words[i] = words[i]&^from | value&from
	for i = w.next(i); i != end; i = w.next(i) {
		words[i] = value
	}
	words[end] = words[end]&^until | value&until
}

// next returns the index of the word behind word i in the ring.
func (w *Window) next(i uint32) uint32 { return (i + 1) & (w.ring()/64 - 1) }
