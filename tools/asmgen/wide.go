package main

import (
	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// wide writes seal and open with four blocks a register and AVX-512's masks. Counters, text and what GHASH takes stand in
// the same lanes, T(i) being block i of the text of n blocks:
//
//	lane          0      1        2     3    ...  n+1    n+2
//	counter       0      1        2     3    ...  n+1    -
//	key stream    -      for tag  T(1)  T(2) ...  T(n)   -
//	GHASH         zero   AAD      T(1)  T(2) ...  T(n)   lengths
//	power of H    -      n+2      n+1   n    ...  2      1
//
// So there is one kind of register only, the text is loaded from 32 bytes before its start on, and the additional data and the tag's key stream
// cost nothing of their own. What a mask leaves out is not touched. A packet is groups of 16 lanes while there are
// more than 16, in which AES and GHASH are mixed, and an end of 1 to 16 lanes, written out for each number of registers.
//
// AES takes four cycles a round; four registers keep its units busy meanwhile. On Zen 4 a carry-less multiplication takes as
// long for four blocks as for one, and a broadcast from memory takes a unit that AES wants, so the round keys stay in registers,
// also from one packet to the next.
type wide struct {
	*build.Context
	c    wideConstants
	open bool
	n    int // of labels

	op, left, done, key, twiceRounds, ahead reg.GPVirtual
	text, end, lanes                        reg.GPVirtual    // lane 0 of what is left, bytes of text from there, number of lanes
	keys                                    []reg.VecVirtual // of rounds 1 to 9 and of the last
	folds                                   []reg.VecVirtual // of powers of H, for pairs
	base                                    reg.VecVirtual   // what the counter is added to, all lanes alike: nonce and the whitening key
	counter                                 reg.VecVirtual   // that of the group's first lane, in all lanes
	aad, y0, hash                           reg.VecVirtual   // register 0 without text; the tag's key stream; GHASH before lane 0
	nonce, first                            reg.OpmaskVirtual
}

type wideConstants struct {
	swap, poly, group operand.Mem
	step              []operand.Mem // step[i]: counters of register i
	lengths           operand.Mem   // for each lane, VPSHUFB: two 32-bit words into the block there
}

const (
	laneMax  = 16     // lanes of a group
	lanes4   = 4      // lanes of a register
	register = 64     // bytes
	frontLen = 2 * 16 // bytes of the lanes in front of the text
	// wideMax is the longest text: a counter has one byte.
	wideMax = (256 - 3) * block
)

// pairs are the registers of a group in the order in which they are hashed: what the last group's hash is added to comes last.
var pairs = [...][2]int{{1, 2}, {3, 0}}

// inLanes repeats the words of a block four times.
func inLanes(lo, hi uint64) []uint64 { return []uint64{lo, hi, lo, hi, lo, hi, lo, hi} }

func (g *wide) constants() {
	g.c.swap = table(g.Context, "wideSwap", inLanes(0x08090a0b0c0d0e0f, 0x0001020304050607)...)
	g.c.poly = table(g.Context, "widePoly", inLanes(0xc2<<56, 0xc2<<56)...)
	g.c.group = table(g.Context, "wideGroup", inLanes(0, laneMax<<56)...)
	var steps, lengths []uint64
	for i := range uint64(laneMax) {
		steps = append(steps, 0, i<<56)
	}
	base := table(g.Context, "wideSteps", steps...)
	for i := range laneMax / lanes4 {
		g.c.step = append(g.c.step, base.Offset(i*register))
	}
	const none = 0x8080808080808080
	for lane := range lanes4 {
		for i := range lanes4 {
			if i == lane {
				lengths = append(lengths, 0x8080808003020100, 0x8080808007060504)
			} else {
				lengths = append(lengths, none, none)
			}
		}
	}
	g.c.lengths = table(g.Context, "wideLengths", lengths...)
}

// aesgcmWide writes both functions.
func aesgcmWide(c *build.Context) {
	g := &wide{Context: c}
	c.ConstraintExpr("amd64")
	g.constants()
	for _, open := range []bool{false, true} {
		g.open = open
		name := "sealAVX512"
		if open {
			name = "openAVX512"
		}
		g.function(name)
	}
}

func (g *wide) label(what string) string {
	g.n++
	return what + string(rune('A'+g.n/26%26)) + string(rune('a'+g.n%26))
}

func (g *wide) function(name string) {
	g.Function(name)
	g.Attributes(attr.NOSPLIT)
	g.SignatureExpr("func(ops *byte, n int) (done int)")
	for _, r := range []*reg.GPVirtual{&g.op, &g.left, &g.done, &g.key, &g.twiceRounds, &g.ahead, &g.text, &g.end, &g.lanes} {
		*r = g.GP64()
	}
	g.base, g.counter, g.aad, g.y0, g.hash = g.ZMM(), g.ZMM(), g.ZMM(), g.XMM(), g.XMM()
	g.keys, g.folds = nil, nil
	for range 10 {
		g.keys = append(g.keys, g.ZMM())
	}
	for range pairs {
		g.folds = append(g.folds, g.ZMM())
	}
	g.nonce, g.first = g.K(), g.K()
	g.Load(g.Param("ops"), g.op)
	g.Load(g.Param("n"), g.left)
	g.XORL(g.done.As32(), g.done.As32())
	g.TESTQ(g.left, g.left)
	g.JZ(to("end"))
	g.Comment("Masks: the nonce, by 4 bytes; the lanes behind the first two, by bytes.")
	m := g.GP64()
	g.MOVL(operand.U32(0x7777), m.As32())
	g.KMOVD(m.As32(), g.nonce)
	g.MOVQ(operand.I64(-1<<frontLen), m)
	g.KMOVQ(m, g.first)
	g.XORL(g.key.As32(), g.key.As32())
	g.XORL(g.twiceRounds.As32(), g.twiceRounds.As32())
	for _, k := range append(g.keys, g.folds...) {
		g.VPXORQ(k, k, k)
	}

	g.Label("packet")
	g.CMPQ(at(g.op, opKey), g.key)
	g.JE(to("sameKey"))
	g.MOVQ(at(g.op, opKey), g.key)
	g.XORL(g.twiceRounds.As32(), g.twiceRounds.As32())
	g.TESTQ(g.key, g.key)
	g.JZ(to("refuse"))
	g.MOVL(at(g.key, keyRounds), g.twiceRounds.As32())
	g.ADDL(g.twiceRounds.As32(), g.twiceRounds.As32())
	for i, k := range g.keys[:9] {
		g.VBROADCASTI32X4(round(g.key, i+1), k)
	}
	g.VBROADCASTI32X4(round(g.key, 0).Idx(g.twiceRounds, 8), g.keys[9])
	for k, f := range g.folds {
		var h [2]reg.VecVirtual
		for j, i := range pairs[k] {
			h[j] = g.ZMM()
			g.VMOVDQU64(at(g.key, keyPowers+i*register), h[j])
		}
		g.fold(h[0], h[1], f)
	}
	g.Label("sameKey")
	g.TESTL(g.twiceRounds.As32(), g.twiceRounds.As32())
	g.JZ(to("refuse"))
	aadLen := g.GP64()
	g.MOVBQZX(at(g.op, opAADLen), aadLen)
	g.CMPL(aadLen.As32(), operand.U8(aadMax))
	g.JA(to("refuse"))
	g.MOVQ(at(g.op, opLen), g.end)
	g.SUBQ(operand.U32(tagSize), g.end)
	g.CMPQ(g.end, operand.U32(wideMax))
	g.JA(to("refuse"))
	g.MOVQ(at(g.op, opBuf), g.text)
	g.SUBQ(operand.U8(frontLen), g.text)
	g.LEAQ(at(g.end, block-1), g.lanes)
	g.SHRQ(operand.U8(4), g.lanes)
	g.ADDQ(operand.U8(3), g.lanes)
	g.ADDQ(operand.U8(frontLen), g.end)

	whitening, ones, mask := g.ZMM(), g.GP64(), g.K()
	g.VBROADCASTI32X4_Z(at(g.op, opNonce), g.nonce, g.base)
	g.VBROADCASTI32X4(round(g.key, 0), whitening)
	g.VPXORQ(whitening, g.base, g.base)
	g.MOVL(operand.U32(0xffffffff), ones.As32())
	g.BZHIL(aadLen.As32(), ones.As32(), ones.As32())
	g.SHLL(operand.U8(block), ones.As32())
	g.KMOVQ(ones, mask)
	g.VMOVDQU8_Z(at(g.op, opAAD-block), mask, g.aad)

	after := g.label("groups")
	g.CMPQ(g.lanes, operand.U8(laneMax))
	g.JA(to(after))
	g.search(1, laneMax/lanes4, func(n int) { g.finish(n, true, nil) })
	g.Label(after)
	g.groups()

	g.Label("refuse")
	g.MOVB(operand.U8(0), at(g.op, opOK))
	g.Label("next")
	g.ADDQ(operand.U32(opSize), g.op)
	g.DECQ(g.left)
	g.JNZ(to("packet"))
	g.Label("end")
	g.VZEROUPPER()
	g.Store(g.done, g.Return("done"))
	g.RET()
}

// search branches by the number of registers that the lanes left take; each branch ends the packet.
func (g *wide) search(from, last int, end func(registers int)) {
	if from == last {
		g.Commentf("An end of %d registers.", from)
		end(from)
		g.JMP(to("next"))
		return
	}
	middle := (from + last) / 2
	upper := g.label("registers")
	g.CMPQ(g.lanes, operand.U8(middle*lanes4))
	g.JA(to(upper))
	g.search(from, middle, end)
	g.Label(upper)
	g.search(middle+1, last, end)
}

// encrypt returns the steps that make key stream, n registers. first says that the group's first lane is lane 0.
func (g *wide) encrypt(n int, first bool) (states []reg.VecVirtual, steps []step) {
	for range n {
		states = append(states, g.ZMM())
	}
	each := func(k reg.Register) step {
		return func() {
			for _, s := range states {
				g.VAESENC(k, s, s)
			}
		}
	}
	steps = append(steps, func() {
		base := g.base
		if !first {
			base = g.ZMM()
			g.VPXORQ(g.counter, g.base, base)
		}
		for i, s := range states {
			g.VPXORQ(g.c.step[i], base, s)
		}
	})
	for _, k := range g.keys[:9] {
		steps = append(steps, each(k))
	}
	return states, append(steps, func() {
		last := g.label("lastRound")
		more := func(i int) {
			k := g.ZMM()
			g.VBROADCASTI32X4(round(g.key, i), k)
			each(k)()
		}
		g.CMPL(g.twiceRounds.As32(), operand.U32(2*12))
		g.JB(to(last))
		more(10)
		more(11)
		g.JE(to(last))
		more(12)
		more(13)
		g.Label(last)
		for _, s := range states {
			g.VAESENCLAST(g.keys[9], s, s)
		}
	})
}

// wideSum is a sum of products, not reduced, in each lane: low + middle * x^64 + high * x^128.
type wideSum struct{ low, middle, high addends }

// addends are registers to be added up.
type addends []reg.VecVirtual

// add adds a * b to the sum; half says which halves of the two.
func (g *wide) add(s *addends, half int, a, b operand.Op) {
	p := g.ZMM()
	g.VPCLMULQDQ(imm(half), b, a, p)
	*s = append(*s, p)
	if len(*s) == 3 {
		*s = addends{g.total(*s...)}
	}
}

// total returns the sum of two or three registers in the first.
func (g *wide) total(a ...reg.VecVirtual) reg.VecVirtual {
	if len(a) == 3 {
		g.VPTERNLOGQ(imm(0x96), a[2], a[1], a[0])
	} else if len(a) == 2 {
		g.VPXORQ(a[1], a[0], a[0])
	}
	return a[0]
}

// multiply returns the steps that add a * h to s.
func (g *wide) multiply(s *wideSum, a reg.VecVirtual, h operand.Op) []step {
	return []step{
		func() { g.add(&s.low, 0x00, a, h) },
		func() { g.add(&s.high, 0x11, a, h) },
		func() { g.add(&s.middle, 0x01, a, h) },
		func() { g.add(&s.middle, 0x10, a, h) },
	}
}

// multiplyPair returns the steps that add a[0] * h[0] + a[1] * h[1] to s by Karatsuba's way, for which folded is of h: the middle is left holding low and high, too.
func (g *wide) multiplyPair(s *wideSum, a [2]reg.VecVirtual, h [2]operand.Mem, folded reg.VecVirtual) []step {
	var f reg.VecVirtual
	return []step{
		func() { g.add(&s.low, 0x00, a[0], h[0]) },
		func() { g.add(&s.high, 0x11, a[0], h[0]) },
		func() { g.add(&s.low, 0x00, a[1], h[1]) },
		func() { f = g.ZMM(); g.fold(a[0], a[1], f); g.add(&s.middle, 0x00, f, folded) },
		func() { g.add(&s.high, 0x11, a[1], h[1]) },
		func() { g.add(&s.middle, 0x11, f, folded) },
	}
}

// fold makes the halves of f the sums of a's halves and of b's, lane by lane.
func (g *wide) fold(a, b, f reg.VecVirtual) {
	upper := g.ZMM()
	g.VPUNPCKHQDQ(b, a, upper)
	g.VPUNPCKLQDQ(b, a, f)
	g.VPXORQ(upper, f, f)
}

// reduce returns the steps that turn s into one block, in x; see [generator.reduce]. folded says that s was made by Karatsuba's way.
func (g *wide) reduce(s *wideSum, folded bool, x reg.VecVirtual) []step {
	half := func(from reg.VecVirtual, into ...reg.VecVirtual) reg.VecVirtual {
		t := g.ZMM()
		g.VPCLMULQDQ(imm(0x00), g.c.poly, from, t)
		g.VPSHUFD(imm(0x4e), from, from)
		return g.total(g.total(append(into, t)...), from)
	}
	var low, middle, high reg.VecVirtual
	return []step{
		func() { low, high = g.total(s.low...), g.total(s.high...) },
		func() {
			middle = g.total(s.middle...)
			if folded {
				middle = g.total(middle, low, high)
			}
		},
		func() { middle = half(low, middle) },
		func() { high = half(middle, high) },
		func() {
			upper := g.YMM()
			g.VEXTRACTI64X4(imm(1), high, upper)
			g.VPXORQ(high.AsY(), upper, upper)
			g.VEXTRACTI32X4(imm(1), upper, x)
			g.VPXORQ(upper.AsX(), x, x)
		},
	}
}

// place is register i of what is left.
func (g *wide) place(i int) operand.Mem { return at(g.text, i*register) }

// load reads a register of text, what the mask leaves out as zeros.
func (g *wide) load(from operand.Op, mask reg.Register) reg.VecVirtual {
	d := g.ZMM()
	if mask != nil {
		g.VMOVDQU8_Z(from, mask, d)
	} else {
		g.VMOVDQU64(from, d)
	}
	return d
}

func (g *wide) store(d reg.VecVirtual, mask reg.Register, to operand.Mem) {
	if mask != nil {
		g.VMOVDQU8(d, mask, to)
	} else {
		g.VMOVDQU64(d, to)
	}
}

// hashed makes into what GHASH takes of a register of ciphertext. Beside register 0 of all stand the additional data.
func (g *wide) hashed(c reg.VecVirtual, mask reg.Register, front bool, into reg.VecVirtual) {
	switch {
	case front:
		g.VMOVDQU8(c, mask, g.aad)
		c = g.aad
	case mask != nil && !g.open:
		g.VMOVDQU8_Z(c, mask, into)
		c = into
	}
	g.VPSHUFB(g.c.swap, c, into)
}

// keep returns a mask of the text in register i, which its index's first bytes are.
func (g *wide) keep(index reg.GPVirtual, first bool) reg.OpmaskVirtual {
	ones, mask := g.GP64(), g.K()
	g.MOVQ(operand.I64(-1), ones)
	g.BZHIQ(index, ones, ones)
	g.KMOVQ(ones, mask)
	if first {
		g.KANDQ(g.first, mask, mask)
	}
	return mask
}

// groups works off groups until 1 to 16 lanes are left, and these.
func (g *wide) groups() {
	const n = laneMax / lanes4
	g.Comment("The next packet's lines, the last packet's own, are asked for.")
	none := g.label("noNext")
	g.MOVQ(g.text, g.ahead)
	g.CMPQ(g.left, operand.U8(1))
	g.JE(to(none))
	g.MOVQ(at(g.op, opSize+opBuf), g.ahead)
	g.Label(none)
	g.VPXORQ(g.counter, g.counter, g.counter)

	var texts []reg.VecVirtual // to be hashed
	for range n {
		texts = append(texts, g.ZMM())
	}
	// lastMask is that of a group's last register, whose last block may be partial, if it is the text's last.
	lastMask := func() reg.OpmaskVirtual {
		index, most := g.GP64(), g.GP64()
		g.LEAQ(at(g.end, -(n-1)*register), index)
		g.MOVL(operand.U32(register), most.As32())
		g.CMPQ(index, most)
		g.CMOVQGT(most, index)
		return g.keep(index, false)
	}
	hashing := func() (steps []step) {
		var s wideSum
		for k, pair := range pairs {
			if pair[1] == 0 {
				steps = append(steps, func() { g.VPXORQ(g.hash.AsZ(), texts[0], texts[0]) }) // the lanes above are zero in it
			}
			steps = append(steps, g.multiplyPair(&s, [2]reg.VecVirtual{texts[pair[0]], texts[pair[1]]},
				[2]operand.Mem{at(g.key, keyPowers+pair[0]*register), at(g.key, keyPowers+pair[1]*register)}, g.folds[k])...)
		}
		return append(steps, g.reduce(&s, true, g.hash)...)
	}
	group := func(front bool, mix []step) {
		mask := func(last reg.Register, i int) reg.Register {
			switch {
			case front && i == 0:
				return g.first
			case i == n-1:
				return last
			}
			return nil
		}
		last := lastMask()
		if g.open {
			var take []step
			for i := range n {
				take = append(take, func() {
					g.hashed(g.load(g.place(i), mask(last, i)), mask(last, i), front && i == 0, texts[i])
				})
			}
			mix = append(take, mix...)
		}
		states, encrypt := g.encrypt(n, front)
		together(encrypt, mix)
		if front {
			g.VEXTRACTI32X4(imm(1), states[0], g.y0)
		}
		for i, s := range states {
			if mask(last, i) != nil {
				g.VPXORQ(g.load(g.place(i), mask(last, i)), s, s)
			} else {
				g.VPXORQ(g.place(i), s, s)
			}
			g.store(s, mask(last, i), g.place(i))
			if !g.open {
				g.hashed(s, mask(last, i), front && i == 0, texts[i])
			}
		}
		g.VPADDD(g.c.group, g.counter, g.counter)
		for line := 0; line < n*register; line += 64 {
			g.PREFETCHT0(at(g.ahead, line))
		}
		g.ADDQ(operand.U32(n*register), g.ahead)
		g.ADDQ(operand.U32(n*register), g.text)
		g.SUBQ(operand.U32(n*register), g.end)
		g.SUBQ(operand.U8(laneMax), g.lanes)
	}
	g.VPXORQ(g.hash, g.hash, g.hash)
	loop, last := g.label("group"), g.label("last")
	if g.open {
		group(true, hashing())
	} else {
		group(true, nil)
	}
	g.CMPQ(g.lanes, operand.U8(laneMax))
	g.JBE(to(last))
	g.Label(loop)
	group(false, hashing())
	g.CMPQ(g.lanes, operand.U8(laneMax))
	g.JA(to(loop))
	g.Label(last)
	g.search(1, n, func(registers int) {
		if g.open {
			g.finish(registers, false, nil)
		} else {
			g.finish(registers, false, hashing())
		}
	})
}

// finish does what is left of a packet, in n registers, and the tag. front says that this is all of the packet; mix are
// steps that have to be done before GHASH goes on.
func (g *wide) finish(n int, front bool, mix []step) {
	g.Comment("The last two registers' bytes that are text: the last one may hold the lengths only.")
	masks := make([]reg.Register, n)
	zero, index := g.GP64(), g.GP64()
	if front {
		masks[0] = g.first
	}
	if n > 1 {
		before := g.GP64()
		g.LEAQ(at(g.end, -(n-2)*register), before)
		masks[n-2] = g.keep(before, front && n == 2)
	}
	g.XORL(zero.As32(), zero.As32())
	g.MOVQ(g.end, index)
	g.SUBQ(operand.U32((n-1)*register), index)
	g.CMOVQLT(zero, index)
	masks[n-1] = g.keep(index, front && n == 1)

	g.Comment("The block of lengths, to be put into the last lane.")
	bits, aadLen, lane := g.GP64(), g.GP64(), g.GP64()
	lengths := g.ZMM()
	g.MOVQ(at(g.op, opLen), bits)
	g.MOVBQZX(at(g.op, opAADLen), aadLen)
	g.SHLQ(operand.U8(32), aadLen)
	g.LEAQ(operand.Mem{Base: bits, Index: aadLen, Scale: 1, Disp: -tagSize}, bits)
	g.SHLQ(operand.U8(3), bits)
	g.VPBROADCASTQ(bits, lengths)
	g.LEAQ(at(g.lanes, -1), lane)
	g.ANDL(operand.U8(lanes4-1), lane.As32())
	g.SHLL(operand.U8(6), lane.As32())
	shuffles := g.GP64()
	g.LEAQ(g.c.lengths, shuffles)
	g.VPSHUFB(operand.Mem{Base: shuffles, Index: lane, Scale: 1}, lengths, lengths)
	g.Comment("The power of H for lane 0. Behind the last lane all is zero, whatever stands behind the powers.")
	powers := g.GP64()
	g.MOVQ(g.lanes, powers)
	g.NEGQ(powers)
	g.SHLQ(operand.U8(4), powers)
	g.ADDQ(g.key, powers)

	var s wideSum
	hash := func(i int, c reg.VecVirtual) []step {
		d := g.ZMM()
		return append([]step{func() {
			g.hashed(c, masks[i], front && i == 0, d)
			switch {
			case i == 0 && !front && n == 1:
				g.VPTERNLOGQ(imm(0x96), lengths, g.hash.AsZ(), d)
			case i == 0 && !front:
				g.VPXORQ(g.hash.AsZ(), d, d)
			case i == n-1:
				g.VPXORQ(lengths, d, d)
			}
		}}, func() { run(g.multiply(&s, d, at(powers, keyPowers+powerMax*block+i*register))) })
	}
	states, encrypt := g.encrypt(n, front)
	x := g.XMM()
	if !g.open {
		together(encrypt, mix)
		if front {
			g.VEXTRACTI32X4(imm(1), states[0], g.y0)
		}
		for i, state := range states {
			c := g.load(g.place(i), masks[i])
			g.VPXORQ(state, c, c)
			g.store(c, masks[i], g.place(i))
			run(hash(i, c))
		}
		run(g.reduce(&s, false, x))
		g.VPSHUFB(g.c.swap, x, x)
		g.VPXORQ(g.y0, x, x)
		g.VMOVDQU64(x, at(g.text, 0).Idx(g.end, 1))
		g.MOVB(operand.U8(1), at(g.op, opOK))
		g.INCQ(g.done)
		return
	}
	var hashing []step
	for i := range states {
		var c reg.VecVirtual
		hashing = append(hashing, func() { c = g.load(g.place(i), masks[i]) }, func() { run(hash(i, c)) })
	}
	together(encrypt, append(hashing, g.reduce(&s, false, x)...))
	if front {
		g.VEXTRACTI32X4(imm(1), states[0], g.y0)
	}
	g.VPSHUFB(g.c.swap, x, x)
	g.VPXORQ(at(g.text, 0).Idx(g.end, 1), x, x)
	for i, state := range states {
		g.VPXORQ(g.load(g.place(i), masks[i]), state, state)
		g.store(state, masks[i], g.place(i))
	}
	g.Comment("All bytes of the tag are compared at once.")
	match, ok, equal := g.GP64(), g.GP64(), g.K()
	g.VPCMPEQB(g.y0, x, equal)
	g.KMOVW(equal, match.As32())
	g.MOVW(match.As16(), at(g.op, opMatch))
	g.XORL(ok.As32(), ok.As32())
	g.CMPL(match.As32(), operand.U32(1<<tagSize-1))
	g.SETEQ(ok.As8())
	g.MOVB(ok.As8(), at(g.op, opOK))
	g.ADDQ(ok, g.done)
}
