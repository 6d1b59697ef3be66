package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// generator writes one function that seals or opens a batch.
//
// Each packet is worked on alone; what is left of the units' time while a packet waits for
// its own results, the processor fills with the next packet, whose instructions depend on
// none of this one's. A packet is
//
//	groups of 8 blocks in a loop, AES and GHASH mixed, if it has more than 8 blocks,
//	an end of 0 to 8 blocks, written out for each number, with the lengths' block and the tag
//
// Partial blocks are read whole: the tag behind them is part of the buffer. So nothing
// outside the buffer is ever read.
type generator struct {
	*build.Context
	c     constants
	lanes int // blocks in a register: 1 in XMM, 2 in YMM
	open  bool
	name  string
	count int // of labels

	// The packet's registers.
	op, key, last reg.GPVirtual // last: the last round key
	rounds        reg.GPVirtual
	text          reg.GPVirtual // what is to be done
	left          reg.GPVirtual // bytes of it
	blocks        reg.GPVirtual // of it, the partial one included
	ahead         reg.GPVirtual // the next packet's buffer, to be asked for
	counter       reg.VecVirtual
	y0            reg.VecVirtual // the first counter block, which encrypts the tag
	prefix        reg.VecVirtual // what GHASH has before the text, reflected
	prefixPower   reg.GPVirtual  // address of the power that it is multiplied with
	lengths       reg.VecVirtual
	done          reg.GPVirtual // ops that went well
}

// aesgcm writes seal and open for a register width.
func aesgcm(c *build.Context, lanes int) {
	suffix := map[int]string{1: "AESNI", 2: "VAES"}[lanes]
	g := &generator{Context: c, lanes: lanes}
	c.ConstraintExpr("amd64")
	g.constants()
	for _, open := range []bool{false, true} {
		g.open, g.name = open, "seal"+suffix
		if open {
			g.name = "open" + suffix
		}
		g.function()
	}
}

// label returns a name that is new in the function.
func (g *generator) label(what string) string {
	g.count++
	return fmt.Sprintf("%s%d", what, g.count)
}

func to(label string) operand.Op { return operand.LabelRef(label) }

func (g *generator) function() {
	g.Function(g.name)
	g.Attributes(attr.NOSPLIT)
	g.SignatureExpr("func(ops *byte, n int) (done int)")
	g.op, g.key, g.last, g.rounds = g.GP64(), g.GP64(), g.GP64(), g.GP32()
	g.text, g.left, g.blocks, g.ahead, g.done = g.GP64(), g.GP64(), g.GP64(), g.GP64(), g.GP64()
	g.prefixPower = g.GP64()
	g.counter, g.y0, g.prefix, g.lengths = g.vector(g.lanes), g.XMM(), g.XMM(), g.XMM()
	n := g.GP64()
	g.Load(g.Param("ops"), g.op)
	g.Load(g.Param("n"), n)
	g.XORL(g.done.As32(), g.done.As32())
	g.TESTQ(n, n)
	g.JZ(to("end"))

	g.Label("packet")
	g.begin(n)
	g.CMPQ(g.blocks, operand.U32(groupMax))
	g.JA(to("long"))
	g.Comment("Short: the additional data are one product of the only sum.")
	g.LEAQ(at(g.key, keyPowers+(powerMax-2)*block), g.prefixPower)
	g.finish()

	g.Label("long")
	g.long()
	g.JMP(to("finish"))

	g.Label("refuse")
	g.MOVB(operand.U8(0), at(g.op, opOK))
	g.Label("next")
	g.ADDQ(operand.U32(opSize), g.op)
	g.DECQ(n)
	g.JNZ(to("packet"))
	g.Label("end")
	g.VZEROUPPER()
	g.Store(g.done, g.Return("done"))
	g.RET()
}

// begin loads a packet's description, or refuses it.
func (g *generator) begin(n reg.GPVirtual) {
	g.MOVQ(at(g.op, opKey), g.key)
	g.TESTQ(g.key, g.key)
	g.JZ(to("refuse"))
	g.MOVL(at(g.key, keyRounds), g.rounds)
	g.TESTL(g.rounds, g.rounds)
	g.JZ(to("refuse"))
	aad := g.GP64()
	g.MOVBQZX(at(g.op, opAADLen), aad)
	g.CMPQ(aad, operand.U32(aadMax))
	g.JA(to("refuse"))
	g.MOVQ(at(g.op, opLen), g.left)
	g.SUBQ(operand.U32(tagSize), g.left)
	g.JLT(to("refuse"))
	g.MOVQ(at(g.op, opBuf), g.text)

	g.Comment("Ask for the next packet's first lines, the last packet for its own.")
	g.MOVQ(g.text, g.ahead)
	g.CMPQ(n, operand.U8(1))
	g.JE(to("lastPacket"))
	g.MOVQ(at(g.op, opSize+opBuf), g.ahead)
	g.Label("lastPacket")

	g.lastRound()

	g.Comment("Counter 1 behind the nonce; the counter is little-endian while it is counted.")
	x := g.counter.AsX()
	g.VMOVDQU(at(g.op, opNonce), x)
	g.VPBLENDW(imm(0xc0), g.c.one, x, x)
	if g.lanes == 2 {
		g.VINSERTI128(imm(1), x, g.counter, g.counter)
	}

	g.Comment("Additional data, padded with zeros.")
	window := g.GP64()
	g.LEAQ(g.c.window.Offset(32), window)
	g.SUBQ(aad, window)
	g.VMOVDQU(at(g.op, opAAD), g.prefix)
	g.VPAND(at(window, 0), g.prefix, g.prefix)
	g.VPSHUFB(g.c.swapBlock, g.prefix, g.prefix)

	g.LEAQ(at(g.left, block-1), g.blocks)
	g.SHRQ(operand.U8(4), g.blocks)
}

// counters returns the states of n blocks from the counter's next on, and the step that
// fills them. With two lanes, the lane that an odd number leaves takes Y0.
func (g *generator) counters(n int) ([]reg.VecVirtual, step) {
	var states []reg.VecVirtual
	for j := 0; j < n; j += g.lanes {
		states = append(states, g.vector(g.lanes))
	}
	return states, func() {
		for i, s := range states {
			j := i * g.lanes
			narrow := g.narrow(s, n-j)
			g.VPADDD(g.c.add[j], g.narrow(g.counter, n-j), narrow)
			g.VPSHUFB(g.c.swapCounter, narrow, narrow)
			if j+g.lanes > n {
				g.VINSERTI128(imm(1), g.y0, s, s)
			}
		}
	}
}

// narrow returns the part of r that has blocks, if they are fewer than its lanes.
func (g *generator) narrow(r reg.VecVirtual, blocks int) reg.Register {
	if blocks < g.lanes {
		return r.AsX()
	}
	return r
}

// hashGroup returns the steps that hash the group at disp behind text, with
// x XORed to its first block, into x.
func (g *generator) hashGroup(disp int, x reg.VecVirtual, folded []reg.VecVirtual) []step {
	var s sum
	var steps []step
	for j := 0; j < groupMax; j += g.lanes {
		d := g.vector(g.lanes)
		var f reg.VecVirtual
		if folded != nil {
			f = folded[j/g.lanes]
		}
		steps = append(steps, func() {
			g.VMOVDQU(at(g.text, disp+j*block), d)
			g.VPSHUFB(g.c.swapBlock, d, d)
			if j == 0 {
				g.xorLane0(x, d)
			}
		})
		steps = append(steps, g.multiply(&s, d, power(g.key, groupMax-j), f)...)
	}
	return append(steps, g.reduce(&s, x)...)
}

// xorLane0 adds an XMM register to the first lane of d. Instructions that write XMM registers
// clear the lane above, so x can be used at any width.
func (g *generator) xorLane0(x, d reg.VecVirtual) {
	if d.Size() == 32 {
		g.VPXOR(x.AsY(), d, d)
		return
	}
	g.VPXOR(x, d, d)
}

// long works off all groups of 8 blocks but leaves 1 to 8 blocks.
func (g *generator) long() {
	g.Comment("The additional data's product alone.")
	x := g.prefix
	var s sum
	run(g.multiply(&s, x, power(g.key, 1), nil), g.reduce(&s, x))

	var folded []reg.VecVirtual
	if g.lanes == 2 {
		g.Comment("Folded powers of H stay in registers.")
		for j := 0; j < groupMax; j += 2 {
			h := g.YMM()
			g.VMOVDQU(power(g.key, groupMax-j), h)
			folded = append(folded, g.fold(h))
		}
	}
	groups := g.GP64()
	g.LEAQ(at(g.blocks, -1), groups)
	g.SHRQ(operand.U8(3), groups)
	crypt := func() (encrypt, store []step) {
		states, fill := g.counters(groupMax)
		encrypt = append(encrypt, func() {
			fill()
			g.VPADDD(g.c.group, g.counter, g.counter)
		})
		encrypt = append(encrypt, g.aesRounds(states)...)
		for i, s := range states {
			store = append(store, func() {
				m := at(g.text, i*g.lanes*block)
				g.VPXOR(m, s, s)
				g.VMOVDQU(s, m)
			})
		}
		return encrypt, store
	}
	move := func() {
		g.PREFETCHT0(at(g.ahead, 0))
		g.PREFETCHT0(at(g.ahead, 64))
		g.ADDQ(operand.U32(groupMax*block), g.ahead)
		g.ADDQ(operand.U32(groupMax*block), g.text)
		g.SUBQ(operand.U32(groupMax*block), g.left)
		g.SUBQ(operand.U8(groupMax), g.blocks)
		g.DECQ(groups)
	}
	if g.open {
		g.Label("group")
		encrypt, store := crypt()
		together(encrypt, g.hashGroup(0, x, folded))
		run(store)
		move()
		g.JNZ(to("group"))
	} else {
		g.Comment("The first group is encrypted alone; each later one while the one before it is hashed.")
		run(crypt())
		move()
		g.JZ(to("hashLast"))
		g.Label("group")
		encrypt, store := crypt()
		together(encrypt, g.hashGroup(-groupMax*block, x, folded))
		run(store)
		move()
		g.JNZ(to("group"))
		g.Label("hashLast")
		run(g.hashGroup(-groupMax*block, x, folded))
	}
	g.Comment("What was hashed so far comes right before the first block that is left.")
	g.LEAQ(power(g.key, 1), g.prefixPower)
}

// finish does the last 0 to 8 blocks, and the tag.
func (g *generator) finish() {
	g.Label("finish")
	for line := range 3 {
		g.PREFETCHT0(at(g.ahead, 64*line))
	}
	g.Comment("Y0, and the block of lengths in bits.")
	g.VMOVDQU(at(g.op, opNonce), g.y0)
	g.VPBLENDW(imm(0xc0), g.c.one, g.y0, g.y0)
	g.VPSHUFB(g.c.swapCounter, g.y0, g.y0)
	bits := g.GP64()
	g.MOVQ(at(g.op, opLen), bits)
	g.LEAQ(operand.Mem{Base: bits, Index: bits, Scale: 1, Disp: -2 * tagSize}, bits)
	g.SHLQ(operand.U8(2), bits)
	g.VMOVQ(bits, g.lengths)
	g.MOVBQZX(at(g.op, opAADLen), bits)
	g.SHLL(operand.U8(3), bits.As32())
	g.VPINSRQ(imm(1), bits, g.lengths, g.lengths)
	g.Comment("The text's blocks and that of the lengths stand behind the prefix.")
	shift := g.GP64()
	g.MOVQ(g.blocks, shift)
	g.SHLQ(operand.U8(4), shift)
	g.SUBQ(shift, g.prefixPower)
	g.Comment("A load at window + 16 n keeps the bytes of the last block, if n is the number of blocks.")
	window := g.GP64()
	g.LEAQ(g.c.window, window)
	g.SUBQ(g.left, window)
	g.search(0, groupMax, func(n int) { g.end(n, window) })
}

// search branches to the code for the number of blocks in g.blocks.
func (g *generator) search(from, to_ int, body func(int)) {
	if from == to_ {
		g.Commentf("%d blocks.", from)
		body(from)
		g.JMP(to("next"))
		return
	}
	middle := (from + to_ + 1) / 2
	upper := g.label("blocks")
	g.CMPQ(g.blocks, operand.U8(middle))
	g.JAE(to(upper))
	g.search(from, middle-1, body)
	g.Label(upper)
	g.search(middle, to_, body)
}

// end does n last blocks, and the tag.
func (g *generator) end(n int, window reg.GPVirtual) {
	var s sum
	odd := n%g.lanes != 0
	tag, x := g.XMM(), g.XMM() // E(K, Y0) and the hash
	states, fill := g.counters(n)
	all := states
	if !odd {
		all = append(all[:len(all):len(all)], tag)
	}
	encrypt := []step{func() {
		fill()
		if !odd {
			g.VMOVDQA(g.y0, tag)
		}
	}}
	encrypt = append(encrypt, g.aesRounds(all)...)

	text := func(i int) operand.Mem { return at(g.text, i*g.lanes*block) }
	// mask keeps the text's bytes of the last register.
	mask := at(window, n*block+block)
	if !odd && g.lanes == 2 {
		mask = at(window, n*block)
	}
	last := len(states) - 1
	// hash adds up the blocks in d, which are those of states[i].
	hash := func(i int, d reg.VecVirtual) []step {
		j := i * g.lanes
		return append([]step{func() {
			g.VPSHUFB(g.c.swapBlock, g.narrow(d, n-j), g.narrow(d, n-j))
			if j+g.lanes > n {
				g.VINSERTI128(imm(1), g.lengths, d, d)
			}
		}}, g.multiply(&s, d, power(g.key, n+1-j), nil)...)
	}

	if !g.open {
		together(encrypt, g.ends(&s, odd))
		for i, d := range states {
			narrow := g.narrow(d, n-i*g.lanes)
			if i == last && odd {
				g.VEXTRACTI128(imm(1), d, tag)
			}
			g.VPXOR(text(i), narrow, narrow)
			g.VMOVDQU(narrow, text(i))
			if i == last {
				g.VPAND(mask, narrow, narrow)
			}
			run(hash(i, d))
		}
		run(g.reduce(&s, x))
		g.VPSHUFB(g.c.swapBlock, x, x)
		g.VPXOR(tag, x, x)
		g.VMOVDQU(x, at(g.text, 0).Idx(g.left, 1))
		g.MOVB(operand.U8(1), at(g.op, opOK))
		g.INCQ(g.done)
		return
	}

	hashing := g.ends(&s, odd)
	for i := range states {
		d := g.vector(g.lanes)
		hashing = append(hashing, func() {
			narrow := g.narrow(d, n-i*g.lanes)
			g.VMOVDQU(text(i), narrow)
			if i == last {
				g.VPAND(mask, narrow, narrow)
			}
		})
		hashing = append(hashing, hash(i, d)...)
	}
	together(encrypt, append(hashing, g.reduce(&s, x)...))
	g.Comment("The tag is compared as one word; behind the text nothing changes.")
	g.VPSHUFB(g.c.swapBlock, x, x)
	g.VPXOR(at(g.text, 0).Idx(g.left, 1), x, x)
	for i, k := range states {
		narrow := g.narrow(k, n-i*g.lanes)
		if i == last && odd {
			g.VEXTRACTI128(imm(1), k, tag)
		}
		if i == last {
			g.VPAND(mask, narrow, narrow)
		}
		g.VPXOR(text(i), narrow, narrow)
		g.VMOVDQU(narrow, text(i))
	}
	g.VPXOR(tag, x, x)
	ok := g.GP64()
	g.XORL(ok.As32(), ok.As32())
	g.VPTEST(x, x)
	g.SETEQ(ok.As8())
	g.MOVB(ok.As8(), at(g.op, opOK))
	g.ADDQ(ok, g.done)
}

// ends returns the steps that add the prefix, and the block of lengths if it does not
// lie beside the last block of the text.
func (g *generator) ends(s *sum, odd bool) []step {
	prefixPower := at(g.prefixPower, 0)
	if odd {
		return g.multiply(s, g.prefix, prefixPower, nil)
	}
	if g.lanes == 1 {
		return append(g.multiply(s, g.prefix, prefixPower, nil), g.multiply(s, g.lengths, power(g.key, 1), nil)...)
	}
	both, powers := g.YMM(), g.YMM()
	return append([]step{func() {
		g.VINSERTI128(imm(1), g.lengths, g.prefix.AsY(), both)
		g.VMOVDQU(prefixPower, powers.AsX())
		g.VINSERTI128(imm(1), power(g.key, 1), powers, powers)
	}}, g.multiply(s, both, powers, nil)...)
}
