package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// generator writes one function that seals or opens a batch. A packet is
//
//	groups of 8 blocks in a loop, AES and GHASH mixed, if it has more than 8 blocks,
//	an end of 0 to 8 blocks, written out for each number, with the lengths' block and the tag
//
// Two packets in a row that are only an end, of the same number of blocks, are sealed
// together: a packet of few blocks waits for its own results most of the time. Opening waits less, as
// GHASH does not need AES's results, and gains nothing from pairs.
//
// Partial blocks are read whole: the tag behind them is part of the buffer. So nothing
// outside the buffer is ever read.
type generator struct {
	*build.Context
	c     constants
	lanes int // blocks in a register: 1 in XMM, 2 in YMM
	// pairMax is the largest number of blocks of packets that are sealed in pairs, 0 for none.
	pairMax int
	open    bool
	count   int // of labels

	op     reg.GPVirtual
	left   reg.GPVirtual // ops from op on
	done   reg.GPVirtual // ops that went well
	blocks reg.GPVirtual // of the packet's text that are left, the partial one included
	ahead  reg.GPVirtual // the next packet's buffer, to be asked for
}

// packet is what registers hold of one packet.
type packet struct {
	op          operand.Mem // its description
	key         reg.GPVirtual
	twiceRounds reg.GPVirtual
	text        reg.GPVirtual // what is to be done
	left        reg.GPVirtual // bytes of it
	counter     reg.VecVirtual
	y0          reg.VecVirtual // the first counter block, which encrypts the tag
	prefix      reg.VecVirtual // what GHASH has before the text, reflected
	lengths     reg.VecVirtual // the block of lengths, reflected
}

func (g *generator) newPacket(disp int) *packet {
	return &packet{
		op: at(g.op, disp), key: g.GP64(), twiceRounds: g.GP64(), text: g.GP64(), left: g.GP64(),
		counter: g.vector(g.lanes), y0: g.XMM(), prefix: g.XMM(), lengths: g.XMM(),
	}
}

// aesgcm writes seal and open for a register width.
func aesgcm(c *build.Context, lanes, pairMax int) {
	suffix := map[int]string{1: "AESNI", 2: "VAES"}[lanes]
	g := &generator{Context: c, lanes: lanes, pairMax: pairMax}
	c.ConstraintExpr("amd64")
	g.constants()
	for _, open := range []bool{false, true} {
		g.open = open
		name := "seal" + suffix
		if open {
			name = "open" + suffix
		}
		g.function(name)
	}
}

// label returns a name that is new in the function.
func (g *generator) label(what string) string {
	g.count++
	return fmt.Sprintf("%s%d", what, g.count)
}

func to(label string) operand.Op { return operand.LabelRef(label) }

func (g *generator) function(name string) {
	g.Function(name)
	g.Attributes(attr.NOSPLIT)
	g.SignatureExpr("func(ops *byte, n int) (done int)")
	g.op, g.left, g.done, g.blocks, g.ahead = g.GP64(), g.GP64(), g.GP64(), g.GP64(), g.GP64()
	g.Load(g.Param("ops"), g.op)
	g.Load(g.Param("n"), g.left)
	g.XORL(g.done.As32(), g.done.As32())
	g.TESTQ(g.left, g.left)
	g.JZ(to("end"))
	p := g.newPacket(0)
	prefixPower := g.GP64() // address of the power that the prefix is multiplied with

	g.Label("packet")
	g.describe(p, "refuse")
	g.LEAQ(at(p.left, block-1), g.blocks)
	g.SHRQ(operand.U8(4), g.blocks)
	g.begin(p)
	g.CMPQ(g.blocks, operand.U32(groupMax))
	g.JA(to("long"))
	if g.pairMax > 0 && !g.open {
		g.pair(p)
	}
	g.Label("short")
	g.Comment("Ask for the next packet's first lines, the last packet for its own.")
	g.lookAhead(p, 1)
	g.Comment("The additional data are one product of the only sum.")
	g.LEAQ(power(p.key, 2), prefixPower)

	g.Label("finish")
	g.ask(0, 3*64)
	g.y0AndLengths(p)
	g.Comment("The text's blocks and that of the lengths stand behind the prefix.")
	shift := g.GP64()
	g.MOVQ(g.blocks, shift)
	g.SHLQ(operand.U8(4), shift)
	g.SUBQ(shift, prefixPower)
	g.search(0, groupMax, "blocks", func(n int) {
		g.finish(n, end{p, at(prefixPower, 0)})
		g.JMP(to("next"))
	})

	g.Label("long")
	g.lookAhead(p, 1)
	g.long(p)
	g.Comment("What was hashed so far comes right before the first block that is left.")
	g.LEAQ(power(p.key, 1), prefixPower)
	g.JMP(to("finish"))

	g.Label("refuse")
	g.MOVB(operand.U8(0), p.op.Offset(opOK))
	g.Label("next")
	g.ADDQ(operand.U32(opSize), g.op)
	g.DECQ(g.left)
	g.JNZ(to("packet"))
	g.Label("end")
	g.VZEROUPPER()
	g.Store(g.done, g.Return("done"))
	g.RET()
}

// describe loads a packet's description, and jumps to refuse if it cannot be worked on.
func (g *generator) describe(p *packet, refuse string) {
	g.MOVQ(p.op.Offset(opKey), p.key)
	g.TESTQ(p.key, p.key)
	g.JZ(to(refuse))
	g.MOVL(at(p.key, keyRounds), p.twiceRounds.As32())
	g.ADDL(p.twiceRounds.As32(), p.twiceRounds.As32())
	g.JZ(to(refuse))
	g.CMPB(p.op.Offset(opAADLen), operand.U8(aadMax))
	g.JA(to(refuse))
	g.MOVQ(p.op.Offset(opLen), p.left)
	g.SUBQ(operand.U32(tagSize), p.left)
	g.JLT(to(refuse))
	g.MOVQ(p.op.Offset(opBuf), p.text)
}

// begin makes the counter and the block of additional data.
func (g *generator) begin(p *packet) {
	g.Comment("Counter 1 behind the nonce; the counter is little-endian while it is counted.")
	x := p.counter.AsX()
	g.VMOVDQU(p.op.Offset(opNonce), x)
	g.VPBLENDW(imm(0xc0), g.c.one, x, x)
	if g.lanes == 2 {
		g.VINSERTI128(imm(1), x, p.counter, p.counter)
	}
	g.Comment("Additional data, padded with zeros.")
	aad, window := g.GP64(), g.GP64()
	g.MOVBQZX(p.op.Offset(opAADLen), aad)
	g.LEAQ(g.c.window.Offset(32), window)
	g.SUBQ(aad, window)
	g.VMOVDQU(p.op.Offset(opAAD), p.prefix)
	g.VPAND(at(window, 0), p.prefix, p.prefix)
	g.VPSHUFB(g.c.swapBlock, p.prefix, p.prefix)
}

// y0AndLengths makes the first counter block, and the block of lengths in bits.
func (g *generator) y0AndLengths(p *packet) {
	g.VMOVDQU(p.op.Offset(opNonce), p.y0)
	g.VPBLENDW(imm(0xc0), g.c.one, p.y0, p.y0)
	g.VPSHUFB(g.c.swapCounter, p.y0, p.y0)
	bits := g.GP64()
	g.MOVQ(p.op.Offset(opLen), bits)
	g.LEAQ(operand.Mem{Base: bits, Index: bits, Scale: 1, Disp: -2 * tagSize}, bits)
	g.SHLQ(operand.U8(2), bits)
	g.VMOVQ(bits, p.lengths)
	g.MOVBQZX(p.op.Offset(opAADLen), bits)
	g.SHLL(operand.U8(3), bits.As32())
	g.VPINSRQ(imm(1), bits, p.lengths, p.lengths)
}

// lookAhead points at the buffer of the op n behind this one, or at this one's if there is none.
func (g *generator) lookAhead(p *packet, n int) {
	none := g.label("noNext")
	g.MOVQ(p.text, g.ahead)
	g.CMPQ(g.left, operand.U8(n))
	g.JE(to(none))
	g.MOVQ(at(g.op, n*opSize+opBuf), g.ahead)
	g.Label(none)
}

// ask asks for the lines ahead.
func (g *generator) ask(from, bytes int) {
	for line := from; line < from+bytes; line += 64 {
		g.PREFETCHT0(at(g.ahead, line))
	}
}

// counters returns the states of n blocks from the counter's next on, and the step that
// fills them. With two lanes, the lane that an odd number leaves takes Y0.
func (g *generator) counters(p *packet, n int) ([]reg.VecVirtual, step) {
	var states []reg.VecVirtual
	for j := 0; j < n; j += g.lanes {
		states = append(states, g.vector(g.lanes))
	}
	return states, func() {
		for i, s := range states {
			j := i * g.lanes
			narrow := g.narrow(s, n-j)
			g.VPADDD(g.c.add[j], g.narrow(p.counter, n-j), narrow)
			g.VPSHUFB(g.c.swapCounter, narrow, narrow)
			if j+g.lanes > n {
				g.VINSERTI128(imm(1), p.y0, s, s)
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

// long works off all groups of 8 blocks but leaves 1 to 8 blocks.
func (g *generator) long(p *packet) {
	g.Comment("The additional data's product alone.")
	x := p.prefix
	var s sum
	run(g.multiply(&s, x, power(p.key, 1), nil), g.reduce(&s, x))

	var folded []reg.VecVirtual
	if g.lanes == 2 {
		g.Comment("Folded powers of H stay in registers.")
		for j := 0; j < groupMax; j += 2 {
			h := g.YMM()
			g.VMOVDQU(power(p.key, groupMax-j), h)
			folded = append(folded, g.fold(h, h))
		}
	}
	groups := g.GP64()
	g.LEAQ(at(g.blocks, -1), groups)
	g.SHRQ(operand.U8(3), groups)
	// crypt encrypts or decrypts a group, mixed with the steps of hash, and moves on behind it.
	crypt := func(hash []step) {
		states, fill := g.counters(p, groupMax)
		encrypt := []step{func() {
			fill()
			g.VPADDD(g.c.group, p.counter, p.counter)
		}}
		together(append(encrypt, g.aesRounds(lot{p, states})...), hash)
		for i, s := range states {
			m := at(p.text, i*g.lanes*block)
			g.VPXOR(m, s, s)
			g.VMOVDQU(s, m)
		}
		const bytes = groupMax * block
		g.ask(0, bytes)
		g.ADDQ(operand.U32(bytes), g.ahead)
		g.ADDQ(operand.U32(bytes), p.text)
		g.SUBQ(operand.U32(bytes), p.left)
		g.SUBQ(operand.U8(groupMax), g.blocks)
		g.DECQ(groups)
	}
	if g.open {
		g.Label("group")
		crypt(g.hashGroup(p, 0, folded))
		g.JNZ(to("group"))
		return
	}
	g.Comment("The first group is encrypted alone; each later one while the one before it is hashed.")
	crypt(nil)
	g.JZ(to("hashLast"))
	g.Label("group")
	crypt(g.hashGroup(p, -groupMax*block, folded))
	g.JNZ(to("group"))
	g.Label("hashLast")
	run(g.hashGroup(p, -groupMax*block, folded))
}

// hashGroup returns the steps that hash the group at disp behind the text, with
// the prefix XORed to its first block, into the prefix. folded are the folds of the powers of H, or nil.
func (g *generator) hashGroup(p *packet, disp int, folded []reg.VecVirtual) []step {
	var s sum
	var steps []step
	for j := 0; j < groupMax; j += g.lanes {
		d := g.vector(g.lanes)
		var f reg.VecVirtual
		if folded != nil {
			f = folded[j/g.lanes]
		}
		steps = append(steps, func() {
			g.VMOVDQU(at(p.text, disp+j*block), d)
			g.VPSHUFB(g.c.swapBlock, d, d)
			switch {
			case j > 0:
			case g.lanes == 2: // the lane above is zero in the prefix, as XMM instructions leave it
				g.VPXOR(p.prefix.AsY(), d, d)
			default:
				g.VPXOR(p.prefix, d, d)
			}
		})
		steps = append(steps, g.multiply(&s, d, power(p.key, groupMax-j), f)...)
	}
	return append(steps, g.reduce(&s, p.prefix)...)
}

// search branches to the code for the number of blocks in g.blocks.
func (g *generator) search(from, last int, name string, body func(int)) {
	if from == last {
		g.Commentf("%s: %d", name, from)
		body(from)
		return
	}
	middle := (from + last + 1) / 2
	upper := g.label(name)
	g.CMPQ(g.blocks, operand.U8(middle))
	g.JAE(to(upper))
	g.search(from, middle-1, name, body)
	g.Label(upper)
	g.search(middle, last, name, body)
}

// pair seals this packet and the next together if both have the same number of blocks, at least 1 and
// at most pairMax, and keys of the same size. Otherwise it goes on at short; the next
// packet's turn comes then, also to be refused.
func (g *generator) pair(p *packet) {
	g.CMPQ(g.left, operand.U8(2))
	g.JB(to("short"))
	g.CMPQ(g.blocks, operand.U8(g.pairMax))
	g.JA(to("short"))
	q := g.newPacket(opSize)
	g.describe(q, "short")
	g.CMPL(q.twiceRounds.As32(), p.twiceRounds.As32())
	g.JNE(to("short"))
	blocks := g.GP64()
	g.LEAQ(at(q.left, block-1), blocks)
	g.SHRQ(operand.U8(4), blocks)
	g.JZ(to("short"))
	g.CMPQ(blocks, g.blocks)
	g.JNE(to("short"))
	g.begin(q)
	g.lookAhead(p, 2)
	g.ask(0, 3*64)
	g.CMPQ(g.left, operand.U8(4))
	g.JB(to("pair"))
	g.MOVQ(at(g.op, 3*opSize+opBuf), g.ahead)
	g.ask(0, 3*64)
	g.Label("pair")
	g.y0AndLengths(p)
	g.y0AndLengths(q)
	g.search(1, g.pairMax, "pairs", func(n int) {
		g.finish(n, end{p, power(p.key, n+2)}, end{q, power(q.key, n+2)})
		g.JMP(to("nextPair"))
	})
	g.Label("nextPair")
	g.ADDQ(operand.U32(opSize), g.op)
	g.DECQ(g.left)
	g.JMP(to("next"))
}

// end is the last blocks of a packet.
type end struct {
	*packet
	prefixPower operand.Mem // what the prefix is multiplied with
}

// finish does the last n blocks of packets, and the tags.
func (g *generator) finish(n int, ends ...end) {
	odd := n%g.lanes != 0
	type work struct {
		end
		sum    sum
		states []reg.VecVirtual
		tag, x reg.VecVirtual // E(K, Y0) and the hash
	}
	var all []*work
	var encrypt []step
	var lots []lot
	for _, e := range ends {
		w := &work{end: e, tag: g.XMM(), x: g.XMM()}
		states, fill := g.counters(e.packet, n)
		w.states = states
		l := lot{e.packet, states}
		if !odd {
			l.states = append(l.states[:len(states):len(states)], w.tag)
		}
		encrypt = append(encrypt, func() {
			fill()
			if !odd {
				g.VMOVDQA(e.y0, w.tag)
			}
		})
		lots = append(lots, l)
		all = append(all, w)
	}
	encrypt = append(encrypt, g.aesRounds(lots...)...)

	text := func(w *work, i int) operand.Mem { return at(w.text, i*g.lanes*block) }
	last := (n+g.lanes-1)/g.lanes - 1
	// keep clears what of the last register d is not text: a load at window + 32 - n keeps n bytes of
	// a block, one 16 bytes before as many of a second.
	keep := func(w *work, d reg.Register) {
		window := g.GP64()
		g.LEAQ(g.c.window.Offset(n*block+block*(2-g.lanes)), window)
		if odd && g.lanes == 2 {
			g.LEAQ(g.c.window.Offset(n*block+block), window)
		}
		g.SUBQ(w.left, window)
		g.VPAND(at(window, 0), d, d)
	}
	// hash adds up the blocks in d, which are those of state i.
	hash := func(w *work, i int, d reg.VecVirtual) []step {
		j := i * g.lanes
		return append([]step{func() {
			g.VPSHUFB(g.c.swapBlock, g.narrow(d, n-j), g.narrow(d, n-j))
			if j+g.lanes > n {
				g.VINSERTI128(imm(1), w.lengths, d, d)
			}
		}}, g.multiply(&w.sum, d, power(w.key, n+1-j), nil)...)
	}

	if !g.open {
		together(encrypt, g.outer(all[0].end, &all[0].sum, odd))
		for k, w := range all {
			if k > 0 { // of two, only one's sum has registers during the rounds
				run(g.outer(w.end, &w.sum, odd))
			}
			for i, d := range w.states {
				narrow := g.narrow(d, n-i*g.lanes)
				if i == last && odd {
					g.VEXTRACTI128(imm(1), d, w.tag)
				}
				g.VPXOR(text(w, i), narrow, narrow)
				g.VMOVDQU(narrow, text(w, i))
				if i == last {
					keep(w, narrow)
				}
				run(hash(w, i, d))
			}
			run(g.reduce(&w.sum, w.x))
			g.VPSHUFB(g.c.swapBlock, w.x, w.x)
			g.VPXOR(w.tag, w.x, w.x)
			g.VMOVDQU(w.x, at(w.text, 0).Idx(w.left, 1))
			g.MOVB(operand.U8(1), w.op.Offset(opOK))
		}
		g.ADDQ(operand.U8(len(all)), g.done)
		return
	}

	w := all[0] // pairs are sealed only
	hashing := g.outer(w.end, &w.sum, odd)
	for i := range w.states {
		d := g.vector(g.lanes)
		hashing = append(hashing, func() {
			narrow := g.narrow(d, n-i*g.lanes)
			g.VMOVDQU(text(w, i), narrow)
			if i == last {
				keep(w, narrow)
			}
		})
		hashing = append(hashing, hash(w, i, d)...)
	}
	together(encrypt, append(hashing, g.reduce(&w.sum, w.x)...))
	g.Comment("What the tag should be, but for its encryption, against what it is.")
	g.VPSHUFB(g.c.swapBlock, w.x, w.x)
	g.VPXOR(at(w.text, 0).Idx(w.left, 1), w.x, w.x)
	g.Comment("Behind the text nothing changes.")
	for i, k := range w.states {
		narrow := g.narrow(k, n-i*g.lanes)
		if i == last && odd {
			g.VEXTRACTI128(imm(1), k, w.tag)
		}
		if i == last {
			keep(w, narrow)
		}
		g.VPXOR(text(w, i), narrow, narrow)
		g.VMOVDQU(narrow, text(w, i))
	}
	g.Comment("All bytes of the tag are compared at once.")
	g.VPCMPEQB(w.tag, w.x, w.x)
	match, ok := g.GP64(), g.GP64()
	g.VPMOVMSKB(w.x, match.As32())
	g.MOVW(match.As16(), w.op.Offset(opMatch))
	g.XORL(ok.As32(), ok.As32())
	g.CMPL(match.As32(), operand.U32(1<<tagSize-1))
	g.SETEQ(ok.As8())
	g.MOVB(ok.As8(), w.op.Offset(opOK))
	g.ADDQ(ok, g.done)
}

// outer returns the steps that add the prefix, and the block of lengths if it does not
// lie beside the last block of the text.
func (g *generator) outer(e end, s *sum, odd bool) []step {
	if odd {
		return g.multiply(s, e.prefix, e.prefixPower, nil)
	}
	if g.lanes == 1 {
		return append(g.multiply(s, e.prefix, e.prefixPower, nil), g.multiply(s, e.lengths, power(e.key, 1), nil)...)
	}
	both, powers := g.YMM(), g.YMM()
	return append([]step{func() {
		g.VINSERTI128(imm(1), e.lengths, e.prefix.AsY(), both)
		g.VMOVDQU(e.prefixPower, powers.AsX())
		g.VINSERTI128(imm(1), power(e.key, 1), powers, powers)
	}}, g.multiply(s, both, powers, nil)...)
}
