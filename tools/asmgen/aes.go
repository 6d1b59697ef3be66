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

// lot is a packet's states, to be encrypted with its key.
type lot struct {
	p      *packet
	states []reg.VecVirtual
}

// each loads round key i into all lanes and calls f with it for every state. States may be YMM and
// XMM registers.
func (g *generator) each(l lot, key operand.Mem, f func(k, s reg.Register)) {
	lanes := 1
	for _, s := range l.states {
		lanes = max(lanes, int(s.Size())/block)
	}
	k := g.vector(lanes)
	if lanes == 2 {
		g.VBROADCASTI128(key, k)
	} else {
		g.VMOVDQU(key, k)
	}
	for _, s := range l.states {
		if s.Size() == 16 {
			f(k.AsX(), s)
		} else {
			f(k, s)
		}
	}
}

// aesRounds returns the steps that turn counter blocks into key stream: FIPS 197,
// 5.1, all states a round at a time. The keys of AES-192 and AES-256 have two and
// four rounds more before the last; all lots have as many as the first.
func (g *generator) aesRounds(lots ...lot) []step {
	all := func(i int, f func(k, s reg.Register)) {
		for _, l := range lots {
			g.each(l, round(l.p.key, i), f)
		}
	}
	encrypt := func(k, s reg.Register) { g.VAESENC(k, s, s) }
	steps := []step{func() { all(0, func(k, s reg.Register) { g.VPXOR(k, s, s) }) }}
	for i := 1; i <= 9; i++ {
		steps = append(steps, func() { all(i, encrypt) })
	}
	return append(steps, func() {
		last := g.label("lastRound")
		rounds := lots[0].p.twiceRounds
		g.CMPL(rounds.As32(), operand.U32(2*12))
		g.JB(operand.LabelRef(last))
		all(10, encrypt)
		all(11, encrypt)
		g.JE(operand.LabelRef(last))
		all(12, encrypt)
		all(13, encrypt)
		g.Label(last)
		for _, l := range lots {
			g.each(l, round(l.p.key, 0).Idx(rounds, 8), func(k, s reg.Register) { g.VAESENCLAST(k, s, s) })
		}
	})
}
