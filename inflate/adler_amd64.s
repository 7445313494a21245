#include "textflag.h"

// How often a block counts each of its 32 bytes.
DATA weights<>+0(SB)/8, $0x191a1b1c1d1e1f20
DATA weights<>+8(SB)/8, $0x1112131415161718
DATA weights<>+16(SB)/8, $0x090a0b0c0d0e0f10
DATA weights<>+24(SB)/8, $0x0102030405060708
GLOBL weights<>(SB), RODATA|NOPTR, $32

DATA ones<>+0(SB)/8, $0x0001000100010001
DATA ones<>+8(SB)/8, $0x0001000100010001
DATA ones<>+16(SB)/8, $0x0001000100010001
DATA ones<>+24(SB)/8, $0x0001000100010001
GLOBL ones<>(SB), RODATA|NOPTR, $32

// func sumVectors(p []byte, v *adlerVectors)
//
// No lane of 32 bits overflows within 32 KiB, which are 1024 blocks: one of sum grows by 8 * 255 a block at most, so
// that before stays below 2^30, and one of within by (32+31+30+29) * 255.
TEXT ·sumVectors(SB), NOSPLIT, $0-32
	MOVQ p_base+0(FP), SI
	MOVQ p_len+8(FP), CX
	MOVQ v+24(FP), DI
	VPXOR Y0, Y0, Y0
	VPXOR Y1, Y1, Y1 // sum
	VPXOR Y2, Y2, Y2 // before
	VPXOR Y3, Y3, Y3 // within
	VMOVDQU weights<>(SB), Y4
	VMOVDQU ones<>(SB), Y5
	SHRQ $5, CX
	JZ   done

block:
	VMOVDQU    (SI), Y6
	VPADDD     Y1, Y2, Y2
	VPSADBW    Y0, Y6, Y7
	VPADDD     Y7, Y1, Y1
	VPMADDUBSW Y4, Y6, Y8 // two bytes each: at most 63 * 255
	VPMADDWD   Y5, Y8, Y8
	VPADDD     Y8, Y3, Y3
	ADDQ       $32, SI
	DECQ       CX
	JNZ        block

done:
	VMOVDQU Y1, (DI)
	VMOVDQU Y2, 32(DI)
	VMOVDQU Y3, 64(DI)
	VZEROUPPER
	RET
