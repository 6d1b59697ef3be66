package main

import (
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// quad writes seal and open for short packets in fours. All packets of a call have the same key, and as many bytes of
// text and of additional data. A short packet alone leaves lanes empty and has its own sum to reduce and a tag to finish; here
//
//	AES    takes a packet's whole registers of text as they are, and what is left of four packets in one or two registers
//	GHASH  has block i of four packets in the lanes of one register, so that a power of H is the same in all lanes, and
//	       sums, their reductions and the tags are four packets'
//
// and the product of the block of lengths is the same for all. Sealing, four packets are hashed while the next four are encrypted.
// There is code for each number of blocks from 1 to quadMax.
type quad struct {
	wide
	blocks  int // of a packet's text
	counter operand.Mem
	swapAAD operand.Mem // reverses additional data that stand behind the nonce's last 4 bytes
	pairs   operand.Mem // counters n and n+1 twice
	lanes   operand.Mem // a counter in all lanes
	slots   reg.GPVirtual
	text    reg.GPVirtual     // length of text
	data    reg.OpmaskVirtual // bytes of additional data in reversed blocks
	last    reg.OpmaskVirtual // bytes of text in reversed last blocks
	part    reg.OpmaskVirtual // qwords of a last register of 3 blocks
	packets int               // how many bytes behind op the packets lie that are hashed
	// kept is the packets' ciphertext, each packet's registers and then what they have together, if there are registers for it; else it is loaded again to be hashed.
	kept []reg.VecVirtual
}

const (
	quadMax   = 10 // blocks
	keptMax   = 5  // blocks of packets whose ciphertext stays in registers until it is hashed
	quadBytes = 4 * opSize

	// What stands on the stack, a register each.
	slotWhite   = 0 // the whitening key
	slotLengths = 1 // the product of the block of lengths
	slotY0      = 2 // of packets to be hashed: the tags' key stream, to which that product was added, reversed
	slotAAD     = 3 // and the blocks of additional data, reversed
	slotNextAAD = 4 // of packets that are encrypted meanwhile
	slotPowers  = 5 // powers of H that the additional data and the blocks of text are multiplied with
	slotFolds   = slotPowers + quadMax + 1
	slotCount   = slotFolds + quadMax/2 + 1
)

func (g *quad) slot(i int) operand.Mem { return at(g.slots, i*register) }

// aesgcmQuad writes both functions.
func aesgcmQuad(c *build.Context) {
	g := &quad{wide: wide{Context: c}}
	c.ConstraintExpr("amd64")
	const swapLo, swapHi = 0x08090a0b0c0d0e0f, 0x0001020304050607
	g.c.swap = table(c, "quadSwap", inLanes(swapLo, swapHi)...)
	g.c.poly = table(c, "quadPoly", inLanes(0xc2<<56, 0xc2<<56)...)
	g.swapAAD = table(c, "quadSwapAAD", inLanes(0x0c0d0e0f80808080, 0x0405060708090a0b)...)
	var counters, pairs, lanes []uint64
	for i := uint64(2); i < 2+quadMax; i++ {
		counters = append(counters, 0, i<<56)
	}
	for i := uint64(1); i < 2+quadMax; i++ {
		lanes = append(lanes, inLanes(0, i<<56)...)
		pairs = append(pairs, 0, i<<56, 0, (i+1)<<56, 0, i<<56, 0, (i+1)<<56)
	}
	g.counter = table(c, "quadCounters", counters...)
	g.lanes = table(c, "quadLanes", lanes...)
	g.pairs = table(c, "quadPairs", pairs...)
	for _, open := range []bool{false, true} {
		g.open = open
		name := "sealQuads"
		if open {
			name = "openQuads"
		}
		g.function(name)
	}
}

func (g *quad) function(name string) {
	g.Function(name)
	g.SignatureExpr("func(ops *byte, n int) (done int)")
	frame := g.AllocLocal((slotCount + 1) * register)
	done := g.GP64()
	g.done = done
	g.op, g.left, g.key, g.slots, g.text, g.ahead = g.GP64(), g.GP64(), g.GP64(), g.GP64(), g.GP64(), g.GP64()
	g.keys = nil
	for range 10 {
		g.keys = append(g.keys, g.ZMM())
	}
	g.hash = g.ZMM()
	g.nonce, g.data, g.last, g.end, g.part = g.K(), g.K(), g.K(), g.K(), g.K()
	g.Load(g.Param("ops"), g.op)
	g.Load(g.Param("n"), g.left)
	g.XORL(done.As32(), done.As32())
	g.SHRQ(operand.U8(2), g.left)
	g.JZ(to("none"))
	g.LEAQ(frame.Offset(register-1), g.slots)
	g.ANDQ(operand.I8(-register), g.slots)
	g.MOVQ(at(g.op, opKey), g.key)
	twiceRounds := g.GP64()
	g.MOVL(at(g.key, keyRounds), twiceRounds.As32())
	g.ADDL(twiceRounds.As32(), twiceRounds.As32())
	g.loadKeys(twiceRounds)
	white := g.ZMM()
	g.VBROADCASTI32X4(round(g.key, 0), white)
	g.VMOVDQA64(white, g.slot(slotWhite))

	g.Comment("Masks.")
	m, each := g.GP64(), g.GP64()
	g.MOVL(operand.U32(0x3f), m.As32())
	g.KMOVD(m.As32(), g.part)
	g.MOVQ(operand.U64(0x0001000100010001), each)
	g.IMUL3Q(operand.I32(0xfff), each, m)
	g.KMOVQ(m, g.nonce)
	aadLen, rest := g.GP64(), g.GP64()
	g.MOVBQZX(at(g.op, opAADLen), aadLen)
	g.reversedBytes(aadLen, each, g.data)
	g.MOVQ(at(g.op, opLen), g.text)
	g.SUBQ(operand.U8(tagSize), g.text)
	g.LEAL(at(g.text, -1), rest.As32())
	g.ANDL(operand.U8(block-1), rest.As32())
	g.INCL(rest.As32())
	g.reversedBytes(rest, each, g.last)

	g.Comment("The product of the lengths' block.")
	bits, lengths, h, folded := g.GP64(), g.ZMM(), g.ZMM(), g.ZMM()
	g.MOVQ(g.text, bits)
	g.SHLQ(operand.U8(3), bits)
	g.VMOVQ(bits, lengths.AsX())
	g.SHLL(operand.U8(3), aadLen.As32())
	g.VPINSRQ(imm(1), aadLen, lengths.AsX(), lengths.AsX())
	g.VSHUFI64X2(imm(0), lengths, lengths, lengths)
	g.VBROADCASTI32X4(power(g.key, 1), h)
	g.fold(h, h, folded)
	var s wideSum
	run(g.multiply(&s, lengths, h, folded), g.reduce(&s, nil))
	g.VMOVDQA64(g.hash, g.slot(slotLengths))

	blocks := g.GP64()
	g.LEAQ(at(g.text, block-1), blocks)
	g.SHRQ(operand.U8(4), blocks)
	g.search(blocks, 1, quadMax, func(n int) {
		g.blocks = n
		g.kept = nil
		if n <= keptMax {
			for range lanes4*g.registers() + g.tail() {
				g.kept = append(g.kept, g.ZMM())
			}
		}
		g.Commentf("%d blocks.", n)
		g.prepare(rest, each)
		if g.open {
			g.openAll()
		} else {
			g.sealAll()
		}
		g.JMP(to("end"))
	})
	g.Label("end")
	zero := g.ZMM()
	g.VPXORQ(zero, zero, zero)
	for i := range slotCount {
		g.VMOVDQA64(zero, g.slot(i))
	}
	g.VZEROUPPER()
	g.Label("none")
	g.Store(done, g.Return("done"))
	g.RET()
}

// reversedBytes makes the mask of the first n bytes in blocks whose bytes are reversed; each has a bit in every 16.
func (g *quad) reversedBytes(n, each reg.GPVirtual, mask reg.OpmaskVirtual) {
	m := g.GP64()
	g.MOVL(operand.U32(0xffff0000), m.As32())
	g.SHRXL(n.As32(), m.As32(), m.As32())
	g.MOVWLZX(m.As16(), m.As32())
	g.IMULQ(each, m)
	g.KMOVQ(m, mask)
}

// registers is the number of registers that a packet has of its own; the last of 3 or 4 blocks may be partial. tail is the number of blocks
// behind them, 0 to 2.
func (g *quad) registers() int { return (g.blocks + 1) / lanes4 }
func (g *quad) tail() int      { return max(0, g.blocks-lanes4*g.registers()) }

// prepare fills the slots, and the mask of text in what ends a packet; rest is the number of bytes in its last block.
func (g *quad) prepare(rest, each reg.GPVirtual) {
	for i := 0; i <= g.blocks; i++ {
		h := g.ZMM()
		g.VBROADCASTI32X4(power(g.key, g.blocks+2-i), h)
		g.VMOVDQA64(h, g.slot(slotPowers+i))
	}
	for k, p := range g.products() {
		a, b, f := g.ZMM(), g.ZMM(), g.ZMM()
		g.VMOVDQA64(g.slot(slotPowers+p[0]), a)
		g.VMOVDQA64(g.slot(slotPowers+p[1]), b)
		g.fold(a, b, f)
		g.VMOVDQA64(f, g.slot(slotFolds+k))
	}
	if !g.open {
		return
	}
	m := g.GP64()
	g.MOVQ(operand.I32(-1), m)
	switch g.tail() {
	case 0:
		n := g.GP64()
		g.LEAQ(at(g.text, -(g.registers()-1)*register), n)
		g.BZHIQ(n, m, m)
	case 1:
		g.BZHIQ(rest, m, m)
		g.IMULQ(each, m)
	case 2:
		n := g.GP64()
		g.LEAQ(at(rest, block), n)
		g.BZHIQ(n, m, m)
		g.MOVQ(m, n)
		g.SHLQ(operand.U8(32), n)
		g.ORQ(n, m)
	}
	g.KMOVQ(m, g.end)
}

// products lists which blocks are multiplied together, the additional data being block 0; a block alone is listed twice.
func (g *quad) products() (pairs [][2]int) {
	for i := 1; i < g.blocks; i += 2 {
		pairs = append(pairs, [2]int{i, i + 1})
	}
	if g.blocks%2 == 1 {
		return append(pairs, [2]int{0, g.blocks})
	}
	return append(pairs, [2]int{0, 0})
}

func (g *quad) sealAll() {
	loop, drain := g.label("seal"), g.label("drain")
	e := g.encryption()
	run(e.steps)
	g.crypt(e)
	g.DECQ(g.left)
	g.JZ(to(drain))
	g.Label(loop)
	g.ADDQ(operand.U32(quadBytes), g.op)
	g.packets = -quadBytes
	e = g.encryption()
	together(e.steps, g.finish())
	g.crypt(e)
	g.DECQ(g.left)
	g.JNZ(to(loop))
	g.Label(drain)
	g.packets = 0
	run(g.finish())
}

func (g *quad) openAll() {
	loop := g.label("open")
	g.packets = 0
	g.Label(loop)
	e := g.encryption()
	hash := g.hashing(nil)
	e.steps[0]()
	g.keep()
	together(e.steps[1:], hash)
	bufs := g.bufs(0)
	g.Comment("All bytes of the tags are compared at once.")
	tags := g.gather(bufs, g.text, 0)
	g.crypt(e)
	match, equal, ok := g.GP64(), g.K(), g.GP64()
	g.VPXORQ(g.slot(slotY0), g.hash, g.hash)
	g.VPSHUFB(g.c.swap, g.hash, g.hash)
	g.VPCMPEQB(tags, g.hash, equal)
	g.KMOVQ(equal, match)
	for p := range lanes4 {
		g.MOVW(match.As16(), at(g.op, p*opSize+opMatch))
		g.XORL(ok.As32(), ok.As32())
		g.CMPW(match.As16(), operand.I8(-1))
		g.SETEQ(ok.As8())
		g.MOVB(ok.As8(), at(g.op, p*opSize+opOK))
		g.ADDQ(ok, g.done)
		if p < lanes4-1 {
			g.SHRQ(operand.U8(tagSize), match)
		}
	}
	g.ADDQ(operand.U32(quadBytes), g.op)
	g.DECQ(g.left)
	g.JNZ(to(loop))
}

// bufs loads where four packets lie.
func (g *quad) bufs(disp int) (bufs []reg.GPVirtual) {
	for p := range lanes4 {
		b := g.GP64()
		g.MOVQ(at(g.op, disp+p*opSize+opBuf), b)
		bufs = append(bufs, b)
	}
	return bufs
}

// encryption is what makes four packets' key stream.
type encryption struct {
	steps []step
	own   [][]reg.VecVirtual // each packet's registers
	tail  []reg.VecVirtual   // one block of each packet, or two of two packets
	y0    reg.VecVirtual
}

func (g *quad) encryption() *encryption {
	e := new(encryption)
	for range lanes4 {
		var own []reg.VecVirtual
		for range g.registers() {
			own = append(own, g.ZMM())
		}
		e.own = append(e.own, own)
	}
	for range g.tail() {
		e.tail = append(e.tail, g.ZMM())
	}
	e.y0 = g.ZMM()
	states := append([]reg.VecVirtual{e.y0}, e.tail...)
	for _, own := range e.own {
		states = append(states, own...)
	}
	e.steps = append([]step{func() {
		a, b, nonces := g.ZMM(), g.ZMM(), g.ZMM()
		g.VMOVDQU64(at(g.op, 0), a.AsY())
		g.VINSERTI64X4(imm(1), at(g.op, opSize), a, a)
		g.VMOVDQU64(at(g.op, 2*opSize), b.AsY())
		g.VINSERTI64X4(imm(1), at(g.op, 3*opSize), b, b)
		g.VSHUFI64X2(imm(0x88), b, a, nonces)
		aad := g.ZMM()
		g.VSHUFI64X2(imm(0xdd), b, a, aad)
		g.VPALIGNR_Z(imm(8), nonces, aad, g.nonce, nonces)
		g.VPSHUFB_Z(g.swapAAD, aad, g.data, aad)
		if g.open {
			g.VMOVDQA64(aad, g.slot(slotAAD))
		} else {
			g.VMOVDQA64(aad, g.slot(slotNextAAD))
		}
		g.VPXORQ(g.slot(slotWhite), nonces, nonces)
		next := lanes4*g.registers() + 2
		for p, own := range e.own {
			if len(own) == 0 {
				break
			}
			n := own[len(own)-1]
			g.VSHUFI64X2(imm(p*0x55), nonces, nonces, n)
			for i, s := range own {
				g.VPXORQ(g.counter.Offset(i*register), n, s)
			}
		}
		switch g.tail() {
		case 1:
			g.VPXORQ(g.lanes.Offset((next-1)*register), nonces, e.tail[0])
		case 2:
			for i, s := range e.tail {
				g.VSHUFI64X2(imm(0x50+i*0xaa), nonces, nonces, s)
				g.VPXORQ(g.pairs.Offset((next-1)*register), s, s)
			}
		}
		g.VPXORQ(g.lanes, nonces, e.y0)
	}}, g.rounds(states, true)...)
	return e
}

// gather loads a block of each packet.
func (g *quad) gather(bufs []reg.GPVirtual, index reg.Register, disp int) reg.VecVirtual {
	place := func(p int) operand.Mem {
		m := at(bufs[p], disp)
		if index != nil {
			m = m.Idx(index, 1)
		}
		return m
	}
	a, b := g.ZMM(), g.ZMM()
	g.VMOVDQU64(place(0), a.AsX())
	g.VINSERTI32X4(imm(1), place(1), a.AsY(), a.AsY())
	g.VMOVDQU64(place(2), b.AsX())
	g.VINSERTI32X4(imm(1), place(3), b.AsY(), b.AsY())
	g.VINSERTI64X4(imm(1), b.AsY(), a, a)
	return a
}

// tailText loads register i of what four packets have behind their own registers.
func (g *quad) tailText(bufs []reg.GPVirtual, i int) reg.VecVirtual {
	if g.tail() == 1 {
		return g.gather(bufs, nil, g.registers()*register)
	}
	return g.gatherPairs(bufs, 2*i, g.registers()*register)
}

// keep loads what is to be opened.
func (g *quad) keep() {
	if len(g.kept) == 0 {
		return
	}
	bufs := g.bufs(0)
	for p, b := range bufs {
		for i := range g.registers() {
			k := g.kept[p*g.registers()+i]
			if g.blocks%lanes4 == 3 && i == g.registers()-1 {
				g.VMOVDQU64_Z(at(b, i*register), g.part, k)
			} else {
				g.VMOVDQU64(at(b, i*register), k)
			}
		}
	}
	for i := range g.tail() {
		g.VMOVDQA64(g.tailText(bufs, i), g.kept[lanes4*g.registers()+i])
	}
}

// blockPair returns the blocks i and i+1 of four packets, and block only the former.
func (g *quad) blockPair(bufs []reg.GPVirtual, i int, x []reg.VecVirtual) {
	var a, b reg.VecVirtual
	switch own := g.registers(); {
	case len(g.kept) == 0:
		if len(x) == 1 {
			g.VMOVDQA64(g.gather(bufs, nil, (i-1)*block), x[0])
			return
		}
		a, b = g.gatherPairs(bufs, 0, (i-1)*block), g.gatherPairs(bufs, 2, (i-1)*block)
	case i > lanes4*own && g.tail() == 1:
		g.VMOVDQA64(g.kept[lanes4*own], x[0])
		return
	case i > lanes4*own:
		a, b = g.kept[lanes4*own], g.kept[lanes4*own+1]
	default:
		half := 0x44
		if (i-1)%lanes4 >= 2 {
			half = 0xee
		}
		k := func(p int) reg.VecVirtual { return g.kept[p*own+(i-1)/lanes4] }
		a, b = g.ZMM(), g.ZMM()
		g.VSHUFI64X2(imm(half), k(1), k(0), a)
		g.VSHUFI64X2(imm(half), k(3), k(2), b)
	}
	g.VSHUFI64X2(imm(0x88), b, a, x[0])
	if len(x) == 2 {
		g.VSHUFI64X2(imm(0xdd), b, a, x[1])
	}
}

// gatherPairs loads two blocks of packets p and p+1.
func (g *quad) gatherPairs(bufs []reg.GPVirtual, p, disp int) reg.VecVirtual {
	a := g.ZMM()
	g.VMOVDQU64(at(bufs[p], disp), a.AsY())
	g.VINSERTI64X4(imm(1), at(bufs[p+1], disp), a, a)
	return a
}

// scatter stores a lane to each packet.
func (g *quad) scatter(from reg.VecVirtual, bufs []reg.GPVirtual, index reg.Register, disp int) {
	for p, b := range bufs {
		m := at(b, disp)
		if index != nil {
			m = m.Idx(index, 1)
		}
		if p == 0 {
			g.VMOVDQU64(from.AsX(), m)
		} else {
			g.VEXTRACTI32X4(imm(p), from, m)
		}
	}
}

// crypt takes text and key stream together. Sealing, what follows the text is spoiled up to the next whole block: the tag takes its place.
func (g *quad) crypt(e *encryption) {
	bufs := g.bufs(0)
	for p, own := range e.own {
		for i, s := range own {
			place := at(bufs[p], i*register)
			last := i == len(own)-1 && len(e.tail) == 0
			if last && g.open {
				g.VMOVDQU8_Z(s, g.end, s)
			}
			var text operand.Op = place
			into := s
			if len(g.kept) > 0 {
				if k := g.kept[p*len(own)+i]; g.open {
					text = k
				} else {
					into = k
				}
			}
			if last && g.blocks%lanes4 == 3 {
				g.VPXORQ_Z(text, s, g.part, into)
				g.VMOVDQU64(into, g.part, place)
			} else {
				g.VPXORQ(text, s, into)
				g.VMOVDQU64(into, place)
			}
		}
	}
	disp := g.registers() * register
	for i, s := range e.tail {
		if g.open {
			g.VMOVDQU8_Z(s, g.end, s)
		}
		var text reg.VecVirtual
		into := s
		if len(g.kept) > 0 {
			into = g.kept[lanes4*g.registers()+i]
		}
		if len(g.kept) > 0 && g.open {
			text, into = into, s
		} else {
			text = g.tailText(bufs, i)
		}
		g.VPXORQ(text, s, into)
		if len(e.tail) == 1 {
			g.scatter(into, bufs, nil, disp)
			continue
		}
		g.VMOVDQU64(into.AsY(), at(bufs[2*i], disp))
		g.VEXTRACTI64X4(imm(1), into, at(bufs[2*i+1], disp))
	}
	g.VPSHUFB(g.c.swap, e.y0, e.y0)
	g.VPXORQ(g.slot(slotLengths), e.y0, e.y0)
	g.VMOVDQA64(e.y0, g.slot(slotY0))
	if !g.open {
		aad := g.ZMM()
		g.VMOVDQA64(g.slot(slotNextAAD), aad)
		g.VMOVDQA64(aad, g.slot(slotAAD))
	}
}

// hashing returns the steps that hash four packets. What is in also, unless nil, is added.
func (g *quad) hashing(also operand.Op) (steps []step) {
	var bufs []reg.GPVirtual
	var s wideSum
	steps = append(steps, func() { bufs = g.bufs(g.packets) })
	power := func(i int) operand.Mem { return g.slot(slotPowers + i) }
	swap := func(i int, x reg.VecVirtual) {
		if i == g.blocks {
			g.VPSHUFB_Z(g.c.swap, x, g.last, x)
		} else {
			g.VPSHUFB(g.c.swap, x, x)
		}
	}
	for k, p := range g.products() {
		x := [2]reg.VecVirtual{g.ZMM(), g.ZMM()}
		folded := g.slot(slotFolds + k)
		switch {
		case p[1] == 0:
			steps = append(steps, func() { g.VMOVDQA64(g.slot(slotAAD), x[0]) })
			steps = append(steps, g.multiply(&s, x[0], power(0), folded)...)
			continue
		case p[0] == 0:
			steps = append(steps, func() {
				g.VMOVDQA64(g.slot(slotAAD), x[0])
				g.blockPair(bufs, p[1], x[1:])
				swap(p[1], x[1])
			})
		default:
			steps = append(steps, func() {
				g.blockPair(bufs, p[0], x[:])
				swap(p[0], x[0])
				swap(p[1], x[1])
			})
		}
		steps = append(steps, g.multiplyPair(&s, x, [2]operand.Mem{power(p[0]), power(p[1])}, folded)...)
	}
	return append(steps, g.reduce(&s, also)...)
}

// finish returns the steps that hash four packets and write their tags.
func (g *quad) finish() []step {
	disp := g.packets
	return append(g.hashing(g.slot(slotY0)), func() {
		g.VPSHUFB(g.c.swap, g.hash, g.hash)
		g.scatter(g.hash, g.bufs(disp), g.text, 0)
		for p := range lanes4 {
			g.MOVB(operand.U8(1), at(g.op, disp+p*opSize+opOK))
		}
		g.ADDQ(operand.U8(lanes4), g.done)
	})
}
