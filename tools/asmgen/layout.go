package main

import (
	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Layout of aesgcm.Op, in bytes. A test of package aesgcm holds the two together.
const (
	opKey    = 0
	opNonce  = 8
	opAAD    = 20
	opAADLen = 32
	opOK     = 33
	opMatch  = 34
	opBuf    = 40
	opLen    = 48
	opSize   = 64
)

// Layout of aesgcm.Key, in bytes.
const (
	keyPowers  = 0 // H^16 down to H^1, each divided by x
	keyRounds  = 256
	keySalt    = 264 // and, behind it, suite and kind
	keyKind    = 269
	kindGCM    = 1
	keyRound   = 272 // round keys, the whitening key first
	keyPower20 = 512 // H^20, divided by x
)

const (
	block   = 16
	tagSize = 16
	aadMax  = 12
	// groupMax is the number of blocks that the loop takes at a time, and the largest number
	// that the end of a packet may have.
	groupMax = 8
	// powerMax is the highest power of H in a key: a group of 16 blocks in one sum, or the additional data,
	// groupMax blocks of text and the block of lengths.
	powerMax = 16
)

// power is the place of H^p in a key. Loaded at twice the width it is H^p, H^(p-1).
func power(key reg.Register, p int) operand.Mem {
	return operand.Mem{Base: key, Disp: keyPowers + (powerMax-p)*block}
}

func round(key reg.Register, i int) operand.Mem {
	return operand.Mem{Base: key, Disp: keyRound + i*block}
}

func at(base reg.Register, disp int) operand.Mem { return operand.Mem{Base: base, Disp: disp} }

func imm(v int) operand.U8 { return operand.U8(v) }

// constants are the tables of one file, each as wide as a YMM register.
type constants struct {
	swapBlock   operand.Mem // VPSHUFB: reverses a block
	swapCounter operand.Mem // VPSHUFB: reverses a block's last four bytes
	poly        operand.Mem // the low half of x^128 + x^127 + x^126 + x^121 + 1, reflected
	one         operand.Mem // a counter of 1, little-endian
	// add[j] is what block j+1 and its right neighbour add to the counter; at double the width each.
	add    []operand.Mem
	group  operand.Mem // groupMax in both lanes
	window operand.Mem // 32 bytes of ones, 16 of zeros: a load at 32-n keeps n bytes
}

// table emits words as read-only data.
func table(c *build.Context, name string, words ...uint64) operand.Mem {
	m := c.StaticGlobal(name)
	c.DataAttributes(attr.RODATA | attr.NOPTR)
	for i, w := range words {
		c.AddDatum(8*i, operand.U64(w))
	}
	return m
}

func (g *generator) constants() {
	g.c.swapBlock = table(g.Context, "swapBlock", 0x08090a0b0c0d0e0f, 0x0001020304050607, 0x08090a0b0c0d0e0f, 0x0001020304050607)
	g.c.swapCounter = table(g.Context, "swapCounter", 0x0706050403020100, 0x0c0d0e0f0b0a0908, 0x0706050403020100, 0x0c0d0e0f0b0a0908)
	g.c.poly = table(g.Context, "poly", 0xc2<<56, 0xc2<<56, 0xc2<<56, 0xc2<<56)
	g.c.one = table(g.Context, "one", 0, 1<<32)
	g.c.group = table(g.Context, "group", 0, groupMax<<32, 0, groupMax<<32)
	var add []uint64
	for j := range uint64(groupMax) {
		add = append(add, 0, (j+1)<<32)
	}
	base := table(g.Context, "add", add...)
	for j := range groupMax {
		g.c.add = append(g.c.add, base.Offset(j*block))
	}
	ones := ^uint64(0)
	g.c.window = table(g.Context, "window", ones, ones, ones, ones, 0, 0)
}
