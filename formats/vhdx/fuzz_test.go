package vhdx_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vhdx"
)

// FuzzOpen is not given a whole file, which is too large for the fuzzer, but the parts that are looked
// at. They are put where they belong in a file of zeros; their checksums are made right unless bit 7 of size is set.
// log is the start of the log's first entry; its data sectors follow.
func FuzzOpen(f *testing.F) {
	differencing := tiny()
	differencing.flags, differencing.parent = 2, linked("p")
	differencing.partial = map[int]func(int) bool{1: func(k int) bool { return k%2 == 0 }}
	sectors := tiny()
	sectors.sector, sectors.size, sectors.block, sectors.stored = 4096, 3*mib, 2*mib, []int{1}
	for _, s := range []spec{tiny(), differencing, sectors, {size: 5 << 40, block: 256 * mib}} {
		p, _, size := s.make()
		for _, seed := range []struct{ header1, header2, regions []byte }{
			{p[header1:][:80], p[header2:][:80], p[regions1:][:16+2*32]},
			{nil, p[header1:][:80], p[regions1:][:16+2*32]},
		} {
			f.Add(seed.header1, seed.header2, seed.regions, []byte(p[metadataAt:][:32+6*32]), []byte(p[itemsAt:][:260]), []byte(p[batAt:][:40]), []byte(nil), byte(size/mib))
		}
	}
	p, good := lost()
	for _, l := range []logSpec{
		logOf(found(good)), logOf([]change{{off: batAt, n: 1 << 20}, {off: blocksAt, n: 8192}, {off: blocksAt + 4096, data: make([]byte, 4096)}}),
	} {
		l.write(p.dirty())
		f.Add([]byte(p[header1:][:80]), []byte(p[header2:][:80]), []byte(p[regions1:][:16+2*32]), []byte(good[metadataAt:][:32+6*32]), []byte(good[itemsAt:][:160]), []byte(good[batAt:][:40]),
			[]byte(p[logAt:][:64+3*32]), byte(tinyEnd/mib))
	}
	parent := formatstest.Files{Bytes: map[string][]byte{"p": parentDisk().whole()}}
	f.Fuzz(func(t *testing.T, first, second, regions, metadata, items, bat, log []byte, size byte) {
		parts := []formatstest.Piece{{Data: []byte("vhdxfile")}}
		if len(log) > 0 {
			parts = append(parts, formatstest.Piece{Offset: logAt, Data: fuzzedLog(log, size&0x80 == 0)})
		}
		for _, part := range []struct {
			at, room int64
			p        []byte
			summed   bool
		}{
			{header1, 4096, first, true}, {header2, 4096, second, true}, {regions1, 65536, regions, true}, {regions2, 65536, regions, true},
			{metadataAt, 65536, metadata, false}, {itemsAt, mib - 65536, items, false}, {batAt, mib, bat, false},
		} {
			p := image(part.p[:min(part.room, int64(len(part.p)))])
			if part.summed {
				p = append(p[:len(p):len(p)], make([]byte, part.room-int64(len(p)))...)
				if size&0x80 == 0 {
					p.sum(0, len(p))
				}
			}
			parts = append(parts, formatstest.Piece{Offset: part.at, Data: p})
		}
		src := formatstest.NewSparseSource(int64(size&0x7f)*mib, parts...)
		in, _ := vhdx.Format().Info(context.Background(), src)
		formatstest.Fuzzed{
			Format: vhdx.Format(), Source: func() formats.Source { return src }, Resolver: parent, Budget: 256 << 10,
			OpenVerifies: len(in.Refs) == 0, // Info and Check don't look at a parent
		}.Run(t)
	})
}

// fuzzedLog makes an entry of two sectors and its data out of p, with the numbers of its header where they belong, so
// that the fuzzer need not find them.
func fuzzedLog(p []byte, right bool) image {
	e := image(append(bytes.Clone(p[:min(len(p), 4096)]), make([]byte, 12<<10)...))[:12<<10]
	if !right {
		return e
	}
	number := binary.LittleEndian.Uint64(e[16:])
	for i := range int(binary.LittleEndian.Uint32(e[24:]) % 127) {
		e.u64(64+32*i+24, number)
	}
	for at := 4096; at < len(e); at += 4096 {
		e.str(at, "data").u32(at+4, uint32(number>>32)).u32(at+4092, uint32(number))
	}
	return e.u32(8, uint32(len(e))).u32(12, 0).sum(0, len(e))
}
