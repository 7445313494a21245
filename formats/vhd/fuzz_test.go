package vhd_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"imgferry/formats"
	"imgferry/formats/formatstest"
	"imgferry/formats/vhd"
)

// FuzzOpen opens, walks, reads and checks whatever it is given. Besides panics and hangs it looks for
// contradictions: between Info, Open and Check, between extents and content, and between two ways to
// read. Checksums are made right first: the fuzzer would not find them.
func FuzzOpen(f *testing.F) {
	// Small seeds only: the fuzzer spends its time on minimising large ones.
	data := noise(1, 1024)
	dynamic := spec{size: 1000, block: 512, content: data, stored: []int{1}}
	for _, s := range []spec{
		dynamic,
		{kind: 2, size: 600, content: data[:600]},
		{size: 1024, block: 512, content: data, stored: []int{1}, old: true},
		{creator: "vpc ", chs: [3]int{1, 2, 3}, size: 4096, block: 1024},
		{kind: 4, size: 512, block: 512, parent: "parent.vhd", relative: "p.vhd"},
	} {
		f.Add([]byte(s.make()), s.kind != 2)
	}
	f.Add([]byte(dynamic.make()[:3072]), false)

	f.Fuzz(func(t *testing.T, p []byte, seal bool) {
		if seal && len(p) >= headerAt+1024 {
			p = image(bytes.Clone(p)).seal()
		}
		ctx := context.Background()
		format := vhd.Format()
		if _, err := format.Probe(formatstest.NewSource(p)); err != nil {
			t.Fatalf("probe: %v", err)
		}
		in, err := format.Info(ctx, formatstest.NewSource(p))
		if err != nil {
			t.Fatalf("info: %v", err)
		}
		list, _, checkErr := findings(p)
		if checkErr != nil {
			checkClass(t, checkErr)
		}
		img, err := format.Open(ctx, formatstest.NewSource(p), nil)
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
		budget := int64(4 << 20)
		for e, err := range img.Extents(ctx) {
			if err != nil || e.Offset != pos || e.Length <= 0 || e.Length > img.Size()-pos {
				t.Fatalf("run %+v, %v, expected one at %d of %d", e, err, pos, img.Size())
			}
			pos += e.Length
			n := min(e.Length, budget, 1<<20)
			budget -= n
			if n > 0 {
				checkRun(t, img, p, e, n)
			}
		}
		if pos != img.Size() {
			t.Fatalf("runs cover %d of %d bytes", pos, img.Size())
		}
	})
}

// checkRun reads the first n bytes of a run in one piece and in three.
func checkRun(t *testing.T, img formats.Image, file []byte, e formats.Extent, n int64) {
	whole := bytes.Repeat([]byte{0xdb}, int(n))
	if k, err := img.ReadAt(whole, e.Offset); int64(k) != n || err != nil && err != io.EOF {
		t.Fatalf("%+v: %d of %d bytes, %v", e, k, n, err)
	}
	if e.Zero && !bytes.Equal(whole, make([]byte, n)) {
		t.Fatalf("%+v is not zero", e)
	}
	if !e.Zero && !bytes.Equal(whole, file[e.HostOffset:][:n]) {
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
