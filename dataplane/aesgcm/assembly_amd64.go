package aesgcm

//go:generate go run -C ../../tools/asmgen . ../../dataplane

// The assembly takes the ops from the first on and returns how many of them went well. It
// sets OK, opening also match, and leaves the buffers of those that did not go well to be wiped.

//go:noescape
func sealAESNI(ops *Op, n int) (done int)

//go:noescape
func openAESNI(ops *Op, n int) (done int)

//go:noescape
func sealVAES(ops *Op, n int) (done int)

//go:noescape
func openVAES(ops *Op, n int) (done int)

// These two take packets with min to wideMax bytes of text, and stop in front of the first that has not; taken is the number of those before it.

//go:noescape
func sealAVX512(ops *Op, n, min int) (done, taken int)

//go:noescape
func openAVX512(ops *Op, n, min int) (done, taken int)

// These two take packets in fours, n being a multiple of 4, all with the same key, which can be used, and the same number of bytes of additional
// data, at most AADMax, and of text, from 1 to quadMax. What they put on the stack of keys they wipe.

//go:noescape
func sealQuads(ops *Op, n int) (done int)

//go:noescape
func openQuads(ops *Op, n int) (done int)

// subWord is AES's S-box on each byte of w.
func subWord(w uint32) uint32

// encryptBlock encrypts one block in place, with the round keys of a key.
//
//go:noescape
func encryptBlock(key *Key, block *[16]byte)

// multiply multiplies x by h; both have reversed bytes, and h is divided by x.
//
//go:noescape
func multiply(x, h *[16]byte)

const (
	// wideMax is the longest text that the functions for AVX-512 take: their counter has one byte, and three blocks are not text.
	wideMax = (256 - 3) * 16
	// sealWideMin and openWideMin are the lengths of text from which they are faster than those for two blocks a register
	// (measured on Zen 4, where carry-less multiplication takes as long for four blocks as for one).
	sealWideMin = 81
	openWideMin = 129
	// quadMax is the longest text of packets that are taken in fours, and quadRun the number of packets from which that is faster: what it needs of
	// a key and of the lengths is computed anew for every run of packets.
	quadMax = 10 * 16
	quadRun = 8
)

// assembly is a function that works on ops from the first on.
type assembly func(ops *Op, n int) (done int)

// on works on a batch.
func (f assembly) on(ops []Op) (done int) { return f(&ops[0], len(ops)) }

// wide is an assembly function that works on ops from the first on as long as they have min to wideMax bytes of text.
type wide func(ops *Op, n, min int) (done, taken int)

// takes says whether the function works on an op, given the same minimum.
func (wide) takes(op *Op, min int) bool {
	return uint(len(op.Buf)-TagSize-min) <= uint(wideMax-min)
}

// bySize gives packets with min to wideMax bytes of text to within and others to outside, a run of them at a time.
func bySize(min int, within wide, outside assembly) func([]Op) (done int) {
	return func(ops []Op) (done int) {
		for len(ops) > 0 {
			if within.takes(&ops[0], min) {
				well, taken := within(&ops[0], len(ops), min)
				done, ops = done+well, ops[taken:]
			}
			run := 0
			for run < len(ops) && !within.takes(&ops[run], min) {
				run++
			}
			if run > 0 {
				done += outside.on(ops[:run])
				ops = ops[run:]
			}
		}
		return done
	}
}

// longFirst gives packets that are too long for fours to long as far as a batch begins with them, without a look at each, and all others to others.
func longFirst(long wide, others func([]Op) (done int)) func([]Op) (done int) {
	return func(ops []Op) (done int) {
		if long.takes(&ops[0], quadMax+1) {
			well, taken := long(&ops[0], len(ops), quadMax+1)
			if done, ops = well, ops[taken:]; len(ops) == 0 {
				return done
			}
		}
		return done + others(ops)
	}
}

// inQuads gives runs of at least min packets that are alike to quads, as long as their texts are short enough, and all others to others. As such a
// run has two packets that stand min/2 apart at multiples of that, only those are looked at where there are none.
func inQuads(min int, quads assembly, others func([]Op) (done int)) func([]Op) (done int) {
	step := min / 2
	return func(ops []Op) (done int) {
		for i := step; i < len(ops); i += step {
			op := &ops[i]
			if !quadable(op) || !alike(op, &ops[i-step]) {
				continue
			}
			from, to := i, i+1
			for from > 0 && alike(op, &ops[from-1]) {
				from--
			}
			for to < len(ops) && alike(op, &ops[to]) {
				to++
			}
			n := (to - from) &^ 3
			if n < min {
				continue
			}
			if from > 0 {
				done += others(ops[:from])
			}
			done += quads.on(ops[from : from+n])
			ops, i = ops[from+n:], 0
		}
		if len(ops) > 0 {
			done += others(ops)
		}
		return done
	}
}

// alike says whether two ops have the same key and lengths.
func alike(a, b *Op) bool {
	return a.Key == b.Key && len(a.Buf) == len(b.Buf) && a.AADLen == b.AADLen
}

// quadable says whether the functions for fours can work on an op.
func quadable(op *Op) bool {
	return uint(len(op.Buf)-TagSize-1) < quadMax && op.AADLen <= AADMax && op.Key != nil && op.Key.rounds != 0
}

// openers completes functions that open, in assembly.
func openers(call func(ops []Op) (done int)) (open func([]Op), openTruncated func([]Op, int)) {
	return overBatch(call), func(ops []Op, n int) {
		if len(ops) == 0 {
			return
		}
		for i := range ops {
			ops[i].match = 0 // of one that cannot be worked on nothing is compared
		}
		call(ops)
		want := uint16(1)<<n - 1
		for i := range ops {
			if op := &ops[i]; op.match&want == want {
				op.OK = true
			} else {
				fail(op)
			}
		}
	}
}

// overBatch completes a function in assembly.
func overBatch(call func(ops []Op) (done int)) func([]Op) {
	return func(ops []Op) {
		if len(ops) == 0 || call(ops) == len(ops) {
			return
		}
		for i := range ops {
			if !ops[i].OK {
				fail(&ops[i])
			}
		}
	}
}
