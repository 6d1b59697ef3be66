package main

import (
	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// wide writes seal and open for long packets, of more than 14 blocks, with four blocks a register and AVX-512's masks.
// Shorter ones are refused: two blocks a register and packets in pairs are faster there. A packet is
//
//	groups of 16 blocks in a loop, AES and GHASH mixed, while more than 16 are left,
//	a group of 8 if more than 14 are left,
//	an end of 1 to 14 blocks, written out for each number
//
// AES takes four cycles a round; four registers of four blocks keep its units busy meanwhile.
//
// An end is laid out so that everything has a lane, L(i) being block i of the text:
//
//	key stream    Y0      1      2  ...  n
//	text          -       L(1)   L(2)    L(n)
//	GHASH         -       L(1)   L(2)    L(n)   lengths
//	power of H    n+2     n+1    n       2      1
//
// What was hashed so far is added to L(1). Text is loaded from 16 bytes before its start with the first lane masked,
// and masked behind its end: what is masked is not touched.
type wide struct {
	*build.Context
	c    wideConstants
	open bool
	n    int // of labels

	op, left, done, blocks, key, twiceRounds, text, bytes reg.GPVirtual
	ahead                                                 reg.GPVirtual
	counter                                               reg.VecVirtual // all lanes: the next block's counter less 1, little-endian
	before                                                reg.VecVirtual // lanes 0 and 1: what GHASH has before the text, reflected
	first, nonce                                          reg.OpmaskVirtual
	lane0                                                 reg.OpmaskVirtual
	swapBlock, swapCounter                                reg.VecVirtual
}

type wideConstants struct {
	swapBlock, swapCounter, poly, one operand.Mem
	step                              []operand.Mem // step[i]: 4i, 4i+1, 4i+2, 4i+3
	next                              []operand.Mem // next[i]: one more each
	add                               map[int]operand.Mem
	window                            operand.Mem
}

const (
	wideGroup = 16
	wideHalf  = 8
	wideEnd   = powerMax - 2
	lanes4    = 4
)

func (g *wide) table(name string, words ...uint64) operand.Mem {
	m := g.StaticGlobal(name)
	g.DataAttributes(attr.RODATA | attr.NOPTR)
	for i, w := range words {
		g.AddDatum(8*i, operand.U64(w))
	}
	return m
}

// lanes repeats the words of a block four times.
func lanes(lo, hi uint64) []uint64 { return []uint64{lo, hi, lo, hi, lo, hi, lo, hi} }

func (g *wide) constants() {
	g.c.swapBlock = g.table("wideSwapBlock", lanes(0x08090a0b0c0d0e0f, 0x0001020304050607)...)
	g.c.swapCounter = g.table("wideSwapCounter", lanes(0x0706050403020100, 0x0c0d0e0f0b0a0908)...)
	g.c.poly = g.table("widePoly", lanes(0xc2<<56, 0xc2<<56)...)
	g.c.one = g.table("wideOne", lanes(0, 1<<32)...)
	var steps []uint64
	for j := range uint64(wideGroup + 1) {
		steps = append(steps, 0, j<<32)
	}
	base := g.table("wideSteps", steps...)
	for i := range wideGroup/lanes4 + 1 {
		g.c.step = append(g.c.step, base.Offset(i*lanes4*block))
		g.c.next = append(g.c.next, base.Offset((i*lanes4+1)*block))
	}
	g.c.add = map[int]operand.Mem{
		wideGroup: g.table("wideAddGroup", lanes(0, wideGroup<<32)...),
		wideHalf:  g.table("wideAddHalf", lanes(0, wideHalf<<32)...),
	}
	ones := ^uint64(0)
	g.c.window = g.table("wideWindow", ones, ones, 0, 0)
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
	for _, r := range []*reg.GPVirtual{&g.op, &g.left, &g.done, &g.blocks, &g.key, &g.twiceRounds, &g.text, &g.bytes, &g.ahead} {
		*r = g.GP64()
	}
	g.counter, g.before, g.swapBlock, g.swapCounter = g.ZMM(), g.ZMM(), g.ZMM(), g.ZMM()
	g.first, g.nonce, g.lane0 = g.K(), g.K(), g.K()
	g.Load(g.Param("ops"), g.op)
	g.Load(g.Param("n"), g.left)
	g.XORL(g.done.As32(), g.done.As32())
	g.TESTQ(g.left, g.left)
	g.JZ(to("end"))
	g.VMOVDQU64(g.c.swapBlock, g.swapBlock)
	g.VMOVDQU64(g.c.swapCounter, g.swapCounter)
	g.Comment("Masks: all but the first lane, by bytes; the nonce, by 4 bytes; the first lane, by 8 bytes.")
	m := g.GP64()
	g.MOVQ(operand.I64(^0xffff), m)
	g.KMOVQ(m, g.first)
	g.MOVL(operand.U32(7), m.As32())
	g.KMOVD(m.As32(), g.nonce)
	g.MOVL(operand.U32(3), m.As32())
	g.KMOVD(m.As32(), g.lane0)

	g.Label("packet")
	g.MOVQ(at(g.op, opKey), g.key)
	g.TESTQ(g.key, g.key)
	g.JZ(to("refuse"))
	g.MOVL(at(g.key, keyRounds), g.twiceRounds.As32())
	g.ADDL(g.twiceRounds.As32(), g.twiceRounds.As32())
	g.JZ(to("refuse"))
	g.CMPB(at(g.op, opAADLen), operand.U8(aadMax))
	g.JA(to("refuse"))
	g.MOVQ(at(g.op, opLen), g.bytes)
	g.SUBQ(operand.U32(tagSize), g.bytes)
	g.JLT(to("refuse"))
	g.MOVQ(at(g.op, opBuf), g.text)
	g.LEAQ(at(g.bytes, block-1), g.blocks)
	g.SHRQ(operand.U8(4), g.blocks)
	g.CMPQ(g.blocks, operand.U32(wideEnd))
	g.JBE(to("refuse"))

	g.Comment("Counter 1 behind the nonce, in every lane.")
	y0 := g.firstCounter()
	g.VSHUFI32X4(imm(0), y0.AsZ(), y0.AsZ(), g.counter)
	g.Comment("Additional data, padded with zeros.")
	aad, window := g.GP64(), g.GP64()
	g.MOVBQZX(at(g.op, opAADLen), aad)
	g.LEAQ(g.c.window.Offset(block), window)
	g.SUBQ(aad, window)
	g.VMOVDQU64(at(g.op, opAAD), g.before.AsX())
	g.VPANDQ(at(window, 0), g.before.AsX(), g.before.AsX())
	g.VPSHUFB(g.swapBlock.AsX(), g.before.AsX(), g.before.AsX())

	g.Comment("The next packet's first lines, the last packet's own, are asked for.")
	none := g.label("noNext")
	g.MOVQ(g.text, g.ahead)
	g.CMPQ(g.left, operand.U8(1))
	g.JE(to(none))
	g.MOVQ(at(g.op, opSize+opBuf), g.ahead)
	g.Label(none)

	g.long()
	g.search(1, wideEnd)

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

// firstCounter returns Y0 before its last four bytes are swapped.
func (g *wide) firstCounter() reg.VecVirtual {
	y0 := g.XMM()
	g.VMOVDQU32_Z(at(g.op, opNonce), g.nonce, y0)
	g.VPORQ(g.c.one, y0, y0)
	return y0
}

// search branches to the end for the number of blocks.
func (g *wide) search(from, last int) {
	if from == last {
		g.Commentf("An end of %d blocks.", from)
		g.end(from)
		g.JMP(to("next"))
		return
	}
	middle := (from + last + 1) / 2
	upper := g.label("blocks")
	g.CMPQ(g.blocks, operand.U8(middle))
	g.JAE(to(upper))
	g.search(from, middle-1)
	g.Label(upper)
	g.search(middle, last)
}

// rounds returns the steps that encrypt the states.
func (g *wide) rounds(states []reg.VecVirtual) []step {
	each := func(key operand.Mem, f func(k, s reg.Register)) {
		k := g.ZMM()
		g.VBROADCASTI32X4(key, k)
		for _, s := range states {
			f(k, s)
		}
	}
	encrypt := func(k, s reg.Register) { g.VAESENC(k, s, s) }
	steps := []step{func() { each(round(g.key, 0), func(k, s reg.Register) { g.VPXORQ(k, s, s) }) }}
	for i := 1; i <= 9; i++ {
		steps = append(steps, func() { each(round(g.key, i), encrypt) })
	}
	return append(steps, func() {
		last := g.label("lastRound")
		g.CMPL(g.twiceRounds.As32(), operand.U32(2*12))
		g.JB(to(last))
		each(round(g.key, 10), encrypt)
		each(round(g.key, 11), encrypt)
		g.JE(to(last))
		each(round(g.key, 12), encrypt)
		each(round(g.key, 13), encrypt)
		g.Label(last)
		each(round(g.key, 0).Idx(g.twiceRounds, 8), func(k, s reg.Register) { g.VAESENCLAST(k, s, s) })
	})
}

// fold returns a register whose halves both hold the sum of a's halves, lane by lane.
func (g *wide) fold(a operand.Op) reg.VecVirtual {
	f := g.ZMM()
	g.VPSHUFD(imm(0x4e), a, f)
	g.VPXORQ(a, f, f)
	return f
}

// multiply returns the steps that add a * h to s; see [generator.multiply].
func (g *wide) multiply(s *sum, a reg.VecVirtual, h operand.Op, folded reg.VecVirtual) []step {
	part := func(total *reg.VecVirtual, half int, h operand.Op, a reg.VecVirtual) {
		p := g.ZMM()
		g.VPCLMULQDQ(imm(half), h, a, p)
		if *total == nil {
			*total = p
			return
		}
		g.VPXORQ(p, *total, *total)
	}
	return []step{
		func() { part(&s.low, 0x00, h, a) },
		func() { part(&s.high, 0x11, h, a) },
		func() {
			if folded == nil {
				folded = g.fold(h)
			}
			part(&s.middle, 0x00, folded, g.fold(a))
		},
	}
}

// reduce returns the steps that turn s into one block, in x; see [generator.reduce].
func (g *wide) reduce(s *sum, x reg.VecVirtual) []step {
	half := func(from, into reg.VecVirtual) {
		t := g.ZMM()
		g.VPCLMULQDQ(imm(0x00), g.c.poly, from, t)
		g.VPSHUFD(imm(0x4e), from, from)
		g.VPTERNLOGQ(imm(0x96), t, from, into) // the sum of all three
	}
	return []step{
		func() { g.VPTERNLOGQ(imm(0x96), s.high, s.low, s.middle) },
		func() { half(s.low, s.middle) },
		func() { half(s.middle, s.high) },
		func() {
			upper := g.YMM()
			g.VEXTRACTI64X4(imm(1), s.high, upper)
			g.VPXORQ(s.high.AsY(), upper, upper)
			g.VEXTRACTI32X4(imm(1), upper, x)
			g.VPXORQ(upper.AsX(), x, x)
		},
	}
}

// long works off groups until 1 to 14 blocks are left, and leaves what was hashed in lane 1 of before.
func (g *wide) long() {
	g.Comment("The additional data's product alone.")
	hash := g.XMM() // what was hashed so far
	var s sum
	h := g.ZMM()
	g.VMOVDQU64(power(g.key, 1), h.AsX())
	run(g.multiply(&s, g.before, h, nil), g.reduce(&s, hash))

	g.Comment("Powers of H and their folds stay in registers.")
	var powers, folds []reg.VecVirtual
	for j := 0; j < wideGroup; j += lanes4 {
		h := g.ZMM()
		g.VMOVDQU64(power(g.key, wideGroup-j), h)
		powers, folds = append(powers, h), append(folds, g.fold(h))
	}
	// What was loaded or stored last stays in registers: to load a line again that was just stored takes long.
	var texts []reg.VecVirtual
	for range wideGroup / lanes4 {
		texts = append(texts, g.ZMM())
	}
	crypt := func(n int, mix []step) {
		var states []reg.VecVirtual
		for range n / lanes4 {
			states = append(states, g.ZMM())
		}
		encrypt := []step{func() {
			for i, s := range states {
				g.VPADDD(g.c.next[i], g.counter, s)
				g.VPSHUFB(g.swapCounter, s, s)
			}
			g.VPADDD(g.c.add[n], g.counter, g.counter)
		}}
		together(append(encrypt, g.rounds(states)...), mix)
		for i, s := range states {
			m := at(g.text, i*lanes4*block)
			if g.open {
				g.VPXORQ(texts[i], s, s)
				g.VMOVDQU64(s, m)
				continue
			}
			g.VPXORQ(m, s, s)
			g.VMOVDQU64(s, m)
			g.VPSHUFB(g.swapBlock, s, texts[i])
		}
		for line := 0; line < n*block; line += 64 {
			g.PREFETCHT0(at(g.ahead, line))
		}
		g.ADDQ(operand.U32(n*block), g.ahead)
		g.ADDQ(operand.U32(n*block), g.text)
		g.SUBQ(operand.U32(n*block), g.bytes)
		g.SUBQ(operand.U8(n), g.blocks)
	}
	// group returns the steps that hash n blocks: those that were encrypted last, or the next ones.
	group := func(n int) []step {
		var s sum
		var steps []step
		for i := range n / lanes4 {
			d := g.ZMM()
			steps = append(steps, func() {
				if g.open {
					g.VMOVDQU64(at(g.text, i*lanes4*block), texts[i])
					g.VPSHUFB(g.swapBlock, texts[i], d)
				} else {
					d = texts[i]
				}
				if i == 0 {
					g.VPXORQ(hash.AsZ(), d, d) // the lanes above are zero in it
				}
			})
			k := (wideGroup-n)/lanes4 + i
			steps = append(steps, func() {
				for _, m := range g.multiply(&s, d, powers[k], folds[k]) {
					m()
				}
			})
		}
		return append(steps, g.reduce(&s, hash)...)
	}
	half := g.label("half")
	place := g.label("place")
	if g.open {
		loop := g.label("group")
		g.CMPQ(g.blocks, operand.U8(wideGroup))
		g.JBE(to(half))
		g.Label(loop)
		crypt(wideGroup, group(wideGroup))
		g.CMPQ(g.blocks, operand.U8(wideGroup))
		g.JA(to(loop))
		g.Label(half)
		g.CMPQ(g.blocks, operand.U8(wideEnd))
		g.JBE(to(place))
		crypt(wideHalf, group(wideHalf))
	} else {
		g.Comment("The first group is encrypted alone; each later one while the one before it is hashed.")
		loop, last := g.label("group"), g.label("hashLast")
		g.CMPQ(g.blocks, operand.U8(wideGroup))
		g.JBE(to(half))
		crypt(wideGroup, nil)
		g.CMPQ(g.blocks, operand.U8(wideGroup))
		g.JBE(to(last))
		g.Label(loop)
		crypt(wideGroup, group(wideGroup))
		g.CMPQ(g.blocks, operand.U8(wideGroup))
		g.JA(to(loop))
		g.Label(last)
		alone := g.label("alone")
		g.CMPQ(g.blocks, operand.U8(wideEnd))
		g.JBE(to(alone))
		g.Comment("The last group of 16 is hashed while one of 8 is encrypted.")
		crypt(wideHalf, group(wideGroup))
		run(group(wideHalf))
		g.JMP(to(place))
		g.Label(alone)
		run(group(wideGroup))
		g.JMP(to(place))
		g.Label(half)
		crypt(wideHalf, nil)
		run(group(wideHalf))
	}
	g.Label(place)
	g.Comment("Lane 1, beside the first block that is left.")
	g.VPXORQ(g.before, g.before, g.before)
	g.VINSERTI32X4(imm(1), hash, g.before, g.before)
}

// end does the last n blocks of a packet, and the tag.
func (g *wide) end(n int) {
	count := (n + lanes4) / lanes4 // registers of key stream: n+1 blocks
	last := n / lanes4             // the register that the text ends in
	var states []reg.VecVirtual
	for range count {
		states = append(states, g.ZMM())
	}
	encrypt := append([]step{func() {
		y0 := g.firstCounter()
		for i, s := range states {
			g.VPADDD(g.c.step[i], g.counter, s)
			if i == 0 {
				g.VMOVDQA64(y0.AsZ(), g.lane0, s)
			}
			g.VPSHUFB(g.swapCounter, s, s)
		}
	}}, g.rounds(states)...)

	g.Comment("The bytes of the last register that are text.")
	mask, index, ones := g.K(), g.GP64(), g.GP64()
	g.LEAQ(at(g.bytes, block-last*lanes4*block), index)
	g.MOVQ(operand.I64(-1), ones)
	g.BZHIQ(index, ones, ones)
	g.KMOVQ(ones, mask)
	if last == 0 {
		g.KANDQ(g.first, mask, mask)
	}
	text := func(i int) operand.Mem { return at(g.text, (i*lanes4-1)*block) }
	masked := func(i int) reg.Register {
		switch {
		case i == last:
			return mask
		case i == 0:
			return g.first
		}
		return nil
	}
	load := func(i int) reg.VecVirtual {
		d := g.ZMM()
		if k := masked(i); k != nil {
			g.VMOVDQU8_Z(text(i), k, d)
		} else {
			g.VMOVDQU64(text(i), d)
		}
		return d
	}
	store := func(i int, d reg.VecVirtual) {
		if k := masked(i); k != nil {
			g.VMOVDQU8(d, k, text(i))
		} else {
			g.VMOVDQU64(d, text(i))
		}
	}
	lengths := g.XMM()
	makeLengths := func() {
		bits := g.GP64()
		g.MOVQ(at(g.op, opLen), bits)
		g.LEAQ(operand.Mem{Base: bits, Index: bits, Scale: 1, Disp: -2 * tagSize}, bits)
		g.SHLQ(operand.U8(2), bits)
		g.VMOVQ(bits, lengths)
		g.MOVBQZX(at(g.op, opAADLen), bits)
		g.SHLL(operand.U8(3), bits.As32())
		g.VPINSRQ(imm(1), bits, lengths, lengths)
	}
	// hash adds register i of GHASH's blocks, the text among them in d, which may be none.
	var s sum
	hash := func(i int, d reg.VecVirtual) []step {
		return append([]step{func() {
			if i < count {
				g.VPSHUFB(g.swapBlock, d, d)
			}
			if i == 0 {
				g.VPXORQ(g.before, d, d)
			}
			if (n+1)/lanes4 == i {
				if lane := (n + 1) % lanes4; lane > 0 {
					g.VINSERTI32X4(imm(lane), lengths, d, d)
				} else {
					g.VMOVDQA64(lengths, d.AsX())
				}
			}
		}}, g.multiplyMemory(&s, d, power(g.key, n+2-i*lanes4))...)
	}
	x := g.XMM()
	if !g.open {
		makeLengths()
		run(encrypt)
		for i, state := range states {
			d := load(i)
			g.VPXORQ(state, d, d)
			if k := masked(i); k != nil {
				g.VMOVDQU8_Z(d, k, d)
			}
			store(i, d)
			run(hash(i, d))
		}
		if (n+1)/lanes4 == count {
			run(hash(count, g.ZMM()))
		}
		run(g.reduce(&s, x))
		g.VPSHUFB(g.swapBlock.AsX(), x, x)
		g.VPXORQ(states[0].AsX(), x, x)
		g.VMOVDQU64(x, at(g.text, 0).Idx(g.bytes, 1))
		g.MOVB(operand.U8(1), at(g.op, opOK))
		g.INCQ(g.done)
		return
	}
	makeLengths()
	var hashing []step
	var texts []reg.VecVirtual
	for i := range states {
		d, t := g.ZMM(), g.ZMM()
		texts = append(texts, t)
		hashing = append(hashing, func() {
			l := load(i)
			g.VMOVDQA64(l, t)
			g.VMOVDQA64(l, d)
		})
		hashing = append(hashing, hash(i, d)...)
	}
	if (n+1)/lanes4 == count {
		hashing = append(hashing, hash(count, g.ZMM())...)
	}
	together(encrypt, append(hashing, g.reduce(&s, x)...))
	g.VPSHUFB(g.swapBlock.AsX(), x, x)
	g.VPXORQ(at(g.text, 0).Idx(g.bytes, 1), x, x)
	for i, state := range states {
		g.VPXORQ(state, texts[i], texts[i])
		store(i, texts[i])
	}
	g.Comment("All bytes of the tag are compared at once.")
	match, ok, equal := g.GP64(), g.GP64(), g.K()
	g.VPCMPEQB(states[0].AsX(), x, equal)
	g.KMOVW(equal, match.As32())
	g.MOVW(match.As16(), at(g.op, opMatch))
	g.XORL(ok.As32(), ok.As32())
	g.CMPL(match.As32(), operand.U32(1<<tagSize-1))
	g.SETEQ(ok.As8())
	g.MOVB(ok.As8(), at(g.op, opOK))
	g.ADDQ(ok, g.done)
}

// multiplyMemory is multiply by powers in memory, loaded once.
func (g *wide) multiplyMemory(s *sum, a reg.VecVirtual, h operand.Mem) []step {
	p := g.ZMM()
	return append([]step{func() { g.VMOVDQU64(h, p) }}, g.multiply(s, a, p, nil)...)
}
