package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// A step emits a few instructions. Lists of steps that do not depend on each
// other are emitted in turn, so that the units for AES and for carry-less
// multiplication both have work.
type step func()

// together emits both lists, evenly mixed, each in its order.
func together(a, b []step) {
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		if j == len(b) || i < len(a) && i*len(b) <= j*len(a) {
			a[i]()
			i++
		} else {
			b[j]()
			j++
		}
	}
}

// lastRound points g.last at the last round key.
func (g *generator) lastRound() {
	g.MOVL(g.rounds, g.last.As32())
	g.SHLL(operand.U8(4), g.last.As32())
	g.LEAQ(operand.Mem{Base: g.key, Index: g.last, Scale: 1, Disp: keyRound}, g.last)
}

// aesRounds returns the steps that turn counter blocks into key stream: FIPS 197,
// 5.1, all states a round at a time. States may be YMM and XMM registers.
// The keys of AES-192 and AES-256 have two and four rounds more before the last.
func (g *generator) aesRounds(states []reg.VecVirtual) []step {
	label := g.label("rounds")
	width := uint(16)
	for _, s := range states {
		width = max(width, s.Size())
	}
	each := func(key operand.Mem, f func(k, s reg.Register)) {
		k := g.XMM()
		narrow := reg.Register(k)
		if width == 32 {
			k = g.YMM()
			g.VBROADCASTI128(key, k)
			narrow = k.AsX()
		} else {
			g.VMOVDQU(key, k)
		}
		for _, s := range states {
			if s.Size() == width {
				f(k, s)
			} else {
				f(narrow, s)
			}
		}
	}
	var steps []step
	steps = append(steps, func() {
		each(round(g.key, 0), func(k, s reg.Register) { g.VPXOR(k, s, s) })
	})
	for i := 1; i <= 9; i++ {
		steps = append(steps, func() {
			each(round(g.key, i), func(k, s reg.Register) { g.VAESENC(k, s, s) })
		})
	}
	steps = append(steps, func() {
		g.CMPL(g.rounds, operand.U32(12))
		g.JB(operand.LabelRef(label))
		for i := 10; i <= 11; i++ {
			each(round(g.key, i), func(k, s reg.Register) { g.VAESENC(k, s, s) })
		}
		g.JE(operand.LabelRef(label))
		for i := 12; i <= 13; i++ {
			each(round(g.key, i), func(k, s reg.Register) { g.VAESENC(k, s, s) })
		}
		g.Label(label)
		each(at(g.last, 0), func(k, s reg.Register) { g.VAESENCLAST(k, s, s) })
	})
	return steps
}
