package vhdx_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vhdx"
)

// FuzzOpen opens, walks, reads and checks whatever it is given. Besides panics and hangs it looks for
// contradictions: between Info, Open and Check, between extents and content, and between two ways to
// read.
//
// A whole file is too large for the fuzzer. It is given the parts that are looked at, which are put
// where they belong in a file of zeros; their checksums are made right unless bit 7 of size is set.
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
		src := newSparse(int64(size&0x7f)*mib, parts...)
		ctx := context.Background()
		format := vhdx.Format()
		in, err := format.Info(ctx, src)
		if err != nil {
			t.Fatalf("info: %v", err)
		}
		list, _, checkErr := findings(src)
		if checkErr != nil {
			checkClass(t, checkErr)
		}
		img, err := format.Open(ctx, src, nil)
		if err != nil {
			checkClass(t, err)
			if in.Problem == nil && checkErr == nil && len(list) == 0 {
				t.Fatalf("%v, but info and check find nothing", err)
			}
			return
		}
		defer img.Close()
		if in.Problem != nil || checkErr != nil || in.VirtualSize != img.Size() {
			t.Fatalf("info says %d bytes, problem %v; check %v; it opened with %d", in.VirtualSize, in.Problem, checkErr, img.Size())
		}
		// A walk is bounded by the file, not by the virtual size; reading is bounded here.
		var pos int64
		budget := int64(256 << 10)
		for e, err := range img.Extents(ctx) {
			if err != nil || e.Offset != pos || e.Length <= 0 || e.Length > img.Size()-pos {
				t.Fatalf("run %+v, %v, expected one at %d of %d", e, err, pos, img.Size())
			}
			pos += e.Length
			n := min(e.Length, budget, 64<<10)
			budget -= n
			if n > 0 {
				checkRun(t, img, src, e, n)
			}
		}
		if pos != img.Size() {
			t.Fatalf("runs cover %d of %d bytes", pos, img.Size())
		}
	})
}

// checkRun reads the first n bytes of a run in one piece and in three.
func checkRun(t *testing.T, img formats.Image, src formats.Source, e formats.Extent, n int64) {
	whole := bytes.Repeat([]byte{0xdb}, int(n))
	if k, err := img.ReadAt(whole, e.Offset); int64(k) != n || err != nil && err != io.EOF {
		t.Fatalf("%+v: %d of %d bytes, %v", e, k, n, err)
	}
	want := make([]byte, n)
	if !e.Zero {
		if err := formats.ReadFull(src, want, e.HostOffset); err != nil {
			t.Fatalf("%+v: %v", e, err)
		}
	}
	if !bytes.Equal(whole, want) {
		t.Fatalf("%+v does not lie there", e)
	}
	parts := make([]byte, n)
	for _, r := range [][2]int64{{n / 3, n / 2}, {0, n / 3}, {n / 2, n}} {
		if k, err := img.ReadAt(parts[r[0]:r[1]], e.Offset+r[0]); int64(k) != r[1]-r[0] || err != nil && err != io.EOF {
			t.Fatalf("%+v, bytes %v: %d, %v", e, r, k, err)
		}
	}
	if !bytes.Equal(whole, parts) {
		t.Fatalf("%+v reads differently in parts", e)
	}
}

func checkClass(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, formats.ErrCorrupt) && !errors.Is(err, formats.ErrUnsupported) && !errors.Is(err, formats.ErrNotAllowed) {
		t.Fatalf("an error without a class: %v", err)
	}
}
