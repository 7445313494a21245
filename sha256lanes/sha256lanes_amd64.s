#include "textflag.h"

// The constants of the rounds (FIPS 180-4, section 4.2.2).
DATA constants<>+0(SB)/8, $0x71374491428a2f98
DATA constants<>+8(SB)/8, $0xe9b5dba5b5c0fbcf
DATA constants<>+16(SB)/8, $0x59f111f13956c25b
DATA constants<>+24(SB)/8, $0xab1c5ed5923f82a4
DATA constants<>+32(SB)/8, $0x12835b01d807aa98
DATA constants<>+40(SB)/8, $0x550c7dc3243185be
DATA constants<>+48(SB)/8, $0x80deb1fe72be5d74
DATA constants<>+56(SB)/8, $0xc19bf1749bdc06a7
DATA constants<>+64(SB)/8, $0xefbe4786e49b69c1
DATA constants<>+72(SB)/8, $0x240ca1cc0fc19dc6
DATA constants<>+80(SB)/8, $0x4a7484aa2de92c6f
DATA constants<>+88(SB)/8, $0x76f988da5cb0a9dc
DATA constants<>+96(SB)/8, $0xa831c66d983e5152
DATA constants<>+104(SB)/8, $0xbf597fc7b00327c8
DATA constants<>+112(SB)/8, $0xd5a79147c6e00bf3
DATA constants<>+120(SB)/8, $0x1429296706ca6351
DATA constants<>+128(SB)/8, $0x2e1b213827b70a85
DATA constants<>+136(SB)/8, $0x53380d134d2c6dfc
DATA constants<>+144(SB)/8, $0x766a0abb650a7354
DATA constants<>+152(SB)/8, $0x92722c8581c2c92e
DATA constants<>+160(SB)/8, $0xa81a664ba2bfe8a1
DATA constants<>+168(SB)/8, $0xc76c51a3c24b8b70
DATA constants<>+176(SB)/8, $0xd6990624d192e819
DATA constants<>+184(SB)/8, $0x106aa070f40e3585
DATA constants<>+192(SB)/8, $0x1e376c0819a4c116
DATA constants<>+200(SB)/8, $0x34b0bcb52748774c
DATA constants<>+208(SB)/8, $0x4ed8aa4a391c0cb3
DATA constants<>+216(SB)/8, $0x682e6ff35b9cca4f
DATA constants<>+224(SB)/8, $0x78a5636f748f82ee
DATA constants<>+232(SB)/8, $0x8cc7020884c87814
DATA constants<>+240(SB)/8, $0xa4506ceb90befffa
DATA constants<>+248(SB)/8, $0xc67178f2bef9a3f7
GLOBL constants<>(SB), RODATA|NOPTR, $256

// Turns the bytes of each word around: messages are big-endian.
DATA turn<>+0(SB)/8, $0x0405060700010203
DATA turn<>+8(SB)/8, $0x0c0d0e0f08090a0b
DATA turn<>+16(SB)/8, $0x0405060700010203
DATA turn<>+24(SB)/8, $0x0c0d0e0f08090a0b
GLOBL turn<>(SB), RODATA|NOPTR, $32

// In both functions, a vector is one word of each of the 8 messages. Y0 to Y7 are the working variables a to h, AX,
// BX, DX, R8 to R12 point to the messages, CX is the offset in them, and SI points to the constants of the next 16
// rounds.

// LANES loads the pointers to the messages.
#define LANES(from) \
	MOVQ 0(from), AX \
	MOVQ 8(from), BX \
	MOVQ 16(from), DX \
	MOVQ 24(from), R8 \
	MOVQ 32(from), R9 \
	MOVQ 40(from), R10 \
	MOVQ 48(from), R11 \
	MOVQ 56(from), R12

// STATE loads the working variables.
#define STATE(from) \
	VMOVDQU 0(from), Y0 \
	VMOVDQU 32(from), Y1 \
	VMOVDQU 64(from), Y2 \
	VMOVDQU 96(from), Y3 \
	VMOVDQU 128(from), Y4 \
	VMOVDQU 160(from), Y5 \
	VMOVDQU 192(from), Y6 \
	VMOVDQU 224(from), Y7

// UPDATE adds the working variables to the state, and keeps them.
#define UPDATE(to) \
	VPADDD  0(to), Y0, Y0 \
	VMOVDQU Y0, 0(to) \
	VPADDD  32(to), Y1, Y1 \
	VMOVDQU Y1, 32(to) \
	VPADDD  64(to), Y2, Y2 \
	VMOVDQU Y2, 64(to) \
	VPADDD  96(to), Y3, Y3 \
	VMOVDQU Y3, 96(to) \
	VPADDD  128(to), Y4, Y4 \
	VMOVDQU Y4, 128(to) \
	VPADDD  160(to), Y5, Y5 \
	VMOVDQU Y5, 160(to) \
	VPADDD  192(to), Y6, Y6 \
	VMOVDQU Y6, 192(to) \
	VPADDD  224(to), Y7, Y7 \
	VMOVDQU Y7, 224(to)

// WORDS loads 4 words at off of each message, and leaves vectors of the first to the fourth word in Y8 to Y11. The
// halves of a register are put together while loading, so that nothing has to cross them afterwards.
#define WORDS(off) \
	VMOVDQU     off(AX)(CX*1), X8 \
	VINSERTI128 $1, off(R9)(CX*1), Y8, Y8 \
	VMOVDQU     off(BX)(CX*1), X9 \
	VINSERTI128 $1, off(R10)(CX*1), Y9, Y9 \
	VMOVDQU     off(DX)(CX*1), X10 \
	VINSERTI128 $1, off(R11)(CX*1), Y10, Y10 \
	VMOVDQU     off(R8)(CX*1), X11 \
	VINSERTI128 $1, off(R12)(CX*1), Y11, Y11 \
	VPSHUFB     turn<>(SB), Y8, Y8 \
	VPSHUFB     turn<>(SB), Y9, Y9 \
	VPSHUFB     turn<>(SB), Y10, Y10 \
	VPSHUFB     turn<>(SB), Y11, Y11 \
	VPUNPCKLDQ  Y9, Y8, Y12 \
	VPUNPCKHDQ  Y9, Y8, Y13 \
	VPUNPCKLDQ  Y11, Y10, Y14 \
	VPUNPCKHDQ  Y11, Y10, Y15 \
	VPUNPCKLQDQ Y14, Y12, Y8 \
	VPUNPCKHQDQ Y14, Y12, Y9 \
	VPUNPCKLQDQ Y15, Y13, Y10 \
	VPUNPCKHQDQ Y15, Y13, Y11

// WIDE_KEEP moves what WORDS loaded to where wideBlocks keeps the words.
#define WIDE_KEEP(w0, w1, w2, w3) \
	VMOVDQA32 Y8, w0 \
	VMOVDQA32 Y9, w1 \
	VMOVDQA32 Y10, w2 \
	VMOVDQA32 Y11, w3

// WIDE_ROUND is a round (FIPS 180-4, section 6.2.2, step 3) without the exchange of names: h becomes the next a.
#define WIDE_ROUND(a, b, c, d, e, f, g, h, w, k) \
	VPADDD      w, h, h \
	VPADDD.BCST k(SI), h, h \
	VPRORD      $6, e, Y8 \
	VPRORD      $11, e, Y9 \
	VPRORD      $25, e, Y10 \
	VPTERNLOGD  $0x96, Y10, Y9, Y8 \ // exclusive or of three
	VMOVDQA     e, Y11 \
	VPTERNLOGD  $0xca, g, f, Y11 \ // Ch
	VPADDD      Y11, h, h \
	VPADDD      Y8, h, h \
	VPADDD      h, d, d \
	VPRORD      $2, a, Y12 \
	VPRORD      $13, a, Y13 \
	VPRORD      $22, a, Y14 \
	VPTERNLOGD  $0x96, Y14, Y13, Y12 \
	VMOVDQA     a, Y15 \
	VPTERNLOGD  $0xe8, c, b, Y15 \ // Maj
	VPADDD      Y15, h, h \
	VPADDD      Y12, h, h

// WIDE_NEXT makes the word 16 rounds after w0 of it and of those 1, 9 and 14 behind it (step 1).
#define WIDE_NEXT(w0, w1, w9, w14) \
	VPRORD     $7, w1, Y8 \
	VPRORD     $18, w1, Y9 \
	VPSRLD     $3, w1, Y10 \
	VPTERNLOGD $0x96, Y10, Y9, Y8 \
	VPRORD     $17, w14, Y11 \
	VPRORD     $19, w14, Y12 \
	VPSRLD     $10, w14, Y13 \
	VPTERNLOGD $0x96, Y13, Y12, Y11 \
	VPADDD     w9, w0, w0 \
	VPADDD     Y8, w0, w0 \
	VPADDD     Y11, w0, w0

// func wideBlocks(state *state, messages *[Lanes]*byte, n int)
//
// It keeps the 16 words that the next rounds need in Y16 to Y31.
TEXT ·wideBlocks(SB), NOSPLIT, $0-24
	MOVQ  state+0(FP), DI
	MOVQ  messages+8(FP), SI
	LANES(SI)
	XORQ  CX, CX
	STATE(DI)

block:
	LEAQ constants<>(SB), SI
	WORDS(0)
	WIDE_KEEP(Y16, Y17, Y18, Y19)
	WORDS(16)
	WIDE_KEEP(Y20, Y21, Y22, Y23)
	WORDS(32)
	WIDE_KEEP(Y24, Y25, Y26, Y27)
	WORDS(48)
	WIDE_KEEP(Y28, Y29, Y30, Y31)
	WIDE_ROUND(Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y16, 0)
	WIDE_ROUND(Y7, Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y17, 4)
	WIDE_ROUND(Y6, Y7, Y0, Y1, Y2, Y3, Y4, Y5, Y18, 8)
	WIDE_ROUND(Y5, Y6, Y7, Y0, Y1, Y2, Y3, Y4, Y19, 12)
	WIDE_ROUND(Y4, Y5, Y6, Y7, Y0, Y1, Y2, Y3, Y20, 16)
	WIDE_ROUND(Y3, Y4, Y5, Y6, Y7, Y0, Y1, Y2, Y21, 20)
	WIDE_ROUND(Y2, Y3, Y4, Y5, Y6, Y7, Y0, Y1, Y22, 24)
	WIDE_ROUND(Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y0, Y23, 28)
	WIDE_ROUND(Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y24, 32)
	WIDE_ROUND(Y7, Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y25, 36)
	WIDE_ROUND(Y6, Y7, Y0, Y1, Y2, Y3, Y4, Y5, Y26, 40)
	WIDE_ROUND(Y5, Y6, Y7, Y0, Y1, Y2, Y3, Y4, Y27, 44)
	WIDE_ROUND(Y4, Y5, Y6, Y7, Y0, Y1, Y2, Y3, Y28, 48)
	WIDE_ROUND(Y3, Y4, Y5, Y6, Y7, Y0, Y1, Y2, Y29, 52)
	WIDE_ROUND(Y2, Y3, Y4, Y5, Y6, Y7, Y0, Y1, Y30, 56)
	WIDE_ROUND(Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y0, Y31, 60)
	MOVQ $3, R13

rounds:
	ADDQ $64, SI
	WIDE_NEXT(Y16, Y17, Y25, Y30)
	WIDE_ROUND(Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y16, 0)
	WIDE_NEXT(Y17, Y18, Y26, Y31)
	WIDE_ROUND(Y7, Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y17, 4)
	WIDE_NEXT(Y18, Y19, Y27, Y16)
	WIDE_ROUND(Y6, Y7, Y0, Y1, Y2, Y3, Y4, Y5, Y18, 8)
	WIDE_NEXT(Y19, Y20, Y28, Y17)
	WIDE_ROUND(Y5, Y6, Y7, Y0, Y1, Y2, Y3, Y4, Y19, 12)
	WIDE_NEXT(Y20, Y21, Y29, Y18)
	WIDE_ROUND(Y4, Y5, Y6, Y7, Y0, Y1, Y2, Y3, Y20, 16)
	WIDE_NEXT(Y21, Y22, Y30, Y19)
	WIDE_ROUND(Y3, Y4, Y5, Y6, Y7, Y0, Y1, Y2, Y21, 20)
	WIDE_NEXT(Y22, Y23, Y31, Y20)
	WIDE_ROUND(Y2, Y3, Y4, Y5, Y6, Y7, Y0, Y1, Y22, 24)
	WIDE_NEXT(Y23, Y24, Y16, Y21)
	WIDE_ROUND(Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y0, Y23, 28)
	WIDE_NEXT(Y24, Y25, Y17, Y22)
	WIDE_ROUND(Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y24, 32)
	WIDE_NEXT(Y25, Y26, Y18, Y23)
	WIDE_ROUND(Y7, Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y25, 36)
	WIDE_NEXT(Y26, Y27, Y19, Y24)
	WIDE_ROUND(Y6, Y7, Y0, Y1, Y2, Y3, Y4, Y5, Y26, 40)
	WIDE_NEXT(Y27, Y28, Y20, Y25)
	WIDE_ROUND(Y5, Y6, Y7, Y0, Y1, Y2, Y3, Y4, Y27, 44)
	WIDE_NEXT(Y28, Y29, Y21, Y26)
	WIDE_ROUND(Y4, Y5, Y6, Y7, Y0, Y1, Y2, Y3, Y28, 48)
	WIDE_NEXT(Y29, Y30, Y22, Y27)
	WIDE_ROUND(Y3, Y4, Y5, Y6, Y7, Y0, Y1, Y2, Y29, 52)
	WIDE_NEXT(Y30, Y31, Y23, Y28)
	WIDE_ROUND(Y2, Y3, Y4, Y5, Y6, Y7, Y0, Y1, Y30, 56)
	WIDE_NEXT(Y31, Y16, Y24, Y29)
	WIDE_ROUND(Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y0, Y31, 60)
	DECQ R13
	JNZ  rounds
	UPDATE(DI)
	ADDQ $64, CX
	DECQ n+16(FP)
	JNZ  block
	VZEROUPPER
	RET

// NARROW_KEEP stores what WORDS loaded where narrowBlocks keeps the words.
#define NARROW_KEEP(w) \
	VMOVDQA Y8, (w+0)(DI) \
	VMOVDQA Y9, (w+32)(DI) \
	VMOVDQA Y10, (w+64)(DI) \
	VMOVDQA Y11, (w+96)(DI)

// NARROW_ROUND is WIDE_ROUND where there is no rotation and no logic of three. bc is b^c, ab becomes a^b, which is
// the next round's b^c: Maj(a, b, c) = b ^ (a^b & b^c).
#define NARROW_ROUND(a, b, c, d, e, f, g, h, w, k, ab, bc) \
	VPBROADCASTD k(SI), Y8 \
	VPADDD       w(DI), h, h \
	VPADDD       Y8, h, h \
	VPSRLD       $6, e, Y8 \
	VPSLLD       $26, e, Y9 \
	VPSRLD       $11, e, Y10 \
	VPSLLD       $21, e, Y11 \
	VPSRLD       $25, e, Y12 \
	VPSLLD       $7, e, Y13 \
	VPXOR        Y9, Y8, Y8 \
	VPXOR        Y11, Y10, Y10 \
	VPXOR        Y13, Y12, Y12 \
	VPXOR        Y10, Y8, Y8 \
	VPXOR        g, f, Y9 \
	VPXOR        Y12, Y8, Y8 \
	VPAND        e, Y9, Y9 \
	VPADDD       Y8, h, h \
	VPXOR        g, Y9, Y9 \ // Ch
	VPADDD       Y9, h, h \
	VPADDD       h, d, d \
	VPSRLD       $2, a, Y8 \
	VPSLLD       $30, a, Y9 \
	VPSRLD       $13, a, Y10 \
	VPSLLD       $19, a, Y11 \
	VPSRLD       $22, a, Y12 \
	VPSLLD       $10, a, Y13 \
	VPXOR        Y9, Y8, Y8 \
	VPXOR        Y11, Y10, Y10 \
	VPXOR        Y13, Y12, Y12 \
	VPXOR        Y10, Y8, Y8 \
	VPXOR        b, a, ab \
	VPXOR        Y12, Y8, Y8 \
	VPAND        ab, bc, bc \
	VPADDD       Y8, h, h \
	VPXOR        b, bc, bc \ // Maj
	VPADDD       bc, h, h

// NARROW_NEXT is WIDE_NEXT with the words in memory.
#define NARROW_NEXT(w0, w1, w9, w14) \
	VMOVDQA w1(DI), Y8 \
	VPSRLD  $7, Y8, Y9 \
	VPSLLD  $25, Y8, Y10 \
	VPSRLD  $18, Y8, Y11 \
	VPSLLD  $14, Y8, Y12 \
	VPSRLD  $3, Y8, Y8 \
	VPXOR   Y10, Y9, Y9 \
	VPXOR   Y12, Y11, Y11 \
	VPXOR   Y8, Y9, Y9 \
	VMOVDQA w14(DI), Y10 \
	VPXOR   Y11, Y9, Y9 \
	VPADDD  w0(DI), Y9, Y9 \
	VPSRLD  $17, Y10, Y11 \
	VPSLLD  $15, Y10, Y12 \
	VPSRLD  $19, Y10, Y13 \
	VPSLLD  $13, Y10, Y8 \
	VPSRLD  $10, Y10, Y10 \
	VPXOR   Y12, Y11, Y11 \
	VPXOR   Y8, Y13, Y13 \
	VPXOR   Y10, Y11, Y11 \
	VPADDD  w9(DI), Y9, Y9 \
	VPXOR   Y13, Y11, Y11 \
	VPADDD  Y11, Y9, Y9 \
	VMOVDQA Y9, w0(DI)

// func narrowBlocks(state *state, messages *[Lanes]*byte, n int)
//
// It keeps the 16 words that the next rounds need on the stack, at DI, aligned.
TEXT ·narrowBlocks(SB), 0, $544-24
	LEAQ  words-544(SP), DI
	ADDQ  $31, DI
	ANDQ  $~31, DI
	MOVQ  messages+8(FP), SI
	LANES(SI)
	XORQ  CX, CX
	MOVQ  state+0(FP), SI
	STATE(SI)

block:
	LEAQ  constants<>(SB), SI
	WORDS(0)
	NARROW_KEEP(0)
	WORDS(16)
	NARROW_KEEP(128)
	WORDS(32)
	NARROW_KEEP(256)
	WORDS(48)
	NARROW_KEEP(384)
	VPXOR Y2, Y1, Y15
	NARROW_ROUND(Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, 0, 0, Y14, Y15)
	NARROW_ROUND(Y7, Y0, Y1, Y2, Y3, Y4, Y5, Y6, 32, 4, Y15, Y14)
	NARROW_ROUND(Y6, Y7, Y0, Y1, Y2, Y3, Y4, Y5, 64, 8, Y14, Y15)
	NARROW_ROUND(Y5, Y6, Y7, Y0, Y1, Y2, Y3, Y4, 96, 12, Y15, Y14)
	NARROW_ROUND(Y4, Y5, Y6, Y7, Y0, Y1, Y2, Y3, 128, 16, Y14, Y15)
	NARROW_ROUND(Y3, Y4, Y5, Y6, Y7, Y0, Y1, Y2, 160, 20, Y15, Y14)
	NARROW_ROUND(Y2, Y3, Y4, Y5, Y6, Y7, Y0, Y1, 192, 24, Y14, Y15)
	NARROW_ROUND(Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y0, 224, 28, Y15, Y14)
	NARROW_ROUND(Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, 256, 32, Y14, Y15)
	NARROW_ROUND(Y7, Y0, Y1, Y2, Y3, Y4, Y5, Y6, 288, 36, Y15, Y14)
	NARROW_ROUND(Y6, Y7, Y0, Y1, Y2, Y3, Y4, Y5, 320, 40, Y14, Y15)
	NARROW_ROUND(Y5, Y6, Y7, Y0, Y1, Y2, Y3, Y4, 352, 44, Y15, Y14)
	NARROW_ROUND(Y4, Y5, Y6, Y7, Y0, Y1, Y2, Y3, 384, 48, Y14, Y15)
	NARROW_ROUND(Y3, Y4, Y5, Y6, Y7, Y0, Y1, Y2, 416, 52, Y15, Y14)
	NARROW_ROUND(Y2, Y3, Y4, Y5, Y6, Y7, Y0, Y1, 448, 56, Y14, Y15)
	NARROW_ROUND(Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y0, 480, 60, Y15, Y14)
	MOVQ  $3, R13

rounds:
	ADDQ  $64, SI
	NARROW_NEXT(0, 32, 288, 448)
	NARROW_ROUND(Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, 0, 0, Y14, Y15)
	NARROW_NEXT(32, 64, 320, 480)
	NARROW_ROUND(Y7, Y0, Y1, Y2, Y3, Y4, Y5, Y6, 32, 4, Y15, Y14)
	NARROW_NEXT(64, 96, 352, 0)
	NARROW_ROUND(Y6, Y7, Y0, Y1, Y2, Y3, Y4, Y5, 64, 8, Y14, Y15)
	NARROW_NEXT(96, 128, 384, 32)
	NARROW_ROUND(Y5, Y6, Y7, Y0, Y1, Y2, Y3, Y4, 96, 12, Y15, Y14)
	NARROW_NEXT(128, 160, 416, 64)
	NARROW_ROUND(Y4, Y5, Y6, Y7, Y0, Y1, Y2, Y3, 128, 16, Y14, Y15)
	NARROW_NEXT(160, 192, 448, 96)
	NARROW_ROUND(Y3, Y4, Y5, Y6, Y7, Y0, Y1, Y2, 160, 20, Y15, Y14)
	NARROW_NEXT(192, 224, 480, 128)
	NARROW_ROUND(Y2, Y3, Y4, Y5, Y6, Y7, Y0, Y1, 192, 24, Y14, Y15)
	NARROW_NEXT(224, 256, 0, 160)
	NARROW_ROUND(Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y0, 224, 28, Y15, Y14)
	NARROW_NEXT(256, 288, 32, 192)
	NARROW_ROUND(Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, 256, 32, Y14, Y15)
	NARROW_NEXT(288, 320, 64, 224)
	NARROW_ROUND(Y7, Y0, Y1, Y2, Y3, Y4, Y5, Y6, 288, 36, Y15, Y14)
	NARROW_NEXT(320, 352, 96, 256)
	NARROW_ROUND(Y6, Y7, Y0, Y1, Y2, Y3, Y4, Y5, 320, 40, Y14, Y15)
	NARROW_NEXT(352, 384, 128, 288)
	NARROW_ROUND(Y5, Y6, Y7, Y0, Y1, Y2, Y3, Y4, 352, 44, Y15, Y14)
	NARROW_NEXT(384, 416, 160, 320)
	NARROW_ROUND(Y4, Y5, Y6, Y7, Y0, Y1, Y2, Y3, 384, 48, Y14, Y15)
	NARROW_NEXT(416, 448, 192, 352)
	NARROW_ROUND(Y3, Y4, Y5, Y6, Y7, Y0, Y1, Y2, 416, 52, Y15, Y14)
	NARROW_NEXT(448, 480, 224, 384)
	NARROW_ROUND(Y2, Y3, Y4, Y5, Y6, Y7, Y0, Y1, 448, 56, Y14, Y15)
	NARROW_NEXT(480, 0, 256, 416)
	NARROW_ROUND(Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y0, 480, 60, Y15, Y14)
	DECQ  R13
	JNZ   rounds
	MOVQ  state+0(FP), SI
	UPDATE(SI)
	ADDQ  $64, CX
	DECQ  n+16(FP)
	JNZ   block
	VZEROUPPER
	RET
