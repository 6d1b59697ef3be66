package main

import (
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/gotypes"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// wide writes seal and open with four blocks a register and AVX-512's masks. Counters, text and what GHASH takes stand in
// the same lanes, T(i) being block i of the text of n blocks; the lanes end with a register, so that there are d of 0 to 3 empty ones in front:
//
//	lane          < d    d        d+1   ...  d+n   d+n+1
//	counter       -      1        2     ...  n+1   -
//	key stream    -      for tag  T(1)  ...  T(n)  -
//	GHASH         zero   AAD      T(1)  ...  T(n)  lengths
//	power of H    -      n+2      n+1   ...  2     1
//
// So there is one kind of register only, the text is loaded from before its start on, and the additional data and the tag's key stream
// cost nothing of their own. What a mask leaves out is not touched. A packet is a first group of 1 to 4 registers and then groups of 4:
// all but the first are hashed with the same powers of H, and only the last register of all has an end. A first group of 1 would
// wait for its rounds, so it is one of 5 where two groups or more follow.
//
// A group is hashed while the next one is encrypted; a packet's last group while the next packet's first one is, so
// that no packet waits for its own results. What is left to do for a packet meanwhile is called pending here.
//
// AES takes four cycles a round; four registers keep its units busy meanwhile. On Zen 4 a carry-less multiplication takes as
// long for four blocks as for one, and a broadcast from memory takes a unit that AES wants, so the round keys stay in registers,
// also from one packet to the next.
type wide struct {
	*build.Context
	c    wideConstants
	open bool
	n    int // of labels

	op, left, key, ahead reg.GPVirtual
	done                 operand.Op
	text, counters       reg.GPVirtual    // of the group's first lane, the latter in the table of counters
	more                 reg.GPVirtual    // groups behind this one
	lengths              reg.GPVirtual    // of additional data and of text in bits, 32 bits each
	pending, pendingOp   reg.GPVirtual    // number of registers to be hashed, 0, 2 or 4, and whose
	pendingKey, chainKey reg.GPVirtual    // the keys of folds and of chainFolds
	slots                reg.GPVirtual    // what stands on the stack, from a cache line's start on
	keys                 []reg.VecVirtual // of rounds 1 to 9 and of the last
	folds, chainFolds    []reg.VecVirtual // of powers of H, for pairs: the pending packet's; for all groups but a packet's last
	base                 reg.VecVirtual   // what the counter is added to, all lanes alike: nonce and the whitening key
	aad, y0, hash        reg.VecVirtual   // in lane d; the tag's key stream there, reversed, in a register of zeros; GHASH of what is before texts
	texts                []reg.VecVirtual // to be hashed
	nonce, lastLane      reg.OpmaskVirtual
	first, end, front    reg.OpmaskVirtual // text in the first register; in the last; lane d
}

type wideConstants struct {
	swap, swapLast, poly operand.Mem
	counters             operand.Mem // that of lane 0 if no lane is empty
}

const (
	lanes4    = 4  // lanes of a register
	register  = 64 // bytes
	groupWide = 4  // registers of a group
	// Of powers of H for all groups but a packet's last, on the stack, a register each: H^20, H^16, H^12, H^8 and H^4 in all lanes, and the fold of the first.
	wideSlotChain = 0
	wideSlotFold  = wideSlotChain + groupWide + 1
	wideSlots     = wideSlotFold + 1
	// wideMax is the longest text: a counter has one byte. The functions stop in front of a packet with a longer one, as of one that is too short for their caller.
	wideMax = (256 - 3) * block
)

// inLanes repeats the words of a block four times.
func inLanes(lo, hi uint64) []uint64 { return []uint64{lo, hi, lo, hi, lo, hi, lo, hi} }

func (g *wide) constants() {
	const swapLo, swapHi = 0x08090a0b0c0d0e0f, 0x0001020304050607
	swap := inLanes(swapLo, swapHi)
	g.c.swap = table(g.Context, "wideSwap", swap...)
	// The last lane has two words of 32 bits, to become 64 each.
	g.c.swapLast = table(g.Context, "wideSwapLast", append(swap[:6:6], 0x8080808003020100, 0x8080808007060504)...)
	g.c.poly = table(g.Context, "widePoly", inLanes(0xc2<<56, 0xc2<<56)...)
	var counters []uint64
	for i := range 256 + lanes4 {
		counters = append(counters, 0, uint64(i-2)<<56)
	}
	g.c.counters = table(g.Context, "wideCounters", counters...).Offset(3 * block)
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
	g.SignatureExpr("func(ops *byte, n, min int) (done, taken int)")
	g.done = where(g.Return("done"))
	frame := g.AllocLocal((wideSlots + 1) * register)
	for _, r := range []*reg.GPVirtual{&g.op, &g.left, &g.key, &g.ahead, &g.text, &g.counters, &g.more, &g.lengths,
		&g.pending, &g.pendingKey, &g.pendingOp, &g.chainKey, &g.slots} {
		*r = g.GP64()
	}
	vectors := func(n int) (v []reg.VecVirtual) {
		for range n {
			v = append(v, g.ZMM())
		}
		return v
	}
	g.base, g.aad, g.y0, g.hash = g.ZMM(), g.ZMM(), g.ZMM(), g.ZMM()
	g.keys, g.folds, g.chainFolds, g.texts = vectors(10), vectors(groupWide/2), vectors(groupWide/2), vectors(groupWide+1)
	g.nonce, g.lastLane, g.first, g.end, g.front = g.K(), g.K(), g.K(), g.K(), g.K()
	g.Load(g.Param("ops"), g.op)
	g.Load(g.Param("n"), g.left)
	g.MOVQ(operand.U32(0), g.done)
	g.TESTQ(g.left, g.left)
	g.JZ(to("none"))
	g.LEAQ(frame.Offset(register-1), g.slots)
	g.ANDQ(operand.I8(-register), g.slots)
	g.Comment("Masks: the nonce, by 4 bytes; the last lane's first half, by 8.")
	m := g.GP64()
	g.MOVL(operand.U32(0x7), m.As32())
	g.KMOVD(m.As32(), g.nonce)
	g.MOVL(operand.U32(0x40), m.As32())
	g.KMOVD(m.As32(), g.lastLane)
	for _, r := range []reg.GPVirtual{g.key, g.pending, g.pendingKey, g.pendingOp, g.chainKey} {
		g.XORL(r.As32(), r.As32())
	}
	for _, l := range [][]reg.VecVirtual{g.keys, g.folds, g.chainFolds, g.texts, {g.y0, g.hash}} {
		for _, k := range l {
			g.VPXORQ(k, k, k)
		}
	}

	g.Label("packet")
	n := g.fits()
	g.CMPQ(at(g.op, opKey), g.key)
	g.JE(to("sameKey"))
	g.MOVQ(at(g.op, opKey), g.key)
	g.TESTQ(g.key, g.key)
	g.JZ(to("refuse"))
	twiceRounds := g.GP64()
	g.MOVL(at(g.key, keyRounds), twiceRounds.As32())
	g.ADDL(twiceRounds.As32(), twiceRounds.As32())
	g.JZ(to("noKey"))
	g.loadKeys(twiceRounds)
	g.Label("sameKey")
	g.TESTQ(g.key, g.key)
	g.JZ(to("refuse"))
	registers := g.describe(n)
	g.lookAhead()

	none, two := g.label("nonePending"), g.label("twoPending")
	starts := func(pending int) {
		g.search(registers, 1, groupWide, func(r int) {
			if r > 1 {
				g.start(r, pending)
				return
			}
			five := g.label("five")
			g.CMPQ(g.more, operand.U8(2))
			g.JAE(to(five))
			g.start(1, pending)
			g.Label(five)
			g.DECQ(g.more)
			g.start(groupWide+1, pending)
		})
	}
	g.CMPL(g.pending.As32(), operand.U8(2))
	g.JB(to(none))
	g.JE(to(two))
	starts(4)
	g.Label(two)
	starts(2)
	g.Label(none)
	starts(0)

	for r := 1; r <= groupWide+1; r++ {
		g.Commentf("Behind a first group of %d registers.", r)
		g.Label(second(r))
		if r > 1 { // else it would be five
			last := g.label("last")
			g.DECQ(g.more)
			g.JZ(to(last))
			g.group(r, false, false)
			g.JMP(to("group"))
			g.Label(last)
		}
		g.group(r, false, true)
		g.JMP(to("next"))
	}
	g.Label("group")
	g.DECQ(g.more)
	g.JZ(to("lastGroup"))
	g.group(groupWide, true, false)
	g.JMP(to("group"))
	g.Label("lastGroup")
	g.group(groupWide, true, true)
	g.JMP(to("next"))

	g.Label("noKey")
	g.XORL(g.key.As32(), g.key.As32())
	g.Label("refuse")
	g.MOVB(operand.U8(0), at(g.op, opOK))
	g.Label("next")
	g.ADDQ(operand.U32(opSize), g.op)
	g.DECQ(g.left)
	g.JNZ(to("packet"))
	g.Label("stop")
	g.CMPL(g.pending.As32(), operand.U8(2))
	g.JB(to("end"))
	g.JE(to("twoLeft"))
	finish := func(r int) {
		hash, tag := g.finish(r)
		run(hash)
		tag()
	}
	finish(4)
	g.JMP(to("end"))
	g.Label("twoLeft")
	finish(2)
	g.Label("end")
	zero := g.ZMM()
	g.VPXORQ(zero, zero, zero)
	for i := range wideSlots {
		g.VMOVDQA64(zero, g.slot(i))
	}
	g.VZEROUPPER()
	g.Label("none")
	taken := g.GP64()
	g.Load(g.Param("n"), taken)
	g.SUBQ(g.left, taken)
	g.Store(taken, g.Return("taken"))
	g.RET()
}

// loadKeys loads the round keys that stay in registers.
func (g *wide) loadKeys(twiceRounds reg.GPVirtual) {
	for i, k := range g.keys[:9] {
		g.VBROADCASTI32X4(round(g.key, i+1), k)
	}
	g.VBROADCASTI32X4(round(g.key, 0).Idx(twiceRounds, 8), g.keys[9])
}

func second(r int) string { return "second" + string(rune('0'+r)) }

// where returns where a parameter or a result stands.
func where(c gotypes.Component) operand.Mem {
	b, err := c.Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

// fits returns the number of bytes of a packet's text, or stops in front of it.
func (g *wide) fits() (n reg.GPVirtual) {
	n = g.GP64()
	g.MOVQ(at(g.op, opLen), n)
	g.SUBQ(operand.U32(tagSize), n)
	g.CMPQ(n, where(g.Param("min")))
	g.JLT(to("stop"))
	g.CMPQ(n, operand.U32(wideMax))
	g.JA(to("stop"))
	return n
}

// describe takes the description of a packet with n bytes of text, or refuses it, and returns the number of registers of its first group.
func (g *wide) describe(n reg.GPVirtual) (registers reg.GPVirtual) {
	aadLen := g.GP64()
	g.MOVBQZX(at(g.op, opAADLen), aadLen)
	g.CMPL(aadLen.As32(), operand.U8(aadMax))
	g.JA(to("refuse"))
	g.MOVQ(aadLen, g.lengths)
	g.SHLQ(operand.U8(32), g.lengths)
	g.LEAQ(operand.Mem{Base: g.lengths, Index: n, Scale: 1}, g.lengths)
	g.SHLQ(operand.U8(3), g.lengths)

	g.Comment("Whole registers; the bytes of empty lanes.")
	blocks, empty := g.GP64(), g.GP64()
	g.LEAQ(at(n, block-1), blocks)
	g.SHRQ(operand.U8(4), blocks)
	registers = g.GP64()
	g.LEAQ(at(blocks, 1), registers)
	g.SHRQ(operand.U8(2), registers)
	g.MOVQ(registers, g.more)
	g.SHRQ(operand.U8(2), g.more)
	g.LEAL(at(blocks, 2), empty.As32())
	g.NEGL(empty.As32())
	g.ANDL(operand.U8(lanes4-1), empty.As32())
	g.SHLL(operand.U8(4), empty.As32())
	g.ANDL(operand.U8(groupWide-1), registers.As32())
	g.INCL(registers.As32())

	g.Comment("Masks.")
	m := g.GP64()
	g.MOVQ(operand.I32(-1<<block), m)
	g.SHLXQ(empty, m, m)
	g.KMOVQ(m, g.first)
	g.MOVL(operand.U32(1<<block-1), m.As32())
	g.SHLXQ(empty, m, m)
	g.KMOVQ(m, g.front)
	g.NEGL(n.As32())
	g.ANDL(operand.U8(block-1), n.As32())
	g.MOVQ(operand.I32(-1), m)
	g.SHRXQ(n, m, n)
	g.SHRQ(operand.U8(block), n)
	g.KMOVQ(n, g.end)
	k := g.K()
	g.BZHIL(aadLen.As32(), m.As32(), m.As32())
	g.SHLXQ(empty, m, m)
	g.KMOVQ(m, k)

	a := g.GP64()
	g.MOVQ(g.op, a)
	g.SUBQ(empty, a)
	g.VMOVDQU8_Z(at(a, opAAD), k, g.aad)
	g.MOVQ(at(g.op, opBuf), g.text)
	g.SUBQ(empty, g.text)
	g.SUBQ(operand.U8(block), g.text)
	g.LEAQ(g.c.counters, g.counters)
	g.SUBQ(empty, g.counters)
	x := g.XMM()
	g.VMOVDQU32_Z(at(g.op, opNonce), g.nonce, x)
	g.VPXORQ(round(g.key, 0), x, x)
	g.VSHUFI64X2(imm(0), x.AsZ(), x.AsZ(), g.base)
	return registers
}

// lookAhead points at the next packet's text, to be asked for; for the last packet at its own.
func (g *wide) lookAhead() {
	none := g.label("noNext")
	g.MOVQ(g.text, g.ahead)
	g.CMPQ(g.left, operand.U8(1))
	g.JE(to(none))
	g.MOVQ(at(g.op, opSize+opBuf), g.ahead)
	g.Label(none)
}

// search branches by a number.
func (g *wide) search(number reg.GPVirtual, from, last int, body func(int)) {
	if from == last {
		body(from)
		return
	}
	middle := (from + last) / 2
	upper := g.label("registers")
	g.CMPL(number.As32(), operand.U8(middle))
	g.JA(to(upper))
	g.search(number, from, middle, body)
	g.Label(upper)
	g.search(number, middle+1, last, body)
}

// start does a packet's first group, of r registers, and what is pending. The pending packet's tag takes long and nothing waits for it: so it
// comes last.
func (g *wide) start(r, pending int) {
	g.Commentf("A first group of %d registers, %d pending.", r, pending)
	var mix []step
	tag := func() {}
	if pending > 0 {
		mix, tag = g.finish(pending)
	}
	states, encrypt := g.encrypt(r)
	together(encrypt, mix)
	more := g.label("more")
	g.weighLast()
	if r <= groupWide {
		g.TESTQ(g.more, g.more)
		g.JNZ(to(more))
		g.crypt(states, true, true)
		tag()
		for i := range groupWide - r {
			g.VPXORQ(g.texts[i], g.texts[i], g.texts[i])
		}
		g.VPXORQ(g.hash, g.hash, g.hash)
		g.leave((r + 1) &^ 1)
		g.JMP(to("next"))
		g.Label(more)
	}
	g.weighChain()
	g.crypt(states, true, false)
	tag()
	g.JMP(to(second(r)))
}

// weighLast folds the powers of the packet's key for its last group, unless they are known.
func (g *wide) weighLast() {
	g.unlessKnown(g.pendingKey, func() {
		w := g.lastWeights()
		for i, f := range w.folds {
			var h [2]reg.VecVirtual
			for j := range h {
				h[j] = g.ZMM()
				g.VMOVDQU64(w.power(2*i+j), h[j])
			}
			g.fold(h[0], h[1], f)
		}
	})
}

// weighChain spreads and folds the powers of the packet's key for other groups, unless they are known.
func (g *wide) weighChain() {
	g.unlessKnown(g.chainKey, func() {
		var all []reg.VecVirtual
		for i := range groupWide + 1 {
			h := g.ZMM()
			from := at(g.key, keyPower20)
			if i > 0 {
				from = power(g.key, lanes4*(groupWide+1-i))
			}
			g.VBROADCASTI32X4(from, h)
			g.VMOVDQA64(h, g.slot(wideSlotChain+i))
			all = append(all, h)
		}
		f := g.ZMM()
		g.fold(all[0], all[0], f)
		g.VMOVDQA64(f, g.slot(wideSlotFold))
		for i, f := range g.chainFolds {
			g.fold(all[1+2*i], all[2+2*i], f)
		}
	})
}

// unlessKnown makes the packet's key the known one; if it was not, by what is done then.
func (g *wide) unlessKnown(known reg.GPVirtual, learn func()) {
	same := g.label("known")
	g.CMPQ(g.key, known)
	g.JE(to(same))
	g.MOVQ(g.key, known)
	learn()
	g.Label(same)
}

func (g *wide) slot(i int) operand.Mem { return at(g.slots, i*register) }

// group does a group behind the first, and hashes the one before it, which has r registers.
func (g *wide) group(r int, chained, last bool) {
	states, encrypt := g.encrypt(groupWide)
	together(encrypt, g.hashing(r, g.chainWeights(), chained, nil))
	g.crypt(states, false, last)
	if last {
		g.leave(groupWide)
	}
}

// leave leaves r registers of the packet's last group for later.
func (g *wide) leave(r int) {
	g.MOVL(operand.U32(r), g.pending.As32())
	g.MOVQ(g.op, g.pendingOp)
}

// weights are powers of H that a group's registers are multiplied with; power -1 is that of one in front of a group of 4.
type weights struct {
	base  operand.Mem
	folds []reg.VecVirtual
}

func (w weights) power(i int) operand.Mem { return w.base.Offset(i * register) }

// lastWeights are those of a packet's last group: each lane has its own.
func (g *wide) lastWeights() weights { return weights{at(g.pendingKey, keyPowers), g.folds} }

// chainWeights are those of other groups: the lanes' sums stay apart, and each is what its lane of the next group is added to.
func (g *wide) chainWeights() weights { return weights{g.slot(wideSlotChain + 1), g.chainFolds} }

// crypt does the last round with text and round key in one, which puts text and key stream together, and goes on behind it. Texts are left to be hashed.
func (g *wide) crypt(states []reg.VecVirtual, first, last bool) {
	n := len(states)
	for i, s := range states {
		place, into := at(g.text, i*register), g.place(groupWide-n+i)
		front, end := first && i == 0, last && i == n-1
		text, key := g.ZMM(), g.ZMM()
		var mask reg.Register
		switch {
		case front && end:
			both := g.K()
			g.KANDQ(g.first, g.end, both)
			mask = both
		case front:
			mask = g.first
		case end:
			mask = g.end
		}
		switch {
		case mask != nil:
			g.VMOVDQU8_Z(place, mask, text)
			g.VPXORQ(g.keys[9], text, key)
		case g.open:
			g.VMOVDQU64(place, text)
			g.VPXORQ(g.keys[9], text, key)
		default:
			g.VPXORQ(place, g.keys[9], key)
		}
		g.VAESENCLAST(key, s, s)
		hashed := s
		if g.open {
			hashed = text
		}
		if mask != nil {
			g.VMOVDQU8(s, mask, place)
		} else {
			g.VMOVDQU64(s, place)
		}
		if front {
			g.VPSHUFB_Z(g.c.swap, s, g.front, g.y0)
			g.VMOVDQU8(hashed, mask, g.aad)
			hashed = g.aad
		}
		if !end {
			g.VPSHUFB(g.c.swap, hashed, into)
			continue
		}
		if !front && !g.open {
			g.VMOVDQU8_Z(hashed, mask, hashed)
		}
		g.VPBROADCASTQ(g.lengths, g.lastLane, hashed)
		g.VPSHUFB(g.c.swapLast, hashed, into)
	}
	for i := range n {
		g.PREFETCHT0(at(g.ahead, i*register))
	}
	if !last {
		g.ADDQ(operand.U32(n*register), g.ahead)
		g.ADDQ(operand.U32(n*register), g.text)
		g.ADDQ(operand.U32(n*register), g.counters)
	}
}

// place is where register i of a group is left to be hashed, -1 being the one in front of a group of 4.
func (g *wide) place(i int) reg.VecVirtual { return g.texts[(i+len(g.texts))%len(g.texts)] }

// encrypt returns the steps that make key stream, n registers, but for the last round.
func (g *wide) encrypt(n int) (states []reg.VecVirtual, steps []step) {
	for range n {
		states = append(states, g.ZMM())
	}
	return states, append([]step{func() {
		for i, s := range states {
			g.VPXORQ(at(g.counters, i*register), g.base, s)
		}
	}}, g.rounds(states, false)...)
}

// rounds returns the steps that turn counter blocks, which have the whitening key added, into key stream, but for the last round unless the whole is asked for.
func (g *wide) rounds(states []reg.VecVirtual, whole bool) (steps []step) {
	each := func(k reg.Register) step {
		return func() {
			for _, s := range states {
				g.VAESENC(k, s, s)
			}
		}
	}
	for _, k := range g.keys[:9] {
		steps = append(steps, each(k))
	}
	return append(steps, func() {
		last := g.label("lastRound")
		more := func(i int) {
			k := g.ZMM()
			g.VBROADCASTI32X4(round(g.key, i), k)
			each(k)()
		}
		g.CMPL(at(g.key, keyRounds), operand.U8(12))
		g.JB(to(last))
		more(10)
		more(11)
		g.JE(to(last))
		more(12)
		more(13)
		g.Label(last)
		if !whole {
			return
		}
		for _, s := range states {
			g.VAESENCLAST(g.keys[9], s, s)
		}
	})
}

// hashing returns the steps that hash the last r registers of texts, chained to what was hashed before, into hash. What is in also, unless nil, is added.
func (g *wide) hashing(r int, w weights, chained bool, also reg.Register) (steps []step) {
	var s wideSum
	if r > groupWide {
		steps = g.multiply(&s, g.place(-1), w.power(-1), g.slot(wideSlotFold))
		r = groupWide
	}
	for i := groupWide - 2; i >= groupWide-r-1; i -= 2 {
		if chained && i == 0 {
			steps = append(steps, func() { g.VPXORQ(g.hash, g.texts[0], g.texts[0]) })
		}
		if i < groupWide-r {
			steps = append(steps, g.multiply(&s, g.texts[i+1], w.power(i+1), w.folds[i/2])...)
		} else {
			steps = append(steps, g.multiplyPair(&s, [2]reg.VecVirtual{g.texts[i], g.texts[i+1]}, [2]operand.Mem{w.power(i), w.power(i + 1)}, w.folds[i/2])...)
		}
	}
	return append(steps, g.reduce(&s, also)...)
}

// finish returns the steps that hash the last r registers of the pending packet, and what takes care of its tag then.
func (g *wide) finish(r int) (hash []step, tag func()) {
	return g.hashing(r, g.lastWeights(), r == groupWide, g.y0), func() {
		upper, hash := g.YMM(), g.XMM()
		g.VEXTRACTI64X4(imm(1), g.hash, upper)
		g.VPXORQ(g.hash.AsY(), upper, upper)
		g.VEXTRACTI32X4(imm(1), upper, hash)
		g.VPXORQ(upper.AsX(), hash, hash)
		tag := g.GP64()
		g.MOVQ(at(g.pendingOp, opBuf), tag)
		g.ADDQ(at(g.pendingOp, opLen), tag)
		g.VPSHUFB(g.c.swap, hash, hash)
		if !g.open {
			g.VMOVDQU64(hash, at(tag, -tagSize))
			g.MOVB(operand.U8(1), at(g.pendingOp, opOK))
			g.INCQ(g.done)
			return
		}
		g.Comment("All bytes of the tag are compared at once.")
		match, ok, equal := g.GP64(), g.GP64(), g.K()
		g.VPCMPEQB(at(tag, -tagSize), hash, equal)
		g.KMOVW(equal, match.As32())
		g.MOVW(match.As16(), at(g.pendingOp, opMatch))
		g.XORL(ok.As32(), ok.As32())
		g.CMPL(match.As32(), operand.U32(1<<tagSize-1))
		g.SETEQ(ok.As8())
		g.MOVB(ok.As8(), at(g.pendingOp, opOK))
		g.ADDQ(ok, g.done)
	}
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

// multiply returns the steps that add a * h to s by Karatsuba's way; the upper halves of folded are of h.
func (g *wide) multiply(s *wideSum, a reg.VecVirtual, h, folded operand.Op) []step {
	return []step{
		func() { g.add(&s.low, 0x00, a, h) },
		func() { g.add(&s.high, 0x11, a, h) },
		func() {
			f := g.ZMM()
			g.VPSHUFD(imm(0x4e), a, f)
			g.VPXORQ(a, f, f)
			g.add(&s.middle, 0x11, f, folded)
		},
	}
}

// multiplyPair returns the steps that add a[0] * h[0] + a[1] * h[1] to s by Karatsuba's way, for which folded is of h: the middle is left holding low and high, too.
func (g *wide) multiplyPair(s *wideSum, a [2]reg.VecVirtual, h [2]operand.Mem, folded operand.Op) []step {
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

// fold makes the halves of f the sums of a's halves and of b's, lane by lane. These shuffles take a unit that AES has no use for; on others that shuffle, AES waits.
func (g *wide) fold(a, b, f reg.VecVirtual) {
	upper := g.ZMM()
	g.VPUNPCKHQDQ(b, a, upper)
	g.VPUNPCKLQDQ(b, a, f)
	g.VPXORQ(upper, f, f)
}

// reduce returns the steps that turn s, which was made by Karatsuba's way, into a block in each lane of hash; see [generator.reduce].
// What is in also, unless nil, is added.
func (g *wide) reduce(s *wideSum, also operand.Op) []step {
	half := func(from, into, sum reg.VecVirtual) {
		g.VPCLMULQDQ(imm(0x00), g.c.poly, from, sum)
		g.VPSHUFD(imm(0x4e), from, from)
		g.total(sum, from, into)
	}
	var low, middle, high reg.VecVirtual
	return []step{
		func() { low, high = g.total(s.low...), g.total(s.high...) },
		func() { middle = g.total(g.total(s.middle...), low, high) },
		func() {
			sum := g.ZMM()
			half(low, middle, sum)
			middle = sum
		},
		func() {
			if also != nil {
				g.VPXORQ(also, high, high)
			}
			half(middle, high, g.hash)
		},
	}
}
