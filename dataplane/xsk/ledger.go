package xsk

import "sallyport/dataplane/packet"

// ledger has one bit a frame of the UMEM: set while the frame is the kernel's
// by way of one fill and completion ring, that is from Fill or Transmit until
// Receive or Complete. The rings alone do not tell: a driver, a pool's free list
// or an skb may hold a frame that stands in no ring. It belongs to whoever owns
// the rings.
//
// It also guards against a kernel that returns what it was not given (Linux
// 6.17.0 to 6.17.10 corrupts the completion ring in copy mode, CVE-2025-40290):
// such an address is dropped and counted, so no frame ever has two owners.
type ledger struct {
	bits   []uint64
	frames uint64
	held   int
	// faults counts frames given twice and frames returned that were not given.
	faults packet.Counter
}

const frameShift = 12 // log2(packet.FrameSize)

func newLedger(frames int) ledger {
	return ledger{bits: make([]uint64, (frames+63)/64), frames: uint64(frames)}
}

// give notes that the kernel now owns the frame around addr. It reports false,
// and notes nothing, if the kernel owns it already or if there is no such frame.
func (l *ledger) give(addr uint64) bool {
	frame := addr >> frameShift
	if frame >= l.frames || l.bits[frame/64]&(1<<(frame%64)) != 0 {
		l.faults.Add(1)
		return false
	}
	l.bits[frame/64] |= 1 << (frame % 64)
	l.held++
	return true
}

// take notes that the frame around addr is ours again. It reports false if the
// kernel did not own it.
func (l *ledger) take(addr uint64) bool {
	frame := addr >> frameShift
	if frame >= l.frames || l.bits[frame/64]&(1<<(frame%64)) == 0 {
		l.faults.Add(1)
		return false
	}
	l.bits[frame/64] &^= 1 << (frame % 64)
	l.held--
	return true
}

// reclaim empties the ledger and appends the address of every frame in it.
func (l *ledger) reclaim(to []uint64) []uint64 {
	for w, bits := range l.bits {
		for b := uint64(0); bits != 0; b, bits = b+1, bits>>1 {
			if bits&1 != 0 {
				to = append(to, (uint64(w)*64+b)*packet.FrameSize)
			}
		}
		l.bits[w] = 0
	}
	l.held = 0
	return to
}
