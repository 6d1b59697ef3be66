package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// GHASH (SP 800-38D, 6.4) as in S. Gueron and M. Kounavis, "Intel Carry-Less
// Multiplication Instruction and its Usage for Computing the GCM Mode": blocks are
// reversed bytes, so bits stand reflected; the product of two reflected numbers is theirs
// times x, so powers of H are kept divided by x; products of several blocks with
// falling powers of H are added up and reduced once.

// sum is a sum of products, not reduced: low + middle * x^64 + high * x^128 as three
// products by Karatsuba, where middle still holds low and high, too.
// Each lane of a YMM register has a sum of its own.
type sum struct {
	low, middle, high reg.VecVirtual
}

// vector returns a register with the given number of lanes.
func (g *generator) vector(lanes int) reg.VecVirtual {
	if lanes == 2 {
		return g.YMM()
	}
	return g.XMM()
}

// fold returns a register as wide as like whose halves both hold the sum of a's halves, lane by lane.
func (g *generator) fold(a operand.Op, like reg.VecVirtual) reg.VecVirtual {
	f := g.like(like)
	g.VPSHUFD(imm(0x4e), a, f)
	g.VPXOR(a, f, f)
	return f
}

// like returns a new register as wide as a.
func (g *generator) like(a reg.VecVirtual) reg.VecVirtual { return g.vector(int(a.Size()) / block) }

// multiply returns the steps that add a * h to s. folded holds the fold of h, or
// is nil to have it computed. A sum that is empty is started.
func (g *generator) multiply(s *sum, a reg.VecVirtual, h operand.Op, folded reg.VecVirtual) []step {
	part := func(total *reg.VecVirtual, half uint8, h operand.Op, a reg.VecVirtual) {
		p := g.like(a)
		g.VPCLMULQDQ(imm(int(half)), h, a, p)
		switch {
		case *total == nil:
			*total = p
		case p.Size() < (*total).Size(): // into lane 0; the lane above is zero in p
			g.VPXOR(p.AsY(), *total, *total)
		case p.Size() > (*total).Size():
			g.VPXOR((*total).AsY(), p, p)
			*total = p
		default:
			g.VPXOR(p, *total, *total)
		}
	}
	return []step{
		func() { part(&s.low, 0x00, h, a) },
		func() { part(&s.high, 0x11, h, a) },
		func() {
			if folded == nil {
				folded = g.fold(h, a)
			}
			part(&s.middle, 0x00, folded, g.fold(a, a))
		},
	}
}

// reduce returns the steps that turn s into one block, put into x.
func (g *generator) reduce(s *sum, x reg.VecVirtual) []step {
	// half moves the lowest 64 bits of from up by 128: what is congruent to
	// them, and into takes what remains 64 bits further up.
	half := func(from, into reg.VecVirtual) {
		t := g.like(from)
		g.VPCLMULQDQ(imm(0x00), g.c.poly, from, t)
		g.VPSHUFD(imm(0x4e), from, from)
		g.VPXOR(from, into, into)
		g.VPXOR(t, into, into)
	}
	return []step{
		func() {
			g.VPXOR(s.low, s.middle, s.middle)
			g.VPXOR(s.high, s.middle, s.middle)
		},
		func() { half(s.low, s.middle) },
		func() { half(s.middle, s.high) },
		func() {
			if s.high.Size() == 16 {
				g.VMOVDQA(s.high, x)
				return
			}
			g.VEXTRACTI128(imm(1), s.high, x)
			g.VPXOR(s.high.AsX(), x, x)
		},
	}
}

func run(lists ...[]step) {
	for _, l := range lists {
		for _, s := range l {
			s()
		}
	}
}
