package main

import (
	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/reg"
)

// keySchedule writes what expanding a key needs: SubWord of FIPS 197, 5.2, one block's
// encryption, and a product in the field. None of them looks anything up in a table by a secret.
func keySchedule(c *build.Context) {
	c.Function("subWord")
	c.Attributes(attr.NOSPLIT)
	c.SignatureExpr("func(w uint32) uint32")
	w, x := c.GP32(), c.XMM()
	c.Load(c.Param("w"), w)
	c.VMOVD(w, x)
	c.VPSHUFD(imm(0), x, x)
	c.VAESKEYGENASSIST(imm(0), x, x)
	c.VMOVD(x, w)
	c.Store(w, c.ReturnIndex(0))
	c.RET()

	g := &generator{Context: c, lanes: 1}
	g.c.poly = table(g.Context, "polyKey", 0xc2<<56, 0xc2<<56)
	g.Function("encryptBlock")
	g.Attributes(attr.NOSPLIT)
	g.SignatureExpr("func(key, block *byte)")
	p := &packet{key: g.GP64(), twiceRounds: g.GP64()}
	b := g.GP64()
	g.Load(g.Param("key"), p.key)
	g.Load(g.Param("block"), b)
	g.MOVL(at(p.key, keyRounds), p.twiceRounds.As32())
	g.ADDL(p.twiceRounds.As32(), p.twiceRounds.As32())
	s := g.XMM()
	g.VMOVDQU(at(b, 0), s)
	run(g.aesRounds(lot{p, []reg.VecVirtual{s}}))
	g.VMOVDQU(s, at(b, 0))
	g.RET()

	g.Function("multiply")
	g.Attributes(attr.NOSPLIT)
	g.SignatureExpr("func(x, h *byte)")
	px, ph := g.GP64(), g.GP64()
	g.Load(g.Param("x"), px)
	g.Load(g.Param("h"), ph)
	a, r := g.XMM(), g.XMM()
	g.VMOVDQU(at(px, 0), a)
	var total sum
	run(g.multiply(&total, a, at(ph, 0), nil), g.reduce(&total, r))
	g.VMOVDQU(r, at(px, 0))
	g.RET()
}
