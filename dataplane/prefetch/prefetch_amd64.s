#include "textflag.h"

// func Bytes(b []byte)
TEXT ·Bytes(SB), NOSPLIT, $0-24
	MOVQ b_base+0(FP), AX
	MOVQ b_len+8(FP), CX
	ADDQ AX, CX          // the end
	ANDQ $~63, AX        // the first line
	JMP  check

next:
	PREFETCHT1 (AX)
	ADDQ       $64, AX

check:
	CMPQ AX, CX
	JB   next
	RET

// func each(mem *byte, offset *uint64, stride, n, lines uintptr)
TEXT ·each(SB), NOSPLIT, $0-40
	MOVQ  mem+0(FP), AX
	MOVQ  offset+8(FP), BX
	MOVQ  stride+16(FP), CX
	MOVQ  n+24(FP), DX
	MOVQ  lines+32(FP), R8
	TESTQ DX, DX
	JEQ   done

nextOffset:
	MOVQ (BX), SI
	ADDQ AX, SI
	MOVQ R8, DI

nextLine:
	PREFETCHT0 (SI)
	ADDQ       $64, SI
	DECQ       DI
	JNE        nextLine
	ADDQ       CX, BX
	DECQ       DX
	JNE        nextOffset

done:
	RET

// func items(list uintptr, index *uint32, n, size, lines uintptr)
TEXT ·items(SB), NOSPLIT, $0-40
	MOVQ  list+0(FP), AX
	MOVQ  index+8(FP), BX
	MOVQ  n+16(FP), DX
	MOVQ  size+24(FP), CX
	MOVQ  lines+32(FP), R8
	TESTQ DX, DX
	JEQ   none

nextItem:
	MOVL  (BX), SI
	IMULQ CX, SI
	ADDQ  AX, SI
	MOVQ  R8, DI

nextLineOfItem:
	PREFETCHT1 (SI)
	ADDQ       $64, SI
	DECQ       DI
	JNE        nextLineOfItem
	ADDQ       $4, BX
	DECQ       DX
	JNE        nextItem

none:
	RET
