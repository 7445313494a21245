package vdi_test

import (
	"bytes"
	"encoding/binary"

	"imgferry/formats/formatstest"
)

// tiny is a hand-made dynamic image with blocks of 4096 bytes: header, block map, then the blocks of
// the whole disk.
const (
	tinyBlock = 4096
	tinyMap   = 512
	tinyData  = 1024
	tinyCount = 4
)

type imageBytes []byte

func tiny() imageBytes {
	p := make(imageBytes, tinyData+tinyCount*tinyBlock)
	p.str(0, "<<< a disk >>>\n").u32(64, 0xbeda107f).u32(68, 0x10001).u32(72, 400).u32(76, 1)
	p.u32(340, tinyMap).u32(344, tinyData).u32(360, 512)
	p.u64(368, tinyCount*tinyBlock).u32(376, tinyBlock).u32(384, tinyCount).u32(388, tinyCount)
	p.str(392, "\x33\x22\x11\x00\x55\x44\x77\x66\x88\x99\xaa\xbb\xcc\xdd\xee\xff")
	for i := range tinyCount {
		p.entry(i, uint32(i))
	}
	copy(p[tinyData:], tinyContent())
	return p
}

// usual is a disk of 4 blocks of 1 MiB, the only size that QEMU reads, stored in blocks blocks.
func usual(blocks int) imageBytes {
	const mib = 1 << 20
	p := append(tiny()[:tinyData], formatstest.Noise(10, blocks*mib)...)
	return p.u64(368, tinyCount*mib).u32(376, mib).u32(388, uint32(blocks))
}

func (p imageBytes) u32(off int, v uint32) imageBytes {
	binary.LittleEndian.PutUint32(p[off:], v)
	return p
}
func (p imageBytes) u64(off int, v uint64) imageBytes {
	binary.LittleEndian.PutUint64(p[off:], v)
	return p
}
func (p imageBytes) str(off int, s string) imageBytes { copy(p[off:], s); return p }

// entry sets the map's entry of block i.
func (p imageBytes) entry(i int, v uint32) imageBytes { return p.u32(tinyMap+4*i, v) }

// tinyContent is what the disk of an unchanged tiny image holds.
func tinyContent() []byte { return formatstest.Noise(9, tinyCount*tinyBlock) }

// built are images that qemu-img doesn't write.
func built() []formatstest.Case {
	data := tinyContent()
	piece := func(block, from int) formatstest.Piece {
		return formatstest.Piece{Offset: int64(block) * tinyBlock, Data: data[from*tinyBlock:][:tinyBlock]}
	}
	extra := append(tiny().u32(380, 512)[:tinyData], make([]byte, tinyCount*(tinyBlock+512))...)
	for i := range tinyCount {
		at := tinyData + i*(tinyBlock+512)
		extra.str(at, "this belongs to the block, but not to the disk")
		copy(extra[at+512:], data[i*tinyBlock:][:tinyBlock])
	}
	sectors := tiny().u32(376, 512).u64(368, 32*512).u32(384, 32).u32(388, 32)
	for i := range 32 {
		sectors.entry(i, uint32(31-i))
	}
	var backwards []formatstest.Piece
	for i := range 32 {
		backwards = append(backwards, formatstest.Piece{Offset: int64(i) * 512, Data: data[(31-i)*512:][:512]})
	}
	unaligned := append(imageBytes(nil), tiny()[:tinyMap]...)
	unaligned = append(append(append(unaligned, "?"...), tiny()[tinyMap:tinyMap+16]...), data...)
	return []formatstest.Case{
		{Name: "plain", Image: tiny(), Size: tinyCount * tinyBlock, Content: bytes.NewReader(data)},
		{Name: "static", Image: tiny().u32(76, 2), Size: tinyCount * tinyBlock, Content: bytes.NewReader(data)},
		{Name: "out of order", Image: tiny().entry(0, 2).entry(2, 0),
			Size: tinyCount * tinyBlock, Content: formatstest.Sparse(piece(0, 2), piece(1, 1), piece(2, 0), piece(3, 3))},
		{Name: "never written, discarded", Image: tiny().entry(0, 0xffffffff).entry(2, 0xfffffffe).u32(388, 2),
			Size: tinyCount * tinyBlock, Content: formatstest.Sparse(piece(1, 1), piece(3, 3))},
		{Name: "extra bytes in blocks", Image: extra, Size: tinyCount * tinyBlock, Content: bytes.NewReader(data)},
		{Name: "an odd size, and a last block as short", Image: tiny()[:tinyData+3*tinyBlock+101].u64(368, 3*tinyBlock+101),
			Size: 3*tinyBlock + 101, Content: bytes.NewReader(data)},
		{Name: "blocks of 512 bytes, backwards", Image: sectors, Size: 32 * 512, Content: formatstest.Sparse(backwards...)},
		{Name: "map and data anywhere", Image: unaligned.u32(340, tinyMap+1).u32(344, tinyMap+17),
			Size: tinyCount * tinyBlock, Content: bytes.NewReader(data)},
		{Name: "blocks beyond the disk", Image: tiny().u64(368, 2*tinyBlock-512), Size: 2*tinyBlock - 512, Content: bytes.NewReader(data)},
		{Name: "a small header", Image: tiny().u32(72, 384), Size: tinyCount * tinyBlock, Content: bytes.NewReader(data)},
	}
}
