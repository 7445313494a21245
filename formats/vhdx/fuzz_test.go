package vhdx_test

import (
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vhdx"
)

// FuzzOpen is not given a whole file, which is too large for the fuzzer, but the parts that are looked
// at. They are put where they belong in a file of zeros; their checksums are made right unless bit 7 of size is set.
func FuzzOpen(f *testing.F) {
	differencing := tiny()
	differencing.flags, differencing.parent = 2, [][2]string{{"relative_path", "p"}}
	sectors := tiny()
	sectors.sector, sectors.size, sectors.block, sectors.stored = 4096, 3*mib, 2*mib, []int{1}
	for _, s := range []spec{tiny(), differencing, sectors, {size: 5 << 40, block: 256 * mib}} {
		p, _, size := s.make()
		for _, seed := range []struct{ header1, header2, regions []byte }{
			{p[header1:][:80], p[header2:][:80], p[regions1:][:16+2*32]},
			{nil, p[header1:][:80], p[regions1:][:16+2*32]},
		} {
			f.Add(seed.header1, seed.header2, seed.regions, []byte(p[metadataAt:][:32+6*32]), []byte(p[itemsAt:][:160]), []byte(p[batAt:][:40]), byte(size/mib))
		}
	}
	f.Fuzz(func(t *testing.T, first, second, regions, metadata, items, bat []byte, size byte) {
		parts := []formatstest.Piece{{Data: []byte("vhdxfile")}}
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
		formatstest.Fuzzed{Format: vhdx.Format(), Source: func() formats.Source { return src }, Budget: 256 << 10, OpenVerifies: true}.Run(t)
	})
}
